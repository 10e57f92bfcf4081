"""Payments over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from counterfoil.api.catalog import After, Limit, start
from counterfoil.exchange.rails import TAKEN
from counterfoil.house import House
from counterfoil.http.access import Asker, house_of, scope_of
from counterfoil.http.idempotency import shaped
from counterfoil.http.problems import route
from counterfoil.kernel.errors import Invalid, NotFound
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.kernel.text import check_note
from counterfoil.sales import payments, payments_archive
from counterfoil.sales.payments_archive import KnownPayment
from counterfoil.settlement import recording, settle
from counterfoil.settlement.recording import MANUAL, NewPayment


class RecordPayment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Money proved outside of any rail. ``claim`` names its checkout as its buyer knows it."""

    reference: str
    amount: int
    asset: str
    rail: str = MANUAL
    payer: str | None = None
    occurred_at: datetime | None = None
    checkout_id: str | None = None
    claim: str | None = None
    customer_id: str | None = None
    details: dict[str, Any] = {}


class RecordPayments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 100 payments, recorded all or none."""

    payments: list[RecordPayment]


class RecordedPayments(msgspec.Struct, frozen=True):
    """The payments, in the order they were given."""

    payments: list[KnownPayment]


def _new(house: House, tenant: str, data: RecordPayment) -> NewPayment:
    fields = {name: getattr(data, name) for name in NewPayment.__struct_fields__}
    if data.claim is not None:
        if data.checkout_id is not None:
            raise Invalid.field("claim", "leave it out where there is a checkout_id")
        fields["checkout_id"] = house.claims.read(tenant, data.claim)
        if fields["checkout_id"] is None:
            raise NotFound("There is no such purchase.", code="checkout_not_found")
    return NewPayment(**fields)


@get("/v1/payments", **route("payments:read"))
async def list_payments(
    request: Asker,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    attention: FromQuery[bool] = False,
    archived: FromQuery[bool] = False,
) -> Page[KnownPayment]:
    """Payments, oldest first; with ``attention`` those a person has yet to resolve, with ``archived`` old ones."""
    scope = scope_of(request)
    if archived:
        if attention:
            raise Invalid.field("attention", "nothing is left to do about archived payments")
        return await scope.read(payments_archive.list_, after=start(after), limit=limit)
    page = await scope.read(payments.list_, attention=attention, after=start(after), limit=limit)
    return Page([payments_archive.known(payment) for payment in page.data], page.next)


@post("/v1/payments", **route("payments:write", 404, 409))
async def record_payment(request: Asker, data: JSONBody[RecordPayment]) -> KnownPayment:
    """Write down money that came outside of every rail. It fulfills its checkout when that is paid now."""
    scope = scope_of(request)
    new = _new(house_of(request), scope.tenant, data)
    return await scope.run(recording.record, new, TAKEN)


@post("/v1/payments/batch", **route("payments:write", 404, 409))
async def record_payments(request: Asker, data: JSONBody[RecordPayments]) -> RecordedPayments:
    """Write several payments down, all or none."""
    scope = scope_of(request)
    batch = [_new(house_of(request), scope.tenant, one) for one in data.payments[: recording.MOST + 1]]
    return await scope.run(shaped(recording.record_many, RecordedPayments), batch, TAKEN)


@get("/v1/payments/by-reference", **route("payments:read", 404))
async def find_payment(
    request: Asker,
    rail: Annotated[str, QueryParameter(max_length=40)],
    reference: Annotated[str, QueryParameter(max_length=1000)],
) -> KnownPayment:
    """The payment by its rail's own name for it, however old: whether this money was seen before."""
    return await scope_of(request).read(payments_archive.find, rail, reference)


@get("/v1/payments/{payment_id:str}", **route("payments:read", 404))
async def get_payment(request: Asker, payment_id: FromPath[str]) -> KnownPayment:
    """One payment; ``archived_at`` says whether it is in the archive."""
    return await scope_of(request).read(payments_archive.get, payment_id)


class ResolvePayment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person decided: accept (give what was bought all the same) or dismiss (seen to elsewhere)."""

    resolution: Literal["accepted", "dismissed"]
    note: str = ""


@post("/v1/payments/{payment_id:str}/resolve", status_code=200, **route("payments:write", 404, 409))
async def resolve_payment(request: Asker, payment_id: FromPath[str], data: JSONBody[ResolvePayment]) -> KnownPayment:
    """Resolve a payment that was short, over, late or unmatched."""
    note = check_note("note", data.note, most=2000)
    op = settle.accept if data.resolution == "accepted" else settle.dismiss
    return await scope_of(request).run(shaped(op, payments_archive.known), payment_id, note=note)


payments_router = Router(
    path="/",
    tags=["Payments"],
    route_handlers=[list_payments, record_payment, record_payments, find_payment, get_payment, resolve_payment],
)
