"""The faults: what is done to a running installation under load, for so many seconds.

Each is a function of the world and the time it has; its docstring's first line is its name in the
report. What it notices beside the books goes to `world.notes`, what must not be to
`world.complaints`.
"""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from services.common.failpoint import Failpoint
from tests.chaos.garbage import publish_garbage
from tests.chaos.pile import pile_up
from tests.chaos.receiver import Mood
from tests.chaos.steps import (
    TOLD_WITHIN_S,
    dead,
    delivered_after,
    flood,
    flows_again_after,
    fresh_after,
    refused_for_room,
    replace,
    seconds_to_deliver,
    until,
)
from tests.chaos.world import DOMAINS, PROCESSES, SENDER_DOMAIN, World
from tests.support.installation import SERVICES
from tests.support.nats_cluster import NODES
from tests.support.waiting import memory_mib, peak_mib

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

_STRUCK_WITHIN_S = 240.0
_HOUR_S = 3600


def kills(world: World, seconds: float) -> None:
    """kill -9 of every process"""
    longest = 0.0
    with world.load():

        def kill() -> None:
            nonlocal longest
            world.kill(world.random.choice(PROCESSES))
            longest = max(longest, flows_again_after(world))
            time.sleep(world.random.uniform(0.0, 1.0))

        flows_again_after(world)
        until(seconds, kill)
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

        until(seconds, restart)
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

        until(seconds, worsen)


def busy_world(world: World, seconds: float) -> None:
    """every next hop answers 451"""
    world.receiver.set_all(Mood.BUSY)
    world.receiver.moods[DOMAINS[0]] = Mood.KIND
    busy = [f"user@{domain}" for domain in DOMAINS[1:]]
    flood(world, busy, seconds * 0.7)
    waited = seconds_to_deliver(world, DOMAINS[0], seconds)
    world.notes.append(f"fresh mail elsewhere took {waited:.1f} s")


def slow_destination(world: World, seconds: float) -> None:
    """a destination takes five mails a second"""
    world.receiver.moods[DOMAINS[1]] = Mood.SLOW
    flood(world, [f"user@{DOMAINS[1]}"], seconds * 0.4)
    waited = seconds_to_deliver(world, DOMAINS[0], seconds)
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

        until(seconds, fail)


def garbage_files(world: World, seconds: float) -> None:
    """configuration and certificates swapped for garbage"""
    certificate = world.installation.data / "tls" / "tls.crt"
    files = (world.installation.config_file, certificate)
    kept = {path: path.read_bytes() for path in files}
    with world.load(pause_s=0.1):

        def spoil() -> None:
            for path, good in kept.items():
                replace(path, b"\0garbage: [")
                time.sleep(seconds / 8)
                replace(path, good)
                time.sleep(seconds / 16)

        until(seconds, spoil)
    told = world.installation.metrics("ingress")
    if "gatepost_config_valid 1.0" not in told:
        world.complaints.append("the good configuration was not taken again")


def unreadable_records(world: World, seconds: float) -> None:
    """records that nobody can read"""
    with world.load(pause_s=0.1):
        planted = publish_garbage(world.installation)
        time.sleep(seconds)
        deadline = time.monotonic() + TOLD_WITHIN_S
        while (found := dead(world)) < planted and time.monotonic() < deadline:
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
            time.sleep(0.2)
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
        while refused_for_room(world) < 20 and time.monotonic() < deadline:
            time.sleep(0.2)
        world.notes.append(f"{refused_for_room(world)} were told 452")
        world.receiver.set_all(Mood.KIND)
        time.sleep(seconds / 2)
    if not refused_for_room(world):
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

        until(seconds, kill_leader)


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
        waited = flows_again_after(world)
        world.notes.append(f"mail again {waited:.1f} s after they came back")
        time.sleep(seconds / 4)


def jumping_clock(world: World, seconds: float) -> None:
    """the services' clock jumps by an hour"""
    groups = itertools.cycle((SERVICES, *((name,) for name in SERVICES)))
    turns = ((names, ahead_s) for names in groups for ahead_s in (_HOUR_S, -_HOUR_S))

    def jump() -> None:
        world.receiver.moods[DOMAINS[1]] = Mood.BUSY
        world.clocks.jump(*next(turns))
        time.sleep(seconds / 8)
        # One that starts with a wrong clock, besides the one that runs while it becomes wrong.
        world.signal("delivery", signal.SIGTERM)
        time.sleep(seconds / 8)
        world.receiver.moods[DOMAINS[1]] = Mood.KIND
        waited = delivered_after(world)
        world.notes.append(f"{waited:.1f} s")
        world.clocks.jump(SERVICES, 0)

    with world.load(pause_s=0.1):
        until(seconds, jump)
    world.notes = [f"what waited was delivered after {', '.join(world.notes)}"]


def overdue_mail(world: World, seconds: float) -> None:
    """NATS away while due times pass"""
    server = world.server
    assert server is not None
    world.planted = overdue_mails(seconds)
    with world.load(pause_s=0.1):
        due = pile_up(world, world.planted)
        server.kill()
        world.kills += 1
        left_s = (due - datetime.now(UTC)).total_seconds()
        if left_s < 0:
            world.complaints.append("they were due before NATS was away")
        time.sleep(max(0.0, left_s) + 2)
        server.start()
        accepted = flows_again_after(world)
        delivered = accepted + fresh_after(world)
        time.sleep(seconds / 4)
    world.notes.append(
        f"{world.planted} came due; afterwards mail was accepted within {accepted:.1f} s, "
        f"delivered within {delivered:.1f} s; nats-server took {peak_mib(server.pid):.0f} MiB at "
        f"most, of {memory_mib(world.waiting)}"
    )
    if peak_mib(server.pid) > memory_mib(world.waiting):
        world.complaints.append("nats-server took more memory than it is given")


def overdue_mails(seconds: float) -> int:
    """How many come due at once: 200,000 where there is time for them."""
    return min(200_000, int(seconds * 500))


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
APART: tuple[Fault, ...] = (full_storage, jumping_clock, overdue_mail)
"""Each needs an installation of its own kind."""

THREE_NODES: tuple[Fault, ...] = (lost_leaders, lost_majority)
