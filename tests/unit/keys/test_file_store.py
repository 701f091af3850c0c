"""The file store: whole or not at all, for nobody else's eyes, and never over somebody's change."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.common.start import StartError
from services.keys.duty import parse_duty
from services.keys.file_store import FileStore
from services.keys.key import Key, KeyType
from services.keys.private_key import PrivateKey, generate
from services.keys.state import KeyState, Step
from services.keys.store import (
    Broken,
    Complete,
    Entry,
    Gone,
    KeyChangedError,
    KeyExistsError,
    Lost,
    News,
    Register,
    StoreUnavailableError,
)

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_NAME = "s1._domainkey.a.test.json"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileStore]:
    made = FileStore(tmp_path / "keys")
    await made.open()
    yield made
    await made.close()


def _key(private: PrivateKey, selector: str = "s1") -> Key:
    return Key(
        domain="a.test",
        selector=selector,
        key_type=private.key_type,
        bits=private.bits,
        public=private.public,
        created=_NOW,
    )


@pytest.fixture
def private() -> PrivateKey:
    return generate(KeyType.ED25519, bits=256)


async def _told(store: FileStore) -> list[News]:
    """What the store tells somebody who begins to follow it."""
    news: list[News] = []
    complete = asyncio.Event()

    def listen(each: News) -> None:
        news.append(each)
        if isinstance(each, Complete | Lost):
            complete.set()

    following = asyncio.create_task(store.follow(listen))
    await complete.wait()
    following.cancel()
    await asyncio.wait({following})
    return news


async def test_a_key_is_read_back_by_another_process(
    store: FileStore, private: PrivateKey, tmp_path: Path
) -> None:
    made = await store.create(_key(private), private)
    other = FileStore(tmp_path / "keys")
    await other.open()
    read, complete = await _told(other)
    await other.close()
    assert isinstance(read, Entry)
    assert (read.name, read.key, read.version) == (_NAME, made.key, made.version)
    assert read.private is not None
    assert read.private.pem() == private.pem()
    assert complete == Complete(frozenset({_NAME}))


async def test_files_are_for_their_owner_alone(
    store: FileStore, private: PrivateKey, tmp_path: Path
) -> None:
    old_mask = os.umask(0)
    try:
        await store.create(_key(private), private)
    finally:
        os.umask(old_mask)
    directory = tmp_path / "keys"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


@pytest.mark.expect_warnings("others could read keys")
async def test_what_others_could_read_is_closed(
    store: FileStore, private: PrivateKey, tmp_path: Path
) -> None:
    await store.create(_key(private), private)
    file = tmp_path / "keys" / _NAME
    file.chmod(0o644)
    file.parent.chmod(0o755)
    other = FileStore(file.parent)
    await other.open()
    await _told(other)
    await other.close()
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_selector_is_used_once(store: FileStore, private: PrivateKey) -> None:
    entry = await store.create(_key(private), private)
    with pytest.raises(KeyExistsError, match="used already"):
        await store.create(_key(private), private)
    retired = entry.key.stepped(Step.RETIRE, _NOW)
    entry = await store.update(entry, retired)
    deleted = await store.erase(entry, retired.stepped(Step.DELETE, _NOW))
    assert deleted.private is None
    with pytest.raises(KeyExistsError, match="used already"):
        await store.create(_key(private), private)


async def test_an_erased_key_is_gone_from_the_disk(
    store: FileStore, private: PrivateKey, tmp_path: Path
) -> None:
    entry = await store.create(_key(private), private)
    secret = private.pem().splitlines()[1]
    assert secret in (tmp_path / "keys" / _NAME).read_bytes()
    await store.erase(entry, replace(entry.key, state=KeyState.DELETED))
    left = b"".join(path.read_bytes() for path in (tmp_path / "keys").iterdir())
    assert secret not in left
    assert b"PRIVATE KEY" not in left


async def test_two_writers_cannot_overwrite_each_other(
    store: FileStore, private: PrivateKey, tmp_path: Path
) -> None:
    entry = await store.create(_key(private), private)
    other = FileStore(tmp_path / "keys")
    await other.update(entry, entry.key.stepped(Step.SEEN, _NOW))
    with pytest.raises(KeyChangedError, match="changed by somebody else"):
        await store.update(entry, entry.key.stepped(Step.RETIRE, _NOW))
    [read, _] = await _told(other)
    await other.close()
    assert isinstance(read, Entry)
    assert read.key.state is KeyState.PUBLISHED


async def test_a_file_that_was_removed_is_not_made_again(
    store: FileStore, private: PrivateKey, tmp_path: Path
) -> None:
    entry = await store.create(_key(private), private)
    (tmp_path / "keys" / _NAME).unlink()
    with pytest.raises(KeyChangedError, match="gone"):
        await store.update(entry, entry.key.stepped(Step.SEEN, _NOW))
    assert not (tmp_path / "keys" / _NAME).exists()


def _edited(**changes: str | None) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        fields = {**json.loads(content), **changes}
        return json.dumps({k: v for k, v in fields.items() if v is not None}).encode()

    return edit


_OTHER_PEM = generate(KeyType.ED25519, bits=256).pem().decode()


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda _: b"", "not JSON"),
        (lambda content: content[: len(content) // 2], "not JSON"),
        (lambda _: b"\xff\xfe\x00", "not JSON"),
        (lambda _: b"[" * 30_000, "not JSON"),
        (lambda _: b"[]", "not an object of strings"),
        (lambda _: b'{"state": 1}', "not an object of strings"),
        (_edited(state="sleeping"), "state is none of"),
        (_edited(selector="s2"), "another domain or selector"),
        (_edited(domain=None), "domain is not a domain"),
        (_edited(**{"private-key-pem": None}), "not a private key"),
        (_edited(**{"private-key-pem": "broken"}), "not a private key"),
        (_edited(**{"private-key-pem": _OTHER_PEM}), "does not belong to the public one"),
    ],
    ids=[
        "empty",
        "half",
        "octets",
        "deep",
        "list",
        "number",
        "state",
        "selector",
        "domain",
        "no key",
        "no PEM",
        "other key",
    ],
)
async def test_garbage_is_told_as_such_and_left_as_it_is(
    store: FileStore,
    private: PrivateKey,
    tmp_path: Path,
    edit: Callable[[bytes], bytes],
    why: str,
) -> None:
    await store.create(_key(private), private)
    file = tmp_path / "keys" / _NAME
    content = edit(file.read_bytes())
    file.write_bytes(content)
    [broken, complete] = await _told(store)
    assert isinstance(broken, Broken)
    assert (broken.name, broken.domain, broken.selector) == (_NAME, "a.test", "s1")
    assert why in broken.reason
    assert private.pem().decode().splitlines()[1] not in repr(broken)
    assert complete == Complete(frozenset({_NAME}))
    assert file.read_bytes() == content


async def test_changes_are_told_while_they_happen(
    store: FileStore, private: PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.keys.file_store.POLL_INTERVAL_SECONDS", 0.005)
    news: asyncio.Queue[News] = asyncio.Queue()
    following = asyncio.create_task(store.follow(news.put_nowait))

    async def next_of(kind: type[News]) -> News:
        while True:
            found = await news.get()
            if isinstance(found, kind):
                return found

    entry = await store.create(_key(private), private)
    seen = await next_of(Entry)
    assert isinstance(seen, Entry)
    assert seen.key == entry.key
    file = tmp_path / "keys" / _NAME
    content = file.read_bytes()
    file.write_bytes(b"{")
    assert isinstance(await next_of(Broken), Broken)
    file.unlink()
    assert await next_of(Gone) == Gone(_NAME)
    file.write_bytes(content)  # a backup is restored
    file.chmod(0o600)
    restored = await next_of(Entry)
    assert isinstance(restored, Entry)
    assert restored.key == entry.key
    following.cancel()
    await asyncio.wait({following})


async def test_leavings_of_a_crash_are_no_keys_and_are_removed(
    store: FileStore, tmp_path: Path
) -> None:
    unfinished = tmp_path / "keys" / ".new-0123456789abcdef"
    unfinished.write_text("-----BEGIN PRIVATE KEY-----")
    unfinished.chmod(0o600)
    assert await _told(store) == [Complete(frozenset())]
    await FileStore(tmp_path / "keys").open()
    assert not unfinished.exists()


@pytest.mark.expect_warnings("keys cannot be read", "keys cannot be written")
async def test_a_directory_that_is_gone_is_a_temporary_failure(
    store: FileStore, private: PrivateKey, tmp_path: Path
) -> None:
    (tmp_path / "keys").rename(tmp_path / "elsewhere")
    [lost] = await _told(store)
    assert isinstance(lost, Lost)
    with pytest.raises(StoreUnavailableError, match="cannot be used"):
        await store.create(_key(private), private)


async def test_a_place_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = FileStore(tmp_path / "file" / "keys")
    with pytest.raises(StartError, match=r"keys\.directory: .*: Not a directory"):
        await store.open()
    await store.close()


async def test_the_register_is_kept_line_by_line(store: FileStore, tmp_path: Path) -> None:
    await store.register("a.test", parse_duty("s1"))
    await store.register("b.test", parse_duty("s2 -old"))
    await store.register("a.test", parse_duty(""))
    duties = {"a.test": parse_duty(""), "b.test": parse_duty("s2 -old")}
    assert await _told(store) == [Register(duties), Complete(frozenset())]
    assert stat.S_IMODE((tmp_path / "keys" / "signed-domains").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"garbage", b"[]", b'{"a.test": 1}', b"\xff"])
async def test_a_register_that_cannot_be_read_is_told_and_left_alone(
    store: FileStore, tmp_path: Path, content: bytes
) -> None:
    register = tmp_path / "keys" / "signed-domains"
    register.write_bytes(content)
    register.chmod(0o600)
    told, complete = await _told(store)
    assert isinstance(told, Register)
    assert told.problem.startswith("signed-domains: it is not")
    assert complete == Complete(frozenset())
    with pytest.raises(StoreUnavailableError, match="it is not"):
        await store.register("a.test", parse_duty("s1"))
    assert register.read_bytes() == content
