"""Who may call what: roles, the table of methods, and the bearer tokens that carry a role.

Every method of every service stands in a table with the roles that may call it; a method that
does not is closed to everybody. Some rules depend on the request: a check with `dry_run` is open,
without it a role is needed. A caller's roles come from a bearer token (RFC 6750 §2.1, in the
metadata field `authorization`) or, over mutual TLS, from a name in the client's certificate.

Guarantees: tokens are kept as SHA-256 digests and compared in constant time; a token never
appears in a log or an error. Missing or unknown token: UNAUTHENTICATED. A role that does not
suffice: PERMISSION_DENIED. Both say which role is needed and where its token is.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import grpc.aio

from services.common.rpc.errors import RpcFailure, permission_denied, unauthenticated


class Role(StrEnum):
    """What a caller is to us."""

    NONE = "none"  # anybody who reaches the port
    VIEWER = "viewer"  # gets, lists, explains, watches
    OPERATOR = "operator"  # all of a viewer's, every change, and checks
    SERVICE = "service"  # another service of Gatepost: checks, authenticates, has mail signed


Roles = frozenset[Role]
Rule = Roles | Callable[[Any], Roles]

OPEN: Roles = frozenset(Role)
VIEW: Roles = frozenset({Role.VIEWER, Role.OPERATOR})
CHANGE: Roles = frozenset({Role.OPERATOR})
SERVE: Roles = frozenset({Role.SERVICE})
CHECK: Roles = frozenset({Role.SERVICE, Role.OPERATOR})

TOKENS_ARE = "Tokens are in the files ROLE.token of the data directory, or of the chart's Secret."

MethodTable = Mapping[str, Rule]

_NOBODY: Roles = frozenset()


def methods(service: str, /, **rules: Rule) -> MethodTable:
    """The table of one service: `methods("gatepost.keys.v1.KeyService", GetKey=VIEW, …)`."""
    return {f"/{service}/{name}": rule for name, rule in rules.items()}


def check_unless_dry_run(request: Any) -> Roles:
    """The rule of policy checks: with `dry_run` they leave no trace and are open."""
    return OPEN if request.dry_run else CHECK


class TokenRoles(Protocol):
    """Knows tokens; see `services.common.rpc.tokens`."""

    def roles(self, token: str) -> Roles:
        """The roles that the token carries; none for an unknown one."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call."""

    token: str = field(repr=False)
    """Empty without one."""
    roles: Roles


class Access:
    """Decides on every call, from the table, the caller's token and the caller's certificate."""

    def __init__(
        self,
        tokens: TokenRoles,
        *,
        identities: Mapping[str, Role] | None = None,
    ) -> None:
        """`identities` maps subject alternative names of verified client certificates to roles."""
        self._tokens = tokens
        self._identities = dict(identities or {})
        self._table: dict[str, Rule] = {}

    def allow(self, table: MethodTable) -> None:
        """Add the methods of a service; each may be in one table only."""
        if twice := self._table.keys() & table.keys():
            raise ValueError(f"methods in two tables: {', '.join(sorted(twice))}")
        self._table |= table

    def rule(self, method: str) -> Rule:
        """The rule of a method, by its path; for one in no table: nobody."""
        return self._table.get(method, _NOBODY)

    def caller(self, context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        """Who calls; known before the request is."""
        token = _bearer(context.invocation_metadata() or ())
        held = self._tokens.roles(token) if token else _NOBODY
        if self._identities and not held:
            held = self._certified(context)
        return Caller(token, held)

    def admit(self, rule: Rule, request: object, caller: Caller) -> bool:
        """Raise `RpcFailure` unless this call may go on; true if it is open to everybody."""
        allowed = rule(request) if callable(rule) else rule
        if Role.NONE in allowed:
            return True
        if caller.roles.isdisjoint(allowed):
            raise self._refusal(allowed, caller)
        return False

    def _certified(self, context: grpc.aio.ServicerContext[Any, Any]) -> Roles:
        # gRPC lists a certificate's names only after it verified the certificate.
        names = context.auth_context().get("x509_subject_alternative_name", ())
        found = (self._identities.get(name.decode("utf-8", "replace")) for name in names)
        return frozenset(role for role in found if role is not None)

    def _refusal(self, allowed: Roles, caller: Caller) -> RpcFailure:
        if not allowed:
            return permission_denied("nobody may call this method", reason="METHOD_CLOSED")
        needed = " or ".join(sorted(allowed))
        if held := caller.roles:
            text = f"needs the role {needed}; the caller has {' and '.join(sorted(held))}"
            return permission_denied(f"{text}. {TOKENS_ARE}", reason="ROLE_MISSING")
        if caller.token:
            text = f"the token is not known; needs one of the role {needed}"
            return unauthenticated(f"{text}. {TOKENS_ARE}", reason="TOKEN_UNKNOWN")
        text = f"needs 'authorization: Bearer TOKEN' with a token of the role {needed}"
        return unauthenticated(f"{text}. {TOKENS_ARE}", reason="TOKEN_MISSING")


def _bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The token of the call, or an empty string; of two fields neither counts."""
    found = [value for key, value in metadata if key == "authorization"]
    if len(found) != 1 or not isinstance(found[0], str):
        return ""
    scheme, _, token = found[0].partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
