"""What was earned: where discounts, the customers whose margins they are, and orders meet. Reads, and never writes."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from counterfoil.accounts.tables import customers
from counterfoil.catalog.discount_rules import moment
from counterfoil.catalog.tables import discounts
from counterfoil.catalog.types import DiscountKind
from counterfoil.db.base import Scope
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.money import Money, to_decimal
from counterfoil.kernel.paging import Page, decode_cursor, encode_cursor
from counterfoil.sales.tables import order_discounts, orders

_FIRST: Final = datetime(1, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
_PAGE: Final = 500
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class DiscountRevenue(msgspec.Struct, frozen=True):
    """What the orders with one discount brought in, in one asset; amounts in minor units.

    An order with several discounts counts for each of them, so that rows do not add up to the whole.
    """

    discount_id: str
    code: str | None
    description: str
    kind: DiscountKind
    rate: int
    """What it takes off: basis points for a percentage, minor units else."""
    customer_id: str | None
    """Whose margin it is; None for one that is nobody's."""
    customer_name: str | None
    asset: str
    orders: int
    customers: int
    """Who bought: customers, and e-mail addresses where no customer is known."""
    gross: int
    """What the orders would have cost without any discount."""
    taken_off: int
    """What this discount took off."""
    net: int
    """What was paid, tax included."""
    tax: int
    """The tax in it."""
    refunded: int
    """What of it was given back."""


def _sum(value: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.sum(value), sa.BigInteger)


_JOINED = (
    sa.join(
        order_discounts,
        orders,
        sa.and_(orders.c.tenant_id == order_discounts.c.tenant_id, orders.c.id == order_discounts.c.order_id),
    )
    .join(
        discounts,
        sa.and_(discounts.c.tenant_id == order_discounts.c.tenant_id, discounts.c.id == order_discounts.c.discount_id),
    )
    .outerjoin(
        customers,
        sa.and_(customers.c.tenant_id == discounts.c.tenant_id, customers.c.id == discounts.c.customer_id),
    )
)
_OF_DISCOUNT = (
    discounts.c.id,
    discounts.c.code,
    discounts.c.description,
    discounts.c.kind,
    discounts.c.amount,
    discounts.c.customer_id,
    customers.c.name,
    order_discounts.c.asset,
)
_REVENUE = (
    sa.select(
        *_OF_DISCOUNT,
        sa.func.count(),
        sa.func.count(sa.distinct(sa.func.coalesce(orders.c.customer_id, orders.c.email))),
        _sum(orders.c.amount + orders.c.discount_total),
        _sum(order_discounts.c.amount),
        _sum(orders.c.amount),
        _sum(orders.c.tax_total),
        _sum(orders.c.refunded),
    )
    .select_from(_JOINED)
    .where(
        mine(order_discounts),
        order_discounts.c.discount_id >= sa.bindparam("discount_id"),
        sa.or_(
            order_discounts.c.discount_id > sa.bindparam("discount_id"),
            order_discounts.c.asset > sa.bindparam("asset"),
        ),
        orders.c.created_at >= sa.bindparam("since"),
        orders.c.created_at < sa.bindparam("until"),
    )
    .group_by(*_OF_DISCOUNT)
    .order_by(discounts.c.id, order_discounts.c.asset)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)


def margins(
    tx: Tx, *, since: datetime | None = None, until: datetime | None = None, after: str | None = None, limit: int = 20
) -> Page[DiscountRevenue]:
    """A page of what was earned by discount and asset, the oldest discount first.

    Of orders made from ``since`` on and before ``until``. Raises Invalid.
    """
    given = (moment("from", since) or _FIRST, moment("to", until) or _LAST)
    if given[0] >= given[1]:
        raise Invalid.field("to", "must be later than from")
    place = decode_cursor(after, (str, str)) if after else ("", "")
    params = {"since": given[0], "until": given[1], "discount_id": place[0], "asset": place[1], "limit": limit + 1}
    rows = [DiscountRevenue(*row) for row in tx.all(_REVENUE, params)]
    if len(rows) <= limit:
        return Page(rows)
    last = rows[limit - 1]
    return Page(rows[:limit], encode_cursor((last.discount_id, last.asset)))


async def all_margins(
    scope: Scope, *, since: datetime | None = None, until: datetime | None = None
) -> AsyncIterator[list[DiscountRevenue]]:
    """Everything that :func:`margins` gives, page by page, each as of when it is read. Raises Invalid."""
    after: str | None = None
    while True:
        page = await scope.read(margins, since=since, until=until, after=after, limit=_PAGE)
        if page.data:
            yield page.data
        if page.next is None:
            return
        after = page.next


_AMOUNTS: Final = frozenset({"gross", "taken_off", "net", "tax", "refunded"})
CSV_COLUMNS: Final = DiscountRevenue.__struct_fields__


def csv_lines(rows: Iterable[DiscountRevenue], *, header: bool = False) -> bytes:
    """Lines of CSV (RFC 4180), amounts in major units; with the columns' names first where it is the beginning."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    if header:
        writer.writerow(CSV_COLUMNS)
    writer.writerows([[_cell(row, name) for name in CSV_COLUMNS] for row in rows])
    return text.getvalue().encode()


def _cell(row: DiscountRevenue, name: str) -> str:
    value = getattr(row, name)
    if name in _AMOUNTS:
        return str(to_decimal(Money(value, row.asset)))
    if value is None:
        return ""
    words = str(value)
    # What somebody wrote must not be run by the spreadsheet that opens it: a quote in front makes it text.
    return f"'{words}" if isinstance(value, str) and words.startswith(_FORMULA) else words
