"""Operations on prices.

A price's terms are fixed once it has been quoted: an order must always be able to point at the price
it was sold for. A later change makes a new price that replaces the old one.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.catalog import products
from counterfoil.catalog.products import check_slug, check_text
from counterfoil.catalog.tables import prices, stock_items
from counterfoil.catalog.types import DEFAULT_TIER, CatalogStatus, CountryOverride, Interval, Price, PriceType, TaxMode
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel import money
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.metadata import check_metadata
from counterfoil.kernel.paging import Page, page_of

MAX_QUANTITY = 10_000
MAX_TRIAL_DAYS = 5 * 366

_GET = sa.select(*columns(prices)).where(mine(prices), prices.c.id == sa.bindparam("id"))
_GET_LOCKED = _GET.with_for_update()
_LIST = (
    sa.select(*columns(prices))
    .where(mine(prices), prices.c.id > sa.bindparam("after"))
    .order_by(prices.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LIST_PRODUCT = _LIST.where(prices.c.product_id == sa.bindparam("product_id"))
_LOCK_TERMS = (
    sa.update(prices)
    .where(mine(prices), any_of(prices.c.id, "ids"), prices.c.locked_at.is_(None))
    .values(locked_at=sa.bindparam("now"), updated_at=sa.bindparam("now"))
)
# What lies on a variant's own shelf is sold at its new price from now on.
_MOVE_STOCK = (
    sa.update(stock_items)
    .where(mine(stock_items), stock_items.c.price_id == sa.bindparam("from_price"))
    .values(price_id=sa.bindparam("to_price"), updated_at=sa.bindparam("now"))
)


class NewPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it takes to make a price."""

    asset: str
    unit_amount: int
    tier: str = DEFAULT_TIER
    name: str = ""
    description: str = ""
    type: PriceType = "one_time"
    interval: Interval | None = None
    interval_count: int | None = None
    trial_days: int = 0
    tax_mode: TaxMode = "account_setting"
    country_overrides: list[CountryOverride] = []
    quantity_min: int = 1
    quantity_max: int = MAX_QUANTITY
    metadata: dict[str, Any] = {}


class PriceChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change about a price; what is left out stays. Its asset, tier and type are for good."""

    unit_amount: int | msgspec.UnsetType = msgspec.UNSET
    country_overrides: list[CountryOverride] | msgspec.UnsetType = msgspec.UNSET
    trial_days: int | msgspec.UnsetType = msgspec.UNSET
    tax_mode: TaxMode | msgspec.UnsetType = msgspec.UNSET
    quantity_min: int | msgspec.UnsetType = msgspec.UNSET
    quantity_max: int | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType = msgspec.UNSET
    status: CatalogStatus | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


_TERMS = {"unit_amount", "country_overrides", "trial_days", "tax_mode", "quantity_min", "quantity_max"}


def _check_amount(field: str, amount: int) -> None:
    if not 0 <= amount <= money.MAX_AMOUNT:
        raise Invalid.field(field, f"must be from 0 to {money.MAX_AMOUNT} minor units")


def check(price: Price) -> None:
    """Raise Invalid for what no price can be."""
    _check_amount("unit_amount", price.unit_amount)
    check_text("name", price.name, most=200)
    check_text("description", price.description, most=2000)
    check_metadata("metadata", price.metadata)
    if not 1 <= price.quantity_min <= price.quantity_max <= MAX_QUANTITY:
        raise Invalid.field("quantity_max", f"quantities go from 1 to {MAX_QUANTITY}, the least first")
    if not 0 <= price.trial_days <= MAX_TRIAL_DAYS:
        raise Invalid.field("trial_days", f"must be from 0 to {MAX_TRIAL_DAYS}")
    seen: set[str] = set()
    for place, override in enumerate(price.country_overrides):
        _check_amount(f"country_overrides/{place}/unit_amount", override["unit_amount"])
        for country in override["countries"]:
            if not re.fullmatch(r"[A-Z]{2}", country) or country in seen:
                raise Invalid.field(f"country_overrides/{place}/countries", "each ISO 3166-1 code, upper case, once")
            seen.add(country)
    if (price.type == "recurring") != (price.interval is not None and price.interval_count is not None):
        raise Invalid.field("interval", "a recurring price has an interval and a count, a one-time price neither")
    if price.interval_count is not None and not 1 <= price.interval_count <= 1000:
        raise Invalid.field("interval_count", "must be from 1 to 1000")
    if price.type == "one_time" and price.trial_days:
        raise Invalid.field("trial_days", "only a recurring price has a trial")


def create(tx: Tx, product: str, new: NewPrice) -> Price:
    """Make a price for a product (by slug or id). Raises Invalid, NotFound."""
    if not money.is_known(new.asset):
        raise Invalid.field("asset", "not a currency (ISO 4217) or a token we know", code="unknown_asset")
    check_slug("tier", new.tier)
    product_id = products.find(tx, product).id
    price = Price(
        id=tx.new_id("pri"),
        product_id=product_id,
        tier=new.tier,
        name=new.name,
        description=new.description,
        asset=new.asset,
        unit_amount=new.unit_amount,
        billing_scheme="per_unit",
        type=new.type,
        interval=new.interval,
        interval_count=new.interval_count,
        trial_days=new.trial_days,
        usage_type="licensed",
        tax_mode=new.tax_mode,
        country_overrides=[msgspec.to_builtins(override) for override in new.country_overrides],
        quantity_min=new.quantity_min,
        quantity_max=new.quantity_max,
        status="active",
        locked_at=None,
        replaces=None,
        metadata=new.metadata,
        created_at=tx.now,
        updated_at=tx.now,
    )
    check(price)
    _add(tx, price)
    return price


def _add(tx: Tx, price: Price) -> None:
    tx.insert(prices, price)
    tx.record(
        "price.created",
        "price",
        price.id,
        money=money.Money(price.unit_amount, price.asset),
        product_id=price.product_id,
        tier=price.tier,
        replaces=price.replaces,
    )


def get(tx: Tx, price_id: str) -> Price:
    """Raise NotFound (``price_not_found``) when there is none."""
    row = tx.one(_GET, {"id": price_id})
    if row is None:
        raise NotFound("There is no such price.", code="price_not_found")
    return Price(*row)


def list_(tx: Tx, *, product: str | None = None, after: str = "", limit: int = 20) -> Page[Price]:
    """A page of prices of any status, oldest first; of one product (by slug or id), or all. Raises NotFound."""
    params = {"after": after, "limit": limit + 1}
    if product is None:
        rows = tx.all(_LIST, params)
    else:
        rows = tx.all(_LIST_PRODUCT, {**params, "product_id": products.find(tx, product).id})
    return page_of([Price(*row) for row in rows], limit)


def update(tx: Tx, price_id: str, changes: PriceChanges) -> Price:
    """Change a price in place, or, where its terms change after it was quoted, replace it with a new one.

    The answer is the price to sell from now on: look at its id. Raises Invalid; NotFound; Conflict
    (``price_archived``) when terms of an archived price are to change.
    """
    row = tx.one(_GET_LOCKED, {"id": price_id})
    if row is None:
        raise NotFound("There is no such price.", code="price_not_found")
    old = Price(*row)
    given = {
        name: value for name in changes.__struct_fields__ if (value := getattr(changes, name)) is not msgspec.UNSET
    }
    if "country_overrides" in given:
        given["country_overrides"] = [msgspec.to_builtins(override) for override in given["country_overrides"]]
    changed = {name for name, value in given.items() if value != getattr(old, name)}
    if not changed:
        return old
    new = msgspec.structs.replace(old, **given, updated_at=tx.now)
    check(new)
    if changed & _TERMS and old.locked_at is not None:
        if old.status == "archived":
            raise Conflict("This price is archived; make a new one instead.", code="price_archived")
        new = msgspec.structs.replace(new, id=tx.new_id("pri"), locked_at=None, replaces=old.id, created_at=tx.now)
        _add(tx, new)
        _write(tx, old.id, {"status": "archived"})
        tx.execute(_MOVE_STOCK, {"from_price": old.id, "to_price": new.id, "now": tx.now})
        tx.record("price.archived", "price", old.id, replaced_by=new.id)
        return new
    _write(tx, old.id, given)
    verb = "archived" if "status" in changed and new.status == "archived" else "updated"
    tx.record(f"price.{verb}", "price", old.id, changed=sorted(changed))
    return new


def _write(tx: Tx, price_id: str, values: dict[str, Any]) -> None:
    statement = sa.update(prices).where(mine(prices), prices.c.id == sa.bindparam("price_id"))
    tx.execute(statement.values(**values, updated_at=tx.now), {"price_id": price_id})


def lock_terms(tx: Tx, price_ids: list[str]) -> None:
    """Fix the terms of prices that are being quoted for the first time."""
    tx.execute(_LOCK_TERMS, {"ids": sorted(price_ids), "now": tx.now})
