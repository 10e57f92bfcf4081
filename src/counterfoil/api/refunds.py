"""Refunds over HTTP: asked for by customers and staff, decided by staff, given back by the rail or by hand."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Router, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from counterfoil.accounts import customers, nonces
from counterfoil.api.catalog import After, Limit, start
from counterfoil.api.staff import NonceHeader
from counterfoil.db.tx import Tx
from counterfoil.http.access import Asker, house_of, scope_of
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.sales import refunds
from counterfoil.sales.refunds import NewRefund, RefundFilter
from counterfoil.sales.types import GrantsPolicy, Refund, RefundKind, RefundStatus, RefundType
from counterfoil.settlement import reverse

Ids = Annotated[str | None, QueryParameter(name="ids", max_length=4000, description="At most 100, between commas.")]
Purchase = Annotated[str | None, QueryParameter(max_length=500, description="The order's `purchase_reference`.")]


class CustomerRefund(msgspec.Struct, frozen=True):
    """A refund as its customer sees it."""

    id: str
    payment_id: str
    order_id: str | None
    kind: RefundKind
    type: RefundType
    rail: str
    amount: int
    asset: str
    recipient: str | None
    status: RefundStatus
    reason: str
    rail_reference: str | None
    expires_at: datetime | None
    processed_at: datetime | None
    created_at: datetime
    updated_at: datetime


class NewRefunds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several at once: all or none."""

    refunds: list[NewRefund]


class Refunds(msgspec.Struct, frozen=True):
    """Several refunds, in the order asked for."""

    data: list[Refund]


class NewCustomerRefund(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a customer may say about it: of one of their payments, or of their order with one payment."""

    order_id: str | None = None
    payment_id: str | None = None
    amount: int | None = None
    asset: str | None = None
    reason: str = ""
    recipient: str | None = None


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``grants_policy`` overrules what the request says."""

    grants_policy: GrantsPolicy | None = None


class Denial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why not."""

    note: str = ""


class SettledByHand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the money that went back can be found: a bank's or a wallet's reference."""

    reference: str
    note: str = ""


def _for_customer(refund: Refund) -> CustomerRefund:
    return CustomerRefund(*[getattr(refund, name) for name in CustomerRefund.__struct_fields__])


def _request_many(tx: Tx, news: list[NewRefund]) -> Refunds:
    return Refunds(refunds.request_many(tx, news))


@post("/v1/refunds", **route("refunds:write", 404, 409))
async def create_refund(request: Asker, data: JSONBody[NewRefund]) -> Refund:
    """Ask for money back. It is claimed at once, and waits for somebody to approve it."""
    return await scope_of(request).run(refunds.request, data)


@post("/v1/refunds/batch", **route("refunds:write", 404, 409))
async def create_refunds(request: Asker, data: JSONBody[NewRefunds]) -> Refunds:
    """Ask for up to 100 refunds at once: all or none."""
    return await scope_of(request).run(_request_many, data.refunds)


@get("/v1/refunds", **route("refunds:read"))
async def list_refunds(
    request: Asker,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    status: FromQuery[RefundStatus | None] = None,
    order_id: FromQuery[str | None] = None,
    payment_id: FromQuery[str | None] = None,
    purchase_reference: Purchase = None,
    ids: Ids = None,
) -> Page[Refund]:
    """Refunds, oldest first; or those named by ``ids``, in that order and whatever else is asked."""
    scope = scope_of(request)
    if ids is not None:
        named = [one for one in ids.split(",") if one]
        return Page(await scope.read(refunds.get_many, named))
    wanted = RefundFilter(
        status=status, order_id=order_id, payment_id=payment_id, purchase_reference=purchase_reference
    )
    return await scope.read(refunds.list_, wanted, after=start(after), limit=limit)


@get("/v1/refunds/{refund_id:str}", **route("refunds:read", 404))
async def get_refund(request: Asker, refund_id: FromPath[str]) -> Refund:
    """One refund."""
    return await scope_of(request).read(refunds.get, refund_id)


@delete("/v1/refunds/{refund_id:str}", **route("refunds:write", 404, 409))
async def withdraw_refund(request: Asker, refund_id: FromPath[str]) -> None:
    """Take back a request that nobody has decided about. It stays, denied as ``withdrawn``."""
    await scope_of(request).run(refunds.withdraw, refund_id)


@post("/v1/refunds/{refund_id:str}/approve", status_code=200, **route("refunds:approve", 404, 409))
async def approve_refund(
    request: Asker, refund_id: FromPath[str], data: JSONBody[Approval], nonce: NonceHeader = None
) -> Refund:
    """Let the money go: its rail is asked right after. Needs a nonce for ``refund.approve``."""
    scope = scope_of(request)
    refund = await scope.run(
        nonces.guarded, nonce, "refund.approve", refunds.approve, refund_id, grants_policy=data.grants_policy
    )
    house_of(request).give_back(scope.tenant)
    return refund


@post("/v1/refunds/{refund_id:str}/deny", status_code=200, **route("refunds:approve", 404, 409))
async def deny_refund(
    request: Asker, refund_id: FromPath[str], data: JSONBody[Denial], nonce: NonceHeader = None
) -> Refund:
    """Say no. Needs a nonce for ``refund.deny``."""
    return await scope_of(request).run(nonces.guarded, nonce, "refund.deny", refunds.deny, refund_id, note=data.note)


@post("/v1/refunds/{refund_id:str}/settle", status_code=200, **route("refunds:approve", 404, 409))
async def settle_refund(
    request: Asker, refund_id: FromPath[str], data: JSONBody[SettledByHand], nonce: NonceHeader = None
) -> Refund:
    """Say that the money was given back by hand: on a rail that cannot, or refused. Needs one for ``refund.settle``."""
    return await scope_of(request).run(
        nonces.guarded, nonce, "refund.settle", reverse.settle_by_hand, refund_id,
        reference=data.reference, note=data.note,
    )  # fmt: skip


def _list_of(tx: Tx, customer_id: str, after: str, limit: int) -> Page[Refund]:
    customers.get(tx, customer_id)
    return refunds.list_(tx, RefundFilter(customer_id=customer_id), after=after, limit=limit)


def _request_for(tx: Tx, customer_id: str, new: NewRefund) -> CustomerRefund:
    customers.get(tx, customer_id)
    return _for_customer(refunds.request(tx, new, customer_id=customer_id))


@get("/v1/customers/{customer_id:str}/refunds", **route("refunds:read", 404))
async def list_customer_refunds(
    request: Asker, customer_id: FromPath[str], after: After = None, limit: Limit = DEFAULT_LIMIT
) -> Page[CustomerRefund]:
    """What is given back to a customer, oldest first."""
    page = await scope_of(request).read(_list_of, customer_id, start(after), limit)
    return Page([_for_customer(refund) for refund in page.data], page.next)


@post("/v1/customers/{customer_id:str}/refunds", **route("refunds:write", 404, 409))
async def create_customer_refund(
    request: Asker, customer_id: FromPath[str], data: JSONBody[NewCustomerRefund]
) -> CustomerRefund:
    """Ask for the money of one of the customer's purchases back."""
    new = NewRefund(**{name: getattr(data, name) for name in data.__struct_fields__})
    return await scope_of(request).run(_request_for, customer_id, new)


@delete("/v1/customers/{customer_id:str}/refunds/{refund_id:str}", **route("refunds:write", 404, 409))
async def withdraw_customer_refund(request: Asker, customer_id: FromPath[str], refund_id: FromPath[str]) -> None:
    """Take back a request that nobody has decided about."""
    await scope_of(request).run(refunds.withdraw, refund_id, customer_id=customer_id)


refunds_router = Router(
    path="/",
    tags=["Refunds"],
    route_handlers=[
        create_refund,
        create_refunds,
        list_refunds,
        get_refund,
        withdraw_refund,
        approve_refund,
        deny_refund,
        settle_refund,
        list_customer_refunds,
        create_customer_refund,
        withdraw_customer_refund,
    ],
)
