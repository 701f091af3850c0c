"""The policy service as a process: its parts, its tasks, its gRPC port."""

from __future__ import annotations

from gatepost.policy.v1 import directory_pb2, directory_pb2_grpc, policy_pb2, policy_pb2_grpc
from services.common import app
from services.common.app import Context, Stage
from services.common.config.source import ConfigSource
from services.common.rpc.auth import CHANGE, CHECK, SERVE, VIEW, check_unless_dry_run, methods
from services.common.rpc.guard import Limits
from services.common.turns import Turns
from services.common.wiring import open_resolver, open_rpc_server, open_store, process
from services.policy.callout.callouts import Callouts
from services.policy.callout.memory import CalloutMemory
from services.policy.declared import Declared
from services.policy.directory import AccountDirectory
from services.policy.directory_service import DirectoryService
from services.policy.dry_resolver import DryResolver
from services.policy.events import Events
from services.policy.greylist import Greylist
from services.policy.passwords import Passwords
from services.policy.policy_service import Parts, PolicyService
from services.policy.rules import RulesSource

LIMITS = Limits(unary=2048, open_unary=256, streams=512, max_receive_size=4 * 1024 * 1024)
"""A check that waits for somebody's slow name servers holds a place and some 30 KiB, and no time of
this process. There must be places left for the mail of others. The
largest request is a whole mail to be judged, 3 MiB (`MAX_CONTENT_OCTETS`), with its envelope.
A replica of the ingress has up to four streams, and one more while it renews one."""

QUESTIONS = 2048
"""Put to DNS servers at a time, each with a socket: as many checks may wait for slow names."""

POLICY = policy_pb2.DESCRIPTOR.services_by_name["PolicyService"]
DIRECTORY = directory_pb2.DESCRIPTOR.services_by_name["DirectoryService"]

POLICY_METHODS = methods(
    POLICY.full_name,
    CheckEnvelope=check_unless_dry_run,
    CheckMessage=check_unless_dry_run,
    Judge=CHECK,
    ExplainMessage=VIEW,
    ReplayVerdicts=VIEW,
    GetStatus=VIEW,
)
DIRECTORY_METHODS = methods(
    DIRECTORY.full_name,
    Authenticate=SERVE,
    CreateAccount=CHANGE,
    SetPassword=CHANGE,
    GetAccount=VIEW,
    ListAccounts=VIEW,
    DeleteAccount=CHANGE,
)


def run(source: ConfigSource) -> int:
    """Run until told to stop. Returns the exit code."""

    async def start(context: Context) -> None:
        await _start(context, source)

    return app.run(process(source.current, "policy"), start)


async def _start(context: Context, source: ConfigSource) -> None:
    config = source.current
    store = await open_store(context, config)
    turns = Turns()
    resolver = open_resolver(config, max_concurrent=QUESTIONS, turns=turns)
    # Who asks again just after changing a record wants to see the change.
    for_dry_runs = open_resolver(config, stretches=False, turns=turns)
    rules = RulesSource(source)
    directory = AccountDirectory(store)
    passwords = Passwords()
    events = Events(store)
    callouts = Callouts(CalloutMemory(store))
    declared = Declared(source, directory, passwords)
    parts = Parts(
        rules,
        resolver,
        DryResolver(resolver, for_dry_runs),
        directory,
        events,
        callouts,
        declared,
        Greylist(store),
        turns,
    )
    server = open_rpc_server(context, config, limits=LIMITS)
    server.add(
        policy_pb2_grpc.add_PolicyServiceServicer_to_server,
        PolicyService(parts, server.guard),
        service=POLICY,
        table=POLICY_METHODS,
    )
    server.add(
        directory_pb2_grpc.add_DirectoryServiceServicer_to_server,
        DirectoryService(rules, directory, passwords),
        service=DIRECTORY,
        table=DIRECTORY_METHODS,
    )
    context.spawn("events", events.publish())
    context.spawn("config", source.follow())
    context.spawn("declared accounts", declared.follow())

    async def close_passwords() -> None:
        passwords.close()

    context.on_stop(Stage.CLOSE, "dns", resolver.close)
    context.on_stop(Stage.CLOSE, "dns of dry runs", for_dry_runs.close)
    context.on_stop(Stage.CLOSE, "passwords", close_passwords)
    context.on_stop(Stage.CLOSE, "callouts", callouts.close)
    # After the last answer and before the publisher is stopped.
    context.on_stop(Stage.RPC, "events", events.drain)
    await server.start()
