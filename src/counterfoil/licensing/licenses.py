"""Operations on licenses."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.catalog.types import DEFAULT_TIER, LicenseSpec
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Row, Tx
from counterfoil.kernel.errors import Conflict, NotFound
from counterfoil.kernel.paging import Page, page_of
from counterfoil.licensing.tables import licenses, signing_keys
from counterfoil.licensing.types import License, LicenseStatus

_GET = sa.select(*columns(licenses)).where(mine(licenses), licenses.c.id == sa.bindparam("id"))
_GET_LOCKED = _GET.with_for_update()
_OF_ORDER = (
    sa.select(*columns(licenses))
    .where(mine(licenses), licenses.c.order_id == sa.bindparam("order_id"))
    .order_by(licenses.c.line, licenses.c.unit)
)
_LIST = (
    sa.select(*columns(licenses))
    .where(mine(licenses), licenses.c.id > sa.bindparam("after"))
    .order_by(licenses.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LIST_PRODUCT = _LIST.where(licenses.c.product_id == sa.bindparam("product_id"))
_LIST_EMAIL = _LIST.where(licenses.c.email == sa.bindparam("email"))
_ACTIVE_KEY = sa.select(signing_keys.c.id).where(mine(signing_keys), signing_keys.c.status == "active")
_SUSPEND = (
    sa.update(licenses)
    .where(mine(licenses), licenses.c.id == sa.bindparam("license_id"), licenses.c.status == "active")
    .values(
        status="suspended",
        suspended_at=sa.bindparam("now"),
        suspension_reason=sa.bindparam("reason"),
        updated_at=sa.bindparam("now"),
    )
    .returning(*columns(licenses))
)
_REINSTATE = (
    sa.update(licenses)
    .where(mine(licenses), licenses.c.id == sa.bindparam("license_id"), licenses.c.status == "suspended")
    .values(status="active", suspended_at=None, suspension_reason=None, updated_at=sa.bindparam("now"))
    .returning(*columns(licenses))
)
_UNREVOKE = (
    sa.update(licenses)
    .where(mine(licenses), licenses.c.id == sa.bindparam("license_id"), licenses.c.status == "revoked")
    .values(
        status=sa.case((licenses.c.suspended_at.is_not(None), "suspended"), else_="active"),
        revoked_at=None,
        revocation_reason=None,
        updated_at=sa.bindparam("now"),
    )
    .returning(*columns(licenses))
)
_REVOKE = (
    sa.update(licenses)
    .where(mine(licenses), any_of(licenses.c.id, "ids"), licenses.c.status != "revoked")
    .values(
        status="revoked",
        revoked_at=sa.bindparam("now"),
        revocation_reason=sa.bindparam("reason"),
        updated_at=sa.bindparam("now"),
    )
    .returning(*columns(licenses))
)


_UNTIL = (
    sa.update(licenses)
    .where(
        mine(licenses),
        any_of(licenses.c.id, "ids"),
        sa.or_(licenses.c.expires_at.is_(None), licenses.c.expires_at != sa.bindparam("until")),
    )
    .values(expires_at=sa.bindparam("until"), updated_at=sa.bindparam("now"))
    .returning(licenses.c.id)
)
_RESPECIFY = (
    sa.update(licenses)
    .where(mine(licenses), licenses.c.id == sa.bindparam("license_id"))
    .values(
        tier=sa.bindparam("new_tier"),
        grace_seconds=sa.bindparam("new_grace"),
        max_machines=sa.bindparam("new_machines"),
        entitlements=sa.bindparam("new_entitlements", type_=licenses.c.entitlements.type),
        updated_at=sa.bindparam("now"),
    )
)


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    """What to issue, and for which unit of which order line (none: by hand)."""

    product_id: str
    spec: LicenseSpec
    until: datetime | None = None
    """When it ends, whatever the spec says: the end of what a subscription has paid for."""
    tier: str = DEFAULT_TIER
    order_id: str | None = None
    line: int | None = None
    unit: int | None = None
    customer_id: str | None = None
    email: str | None = None
    note: str | None = None
    metadata: dict[str, Any] = {}


def issue(tx: Tx, wanted: list[Issue]) -> list[License]:
    """Issue licenses, signed with the tenant's active key when their keys are asked for.

    The caller has checked the specs. Raises NotFound when the tenant has no signing key.
    """
    key = tx.once("signing key", lambda: tx.one(_ACTIVE_KEY))
    if key is None:
        raise NotFound("This tenant has no signing key.", code="signing_key_not_found")
    issued_at = tx.now.replace(microsecond=0)
    made = [
        License(
            id=tx.new_id("lic"),
            product_id=one.product_id,
            order_id=one.order_id,
            line=one.line,
            unit=one.unit,
            customer_id=one.customer_id,
            tier=one.tier,
            status="active",
            issued_at=issued_at,
            expires_at=_end(one, issued_at),
            grace_seconds=one.spec.grace_seconds,
            max_machines=one.spec.max_machines,
            machine_count=0,
            is_trial=one.spec.is_trial,
            entitlements=one.spec.entitlements,
            email=one.email,
            note=one.note,
            signing_key_id=key[0],
            suspended_at=None,
            suspension_reason=None,
            revoked_at=None,
            revocation_reason=None,
            metadata=one.metadata,
            created_at=tx.now,
            updated_at=tx.now,
        )
        for one in wanted
    ]
    tx.insert_later(licenses, *made)
    for license_ in made:
        tx.record(
            "license.issued",
            "license",
            license_.id,
            customer_id=license_.customer_id,
            product_id=license_.product_id,
            order_id=license_.order_id,
            tier=license_.tier,
        )
    return made


def _end(one: Issue, issued_at: datetime) -> datetime | None:
    if one.until is not None:
        return one.until.replace(microsecond=0)
    return issued_at + timedelta(seconds=one.spec.duration_seconds) if one.spec.duration_seconds else None


def get(tx: Tx, license_id: str) -> License:
    """Raise NotFound (``license_not_found``) when there is none."""
    row = tx.one(_GET, {"id": license_id})
    if row is None:
        raise NotFound("There is no such license.", code="license_not_found")
    return License(*row)


def get_locked(tx: Tx, license_id: str) -> License | None:
    """The license, its row locked until the transaction ends."""
    row = tx.one(_GET_LOCKED, {"id": license_id})
    return License(*row) if row else None


def of_order(tx: Tx, order_id: str) -> list[License]:
    """What an order issued, by line and unit."""
    return [License(*row) for row in tx.all(_OF_ORDER, {"order_id": order_id})]


def list_(
    tx: Tx, *, product_id: str | None = None, email: str | None = None, after: str = "", limit: int = 20
) -> Page[License]:
    """A page of licenses, oldest first: of a product, else of an e-mail address, else all."""
    params = {"after": after, "limit": limit + 1}
    if product_id is not None:
        rows = tx.all(_LIST_PRODUCT, {**params, "product_id": product_id})
    elif email is not None:
        rows = tx.all(_LIST_EMAIL, {**params, "email": email.lower()})
    else:
        rows = tx.all(_LIST, params)
    return page_of([License(*row) for row in rows], limit)


def suspend(tx: Tx, license_id: str, *, reason: str) -> License:
    """Stop an active license for a while. Raises NotFound; Conflict (``license_not_active``)."""
    row = tx.one(_SUSPEND, {"license_id": license_id, "now": tx.now, "reason": reason})
    return _moved(tx, row, license_id, "suspended", reason=reason)


def reinstate(tx: Tx, license_id: str, *, revoked: bool = False) -> License:
    """Let a suspended license run again.

    Or let a ``revoked`` one be what it was before, where the reason for it has turned out to be none. Raises
    NotFound; Conflict (``license_not_suspended``).
    """
    row = tx.one(_UNREVOKE if revoked else _REINSTATE, {"license_id": license_id, "now": tx.now})
    return _moved(tx, row, license_id, "reinstated")


def revoke(tx: Tx, license_id: str, *, reason: str) -> License:
    """End a license for good. Raises NotFound; Conflict (``license_revoked``)."""
    row = tx.one(_REVOKE, {"ids": [license_id], "now": tx.now, "reason": reason})
    return _moved(tx, row, license_id, "revoked", reason=reason)


def end_at(tx: Tx, license_ids: list[str], until: datetime) -> None:
    """Let licenses last until then: what a subscription has paid for. Their keys change with it."""
    params = {"ids": sorted(license_ids), "until": until.replace(microsecond=0), "now": tx.now}
    for row in tx.all(_UNTIL, params):
        tx.record("license.extended", "license", row[0], until=until.isoformat())


def respecify(tx: Tx, license_: License, spec: LicenseSpec, tier: str) -> bool:
    """Let a license promise something else from now on: its subscription's plan changed. Whether it did not already.

    Machines that are active stay so; where the new plan allows fewer, nothing more is activated. A cap below what is
    in use is kept at what is in use, because the table counts none above it.
    """
    machines = spec.max_machines
    if machines and machines < license_.machine_count:
        machines = license_.machine_count
    now = (license_.tier, license_.grace_seconds, license_.max_machines, license_.entitlements)
    if now == (tier, spec.grace_seconds, machines, spec.entitlements):
        return False
    tx.execute(
        _RESPECIFY,
        {
            "license_id": license_.id,
            "new_tier": tier,
            "new_grace": spec.grace_seconds,
            "new_machines": machines,
            "new_entitlements": spec.entitlements,
            "now": tx.now,
        },
    )
    tx.record("license.changed", "license", license_.id, tier=tier, max_machines=machines)
    return True


_REFUSALS: dict[str, tuple[LicenseStatus, str]] = {
    "suspended": ("active", "license_not_active"),
    "reinstated": ("suspended", "license_not_suspended"),
    "revoked": ("active", "license_revoked"),
}


def _moved(tx: Tx, row: Row | None, license_id: str, verb: str, **details: Any) -> License:
    if row is None:
        now = get(tx, license_id)
        raise Conflict(f"This license is {now.status}.", code=_REFUSALS[verb][1])
    tx.record(f"license.{verb}", "license", license_id, **details)
    return License(*row)
