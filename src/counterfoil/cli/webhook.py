"""Commands on webhooks out."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from counterfoil.cli.context import confirm, read, start, within, write
from counterfoil.cli.options import After, AsJson, Limit, Yes, group
from counterfoil.cli.output import Column, print_fields, print_json, print_page, view
from counterfoil.cli.values import parse_moment
from counterfoil.db.base import Scope
from counterfoil.house import House
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.kernel.signing import PrivateKey
from counterfoil.webhooks import deliveries, endpoints, signing, worker
from counterfoil.webhooks.endpoints import Endpoint, EndpointChanges, NewEndpoint
from counterfoil.webhooks.types import Delivery, DeliveryStatus

app = group("Webhooks: news for other systems.")

Which = Annotated[str, typer.Argument(metavar="ENDPOINT")]
WhichDelivery = Annotated[str, typer.Argument(metavar="DELIVERY")]
Url = typer.Option("--url", metavar="URL", help="Where to send it: an https address.")
Types = typer.Option("--event", metavar="TYPE", help="What of: order.paid, order.* or *. Repeat for several.")
Note = typer.Option("--description", metavar="TEXT", help="A note of your own.")

COLUMNS: list[Column[Endpoint]] = [
    Column("ID", lambda one: one.id),
    Column("STATUS", lambda one: one.status),
    Column("EVENTS", lambda one: one.event_types),
    Column("URL", lambda one: one.url),
    Column("FAILING SINCE", lambda one: one.first_failed_at),
]
DELIVERY_COLUMNS: list[Column[Delivery]] = [
    Column("ID", lambda one: one.id),
    Column("STATUS", lambda one: one.status),
    Column("EVENT", lambda one: one.event_type),
    Column("OBJECT", lambda one: one.object_id),
    Column("ATTEMPTS", lambda one: one.attempts, right=True),
    Column("NEXT", lambda one: one.next_attempt_at if one.status == "pending" else None),
    Column("ERROR", lambda one: one.last_error),
]


@app.command("list")
def list_(ctx: typer.Context, *, limit: Limit = DEFAULT_LIMIT, after: After = "", as_json: AsJson = False) -> None:
    """List endpoints, oldest first."""
    page = read(ctx, endpoints.list_, after=start(after), limit=limit)
    print_page(page, COLUMNS, lambda one: one, as_json=as_json)


@app.command("create")
def create(
    ctx: typer.Context,
    *,
    url: Annotated[str, Url],
    event_types: Annotated[list[str] | None, Types] = None,
    description: Annotated[str, Note] = "",
    as_json: AsJson = False,
) -> None:
    """Have news sent somewhere, from now on. The secret is shown this once."""

    async def work(house: House, scope: Scope) -> Endpoint:
        return await scope.run(
            endpoints.create,
            house.master,
            NewEndpoint(url=url, event_types=event_types or ["*"], description=description),
            secret=signing.new_secret(),
            signing_key=PrivateKey.generate(),
            allow_loopback=house.settings.webhooks_allow_loopback,
        )

    _print(within(ctx, work), as_json=as_json)


@app.command("show")
def show(ctx: typer.Context, endpoint: Which, *, as_json: AsJson = False) -> None:
    """Show an endpoint."""
    _print(read(ctx, endpoints.get, endpoint), as_json=as_json)


@app.command("update")
def update(
    ctx: typer.Context,
    endpoint: Which,
    *,
    url: Annotated[str | None, Url] = None,
    event_types: Annotated[list[str] | None, Types] = None,
    description: Annotated[str | None, Note] = None,
    as_json: AsJson = False,
) -> None:
    """Change an endpoint; what is left out stays."""
    changes = EndpointChanges(
        url=msgspec.UNSET if url is None else url,
        event_types=event_types or msgspec.UNSET,
        description=msgspec.UNSET if description is None else description,
    )

    async def work(house: House, scope: Scope) -> Endpoint:
        allow_loopback = house.settings.webhooks_allow_loopback
        return await scope.run(endpoints.update, endpoint, changes, allow_loopback=allow_loopback)

    _print(within(ctx, work), as_json=as_json)


@app.command("delete")
def delete(ctx: typer.Context, endpoint: Which, *, yes: Yes = False) -> None:
    """Forget an endpoint and all its deliveries."""
    confirm("What still waits is then never sent. Delete it?", yes=yes)
    write(ctx, endpoints.delete, endpoint)
    typer.echo(f"{endpoint} is deleted")


@app.command("rotate-secret")
def rotate_secret(ctx: typer.Context, endpoint: Which, *, as_json: AsJson = False) -> None:
    """Give an endpoint a new secret, shown this once; the one before is good for 24 hours."""

    async def work(house: House, scope: Scope) -> Endpoint:
        return await scope.run(endpoints.rotate_secret, house.master, endpoint, secret=signing.new_secret())

    _print(within(ctx, work), as_json=as_json)


@app.command("enable")
def enable(ctx: typer.Context, endpoint: Which, *, as_json: AsJson = False) -> None:
    """Send news there again, beginning with what still waits."""
    _print(write(ctx, endpoints.enable, endpoint), as_json=as_json)


@app.command("disable")
def disable(ctx: typer.Context, endpoint: Which, *, as_json: AsJson = False) -> None:
    """Send nothing there, and queue nothing for it, until it is enabled again."""
    _print(write(ctx, endpoints.disable, endpoint), as_json=as_json)


@app.command("test")
def send_test(ctx: typer.Context, endpoint: Which, *, as_json: AsJson = False) -> None:
    """Send a test message now, with whatever else is due, and say what came of it."""

    async def work(house: House, scope: Scope) -> Delivery:
        queued = await scope.run(deliveries.test, endpoint)
        await house.courier.send_due(scope.tenant)
        return await scope.read(deliveries.get, queued.id)

    _print_delivery(within(ctx, work), as_json=as_json)


@app.command("replay")
def replay(
    ctx: typer.Context,
    endpoint: Which,
    *,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="2026-12-31 or 2026-12-31T18:00Z")],
) -> None:
    """Send again all that was queued for an endpoint since a moment, also what it has taken."""
    moment = parse_moment(since, "--since")
    assert moment is not None

    async def work(_: House, scope: Scope) -> int:
        return await worker.replay(scope, endpoint, moment)

    typer.echo(f"{within(ctx, work)} queued again")


@app.command("deliveries")
def list_deliveries(
    ctx: typer.Context,
    *,
    status: Annotated[DeliveryStatus | None, typer.Option("--status", help="Only those that stand so.")] = None,
    endpoint: Annotated[str | None, typer.Option("--endpoint", metavar="ENDPOINT", help="Only to this one.")] = None,
    event_type: Annotated[str | None, typer.Option("--event", metavar="TYPE", help="Only of this type.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List deliveries, oldest first."""
    page = read(
        ctx,
        deliveries.list_,
        status=status,
        endpoint_id=endpoint,
        event_type=event_type,
        after=start(after),
        limit=limit,
    )
    print_page(page, DELIVERY_COLUMNS, _shape, as_json=as_json)


@app.command("delivery")
def show_delivery(ctx: typer.Context, delivery: WhichDelivery, *, as_json: AsJson = False) -> None:
    """Show a delivery, what it says and what came of its last attempt."""
    _print_delivery(read(ctx, deliveries.get, delivery), as_json=as_json)


@app.command("retry")
def retry(ctx: typer.Context, delivery: WhichDelivery, *, as_json: AsJson = False) -> None:
    """Have a delivery sent now, whatever became of it, with all its attempts before it."""
    _print_delivery(write(ctx, deliveries.retry, delivery), as_json=as_json)


@app.command("delete-delivery")
def delete_delivery(ctx: typer.Context, delivery: WhichDelivery, *, yes: Yes = False) -> None:
    """Forget a delivery. If it waits, it is not sent."""
    confirm("If it waits, it is never sent. Delete it?", yes=yes)
    write(ctx, deliveries.delete, delivery)
    typer.echo(f"{delivery} is deleted")


def _print(endpoint: Endpoint, *, as_json: bool) -> None:
    if as_json:
        print_json(endpoint)
        return
    shown = {name: getattr(endpoint, name) for name in endpoint.__struct_fields__}
    print_fields((name, value) for name, value in shown.items() if value is not msgspec.UNSET)


def _shape(delivery: Delivery) -> dict[str, object]:
    return view(delivery, "claimed_by", "claimed_until", payload=msgspec.Raw(delivery.payload.encode()))


def _print_delivery(delivery: Delivery, *, as_json: bool) -> None:
    if as_json:
        print_json(_shape(delivery))
        return
    print_fields(view(delivery, "claimed_by", "claimed_until").items())
