"""Operations on discounts, and what a discount takes off a line.

A use is reserved before any rail is asked, redeemed by the order and released on every other way out.
The limit is a condition of the one UPDATE that counts, so no number of buyers at once can pass it.

A margin is a discount that belongs to a customer and has no code: it applies to whatever that customer, or
anyone below it, buys. It has no limit, so its uses are not counted and do not wait for one another.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from counterfoil.accounts.tables import customers
from counterfoil.catalog.products import check_text
from counterfoil.catalog.tables import discount_redemptions, discounts
from counterfoil.catalog.types import CatalogStatus, Discount, DiscountKind, DiscountRedemption
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel import money
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.metadata import check_metadata
from counterfoil.kernel.paging import Page, page_of

_CODE = re.compile(r"[A-Z0-9_-]{1,64}")

_GET = sa.select(*columns(discounts)).where(mine(discounts), discounts.c.id == sa.bindparam("id"))
_BY_CODE = sa.select(*columns(discounts)).where(mine(discounts), discounts.c.code == sa.bindparam("code"))
_LIST = (
    sa.select(*columns(discounts))
    .where(mine(discounts), discounts.c.id > sa.bindparam("after"))
    .order_by(discounts.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_SET_STATUS = (
    sa.update(discounts)
    .where(mine(discounts), discounts.c.id == sa.bindparam("discount_id"))
    .values(status=sa.bindparam("new_status"), updated_at=sa.bindparam("now"))
    .returning(*columns(discounts))
)
_USE = (
    sa.update(discounts)
    .where(
        mine(discounts),
        discounts.c.id == sa.bindparam("discount_id"),
        sa.or_(discounts.c.usage_limit.is_(None), discounts.c.times_used < discounts.c.usage_limit),
    )
    .values(times_used=discounts.c.times_used + 1, updated_at=sa.bindparam("now"))
)
_GIVE_BACK = (
    sa.update(discounts)
    .where(mine(discounts), discounts.c.id == sa.bindparam("discount_id"))
    .values(times_used=discounts.c.times_used - 1, updated_at=sa.bindparam("now"))
)
_HOLD_CUSTOMER = (
    sa.select(customers.c.id)
    .where(mine(customers), customers.c.id == sa.bindparam("customer_id"), customers.c.deleted_at.is_(None))
    .with_for_update(key_share=True)
)
_ACTIVE_MARGINS = sa.select(*columns(discounts)).where(
    mine(discounts), any_of(discounts.c.customer_id, "customer_ids"), discounts.c.status == "active"
)
_REDEMPTIONS = (
    sa.select(*columns(discount_redemptions))
    .where(mine(discount_redemptions), discount_redemptions.c.checkout_id == sa.bindparam("checkout_id"))
    .order_by(discount_redemptions.c.discount_id)
)
_HELD = (
    sa.select(*columns(discount_redemptions), discounts.c.customer_id.label("margin_of"))
    .join(
        discounts,
        sa.and_(
            discounts.c.tenant_id == discount_redemptions.c.tenant_id,
            discounts.c.id == discount_redemptions.c.discount_id,
        ),
    )
    .where(mine(discount_redemptions), discount_redemptions.c.checkout_id == sa.bindparam("checkout_id"))
    .order_by(discount_redemptions.c.discount_id)
)
_MOVE_REDEMPTION = (
    sa.update(discount_redemptions)
    .where(
        mine(discount_redemptions),
        discount_redemptions.c.id == sa.bindparam("redemption_id"),
        discount_redemptions.c.status == sa.bindparam("from_status"),
    )
    .values(status=sa.bindparam("to_status"), updated_at=sa.bindparam("now"))
)


class NewDiscount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it takes to make a discount: a code for whoever types it, or the customer whose margin it is."""

    kind: DiscountKind
    code: str | None = None
    customer_id: str | None = None
    amount: int = 0
    asset: str | None = None
    description: str = ""
    product_ids: list[str] = []
    tiers: list[str] = []
    usage_limit: int | None = None
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    metadata: dict[str, Any] = {}


def normalize_code(code: str) -> str:
    """Codes are the same in either case and with blanks around them."""
    return code.strip().upper()


def _check_whose(new: NewDiscount, code: str | None) -> None:
    if (code is None) == (new.customer_id is None):
        raise Invalid.field("code", "give a code, or the customer whose margin it is", code="code_or_customer")
    if code is not None and not _CODE.fullmatch(code):
        raise Invalid.field("code", "1 to 64 letters, digits, hyphens and underscores")
    if new.customer_id is not None and new.kind != "percentage":
        raise Invalid.field("kind", "a margin is a percentage", code="margin_kind")
    if new.customer_id is not None and new.usage_limit is not None:
        raise Invalid.field("usage_limit", "a margin has none", code="margin_usage_limit")


def _check(new: NewDiscount) -> None:
    most = 10_000 if new.kind == "percentage" else money.MAX_AMOUNT
    if not 0 <= new.amount <= most or (new.kind == "free" and new.amount):
        raise Invalid.field("amount", "basis points up to 10000 for percentage, minor units otherwise, 0 for free")
    if (new.asset is not None) != (new.kind in {"flat", "set_price"}):
        raise Invalid.field("asset", "flat and set_price are in an asset, percentage and free are not")
    if new.asset is not None and not money.is_known(new.asset):
        raise Invalid.field("asset", "not a currency or token we know", code="unknown_asset")
    if new.usage_limit is not None and not 1 <= new.usage_limit <= money.MAX_AMOUNT:
        raise Invalid.field("usage_limit", "at least 1, or left out")
    starts_at, expires_at = _moment("starts_at", new.starts_at), _moment("expires_at", new.expires_at)
    if starts_at is not None and expires_at is not None and expires_at <= starts_at:
        raise Invalid.field("expires_at", "must be after starts_at")
    for name in ("product_ids", "tiers"):
        if any("\x00" in value for value in getattr(new, name)):
            raise Invalid.field(name, "must not contain control characters")
    check_text("description", new.description, most=2000)
    check_metadata("metadata", new.metadata)


def _moment(field: str, value: datetime | None) -> datetime | None:
    """The same moment in UTC. Raises Invalid when it has no time zone, or no UTC within the years 1 to 9999."""
    if value is None:
        return None
    if value.tzinfo is None:
        raise Invalid.field(field, "needs its time zone")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise Invalid.field(field, "must be within the years 1 to 9999 in UTC") from error


def create(tx: Tx, new: NewDiscount) -> Discount:
    """Make a discount. Raises Invalid; NotFound for the customer; Conflict (``code_taken``, ``margin_taken``)."""
    code = None if new.code is None else normalize_code(new.code)
    _check_whose(new, code)
    _check(new)
    if new.customer_id is not None:
        _hold_customer(tx, new.customer_id)
    discount = Discount(
        id=tx.new_id("dsc"),
        code=code,
        description=new.description,
        kind=new.kind,
        amount=new.amount,
        asset=new.asset,
        product_ids=new.product_ids,
        price_ids=[],
        tiers=new.tiers,
        rails=[],
        stage="checkout",
        auto_apply=False,
        recurring=False,
        max_periods=None,
        group_id=None,
        customer_id=new.customer_id,
        usage_limit=new.usage_limit,
        per_customer_limit=None,
        times_used=0,
        starts_at=_moment("starts_at", new.starts_at),
        expires_at=_moment("expires_at", new.expires_at),
        status="active",
        metadata=new.metadata,
        created_at=tx.now,
        updated_at=tx.now,
    )
    if not tx.insert_if_new(discounts, discount):
        if code is None:
            raise Conflict("This customer has a margin; archive that one first.", code="margin_taken")
        raise Conflict(f"There is already a discount with the code {code}.", code="code_taken")
    tx.record("discount.created", "discount", discount.id, code=code, kind=new.kind, margin_of=new.customer_id)
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


def list_(tx: Tx, *, after: str = "", limit: int = 20) -> Page[Discount]:
    """A page of discounts, oldest first."""
    return page_of([Discount(*row) for row in tx.all(_LIST, {"after": after, "limit": limit + 1})], limit)


def set_status(tx: Tx, discount_id: str, status: CatalogStatus) -> Discount:
    """Archive a discount or bring it back. Raises NotFound; Conflict (``margin_taken``)."""
    customer_id = get(tx, discount_id).customer_id  # which never changes
    if customer_id is not None and status == "active":
        _hold_customer(tx, customer_id)
        margin = tx.one(_ACTIVE_MARGINS, {"customer_ids": [customer_id]})
        if margin is not None and margin.id != discount_id:
            raise Conflict("This customer has a margin; archive that one first.", code="margin_taken")
    row = tx.one(_SET_STATUS, {"discount_id": discount_id, "new_status": status, "now": tx.now})
    if row is None:
        raise NotFound("There is no such discount.", code="discount_not_found")
    tx.record(f"discount.{'archived' if status == 'archived' else 'updated'}", "discount", discount_id)
    return Discount(*row)


def usable(tx: Tx, code: str) -> Discount:
    """The discount behind a code, if it can be used now. Raises Invalid with a code that says why not."""
    code = normalize_code(code)
    row = tx.one(_BY_CODE, {"code": code}) if _CODE.fullmatch(code) else None
    if row is None:
        raise Invalid.field("code", "there is no such code", code="discount_not_found")
    discount = Discount(*row)
    if discount.status != "active" or (discount.starts_at and tx.now < discount.starts_at):
        raise Invalid.field("code", "this code is not in use", code="discount_inactive")
    if discount.expires_at and tx.now >= discount.expires_at:
        raise Invalid.field("code", "this code has expired", code="discount_expired")
    return discount


def margin_for(tx: Tx, customer_path: str) -> Discount | None:
    """The margin a customer buys with: the nearest in use now, its own first, then those of the customers above.

    ``customer_path`` is :attr:`~counterfoil.accounts.types.Customer.path`.
    """
    ids = customer_path.rstrip("/").split("/")
    margins = {row.customer_id: Discount(*row) for row in tx.all(_ACTIVE_MARGINS, {"customer_ids": ids})}
    for customer_id in reversed(ids):
        margin = margins.get(customer_id)
        if margin is not None and _is_due(tx, margin):
            return margin
    return None


def _is_due(tx: Tx, discount: Discount) -> bool:
    return (discount.starts_at is None or discount.starts_at <= tx.now) and (
        discount.expires_at is None or tx.now < discount.expires_at
    )


def covers(discount: Discount, product_id: str, tier: str, asset: str) -> bool:
    """Whether the discount applies to a line: its product, its tier, and its asset where money is named."""
    return (
        (not discount.product_ids or product_id in discount.product_ids)
        and (not discount.tiers or tier in discount.tiers)
        and (discount.asset is None or discount.asset == asset)
    )


def reduction(discount: Discount, remaining: int, quantity: int) -> int:
    """How much it takes off a line it covers, of which ``remaining`` is left to pay.

    Never more than that, rounded once, half up.
    """
    match discount.kind:
        case "percentage":
            return money.portion(remaining, discount.amount)
        case "flat":
            return min(discount.amount, remaining)
        case "flat_per_seat":
            return min(discount.amount * quantity, remaining)
        case "set_price":
            return max(0, remaining - discount.amount * quantity)
        case "free":
            return remaining


def reserve(tx: Tx, discount: Discount, checkout_id: str, taken: money.Money) -> None:
    """Take one use for a checkout. Raises Invalid (``discount_exhausted``) when none is left."""
    if discount.customer_id is None and not tx.execute(_USE, {"discount_id": discount.id, "now": tx.now}):
        raise Invalid.field("code", "this code has been used up", code="discount_exhausted")
    redemption = DiscountRedemption(
        id=tx.new_id("red"),
        discount_id=discount.id,
        checkout_id=checkout_id,
        buyer=None,
        status="reserved",
        amount=taken.amount,
        asset=taken.asset,
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.insert(discount_redemptions, redemption)


def redemptions_of(tx: Tx, checkout_id: str) -> list[DiscountRedemption]:
    """The uses a checkout holds or held."""
    return [DiscountRedemption(*row) for row in tx.all(_REDEMPTIONS, {"checkout_id": checkout_id})]


def release(tx: Tx, checkout_id: str) -> None:
    """Give a checkout's reserved uses back; those redeemed or released already stay as they are."""
    for redemption, counted in _held(tx, checkout_id):
        if _move(tx, redemption, "reserved", "released") and counted:
            tx.execute(_GIVE_BACK, {"discount_id": redemption.discount_id, "now": tx.now})


def redeem(tx: Tx, checkout_id: str) -> bool:
    """Make a checkout's uses final. A use released in the meantime is taken again if one is left.

    False, with nothing changed, when none is left.
    """
    held = _held(tx, checkout_id)
    lapsed = [redemption for redemption, counted in held if counted and redemption.status == "released"]
    for place, redemption in enumerate(lapsed):
        if not tx.execute(_USE, {"discount_id": redemption.discount_id, "now": tx.now}):
            for earlier in lapsed[:place]:
                tx.execute(_GIVE_BACK, {"discount_id": earlier.discount_id, "now": tx.now})
            return False
    for redemption, _ in held:
        if redemption.status != "redeemed":
            _move(tx, redemption, redemption.status, "redeemed")
    return True


def _held(tx: Tx, checkout_id: str) -> list[tuple[DiscountRedemption, bool]]:
    """A checkout's uses, and of each whether it is counted: a margin's is not."""
    rows = tx.all(_HELD, {"checkout_id": checkout_id})
    return [(DiscountRedemption(*row[:-1]), row.margin_of is None) for row in rows]


def _move(
    tx: Tx,
    redemption: DiscountRedemption,
    before: Literal["reserved", "redeemed", "released"],
    after: Literal["redeemed", "released"],
) -> bool:
    moved = tx.execute(
        _MOVE_REDEMPTION,
        {"redemption_id": redemption.id, "from_status": before, "to_status": after, "now": tx.now},
    )
    return moved == 1
