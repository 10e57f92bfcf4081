"""The sandbox rail's own pages: where a tester decides how a payment goes.

They keep no state. What the tester does becomes events that are signed and sent to this server's own
webhook address over real HTTP, like any provider's.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from counterfoil.house import House
from counterfoil.http.access import Asker, check_rate, house_of, tenant_of
from counterfoil.http.problems import route
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.money import Money, show
from counterfoil.rails.base import HttpRequest, RailUnavailable
from counterfoil.rails.sandbox.rail import SIGNATURE_HEADER, SandboxSettings, sign
from counterfoil.rails.sandbox.session import Action, BadSession, SandboxEvent, Session, act, seal, unseal
from counterfoil.web import words
from counterfoil.web.forms import is_attempt, new_attempt, read_form
from counterfoil.web.render import NOT_INDEXED, NOT_STORED, page, root_of

MOST_COPIES = 5

_ACTIONS: frozenset[str] = frozenset(get_args(Action))
_ENDS = {"pay", "overpay", "pay_late"}
"""Actions after which nothing is left to pay."""
_DONE = {
    "pay": "You paid what was asked.",
    "underpay": "You paid half of what was left.",
    "overpay": "You paid a tenth too much.",
    "pay_late": "You paid after the time was over.",
    "wrong_asset": "You paid in another currency.",
    "expire": "The time ran out without a payment.",
    "decline": "The payment was declined.",
}


class Delivery(msgspec.Struct, frozen=True):
    """One webhook that was sent, and what came back."""

    type: str
    event_id: str
    status: int | None
    """None: no answer came."""
    answer: str


async def _sandbox(request: Asker) -> tuple[House, str, SandboxSettings]:
    """The sandbox of this shop. Raises NotFound where it is off."""
    house, tenant = house_of(request), await tenant_of(request)
    settings: SandboxSettings = (await house.rails.get(tenant, "sandbox")).settings
    return house, tenant, settings


def _session(token: str, settings: SandboxSettings) -> Session:
    try:
        return unseal(token, settings.secret)
    except BadSession:
        raise NotFound("There is no such sandbox payment.", code="sandbox_session_not_found") from None


@get("/sandbox/pay/{token:path}", include_in_schema=False, **route("public", 404))
async def sandbox_page(request: Asker, token: FromPath[str]) -> Response[str]:
    """The form of one sandbox payment."""
    _, _, settings = await _sandbox(request)
    session = _session(str(token).lstrip("/"), settings)
    return await _page(request, "sandbox.html", session, settings)


@post("/sandbox/pay", status_code=200, include_in_schema=False, **route("public", 404, 409))
async def sandbox_pay(request: Asker) -> Response[str]:
    """Do what the tester chose: send its webhooks, and show how they were answered."""
    house, tenant, settings = await _sandbox(request)
    check_rate(request, tenant)
    form = await read_form(request, holds_a_secret=True)
    before = _session(form.get("token", ""), settings)
    attempt, action = form.get("attempt", ""), form.get("action", "")
    if not is_attempt(attempt):
        raise Invalid.field("attempt", "not from this form")
    if action not in _ACTIONS:
        raise Invalid.field("action", f"one of {', '.join(sorted(_ACTIONS))}")
    copies = form.get("copies") or "1"
    if copies not in {str(number) for number in range(1, MOST_COPIES + 1)}:
        raise Invalid.field("copies", f"from 1 to {MOST_COPIES}")
    if not before.due and action not in {"expire", "decline"}:
        raise Conflict("Nothing is left to pay.", code="sandbox_paid")
    # The action is part of the name, so that going back and pressing another button is another payment.
    chosen: Action = msgspec.convert(action, Action)
    after, events = act(before, chosen, f"{action}.{attempt}", house.database.clock.now())
    queue = [event for event in events for _ in range(int(copies))]
    if form.get("reorder"):
        queue.reverse()
    deliveries = [await _deliver(house, tenant, settings, event) for event in queue]
    return await _page(
        request,
        "sandbox_done.html",
        after,
        settings,
        did=_DONE[action],
        deliveries=deliveries,
        missed=any(one.status is None or one.status >= 300 for one in deliveries),
        ended=action in _ENDS,
        resend={
            "token": form["token"],
            "attempt": attempt,
            "action": action,
            "copies": copies,
            "reorder": bool(form.get("reorder")),
        },
    )


async def _deliver(house: House, tenant: str, settings: SandboxSettings, event: SandboxEvent) -> Delivery:
    body = msgspec.json.encode(event)
    request = HttpRequest(
        method="POST",
        url=f"{await house.base_url(tenant)}/v1/webhooks/sandbox",
        headers={
            "Content-Type": "application/json",
            SIGNATURE_HEADER: sign(body, settings.secret, house.database.clock.now()),
        },
        body=body,
    )
    try:
        response = await house.client.send(request)
    except RailUnavailable as error:
        return Delivery(event.type, event.id, None, str(error))
    return Delivery(event.type, event.id, response.status, _meaning(response.status, response.body))


def _meaning(status: int, body: bytes) -> str:
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "not understood"
    if not isinstance(answer, dict):
        return "not understood"
    if status < 300:
        return "taken in" if answer.get("new") else "known already"
    return str(answer.get("detail", "refused"))[:200]


async def _page(
    request: Asker, template: str, session: Session, settings: SandboxSettings, **context: Any
) -> Response[str]:
    paid = [show(payment.amount) for payment in session.payments]
    back = session.return_url if session.return_url.startswith(("https://", "http://")) else f"{root_of(request)}/"
    return await page(
        request,
        template,
        form_action="'self'",
        headers={**NOT_STORED, **NOT_INDEXED},
        session=session,
        token=seal(session, settings.secret),
        attempt=new_attempt(),
        amount=words.amount(Money(session.amount, session.asset)),
        due=words.amount(Money(session.due, session.asset)) if session.due else "",
        paid=paid,
        until=words.minute(session.expires_at),
        back=back,
        most_copies=MOST_COPIES,
        **context,
    )
