"""Who is asking, and the one decision whether they may.

A route declares its permission. Where its path names a customer, what counts is what the caller holds there:
by a role on that customer or one above it, by a role in the tenant, or by an API key that reaches it.
Elsewhere only roles in the tenant and keys of the whole tenant count.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from counterfoil.kernel.errors import Forbidden, NotFound

SIGNED_IN = "signed_in"
"""The permission of a route that needs no more than a known caller: about themselves."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A caller whose credential is good, as far as one request is concerned."""

    tenant: str
    kind: Literal["user", "key"]
    id: str
    name: str
    held: frozenset[str]
    """What they may do where the request points: at its customer, or in the tenant."""
    locked: frozenset[str] = frozenset()
    """What they could do there besides, had they shown a passkey in this session."""
    scopes: tuple[str, ...] = ()
    """What an API key was given, wherever it reaches."""
    customer_id: str | None = None
    """The customer an API key is limited to."""
    target: str | None = None
    """The customer the request names."""
    target_exists: bool = False
    session_id: str | None = None
    worn: bool = False
    """Whether it is time to note that the credential is in use."""


def decide(identity: Identity, permission: str) -> None:
    """Let a caller through, or not. Raises Forbidden; NotFound for a customer they have nothing to do with."""
    if permission in identity.held and (identity.target is None or identity.target_exists):
        return
    if permission == SIGNED_IN:
        return
    if identity.target is not None and not (identity.target_exists and (identity.held or identity.locked)):
        raise NotFound("There is no such customer.", code="customer_not_found")
    if permission in identity.locked:
        raise Forbidden("Sign in with your passkey to do this.", code="passkey_required")
    if identity.kind == "key":
        if identity.customer_id is not None and identity.target is None:
            raise Forbidden("This key reaches one customer only; ask under its path.", code="key_limited_to_customer")
        raise Forbidden(f"This key lacks the scope {permission}.", code="missing_scope")
    raise Forbidden(f"You lack the permission {permission} here.", code="missing_permission")


def may_grant(identity: Identity, permissions: frozenset[str]) -> None:
    """Nobody grants what they do not hold. Raises Forbidden (``cannot_grant``) naming what is missing."""
    missing = sorted(permissions - identity.held)
    if missing:
        raise Forbidden(f"You cannot grant what you do not hold: {', '.join(missing)}.", code="cannot_grant")
