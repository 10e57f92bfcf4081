"""Selling on the rails that keep copies, in this process: a shop, and the stand-in for the provider.

async with opening(...) as shop:
    till = await stripe_till(shop, peer)
    opened = await till.checkout(sold)
    till.pay(opened)
    await till.hear()
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from counterfoil.exchange import rail_settings
from counterfoil.exchange.catching_up import catch_up
from counterfoil.exchange.questions import ask_due
from counterfoil.rails.paddle import PaddleSettings
from counterfoil.rails.stripe import StripeSettings
from tests.peers.paddle_fixtures import PaddlePeer
from tests.peers.paddle_world import API_KEY
from tests.peers.stripe_peers import StripePeer
from tests.support.app import Shop, Sold, good

STRIPE, PADDLE = "stripe-test", "paddle-test"


@dataclass
class Till:
    """A shop that is connected to one provider's stand-in."""

    shop: Shop
    rail: str
    peer: Any

    async def checkout(
        self, *lines: Sold | tuple[Sold, int], customer_id: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        """An open checkout on the rail, for a customer or for anybody; ``reference``: the rail's name for it."""
        if customer_id is None:
            opened = await self.shop.checkout(*lines, rail=self.rail, **fields)
        else:
            wanted = [line if isinstance(line, tuple) else (line, 1) for line in lines]
            body = {
                "lines": [{"price_id": sold.price_id, "quantity": count} for sold, count in wanted],
                "rail": self.rail,
                **fields,
            }
            opened = good(await self.shop.staff.post(f"/v1/customers/{customer_id}/checkouts", json=body))
        row = await self.shop.row("checkouts", id=opened["id"])
        return {**opened, "reference": row["rail_reference"]}

    def pay(self, opened: dict[str, Any]) -> None:
        """The buyer pays at the provider's page."""
        if isinstance(self.peer, StripePeer):
            self.peer.pay(opened["reference"])
        else:
            self.peer.transaction(opened["reference"], "pay", email="buyer@example.com", country_code="US")

    async def renew(self, subscription_id: str) -> None:
        """The period ends, and the next one is paid."""
        reference = await self.name_of("subscription", subscription_id)
        if isinstance(self.peer, StripePeer):
            self.peer.control(f"subscriptions/{reference}/cycle")
        else:
            self.peer.subscription(reference, "due")

    async def name_of(self, kind: str, object_id: str) -> str:
        """The rail's name for one of our objects."""
        link = await self.shop.row("rail_links", rail=self.rail, kind=kind, object_id=object_id)
        return str(link["reference"])

    async def hear(self, since: datetime | None = None) -> int:
        """Read all that the provider's list of events has, as if its webhooks had come; how many were news."""
        house = self.shop.house
        done = await catch_up(self.shop.scope, house.rails, house.pusher, self.rail, since=since)
        await ask_due(self.shop.scope, house.rails, house.client)
        return done


async def stripe_till(shop: Shop, peer: StripePeer) -> Till:
    """Connect a fresh account of Stripe's stand-in."""
    settings = StripeSettings(base_url=peer.url, api_key=peer.api_key, webhook_secrets=("whsec_x",), livemode=False)
    await shop.scope.run(rail_settings.save, shop.house.master, STRIPE, settings, {})
    return Till(shop, STRIPE, peer)


async def paddle_till(shop: Shop, peer: PaddlePeer) -> Till:
    """Connect Paddle's stand-in, empty."""
    peer.control("reset")
    peer.control("config", capture=True)
    settings = PaddleSettings(base_url=peer.url, api_key=API_KEY, webhook_secrets=("pdl_ntfset_x",), livemode=False)
    await shop.scope.run(rail_settings.save, shop.house.master, PADDLE, settings, {})
    return Till(shop, PADDLE, peer)
