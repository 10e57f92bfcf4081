"""The same product, sold on every rail, gives the same: only ids and the rail's name tell the sales apart."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.peers.btcpay_server import API_KEY, STORE_ID
from tests.peers.fixtures import BTCPayPeer, running_btcpay
from tests.peers.paddle_fixtures import PaddlePeer
from tests.peers.paddle_world import stamp
from tests.peers.stripe_peers import StripePeer
from tests.support import paddle_shop, stripe_shop
from tests.support.app import Shop, named, opening
from tests.support.paddle_shop import PaddleShop
from tests.support.stripe_shop import StripeShop

from counterfoil.exchange import rail_settings
from counterfoil.exchange.reconcile import QUIET, reconcile
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.btcpay import BTCPaySettings

pytestmark = pytest.mark.xdist_group("stripe-peers")

EMAIL = "ada@example.com"
_LEFT_OUT = {"created_at", "updated_at", "status_updated_at", "issued_at", "starts_at"}


@pytest.fixture(scope="module")
def btcpay() -> Iterator[BTCPayPeer]:
    with running_btcpay() as peer:
        yield peer


class Rails:
    """A shop with every rail connected, and how a buyer pays on each."""

    def __init__(self, shop: Shop, stripe: StripePeer, paddle: PaddlePeer, btcpay: BTCPayPeer) -> None:
        self.shop = shop
        self.stripe = StripeShop(shop, stripe)
        self.paddle = PaddleShop(shop, paddle)
        self.btcpay = btcpay

    async def sandbox(self, opened: dict[str, Any]) -> None:
        await self.shop.play(opened, "pay")

    async def on_stripe(self, opened: dict[str, Any]) -> None:
        self.stripe.pay(opened)
        await self.stripe.tell_all()

    async def on_paddle(self, opened: dict[str, Any]) -> None:
        self.paddle.pay(opened)
        await self.paddle.tell_all()

    async def on_btcpay(self, opened: dict[str, Any]) -> None:
        (invoice,) = [one for one in self.btcpay.look("invoices") if one["metadata"]["orderId"] == opened["id"]]
        self.btcpay.invoice(invoice["id"], "pay", method="BTC-LN")
        self.shop.clock.advance(2 * QUIET)
        house = self.shop.house
        await reconcile(self.shop.scope, house.rails, house.client)


async def given(shop: Shop, opened: dict[str, Any]) -> Any:
    """What the buyer has of it: the order, its grants and its licenses, without ids, times and the rail's name."""
    (order,) = await shop.rows("orders", checkout_id=opened["id"])
    story = {
        "status": (await shop.claim(opened))["status"],
        "order": order,
        "licenses": sorted(
            await shop.rows("licenses", order_id=order["id"]), key=lambda row: (row["line"], row["unit"])
        ),
        "grants": sorted(await shop.rows("grants", order_id=order["id"]), key=lambda row: (row["line"], row["unit"])),
    }
    rail = order["source"]
    return named(_plain(story), {opened["id"]: "checkout", rail: "rail", order["purchase_reference"]: "reference"})


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {name: _plain(inner) for name, inner in value.items() if name not in _LEFT_OUT}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value


async def test_the_same_product_gives_the_same(
    database_url: str,
    clock: ManualClock,
    master: MasterKey,
    stripe_server: StripePeer,
    paddle_server: PaddlePeer,
    btcpay: BTCPayPeer,
) -> None:
    clock.advance(datetime.now(UTC) - clock.now())  # the stand-in for BTCPay has no other time
    stripe = stripe_server.fresh(now=clock.now())
    paddle_server.control("reset")
    paddle_server.control("config", capture=True, tax_rate="0")
    paddle_server.control("clock", set=stamp(clock.now()), freeze=True)
    settings = BTCPaySettings(
        base_url=btcpay.url, store_id=STORE_ID, api_key=API_KEY, webhook_id=None, webhook_secret=""
    )
    async with opening(database_url, clock, master) as shop:
        await stripe_shop.connect(shop, stripe, master)
        await paddle_shop.connect(shop, paddle_server, master)
        await shop.scope.run(rail_settings.save, master, "btcpay", settings, {})
        rails = Rails(shop, stripe, paddle_server, btcpay)
        sold = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 3})
        ways = {
            "sandbox": rails.sandbox,
            "btcpay": rails.on_btcpay,
            stripe_shop.RAIL: rails.on_stripe,
            paddle_shop.RAIL: rails.on_paddle,
        }
        stories = {}
        for rail, pay in ways.items():
            opened = await shop.checkout((sold, 2), rail=rail, email=EMAIL)
            await pay(opened)
            stories[rail] = await given(shop, opened)
        for rail, story in stories.items():
            assert story == stories["sandbox"], rail
        first = stories["sandbox"]
        assert (first["status"], first["order"]["amount"]) == ("settled", 3_000)
        assert [(one["status"], one["max_machines"]) for one in first["licenses"]] == [("active", 3), ("active", 3)]
        assert [one["status"] for one in first["grants"]] == ["active", "active"]
    stripe.close()
