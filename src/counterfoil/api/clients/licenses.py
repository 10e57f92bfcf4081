"""Keys, validation and machines, as existing license clients call them."""

from __future__ import annotations

from datetime import datetime

import msgspec
from litestar import get, post
from litestar.params import JSONBody

from counterfoil.db.base import Scope
from counterfoil.house import House
from counterfoil.http.access import Asker, Limits, address_of, check_rate, house_of, public_scope, user_agent_of
from counterfoil.http.problems import route
from counterfoil.kernel.errors import Malformed, NotFound
from counterfoil.kernel.ids import from_uuid, to_uuid
from counterfoil.kernel.secrets import fingerprint
from counterfoil.licensing import keys, machines, validation
from counterfoil.licensing.keyring import BadLicenseSignature
from counterfoil.licensing.machines import Device
from counterfoil.licensing.validation import Answer, Question

_LONGEST_TEXT = 1000


class PubKey(msgspec.Struct, frozen=True):
    """The key that license keys verify with."""

    algorithm: str
    public_key_pem: str


class IssuerKey(msgspec.Struct, frozen=True):
    """The same, in the older shape."""

    public_key_pem: str
    key_algorithm: str
    key_format_version: int


async def _pem(request: Asker) -> str:
    scope = await public_scope(request)
    ring = await house_of(request).keyring(scope.tenant, doubt=True)
    return ring.public().to_pem()


@get("/v1/pubkey", **route("public", 404))
async def pubkey(request: Asker) -> PubKey:
    """The public key that license keys verify with."""
    return PubKey("ed25519", await _pem(request))


@get("/v1/issuer/public-key", **route("public", 404))
async def issuer_public_key(request: Asker) -> IssuerKey:
    """The public key that license keys verify with, in the older shape."""
    return IssuerKey(await _pem(request), "ed25519", 2)


class ValidateRequest(msgspec.Struct, frozen=True):
    """A key, and where it is used."""

    key: str
    product_slug: str | None = None
    fingerprint: str | None = None
    hostname: str | None = None
    platform: str | None = None


class Validation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Good, or why not. Fields that say nothing are left out."""

    ok: bool
    reason: str | None = None
    license_id: str | None = None
    product_id: str | None = None
    product_slug: str | None = None
    issued_at: datetime | None = None
    expires_at: datetime | None = None
    grace_until: datetime | None = None
    in_grace_period: bool = False
    is_trial: bool = False
    entitlements: list[str] = []
    status: str | None = None
    machine_id: str | None = None
    max_machines: int | None = None


def _device(request: Asker, raw: str, hostname: str | None, platform: str | None) -> Device:
    """What is kept of a machine: its fingerprint only as a hash."""
    return Device(
        fingerprint(raw),
        hostname[:_LONGEST_TEXT] if hostname else None,
        platform[:_LONGEST_TEXT] if platform else None,
        address_of(request),
    )


async def license_id_of(house: House, tenant: str, key: str) -> str:
    """The license a key names, its signature checked. Raises keys.BadKey, BadLicenseSignature."""
    ring = await house.keyring(tenant)
    try:
        value = ring.license_id(key)
    except BadLicenseSignature:
        # The signing key may have been rotated by another process; look again, but not too often.
        latest = await house.keyring(tenant, doubt=True)
        if latest is ring:
            raise
        value = latest.license_id(key)
    return from_uuid("lic", value)


@post("/v1/validate", status_code=200, **route("public", 404, 503, repeats="ignored"))
async def validate(request: Asker, data: JSONBody[ValidateRequest]) -> Validation:
    """Whether a license key is good: for a product and on a machine, where those are named."""
    scope = await public_scope(request)
    limits: Limits = request.app.state.limits
    address = address_of(request)
    if not limits.allow_address(scope.tenant, address):
        return Validation(ok=False, reason="rate_limited")
    license_id, refused = None, None
    try:
        license_id = await license_id_of(house_of(request), scope.tenant, data.key)
    except keys.BadKey:
        refused = "bad_format"
    except BadLicenseSignature:
        refused = "bad_signature"
    question = Question(
        license_id=license_id,
        refused=refused,
        product_slug=data.product_slug,
        device=_device(request, data.fingerprint, data.hostname, data.platform) if data.fingerprint else None,
        address=address,
        user_agent=user_agent_of(request),
    )
    # What differs by request is in the question, so that concurrent ones can share a transaction.
    return _shape(await house_of(request).scope(scope.tenant).coalesce(validation.validate_many, question))


def _shape(answer: Answer) -> Validation:
    license_ = answer.license
    if license_ is None:
        return Validation(ok=False, reason=answer.reason)
    license_id, product_id = str(to_uuid(license_.id)), str(to_uuid(license_.product_id))
    if answer.reason == "expired":
        return Validation(
            ok=False, reason="expired", license_id=license_id, product_id=product_id, expires_at=license_.expires_at
        )
    if answer.reason in {"too_many_machines", "fingerprint_mismatch"}:
        return Validation(
            ok=False,
            reason=answer.reason,
            license_id=license_id,
            product_id=product_id,
            max_machines=license_.max_machines,
        )
    if answer.reason is not None:
        return Validation(ok=False, reason=answer.reason)
    return Validation(
        ok=True,
        license_id=license_id,
        product_id=product_id,
        product_slug=answer.product_slug,
        issued_at=license_.issued_at,
        expires_at=license_.expires_at,
        grace_until=answer.grace_until,
        in_grace_period=answer.grace_until is not None,
        is_trial=license_.is_trial,
        entitlements=license_.entitlements,
        status=license_.status,
        machine_id=answer.machine_id,
        max_machines=license_.max_machines,
    )


class MachineRequest(msgspec.Struct, frozen=True):
    """A key and the machine it is used on."""

    key: str
    fingerprint: str
    hostname: str | None = None
    platform: str | None = None


class ReleaseRequest(msgspec.Struct, frozen=True):
    """A key and the machine it is no longer used on."""

    key: str
    fingerprint: str
    reason: str | None = None


class ActivationView(msgspec.Struct, frozen=True):
    """Activated, or why not."""

    ok: bool
    machine_id: str | None
    active_count: int
    max_machines: int
    reason: str | None


class MachineAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Done, or why not."""

    ok: bool
    machine_id: str | None = None
    reason: str | None = None


async def _license_of(request: Asker, scope: Scope, data: MachineRequest | ReleaseRequest) -> str:
    if not data.fingerprint:
        raise Malformed("fingerprint: must not be empty", code="bad_request")
    try:
        return await license_id_of(house_of(request), scope.tenant, data.key)
    except keys.BadKey as error:
        raise Malformed("This is not a license key.", code="bad_format") from error
    except BadLicenseSignature as error:
        raise Malformed("This license key was not issued here.", code="bad_signature") from error


@post("/v1/machines/activate", status_code=200, **route("public", 404, 503, repeats="ignored"))
async def activate(request: Asker, data: JSONBody[MachineRequest]) -> ActivationView:
    """Activate a license on a machine. Again on the same machine is a heartbeat."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    license_id = await _license_of(request, scope, data)
    device = _device(request, data.fingerprint, data.hostname, data.platform)
    done = await scope.run(machines.activate, license_id, device)
    if done.refusal == "not_found":
        raise NotFound("There is no such license.", code="not_found")
    inactive = done.refusal in {"suspended", "revoked"}
    return ActivationView(
        done.refusal is None, done.machine_id, 0 if inactive else done.active_count, done.max_machines, done.refusal
    )


@post("/v1/machines/heartbeat", status_code=200, **route("public", 404, 503, repeats="ignored"))
async def heartbeat(request: Asker, data: JSONBody[MachineRequest]) -> MachineAnswer:
    """Say that a machine is alive."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    license_id = await _license_of(request, scope, data)
    hashed = fingerprint(data.fingerprint)
    limits: Limits = request.app.state.limits
    if not limits.allow_machine(scope.tenant, license_id, hashed):
        return MachineAnswer(ok=False, reason="rate_limited")
    machine_id, reason = await scope.run(machines.heartbeat, license_id, hashed)
    if reason == "not_found":
        raise NotFound("There is no such license.", code="not_found")
    return MachineAnswer(ok=reason is None, machine_id=machine_id, reason=reason)


@post("/v1/machines/deactivate", status_code=200, **route("public", 404, 503, repeats="ignored"))
async def deactivate(request: Asker, data: JSONBody[ReleaseRequest]) -> MachineAnswer:
    """Free the machine's place."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    license_id = await _license_of(request, scope, data)
    reason = (data.reason or "client_requested")[:_LONGEST_TEXT]
    freed = await scope.run(machines.release, license_id, fingerprint(data.fingerprint), reason=reason)
    return MachineAnswer(ok=True) if freed else MachineAnswer(ok=False, reason="not_found")
