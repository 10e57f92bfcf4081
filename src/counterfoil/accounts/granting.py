"""Nobody grants what they do not hold, nor takes away what they could not grant.

Whoever asks was looked at before their request's transaction began. Whatever hands out rights looks again within
it, under locks: a right that is taken away meanwhile either goes first, and counts, or waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Concatenate, ParamSpec, TypeVar

import msgspec

from counterfoil.accounts import api_keys, assignments, customers
from counterfoil.accounts.access import Identity, decide, may_grant
from counterfoil.accounts.permissions import expand
from counterfoil.accounts.types import Customer
from counterfoil.db.tx import Tx

P = ParamSpec("P")
R = TypeVar("R")


def check(
    tx: Tx, grantor: Identity | None, customer: Customer | None, permission: str, names: Iterable[str] = ()
) -> None:
    """Let somebody grant (or take away) these permissions and bundles at a customer or, without one, in the tenant.

    ``permission`` is what the act itself takes. ``grantor`` is None for whoever runs this installation. The caller
    holds the customer's row, so that it stays where it is in the tree. Raises Forbidden, NotFound.
    """
    if grantor is None:
        return
    standing = msgspec.structs.replace(grantor, held=grantor.held & _held(tx, grantor.id, customer))
    decide(standing, permission)
    may_grant(standing, expand(names))


def may_still(tx: Tx, grantor_id: str | None, customer: Customer | None, permission: str, names: Iterable[str]) -> bool:
    """Whether whoever granted something earlier could grant it now."""
    return grantor_id is None or {permission, *expand(names)} <= _held(tx, grantor_id, customer)


def _held(tx: Tx, grantor_id: str, customer: Customer | None) -> frozenset[str]:
    held_by = api_keys.held_by if grantor_id.startswith("key_") else assignments.held_by
    return held_by(tx, grantor_id, customer.path if customer else None)


def allowed(
    tx: Tx,
    grantor: Identity | None,
    at: str | None,
    permission: str,
    names: Iterable[str],
    op: Callable[Concatenate[Tx, P], R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Check at the customer ``at`` (None: in the tenant), then do it: see :func:`check`."""
    check(tx, grantor, None if at is None else customers.hold(tx, at), permission, names)
    return op(tx, *args, **kwargs)
