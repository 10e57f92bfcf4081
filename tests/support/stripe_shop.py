"""A shop with a Stripe account, and the account: the stateful stand-in, told and asked as Stripe would be."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.exchange import outbox, rail_settings, subscription_changes
from counterfoil.exchange.questions import ask_due
from counterfoil.exchange.reconcile_mirrors import reconcile_mirrors
from counterfoil.exchange.subscription_changes import Change, WantedItem
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.mirror import Rate
from counterfoil.rails.stripe import StripeRail, StripeSettings
from tests.peers.stripe_peers import StripePeer
from tests.support.app import Shop, Sold, good, opening

RAIL = "stripe-test"
SECRET = "whsec_of_a_test"
MONTHLY = {"type": "recurring", "interval": "month", "interval_count": 1, "asset": "EUR"}
EMAIL = "ada@example.com"
REFUSED_LATER = "4000000000000341"
"""A card that can be attached, and that no charge goes through with."""

BAD_LUCK: dict[str, dict[str, Any]] = {
    "the answer is lost": {"after": True, "hang_up": True},
    "the request is lost": {"hang_up": True},
    "it fails after it acted": {"after": True, "status": 500},
    "it fails": {"status": 500},
    "too many requests": {"status": 429, "retry_after": 0},
}
"""What can come between a request and its answer."""


class StripeShop:
    """A shop and its Stripe account. Their clocks go together."""

    def __init__(self, shop: Shop, peer: StripePeer, told: int = 0) -> None:
        self.shop = shop
        self.peer = peer
        self.told = told

    # -- what Stripe tells -------------------------------------------------------------------------

    async def tell(self, event: dict[str, Any]) -> dict[str, Any]:
        """Deliver one event, as Stripe would."""
        at = int(self.shop.clock.now().timestamp())
        headers, body = self.peer.sign(event, SECRET, at=at)
        answer: dict[str, Any] = good(await self.shop.http.post(f"/v1/webhooks/{RAIL}", content=body, headers=headers))
        return answer

    def news(self) -> list[dict[str, Any]]:
        """The events that nobody has taken yet, oldest first."""
        events = self.peer.events(self.told)
        self.told += len(events)
        return events

    async def tell_all(self) -> None:
        """Deliver what is new, in order, and see to the questions that it raises."""
        for event in self.news():
            await self.tell(event)
        await self.ask()

    async def ask(self) -> None:
        house = self.shop.house
        await ask_due(self.shop.scope, house.rails, house.client)

    # -- what we do --------------------------------------------------------------------------------

    async def reconcile(self) -> None:
        """What the job does now: ask about subscriptions, and for events that never came."""
        house = self.shop.house
        await reconcile_mirrors(self.shop.scope, house.rails, house.pusher)

    async def push(self) -> None:
        await self.shop.house.pusher.go_round(DEFAULT_TENANT)

    async def reference(self, sold: Sold) -> str:
        """Stripe's name for a price, which is copied first where it is not."""
        return await self.shop.house.pusher.ensure(self.shop.scope, RAIL, "price", sold.price_id)

    async def change(self, subscription_id: str, action: Any, *items: tuple[Sold, int], **more: Any) -> None:
        """Ask for a change of a subscription, have it made, and hear of it."""
        wanted = tuple(WantedItem(sold.price_id, count) for sold, count in items)
        change = Change(action=action, items=wanted, **more)
        await self.shop.scope.run(subscription_changes.request, subscription_id, change)
        await self.push()
        assert {one.status for one in await self.shop.scope.read(outbox.changes_of, subscription_id)} == {"done"}
        await self.tell_all()

    # -- what buyers and time do -------------------------------------------------------------------

    def pay(self, opened: dict[str, Any], **buyer: Any) -> dict[str, Any]:
        """The buyer pays at the address of a checkout."""
        return self.peer.pay(session_of(opened), **buyer)

    async def sell(self, sold: Sold | None = None, **fields: Any) -> dict[str, Any]:
        """A checkout that was paid and told of: 15.00 EUR unless told else."""
        made = sold or await self.shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2})
        opened = await self.shop.checkout(made, rail=RAIL, email=EMAIL, **fields)
        self.pay(opened)
        await self.tell_all()
        return opened

    async def subscribe(self, *sold: Sold | tuple[Sold, int], **price: Any) -> tuple[dict[str, Any], str]:
        """A subscription that was bought and told of: our row, and Stripe's name for it."""
        lines = sold or (
            await self.shop.tier("editor", amount=900, license={"max_machines": 2}, **{**MONTHLY, **price}),
        )
        opened = await self.shop.checkout(*lines, rail=RAIL, email=EMAIL)
        self.pay(opened)
        await self.tell_all()
        row = await self.shop.row("subscriptions", checkout_id=opened["id"])
        link = await self.shop.row("rail_links", kind="subscription", object_id=row["id"])
        return row, str(link["reference"])

    async def end_period(self, reference: str) -> None:
        """The subscription's period ends, with what follows at Stripe and what it tells of that."""
        items = self.peer.look(f"subscriptions/{reference}")["items"]["data"]
        self.move_to(datetime.fromtimestamp(max(item["current_period_end"] for item in items), UTC))
        self.peer.control(f"subscriptions/{reference}/cycle")
        await self.tell_all()

    def move_on(self, delta: timedelta) -> None:
        """Time goes on, for both."""
        self.move_to(self.shop.clock.now() + delta)

    def move_to(self, moment: datetime) -> None:
        """It is so late now, for both."""
        self.shop.clock.advance(max(moment - self.shop.clock.now(), timedelta(0)))
        self.peer.control("clock", now=self.shop.clock.now().isoformat())


def session_of(opened: dict[str, Any]) -> str:
    """Stripe's name for a checkout, out of where it is paid."""
    return str(opened["url"].rsplit("/", 1)[1].split("?")[0].split("#")[0])


# -- comparing books -------------------------------------------------------------------------------


async def books_equal(stripe: StripeShop) -> None:
    """Our books say of every subscription, payment, bill and refund what Stripe's say."""
    ours, theirs = await _ours(stripe.shop), _theirs(stripe.peer)
    for name, said in theirs.items():
        assert ours[name] == said, f"{name}: ours {ours[name]}, theirs {said}"
    assert await stripe.shop.count("inbox", status="set_aside") == 0


async def _ours(shop: Shop) -> dict[str, Any]:
    names = {row["object_id"]: row["reference"] for row in await shop.rows("rail_links", kind="subscription")}
    items: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for row in await shop.rows("subscription_items"):
        items[row["subscription_id"]][row["price_id"]] = row["quantity"]
    return {
        "subscriptions": {
            names[row["id"]]: {
                "status": row["status"],
                "items": items[row["id"]],
                "period": (row["current_period_start"], row["current_period_end"]),
                **{name: row[name] for name in ("trial_end", "canceled_at", "ends_at", "cancel_at_period_end")},
            }
            for row in await shop.rows("subscriptions")
        },
        "payments": {
            row["reference"]: (row["amount"], row["refunded"], row["asset"]) for row in await shop.rows("payments")
        },
        "bills": {
            row["reference"]: (row["amount"], row["asset"], row["status"], row["number"], row["paid_at"])
            for row in await shop.rows("invoices")
        },
        "refunds": {
            row["rail_reference"]: (row["amount"], row["status"])
            for row in await shop.rows("refunds")
            if row["kind"] != "chargeback"
        },
    }


def _theirs(peer: StripePeer) -> dict[str, Any]:
    known = peer.objects()
    bills = {name: peer.look(f"invoices/{name}") for name in known["invoices"]}
    intents = {name: peer.look(f"payment_intents/{name}") for name in known["payment_intents"]}
    refunds = {name: peer.look(f"refunds/{name}") for name in known["refunds"]}
    gone: defaultdict[str, int] = defaultdict(int)
    for refund in refunds.values():
        gone[refund["payment_intent"]] += refund["amount"] if refund["status"] == "succeeded" else 0
    paid_by = {
        each["invoice"]: each["payment"]["payment_intent"]
        for each in peer.look("invoice_payments?limit=100")["data"]
        if each["status"] == "paid"
    }
    of_bills = set(paid_by.values())
    return {
        "subscriptions": {name: _subscription(peer.look(f"subscriptions/{name}")) for name in known["subscriptions"]},
        "payments": {
            **{
                name: (intent["amount_received"], gone[name], intent["currency"].upper())
                for name, intent in intents.items()
                if intent["status"] == "succeeded" and name not in of_bills
            },
            **{
                name: (bill["amount_paid"], gone[paid_by.get(name, "")], bill["currency"].upper())
                for name, bill in bills.items()
                if bill["status"] == "paid"
            },
        },
        "bills": {
            name: (
                bill["amount_due"],
                bill["currency"].upper(),
                bill["status"],
                bill["number"],
                _when(bill["status_transitions"]["paid_at"]),
            )
            for name, bill in bills.items()
        },
        "refunds": {name: (refund["amount"], _REFUNDS[refund["status"]]) for name, refund in refunds.items()},
    }


_REFUNDS = {"succeeded": "processed", "failed": "failed", "canceled": "failed", "pending": "processing"}


def _subscription(row: dict[str, Any]) -> dict[str, Any]:
    items = row["items"]["data"]
    return {
        "status": "paused" if row["pause_collection"] else row["status"],
        "items": {item["price"]["metadata"]["counterfoil_id"]: item["quantity"] for item in items},
        "period": (
            _when(min(item["current_period_start"] for item in items)),
            _when(max(item["current_period_end"] for item in items)),
        ),
        "trial_end": _when(row["trial_end"]),
        "canceled_at": _when(row["canceled_at"]),
        "ends_at": _when(row["ended_at"] or row["cancel_at"]),
        "cancel_at_period_end": row["cancel_at_period_end"] and row["status"] != "canceled",
    }


def _when(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


# -- opening ---------------------------------------------------------------------------------------


async def connect(shop: Shop, peer: StripePeer, master: MasterKey, **more: Any) -> None:
    """Connect the account, or connect it otherwise."""
    given: dict[str, Any] = {"webhook_secrets": (SECRET,), **more}
    settings = StripeSettings(base_url=peer.url, api_key=peer.api_key, account_id="acct_1", livemode=False, **given)
    await shop.scope.run(rail_settings.save, master, RAIL, settings, {"account_id": "acct_1"})
    shop.house.rails.forget(DEFAULT_TENANT, RAIL)


@contextlib.asynccontextmanager
async def opening_stripe(
    database_url: str, clock: ManualClock, master: MasterKey, server: StripePeer
) -> AsyncIterator[StripeShop]:
    """A shop connected to an account of its own that has nothing in it."""
    peer = server.fresh(now=clock.now())
    try:
        async with opening(database_url, clock, master) as shop:
            await connect(shop, peer, master)
            yield StripeShop(shop, peer)
    finally:
        peer.close()


@pytest.fixture
async def stripe_shop(
    database_url: str,
    clock: ManualClock,
    master: MasterKey,
    stripe_server: StripePeer,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[StripeShop]:
    """A shop connected to an account that has nothing in it."""
    at_full_speed(monkeypatch)
    async with opening_stripe(database_url, clock, master, stripe_server) as opened:
        yield opened


def at_full_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast Stripe may be asked is tested elsewhere; where it is not, it would only cost time."""
    monkeypatch.setattr(StripeRail, "rate", lambda _self, _settings: Rate(60_000, 60, 4))
