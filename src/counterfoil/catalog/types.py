"""Products, prices, benefits and discounts outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

CatalogStatus = Literal["active", "archived"]
ProductType = Literal["standard", "custom"]
PriceType = Literal["one_time", "recurring"]
BillingScheme = Literal["per_unit", "tiered"]
UsageType = Literal["licensed", "metered"]
TaxMode = Literal["account_setting", "external", "internal"]
Interval = Literal["day", "week", "month", "year"]
DiscountKind = Literal["percentage", "flat", "flat_per_seat", "set_price", "free"]
DiscountStage = Literal["catalog", "checkout"]
BenefitKind = Literal["license", "goods"]
StockPolicy = Literal["deny", "allow_backorder"]
ReservationStatus = Literal["active", "released", "converted"]

DEFAULT_TIER = "default"


class Product(msgspec.Struct, frozen=True):
    """Something for sale."""

    id: str
    slug: str
    name: str
    description: str
    image_url: str | None
    tax_category: str
    type: ProductType
    """Whether it is part of the catalog, or was made for one sale."""
    status: CatalogStatus
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class LicenseSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a license benefit promises."""

    duration_seconds: int = 0
    """How long the license lasts from its issue; 0 = for ever."""
    grace_seconds: int = 0
    """How long after expiry online validation still says yes."""
    max_machines: int = 1
    """How many machines may hold it at once; 0 = any number."""
    is_trial: bool = False
    entitlements: list[str] = []
    """Feature names, exact and case-sensitive, in this order in the key."""


class GoodsSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a goods benefit promises: something that is shipped."""

    sku: str = ""
    """The seller's own name for it."""
    weight_grams: int = 0
    """Of one unit, packed; 0 = not said."""


class Benefit(msgspec.Struct, frozen=True):
    """What a tier of a product promises to whoever buys it."""

    id: str
    product_id: str
    tier: str
    kind: BenefitKind
    spec: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class CountryOverride(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another unit amount, in the price's own asset, for buyers in these countries (ISO 3166-1 alpha-2)."""

    countries: list[str]
    unit_amount: int


class Price(msgspec.Struct, frozen=True):
    """How much one unit of a product's tier costs, in one asset."""

    id: str
    product_id: str
    tier: str
    name: str
    description: str
    asset: str
    unit_amount: int
    billing_scheme: BillingScheme
    type: PriceType
    interval: Interval | None
    interval_count: int | None
    trial_days: int
    usage_type: UsageType
    tax_mode: TaxMode
    """Whether tax is in the amount (internal), comes on top of it, or is as the rail's account says."""
    country_overrides: list[dict[str, Any]]
    quantity_min: int
    quantity_max: int
    status: CatalogStatus
    locked_at: datetime | None
    """When it was first quoted; from then on its terms are fixed and a change makes a new price."""
    replaces: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class Discount(msgspec.Struct, frozen=True):
    """A price reduction: a coupon for whoever types its code, or a customer's standing margin."""

    id: str
    code: str | None
    description: str
    kind: DiscountKind
    amount: int
    """Basis points for a percentage; minor units of ``asset`` for flat and set_price; 0 for free."""
    asset: str | None
    product_ids: list[str]
    """The products it applies to; empty = all."""
    price_ids: list[str]
    """The prices it applies to; empty = all."""
    tiers: list[str]
    """The tiers it applies to; empty = all."""
    rails: list[str]
    """The rails it applies on; empty = all."""
    stage: DiscountStage
    """Whether it changes what a unit costs, or what the whole cart does."""
    auto_apply: bool
    """Whether it applies without being asked for."""
    recurring: bool
    """Whether it comes off a subscription's later periods, too."""
    max_periods: int | None
    """Off how many periods together; None = all."""
    group_id: str | None
    """Of the discounts of one group a cart gets the one that takes off most."""
    customer_id: str | None
    """A standing margin for this customer and all below it; None = for whoever types the code."""
    usage_limit: int | None
    per_customer_limit: int | None
    times_used: int
    """Reserved and redeemed uses together."""
    starts_at: datetime | None
    expires_at: datetime | None
    status: CatalogStatus
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class DiscountRedemption(msgspec.Struct, frozen=True):
    """One use of a discount: reserved by a checkout, redeemed by its order or released."""

    id: str
    discount_id: str
    checkout_id: str
    buyer: str | None
    """Who is counted for it: a customer's id, or an e-mail address."""
    status: Literal["reserved", "redeemed", "released"]
    amount: int
    asset: str
    created_at: datetime
    updated_at: datetime


class DiscountBuyer(msgspec.Struct, frozen=True):
    """How often one buyer has used one discount."""

    discount_id: str
    buyer: str
    times_used: int
    """Reserved and redeemed uses together."""
    created_at: datetime
    updated_at: datetime


class StockItem(msgspec.Struct, frozen=True):
    """How much there is of a product, or of one of its prices."""

    id: str
    product_id: str
    price_id: str | None
    """The variant it is of; None = whatever of the product has no stock of its own."""
    on_hand: int
    """What lies on the shelf; below 0, what is owed."""
    reserved: int
    """How much of that open checkouts hold."""
    policy: StockPolicy
    created_at: datetime
    updated_at: datetime


class StockReservation(msgspec.Struct, frozen=True):
    """What a checkout holds of a stock item until it is paid or over."""

    id: str
    stock_item_id: str
    checkout_id: str
    quantity: int
    status: ReservationStatus
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
