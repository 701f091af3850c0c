"""Mistakes in a configuration file are named with file, line, key and what is allowed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.common.config.loader import ConfigError, load, overlaid
from services.common.config.model import Config


def _file(folder: Path, text: str) -> Path:
    path = folder / "gatepost.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(_file(tmp_path, "")) == Config()
    assert load(_file(tmp_path, "# nothing\n")) == Config()
    assert load(None) == Config()


def test_the_file_is_laid_over_the_defaults_section_by_section(tmp_path: Path) -> None:
    path = _file(tmp_path, "smtp:\n  require_tls: true\n")
    defaults = {"smtp": {"hostname": "mx.example.org", "require_tls": False}}
    config = load(path, defaults=defaults)
    assert config.smtp.require_tls is True
    assert config.smtp.hostname == "mx.example.org"


def test_lists_are_replaced_not_joined() -> None:
    assert overlaid({"a": [1, 2], "b": {"c": 1}}, {"a": [3], "b": {"d": 2}}) == {
        "a": [3],
        "b": {"c": 1, "d": 2},
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("smpt:\n  require_tls: true\n", "line 1: smpt: no such setting"),
        ("smtp:\n  requiretls: true\n", "line 2: smtp.requiretls: no such setting"),
        (
            "delivery:\n  retry:\n    interval: 60\n",
            "line 3: delivery.retry.interval: a duration is a number with a unit",
        ),
        (
            "smtp:\n  limits:\n    line_length: 100\n",
            "line 3: smtp.limits.line_length: must be 0 (any) or at least 998",
        ),
        ("smtp:\n\n  max_message_size: lots\n", "line 3: smtp.max_message_size: a size is"),
        (
            "smtp:\n  listeners:\n    - {name: a, port: 25}\n    - {name: b, port: 99999}\n",
            "line 4: smtp.listeners.1.port: should be less than or equal to 65535",
        ),
        (
            "policy:\n  actions:\n    helo_mismatch: reject\n",
            "line 3: policy.actions.helo_mismatch: should be 'accept', 'spam' or 'refuse'",
        ),
        ("smtp:\n  require_tls: maybe\n", "line 2: smtp.require_tls: must be true or false"),
        ("domains:\n  local: [exa_mple.org]\n", "line 2: domains.local.0: "),
        ("smtp:\n  require_tls: true\n  require_tls: false\n", "line 3, column 3: the key"),
        ("smtp: [\n", "line 2, column 1: "),
        (
            "smtp: !!python/object/apply:os.system ['true']\n",
            "line 1, column 7: could not determine",
        ),
        ("- smtp\n", "must hold sections such as `smtp:`, not a list"),
        (
            "dns:\n  servers: [resolver]\n",
            "line 2: dns.servers.0: DNS server 'resolver' is not an IP",
        ),
        ("dns: {timeout: 1s}\n", "line 1: dns: attempt_timeout must be above 0"),
        ("smtp: 5\n", "line 1: smtp: must be settings, such as {key: value}"),
        (
            "domains: {local: example.org}\n",
            "line 1: domains.local: must be a list, such as [a, b]",
        ),
        (
            "delivery: {smarthost: smtp.example.com}\n",
            "line 1: delivery.smarthost: must be settings, such as {key: value}",
        ),
        ("smtp: {listeners: []}\n", "line 1: smtp.listeners: must have at least 1 of them"),
        ("smtp: {hostname: 5}\n", "line 1: smtp.hostname: a domain, for example example.org"),
        ("delivery: {helo_name: [a]}\n", "line 1: delivery.helo_name: a host, for example"),
        (
            "smtp: {tls: {further: [{key_file: a}]}}\n",
            "line 1: smtp.tls.further.0.certificate_file: must be set",
        ),
        (
            "recipients: {subaddress_separator: xx}\n",
            "line 1: recipients.subaddress_separator: must match ^",
        ),
        *(
            (f"delivery: {{retry: {{max_retries: {value}}}}}\n", f"{key}: must be a whole number")
            for value in ("lots", "1.5", "null", "[1]")
            for key in ("line 1: delivery.retry.max_retries",)
        ),
        ("1: 2\n", "line 1: 1: "),
        ("&a [*a]\n", "must hold sections"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: {complaint}"), problem


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("smpt: {}\n", "smtp"),
        ("smtp: {requiretls: true}\n", "require_tls"),
        ("smtp:\n  listeners:\n    - {name: a, prot: 25}\n", "port"),
        ("delivery: {sender_smarthosts: {a.test: {hots: b.test}}}\n", "host"),
        ("delivery: {smarthost: {alternatives: [{usrname: a}]}}\n", "username"),
        ("smtp: {xyzzy: 1}\n", ""),
    ],
)
def test_the_key_that_was_meant_is_named(tmp_path: Path, text: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(_file(tmp_path, text))
    named = [problem for problem in caught.value.problems if "no such setting" in problem]
    assert len(named) == 1
    meant = f" (did you mean {near}?)" if near else ""
    assert f": no such setting{meant}; `gatepost config schema`" in named[0]


def test_mistakes_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "foo: 1\ndelivery: {retry: {max_retries: x}}\nbar: 2\nsmtp:\n  baz: 3\n  limits: 4\n"
    with pytest.raises(ConfigError) as caught:
        load(_file(tmp_path, text))
    lines = [problem.split(": ")[1] for problem in caught.value.problems]
    assert lines == ["line 1", "line 2", "line 3", "line 5", "line 6"]


def _places(values: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if place:
        yield place
    if isinstance(values, dict):
        for key, below in values.items():
            yield from _places(below, (*place, key))


ODD = (5, -1.5, True, None, "x y", [5], [None], [[1]], {"a": 1}, {"a.test": {"host": 5}}, {5: 5})


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_no_value_anywhere_brings_more_than_plain_words(odd: object) -> None:
    for place in _places(Config().model_dump(mode="json")):
        values: Any = odd
        for key in reversed(place):
            values = {key: values}
        told = _problems(values)
        for word in ("tuple", "dictionary", "instance", "integer", "boolean", "pathlib"):
            assert word not in told, f"{place}: {told}"


def _problems(values: Mapping[str, Any]) -> str:
    try:
        load(None, defaults=values)
    except ConfigError as error:
        return str(error)
    return ""


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = _file(tmp_path, "foo: 1\nsmtp:\n  bar: 2\n  max_message_size: x\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert len(caught.value.problems) == 3


def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.yaml"
    with pytest.raises(ConfigError, match=f"{missing}: cannot be read: No such file"):
        load(missing)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_octets_that_are_no_text_are_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "gatepost.yaml"
    path.write_bytes(b"smtp: \xff\xfe\x00")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert len(caught.value.problems) == 1
    assert "\n" not in caught.value.problems[0]


def test_the_defaults_are_those_of_the_documentation() -> None:
    config = Config()
    ports = [(s.port, s.role.value, s.tls.value) for s in config.smtp.listeners]
    assert ports == [
        (25, "mx", "starttls"),
        (587, "submission", "starttls"),
        (465, "submission", "implicit"),
    ]
    assert config.smtp.require_tls is False
    assert config.smtp.max_message_size == 100_000_000
    assert config.policy.actions.helo_mismatch == "spam"
    assert config.policy.actions.invalid_sender == "spam"
    assert config.policy.actions.spf_mismatch == "spam"
    assert config.delivery.retry.max_retries == 24
    assert config.delivery.retry.interval.total_seconds() == 3600
    assert config.delivery.dkim.enabled is False
    assert config.delivery.require_tls is False
    assert config.recipients.refuse_unknown is False
    assert config.recipients.auto_create is False


def test_what_config_show_prints_loads_again(tmp_path: Path) -> None:

    values = Config().model_dump(mode="json")
    path = _file(tmp_path, yaml.safe_dump(values))
    assert load(path) == Config()
