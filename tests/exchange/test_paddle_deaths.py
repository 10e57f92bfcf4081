"""A process that dies after any step of any flow with Paddle: after a restart, all is as if it had not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.peers.paddle_fixtures import PaddlePeer
from tests.peers.paddle_world import stamp
from tests.support import refunds
from tests.support.app import Sold, named, opening
from tests.support.databases import Databases, Dialect
from tests.support.failpoints import Failpoints
from tests.support.paddle_shop import EMAIL, MONTHLY, RAIL, PaddleShop, books_equal, connect

from counterfoil.exchange.outbox import CLAIM_LASTS
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.mirror import Rate
from counterfoil.rails.paddle import PaddleRail

START = datetime.fromisoformat("2026-01-02T03:04:05.678901+00:00")
Flow = Callable[[PaddleShop], Coroutine[Any, Any, None]]


class Street:
    """Where a shop can be opened, left in a hurry, and opened again."""

    def __init__(self, url: str, master: MasterKey, peer: PaddlePeer) -> None:
        self.url = url
        self.master = master
        self.peer = peer
        self.clock = ManualClock(START)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[PaddleShop]:
        async with opening(self.url, self.clock, self.master) as shop:
            yield PaddleShop(shop, self.peer)

    async def first(self) -> None:
        """Paddle is connected, and there is something to sell."""
        self.peer.control("reset")
        self.peer.control("config", capture=True, tax_rate="0.2")
        self.peer.control("clock", set=stamp(self.clock.now()), freeze=True)
        async with self.open() as paddle:
            await connect(paddle.shop, self.peer, self.master)


async def jobs(paddle: PaddleShop) -> None:
    """What the jobs of a house that lives do in the hours after."""
    for _ in range(2):
        paddle.move_on(timedelta(minutes=20))
        await paddle.push()
        await refunds.execute(paddle.shop)
        await paddle.tell_all()  # from the first on: Paddle tells again


# -- flows: what is there before, what dies, and what a person does again -----------------------------


async def goods(paddle: PaddleShop, **price: Any) -> Sold:
    return await paddle.shop.tier("editor", amount=900, license={"max_machines": 2}, **{"asset": "EUR", **price})


async def offered(paddle: PaddleShop) -> None:
    await paddle.reference(await goods(paddle, **MONTHLY))


async def buy(paddle: PaddleShop) -> None:
    """The buyer opens a checkout, and presses the button again when nothing came of it."""
    price = await paddle.shop.row("prices")
    sold = Sold(price["product_id"], "editor", price["id"], "default", 900, "EUR")
    opened = await paddle.shop.checkout(sold, rail=RAIL, email=EMAIL, key="one-and-only")
    (sale,) = paddle.peer.api("GET", "/transactions")
    if sale["status"] == "draft":
        paddle.pay(opened)
    await paddle.tell_all()


async def owing(paddle: PaddleShop) -> None:
    await goods(paddle)


async def pushing(paddle: PaddleShop) -> None:
    await paddle.push()


async def bought(paddle: PaddleShop) -> None:
    await paddle.sell(await goods(paddle))
    order = await paddle.shop.row("orders")
    refund = await refunds.ask(paddle.shop, order_id=order["id"], amount=400, reason="because")
    await refunds.decide(paddle.shop, refund, "approve")


async def giving_back(paddle: PaddleShop) -> None:
    await refunds.execute(paddle.shop)


async def subscribed(paddle: PaddleShop) -> None:
    row, _ = await paddle.subscribe(await goods(paddle, **MONTHLY))
    pro = await paddle.shop.tier("editor", amount=1_800, tier="pro", license={"max_machines": 5}, **MONTHLY)
    await paddle.owe_change(row["id"], "change", (pro, 2), proration="full_now")


async def charged_back(paddle: PaddleShop) -> None:
    """A chargeback with tax in it: its webhook raises a question."""
    await paddle.sell(await goods(paddle, tax_mode="external"))
    (sale,) = paddle.peer.api("GET", "/transactions")
    paddle.peer.transaction(sale["id"], "chargeback")


async def telling(paddle: PaddleShop) -> None:
    await paddle.tell_all()


FLOWS = {
    "a purchase": (offered, buy),
    "copies": (owing, pushing),
    "a refund": (bought, giving_back),
    "another plan": (subscribed, pushing),
    "news with a question": (charged_back, telling),
}


async def outcome(paddle: PaddleShop) -> dict[str, Any]:
    """What counts in the end, at both."""
    await books_equal(paddle)
    shop = paddle.shop
    found = {
        "counts": {
            table: await shop.count(table)
            for table in ("checkouts", "orders", "payments", "refunds", "subscriptions", "subscription_periods")
        },
        "licenses": [(row["tier"], row["status"], row["max_machines"]) for row in await shop.rows("licenses")],
        "grants": [(row["kind"], row["status"]) for row in await shop.rows("grants")],
        "orders": [(row["amount"], row["refunded"], row["status"]) for row in await shop.rows("orders")],
        "disputes": [(row["status"], row["amount"]) for row in await shop.rows("disputes")],
        "links": sorted((row["kind"], row["sync_status"]) for row in await shop.rows("rail_links")),
        "owed": sorted((row["kind"], row["action"], row["status"]) for row in await shop.rows("outbox")),
        "inbox": sorted((row["type"], row["status"]) for row in await shop.rows("inbox")),
        "theirs": {
            kind: paddle.made(kind) for kind in ("products", "prices", "transactions", "subscriptions", "adjustments")
        },
    }
    return dict(named(found))


@pytest.mark.parametrize(("setting", "flow"), FLOWS.values(), ids=FLOWS)
async def test_dying_after_any_step(
    databases: Databases,
    dialect: Dialect,
    master: MasterKey,
    paddle_server: PaddlePeer,
    monkeypatch: pytest.MonkeyPatch,
    setting: Flow,
    flow: Flow,
) -> None:
    """After every step on SQLite, and some come to nothing; on PostgreSQL, where each life takes longer, some."""
    monkeypatch.setattr(PaddleRail, "rate", lambda _self, _settings: Rate(60_000, 60, 4))

    async def live(at: int | None, *, before: bool = False) -> tuple[Failpoints, dict[str, Any]]:
        with databases.clean(dialect) as url:
            street = Street(url, master, paddle_server)
            await street.first()
            async with street.open() as paddle:
                await setting(paddle)
                steps = Failpoints(paddle.shop.house, at, before=before)
                await steps.run(flow(paddle))
            async with street.open() as paddle:
                if flow is buy:
                    paddle.move_on(CLAIM_LASTS)  # what the dead had in hand is nobody's then
                    await buy(paddle)
                await jobs(paddle)
                return steps, await outcome(paddle)

    undisturbed, expected = await live(None)
    assert undisturbed.count
    deaths = [(at, False) for at in range(1, undisturbed.count + 1)]
    deaths += [(at, True) for at in range(1, undisturbed.count + 1, 4)]
    for at, before in deaths if dialect == "sqlite" else deaths[1::6]:
        steps, found = await live(at, before=before)
        assert steps.died, at
        assert found == expected, undisturbed.steps[at - 1]
