"""`gatepost queue` changes what is in the queue, and says what it did."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.common.jetstream import JetStream, Outgoing
from services.common.mail.destination import subject_token
from services.delivery.dead import SUBJECT_HEADER
from tests.support.delivery import FAR, Delivery, mail, put_to_wait
from tests.support.queue_calls import queue_server

Run = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def queue(store: JetStream, tmp_path: Path) -> AsyncIterator[Run]:
    """Runs the command as an operator: its exit code, output and errors."""
    async with queue_server(Delivery(store, {}), tmp_path) as port:
        place = ["--server", f"127.0.0.1:{port}", "--token-file", str(tmp_path / "operator.token")]

        async def run(*arguments: str) -> tuple[int, str, str]:
            command = [sys.executable, "-m", "services.cli.main", "queue", *arguments, *place]
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
            out, err = await process.communicate()
            assert process.returncode is not None
            return process.returncode, out.decode(), err.decode()

        yield run


async def test_a_retry_says_what_it_did_and_what_it_could_not_do(
    store: JetStream, queue: Run
) -> None:
    first, second = mail(f"you@{FAR}"), mail(f"you@{FAR}")
    await put_to_wait(store, first, second)
    assert await queue("retry", first.message_id) == (0, "retry: 1 record\n", "")
    code, out, err = await queue("retry", "0000000000000000-1", second.message_id)
    assert (code, out) == (4, "retry: 1 record\n")
    assert err.count("\n") == 1
    assert "no record of 0000000000000000-1 is in the queue" in err


async def test_scripts_are_told_what_was_done_too(store: JetStream, queue: Run) -> None:
    record = mail(f"you@{FAR}")
    await put_to_wait(store, record)
    wrong = [f"0000000000000000-{number}" for number in range(1, 30)]
    code, out, err = await queue("hold", "--json", *wrong, record.message_id)
    assert code == 4
    (entry,) = json.loads(out)
    assert (entry["message_id"], entry["state"]) == (record.message_id, "QUEUE_STATE_HELD")
    assert err.splitlines()[-1] == "gatepost: and 9 more failures"


async def test_a_suspension_says_until_when(queue: Run) -> None:
    before = datetime.now(UTC)
    code, out, _ = await queue("suspend", FAR, "--for", "2h")
    told = re.fullmatch(rf"{FAR} is suspended until ([\d-]+ [\d:]+)\n", out)
    assert code == 0
    assert told is not None
    until = datetime.fromisoformat(told[1]).astimezone()
    assert timedelta(hours=1.9) < until - before < timedelta(hours=2.1)
    assert await queue("suspend", FAR) == (0, f"{FAR} is suspended until it is resumed\n", "")


async def test_scripts_are_told_what_was_done(store: JetStream, queue: Run) -> None:
    async def answer(*arguments: str) -> Any:
        code, out, err = await queue(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    until = (await answer("suspend", FAR, "--for", "2h"))["until_time"]
    assert datetime.fromisoformat(until) > datetime.now(UTC)
    assert await answer("suspend", FAR) == {"destination": FAR}
    assert await answer("resume", FAR) == {"destination": FAR}
    added = await answer("suppressions", "add", f"you@{FAR}", "--reason", "asked us")
    assert (added["address"], added["reason"], added["by_hand"]) == (f"you@{FAR}", "asked us", True)
    assert await answer("suppressions", "remove", f"you@{FAR}") == {"address": f"you@{FAR}"}
    record = mail(f"you@{FAR}")
    headers = {SUBJECT_HEADER: f"queue.ready.{subject_token(FAR)}.{record.message_id}"}
    sequence = await store.publish(Outgoing("dead.77", record.SerializeToString(), headers))
    assert await answer("dead", "requeue", str(sequence)) == {"sequence": str(sequence)}
    code, out, _ = await queue("suppressions", "remove", f"you@{FAR}", "--json")
    assert (code, out) == (4, "")


async def test_the_list_ends_with_what_is_suspended(store: JetStream, queue: Run) -> None:
    await put_to_wait(store, mail(f"you@{FAR}"))
    await queue("suspend", FAR)
    await queue("suspend", "quiet.test", "--for", "1h")
    _, out, _ = await queue("list")
    last = out.splitlines()[-1]
    assert last.startswith(f"suspended: {FAR} until it is resumed, quiet.test until 2")
    _, out, _ = await queue("list", "--destination", "other.test")
    assert out == "none\n"
    _, out, _ = await queue("list", "--json")
    assert len(json.loads(out)) == 1
