"""A margin reaches what runs already, at Stripe's and Paddle's stand-ins: from the next bill on, and exactly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from tests.peers.paddle_fixtures import PaddlePeer
from tests.peers.paddle_world import stamp
from tests.peers.stripe_peers import StripePeer
from tests.support import paddle_shop, stripe_shop
from tests.support.app import Shop, good, opening
from tests.support.paddle_shop import PaddleShop
from tests.support.stripe_shop import StripeShop, at_full_speed

from counterfoil.accounts import customer_tree
from counterfoil.exchange.margins import follow
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.mirror import Rate
from counterfoil.rails.paddle import PaddleRail

pytestmark = pytest.mark.xdist_group("mirrors")

MONTHLY: dict[str, Any] = {"type": "recurring", "interval": "month", "interval_count": 1, "asset": "EUR"}


@dataclass
class Seller:
    """A shop that is connected to one provider's stand-in; their clocks go together."""

    at: StripeShop | PaddleShop
    rail: str

    @property
    def shop(self) -> Shop:
        return self.at.shop

    async def customer(self, name: str, parent: str | None = None, **fields: Any) -> str:
        """Its id."""
        body = {"kind": "organization", "name": name, "parent_id": parent, "email": f"{name}@example.com", **fields}
        return str(good(await self.shop.staff.post("/v1/customers", json=body))["id"])

    async def discount(self, amount: int, **fields: Any) -> str:
        """Its id."""
        body = {"kind": "percentage", "amount": amount, **fields}
        return str(good(await self.shop.staff.post("/v1/discounts", json=body))["id"])

    async def subscribe(self, customer_id: str, **fields: Any) -> str:
        """What a customer buys for 10 EUR a month; the subscription's id."""
        sold = await self.shop.tier("editor", amount=1_000, **MONTHLY)
        body = {"lines": [{"price_id": sold.price_id, "quantity": 1}], "rail": self.rail, **fields}
        opened = good(await self.shop.staff.post(f"/v1/customers/{customer_id}/checkouts", json=body))
        self.at.pay(opened)
        await self.at.tell_all()
        return str((await self.shop.row("subscriptions", checkout_id=opened["id"]))["id"])

    async def follow(self) -> int:
        """How many were owed a change; it is made, and heard of."""
        self.at.move_on(timedelta(minutes=1))
        count = await follow(self.shop.scope)
        await self.at.push()
        await self.at.tell_all()
        return count

    async def name_of(self, subscription: str) -> str:
        link = await self.shop.row("rail_links", kind="subscription", object_id=subscription)
        return str(link["reference"])

    async def next_bill(self, subscription: str) -> int:
        """The period ends, and the next one is paid: how much."""
        before = {row["id"] for row in await self.shop.rows("payments")}
        name = await self.name_of(subscription)
        if isinstance(self.at, StripeShop):
            await self.at.end_period(name)
        else:
            self.at.peer.subscription(name, "due")
            await self.at.tell_all()
        (paid,) = [row for row in await self.shop.rows("payments") if row["id"] not in before]
        return int(paid["amount"])

    async def there(self, subscription: str) -> str | None:
        """Our discount that the provider takes off the subscription's bills."""
        name = await self.name_of(subscription)
        if isinstance(self.at, StripeShop):
            found = self.at.peer.look(f"subscriptions/{name}?expand[]=discounts")["discounts"]
            reference = found[0]["source"]["coupon"] if found else None
        else:
            row = self.at.peer.api("GET", f"/subscriptions/{name}")["discount"]
            reference = row["id"] if row else None
        if reference is None:
            return None
        link = await self.shop.row("rail_links", kind="discount", reference=reference)
        return str(link["object_id"])

    async def carried(self, subscription: str) -> str | None:
        """What our books and the provider both say."""
        ours: str | None = (await self.shop.row("subscriptions", id=subscription))["discount_id"]
        assert ours == await self.there(subscription)
        return ours


@pytest.fixture(params=["stripe", "paddle"])
async def seller(
    request: pytest.FixtureRequest,
    database_url: str,
    clock: ManualClock,
    master: MasterKey,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Seller]:
    if request.param == "stripe":
        at_full_speed(monkeypatch)
        server: StripePeer = request.getfixturevalue("stripe_server")
        async with stripe_shop.opening_stripe(database_url, clock, master, server) as opened:
            yield Seller(opened, stripe_shop.RAIL)
        return
    monkeypatch.setattr(PaddleRail, "rate", lambda _self, _settings: Rate(60_000, 60, 4))
    peer: PaddlePeer = request.getfixturevalue("paddle_server")
    peer.control("reset")
    peer.control("config", capture=True, tax_rate="0")
    peer.control("clock", set=stamp(clock.now()), freeze=True)
    async with opening(database_url, clock, master) as shop:
        await paddle_shop.connect(shop, peer, master)
        yield Seller(PaddleShop(shop, peer), paddle_shop.RAIL)


async def test_made_archived_restored_and_another(seller: Seller) -> None:
    shop = seller.shop
    above = await seller.customer("msp", level=1)
    below = await seller.customer("client", above)
    one = await seller.subscribe(below)
    margin = await seller.discount(3_000, customer_id=above)
    assert await seller.follow() == 1
    assert await seller.carried(one) == margin
    assert [row["amount"] for row in await shop.rows("payments")] == [1_000]  # nothing of this touches what is paid
    assert [await seller.next_bill(one) for _ in range(2)] == [700, 700]
    assert await seller.carried(one) == margin
    good(await shop.staff.patch(f"/v1/discounts/{margin}", json={"status": "archived"}))
    better = await seller.discount(4_500, customer_id=above)  # what a margin takes off never changes: another does
    assert await seller.follow() == 1
    assert await seller.carried(one) == better
    assert await seller.next_bill(one) == 550
    good(await shop.staff.patch(f"/v1/discounts/{better}", json={"status": "archived"}))
    assert await seller.follow() == 1
    assert await seller.carried(one) is None
    assert await seller.next_bill(one) == 1_000
    good(await shop.staff.patch(f"/v1/discounts/{margin}", json={"status": "active"}))
    assert await seller.follow() == 1
    assert await seller.next_bill(one) == 700
    assert await seller.follow() == 0
    rows = good(await shop.staff.get("/v1/reports/margins"))["data"]
    assert {row["discount_id"]: (row["orders"], row["gross"], row["taken_off"], row["net"]) for row in rows} == {
        margin: (3, 3_000, 900, 2_100), better: (1, 1_000, 450, 550),
    }  # fmt: skip
    assert await shop.count("outbox", status="refused") == 0


@pytest.mark.parametrize("dialect", ["sqlite"])
async def test_moved_below_another_and_out(seller: Seller) -> None:
    above = await seller.customer("msp", level=1)
    another = await seller.customer("another", level=1)
    below = await seller.customer("client", above)
    await seller.discount(3_000, customer_id=above)
    theirs = await seller.discount(1_000, customer_id=another)
    one = await seller.subscribe(below)
    await seller.shop.scope.run(customer_tree.move, below, another)
    assert await seller.follow() == 1
    assert (await seller.carried(one), await seller.next_bill(one)) == (theirs, 900)
    await seller.shop.scope.run(customer_tree.move, below, None)
    assert await seller.follow() == 1
    assert (await seller.carried(one), await seller.next_bill(one)) == (None, 1_000)


@pytest.mark.parametrize("dialect", ["sqlite"])
async def test_a_better_coupon_stays_until_it_runs_out(seller: Seller) -> None:
    above = await seller.customer("msp", level=1)
    below = await seller.customer("client", above)
    coupon = await seller.discount(5_000, code="HALF", recurring=True, max_periods=2)
    one = await seller.subscribe(below, code="HALF")
    margin = await seller.discount(3_000, customer_id=above)
    assert await seller.follow() == 0
    assert await seller.next_bill(one) == 500
    assert await seller.next_bill(one) == 1_000  # the rail tells only now that it is over
    assert (await seller.shop.row("subscriptions"))["discount_id"] is None
    assert await seller.follow() == 1
    assert (await seller.carried(one), await seller.next_bill(one)) == (margin, 700)
    taken = {row["discount_id"]: row["amount"] for row in await seller.shop.rows("order_discounts")}
    assert taken == {coupon: 500, margin: 300}


@pytest.mark.parametrize("dialect", ["sqlite"])
async def test_a_trial_gets_it_before_its_first_bill(seller: Seller) -> None:
    above = await seller.customer("msp", level=1)
    below = await seller.customer("client", above)
    sold = await seller.shop.tier("editor", amount=1_000, trial_days=14, **MONTHLY)
    body = {"lines": [{"price_id": sold.price_id, "quantity": 1}], "rail": seller.rail}
    seller.at.pay(good(await seller.shop.staff.post(f"/v1/customers/{below}/checkouts", json=body)))
    await seller.at.tell_all()
    one = (await seller.shop.row("subscriptions"))["id"]
    margin = await seller.discount(3_000, customer_id=above)
    assert await seller.follow() == 1
    assert (await seller.carried(one), await seller.next_bill(one)) == (margin, 700)
