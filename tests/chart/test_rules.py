"""`helm install` refuses the configurations that no pod would start with, and no others."""

from typing import Any

import pytest
from pydantic import ValidationError

from services.common.config.loader import overlaid
from services.common.config.model import Config
from tests.support.chart import NEWEST, OLDEST, Refused, render
from tests.support.settings import WRONG, nested

Values = dict[str, Any]


@pytest.mark.parametrize("name", [NEWEST, OLDEST])
@pytest.mark.parametrize("number", range(max(map(len, WRONG.values()))))
def test_the_schema_refuses_every_mistake_by_its_path(name: str, number: int) -> None:
    wrong = {path: values[number] for path, values in WRONG.items() if number < len(values)}
    config: Values = {}
    for path, value in wrong.items():
        # A null in values is a key that is not there.
        config = overlaid(config, nested(path, value)) if value is not None else config
    with pytest.raises(Refused) as refused:
        render({"config": config}, name=name)
    said = str(refused.value).replace("/", ".")
    for path, value in wrong.items():
        assert value is None or f"config.{path.replace('/', '.')}" in said


SECRET: Values = {"delivery": {"smarthostSecret": {"name": "sh"}}}
SERVER = {"host": "a.org", "username": "u", "password_file": "/p"}
MOUNTED: Values = {
    "keys": {"extraVolumeMounts": [{"name": "keys", "mountPath": "/var/lib/gatepost"}]}
}

MISTAKES: list[tuple[Values, str]] = [
    (
        {"smtp": {"limits": {"content_memory": "1MB"}}},
        "config.smtp.limits.content_memory: at least",
    ),
    ({"smtp": {"limits": {"content_memory": "4.1MB"}}}, "content_memory"),
    ({"smtp": {"limits": {"header_size": "1kB"}}}, "config.smtp.limits.header_size: 1KiB to"),
    ({"smtp": {"limits": {"header_size": "0.4MB"}}}, "header_size"),
    (
        {"smtp": {"listeners": [{"name": "mx", "port": 2525}, {"name": "mx", "port": 2526}]}},
        "config.smtp.listeners: two of them have the name mx",
    ),
    ({"delivery": {"backoff": {"initial": "10m"}}}, r"backoff: initial \(10m\) .* limit \(5m\)"),
    ({"delivery": {"backoff": {"limit": "4s"}}}, r"backoff: initial \(5s\) .* limit \(4s\)"),
    ({"delivery": {"backoff": {"initial": "2500ms", "limit": "2s"}}}, "2500ms"),
    ({"delivery": {"concurrency": {"initial": 21}}}, "config.delivery.concurrency"),
    ({"delivery": {"concurrency": {"limit": 401}}}, "config.delivery.concurrency"),
    ({"delivery": {"smarthost": {"host": "a.org", "username": "u"}}}, "smarthost.username: needs"),
    ({"delivery": {"smarthost": {"host": "a.org", "token_file": "/t"}}}, "need a username"),
    ({"delivery": {"smarthost": SERVER | {"host": ""}}}, "credentials need a host"),
    ({"delivery": {"smarthost": SERVER | {"token_file": "/t"}}}, "exclude each other"),
    ({"delivery": {"smarthost": {"alternatives": [{"host": "b.org"}]}}}, "needs a host to be"),
    (
        {"delivery": {"smarthost": {"host": "a.org", "alternatives": [{"port": 25}]}}},
        r"alternatives\[0\]: an alternative needs a host",
    ),
    (
        {"delivery": {"sender_smarthosts": {"b.org": {"host": "a.org", "username": "u"}}}},
        "config.delivery.sender_smarthosts.b.org.username",
    ),
    ({"domains": {"local": ["A.org"], "relay": {"a.org": "smtp:b.org"}}}, "both a local and"),
    ({"dns": {"timeout": 0}}, r"config.dns: attempt_timeout \(2s\) .* timeout \(0\)"),
    ({"keys": {"check_interval": "999ms"}}, "config.keys.check_interval: at least 1s"),
    ({"keys": {"signature_lifetime": "59.9m"}}, "config.keys.signature_lifetime: 0 for none"),
    ({"nats": {"tls": {"ca_file": "/ca"}}}, "config.nats.urls: must begin with tls://"),
    ({"nats": {"urls": ["tls://a:1", "nats://b:1"]}}, "config.nats.urls: must begin with tls://"),
    (
        {"nats": {"urls": ["tls://a:1"], "tls": {"key_file": "/k"}}},
        "config.nats.tls: certificate_file, key_file go together",
    ),
    ({"services": {"tls": {"ca_file": "/ca"}}}, "config.services.tls: .* go together"),
]


@pytest.mark.parametrize(("config", "said"), MISTAKES)
def test_what_does_not_go_together_is_refused(config: Values, said: str) -> None:
    # With the chart's own NATS, and mailboxes, so that this is the only mistake.
    with pytest.raises(ValidationError):
        Config.model_validate(config)
    with pytest.raises(Refused, match=said):
        render({"config": config, "mailbox": {"enabled": True}})


RIGHT: list[tuple[Values, Values]] = [
    ({"smtp": {"limits": {"content_memory": "4MiB", "header_size": "384KiB"}}}, {}),
    ({"smtp": {"limits": {"content_memory": 4 * 2**20, "header_size": 1024}}}, {}),
    ({"delivery": {"backoff": {"initial": "10m", "limit": "600s"}}}, {}),
    ({"delivery": {"concurrency": {"initial": 30, "limit": 30, "total": 30}}}, {}),
    ({"delivery": {"smarthost": SERVER | {"alternatives": [SERVER]}}}, {}),
    ({"delivery": {"smarthost": {"host": "a.org"}}}, {}),
    ({"delivery": {"sender_smarthosts": {"b.org": SERVER}}}, {}),
    ({"dns": {"attempt_timeout": "5s"}}, {}),
    ({"keys": {"check_interval": "1s", "signature_lifetime": "60m"}}, {}),
    ({"keys": {"signature_lifetime": "0s"}}, {}),
    ({"keys": {"store": "file"}}, MOUNTED),
    ({"nats": {"urls": ["tls://a:1", "tls://b:1"], "tls": {"ca_file": "/ca"}}}, {}),
]


@pytest.mark.parametrize(("config", "values"), RIGHT)
def test_what_goes_together_is_taken(config: Values, values: Values) -> None:
    Config.model_validate(config)
    assert render({"config": config, **values}).of("Deployment")


def test_the_password_of_a_smarthost_needs_the_smarthost() -> None:
    with pytest.raises(Refused, match=r"delivery.smarthostSecret.name: a password needs config"):
        render(SECRET)
    with pytest.raises(Refused, match=r"delivery.smarthostSecret.name"):
        render({**SECRET, "config": {"delivery": {"smarthost": {"host": "a.org"}}}})
    smarthost = {"host": "a.org", "username": "u"}
    assert render({**SECRET, "config": {"delivery": {"smarthost": smarthost}}}).of("Deployment")


@pytest.mark.parametrize("mounted", ["/var/lib/gatepost/keyss", "/var/lib/gatepost/keys/below"])
def test_keys_in_files_need_a_volume(mounted: str) -> None:
    values: Values = {"config": {"keys": {"store": "file"}}}
    with pytest.raises(Refused, match=r"config.keys.store: file needs a volume"):
        render(values)
    elsewhere = {"keys": {"extraVolumeMounts": [{"name": "keys", "mountPath": mounted}]}}
    with pytest.raises(Refused, match=r"at /var/lib/gatepost/keys \(config.keys.directory\)"):
        render({**values, **elsewhere})
