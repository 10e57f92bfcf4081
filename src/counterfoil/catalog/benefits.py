"""Operations on benefits."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.catalog import products
from counterfoil.catalog.products import check_slug
from counterfoil.catalog.tables import benefits
from counterfoil.catalog.types import DEFAULT_TIER, Benefit, BenefitKind, GoodsSpec, LicenseSpec
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Invalid, NotFound
from counterfoil.kernel.text import check_line

_MAX_SECONDS = 100 * 366 * 86_400
_MAX_MACHINES = 1_000_000
_MAX_GRAMS = 100_000_000

_LIST = (
    sa.select(*columns(benefits))
    .where(mine(benefits), benefits.c.product_id == sa.bindparam("product_id"))
    .order_by(benefits.c.id)
)
_WRITE = (
    sa.update(benefits)
    .where(
        mine(benefits),
        benefits.c.product_id == sa.bindparam("of_product"),
        benefits.c.tier == sa.bindparam("of_tier"),
        benefits.c.kind == sa.bindparam("of_kind"),
    )
    .values(spec=sa.bindparam("new_spec"), updated_at=sa.bindparam("now"))
    .returning(*columns(benefits))
)
_REMOVE = sa.delete(benefits).where(mine(benefits), benefits.c.id == sa.bindparam("id")).returning(*columns(benefits))


class BenefitTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tier of a product is to promise: a license or goods. It may promise both, said one after the other."""

    license: LicenseSpec | None = None
    goods: GoodsSpec | None = None
    tier: str = DEFAULT_TIER
    kind: BenefitKind | None = None
    """May be left out: what is given says it."""


def check_license_spec(spec: LicenseSpec) -> None:
    """Raise Invalid unless the promise can be kept in a license key."""
    if not 0 <= spec.duration_seconds <= _MAX_SECONDS:
        raise Invalid.field("license/duration_seconds", f"must be from 0 (for ever) to {_MAX_SECONDS}")
    if not 0 <= spec.grace_seconds <= _MAX_SECONDS:
        raise Invalid.field("license/grace_seconds", f"must be from 0 to {_MAX_SECONDS}")
    if not 0 <= spec.max_machines <= _MAX_MACHINES:
        raise Invalid.field("license/max_machines", f"must be from 0 (any number) to {_MAX_MACHINES}")
    check_entitlements("license/entitlements", spec.entitlements)


def check_entitlements(field: str, entitlements: list[str]) -> None:
    """Raise Invalid unless they fit a license key: at most 255, each 1 to 255 bytes of UTF-8, no twins."""
    if len(entitlements) > 255 or len(set(entitlements)) != len(entitlements):
        raise Invalid.field(field, "at most 255, each once")
    for place, name in enumerate(entitlements):
        try:
            size = len(name.encode())
        except UnicodeEncodeError as error:
            raise Invalid.field(f"{field}/{place}", "must be valid Unicode") from error
        if not 1 <= size <= 255 or any(ord(char) < 32 for char in name):
            raise Invalid.field(f"{field}/{place}", "1 to 255 bytes of UTF-8 without control characters")


def check_goods_spec(spec: GoodsSpec) -> None:
    """Raise Invalid unless it can be written on a packing list."""
    if check_line("goods/sku", spec.sku, most=100) != spec.sku:
        raise Invalid.field("goods/sku", "must have no blanks around it")
    if not 0 <= spec.weight_grams <= _MAX_GRAMS:
        raise Invalid.field("goods/weight_grams", f"must be from 0 (not said) to {_MAX_GRAMS}")


def _promised(terms: BenefitTerms) -> tuple[BenefitKind, dict[str, Any]]:
    """What kind of promise it is, and its terms. Raises Invalid."""
    kind: BenefitKind = "license" if terms.goods is None else "goods"
    spec = terms.license if terms.goods is None else terms.goods
    if spec is None or (terms.license is not None and terms.goods is not None) or terms.kind not in {None, kind}:
        raise Invalid.field("kind", "give the terms of one promise, either license or goods")
    if isinstance(spec, GoodsSpec):
        check_goods_spec(spec)
    else:
        check_license_spec(spec)
    return kind, msgspec.to_builtins(spec)


def put(tx: Tx, product: str, terms: BenefitTerms) -> Benefit:
    """Set what a tier promises, from now on: what was quoted before keeps its promise. Raises Invalid, NotFound."""
    check_slug("tier", terms.tier)
    kind, spec = _promised(terms)
    product_id = products.find(tx, product).id
    benefit = Benefit(
        id=tx.new_id("ben"),
        product_id=product_id,
        tier=terms.tier,
        kind=kind,
        spec=spec,
        created_at=tx.now,
        updated_at=tx.now,
    )
    if not tx.insert_if_new(benefits, benefit):
        where = {"of_product": product_id, "of_tier": terms.tier, "of_kind": kind}
        row = tx.one(_WRITE, {**where, "new_spec": spec, "now": tx.now})
        assert row is not None
        benefit = Benefit(*row)
    tx.record("benefit.set", "benefit", benefit.id, product_id=product_id, tier=terms.tier, kind=kind, spec=spec)
    return benefit


def list_(tx: Tx, product: str) -> list[Benefit]:
    """Every benefit of a product (by slug or id), all tiers. Raises NotFound."""
    return [Benefit(*row) for row in tx.all(_LIST, {"product_id": products.find(tx, product).id})]


def remove(tx: Tx, benefit_id: str) -> Benefit:
    """Promise it no longer; what was quoted before keeps its promise. Raises NotFound."""
    row = tx.one(_REMOVE, {"id": benefit_id})
    if row is None:
        raise NotFound("There is no such benefit.", code="benefit_not_found")
    benefit = Benefit(*row)
    tx.record("benefit.removed", "benefit", benefit.id, product_id=benefit.product_id, tier=benefit.tier)
    return benefit
