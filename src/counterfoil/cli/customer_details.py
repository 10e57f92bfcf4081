"""Commands on a customer's addresses and businesses."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from counterfoil.accounts import addresses, businesses, customers
from counterfoil.accounts.addresses import AddressChanges, NewAddress
from counterfoil.accounts.businesses import BusinessChanges, Contact, NewBusiness
from counterfoil.accounts.types import Address, Business
from counterfoil.cli.context import read, start, write
from counterfoil.cli.options import After, AsJson, Limit, Metadata, group
from counterfoil.cli.output import Column, print_fields, print_json, print_page
from counterfoil.cli.values import parse_metadata
from counterfoil.db.tx import Tx
from counterfoil.kernel.paging import DEFAULT_LIMIT

address = group("Where a customer is.")
business = group("A customer as the company that its invoices name.")

Which = Annotated[str, typer.Argument(metavar="CUSTOMER", help="Its slug or id.")]
AddressId = Annotated[str, typer.Argument(metavar="ADDRESS", help="Its id.")]
BusinessId = Annotated[str, typer.Argument(metavar="BUSINESS", help="Its id.")]
Country = Annotated[str | None, typer.Option("--country", metavar="CODE", help="ISO 3166-1: DE, US, ...")]
Contacts = Annotated[
    list[str] | None,
    typer.Option("--contact", metavar="NAME=EMAIL", help="A person to write to; may be repeated."),
]

ADDRESS_COLUMNS: list[Column[Address]] = [
    Column("DESCRIPTION", lambda one: one.description),
    Column("ADDRESS", lambda one: [line for line in (one.first_line, one.second_line) if line]),
    Column("CITY", lambda one: f"{one.zip_code} {one.city}".strip()),
    Column("REGION", lambda one: one.region),
    Column("COUNTRY", lambda one: one.country_code),
    Column("STATUS", lambda one: one.status),
    Column("ID", lambda one: one.id),
]
BUSINESS_COLUMNS: list[Column[Business]] = [
    Column("NAME", lambda one: one.name),
    Column("NUMBER", lambda one: one.company_number),
    Column("TAX ID", lambda one: one.tax_identifier),
    Column("CONTACTS", lambda one: [f"{contact['name']} <{contact['email']}>" for contact in one.contacts]),
    Column("STATUS", lambda one: one.status),
    Column("ID", lambda one: one.id),
]


def which(tx: Tx, slug_or_id: str) -> str:
    """The id of the customer a person means. Raises NotFound."""
    return customers.find(tx, slug_or_id).id


def _print(row: msgspec.Struct, *, as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        print_fields((name, getattr(row, name)) for name in row.__struct_fields__)


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


# -- addresses ----------------------------------------------------------------------------------------

First = Annotated[str | None, typer.Option("--first-line", metavar="TEXT")]
Second = Annotated[str | None, typer.Option("--second-line", metavar="TEXT")]
City = Annotated[str | None, typer.Option("--city", metavar="TEXT")]
Region = Annotated[str | None, typer.Option("--region", metavar="TEXT")]
ZipCode = Annotated[str | None, typer.Option("--zip-code", metavar="TEXT")]
Description = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="What it is for.")]


@address.command("list")
def list_addresses(
    ctx: typer.Context, customer: Which, *, limit: Limit = DEFAULT_LIMIT, after: After = "", as_json: AsJson = False
) -> None:
    """List a customer's addresses, archived ones too, oldest first."""
    begin = start(after)
    page = read(ctx, lambda tx: addresses.list_(tx, which(tx, customer), after=begin, limit=limit))
    print_page(page, ADDRESS_COLUMNS, lambda one: one, as_json=as_json)


@address.command("create")
def create_address(
    ctx: typer.Context,
    customer: Which,
    *,
    country: Annotated[str, typer.Option("--country", metavar="CODE", help="ISO 3166-1: DE, US, ...")],
    first_line: First = None,
    second_line: Second = None,
    city: City = None,
    region: Region = None,
    zip_code: ZipCode = None,
    description: Description = None,
    as_json: AsJson = False,
) -> None:
    """Add an address to a customer."""
    fields = _given(
        first_line=first_line,
        second_line=second_line,
        city=city,
        region=region,
        zip_code=zip_code,
        description=description,
    )
    new = NewAddress(country_code=country, **fields)
    _print(write(ctx, lambda tx: addresses.create(tx, which(tx, customer), new)), as_json=as_json)


@address.command("update")
def update_address(
    ctx: typer.Context,
    customer: Which,
    address_id: AddressId,
    *,
    country: Country = None,
    first_line: First = None,
    second_line: Second = None,
    city: City = None,
    region: Region = None,
    zip_code: ZipCode = None,
    description: Description = None,
    as_json: AsJson = False,
) -> None:
    """Change an address; what is left out stays."""
    fields = _given(
        country_code=country,
        first_line=first_line,
        second_line=second_line,
        city=city,
        region=region,
        zip_code=zip_code,
        description=description,
    )
    _change_address(ctx, customer, address_id, AddressChanges(**fields), as_json=as_json)


@address.command("archive")
def archive_address(ctx: typer.Context, customer: Which, address_id: AddressId, *, as_json: AsJson = False) -> None:
    """Archive an address."""
    _change_address(ctx, customer, address_id, AddressChanges(status="archived"), as_json=as_json)


@address.command("restore")
def restore_address(ctx: typer.Context, customer: Which, address_id: AddressId, *, as_json: AsJson = False) -> None:
    """Bring an address back from the archive."""
    _change_address(ctx, customer, address_id, AddressChanges(status="active"), as_json=as_json)


def _change_address(
    ctx: typer.Context, customer: str, address_id: str, changes: AddressChanges, *, as_json: bool
) -> None:
    changed = write(ctx, lambda tx: addresses.update(tx, which(tx, customer), address_id, changes))
    _print(changed, as_json=as_json)


# -- businesses ---------------------------------------------------------------------------------------

Name = Annotated[str | None, typer.Option("--name", metavar="TEXT")]
Number = Annotated[str | None, typer.Option("--company-number", metavar="TEXT", help="'' for none.")]
TaxId = Annotated[str | None, typer.Option("--tax-identifier", metavar="TEXT", help="A VAT number, say; '' for none.")]


def _contacts(typed: list[str] | None) -> list[Contact] | None:
    if not typed:
        return None
    parts = [one.rpartition("=") for one in typed]
    if not all(equals for _, equals, _ in parts):
        raise typer.BadParameter("say NAME=EMAIL", param_hint="--contact")
    return [Contact(name, email) for name, _, email in parts]


@business.command("list")
def list_businesses(
    ctx: typer.Context, customer: Which, *, limit: Limit = DEFAULT_LIMIT, after: After = "", as_json: AsJson = False
) -> None:
    """List a customer's businesses, archived ones too, oldest first."""
    begin = start(after)
    page = read(ctx, lambda tx: businesses.list_(tx, which(tx, customer), after=begin, limit=limit))
    print_page(page, BUSINESS_COLUMNS, lambda one: one, as_json=as_json)


@business.command("create")
def create_business(
    ctx: typer.Context,
    customer: Which,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    company_number: Number = None,
    tax_identifier: TaxId = None,
    contact: Contacts = None,
    metadata: Metadata = None,
    as_json: AsJson = False,
) -> None:
    """Add a business to a customer."""
    new = NewBusiness(
        name=name,
        company_number=company_number or None,
        tax_identifier=tax_identifier or None,
        contacts=_contacts(contact) or [],
        metadata=parse_metadata(metadata),
    )
    _print(write(ctx, lambda tx: businesses.create(tx, which(tx, customer), new)), as_json=as_json)


@business.command("update")
def update_business(
    ctx: typer.Context,
    customer: Which,
    business_id: BusinessId,
    *,
    name: Name = None,
    company_number: Number = None,
    tax_identifier: TaxId = None,
    contact: Contacts = None,
    metadata: Metadata = None,
    as_json: AsJson = False,
) -> None:
    """Change a business; what is left out stays."""
    fields = _given(
        name=name,
        company_number=company_number,
        tax_identifier=tax_identifier,
        contacts=_contacts(contact),
        metadata=None if metadata is None else parse_metadata(metadata),
    )
    fields |= {field: None for field in ("company_number", "tax_identifier") if fields.get(field) == ""}
    _change_business(ctx, customer, business_id, BusinessChanges(**fields), as_json=as_json)


@business.command("archive")
def archive_business(ctx: typer.Context, customer: Which, business_id: BusinessId, *, as_json: AsJson = False) -> None:
    """Archive a business."""
    _change_business(ctx, customer, business_id, BusinessChanges(status="archived"), as_json=as_json)


@business.command("restore")
def restore_business(ctx: typer.Context, customer: Which, business_id: BusinessId, *, as_json: AsJson = False) -> None:
    """Bring a business back from the archive."""
    _change_business(ctx, customer, business_id, BusinessChanges(status="active"), as_json=as_json)


def _change_business(
    ctx: typer.Context, customer: str, business_id: str, changes: BusinessChanges, *, as_json: bool
) -> None:
    changed = write(ctx, lambda tx: businesses.update(tx, which(tx, customer), business_id, changes))
    _print(changed, as_json=as_json)
