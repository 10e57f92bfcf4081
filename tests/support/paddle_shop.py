"""A shop with a Paddle account, and the account: the stateful stand-in, told and asked as Paddle would be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.exchange import rail_settings, subscription_changes
from counterfoil.exchange.questions import ask_due
from counterfoil.exchange.subscription_changes import Change, WantedItem
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.mirror import Rate
from counterfoil.rails.paddle import PaddleRail, PaddleSettings
from tests.peers.paddle_fixtures import PaddlePeer, running_paddle, webhook
from tests.peers.paddle_world import API_KEY, Row, parse, stamp
from tests.support.app import Shop, Sold, good, opening

RAIL = "paddle-test"
SECRET = "pdl_ntfset_01hv8wptq8987qeep44cyrewp9_of_a_test"
MONTHLY: dict[str, Any] = {"type": "recurring", "interval": "month", "interval_count": 1, "asset": "EUR"}
EMAIL = "ada@example.com"


class PaddleShop:
    """A shop and its Paddle account. Their clocks go together."""

    def __init__(self, shop: Shop, peer: PaddlePeer) -> None:
        self.shop = shop
        self.peer = peer
        self._last: str | None = None

    # -- what Paddle tells -------------------------------------------------------------------------

    async def tell(self, event: Row) -> dict[str, Any]:
        """Deliver one event, as Paddle would."""
        headers, body = webhook(event, SECRET, self.shop.clock.now())
        answer: dict[str, Any] = good(await self.shop.http.post(f"/v1/webhooks/{RAIL}", content=body, headers=headers))
        return answer

    def news(self) -> list[Row]:
        """The events that nobody has taken yet, oldest first."""
        after = "" if self._last is None else f"&after={self._last}"
        events: list[Row] = self.peer.api("GET", f"/events?order_by=id[ASC]&per_page=200{after}")
        if events:
            self._last = events[-1]["event_id"]
        self.follow_clock()
        return events

    async def tell_all(self) -> None:
        """Deliver what is new, in order, and see to the questions that it raises."""
        for event in self.news():
            await self.tell(event)
        await self.ask()

    async def ask(self) -> None:
        house = self.shop.house
        await ask_due(self.shop.scope, house.rails, house.client)

    # -- what we do ----------------------------------------------------------------------------------

    async def push(self) -> None:
        await self.shop.house.pusher.go_round(DEFAULT_TENANT)

    async def owe_change(self, subscription_id: str, action: str, *items: tuple[Sold, int], **more: Any) -> None:
        """Ask for a change of a subscription, which is then owed to Paddle."""
        wanted = [WantedItem(price_id=sold.price_id, quantity=quantity) for sold, quantity in items]
        change = Change(action=action, items=wanted, **more)  # type: ignore[arg-type]
        await self.shop.scope.run(subscription_changes.request, subscription_id, change)

    async def change(self, subscription_id: str, action: str, *items: tuple[Sold, int], **more: Any) -> None:
        """The same, and see to what is owed."""
        await self.owe_change(subscription_id, action, *items, **more)
        await self.push()
        self.follow_clock()

    async def reference(self, sold: Sold) -> str:
        """Paddle's name for a price, which is copied first where it is not."""
        return await self.shop.house.pusher.ensure(self.shop.scope, RAIL, "price", sold.price_id)

    # -- what buyers and time do ---------------------------------------------------------------------

    def pay(self, opened: dict[str, Any], **buyer: Any) -> Row:
        """The buyer pays on the page of a checkout."""
        return self.peer.transaction(transaction_of(opened), **{"email": EMAIL, **buyer})

    async def sell(self, sold: Sold | None = None, **fields: Any) -> dict[str, Any]:
        """A checkout that was paid and told of: 1500 EUR cents unless told else."""
        made = sold or await self.shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2})
        opened = await self.shop.checkout(made, rail=RAIL, email=EMAIL, **fields)
        self.pay(opened)
        await self.tell_all()
        return opened

    async def subscribe(self, *sold: Sold | tuple[Sold, int], **price: Any) -> tuple[dict[str, Any], str]:
        """A subscription that was bought and told of: our row, and Paddle's name for it."""
        lines = sold or (
            await self.shop.tier("editor", amount=900, license={"max_machines": 2}, **{**MONTHLY, **price}),
        )
        opened = await self.shop.checkout(*lines, rail=RAIL, email=EMAIL)
        self.pay(opened)
        await self.tell_all()
        row = await self.shop.row("subscriptions", checkout_id=opened["id"])
        link = await self.shop.row("rail_links", kind="subscription", object_id=row["id"])
        return row, str(link["reference"])

    def follow_clock(self) -> None:
        """Paddle's time went on: ours goes with it."""
        theirs = parse(self.peer.control("clock")["now"])
        ours = self.shop.clock.now()
        if theirs > ours:
            self.shop.clock.advance(theirs - ours)

    def move_on(self, delta: timedelta) -> None:
        """Time goes on, for both."""
        self.shop.clock.advance(delta)
        self.peer.control("clock", set=stamp(self.shop.clock.now()), freeze=True)

    def bad_luck(self, match: str, **how: Any) -> None:
        """What happens to the next request whose ``METHOD path`` matches; see the stand-in's ``fail``."""
        self.peer.control("fail", match=match, **how)

    def made(self, path: str) -> int:
        """How many objects Paddle has in a list."""
        return len(self.peer.api("GET", f"/{path}"))


BAD_LUCK: dict[str, dict[str, Any]] = {
    "the answer is lost": {"after": True, "hang_up": True},
    "the request is lost": {"hang_up": True},
    "it fails after it acted": {"after": True, "status": 500},
    "it fails": {"status": 500},
    "too many requests": {"status": 429, "retry_after": 0},
}
"""What can come between a request and its answer."""


def transaction_of(opened: dict[str, Any]) -> str:
    """Paddle's name for a checkout, out of where it is paid."""
    return str(opened["url"].rsplit("_ptxn=", 1)[1])


# -- comparing books ---------------------------------------------------------------------------------


async def books_equal(paddle: PaddleShop) -> None:
    """Our books say of every subscription, payment and refund what Paddle's say."""
    if differs := differing(await _ours(paddle.shop), _theirs(paddle.peer)):
        raise AssertionError("ours and theirs:\n" + "\n".join(differs))
    aside = await paddle.shop.rows("inbox", status="set_aside")
    assert not aside, aside


def differing(one: Any, other: Any, at: str = "") -> list[str]:
    """Where two stories differ, in short."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted(one.keys() | other.keys())
        return [line for name in names for line in differing(one.get(name), other.get(name), f"{at}/{name}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line
            for place, pair in enumerate(zip(one, other, strict=True))
            for line in differing(*pair, f"{at}/{place}")
        ]
    return [] if one == other else [f"{at}: {one!r} or {other!r}"]


def _when(value: datetime | str | None) -> datetime | None:
    return parse(value) if isinstance(value, str) else value


async def _ours(shop: Shop) -> dict[str, Any]:
    names = {row["object_id"]: row["reference"] for row in await shop.rows("rail_links", kind="subscription")}
    items: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for row in await shop.rows("subscription_items"):
        items[row["subscription_id"]][row["price_id"]] = row["quantity"]
    bills = {row["reference"]: row for row in await shop.rows("invoices")}
    return {
        "subscriptions": {
            names[row["id"]]: {
                "status": row["status"],
                "items": items[row["id"]],
                "next": row["next_billed_at"],
                "change": (row["scheduled_change"] or {}).get("action"),
                "ends": row["cancel_at_period_end"],
                **{name: row[name] for name in ("paused_at", "canceled_at", "started_at", "first_billed_at")},
                "period": (row["current_period_start"], row["current_period_end"]),
            }
            for row in await shop.rows("subscriptions")
        },
        "payments": {
            row["reference"]: (row["amount"], row["refunded"], row["asset"], row["status"])
            for row in await shop.rows("payments")
        },
        "bills": {
            reference: (row["amount"], row["tax"], row["asset"], row["status"], row["number"])
            for reference, row in bills.items()
        },
        "refunds": {
            row["rail_reference"]: (row["amount"], row["status"])
            for row in await shop.rows("refunds")
            if row["kind"] != "chargeback"
        },
    }


def _theirs(peer: PaddlePeer) -> dict[str, Any]:
    sales = {sale["id"]: sale for sale in peer.api("GET", "/transactions?include=adjustments")}
    back = {row["id"]: row for row in peer.api("GET", "/adjustments?per_page=50")}
    gone: defaultdict[str, int] = defaultdict(int)
    for row in back.values():
        if row["status"] == "approved" and row["action"] in {"refund", "chargeback"}:
            gone[row["transaction_id"]] += _given(sales[row["transaction_id"]], row)
    paid = {name: sale for name, sale in sales.items() if sale["status"] in {"paid", "completed"}}
    states = {"paid": "paid", "completed": "paid", "canceled": "void", "billed": "open", "past_due": "open"}
    return {
        "subscriptions": {
            row["id"]: {
                "status": row["status"],
                "items": {item["price"]["custom_data"]["counterfoil_id"]: item["quantity"] for item in row["items"]},
                "next": _when(row["next_billed_at"]),
                "change": (row["scheduled_change"] or {}).get("action"),
                "ends": (row["scheduled_change"] or {}).get("action") == "cancel",
                **{name: _when(row[name]) for name in ("paused_at", "canceled_at", "started_at", "first_billed_at")},
                "period": _period(row),
            }
            for row in peer.api("GET", "/subscriptions?per_page=200")
        },
        "payments": {
            name: (_counted(sale), gone[name], sale["currency_code"], "settled") for name, sale in paid.items()
        },
        "bills": {
            name: (
                int(sale["details"]["totals"]["total"]),
                int(sale["details"]["totals"]["tax"]),
                sale["currency_code"],
                states[sale["status"]],
                sale["invoice_number"],
            )
            for name, sale in sales.items()
            if sale["billed_at"] is not None or sale["subscription_id"] is not None
        },
        "refunds": {
            name: (_given(sales[row["transaction_id"]], row), _STATES[row["status"]])
            for name, row in back.items()
            if row["action"] == "refund"
        },
    }


_STATES = {"approved": "processed", "rejected": "failed", "pending_approval": "processing"}


def _period(row: Row) -> tuple[datetime | None, datetime | None]:
    current = row["current_billing_period"] or {"starts_at": None, "ends_at": None}
    return _when(current["starts_at"]), _when(current["ends_at"])


def _external(sale: Row) -> set[str]:
    """The lines on which tax comes on top: that part is not ours."""
    modes = {item["price"]["id"]: item["price"]["tax_mode"] for item in sale["items"]}
    return {line["id"] for line in sale["details"]["line_items"] if modes.get(line["price_id"]) == "external"}


def _counted(sale: Row) -> int:
    outside = _external(sale)
    return sum(
        int(line["totals"]["total"]) - (int(line["totals"]["tax"]) if line["id"] in outside else 0)
        for line in sale["details"]["line_items"]
    )


def _given(sale: Row, adjustment: Row) -> int:
    outside = _external(sale)
    return sum(
        int(item["totals"]["total"]) - (int(item["totals"]["tax"]) if item["item_id"] in outside else 0)
        for item in adjustment["items"]
    )


# -- fixtures ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def paddle_server() -> Iterator[PaddlePeer]:
    """A stand-in for Paddle, for all tests here that one worker runs."""
    with running_paddle() as peer:
        yield peer


@pytest.fixture
async def paddle_shop(
    database_url: str,
    clock: ManualClock,
    master: MasterKey,
    paddle_server: PaddlePeer,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[PaddleShop]:
    """A shop connected to an account that has nothing in it."""
    # How fast Paddle may be asked is tested elsewhere; here it would only cost time.
    monkeypatch.setattr(PaddleRail, "rate", lambda _self, _settings: Rate(60_000, 60, 4))
    paddle_server.control("reset")
    paddle_server.control("config", capture=True, tax_rate="0")
    paddle_server.control("clock", set=stamp(clock.now()), freeze=True)
    async with opening(database_url, clock, master) as shop:
        await connect(shop, paddle_server, master)
        yield PaddleShop(shop, paddle_server)


async def connect(shop: Shop, peer: PaddlePeer, master: MasterKey, **more: Any) -> None:
    """Connect the account, or connect it otherwise."""
    settings = PaddleSettings(api_key=API_KEY, livemode=False, webhook_secrets=(SECRET,), base_url=peer.url, **more)
    await shop.scope.run(rail_settings.save, master, RAIL, settings, {})
    shop.house.rails.forget(DEFAULT_TENANT, RAIL)
