"""Commands on orders."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from counterfoil.cli.context import read, start
from counterfoil.cli.license import LICENSE_COLUMNS
from counterfoil.cli.options import After, AsJson, Limit, group
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_page, print_section, view
from counterfoil.cli.payment import PAYMENT_COLUMNS
from counterfoil.db.tx import Tx
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.licensing import licenses
from counterfoil.licensing.types import License
from counterfoil.sales import orders, payments
from counterfoil.sales.types import Order, Payment

app = group("Orders: what was bought.")

COLUMNS: list[Column[Order]] = [
    Column("ID", lambda order: order.id),
    Column("TOTAL", lambda order: amount(order.amount, order.asset), right=True),
    Column("ITEMS", lambda order: ", ".join(f"{item['quantity']} x {item['name']}" for item in order.items)),
    Column("RAIL", lambda order: order.source),
    Column("E-MAIL", lambda order: order.email),
    Column("MADE", lambda order: order.created_at),
]


class OrderParts(msgspec.Struct, frozen=True):
    """An order, how it was paid and what it gave."""

    order: Order
    licenses: list[License]
    payments: list[Payment]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    email: Annotated[str | None, typer.Option("--email", metavar="TEXT", help="Only this buyer's.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List orders, oldest first."""
    page = read(ctx, orders.list_, email=email, after=start(after), limit=limit)
    print_page(page, COLUMNS, lambda order: order, as_json=as_json)


@app.command("show")
def show(
    ctx: typer.Context, order: Annotated[str, typer.Argument(metavar="ORDER")], *, as_json: AsJson = False
) -> None:
    """Show an order, its licenses and its payments."""
    found = read(ctx, _parts, order)
    row = found.order
    if as_json:
        print_json(view(row, licenses=found.licenses, payments=found.payments))
        return
    shown = {name: amount(getattr(row, name), row.asset) for name in ("amount", "discount_total", "tax_total")}
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


def _parts(tx: Tx, order_id: str) -> OrderParts:
    order = orders.get(tx, order_id)
    paid = payments.of_checkout(tx, order.checkout_id) if order.checkout_id else []
    return OrderParts(order, licenses.of_order(tx, order.id), paid)
