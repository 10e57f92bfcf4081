"""Our objects as a rail's mirror needs to know them, with the rail's names for what they refer to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.accounts import types as accounts
from counterfoil.accounts.tables import addresses, businesses, customers
from counterfoil.catalog import types as catalog
from counterfoil.catalog.tables import discounts, prices, products
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.rails import mirror
from counterfoil.settlement import links
from counterfoil.settlement.types import LinkKind


class Missing(msgspec.Struct, frozen=True):
    """What has to have a copy first."""

    kind: LinkKind
    object_id: str


def _by_id(table: sa.Table) -> sa.Select[Any]:
    return sa.select(*columns(table)).where(mine(table), table.c.id == sa.bindparam("id"))


_PRODUCT, _PRICE, _DISCOUNT = _by_id(products), _by_id(prices), _by_id(discounts)
_CUSTOMER, _ADDRESS, _BUSINESS = _by_id(customers), _by_id(addresses), _by_id(businesses)
_FIRST_ADDRESS = (
    sa.select(*columns(addresses))
    .where(mine(addresses), addresses.c.customer_id == sa.bindparam("customer_id"), addresses.c.status == "active")
    .order_by(addresses.c.id)
    .limit(1)
)
_TABLES = (
    ("product", products),
    ("price", prices),
    ("discount", discounts),
    ("customer", customers),
    ("address", addresses),
    ("business", businesses),
)
_EXISTING = {kind: sa.select(table.c.id).where(mine(table), any_of(table.c.id, "ids")) for kind, table in _TABLES}
_IDS = {
    kind: sa.select(table.c.id)
    .where(mine(table), table.c.id > sa.bindparam("after"), table.c.status == "active")
    .order_by(table.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
    for kind, table in _TABLES
}


def ids(tx: Tx, kind: str, *, after: str = "", limit: int = 500) -> list[str]:
    """A page of the ids of our active objects of a kind."""
    return [row.id for row in tx.all(_IDS[kind], {"after": after, "limit": limit})]


def existing(tx: Tx, kind: str, wanted: Iterable[str]) -> frozenset[str]:
    """Which of these ids are those of objects of ours."""
    ids = sorted(set(wanted))
    return frozenset(row.id for row in tx.all(_EXISTING[kind], {"ids": ids})) if ids else frozenset()


def read(tx: Tx, rail: str, kind: str, object_id: str) -> mirror.Subject | Missing | None:
    """One of our objects for a rail; what it waits for; or None when there is no such object (any more)."""
    found: mirror.Subject | Missing | None = _READERS[kind](tx, rail, object_id)
    return found


def _product(tx: Tx, _rail: str, object_id: str) -> mirror.Product | None:
    row = tx.one(_PRODUCT, {"id": object_id})
    if row is None:
        return None
    one = catalog.Product(*row)
    return mirror.Product(
        id=one.id,
        name=one.name,
        description=one.description,
        image_url=one.image_url,
        tax_category=one.tax_category,
        active=one.status == "active",
        metadata=one.metadata,
    )


def _price(tx: Tx, rail: str, object_id: str) -> mirror.Price | Missing | None:
    row = tx.one(_PRICE, {"id": object_id})
    if row is None:
        return None
    one = catalog.Price(*row)
    product = links.get(tx, rail, "product", one.product_id)
    if product is None:
        return Missing("product", one.product_id)
    return mirror.Price(
        id=one.id,
        product_id=one.product_id,
        product_reference=product.reference,
        name=one.name,
        description=one.description,
        asset=one.asset,
        unit_amount=one.unit_amount,
        interval=one.interval,
        interval_count=one.interval_count,
        trial_days=one.trial_days,
        country_overrides=tuple((tuple(each["countries"]), each["unit_amount"]) for each in one.country_overrides),
        quantity_min=one.quantity_min,
        quantity_max=one.quantity_max,
        tax_mode=one.tax_mode,
        active=one.status == "active",
        metadata=one.metadata,
    )


def _discount(tx: Tx, rail: str, object_id: str) -> mirror.Discount | Missing | None:
    row = tx.one(_DISCOUNT, {"id": object_id})
    if row is None:
        return None
    one = catalog.Discount(*row)
    of_products = links.references(tx, rail, "product", one.product_ids)
    of_prices = links.references(tx, rail, "price", one.price_ids)
    for product_id in one.product_ids:
        if product_id not in of_products:
            return Missing("product", product_id)
    for price_id in one.price_ids:
        if price_id not in of_prices:
            return Missing("price", price_id)
    return msgspec.structs.replace(
        _terms(one),
        product_references=tuple(of_products[each] for each in one.product_ids),
        price_references=tuple(of_prices[each] for each in one.price_ids),
    )


def discount_terms(tx: Tx, discount_id: str) -> mirror.Discount | None:
    """One of our discounts without what it is for, which a rail may have no copy of yet; None when there is none."""
    row = tx.one(_DISCOUNT, {"id": discount_id})
    return None if row is None else _terms(catalog.Discount(*row))


def _terms(one: catalog.Discount) -> mirror.Discount:
    return mirror.Discount(
        id=one.id,
        description=one.description,
        code=one.code,
        kind=one.kind,
        amount=one.amount,
        asset=one.asset,
        recurring=one.recurring or one.customer_id is not None,  # a margin is for every period
        max_periods=one.max_periods,
        usage_limit=one.usage_limit,
        per_customer_limit=one.per_customer_limit,
        starts_at=one.starts_at,
        expires_at=one.expires_at,
        product_references=(),
        price_references=(),
        active=one.status == "active",
        metadata=one.metadata,
    )


def _customer(tx: Tx, _rail: str, object_id: str) -> mirror.Customer | None:
    row = tx.one(_CUSTOMER, {"id": object_id})
    if row is None:
        return None
    one = accounts.Customer(*row)
    first = tx.one(_FIRST_ADDRESS, {"customer_id": object_id})
    return mirror.Customer(
        id=one.id,
        name=one.name,
        email=one.email,
        locale=one.locale,
        marketing_consent=one.marketing_consent,
        active=one.status == "active" and one.deleted_at is None,
        address=None if first is None else _as_address(accounts.Address(*first), None),
        metadata=one.metadata,
    )


def country_of(tx: Tx, customer_id: str) -> str | None:
    """The country of a customer's first active address (ISO 3166-1); None without one."""
    first = tx.one(_FIRST_ADDRESS, {"customer_id": customer_id})
    return None if first is None else accounts.Address(*first).country_code


def _as_address(one: accounts.Address, customer: str | None) -> mirror.Address:
    return mirror.Address(
        id=one.id,
        customer_id=one.customer_id,
        customer_reference=customer,
        description=one.description or None,
        first_line=one.first_line or None,
        second_line=one.second_line or None,
        city=one.city or None,
        region=one.region or None,
        postal_code=one.zip_code or None,
        country=one.country_code,
        active=one.status == "active",
    )


def _address(tx: Tx, rail: str, object_id: str) -> mirror.Address | Missing | None:
    row = tx.one(_ADDRESS, {"id": object_id})
    if row is None:
        return None
    one = accounts.Address(*row)
    customer = links.get(tx, rail, "customer", one.customer_id)
    return Missing("customer", one.customer_id) if customer is None else _as_address(one, customer.reference)


def _business(tx: Tx, rail: str, object_id: str) -> mirror.Business | Missing | None:
    row = tx.one(_BUSINESS, {"id": object_id})
    if row is None:
        return None
    one = accounts.Business(*row)
    customer = links.get(tx, rail, "customer", one.customer_id)
    if customer is None:
        return Missing("customer", one.customer_id)
    return mirror.Business(
        id=one.id,
        customer_id=one.customer_id,
        customer_reference=customer.reference,
        name=one.name,
        company_number=one.company_number,
        tax_identifier=one.tax_identifier,
        contacts=tuple((each["name"], each["email"]) for each in one.contacts),
        active=one.status == "active",
        metadata=one.metadata,
    )


_READERS: dict[str, Any] = {
    "product": _product,
    "price": _price,
    "discount": _discount,
    "customer": _customer,
    "address": _address,
    "business": _business,
}
