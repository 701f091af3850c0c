"""What several faults do, and what they look at."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.world import SENDER_DOMAIN, World
from tests.support.load import Load, Parcel

BACK_WITHIN_S = 60.0
TOLD_WITHIN_S = 30.0


def until(seconds: float, step: Callable[[], None]) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        step()


def flows_again_after(world: World) -> float:
    """Seconds until mail is accepted, a session's worth of it."""
    before, began = len(world.ledger.accepted), time.monotonic()
    while len(world.ledger.accepted) < before + world.sessions:
        if time.monotonic() - began > BACK_WITHIN_S:
            world.complaints.append(f"no mail was accepted for {BACK_WITHIN_S:.0f} s")
            break
        time.sleep(0.01)
    return time.monotonic() - began


def delivered_after(world: World) -> float:
    """Seconds until all mail that was accepted so far is delivered."""
    accepted, began = set(world.ledger.accepted), time.monotonic()
    while late := accepted & {mail_id for mail_id, _ in world.ledger.missing()}:
        if time.monotonic() - began > BACK_WITHIN_S:
            world.complaints.append(f"{len(late)} were not tried again in {BACK_WITHIN_S:.0f} s")
            break
        time.sleep(0.1)
    return time.monotonic() - began


def fresh_after(world: World) -> float:
    """Seconds until one that is accepted from now on is delivered."""
    before, began = set(world.ledger.accepted), time.monotonic()
    while not {mail_id for mail_id, _ in world.ledger.arrived()} & world.ledger.accepted - before:
        if time.monotonic() - began > BACK_WITHIN_S:
            world.complaints.append(f"no fresh mail was delivered in {BACK_WITHIN_S:.0f} s")
            break
        time.sleep(0.1)
    return time.monotonic() - began


def flood(world: World, recipients: list[str], seconds: float) -> None:
    """As many mails for these as the sessions can send."""
    sender = f"alice@{SENDER_DOMAIN}"
    load = _load(world, "flood", 10**9, seconds)
    load.parcel = lambda number: Parcel(sender, (recipients[number % len(recipients)],))
    load.run()
    world.notes.append(f"{len(world.ledger.accepted)} mails waited")


def seconds_to_deliver(world: World, domain: str, seconds: float) -> float:
    """How long 100 mails for a healthy destination take, from the first one sent."""
    before, began = len(world.ledger.arrived()), time.monotonic()
    load = _load(world, "fresh", len(world.ledger.accepted) + 100, seconds + TOLD_WITHIN_S)
    load.parcel = lambda number: Parcel(f"alice@{SENDER_DOMAIN}", (f"user@{domain}",))
    load.run()
    fresh = {mail_id for mail_id in world.ledger.accepted if mail_id.startswith("fresh")}
    deadline = time.monotonic() + BACK_WITHIN_S
    while time.monotonic() < deadline:
        if fresh <= {mail_id for mail_id, _ in world.ledger.arrived()}:
            break
        time.sleep(0.02)
    else:
        world.complaints.append(
            f"fresh mail waited behind other mail: {len(world.ledger.arrived()) - before} of 100"
        )
    return time.monotonic() - began


def _load(world: World, name: str, wanted: int, seconds: float) -> Load:
    return Load(
        port=world.installation.ports["mx"],
        ledger=world.ledger,
        parcel=world.parcel,
        helo=f"mail.{SENDER_DOMAIN}",
        wanted=wanted,
        sessions=world.sessions,
        seconds=seconds,
        name=name,
    )


def replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)


def refused_for_room(world: World) -> int:
    return sum(code == 452 for code in list(world.ledger.refused.values()))


def dead(world: World) -> int:
    name = "gatepost_delivery_set_aside_records_total "
    lines = world.installation.metrics("delivery").splitlines()
    return sum(int(float(line.removeprefix(name))) for line in lines if line.startswith(name))
