"""Commands on subscriptions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from counterfoil.cli.context import confirm, read, start, within, write
from counterfoil.cli.options import After, AsJson, Limit, Yes, group
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_page, print_section, view
from counterfoil.cli.values import parse_line, parse_metadata, parse_moment
from counterfoil.db.base import Scope
from counterfoil.exchange import portals, subscription_changes, subscription_details
from counterfoil.exchange.subscription_changes import Change, SubscriptionUpdate, WantedItem
from counterfoil.exchange.subscription_details import Details
from counterfoil.exchange.types import Owed
from counterfoil.house import House
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.rails.mirror import Portal, Proration
from counterfoil.subscriptions import subscriptions
from counterfoil.subscriptions.subscriptions import SubscriptionFilter
from counterfoil.subscriptions.types import Subscription, SubscriptionItem, SubscriptionPeriod, SubscriptionStatus

app = group("Subscriptions: what is paid again and again.")

Which = Annotated[str, typer.Argument(metavar="SUBSCRIPTION")]
AtOnce = Annotated[bool, typer.Option("--at-once", help="Now, and not with the end of the paid period.")]

_OURS = ("heard", "heard_at")
"""What tells news apart, and nobody else needs."""


def _every(row: Subscription) -> str | None:
    if row.billing_interval is None:
        return None
    count = row.interval_count or 1
    return row.billing_interval if count == 1 else f"{count} {row.billing_interval}s"


COLUMNS: list[Column[Subscription]] = [
    Column("ID", lambda row: row.id),
    Column("STATUS", lambda row: row.status),
    Column("RAIL", lambda row: row.rail),
    Column("EVERY", _every),
    Column("PAID UNTIL", lambda row: row.paid_until),
    Column("ENDS", lambda row: row.ends_at),
    Column("CUSTOMER", lambda row: row.customer_id),
    Column("E-MAIL", lambda row: row.email),
]
_ITEMS: list[Column[SubscriptionItem]] = [
    Column("PRICE", lambda item: item.price_id),
    Column("PRODUCT", lambda item: item.product_id),
    Column("QUANTITY", lambda item: item.quantity, right=True),
    Column("STATUS", lambda item: item.status),
    Column("NEXT BILL", lambda item: item.next_billed_at),
]
_PERIODS: list[Column[SubscriptionPeriod]] = [
    Column("FROM", lambda period: period.period_start),
    Column("UNTIL", lambda period: period.period_end),
    Column("STATUS", lambda period: period.status),
    Column("AMOUNT", lambda period: amount(period.amount, period.asset), right=True),
    Column("ORDER", lambda period: period.order_id),
    Column("INVOICE", lambda period: period.invoice_id),
]
_CHANGES: list[Column[Owed]] = [
    Column("ASKED", lambda change: change.created_at),
    Column("CHANGE", lambda change: change.action),
    Column("STATUS", lambda change: change.status),
    Column("TRIES", lambda change: change.attempts, right=True),
    Column("NEXT", lambda change: change.next_attempt_at),
    Column("ERROR", lambda change: change.error),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    status: Annotated[SubscriptionStatus | None, typer.Option("--status", help="Only those that stand so.")] = None,
    customer: Annotated[
        str | None, typer.Option("--customer", metavar="CUSTOMER", help="Only this customer's.")
    ] = None,
    email: Annotated[str | None, typer.Option("--email", metavar="TEXT", help="Only this buyer's.")] = None,
    vault: Annotated[str | None, typer.Option("--vault", metavar="TEXT", help="Only those that pay for it.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List subscriptions, oldest first."""
    only = SubscriptionFilter(status=status, customer_id=customer, email=email, vault_l0=vault)
    page = read(ctx, subscriptions.list_, only, after=start(after), limit=limit)
    print_page(page, COLUMNS, lambda row: view(row, *_OURS), as_json=as_json)


@app.command("show")
def show(ctx: typer.Context, subscription: Which, *, as_json: AsJson = False) -> None:
    """Show a subscription, what it is for, what was paid of it, and which changes its rail was asked for."""
    _print(read(ctx, subscription_details.of, subscription), as_json=as_json)


@app.command("pause")
def pause(
    ctx: typer.Context,
    subscription: Which,
    *,
    at_once: AtOnce = False,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="When it goes on by itself; else by hand.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Have the rail take no money for a while."""
    change = Change(action="pause", at_period_end=not at_once, resume_at=parse_moment(until, "--until"))
    _ask(ctx, subscription, change, as_json=as_json)


@app.command("resume")
def resume(ctx: typer.Context, subscription: Which, *, as_json: AsJson = False) -> None:
    """End a pause now."""
    _ask(ctx, subscription, Change(action="resume"), as_json=as_json)


@app.command("cancel")
def cancel(
    ctx: typer.Context, subscription: Which, *, at_once: AtOnce = False, yes: Yes = False, as_json: AsJson = False
) -> None:
    """End a subscription for good."""
    if at_once:
        confirm("It ends now, and what is left of the paid period with it. Go on?", yes=yes)
    _ask(ctx, subscription, Change(action="cancel", at_period_end=not at_once), as_json=as_json)


@app.command("keep")
def keep(ctx: typer.Context, subscription: Which, *, as_json: AsJson = False) -> None:
    """Take back a pause or an end that waits for the end of the paid period."""
    _ask(ctx, subscription, Change(action="keep"), as_json=as_json)


@app.command("change")
def change(
    ctx: typer.Context,
    subscription: Which,
    lines: Annotated[list[str], typer.Argument(metavar="PRICE[:QUANTITY]...", help="All that it is to be for.")],
    *,
    proration: Annotated[
        Proration, typer.Option("--proration", help="What that costs for the rest of the period.")
    ] = "now",
    as_json: AsJson = False,
) -> None:
    """Change what a subscription is for: all its prices and quantities from then on."""
    items = [WantedItem(line.price_id, line.quantity) for line in map(parse_line, lines)]
    _ask(ctx, subscription, Change(action="change", items=items, proration=proration), as_json=as_json)


@app.command("discount")
def discount(
    ctx: typer.Context,
    subscription: Which,
    which: Annotated[str | None, typer.Argument(metavar="[DISCOUNT]", help="What it is to carry.")] = None,
    *,
    none: Annotated[bool, typer.Option("--none", help="It is to carry none.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a subscription a discount from the next bill on, instead of the one that it has, or take that away."""
    if (which is None) != none:
        raise typer.BadParameter("either the discount that it is to carry, or --none", param_hint="DISCOUNT")
    _ask(ctx, subscription, Change(action="discount", discount_id=which), as_json=as_json)


@app.command("update")
def update(
    ctx: typer.Context,
    subscription: Which,
    *,
    vault: Annotated[str | None, typer.Option("--vault", metavar="TEXT", help='What it pays for; "" is none.')] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help='Whose it is; "" is nobody\'s.')] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="JSON", help="An object of your own, instead of the old one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Note something about a subscription; what is left out stays."""
    given: dict[str, Any] = {}
    if vault is not None:
        given["vault_l0"] = vault or None
    if user is not None:
        given["user_id"] = user or None
    if metadata is not None:
        given["metadata"] = parse_metadata(metadata)
    changed = write(ctx, subscription_changes.update, subscription, SubscriptionUpdate(**given))
    _print(read(ctx, subscription_details.of, changed.id), as_json=as_json)


@app.command("portal")
def portal(
    ctx: typer.Context,
    subscription: Which,
    *,
    return_url: Annotated[
        str | None, typer.Option("--return-url", metavar="URL", help="Where the way back leads; else our front page.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Open the rail's page for whoever pays. Its address is a secret of theirs, for a short time."""

    async def work(house: House, scope: Scope) -> Portal:
        payer = await scope.read(portals.of_subscription, subscription)
        back = return_url or await house.base_url(scope.tenant)
        return await portals.open_portal(scope, house.rails, house.pusher, payer, back)

    opened = within(ctx, work)
    if as_json:
        print_json(opened)
    else:
        print_fields((name, getattr(opened, name)) for name in opened.__struct_fields__)


def _ask(ctx: typer.Context, subscription: str, wanted: Change, *, as_json: bool) -> None:
    """Owe the rail a change, have it made now, and say what came of it."""

    async def work(house: House, scope: Scope) -> Details:
        found = await scope.run(subscription_changes.request, subscription, wanted)
        try:
            await house.pusher.push_object(scope.tenant, found.rail, "subscription", found.id)
        except NotFound:
            typer.echo(f"{found.rail} is not connected: it is asked once it is", err=True)
        return await scope.read(subscription_details.of, found.id)

    _print(within(ctx, work), as_json=as_json)


def _print(found: Details, *, as_json: bool) -> None:
    row = found.subscription
    if as_json:
        print_json(view(row, *_OURS, **view(found, "subscription")))
        return
    fields = {"reference": found.reference, **view(row, *_OURS), "license_ids": found.license_ids}
    print_fields(fields.items())
    print_section("items", _ITEMS, found.items)
    print_section("periods", _PERIODS, found.periods)
    print_section("changes", _CHANGES, found.changes)
