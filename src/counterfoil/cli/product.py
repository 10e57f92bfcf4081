"""Commands on products."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import typer

from counterfoil.catalog import products, shelf
from counterfoil.catalog.products import NewProduct, Offer, ProductChanges
from counterfoil.catalog.shelf import ShelfProduct
from counterfoil.cli.benefit import benefit_columns
from counterfoil.cli.context import read, start, write
from counterfoil.cli.options import After, AsJson, Limit, Metadata, group
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_page, print_section, view
from counterfoil.cli.price import PRICE_COLUMNS
from counterfoil.cli.values import parse_metadata
from counterfoil.db.tx import Tx
from counterfoil.kernel.paging import DEFAULT_LIMIT

app = group("Products: what is sold.")

Which = Annotated[str, typer.Argument(metavar="PRODUCT", help="Its slug or id.")]
Name = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="What buyers see.")]
Description = Annotated[str | None, typer.Option("--description", metavar="TEXT")]
Image = Annotated[str | None, typer.Option("--image-url", metavar="URL")]
TaxCategory = Annotated[str | None, typer.Option("--tax-category", metavar="TEXT")]


COLUMNS: list[Column[ShelfProduct]] = [
    Column("SLUG", lambda product: product.slug),
    Column("NAME", lambda product: product.name),
    Column("PRICES", lambda product: [amount(price.unit_amount, price.asset) for price in product.prices]),
    Column("STATUS", lambda product: product.status),
    Column("ID", lambda product: product.id),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    status: Annotated[Literal["active", "archived", "any"], typer.Option("--status")] = "active",
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List products with their prices, oldest first."""
    wanted = None if status == "any" else status
    page = read(ctx, shelf.list_, after=start(after), limit=limit, status=wanted)
    print_page(page, COLUMNS, lambda product: product, as_json=as_json)


@app.command("show")
def show(ctx: typer.Context, product: Which, *, as_json: AsJson = False) -> None:
    """Show a product, its active prices and what it promises."""
    _print(read(ctx, products.offer, product), as_json=as_json)


@app.command("create")
def create(
    ctx: typer.Context,
    slug: Annotated[
        str, typer.Argument(metavar="SLUG", help="Its name in links, for good: lower-case letters, digits, hyphens.")
    ],
    *,
    name: Name = None,
    description: Description = None,
    image_url: Image = None,
    tax_category: TaxCategory = None,
    metadata: Metadata = None,
    as_json: AsJson = False,
) -> None:
    """Make a product."""
    new = NewProduct(
        slug=slug,
        name=name if name is not None else slug.replace("-", " ").title(),
        description=description or "",
        image_url=image_url,
        tax_category=tax_category or "standard",
        metadata=parse_metadata(metadata),
    )
    _print(Offer(write(ctx, products.create, new), [], []), as_json=as_json)


@app.command("update")
def update(
    ctx: typer.Context,
    product: Which,
    *,
    name: Name = None,
    description: Description = None,
    image_url: Image = None,
    tax_category: TaxCategory = None,
    status: Annotated[Literal["active", "archived"] | None, typer.Option("--status")] = None,
    metadata: Metadata = None,
    as_json: AsJson = False,
) -> None:
    """Change a product; what is left out stays."""
    given: dict[str, Any] = {
        "name": name,
        "description": description,
        "image_url": image_url,
        "tax_category": tax_category,
        "status": status,
        "metadata": None if metadata is None else parse_metadata(metadata),
    }
    changes = ProductChanges(**{field: value for field, value in given.items() if value is not None})
    _print(write(ctx, _update, product, changes), as_json=as_json)


@app.command("archive")
def archive(ctx: typer.Context, product: Which, *, as_json: AsJson = False) -> None:
    """Sell a product no longer. Its licenses go on; `update --status active` brings it back."""
    _print(write(ctx, _update, product, ProductChanges(status="archived")), as_json=as_json)


def _update(tx: Tx, product: str, changes: ProductChanges) -> Offer:
    changed = products.update(tx, products.find(tx, product).id, changes)
    return msgspec.structs.replace(products.offer(tx, changed.id), product=changed)


def _print(offer: Offer, *, as_json: bool) -> None:
    product, prices, benefits = offer.product, offer.prices, offer.benefits
    if as_json:
        print_json(view(product, prices=prices, benefits=benefits))
        return
    print_fields((name, getattr(product, name)) for name in product.__struct_fields__)
    print_section("prices", PRICE_COLUMNS, prices)
    print_section("benefits", benefit_columns(benefits), benefits)
