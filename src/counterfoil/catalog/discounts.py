"""Operations on discounts.

A discount is typed (it has a code), applies by itself (``auto_apply``), or is a customer's margin: then it has
no code and applies to whatever that customer, or anyone below it, buys. What it takes off is in ``pricing``;
how its uses are counted, in ``redemptions``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.accounts.tables import customers
from counterfoil.catalog import discount_rules
from counterfoil.catalog.discount_rules import DiscountChanges, NewDiscount, is_code, moment, normalize_code
from counterfoil.catalog.tables import discount_buyers, discounts
from counterfoil.catalog.types import CatalogStatus, Discount
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.paging import Page, page_of

_GET = sa.select(*columns(discounts)).where(mine(discounts), discounts.c.id == sa.bindparam("id"))
_GET_MANY = (
    sa.select(*columns(discounts)).where(mine(discounts), any_of(discounts.c.id, "ids")).order_by(discounts.c.id)
)
_GET_LOCKED = _GET.with_for_update(key_share=True)
_LIST = (
    sa.select(*columns(discounts))
    .where(mine(discounts), discounts.c.id > sa.bindparam("after"))
    .order_by(discounts.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_FILTERS = {
    "code": discounts.c.code == sa.bindparam("code"),
    "group_id": discounts.c.group_id == sa.bindparam("group_id"),
    "status": discounts.c.status == sa.bindparam("status"),
    "auto_apply": discounts.c.auto_apply == sa.bindparam("auto_apply", type_=sa.Boolean),
}
_HOLD_CUSTOMER = (
    sa.select(customers.c.id)
    .where(mine(customers), customers.c.id == sa.bindparam("customer_id"), customers.c.deleted_at.is_(None))
    .with_for_update(key_share=True)
)
_ACTIVE_MARGINS = sa.select(*columns(discounts)).where(
    mine(discounts), any_of(discounts.c.customer_id, "customer_ids"), discounts.c.status == "active"
)

_OF_BUYER = sa.outerjoin(
    discounts,
    discount_buyers,
    sa.and_(
        discount_buyers.c.tenant_id == discounts.c.tenant_id,
        discount_buyers.c.discount_id == discounts.c.id,
        discount_buyers.c.buyer == sa.bindparam("buyer", type_=sa.Text),
    ),
)


def _candidates(*whose: sa.ColumnElement[bool]) -> sa.Select[*tuple[Any, ...]]:
    used = sa.func.coalesce(discount_buyers.c.times_used, 0).label("used_by_buyer")
    return sa.select(*columns(discounts), used).select_from(_OF_BUYER).where(mine(discounts), *whose)


_AUTOMATIC = _candidates(discounts.c.auto_apply, discounts.c.status == "active")
_TYPED = _candidates(discounts.c.code == sa.bindparam("code"))
_MARGINS = _candidates(any_of(discounts.c.customer_id, "customer_ids"), discounts.c.status == "active")
_FOR_CART: dict[tuple[bool, bool], sa.Select[*tuple[Any, ...]] | sa.CompoundSelect[*tuple[Any, ...]]] = {
    (False, False): _AUTOMATIC,
    (True, False): sa.union_all(_AUTOMATIC, _TYPED),
    (False, True): sa.union_all(_AUTOMATIC, _MARGINS),
    (True, True): sa.union_all(_AUTOMATIC, _TYPED, _MARGINS),
}
"""One statement for all discounts that a cart may get: with a typed code or not, for a customer or not."""


def create(tx: Tx, new: NewDiscount) -> Discount:
    """Make a discount. Raises Invalid; NotFound for the customer; Conflict (``code_taken``, ``margin_taken``)."""
    discount = Discount(
        id=tx.new_id("dsc"),
        code=None if new.code is None else normalize_code(new.code),
        description=new.description,
        kind=new.kind,
        amount=new.amount,
        asset=new.asset,
        product_ids=new.product_ids,
        price_ids=new.price_ids,
        tiers=new.tiers,
        rails=new.rails,
        stage=new.stage,
        auto_apply=new.auto_apply,
        recurring=new.recurring,
        max_periods=new.max_periods,
        group_id=new.group_id,
        customer_id=new.customer_id,
        usage_limit=new.usage_limit,
        per_customer_limit=new.per_customer_limit,
        times_used=0,
        starts_at=moment("starts_at", new.starts_at),
        expires_at=moment("expires_at", new.expires_at),
        status="active",
        metadata=new.metadata,
        created_at=tx.now,
        updated_at=tx.now,
    )
    discount_rules.check(discount)
    if new.customer_id is not None:
        _hold_customer(tx, new.customer_id)
    if not tx.insert_if_new(discounts, discount):
        if discount.code is None:
            raise Conflict("This customer has a margin; archive that one first.", code="margin_taken")
        raise Conflict(f"There is already a discount with the code {discount.code}.", code="code_taken")
    tx.record("discount.created", "discount", discount.id, code=discount.code, kind=new.kind, margin_of=new.customer_id)
    return discount


def _hold_customer(tx: Tx, customer_id: str) -> None:
    """Have whoever else changes this customer's margins wait until the transaction ends. Raises NotFound."""
    if tx.one(_HOLD_CUSTOMER, {"customer_id": customer_id}) is None:
        raise NotFound("customer_id: there is no such customer.", code="customer_not_found")


def get(tx: Tx, discount_id: str) -> Discount:
    """Raise NotFound (``discount_not_found``) when there is none."""
    row = tx.one(_GET, {"id": discount_id})
    if row is None:
        raise NotFound("There is no such discount.", code="discount_not_found")
    return Discount(*row)


def get_many(tx: Tx, ids: list[str]) -> list[Discount]:
    """Those there are, oldest first."""
    return [Discount(*row) for row in tx.all(_GET_MANY, {"ids": ids})]


def list_(
    tx: Tx,
    *,
    code: str | None = None,
    group_id: str | None = None,
    status: CatalogStatus | None = None,
    auto_apply: bool | None = None,
    after: str = "",
    limit: int = 20,
) -> Page[Discount]:
    """A page of discounts, oldest first; of this code, group or status, or that apply by themselves or do not."""
    given: dict[str, Any] = {
        "code": None if code is None else normalize_code(code),
        "group_id": group_id,
        "status": status,
        "auto_apply": auto_apply,
    }
    params = {name: value for name, value in given.items() if value is not None}
    statement = _LIST.where(*[_FILTERS[name] for name in params])
    rows = tx.all(statement, {**params, "after": after, "limit": limit + 1})
    return page_of([Discount(*row) for row in rows], limit)


def update(tx: Tx, discount_id: str, changes: DiscountChanges) -> Discount:
    """Change what may change about a discount; who was quoted it keeps it.

    A limit per customer that comes later counts from then on. Raises Invalid; NotFound; Conflict
    (``limit_below_uses``, ``margin_taken``).
    """
    given = {
        name: value for name in changes.__struct_fields__ if (value := getattr(changes, name)) is not msgspec.UNSET
    }
    if not given:
        raise Invalid("Say what is to change.")
    if "expires_at" in given:
        given["expires_at"] = moment("expires_at", given["expires_at"])
    customer_id = get(tx, discount_id).customer_id  # which never changes
    if customer_id is not None and given.get("status") == "active":
        _hold_customer(tx, customer_id)
        margin = tx.one(_ACTIVE_MARGINS, {"customer_ids": [customer_id]})
        if margin is not None and margin.id != discount_id:
            raise Conflict("This customer has a margin; archive that one first.", code="margin_taken")
    row = tx.one(_GET_LOCKED, {"id": discount_id})
    assert row is not None  # nothing deletes discounts
    old = Discount(*row)
    new = msgspec.structs.replace(old, **given, updated_at=tx.now)
    changed = sorted(name for name in given if getattr(new, name) != getattr(old, name))
    if not changed:
        return old
    discount_rules.check(new)
    if "usage_limit" in changed and new.usage_limit is not None and new.usage_limit < old.times_used:
        raise Conflict(f"It has been used {old.times_used} times already.", code="limit_below_uses")
    statement = sa.update(discounts).where(mine(discounts), discounts.c.id == sa.bindparam("discount_id"))
    tx.execute(statement.values(**given, updated_at=tx.now), {"discount_id": discount_id})
    verb = "archived" if "status" in changed and new.status == "archived" else "updated"
    tx.record(f"discount.{verb}", "discount", discount_id, changed=changed)
    return new


def set_status(tx: Tx, discount_id: str, status: CatalogStatus) -> Discount:
    """Archive a discount or bring it back. Raises NotFound; Conflict (``margin_taken``)."""
    return update(tx, discount_id, DiscountChanges(status=status))


class Candidates(msgspec.Struct, frozen=True):
    """The discounts that a cart may get, before it is known what they cover."""

    margin: Discount | None
    automatic: list[Discount]
    """Those in use now and not used up, oldest first."""
    typed: Discount | None


def candidates(
    tx: Tx, *, code: str | None = None, customer_path: str | None = None, rail: str | None = None, buyer: str | None
) -> Candidates:
    """What a cart may get: the customer's margin, what applies by itself, and what was typed; one statement.

    ``customer_path`` is :attr:`~counterfoil.accounts.types.Customer.path`; the margin nearest to its end counts,
    the customer's own first. ``rail`` None: nothing that is for some rails only. ``buyer``: whom limits per
    customer count; without one, what has such a limit does not apply by itself.
    Raises Invalid with a code that says why what was typed cannot be used.
    """
    wanted = None if code is None else normalize_code(code)
    if wanted is not None and not is_code(wanted):
        raise _unknown_code()
    path = [] if customer_path is None else customer_path.rstrip("/").split("/")
    rows = tx.all(
        _FOR_CART[wanted is not None, customer_path is not None],
        {"code": wanted, "customer_ids": path, "buyer": buyer} if path or wanted else {"buyer": buyer},
    )
    used: dict[str, int] = {row.id: row.used_by_buyer for row in rows}
    found = {row.id: Discount(*row[:-1]) for row in rows}
    typed = next((one for one in found.values() if one.code == wanted), None) if wanted is not None else None
    if wanted is not None:
        if typed is None:
            raise _unknown_code()
        check_usable(tx, typed, rail=rail, buyer=buyer, used_by_buyer=used[typed.id])
    automatic = [
        one
        for one in sorted(found.values(), key=lambda one: one.id)
        if one.auto_apply
        and one is not typed
        and one.status == "active"
        and _is_due(tx, one)
        and _fits(one, rail)
        and not _is_used_up(one)
        and (one.per_customer_limit is None or (buyer is not None and used[one.id] < one.per_customer_limit))
    ]
    return Candidates(_nearest(_due_margins(tx, found.values()), path, rail), automatic, typed)


def margins(tx: Tx, whose: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Discount]:
    """The margins that count for customers, given by their paths, on rails, as :func:`candidates` finds them.

    What has none is left out. One statement.
    """
    paths = {(path, rail): path.rstrip("/").split("/") for path, rail in whose}
    ids = {customer_id for path in paths.values() for customer_id in path}
    rows = tx.all(_ACTIVE_MARGINS, {"customer_ids": sorted(ids)}) if ids else []
    due = _due_margins(tx, [Discount(*row) for row in rows])
    found = {key: _nearest(due, path, key[1]) for key, path in paths.items()}
    return {key: one for key, one in found.items() if one is not None}


def _due_margins(tx: Tx, found: Iterable[Discount]) -> dict[str, Discount]:
    return {one.customer_id: one for one in found if one.customer_id is not None and _is_due(tx, one)}


def _nearest(due: Mapping[str, Discount], path: Sequence[str], rail: str | None) -> Discount | None:
    """The margin that counts: the nearest one alone, whatever it is for."""
    nearest = next((due[customer_id] for customer_id in reversed(path) if customer_id in due), None)
    return nearest if nearest is not None and _fits(nearest, rail) else None


def usable(tx: Tx, code: str) -> Discount:
    """The discount behind a code, if it is in use now. Raises Invalid with a code that says why not."""
    found = list_(tx, code=code, limit=1).data if is_code(normalize_code(code)) else []
    if not found:
        raise _unknown_code()
    _check_due(tx, found[0])
    return found[0]


def check_usable(tx: Tx, discount: Discount, *, rail: str | None, buyer: str | None, used_by_buyer: int = 0) -> None:
    """Raise Invalid with a code that says why a typed discount cannot be used now on this rail by this buyer."""
    _check_due(tx, discount)
    if not _fits(discount, rail):
        raise Invalid.field("code", f"this code is for {' or '.join(discount.rails)} only", code="discount_wrong_rail")
    if _is_used_up(discount):
        raise used_up("code")
    if discount.per_customer_limit is None:
        return
    if buyer is None:
        raise Invalid.field("email", "this code counts its buyers; say who you are", code="buyer_required")
    if used_by_buyer >= discount.per_customer_limit:
        raise used_up("code")


def used_up(field: str) -> Invalid:
    """What to raise when no use is left of what a field asks for."""
    words = "this code has been used up" if field == "code" else "a discount of this quote has been used up"
    return Invalid.field(field, words, code="discount_exhausted")


def _unknown_code() -> Invalid:
    return Invalid.field("code", "there is no such code", code="discount_not_found")


def _check_due(tx: Tx, discount: Discount) -> None:
    if discount.status != "active" or (discount.starts_at and tx.now < discount.starts_at):
        raise Invalid.field("code", "this code is not in use", code="discount_inactive")
    if discount.expires_at and tx.now >= discount.expires_at:
        raise Invalid.field("code", "this code has expired", code="discount_expired")


def _is_due(tx: Tx, discount: Discount) -> bool:
    return (discount.starts_at is None or discount.starts_at <= tx.now) and (
        discount.expires_at is None or tx.now < discount.expires_at
    )


def in_use(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """What makes a margin due, in SQL: of discounts under any name, with the parameter ``now``."""
    return sa.and_(
        table.c.status == "active",
        sa.or_(table.c.starts_at.is_(None), table.c.starts_at <= sa.bindparam("now")),
        sa.or_(table.c.expires_at.is_(None), table.c.expires_at > sa.bindparam("now")),
    )


def _fits(discount: Discount, rail: str | None) -> bool:
    return not discount.rails or rail in discount.rails


def _is_used_up(discount: Discount) -> bool:
    return discount.usage_limit is not None and discount.times_used >= discount.usage_limit
