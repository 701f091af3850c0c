"""The trial run of a check, with what is known already, leaves nothing behind."""

import asyncio
import gc
from typing import Any

import pytest

from services.common.dns import RecordType
from services.policy import judge
from services.policy.checks import dnsbl_listed
from services.policy.checks.check import Evidence
from tests.support.resolver import FakeResolver
from tests.support.subjects import envelope, means

ZONES = ("one.test", "two.test", "three.test")
NAMES = [f"1.2.0.192.{zone}" for zone in ZONES]
LISTS = {"dnsbl": {"lists": [{"zone": zone} for zone in ZONES]}}


class SlowResolver(FakeResolver):
    """Needs a turn of the event loop for what it has not been asked before."""

    async def query(self, name: str, rdtype: Any) -> Any:
        await asyncio.sleep(0)
        return await super().query(name, rdtype)


@pytest.mark.parametrize("known", [0, 1, 2, 3])
async def test_lists_that_are_not_known_are_asked_and_nothing_is_complained_of(known: int) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
    resolver = SlowResolver({(NAMES[1], "A"): ["127.0.0.2"]})
    with_ = means(resolver, LISTS)
    for name in NAMES[:known]:
        await resolver.query(name, RecordType.A)
    before = asyncio.all_tasks()
    [(finding, _)] = await judge.run_checks(
        [dnsbl_listed.CHECK], envelope(client="192.0.2.1"), with_, seconds=30
    )
    assert asyncio.all_tasks() == before
    gc.collect()
    assert complaints == []
    assert finding.result == "listed"
    assert Evidence("dns.a", f"{NAMES[1]}: 127.0.0.2") in finding.evidence
    asked = [name for name, rdtype in resolver.queries if rdtype is RecordType.A]
    assert asked == NAMES
