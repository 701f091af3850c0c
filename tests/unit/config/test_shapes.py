"""The JSON schema refuses what the model refuses, as far as it can, and never what it takes."""

from datetime import timedelta
from functools import cache
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from services.common.config.delivery import Account
from services.common.config.model import Config
from services.common.config.next_hop import Host, NextHopSetting
from services.common.config.recipients import Address, BlankOrAddress
from services.common.config.types import (
    DnsServer,
    Domain,
    Duration,
    HostPort,
    Network,
    PositiveDuration,
    SenderEntry,
    Size,
    parse_duration,
    parse_size,
)
from tests.support.settings import RIGHT, WRONG, nested

SCHEMA = Config.model_json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

TYPES: dict[str, Any] = {
    "duration": Duration,
    "positive duration": PositiveDuration,
    "size": Size,
    "network": Network,
    "host and port": HostPort,
    "DNS server": DnsServer,
    "domain": Domain,
    "host": Host,
    "next hop": NextHopSetting,
    "sender": SenderEntry,
    "account": Account,
    "address": Address,
    "blank or address": BlankOrAddress,
}
PIECES = (
    "0 1 25 192.0.2.1 ::1 fe80:: 24 0x1 ms s m h d kB MiB B smtp: lmtp: [ ] : / % . - _ @ \" + ' "
    "\\ a B-2 é xn--bcher-kva bücher example.org postmaster"
)
TEXTS = st.lists(st.sampled_from([*PIECES.split(), " ", "\t", "\n"]), max_size=7).map("".join)


def cases(table: Any) -> list[Any]:
    return [
        pytest.param(nested(path, value), id=f"{path}-{number}")
        for path, values in table.items()
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize("values", cases(RIGHT))
def test_what_the_model_takes_is_in_the_schema(values: dict[str, Any]) -> None:
    Config.model_validate(values)
    VALIDATOR.validate(values)


@pytest.mark.parametrize("values", cases(WRONG))
def test_what_the_schema_refuses_the_model_refuses(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate(values)
    assert not VALIDATOR.is_valid(values)


def test_every_default_is_in_the_schema() -> None:
    VALIDATOR.validate(Config().model_dump(mode="json"))


@pytest.mark.parametrize("name", TYPES)
def test_examples_are_right(name: str) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(TYPES[name])
    schema = adapter.json_schema()
    for example in schema.get("examples", []):
        adapter.validate_python(example)
        jsonschema.validate(example, schema)


@cache
def _both(name: str) -> tuple[TypeAdapter[Any], jsonschema.Draft202012Validator]:
    adapter: TypeAdapter[Any] = TypeAdapter(TYPES[name])
    return adapter, jsonschema.Draft202012Validator(adapter.json_schema())


# On a busy machine any example may take long, and every run is to try the same ones.
@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("name", TYPES)
@given(text=TEXTS)
def test_no_text_that_a_type_takes_is_refused_by_its_schema(name: str, text: str) -> None:
    adapter, validator = _both(name)
    try:
        adapter.validate_python(text)
    except ValidationError:
        return
    assert validator.is_valid(text), text


@pytest.mark.parametrize("text", ["9" * 12 + "d", "9" * 400 + "s"])
def test_a_duration_that_no_clock_has_is_a_mistake(text: str) -> None:
    with pytest.raises(ValueError, match="fewer than"):
        parse_duration(text)


def test_a_size_that_nothing_has_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="octets"):
        parse_size("9" * 400 + "B")


def test_space_around_a_value_counts_for_nothing() -> None:
    assert parse_duration(" 5m\n") == timedelta(minutes=5)
    assert parse_size("\t5kB ") == 5000
