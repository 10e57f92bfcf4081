"""Operations on customers, one at a time. What moves within the tree is in ``customer_tree``.

Whatever may contradict a change elsewhere in the tree (a new child, an archived or deleted parent, a slug)
takes the tenant's row first, so that such changes come one after another.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from counterfoil.accounts.tables import customers, tenants
from counterfoil.accounts.types import Customer, CustomerKind, CustomerStatus
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Row, Tx
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.ids import is_id
from counterfoil.kernel.locales import check_locale, check_time_zone
from counterfoil.kernel.metadata import check_metadata
from counterfoil.kernel.paging import Page, page_of
from counterfoil.kernel.text import check_line, check_note, check_slug, check_url, normalize_email

MSP, END_CUSTOMER, DEPARTMENT = 1, 2, 3
"""The levels of the tree."""

_ANY = sa.select(*columns(customers)).where(mine(customers), customers.c.id == sa.bindparam("id"))
_GET = _ANY.where(customers.c.deleted_at.is_(None))
_HOLD = _GET.with_for_update(read=True)
_BY_SLUG = sa.select(*columns(customers)).where(mine(customers), customers.c.slug == sa.bindparam("slug"))
_LOCK = sa.select(tenants.c.tenant_id).where(mine(tenants)).with_for_update(key_share=True)
_LIVE_CHILD = (
    sa.select(customers.c.id)
    .where(mine(customers), customers.c.parent_id == sa.bindparam("id"), customers.c.deleted_at.is_(None))
    .limit(1)
)
_CHANGE = sa.update(customers).where(mine(customers), customers.c.id == sa.bindparam("customer_id"))
_CHANGE_LIVE = _CHANGE.where(customers.c.deleted_at.is_(None))
_SET_STATUS = (
    _CHANGE_LIVE.where(customers.c.status != sa.bindparam("new_status"))
    .values(status=sa.bindparam("new_status"), updated_at=sa.bindparam("now"))
    .returning(*columns(customers))
)
_DELETE = _CHANGE_LIVE.values(
    slug=None, is_default=False, deleted_at=sa.bindparam("now"), updated_at=sa.bindparam("now")
)
_UNDELETE = (
    _CHANGE.where(customers.c.deleted_at.is_not(None))
    .values(status="active", deleted_at=None, updated_at=sa.bindparam("now"))
    .returning(*columns(customers))
)
_SET_NOTES = _CHANGE_LIVE.values(
    internal_notes=sa.bindparam("new_notes"),
    import_meta=sa.bindparam("new_import_meta", type_=customers.c.import_meta.type),
    updated_at=sa.bindparam("now"),
).returning(*columns(customers))


class NewCustomer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it takes to make a customer."""

    kind: CustomerKind
    name: str
    parent_id: str | None = None
    """The customer above it; a new customer's level is one more than its parent's."""
    level: Literal[1, 2] | None = None
    """Without a parent: 1 for an MSP, 2 (or left out) for an end customer."""
    slug: str | None = None
    email: str | None = None
    logo_url: str | None = None
    locale: str = "en"
    time_zone: str = "UTC"
    marketing_consent: bool = False
    metadata: dict[str, Any] = {}


class CustomerChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change about a customer; what is left out stays."""

    kind: CustomerKind | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    slug: str | msgspec.UnsetType | None = msgspec.UNSET
    email: str | msgspec.UnsetType | None = msgspec.UNSET
    logo_url: str | msgspec.UnsetType | None = msgspec.UNSET
    locale: str | msgspec.UnsetType = msgspec.UNSET
    time_zone: str | msgspec.UnsetType = msgspec.UNSET
    marketing_consent: bool | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class CustomerNotes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What only staff reads and writes about a customer."""

    internal_notes: str = ""
    import_meta: dict[str, Any] | None = None
    """Where the customer came from, in the words of the system it was imported from."""


def lock_tree(tx: Tx) -> None:
    """Wait until nobody else changes the tenant's tree, and keep them waiting until the transaction ends."""
    tx.one(_LOCK)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "name": lambda value: check_line("name", value, most=200, least=1),
    "slug": lambda value: check_slug("slug", value),
    "email": lambda value: normalize_email("email", value),
    "logo_url": lambda value: check_url("logo_url", value),
    "locale": lambda value: check_locale("locale", value),
    "time_zone": lambda value: check_time_zone("time_zone", value),
    "metadata": lambda value: check_metadata("metadata", value),
}


def _checked(fields: NewCustomer | CustomerChanges) -> dict[str, Any]:
    """The fields that are given, each in the form we store."""
    given = {name: value for name in fields.__struct_fields__ if (value := getattr(fields, name)) is not msgspec.UNSET}
    return {
        name: _CHECKS[name](value) if name in _CHECKS and value is not None else value for name, value in given.items()
    }


def create(tx: Tx, new: NewCustomer, *, owner_user_id: str | None = None, is_default: bool = False) -> Customer:
    """Make a customer, below its parent if it has one.

    ``is_default``: it is the one its owner's purchases go to. Raises Invalid; NotFound for a parent there is not;
    Conflict (``parent_not_active``, ``too_deep``, ``slug_taken``, ``default_taken``).
    """
    fields = _checked(new)
    if new.parent_id is not None and new.level is not None:
        raise Invalid.field("level", "comes from the parent; leave it out", code="level_given")
    if new.parent_id is not None or new.slug is not None:
        lock_tree(tx)
    parent = parent_for(tx, new.parent_id)
    customer_id = tx.new_id("cus")
    customer = Customer(
        **{
            **fields,
            "id": customer_id,
            "level": parent.level + 1 if parent else new.level or END_CUSTOMER,
            "path": f"{parent.path if parent else ''}{customer_id}/",
        },
        status="active",
        owner_user_id=owner_user_id,
        is_default=is_default,
        internal_notes="",
        import_meta=None,
        deleted_at=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    if not tx.insert_if_new(customers, customer):
        if customer.slug is not None:
            _check_slug_free(tx, customer.slug)
        raise Conflict("Its owner has a customer of their own already.", code="default_taken")
    tx.record(
        "customer.created",
        "customer",
        customer.id,
        customer_id=customer.id,
        kind=customer.kind,
        level=customer.level,
        parent_id=customer.parent_id,
    )
    return customer


def parent_for(tx: Tx, parent_id: str | None) -> Customer | None:
    """The customer to be above another; the caller holds the tree.

    Raises NotFound; Conflict (``parent_not_active``, ``too_deep``).
    """
    if parent_id is None:
        return None
    row = tx.one(_ANY, {"id": parent_id})
    if row is None:
        raise NotFound("parent_id: there is no such customer.", code="customer_not_found")
    parent = Customer(*row)
    if parent.status != "active" or parent.deleted_at is not None:
        raise Conflict("The customer above is archived or deleted.", code="parent_not_active")
    if parent.level >= DEPARTMENT:
        raise Conflict("A department has nothing below it.", code="too_deep")
    return parent


def _check_slug_free(tx: Tx, slug: str) -> None:
    if tx.one(_BY_SLUG, {"slug": slug}) is not None:
        raise Conflict(f"There is already a customer with the slug {slug!r}.", code="slug_taken")


def get(tx: Tx, customer_id: str) -> Customer:
    """Raise NotFound (``customer_not_found``) when there is none, or it was deleted."""
    return _found(tx.one(_GET, {"id": customer_id}))


def hold(tx: Tx, customer_id: str) -> Customer:
    """A customer that nobody can delete until the transaction ends. Raises NotFound."""
    return _found(tx.one(_HOLD, {"id": customer_id}))


def find(tx: Tx, slug_or_id: str) -> Customer:
    """Look up by slug or by id, deleted ones by id too: the two never look alike. Raises NotFound."""
    if is_id("cus", slug_or_id):
        return _found(tx.one(_ANY, {"id": slug_or_id}))
    return _found(tx.one(_BY_SLUG, {"slug": slug_or_id}))


def _found(row: Row | None) -> Customer:
    if row is None:
        raise NotFound("There is no such customer.", code="customer_not_found")
    return Customer(*row)


@cache
def _list(filters: frozenset[str]) -> sa.Select[*tuple[Any, ...]]:
    """The statement with these filters; there are few combinations."""
    statement = sa.select(*columns(customers)).where(
        mine(customers), customers.c.deleted_at.is_(None), customers.c.id > sa.bindparam("after")
    )
    for name in sorted(filters):
        statement = statement.where(customers.c[name] == sa.bindparam(name))
    return statement.order_by(customers.c.id).limit(sa.bindparam("limit", type_=sa.Integer))


def list_(
    tx: Tx,
    *,
    email: str | None = None,
    kind: CustomerKind | None = None,
    level: int | None = None,
    status: CustomerStatus | None = None,
    parent_id: str | None = None,
    after: str = "",
    limit: int = 20,
) -> Page[Customer]:
    """A page of customers, oldest first: those that fit every filter. Deleted ones are not among them."""
    given = {"email": email, "kind": kind, "level": level, "status": status, "parent_id": parent_id}
    filters: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if email is not None:
        filters["email"] = unicodedata.normalize("NFC", email).strip().lower()
    rows = tx.all(_list(frozenset(filters)), {**filters, "after": after, "limit": limit + 1})
    return page_of([Customer(*row) for row in rows], limit)


def update(tx: Tx, customer_id: str, changes: CustomerChanges) -> Customer:
    """Change a customer. Raises Invalid, NotFound; Conflict (``slug_taken``)."""
    given = _checked(changes)
    if not given:
        return get(tx, customer_id)
    if given.get("slug") is not None:
        lock_tree(tx)
        if get(tx, customer_id).slug != given["slug"]:
            _check_slug_free(tx, given["slug"])
    statement = _CHANGE_LIVE.values(**given, updated_at=tx.now).returning(*columns(customers))
    customer = _found(tx.one(statement, {"customer_id": customer_id}))
    tx.record("customer.updated", "customer", customer_id, customer_id=customer_id, changed=sorted(given))
    return customer


def archive(tx: Tx, customer_id: str) -> Customer:
    """Sell to a customer no longer. What it has, and what is below it, goes on. Raises NotFound."""
    return _set_status(tx, customer_id, "archived")


def _set_status(tx: Tx, customer_id: str, status: CustomerStatus) -> Customer:
    lock_tree(tx)
    row = tx.one(_SET_STATUS, {"customer_id": customer_id, "new_status": status, "now": tx.now})
    if row is None:
        return get(tx, customer_id)  # it was so already
    verb = "archived" if status == "archived" else "restored"
    tx.record(f"customer.{verb}", "customer", customer_id, customer_id=customer_id)
    return Customer(*row)


def restore(tx: Tx, customer_id: str) -> Customer:
    """Bring a customer back from the archive or from deletion; its slug does not come back.

    Raises NotFound; Conflict (``parent_not_active``).
    """
    lock_tree(tx)
    customer = _found(tx.one(_ANY, {"id": customer_id}))
    if customer.deleted_at is None:
        return _set_status(tx, customer_id, "active")
    parent_for(tx, customer.parent_id)
    restored = _found(tx.one(_UNDELETE, {"customer_id": customer_id, "now": tx.now}))
    tx.record("customer.restored", "customer", customer_id, customer_id=customer_id)
    return restored


def delete(tx: Tx, customer_id: str) -> None:
    """Delete a customer. Its row and what it bought stay; its slug is free again.

    Raises NotFound; Conflict (``customer_has_children``).
    """
    lock_tree(tx)
    get(tx, customer_id)
    if tx.one(_LIVE_CHILD, {"id": customer_id}) is not None:
        raise Conflict("There are customers below this one.", code="customer_has_children")
    tx.execute(_DELETE, {"customer_id": customer_id, "now": tx.now})
    tx.record("customer.deleted", "customer", customer_id, customer_id=customer_id)


def set_notes(tx: Tx, customer_id: str, notes: CustomerNotes) -> Customer:
    """Write what only staff reads. Raises Invalid, NotFound."""
    params = {
        "customer_id": customer_id,
        "new_notes": check_note("internal_notes", notes.internal_notes, most=10_000),
        "new_import_meta": None if notes.import_meta is None else check_metadata("import_meta", notes.import_meta),
        "now": tx.now,
    }
    customer = _found(tx.one(_SET_NOTES, params))
    # Not among the customer's own events, which its members read.
    tx.record("customer.notes_changed", "customer", customer_id)
    return customer
