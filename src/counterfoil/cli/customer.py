"""Commands on customers."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import msgspec
import typer

from counterfoil.accounts import addresses, businesses, customer_tree, customers
from counterfoil.accounts.customers import CustomerChanges, CustomerNotes, NewCustomer
from counterfoil.accounts.types import Address, Business, Customer, CustomerKind
from counterfoil.cli import customer_details
from counterfoil.cli.context import confirm, read, start, write
from counterfoil.cli.customer_details import ADDRESS_COLUMNS, BUSINESS_COLUMNS, Which, which
from counterfoil.cli.options import After, AsJson, Limit, Metadata, Yes, group
from counterfoil.cli.output import Column, print_fields, print_json, print_page, print_section, text, view
from counterfoil.cli.values import parse_metadata
from counterfoil.db.tx import Tx
from counterfoil.kernel.paging import DEFAULT_LIMIT

app = group("Customers: who buys.")
app.add_typer(customer_details.address, name="address")
app.add_typer(customer_details.business, name="business")

LEVELS = {1: "MSP", 2: "customer", 3: "department"}
_MOST_IN_A_TREE = 1000

Name = Annotated[str | None, typer.Option("--name", metavar="TEXT")]
Kind = Annotated[CustomerKind | None, typer.Option("--kind")]
Slug = Annotated[str | None, typer.Option("--slug", metavar="TEXT", help="Its name in links; '' for none.")]
Email = Annotated[str | None, typer.Option("--email", metavar="TEXT", help="'' for none.")]
Logo = Annotated[str | None, typer.Option("--logo-url", metavar="URL", help="'' for none.")]
Locale = Annotated[str | None, typer.Option("--locale", metavar="TAG", help="en, de-AT, ...")]
TimeZone = Annotated[str | None, typer.Option("--time-zone", metavar="NAME", help="Europe/Berlin, ...")]
Consent = Annotated[
    bool | None, typer.Option("--marketing/--no-marketing", help="Whether it agreed to marketing mail.")
]

COLUMNS: list[Column[Customer]] = [
    Column("NAME", lambda customer: customer.name),
    Column("KIND", lambda customer: customer.kind),
    Column("LEVEL", lambda customer: LEVELS[customer.level]),
    Column("E-MAIL", lambda customer: customer.email),
    Column("SLUG", lambda customer: customer.slug),
    Column("STATUS", lambda customer: customer.status),
    Column("ID", lambda customer: customer.id),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    email: Annotated[str | None, typer.Option("--email", metavar="TEXT")] = None,
    kind: Kind = None,
    level: Annotated[int | None, typer.Option("--level", min=1, max=3, help="1 MSP, 2 customer, 3 department.")] = None,
    status: Annotated[Literal["active", "archived", "any"], typer.Option("--status")] = "active",
    parent: Annotated[str | None, typer.Option("--parent", metavar="CUSTOMER", help="Only right below it.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List customers, oldest first."""
    filters = {"email": email, "kind": kind, "level": level, "status": None if status == "any" else status}
    page = read(ctx, _list, parent, filters, after=start(after), limit=limit)
    print_page(page, COLUMNS, lambda customer: customer, as_json=as_json)


def _list(tx: Tx, parent: str | None, filters: dict[str, Any], *, after: str, limit: int) -> Any:
    parent_id = None if parent is None else customers.find(tx, parent).id
    return customers.list_(tx, **filters, parent_id=parent_id, after=after, limit=limit)


class CustomerParts(msgspec.Struct, frozen=True):
    """A customer, where it is and what it is as a company."""

    customer: Customer
    addresses: list[Address]
    businesses: list[Business]


@app.command("show")
def show(ctx: typer.Context, customer: Which, *, as_json: AsJson = False) -> None:
    """Show a customer with its addresses and businesses. A deleted one is found by its id."""
    found = read(ctx, _parts, customer)
    if as_json:
        print_json(view(found.customer, addresses=found.addresses, businesses=found.businesses))
        return
    _print(found.customer, as_json=False)
    print_section("addresses", ADDRESS_COLUMNS, found.addresses)
    print_section("businesses", BUSINESS_COLUMNS, found.businesses)


def _parts(tx: Tx, customer: str) -> CustomerParts:
    found = customers.find(tx, customer)
    if found.deleted_at is not None:
        return CustomerParts(found, [], [])
    return CustomerParts(
        found,
        addresses.list_(tx, found.id, status="active", limit=100).data,
        businesses.list_(tx, found.id, status="active", limit=100).data,
    )


@app.command("create")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    kind: Annotated[CustomerKind, typer.Option("--kind")] = "organization",
    parent: Annotated[str | None, typer.Option("--parent", metavar="CUSTOMER", help="The one above it.")] = None,
    msp: Annotated[bool, typer.Option("--msp", help="At the top, to have customers of its own below.")] = False,
    slug: Slug = None,
    email: Email = None,
    logo_url: Logo = None,
    locale: Locale = None,
    time_zone: TimeZone = None,
    marketing: Consent = None,
    metadata: Metadata = None,
    as_json: AsJson = False,
) -> None:
    """Make a customer, below another one or at the top."""
    if msp and parent is not None:
        raise typer.BadParameter("--msp goes without --parent")
    new = NewCustomer(
        kind=kind,
        name=name,
        level=1 if msp else None,
        slug=slug or None,
        email=email or None,
        logo_url=logo_url or None,
        locale=locale if locale is not None else "en",
        time_zone=time_zone if time_zone is not None else "UTC",
        marketing_consent=bool(marketing),
        metadata=parse_metadata(metadata),
    )
    _print(write(ctx, _create, new, parent), as_json=as_json)


def _create(tx: Tx, new: NewCustomer, parent: str | None) -> Customer:
    if parent is not None:
        new = msgspec.structs.replace(new, parent_id=customers.find(tx, parent).id)
    return customers.create(tx, new)


@app.command("update")
def update(
    ctx: typer.Context,
    customer: Which,
    *,
    name: Name = None,
    kind: Kind = None,
    slug: Slug = None,
    email: Email = None,
    logo_url: Logo = None,
    locale: Locale = None,
    time_zone: TimeZone = None,
    marketing: Consent = None,
    metadata: Metadata = None,
    notes: Annotated[str | None, typer.Option("--notes", metavar="TEXT", help="For staff only.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a customer; what is left out stays."""
    given: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "slug": slug,
        "email": email,
        "logo_url": logo_url,
        "locale": locale,
        "time_zone": time_zone,
        "marketing_consent": marketing,
        "metadata": None if metadata is None else parse_metadata(metadata),
    }
    given = {field: value for field, value in given.items() if value is not None}
    given |= {field: None for field in ("slug", "email", "logo_url") if given.get(field) == ""}
    _print(write(ctx, _update, customer, CustomerChanges(**given), notes), as_json=as_json)


def _update(tx: Tx, customer: str, changes: CustomerChanges, notes: str | None) -> Customer:
    found = customers.find(tx, customer)
    if notes is not None:
        customers.set_notes(tx, found.id, CustomerNotes(notes, found.import_meta))
    return customers.update(tx, found.id, changes)


@app.command("move")
def move(
    ctx: typer.Context,
    customer: Which,
    parent: Annotated[str | None, typer.Argument(metavar="[PARENT]", help="The one to be above it.")] = None,
    *,
    top: Annotated[bool, typer.Option("--top", help="To the top instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a customer, with all below it, below another one or at the top."""
    if (parent is None) != top:
        raise typer.BadParameter("say the customer to be above it, or --top")
    _print(write(ctx, _move, customer, parent), as_json=as_json)


def _move(tx: Tx, customer: str, parent: str | None) -> Customer:
    parent_id = None if parent is None else customers.find(tx, parent).id
    return customer_tree.move(tx, which(tx, customer), parent_id)


@app.command("archive")
def archive(ctx: typer.Context, customer: Which, *, as_json: AsJson = False) -> None:
    """Sell to a customer no longer. What it has goes on; `restore` brings it back."""
    _print(write(ctx, lambda tx: customers.archive(tx, which(tx, customer))), as_json=as_json)


@app.command("restore")
def restore(ctx: typer.Context, customer: Which, *, as_json: AsJson = False) -> None:
    """Bring a customer back from the archive or, by its id, from deletion."""
    _print(write(ctx, lambda tx: customers.restore(tx, which(tx, customer))), as_json=as_json)


@app.command("delete")
def delete(ctx: typer.Context, customer: Which, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete a customer that has none below it. Its row and what it bought stay."""
    confirm(f"Delete {customer}?", yes=yes)
    _print(write(ctx, _delete, customer), as_json=as_json)


def _delete(tx: Tx, customer: str) -> Customer:
    customer_id = which(tx, customer)
    customers.delete(tx, customer_id)
    return customers.find(tx, customer_id)


@app.command("tree")
def tree(ctx: typer.Context, customer: Which, *, as_json: AsJson = False) -> None:
    """Draw a customer and everything below it."""
    top, below, cut = read(ctx, _tree, customer)
    nested = _nest(top, below)
    if as_json:
        print_json(nested)
    else:
        _draw(nested)
    if cut:
        typer.echo(f"only the first {_MOST_IN_A_TREE} are shown", err=True)


def _tree(tx: Tx, customer: str) -> tuple[Customer, list[Customer], bool]:
    top = customers.get(tx, which(tx, customer))
    page = customer_tree.below(tx, top.id, limit=_MOST_IN_A_TREE)
    return top, page.data, page.next is not None


def _nest(top: Customer, below: list[Customer]) -> dict[str, Any]:
    """Each customer's fields with those of the customers below it; a parent comes before its children."""
    nested = {top.id: view(top, customers=[])}
    for customer in below:
        nested[customer.id] = view(customer, customers=[])
        above = nested.get(customer.parent_id or "")
        if above is not None:  # else it is below a deleted one
            above["customers"].append(nested[customer.id])
    return nested[top.id]


def _draw(nested: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415 # only this command draws
    from rich.text import Text  # noqa: PLC0415
    from rich.tree import Tree  # noqa: PLC0415

    def branch(customer: dict[str, Any], on: Any) -> None:
        for child in customer["customers"]:
            branch(child, on.add(Text(_label(child))))

    drawn = Tree(Text(_label(nested)))
    branch(nested, drawn)
    # Cut nothing where nobody sees the width.
    width = None if sys.stdout.isatty() else 1000
    Console(width=width).print(drawn)


def _label(customer: dict[str, Any]) -> str:
    archived = ", archived" if customer["status"] == "archived" else ""
    return f"{text(customer['name'])} ({LEVELS[customer['level']]}{archived}) {customer['id']}"


def _print(customer: Customer, *, as_json: bool) -> None:
    if as_json:
        print_json(customer)
        return
    shown = {"level": LEVELS[customer.level]}
    print_fields((name, shown.get(name, getattr(customer, name))) for name in customer.__struct_fields__)
