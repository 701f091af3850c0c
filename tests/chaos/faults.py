"""The faults: what is done to a running installation under load, for so many seconds.

Each is a function of the world and the time it has; its docstring's first line is its name in the
report. What it notices beside the books goes to `world.notes`, what must not be to
`world.complaints`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from services.common.failpoint import Failpoint
from tests.chaos.garbage import publish_garbage
from tests.chaos.receiver import Mood
from tests.chaos.world import DOMAINS, PROCESSES, SENDER_DOMAIN, World
from tests.support.installation import SERVICES
from tests.support.load import Load, Parcel
from tests.support.nats_cluster import NODES

INGRESS_POINTS = (
    Failpoint.AFTER_DATA,
    Failpoint.AFTER_CONTENT,
    Failpoint.BEFORE_PUBLISH,
    Failpoint.AFTER_PUBLISH,
    Failpoint.AFTER_ACCEPT,
)
DELIVERY_POINTS = (
    Failpoint.AFTER_FETCH,
    Failpoint.AFTER_CONNECT,
    Failpoint.AFTER_DOT,
    Failpoint.AFTER_DELIVERY,
    Failpoint.AFTER_DEFER,
    Failpoint.AFTER_NOTIFY,
)
PASSES = {Failpoint.AFTER_CONTENT: 2, Failpoint.AFTER_CONNECT: 2, Failpoint.AFTER_NOTIFY: 2}
"""At most how often the rare ones are passed before the process dies; 40 times the others."""

Fault = Callable[[World, float], None]

_BACK_WITHIN_S = 60.0
_TOLD_WITHIN_S = 30.0
_STRUCK_WITHIN_S = 240.0


def kills(world: World, seconds: float) -> None:
    """kill -9 of every process"""
    longest = 0.0
    with world.load():

        def kill() -> None:
            nonlocal longest
            world.kill(world.random.choice(PROCESSES))
            longest = max(longest, _flows_again_after(world))
            time.sleep(world.random.uniform(0.0, 1.0))

        _flows_again_after(world)
        _until(seconds, kill)
    world.notes.append(f"mail again within {longest:.1f} s of each")


def restarts(world: World, seconds: float) -> None:
    """SIGTERM of every service in turn"""
    with world.load():
        turns = iter(range(1_000_000))

        def restart() -> None:
            name = SERVICES[next(turns) % len(SERVICES)]
            world.signal(name, signal.SIGTERM)
            time.sleep(0.5)
            world.back_after(name)

        _until(seconds, restart)
    if world.ledger.unknown:
        world.complaints.append(f"{len(world.ledger.unknown)} mails were left without an answer")


def hanging_nats(world: World, seconds: float) -> None:
    """nats-server hangs while mail becomes due"""
    with world.load():
        world.receiver.set_all(Mood.BUSY)
        time.sleep(min(seconds / 4, 10))
        world.signal("nats", signal.SIGSTOP)
        try:
            time.sleep(min(seconds / 4, 20))
        finally:
            world.signal("nats", signal.SIGCONT)
        world.receiver.set_all(Mood.KIND)
        time.sleep(seconds / 2)


def bad_next_hops(world: World, seconds: float) -> None:
    """next hops fail in every way"""
    moods = [mood for mood in Mood if mood not in (Mood.KIND, Mood.SLOW)]
    with world.load(pause_s=0.1):

        def worsen() -> None:
            for domain in DOMAINS:
                world.receiver.moods[domain] = world.random.choice(moods)
            time.sleep(min(seconds / len(moods), 10))

        _until(seconds, worsen)


def busy_world(world: World, seconds: float) -> None:
    """every next hop answers 451"""
    world.receiver.set_all(Mood.BUSY)
    world.receiver.moods[DOMAINS[0]] = Mood.KIND
    busy = [f"user@{domain}" for domain in DOMAINS[1:]]
    _flood(world, busy, seconds * 0.7)
    waited = _seconds_to_deliver(world, DOMAINS[0], seconds)
    world.notes.append(f"fresh mail elsewhere took {waited:.1f} s")


def slow_destination(world: World, seconds: float) -> None:
    """a destination takes five mails a second"""
    world.receiver.moods[DOMAINS[1]] = Mood.SLOW
    _flood(world, [f"user@{DOMAINS[1]}"], seconds * 0.4)
    waited = _seconds_to_deliver(world, DOMAINS[0], seconds)
    world.notes.append(f"100 others took {waited:.1f} s")


def failing_dns(world: World, seconds: float) -> None:
    """DNS fails, is silent, is slow"""
    names = {SENDER_DOMAIN, f"mail.{SENDER_DOMAIN}"}
    with world.load(pause_s=0.1):

        def fail() -> None:
            world.random.choice((world.dns.servfail, world.dns.timeout, world.dns.empty)).update(
                names
            )
            time.sleep(seconds / 6)
            for trouble in (world.dns.servfail, world.dns.timeout, world.dns.empty):
                trouble.difference_update(names)
            time.sleep(seconds / 12)

        _until(seconds, fail)


def garbage_files(world: World, seconds: float) -> None:
    """configuration and certificates swapped for garbage"""
    certificate = world.installation.data / "tls" / "tls.crt"
    files = (world.installation.config_file, certificate)
    kept = {path: path.read_bytes() for path in files}
    with world.load(pause_s=0.1):

        def spoil() -> None:
            for path, good in kept.items():
                _replace(path, b"\0garbage: [")
                time.sleep(seconds / 8)
                _replace(path, good)
                time.sleep(seconds / 16)

        _until(seconds, spoil)
    told = world.installation.metrics("ingress")
    if "gatepost_config_valid 1.0" not in told:
        world.complaints.append("the good configuration was not taken again")


def unreadable_records(world: World, seconds: float) -> None:
    """records that nobody can read"""
    with world.load(pause_s=0.1):
        planted = publish_garbage(world.installation)
        time.sleep(seconds)
        deadline = time.monotonic() + _TOLD_WITHIN_S
        while (found := _dead(world)) < planted and time.monotonic() < deadline:
            time.sleep(0.5)
    world.notes.append(f"{found} of {planted} were set aside")
    if found < planted:
        world.complaints.append(f"only {found} of {planted} unreadable records were set aside")


def failpoints(world: World, seconds: float) -> None:
    """death at each failpoint"""
    world.receiver.moods[DOMAINS[1]] = Mood.BUSY
    left = {"ingress": list(INGRESS_POINTS), "delivery": list(DELIVERY_POINTS)}
    deadline = time.monotonic() + max(seconds, _STRUCK_WITHIN_S)
    with world.load():
        for name in left:
            _arm_next(world, left)
            world.kill(name)
        while any(left.values()) and time.monotonic() < deadline:
            struck = set(world.struck())
            if any(points and points[0] in struck for points in left.values()):
                left = {
                    name: [point for point in points if point not in struck]
                    for name, points in left.items()
                }
                _arm_next(world, left)
            time.sleep(0.05)
        world.arm({})
        for name in left:
            world.kill(name)
    every = len(INGRESS_POINTS) + len(DELIVERY_POINTS)
    missed = [point for points in left.values() for point in points]
    world.notes.append(f"{every - len(missed)} of {every} places were reached")
    if missed:
        world.complaints.append(f"no process died at {', '.join(missed)}")


def _arm_next(world: World, left: Mapping[str, Sequence[Failpoint]]) -> None:
    first = [points[0] for points in left.values() if points]
    world.arm({point: world.random.randint(1, PASSES.get(point, 40)) for point in first})


def full_storage(world: World, seconds: float) -> None:
    """storage full, then room again"""
    world.receiver.set_all(Mood.BUSY)
    with world.load():
        deadline = time.monotonic() + max(seconds, 60)
        while _refused_for_room(world) < 20 and time.monotonic() < deadline:
            time.sleep(0.2)
        world.notes.append(f"{_refused_for_room(world)} were told 452")
        world.receiver.set_all(Mood.KIND)
        time.sleep(seconds / 2)
    if not _refused_for_room(world):
        world.complaints.append("storage never became full")


def lost_leaders(world: World, seconds: float) -> None:
    """kill -9 of the node that leads the queue"""
    cluster = world.cluster
    assert cluster is not None
    with world.load():

        def kill_leader() -> None:
            leader = cluster.leader("QUEUE")
            if leader is not None:
                cluster.kill(leader)
                world.kills += 1
            time.sleep(world.random.uniform(0.5, 3))
            for number in range(NODES):
                cluster.start_node(number)
            time.sleep(world.random.uniform(3, 6))

        _until(seconds, kill_leader)


def lost_majority(world: World, seconds: float) -> None:
    """two of three nodes gone"""
    cluster = world.cluster
    assert cluster is not None
    with world.load():
        time.sleep(seconds / 4)
        gone = world.random.sample(range(NODES), 2)
        for number in gone:
            cluster.kill(number)
            world.kills += 1
        time.sleep(seconds / 4)
        accepted = len(world.ledger.accepted)
        time.sleep(2)
        if len(world.ledger.accepted) > accepted:
            world.complaints.append("mail was accepted without a majority")
        for number in gone:
            cluster.start_node(number)
        waited = _flows_again_after(world)
        world.notes.append(f"mail again {waited:.1f} s after they came back")
        time.sleep(seconds / 4)


ONE_NODE: tuple[Fault, ...] = (
    kills,
    failpoints,
    restarts,
    hanging_nats,
    bad_next_hops,
    busy_world,
    slow_destination,
    failing_dns,
    garbage_files,
    unreadable_records,
)
THREE_NODES: tuple[Fault, ...] = (lost_leaders, lost_majority)


# --- what the faults share ------------------------------------------------------------------------


def _until(seconds: float, step: Callable[[], None]) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        step()


def _flows_again_after(world: World) -> float:
    """Seconds until mail is accepted, a session's worth of it."""
    before, began = len(world.ledger.accepted), time.monotonic()
    while len(world.ledger.accepted) < before + world.sessions:
        if time.monotonic() - began > _BACK_WITHIN_S:
            world.complaints.append(f"no mail was accepted for {_BACK_WITHIN_S:.0f} s")
            break
        time.sleep(0.01)
    return time.monotonic() - began


def _flood(world: World, recipients: list[str], seconds: float) -> None:
    """As many mails for these as the sessions can send."""
    sender = f"alice@{SENDER_DOMAIN}"
    load = _load(world, "flood", 10**9, seconds)
    load.parcel = lambda number: Parcel(sender, (recipients[number % len(recipients)],))
    load.run()
    world.notes.append(f"{len(world.ledger.accepted)} mails waited")


def _seconds_to_deliver(world: World, domain: str, seconds: float) -> float:
    """How long 100 mails for a healthy destination take, from the first one sent."""
    before, began = len(world.ledger.arrived()), time.monotonic()
    load = _load(world, "fresh", len(world.ledger.accepted) + 100, seconds + _TOLD_WITHIN_S)
    load.parcel = lambda number: Parcel(f"alice@{SENDER_DOMAIN}", (f"user@{domain}",))
    load.run()
    fresh = {mail_id for mail_id in world.ledger.accepted if mail_id.startswith("fresh")}
    deadline = time.monotonic() + _BACK_WITHIN_S
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


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)


def _refused_for_room(world: World) -> int:
    return sum(code == 452 for code in list(world.ledger.refused.values()))


def _dead(world: World) -> int:
    name = "gatepost_delivery_set_aside_records_total "
    lines = world.installation.metrics("delivery").splitlines()
    return sum(int(float(line.removeprefix(name))) for line in lines if line.startswith(name))
