"""What a discount may say about itself."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from counterfoil.catalog.products import check_text
from counterfoil.catalog.types import CatalogStatus, Discount, DiscountKind, DiscountStage
from counterfoil.kernel import money
from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.metadata import check_metadata

_CODE = re.compile(r"[A-Z0-9_-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MOST_NAMES = 500
_MOST_PERIODS = 1200
IN_AN_ASSET = frozenset({"flat", "flat_per_seat", "set_price"})
"""The kinds that name money."""


class NewDiscount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it takes to make a discount: a code to type, ``auto_apply``, or the customer whose margin it is."""

    kind: DiscountKind
    code: str | None = None
    customer_id: str | None = None
    amount: int = 0
    asset: str | None = None
    description: str = ""
    product_ids: list[str] = []
    price_ids: list[str] = []
    tiers: list[str] = []
    rails: list[str] = []
    stage: DiscountStage = "checkout"
    auto_apply: bool = False
    recurring: bool = False
    max_periods: int | None = None
    group_id: str | None = None
    usage_limit: int | None = None
    per_customer_limit: int | None = None
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    metadata: dict[str, Any] = {}


class DiscountChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change about a discount; what is left out stays. What it takes off, and from what, is for good."""

    description: str | msgspec.UnsetType = msgspec.UNSET
    expires_at: datetime | msgspec.UnsetType | None = msgspec.UNSET
    usage_limit: int | msgspec.UnsetType | None = msgspec.UNSET
    per_customer_limit: int | msgspec.UnsetType | None = msgspec.UNSET
    status: CatalogStatus | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


def normalize_code(code: str) -> str:
    """Codes are the same in either case and with blanks around them."""
    return code.strip().upper()


def is_code(code: str) -> bool:
    """Whether a normalized text could be a code."""
    return _CODE.fullmatch(code) is not None


def check(discount: Discount) -> None:
    """Raise Invalid unless the discount makes sense."""
    _check_whose(discount)
    _check_worth(discount)
    _check_limits(discount)
    if discount.expires_at and discount.starts_at and discount.expires_at <= discount.starts_at:
        raise Invalid.field("expires_at", "must be after starts_at")
    for name in ("product_ids", "price_ids", "tiers", "rails"):
        _check_names(name, getattr(discount, name))
    if discount.group_id is not None and not _NAME.fullmatch(discount.group_id):
        raise Invalid.field("group_id", "1 to 64 letters, digits, dots, hyphens and underscores")
    check_text("description", discount.description, most=2000)
    check_metadata("metadata", discount.metadata)


def _check_whose(discount: Discount) -> None:
    if discount.code is not None and not is_code(discount.code):
        raise Invalid.field("code", "1 to 64 letters, digits, hyphens and underscores")
    if discount.customer_id is None:
        if discount.code is None and not discount.auto_apply:
            raise Invalid.field(
                "code", "give a code, auto_apply, or the customer whose margin it is", code="code_or_customer"
            )
        return
    if discount.code is not None:
        raise Invalid.field("code", "a margin has no code: it applies by itself", code="code_or_customer")
    if discount.auto_apply:
        raise Invalid.field("auto_apply", "a margin applies by itself, to its customer")
    if discount.kind != "percentage":
        raise Invalid.field("kind", "a margin is a percentage", code="margin_kind")
    for name in ("usage_limit", "per_customer_limit"):
        if getattr(discount, name) is not None:
            raise Invalid.field(name, "a margin has none", code="margin_usage_limit")


def _check_worth(discount: Discount) -> None:
    most = 10_000 if discount.kind == "percentage" else money.MAX_AMOUNT
    if not 0 <= discount.amount <= most or (discount.kind == "free" and discount.amount):
        raise Invalid.field("amount", "basis points up to 10000 for percentage, minor units otherwise, 0 for free")
    if (discount.asset is not None) != (discount.kind in IN_AN_ASSET):
        raise Invalid.field("asset", "flat, flat_per_seat and set_price are in an asset, percentage and free are not")
    if discount.asset is not None and not money.is_known(discount.asset):
        raise Invalid.field("asset", "not a currency or token we know", code="unknown_asset")
    if discount.kind == "flat" and discount.stage == "catalog":
        raise Invalid.field("stage", "flat comes off the whole cart; off each unit, it is flat_per_seat")


def _check_limits(discount: Discount) -> None:
    for name in ("usage_limit", "per_customer_limit"):
        limit = getattr(discount, name)
        if limit is not None and not 1 <= limit <= money.MAX_AMOUNT:
            raise Invalid.field(name, "at least 1, or left out")
    if discount.max_periods is None:
        return
    if not discount.recurring:
        raise Invalid.field("max_periods", "only a recurring discount has periods")
    if not 1 <= discount.max_periods <= _MOST_PERIODS:
        raise Invalid.field("max_periods", f"from 1 to {_MOST_PERIODS}, or left out")


def _check_names(field: str, names: list[str]) -> None:
    if len(names) > _MOST_NAMES:
        raise Invalid.field(field, f"at most {_MOST_NAMES}")
    for place, name in enumerate(names):
        if not _NAME.fullmatch(name):
            raise Invalid.field(f"{field}/{place}", "1 to 64 letters, digits, dots, hyphens and underscores")


def moment(field: str, value: datetime | None) -> datetime | None:
    """The same moment in UTC. Raises Invalid when it has no time zone, or no UTC within the years 1 to 9999."""
    if value is None:
        return None
    if value.tzinfo is None:
        raise Invalid.field(field, "needs its time zone")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise Invalid.field(field, "must be within the years 1 to 9999 in UTC") from error
