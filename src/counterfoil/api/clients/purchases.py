"""Tiers, purchases and redemption, as existing license clients call them."""

from __future__ import annotations

from typing import Literal

import msgspec
from litestar import get, post
from litestar.params import FromPath, JSONBody

from counterfoil.catalog import discounts, products, redemptions
from counterfoil.catalog.types import DEFAULT_TIER, LicenseSpec, Price, Product
from counterfoil.db.tx import Tx
from counterfoil.house import House
from counterfoil.http.access import Asker, check_rate, house_of, public_scope
from counterfoil.http.buying import NewCheckout, Purchase, keys_of, open_for, purchase_of, read_purchase
from counterfoil.http.idempotency import inner_key_of
from counterfoil.http.problems import route
from counterfoil.kernel.errors import CounterfoilError, Invalid, NotFound
from counterfoil.kernel.ids import to_uuid
from counterfoil.sales.quotes import WantedLine, lines_of
from counterfoil.settlement.checkout import FREE

SAT = "SAT"
_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}


class PolicyProduct(msgspec.Struct, frozen=True):
    """The product whose tiers these are."""

    slug: str
    name: str
    description: str
    base_price_sats: int
    entitlements_catalog: list[dict[str, str]]


class Policy(msgspec.Struct, frozen=True):
    """One tier as these clients know it: a price in satoshis and what the license allows."""

    slug: str
    name: str
    description: str
    price_sats: int
    duration_seconds: int
    max_machines: int
    is_trial: bool
    entitlements: list[str]
    marketing_bullets: list[str]
    marketing_bullets_position: str
    hidden_entitlements: list[str]
    highlighted: bool
    is_recurring: bool
    renewal_period_days: int
    trial_days: int
    featured_discount: None


class Policies(msgspec.Struct, frozen=True):
    """A product's tiers."""

    product: PolicyProduct
    policies: list[Policy]


class Tier(msgspec.Struct, frozen=True):
    """A price and the license it buys."""

    price: Price
    spec: LicenseSpec


def read_tiers(tx: Tx, slug: str) -> tuple[Product, list[Tier]]:
    """A product's tiers that are for sale for satoshis, cheapest first.

    What is priced only in other assets is not here: these clients count in satoshis, and a price of 0
    or in cents would be a lie. Raises NotFound for an unknown or archived product.
    """
    offer = products.offer(tx, slug)
    if offer.product.status != "active":
        raise NotFound("There is no such product.", code="not_found")
    specs = {
        benefit.tier: msgspec.convert(benefit.spec, LicenseSpec)
        for benefit in offer.benefits
        if benefit.kind == "license"
    }
    tiers = [
        Tier(price, specs[price.tier])
        for price in offer.prices
        if price.tier in specs and price.asset == SAT and price.type == "one_time"
    ]
    tiers.sort(key=lambda tier: (tier.price.unit_amount, tier.price.tier, tier.price.id))
    cheapest = {tier.price.tier: tier for tier in reversed(tiers)}  # clients name a tier, not a price
    return offer.product, [tier for tier in tiers if cheapest[tier.price.tier] is tier]


def _pick(tiers: list[Tier], wanted: str | None, among: list[str] | None = None) -> Tier:
    """The tier asked for, else the default one, else the cheapest: whose price is charged, its rights are given.

    Raises NotFound.
    """
    fitting = [tier for tier in tiers if not among or tier.price.tier in among]
    if wanted is not None:
        fitting = [tier for tier in tiers if tier.price.tier == wanted]
    elif any(tier.price.tier == DEFAULT_TIER for tier in fitting):
        fitting = [tier for tier in fitting if tier.price.tier == DEFAULT_TIER]
    if not fitting:
        raise NotFound("This product has no such tier for sale for satoshis.", code="not_found")
    return fitting[0]


@get("/v1/products/{slug:str}/policies", **route("public", 404))
async def list_policies(request: Asker, slug: FromPath[str]) -> Policies:
    """A product's tiers that are for sale for satoshis."""
    scope = await public_scope(request)
    product, tiers = await scope.read(read_tiers, slug)
    base = _pick(tiers, None).price.unit_amount if tiers else 0  # what a purchase that names no tier is charged
    return Policies(
        PolicyProduct(product.slug, product.name, product.description, base, []),
        [_policy(tier) for tier in tiers],
    )


def _policy(tier: Tier) -> Policy:
    price, spec = tier.price, tier.spec
    period = _DAYS[price.interval] * (price.interval_count or 1) if price.interval else 0
    return Policy(
        slug=price.tier,
        name=price.name or price.tier.replace("-", " ").title(),
        description=price.description,
        price_sats=price.unit_amount,
        duration_seconds=spec.duration_seconds,
        max_machines=spec.max_machines,
        is_trial=spec.is_trial,
        entitlements=spec.entitlements,
        marketing_bullets=[],
        marketing_bullets_position="above",
        hidden_entitlements=[],
        highlighted=False,
        is_recurring=price.type == "recurring",
        renewal_period_days=period,
        trial_days=price.trial_days,
        featured_discount=None,
    )


class PurchaseRequest(msgspec.Struct, frozen=True):
    """What to buy."""

    product: str
    buyer_email: str | None = None
    buyer_note: str | None = None
    redirect_url: str | None = None
    code: str | None = None
    policy_slug: str | None = None
    rail: Literal["lightning", "onchain", "card"] | None = None
    """Accepted for old clients; the buyer chooses on the rail's own page."""


class PurchaseStarted(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where to pay, and under which private name to ask what came of it."""

    invoice_id: str
    btcpay_invoice_id: str
    checkout_url: str
    amount_sats: int
    base_price_sats: int
    discount_applied_sats: int
    poll_url: str
    license_key: str | None = None
    license_id: str | None = None


class PurchaseStatus(msgspec.Struct, frozen=True):
    """What came of a purchase. The key is shown while its license is active and the claim lasts."""

    invoice_id: str
    status: Literal["pending", "settled", "expired", "invalid"]
    product_id: str
    amount_sats: int
    license_key: str | None
    license_id: str | None


_STATUSES: dict[str, Literal["pending", "settled", "expired", "invalid"]] = {
    "open": "pending",
    "processing": "pending",
    "settled": "settled",
    "expired": "expired",
    "canceled": "expired",
    "failed": "invalid",
}


def _wanted(tier: Tier, data: PurchaseRequest | RedeemRequest, rail: str | None) -> NewCheckout:
    return NewCheckout(
        lines=[WantedLine(price_id=tier.price.id)],
        rail=rail,
        code=data.code or None,
        email=data.buyer_email or None,
        note=data.buyer_note,
        return_url=data.redirect_url if isinstance(data, PurchaseRequest) else None,
    )


@post("/v1/purchase", status_code=200, **route("public", 404, 409, 502, 503, repeats="joined"))
async def purchase(request: Asker, data: JSONBody[PurchaseRequest]) -> PurchaseStarted:
    """Start buying a license. What is free comes back with its key at once."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    house = house_of(request)
    _, tiers = await scope.read(read_tiers, data.product)
    tier = _pick(tiers, data.policy_slug)
    wanted = _wanted(tier, data, None if tier.price.unit_amount else FREE)
    checkout = await open_for(house, scope, wanted, inner_key_of(request))
    done = await purchase_of(scope, checkout)
    shown = await _one_key(house, scope.tenant, done)
    claim = house.claims.make(scope.tenant, checkout.id)
    return PurchaseStarted(
        invoice_id=claim,
        btcpay_invoice_id=checkout.rail_reference or "",
        checkout_url=checkout.url or "",
        amount_sats=checkout.amount,
        base_price_sats=tier.price.unit_amount,
        discount_applied_sats=tier.price.unit_amount - checkout.amount,
        poll_url=f"{await house.base_url(scope.tenant)}/v1/purchase/{claim}",
        license_key=shown[0],
        license_id=shown[1],
    )


async def _one_key(house: House, tenant: str, done: Purchase) -> tuple[str | None, str | None]:
    """The first key and its license's id, while they may be shown."""
    found = await keys_of(house, tenant, done)
    if not found:
        return None, None
    license_id = next(one.id for one in done.licenses if one.status == "active")
    return found[0], str(to_uuid(license_id))


@get("/v1/purchase/{invoice_id:str}", **route("public", 404))
async def purchase_status(request: Asker, invoice_id: FromPath[str]) -> PurchaseStatus:
    """What came of a purchase, by its private name."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    house = house_of(request)
    checkout_id = house.claims.read(scope.tenant, invoice_id)
    if checkout_id is None:
        raise NotFound("There is no such purchase.", code="not_found")
    done = await scope.read(read_purchase, checkout_id)
    product_id = await scope.read(_product_of, done.checkout.cart_id)
    key, license_id = await _one_key(house, scope.tenant, done)
    return PurchaseStatus(
        invoice_id=invoice_id,
        status=_STATUSES[done.checkout.status],
        product_id=str(to_uuid(product_id)),
        amount_sats=done.checkout.amount if done.checkout.asset == SAT else 0,
        license_key=key,
        license_id=license_id,
    )


def _product_of(tx: Tx, cart_id: str) -> str:
    return lines_of(tx, cart_id)[0].product_id


class RedeemRequest(msgspec.Struct, frozen=True):
    """A code that gives a license for nothing."""

    product: str
    code: str
    buyer_email: str | None = None
    buyer_note: str | None = None
    policy_slug: str | None = None


class Redeemed(msgspec.Struct, frozen=True):
    """The license."""

    license_id: str
    license_key: str
    invoice_id: str
    redemption_id: str


def _redeemable(tx: Tx, data: RedeemRequest) -> Tier:
    discount = discounts.usable(tx, data.code)
    if discount.kind != "free":
        raise Invalid.field("code", "this code does not make it free", code="discount_not_applicable")
    return _pick(read_tiers(tx, data.product)[1], data.policy_slug, discount.tiers)


@post("/v1/redeem", status_code=200, **route("public", 404, 409, 503, repeats="joined"))
async def redeem(request: Asker, data: JSONBody[RedeemRequest]) -> Redeemed:
    """Get a license for a code that makes it free."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    house = house_of(request)
    tier = await scope.read(_redeemable, data)
    wanted = _wanted(tier, data, FREE)
    checkout = await open_for(house, scope, wanted, inner_key_of(request), must_be_free=True)
    done = await scope.read(read_purchase, checkout.id)
    key, license_id = await _one_key(house, scope.tenant, done)
    if key is None or license_id is None:
        raise CounterfoilError("The license was issued but is not active.", code="license_not_active")
    held = await scope.read(redemptions.of_checkout, checkout.id)
    return Redeemed(license_id, key, house.claims.make(scope.tenant, checkout.id), held[0].id)
