"""What staff gives without a sale."""

from __future__ import annotations

from typing import Any

import msgspec

from counterfoil.catalog import products
from counterfoil.catalog.benefits import check_license_spec
from counterfoil.catalog.products import check_slug, check_text
from counterfoil.catalog.types import DEFAULT_TIER, LicenseSpec
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.metadata import check_metadata
from counterfoil.licensing import licenses
from counterfoil.licensing.licenses import Issue
from counterfoil.licensing.types import License


class NewLicense(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A license issued by hand. Without ``license`` it promises what the product's tier promises."""

    product: str
    tier: str = DEFAULT_TIER
    license: LicenseSpec | None = None
    email: str | None = None
    note: str | None = None
    metadata: dict[str, Any] = {}


def issue_by_hand(tx: Tx, new: NewLicense) -> License:
    """Issue a license that nobody bought. Raises Invalid, NotFound."""
    check_slug("tier", new.tier)
    for name in ("email", "note"):
        check_text(name, getattr(new, name) or "", most=2000)
    check_metadata("metadata", new.metadata)
    offer = products.offer(tx, new.product)
    spec = new.license
    if spec is None:
        promised = [one for one in offer.benefits if one.tier == new.tier and one.kind == "license"]
        if not promised:
            raise Invalid.field("license", "this tier promises no license, so say what this one is to allow")
        spec = msgspec.convert(promised[0].spec, LicenseSpec)
    check_license_spec(spec)
    wanted = Issue(
        product_id=offer.product.id,
        spec=spec,
        tier=new.tier,
        email=new.email.lower() if new.email else None,
        note=new.note,
        metadata=new.metadata,
    )
    return licenses.issue(tx, [wanted])[0]
