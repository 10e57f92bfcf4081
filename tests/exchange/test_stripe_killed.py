"""The process dies after any lasting step of a flow with Stripe: started again, it ends where it would have.

Buyers, sellers and Stripe do what they do when no answer came: they send the same again.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.peers.stripe_peers import StripePeer
from tests.support.app import Shop, good, opening
from tests.support.failpoints import Failpoints
from tests.support.refunds import decide, execute
from tests.support.stripe_shop import (
    EMAIL,
    MONTHLY,
    RAIL,
    StripeShop,
    at_full_speed,
    books_equal,
    connect,
    session_of,
)
from tests.support.stripe_story import assert_same, story

from counterfoil.exchange.reconcile import reconcile
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.stripe.webhooks import TYPES

pytestmark = pytest.mark.xdist_group("stripe-peers")


@dataclass
class Case:
    """One purchase and what becomes of it; everything that is asked for can be asked for again."""

    stripe: StripeShop
    number: int
    seen: int = 0
    """How many events Stripe had before."""
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def shop(self) -> Shop:
        return self.stripe.shop

    async def sold(self, **price: Any) -> None:
        name = f"editor-{self.number}"
        self.known["sold"] = await self.shop.tier(name, license={"max_machines": 2}, **{"asset": "EUR", **price})

    async def buy(self) -> None:
        """The buyer asks for a page to pay on, pays there, and Stripe tells."""
        opened = await self.shop.checkout(self.known["sold"], key=f"buy-{self.number}", rail=RAIL, email=EMAIL)
        self.known["opened"] = opened
        if self.stripe.peer.look(f"checkout/sessions/{session_of(opened)}")["status"] == "open":
            self.stripe.pay(opened)
        await self.hear()

    async def hear(self) -> None:
        """Stripe delivers whatever it may not have delivered: of what means something to us."""
        self.stripe.told = self.seen
        for event in self.stripe.news():
            if event["type"] in TYPES:
                await self.stripe.tell(event)
        await self.stripe.ask()

    async def staff(self, path: str, **body: Any) -> dict[str, Any]:
        headers = {"Idempotency-Key": f"{path}-{self.number}"}
        return good(await self.shop.staff.post(path, json=body, headers=headers))

    async def state(self) -> dict[str, Any]:
        """What the books hold of it, but for names and times."""
        told = await story(self.stripe, self.known["opened"], self.stripe.peer.events(self.seen))
        return {table: _timeless(rows) for table, rows in told.items()}


def _timeless(value: Any) -> Any:
    match value:
        case dict():
            return {name: _timeless(inner) for name, inner in value.items() if name not in _ATTEMPTS}
        case list():
            return [_timeless(inner) for inner in value]
        case str() if value.startswith(("Remaining time", "Unused time")):
            return "a part of the period"
        case str():
            return value.replace("-", " ").rstrip("0123456789")  # products are told apart by a number
        case int():  # what is left of a period costs a cent less some minutes later
            return round(value, -1)
        case _:
            return "a time" if isinstance(value, datetime) else value


_ATTEMPTS = {"attempts", "price_snapshot", "idempotency_key", "request_hash"}


async def once(case: Case) -> None:
    await case.sold(amount=1_500)


async def subscribed(case: Case) -> None:
    await case.sold(amount=900, **MONTHLY)


async def bought(case: Case) -> None:
    await once(case)
    await case.buy()


async def running(case: Case) -> None:
    await subscribed(case)
    await case.buy()
    row = await case.shop.row("subscriptions", checkout_id=case.known["opened"]["id"])
    case.known["subscription"] = row["id"]


async def given_back(case: Case) -> None:
    """At Stripe, of which it tells."""
    await bought(case)
    intent = case.stripe.peer.objects()["payment_intents"][-1]
    case.stripe.peer.official().refunds.create({"payment_intent": intent, "amount": 500})


async def refund(case: Case) -> None:
    order = await case.shop.row("orders", checkout_id=case.known["opened"]["id"])
    asked = await case.staff("/v1/refunds", order_id=order["id"], amount=500, reason="it broke")
    approved = await decide(case.shop, asked, "approve")
    assert approved.status_code in {200, 409}, approved.text
    await execute(case.shop)
    await case.hear()


async def change(case: Case) -> None:
    path = f"/v1/subscriptions/{case.known['subscription']}/change"
    await case.staff(path, items=[{"price_id": case.known["sold"].price_id, "quantity": 3}])
    await case.stripe.push()
    await case.hear()


Act = Callable[[Case], Awaitable[None]]
FLOWS: dict[str, tuple[Act, Act]] = {
    "purchase": (once, Case.buy),
    "subscription": (subscribed, Case.buy),
    "refund": (bought, refund),
    "refund-there": (given_back, Case.hear),
    "change": (running, change),
}


async def _jobs(case: Case) -> None:
    """What is due later, in time."""
    house = case.shop.house
    for pause in (6, 30):
        case.stripe.move_on(timedelta(minutes=pause))
        await case.stripe.push()
        await execute(case.shop)
        await case.stripe.ask()
        await reconcile(case.shop.scope, house.rails, house.client)
    await case.hear()


def _there(peer: StripePeer) -> Counter[str]:
    return Counter({kind: len(ids) for kind, ids in peer.objects().items()})


# Every step of every flow on SQLite; on PostgreSQL a sample, for what differs there.
@pytest.mark.parametrize(
    ("dialect", "flow", "every"), [*[("sqlite", flow, 1) for flow in FLOWS], ("postgresql", "subscription", 4)]
)
async def test_killed_after_any_step(
    database_url: str,
    clock: ManualClock,
    master: MasterKey,
    stripe_server: StripePeer,
    monkeypatch: pytest.MonkeyPatch,
    flow: str,
    every: int,
) -> None:
    at_full_speed(monkeypatch)
    prepare, act = FLOWS[flow]
    peer = stripe_server.fresh(now=clock.now())
    undisturbed: tuple[dict[str, Any], Counter[str]] | None = None
    died = True
    steps: list[str] = []
    seen = deaths = 0
    points = itertools.count(1, every)
    async with AsyncExitStack() as houses:
        shop = await houses.enter_async_context(opening(database_url, clock, master))
        await connect(shop, peer, master)
        staff = shop.staff.headers["authorization"]
        while died:
            at = None if undisturbed is None else next(points)
            case = Case(StripeShop(shop, peer), at or 0, seen)
            before = _there(peer)
            await prepare(case)
            failing = Failpoints(shop.house, at)
            died = await failing.run(act(case)) or at is None
            deaths += failing.died
            if died and at is not None:  # started again
                await houses.aclose()
                shop = await houses.enter_async_context(opening(database_url, clock, master))
                shop.staff.headers["authorization"] = staff
                case.stripe = StripeShop(shop, peer)
                case.stripe.move_on(timedelta(minutes=3))
                await act(case)
            await _jobs(case)
            ended = await case.state(), _there(peer) - before
            seen = case.stripe.told
            if undisturbed is None:
                undisturbed, steps = ended, failing.steps
                continue
            where = f"after step {at} of {steps}"
            assert ended[1] == undisturbed[1], where
            assert_same(ended[0], undisturbed[0], where)
            assert await shop.count("inbox", status="set_aside") == 0, where
        await books_equal(StripeShop(shop, peer))
        assert {row["status"] for row in await shop.rows("outbox")} == {"done"}
    peer.close()
    assert deaths == len(range(1, len(steps) + 1, every)), steps
