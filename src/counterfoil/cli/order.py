"""Commands on orders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec
import typer

from counterfoil.cli.context import read, within, write
from counterfoil.cli.errors import CliError
from counterfoil.cli.fulfillment import FULFILLMENT_COLUMNS
from counterfoil.cli.license import LICENSE_COLUMNS
from counterfoil.cli.options import After, AsJson, Limit, group
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_page, print_section, view
from counterfoil.cli.payment import PAYMENT_COLUMNS
from counterfoil.cli.streams import bar, target
from counterfoil.cli.values import parse_moment
from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.exchange.rails import RAILS
from counterfoil.house import House
from counterfoil.kernel.paging import DEFAULT_LIMIT, MAX_LIMIT, Page
from counterfoil.licensing import licenses
from counterfoil.licensing.types import License
from counterfoil.sales import fulfillments, order_export, order_history, order_search, orders, payments
from counterfoil.sales.fulfillments import FulfillmentView
from counterfoil.sales.order_imports import NewOrder
from counterfoil.sales.order_search import Count, Direction, Filter
from counterfoil.sales.types import Order, OrderHistoryEntry, OrderStatus, Payment
from counterfoil.settlement.imports import import_order

app = group("Orders: what was bought.")

Which = Annotated[str, typer.Argument(metavar="ORDER")]
Statuses = Annotated[list[str] | None, typer.Option("--status", metavar="STATUS", help="Only those in it. Repeatable.")]
Search = Annotated[
    str | None,
    typer.Option("--search", metavar="TEXT", help="An id, a purchase reference, or how the address begins."),
]
Email = Annotated[str | None, typer.Option("--email", metavar="TEXT", help="Only this buyer's.")]
Customer = Annotated[str | None, typer.Option("--customer", metavar="CUSTOMER", help="Only this customer's.")]
PartiallyRefunded = Annotated[
    bool, typer.Option("--partially-refunded", help="Only those of whose amount a part went back.")
]
CreatedAfter = Annotated[str | None, typer.Option("--created-after", metavar="TIME", help="At this time or later.")]
CreatedBefore = Annotated[str | None, typer.Option("--created-before", metavar="TIME", help="Before this time.")]

COLUMNS: list[Column[Order]] = [
    Column("ID", lambda order: order.id),
    Column("STATUS", lambda order: order.status),
    Column("TOTAL", lambda order: amount(order.amount, order.asset), right=True),
    Column("ITEMS", lambda order: ", ".join(f"{item['quantity']} x {item['name']}" for item in order.items)),
    Column("RAIL", lambda order: order.source),
    Column("E-MAIL", lambda order: order.email),
    Column("MADE", lambda order: order.created_at),
]
_HISTORY_COLUMNS: list[Column[OrderHistoryEntry]] = [
    Column("WHEN", lambda step: step.created_at),
    Column("FROM", lambda step: step.from_status),
    Column("TO", lambda step: step.to_status),
    Column("BY", lambda step: step.actor_id or step.actor_kind),
    Column("NOTE", lambda step: step.note),
]


class OrderParts(msgspec.Struct, frozen=True):
    """An order, how it was paid, what it gave and what became of it."""

    order: Order
    licenses: list[License]
    payments: list[Payment]
    fulfillments: list[FulfillmentView]
    history: list[OrderHistoryEntry]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    status: Statuses = None,
    search: Search = None,
    email: Email = None,
    customer: Customer = None,
    partially_refunded: PartiallyRefunded = False,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    newest_first: Annotated[bool, typer.Option("--newest-first", help="Newest first.")] = False,
    total: Annotated[bool, typer.Option("--total", help="Count them, too, up to 10,000.")] = False,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List orders, oldest first; a search sorts by e-mail address."""
    only = _filter(status, search, email, customer, created_after, created_before, partially=partially_refunded)
    order: Direction = "desc" if newest_first else "asc"

    def found(tx: Tx) -> tuple[Page[Order], Count | None]:
        page = order_search.list_(tx, only=only, order=order, after=order_search.start(after, only), limit=limit)
        return page, order_search.count(tx, only=only) if total else None

    page, counted = read(ctx, found)
    if as_json:
        print_json({"data": page.data, "next": page.next, **({"total": counted} if counted else {})})
        return
    print_page(page, COLUMNS, lambda order: order, as_json=False)
    if counted:
        typer.echo(f"{counted.count:,}{'' if counted.is_exact else ' or more'} in all", err=True)


@app.command("show")
def show(ctx: typer.Context, order: Which, *, as_json: AsJson = False) -> None:
    """Show an order, its licenses and payments, its parcels and its first 100 steps."""
    _print(read(ctx, _parts, order), as_json=as_json)


@app.command("status")
def status(
    ctx: typer.Context,
    order: Which,
    to: Annotated[OrderStatus, typer.Argument(metavar="STATUS", help="Where it goes; docs/orders.md has the steps.")],
    *,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; it enters the record.")] = "",
    as_json: AsJson = False,
) -> None:
    """Move an order on."""

    def advance(tx: Tx) -> OrderParts:
        return _parts(tx, orders.advance(tx, order, to, note=note).id)

    _print(write(ctx, advance), as_json=as_json)


@app.command("import")
def import_(
    ctx: typer.Context,
    file: Annotated[typer.FileBinaryRead, typer.Argument(metavar="FILE", help="JSON; - is standard input.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Write down an order made elsewhere, from JSON as POST /v1/orders takes it; once for each purchase."""
    try:
        new = msgspec.json.decode(file.read(), type=NewOrder)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CliError(f"this is not an order: {error}", "docs/orders.md shows one") from error

    def take_in(tx: Tx) -> OrderParts:
        return _parts(tx, import_order(tx, new, rails=RAILS).order.id)

    _print(write(ctx, take_in), as_json=as_json)


@app.command("export")
def export(
    ctx: typer.Context,
    *,
    format_: Annotated[str, typer.Option("--format", metavar="FORMAT", help="csv is the only one.")] = "csv",
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Standard output unless named.")
    ] = None,
    status: Statuses = None,
    search: Search = None,
    email: Email = None,
    customer: Customer = None,
    partially_refunded: PartiallyRefunded = False,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
) -> None:
    """Write orders as CSV (RFC 4180), oldest first, amounts in major units."""
    if format_ != "csv":
        raise typer.BadParameter(f"{format_!r}: say csv", param_hint="--format")
    only = _filter(status, search, email, customer, created_after, created_before, partially=partially_refunded)

    async def work(_: House, scope: Scope) -> None:
        count = (await scope.read(order_search.count, only=only, most=None)).count
        with target(output) as out, bar("Writing", count) as show_done:
            out.write(order_export.header())
            done = 0
            async for page in order_search.everything(scope, only=only):
                out.write(order_export.lines(page))
                done += len(page)
                show_done(done)

    within(ctx, work)


def _filter(
    status: list[str] | None,
    search: str | None,
    email: str | None,
    customer: str | None,
    created_after: str | None,
    created_before: str | None,
    *,
    partially: bool,
) -> Filter:
    try:
        statuses = msgspec.convert(tuple(status or ()), tuple[OrderStatus, ...])
    except msgspec.ValidationError as error:
        words = ", ".join(get_args(OrderStatus))
        raise typer.BadParameter(f"say one of {words}", param_hint="--status") from error
    return Filter(
        statuses=statuses,
        is_partially_refunded=partially,
        search=search,
        email=email,
        customer_id=customer,
        created_after=parse_moment(created_after, "--created-after"),
        created_before=parse_moment(created_before, "--created-before"),
    )


def _parts(tx: Tx, order_id: str) -> OrderParts:
    order = orders.get(tx, order_id)
    return OrderParts(
        order,
        licenses.of_order(tx, order.id),
        payments.of_checkout(tx, order.checkout_id) if order.checkout_id else [],
        fulfillments.of_order(tx, order.id, limit=MAX_LIMIT).data,
        order_history.of_order(tx, order.id, limit=MAX_LIMIT).data,
    )


def _print(found: OrderParts, *, as_json: bool) -> None:
    row = found.order
    if as_json:
        print_json(view(row, **view(found, "order")))
        return
    amounts = ("amount", "refunded", "discount_total", "tax_total")
    shown = {name: amount(getattr(row, name), row.asset) for name in amounts}
    print_fields((name, shown.get(name, getattr(row, name))) for name in row.__struct_fields__ if name != "items")
    items: list[Column[dict[str, Any]]] = [
        Column("NAME", lambda item: item["name"]),
        Column("TIER", lambda item: item["tier"]),
        Column("QUANTITY", lambda item: item["quantity"], right=True),
        Column("EACH", lambda item: amount(item["unit_amount"], row.asset), right=True),
        Column("TOTAL", lambda item: amount(item["total"], row.asset), right=True),
    ]
    print_section("items", items, row.items)
    print_section("licenses", LICENSE_COLUMNS, found.licenses)
    print_section("payments", PAYMENT_COLUMNS, found.payments)
    print_section("parcels", FULFILLMENT_COLUMNS, found.fulfillments)
    print_section("history", _HISTORY_COLUMNS, found.history)
