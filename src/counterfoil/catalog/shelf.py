"""What buyers see of the catalog: products with the prices they are sold at, and nothing internal.

The list is read by everyone who looks at a shop, so it is one statement and touches only the columns
that are shown.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.catalog.tables import prices, products
from counterfoil.catalog.types import CatalogStatus, Interval, PriceType
from counterfoil.db.base import single_statement
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.paging import Page, page_of


class ShelfPrice(msgspec.Struct, frozen=True):
    """A price as a buyer sees it."""

    id: str
    tier: str
    name: str
    description: str
    asset: str
    unit_amount: int
    type: PriceType
    interval: Interval | None
    interval_count: int | None
    trial_days: int
    country_overrides: list[dict[str, Any]]
    quantity_min: int
    quantity_max: int


class ShelfProduct(msgspec.Struct, frozen=True):
    """A product as a buyer sees it, with its active prices, oldest first."""

    id: str
    slug: str
    name: str
    description: str
    image_url: str | None
    tax_category: str
    status: CatalogStatus
    created_at: datetime
    prices: list[ShelfPrice]


_PRODUCT_FIELDS = ShelfProduct.__struct_fields__[:-1]
_PRODUCT_WIDTH = len(_PRODUCT_FIELDS)


def _page(status: bool) -> sa.Select[Any]:  # noqa: FBT001 # a detail of the two statements below
    chosen = sa.select(products.c.tenant_id, *[products.c[name] for name in _PRODUCT_FIELDS]).where(
        mine(products), products.c.id > sa.bindparam("after")
    )
    if status:
        # Sorted as the index is, which with one status is the order of ids.
        chosen = chosen.where(products.c.status == sa.bindparam("status")).order_by(products.c.status, products.c.id)
    else:
        chosen = chosen.order_by(products.c.id)
    page = chosen.limit(sa.bindparam("limit", type_=sa.Integer)).subquery("page")
    return (
        sa.select(
            *[page.c[name] for name in _PRODUCT_FIELDS],
            *[prices.c[name] for name in ShelfPrice.__struct_fields__],
        )
        .select_from(page)
        .outerjoin(
            prices,
            sa.and_(
                prices.c.tenant_id == page.c.tenant_id, prices.c.product_id == page.c.id, prices.c.status == "active"
            ),
        )
        .order_by(page.c.id, prices.c.id)
    )


_LIST, _LIST_STATUS = _page(status=False), _page(status=True)


@single_statement
def list_(tx: Tx, *, after: str = "", limit: int = 20, status: CatalogStatus | None = "active") -> Page[ShelfProduct]:
    """A page of products with their active prices, oldest first; ``status`` None = any."""
    params: dict[str, Any] = {"after": after, "limit": limit + 1}
    rows = tx.all(_LIST_STATUS, {**params, "status": status}) if status else tx.all(_LIST, params)
    shown: list[ShelfProduct] = []
    sold_at: list[ShelfPrice] = []
    last = ""
    for row in rows:
        if row[0] != last:
            last, sold_at = row[0], []
            shown.append(ShelfProduct(*[*row[:_PRODUCT_WIDTH], sold_at]))
        if row[_PRODUCT_WIDTH] is not None:
            sold_at.append(ShelfPrice(*row[_PRODUCT_WIDTH:]))
    return page_of(shown, limit)
