"""Commands on the parcels of an order."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
import typer

from counterfoil.cli.context import read, start, write
from counterfoil.cli.options import After, AsJson, Limit, Metadata, group
from counterfoil.cli.output import Column, print_fields, print_json, print_page
from counterfoil.cli.values import parse_metadata
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.sales import fulfillments
from counterfoil.sales.fulfillments import FulfillmentView, NewFulfillment, PackedItem, Tracking

app = group("Fulfillments: the parcels of an order.")

Which = Annotated[str, typer.Argument(metavar="PARCEL")]
Carrier = Annotated[str | None, typer.Option("--carrier", metavar="TEXT", help="Who carries it.")]
TrackingNumber = Annotated[
    str | None, typer.Option("--tracking-number", metavar="TEXT", help="The carrier's number for it.")
]
TrackingUrl = Annotated[str | None, typer.Option("--tracking-url", metavar="URL", help="Where it is followed.")]

FULFILLMENT_COLUMNS: list[Column[FulfillmentView]] = [
    Column("ID", lambda parcel: parcel.id),
    Column("STATUS", lambda parcel: parcel.status),
    Column("ITEMS", lambda parcel: ", ".join(f"{item.quantity} of {item.line}" for item in parcel.items)),
    Column("CARRIER", lambda parcel: parcel.carrier),
    Column("NUMBER", lambda parcel: parcel.tracking_number),
    Column("SHIPPED", lambda parcel: parcel.shipped_at),
    Column("DELIVERED", lambda parcel: parcel.delivered_at),
]


@app.command("create")
def create(
    ctx: typer.Context,
    order: Annotated[str, typer.Argument(metavar="ORDER")],
    *,
    item: Annotated[
        list[str],
        typer.Option("--item", metavar="LINE:QUANTITY", help="How much of which item; the first is 0. Repeatable."),
    ],
    carrier: Carrier = None,
    tracking_number: TrackingNumber = None,
    tracking_url: TrackingUrl = None,
    metadata: Metadata = None,
    as_json: AsJson = False,
) -> None:
    """Pack a parcel."""
    new = NewFulfillment(
        items=[_item(one) for one in item],
        carrier=carrier or "",
        tracking_number=tracking_number or "",
        tracking_url=tracking_url,
        metadata=parse_metadata(metadata),
    )
    _print(write(ctx, fulfillments.create, order, new), as_json=as_json)


@app.command("list")
def list_(
    ctx: typer.Context,
    order: Annotated[str, typer.Argument(metavar="ORDER")],
    *,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List the parcels of an order, oldest first."""
    page = read(ctx, fulfillments.list_, order, after=start(after), limit=limit)
    print_page(page, FULFILLMENT_COLUMNS, lambda parcel: parcel, as_json=as_json)


@app.command("show")
def show(ctx: typer.Context, parcel: Which, *, as_json: AsJson = False) -> None:
    """Show a parcel."""
    _print(read(ctx, fulfillments.get, parcel), as_json=as_json)


@app.command("ship")
def ship(
    ctx: typer.Context,
    parcel: Which,
    *,
    carrier: Carrier = None,
    tracking_number: TrackingNumber = None,
    tracking_url: TrackingUrl = None,
    as_json: AsJson = False,
) -> None:
    """Say that a parcel has left."""
    tracking = _tracking(carrier, tracking_number, tracking_url)
    _print(write(ctx, fulfillments.ship, parcel, tracking), as_json=as_json)


@app.command("deliver")
def deliver(ctx: typer.Context, parcel: Which, *, as_json: AsJson = False) -> None:
    """Say that a parcel has arrived."""
    _print(write(ctx, fulfillments.deliver, parcel), as_json=as_json)


@app.command("cancel")
def cancel(ctx: typer.Context, parcel: Which, *, as_json: AsJson = False) -> None:
    """Unpack a parcel that has not left."""
    _print(write(ctx, fulfillments.cancel, parcel), as_json=as_json)


@app.command("track")
def track(
    ctx: typer.Context,
    parcel: Which,
    *,
    carrier: Carrier = None,
    tracking_number: TrackingNumber = None,
    tracking_url: TrackingUrl = None,
    as_json: AsJson = False,
) -> None:
    """Say who carries a parcel and how it is followed."""
    tracking = _tracking(carrier, tracking_number, tracking_url)
    _print(write(ctx, fulfillments.track, parcel, tracking), as_json=as_json)


def _item(typed: str) -> PackedItem:
    match = re.fullmatch(r"([0-9]{1,4}):([0-9]{1,9})", typed)
    if match is None:
        raise typer.BadParameter(f"{typed!r}: say 0:2 for two of the first item", param_hint="--item")
    return PackedItem(int(match[1]), int(match[2]))


def _tracking(carrier: str | None, number: str | None, url: str | None) -> Tracking:
    given = [msgspec.UNSET if value is None else value for value in (carrier, number, url)]
    return Tracking(carrier=given[0], tracking_number=given[1], tracking_url=given[2])


def _print(parcel: FulfillmentView, *, as_json: bool) -> None:
    if as_json:
        print_json(parcel)
        return
    shown = {"items": [f"{item.quantity} of {item.line}" for item in parcel.items]}
    print_fields((name, shown.get(name, getattr(parcel, name))) for name in parcel.__struct_fields__)
