"""What a demo sells."""

from __future__ import annotations

import msgspec

from counterfoil.catalog import benefits, discounts, prices, products
from counterfoil.catalog.benefits import BenefitTerms
from counterfoil.catalog.discount_rules import NewDiscount
from counterfoil.catalog.prices import NewPrice
from counterfoil.catalog.products import NewProduct
from counterfoil.catalog.types import LicenseSpec
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, NotFound

_DAY = 86_400

PRODUCTS = (
    NewProduct(
        slug="quillpad",
        name="Quillpad",
        description="A text editor that stays out of the way. Works offline; your files stay plain text.",
    ),
    NewProduct(slug="inkwell", name="Inkwell", description="Forty page templates for Quillpad."),
)

PRICES = {
    "quillpad": (
        NewPrice(tier="standard", name="Standard", asset="SAT", unit_amount=21_000),
        NewPrice(tier="standard", name="Standard", asset="USD", unit_amount=19_00),
        NewPrice(tier="team", name="Team", asset="SAT", unit_amount=90_000, description="Five machines, for a year."),
    ),
    "inkwell": (
        NewPrice(asset="SAT", unit_amount=5_000),
        NewPrice(asset="USD", unit_amount=5_00),
    ),
}

BENEFITS = {
    "quillpad": (
        BenefitTerms(tier="standard", license=LicenseSpec()),
        BenefitTerms(
            tier="team",
            license=LicenseSpec(
                duration_seconds=365 * _DAY,
                grace_seconds=14 * _DAY,
                max_machines=5,
                entitlements=["sync", "plugins"],
            ),
        ),
    ),
    "inkwell": (BenefitTerms(license=LicenseSpec(max_machines=0, entitlements=["templates"])),),
}

GIFT = NewDiscount(kind="free", code="GIFT", usage_limit=100, tiers=["standard"], description="Quillpad for nothing.")
TEN_OFF = NewDiscount(kind="percentage", code="TENOFF", amount=10_00, description="Ten percent off.")


def exists(tx: Tx) -> bool:
    """Whether the catalog was seeded before; what became of it since does not matter."""
    return all(_known(tx, new.slug) for new in PRODUCTS)


def _known(tx: Tx, slug: str) -> bool:
    try:
        products.find(tx, slug)
    except NotFound:
        return False
    return True


def seed(tx: Tx) -> None:
    """Make what is missing, as one change. A product that is there, by its slug, stays as it is."""
    for new in PRODUCTS:
        if _known(tx, new.slug):
            continue
        product = products.create(tx, new)
        for terms in BENEFITS[new.slug]:
            benefits.put(tx, product.id, terms)
        for price in PRICES[new.slug]:
            prices.create(tx, product.id, price)
    quillpad = products.find(tx, PRODUCTS[0].slug)
    _discount(tx, msgspec.structs.replace(GIFT, product_ids=[quillpad.id]))
    _discount(tx, TEN_OFF)


def _discount(tx: Tx, new: NewDiscount) -> None:
    try:
        discounts.create(tx, new)
    except Conflict:  # the code is there already
        return
