"""Operations on refunds: asked for, then approved, denied or withdrawn.

What becomes of an approved one is in ``refund_attempts`` and ``settlement.reverse``. Any payment can be given back,
whatever it turned out to be: money that was short, late or for nothing we know, too. A refund is of one payment.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.metadata import check_metadata
from counterfoil.kernel.money import MAX_AMOUNT, Money
from counterfoil.kernel.paging import Page, page_of
from counterfoil.kernel.text import check_line, check_note
from counterfoil.sales import refund_money
from counterfoil.sales.refund_money import Target
from counterfoil.sales.tables import orders, payments, refunds
from counterfoil.sales.types import GrantsPolicy, Order, Refund, RefundKind, RefundStatus

MOST_AT_ONCE = 100
"""Refunds in one batch, and in one answer by ids."""
MOST_NOTE = 2000

_GET = sa.select(*columns(refunds)).where(mine(refunds), refunds.c.id == sa.bindparam("id"))
_MANY = sa.select(*columns(refunds)).where(mine(refunds), any_of(refunds.c.id, "ids"))
_RESTOCKED = sa.select(refunds.c.restock).where(
    mine(refunds),
    refunds.c.order_id == sa.bindparam("order_id"),
    refunds.c.id != sa.bindparam("but"),
    refunds.c.status.not_in(["denied", "failed"]),
)
_CUSTOMER = sa.select(payments.c.customer_id).where(mine(payments), payments.c.id == sa.bindparam("payment_id"))
_DECIDE = (
    sa.update(refunds)
    .where(mine(refunds), refunds.c.id == sa.bindparam("refund_id"), refunds.c.status == "pending")
    .returning(*columns(refunds))
)
_APPROVE = _DECIDE.values(
    status="approved",
    approved_by=sa.bindparam("by"),
    grants_policy=sa.func.coalesce(sa.bindparam("policy", type_=sa.Text), refunds.c.grants_policy),
    next_attempt_at=sa.bindparam("now"),
    updated_at=sa.bindparam("now"),
)
_DENY = _DECIDE.values(
    status="denied", approved_by=sa.bindparam("by"), error=sa.bindparam("why"), updated_at=sa.bindparam("now")
)
_OVERDUE = (
    sa.select(refunds.c.id)
    .where(mine(refunds), refunds.c.status == "pending", refunds.c.expires_at <= sa.bindparam("now"))
    .order_by(refunds.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)


class Restock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of an order's line goes back on the shelf."""

    line: int
    quantity: int


class NewRefund(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Money to give back: of a payment, or of an order with one payment."""

    order_id: str | None = None
    payment_id: str | None = None
    amount: int | None = None
    """All that is left, when left out."""
    asset: str | None = None
    """The payment's; naming it guards against a mistake."""
    reason: str = ""
    kind: RefundKind = "refund"
    recipient: str | None = None
    grants_policy: GrantsPolicy | None = None
    """Left out: ``revoke`` when nothing that was paid would be left, else ``keep``."""
    restock: list[Restock] = []
    expires_at: datetime | None = None
    """Denied then unless approved before."""
    metadata: dict[str, Any] = {}


class RefundFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which refunds a list shows. Left out: any."""

    status: RefundStatus | None = None
    order_id: str | None = None
    payment_id: str | None = None
    purchase_reference: str | None = None
    """Of the order."""
    customer_id: str | None = None
    """Who paid."""


def request(tx: Tx, new: NewRefund, *, customer_id: str | None = None) -> Refund:
    """Ask for money back; it is claimed at once, so that nobody else can ask for it.

    ``customer_id``: only of what this customer bought. Raises Invalid (``payment_required``,
    ``payment_not_of_order``, ``asset_mismatch``); NotFound; Conflict (``refund_exceeds_payment``).
    """
    return _request(tx, [new], [""], customer_id)[0]


def request_many(tx: Tx, news: Sequence[NewRefund]) -> list[Refund]:
    """Ask for several at once: all or none. Raises what :func:`request` raises, naming which."""
    if not 1 <= len(news) <= MOST_AT_ONCE:
        raise Invalid.field("refunds", f"from 1 to {MOST_AT_ONCE}")
    return _request(tx, news, [f"refunds/{place}/" for place in range(len(news))], None)


def _request(tx: Tx, news: Sequence[NewRefund], places: Sequence[str], customer_id: str | None) -> list[Refund]:
    checked = [_checked(tx, new, at) for new, at in zip(news, places, strict=True)]
    targets = [
        refund_money.find(tx, new.order_id, new.payment_id, customer_id=customer_id, at=at)
        for new, at in zip(checked, places, strict=True)
    ]
    for new, target, at in zip(checked, targets, places, strict=True):
        if new.asset is not None and new.asset != target.payment.asset:
            raise Invalid.field(f"{at}asset", f"the payment is in {target.payment.asset}", code="asset_mismatch")
    refund_money.lock(tx, targets)
    return [_write(tx, new, target, at) for new, target, at in zip(checked, targets, places, strict=True)]


def _checked(tx: Tx, new: NewRefund, at: str) -> NewRefund:
    """What can be seen without looking anything up."""
    if new.amount is not None and not 1 <= new.amount <= MAX_AMOUNT:
        raise Invalid.field(f"{at}amount", f"from 1 to {MAX_AMOUNT} minor units")
    if new.expires_at is not None and (new.expires_at.tzinfo is None or new.expires_at <= tx.now):
        raise Invalid.field(f"{at}expires_at", "must be in the future, with its time zone")
    check_metadata(f"{at}metadata", new.metadata)
    reason = check_note(f"{at}reason", new.reason, most=MOST_NOTE)
    recipient = None
    if new.recipient is not None:
        recipient = check_line(f"{at}recipient", new.recipient, least=1, most=500)
    return msgspec.structs.replace(new, reason=reason, recipient=recipient)


def _write(tx: Tx, new: NewRefund, target: Target, at: str) -> Refund:
    payment, amount = refund_money.claim(tx, target.payment, new.amount, at=at)
    restock = [msgspec.to_builtins(one) for one in new.restock]
    if restock:
        check_restock(tx, target.order, restock, at=at)
    policy: GrantsPolicy = new.grants_policy or ("keep" if refund_money.kept(tx, target) else "revoke")
    refund = Refund(
        id=tx.new_id("rfd"),
        payment_id=payment.id,
        order_id=target.order.id if target.order is not None else None,
        kind=new.kind,
        type="full" if amount == payment.amount else "partial",
        rail=payment.rail,
        amount=amount,
        asset=payment.asset,
        recipient=new.recipient,
        status="pending",
        reason=new.reason,
        grants_policy=policy,
        restock=restock,
        requested_by=who(tx),
        approved_by=None,
        processed_by=None,
        rail_reference=None,
        attempts=0,
        next_attempt_at=None,
        claimed_by=None,
        claimed_until=None,
        error=None,
        expires_at=new.expires_at,
        processed_at=None,
        metadata=new.metadata,
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.insert(refunds, refund)
    record(tx, "requested", refund, reason=refund.reason)
    return refund


def check_restock(tx: Tx, order: Order | None, restock: list[dict[str, Any]], *, but: str = "", at: str = "") -> None:
    """Refuse to put back more of an order's lines than was sold, over all its refunds. Its row is locked.

    Raises Invalid.
    """
    if order is None:
        raise Invalid.field(f"{at}restock", "this payment bought nothing")
    lines = [one["line"] for one in restock]
    if len(set(lines)) != len(lines):
        raise Invalid.field(f"{at}restock", "names a line twice")
    before: dict[int, int] = {}
    for row in tx.all(_RESTOCKED, {"order_id": order.id, "but": but}):
        for one in row[0]:
            before[one["line"]] = before.get(one["line"], 0) + one["quantity"]
    for place, one in enumerate(restock):
        field = f"{at}restock/{place}"
        if not 0 <= one["line"] < len(order.items):
            raise Invalid.field(f"{field}/line", f"from 0 to {len(order.items) - 1}")
        most = order.items[one["line"]]["quantity"] - before.get(one["line"], 0)
        if not 1 <= one["quantity"] <= most:
            detail = f"from 1 to {most}" if most else "all of it is put back by another refund"
            raise Invalid.field(f"{field}/quantity", detail)


def who(tx: Tx) -> str:
    """Whoever acts, as refunds name them: ``user:usr_...``, ``key:key_...``, ``system:cli``."""
    return f"{tx.actor.kind}:{tx.actor.id}"


def record(tx: Tx, verb: str, refund: Refund, **details: Any) -> None:
    """Record what happened to a refund, about the customer who had paid."""
    paid = tx.one(_CUSTOMER, {"payment_id": refund.payment_id})
    tx.record(
        f"refund.{verb}",
        "refund",
        refund.id,
        customer_id=paid[0] if paid else None,
        money=Money(refund.amount, refund.asset),
        payment_id=refund.payment_id,
        order_id=refund.order_id,
        **details,
    )


# -- reading ------------------------------------------------------------------------------------------


def get(tx: Tx, refund_id: str, *, customer_id: str | None = None) -> Refund:
    """``customer_id``: only of this customer's payments. Raises NotFound (``refund_not_found``)."""
    row = tx.one(_GET, {"id": refund_id})
    refund = Refund(*row) if row is not None else None
    if refund is not None and customer_id is not None:
        paid = tx.one(_CUSTOMER, {"payment_id": refund.payment_id})
        if paid is None or paid[0] != customer_id:
            refund = None
    if refund is None:
        raise NotFound("There is no such refund.", code="refund_not_found")
    return refund


def get_many(tx: Tx, refund_ids: Sequence[str]) -> list[Refund]:
    """Those that exist, in the order asked for. Raises Invalid for more than 100."""
    if len(refund_ids) > MOST_AT_ONCE:
        raise Invalid.field("ids", f"at most {MOST_AT_ONCE}")
    found = {row[0]: Refund(*row) for row in tx.all(_MANY, {"ids": list(refund_ids)})}
    return [found[one] for one in dict.fromkeys(refund_ids) if one in found]


def list_(tx: Tx, wanted: RefundFilter, *, after: str = "", limit: int = 20) -> Page[Refund]:
    """A page of refunds, oldest first."""
    given = {name: value for name in wanted.__struct_fields__ if (value := getattr(wanted, name)) is not None}
    rows = tx.all(_list(tuple(given)), {**given, "after": after, "limit": limit + 1})
    return page_of([Refund(*row) for row in rows], limit)


@cache
def _list(names: tuple[str, ...]) -> sa.Select[*tuple[Any, ...]]:
    def value(name: str) -> sa.BindParameter[str]:
        return sa.bindparam(name, type_=sa.Text)

    bought = sa.select(orders.c.id).where(mine(orders), orders.c.purchase_reference == value("purchase_reference"))
    paid = sa.select(payments.c.id).where(mine(payments), payments.c.customer_id == value("customer_id"))
    conditions = {
        "status": refunds.c.status == value("status"),
        "order_id": refunds.c.order_id == value("order_id"),
        "payment_id": refunds.c.payment_id == value("payment_id"),
        "purchase_reference": refunds.c.order_id.in_(bought),
        "customer_id": refunds.c.payment_id.in_(paid),
    }
    return (
        sa.select(*columns(refunds))
        .where(mine(refunds), refunds.c.id > sa.bindparam("after"), *[conditions[name] for name in names])
        .order_by(refunds.c.id)
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )


# -- deciding -----------------------------------------------------------------------------------------


def approve(tx: Tx, refund_id: str, *, grants_policy: GrantsPolicy | None = None) -> Refund:
    """Let the money go; ``grants_policy`` overrules what was asked for. One may approve one's own request.

    Raises NotFound; Conflict (``refund_not_pending``).
    """
    params = {"refund_id": refund_id, "by": who(tx), "policy": grants_policy, "now": tx.now}
    row = tx.one(_APPROVE, params)
    if row is None:
        raise _not_pending(tx, refund_id)
    refund = Refund(*row)
    record(tx, "approved", refund, grants_policy=refund.grants_policy)
    return refund


def deny(tx: Tx, refund_id: str, *, note: str = "") -> Refund:
    """Say no, and let go of the money it claimed. Raises NotFound; Invalid; Conflict (``refund_not_pending``)."""
    return _deny(tx, refund_id, check_note("note", note, most=MOST_NOTE))


def withdraw(tx: Tx, refund_id: str, *, customer_id: str | None = None) -> Refund:
    """Take a request back that nobody has decided about. It is denied as ``withdrawn``.

    ``customer_id``: only this customer's. Raises NotFound; Conflict (``refund_not_pending``).
    """
    if customer_id is not None:
        get(tx, refund_id, customer_id=customer_id)
    return _deny(tx, refund_id, "withdrawn")


def expire_due(tx: Tx, *, limit: int = 200) -> int:
    """Deny the requests whose time is over; how many."""
    due = [row[0] for row in tx.all(_OVERDUE, {"now": tx.now, "limit": limit})]
    rows = [tx.one(_DENY, {"refund_id": one, "by": None, "why": "expired", "now": tx.now}) for one in due]
    denied = [Refund(*row) for row in rows if row is not None]  # somebody may have decided since we looked
    for refund in sorted(denied, key=lambda refund: refund.payment_id):
        _denied(tx, refund)
    return len(denied)


def _deny(tx: Tx, refund_id: str, why: str) -> Refund:
    row = tx.one(_DENY, {"refund_id": refund_id, "by": who(tx), "why": why, "now": tx.now})
    if row is None:
        raise _not_pending(tx, refund_id)
    refund = Refund(*row)
    _denied(tx, refund)
    return refund


def _denied(tx: Tx, refund: Refund) -> None:
    refund_money.let_go(tx, refund.payment_id, refund.amount)
    record(tx, "denied", refund, why=refund.error)


def _not_pending(tx: Tx, refund_id: str) -> Conflict:
    refund = get(tx, refund_id)
    return Conflict(f"This refund is {refund.status}.", code="refund_not_pending")
