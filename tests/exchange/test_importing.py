"""Making ours what a seller has at a rail already."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.app import Shop, good
from tests.support.paddle_shop import RAIL as PADDLE
from tests.support.paddle_shop import PaddleShop
from tests.support.stripe_shop import RAIL as STRIPE
from tests.support.stripe_shop import StripeShop

from counterfoil.catalog.imports import slug_for
from counterfoil.exchange import importing
from counterfoil.exchange.importing import Imported, Skipped, What, pull
from counterfoil.rails.base import RailUnavailable

pytestmark = pytest.mark.xdist_group("rail-copies")


async def bring(shop: Shop, rail: str, what: What = "price") -> Imported:
    return await pull(shop.scope, shop.house.rails, shop.house.pusher, rail, what)


class TestStripe:
    def fill(self, peer: Any) -> dict[str, str]:
        """What a seller may have there; the names of some."""
        at = peer.official()
        pro = at.products.create({"name": "Éditor Pro!", "description": "Writes.", "metadata": {"own": "word"}})
        same = at.products.create({"name": "Editor pro"})
        gone = at.products.create({"name": "Gone", "active": False})
        month = {"interval": "month", "interval_count": 3}
        plain = at.prices.create({"product": pro.id, "currency": "eur", "unit_amount": 1_500, "nickname": "Plain"})
        recurring = at.prices.create(
            {"product": pro.id, "currency": "jpy", "unit_amount": 900, "recurring": month, "tax_behavior": "exclusive"}
        )
        part = at.prices.create({"product": same.id, "currency": "eur", "unit_amount_decimal": "0.5"})
        return {"pro": pro.id, "gone": gone.id, "plain": plain.id, "recurring": recurring.id, "part": part.id}

    async def test_products_and_prices(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        there = self.fill(peer)
        assert await bring(shop, STRIPE) == Imported(
            STRIPE,
            products=3,
            prices=2,
            known=0,
            skipped=[Skipped("price", "an amount with parts of the smallest unit", 1, [there["part"]])],
        )
        links = {row["reference"]: row["object_id"] for row in await shop.rows("rail_links")}
        pro = good(await shop.staff.get(f"/v1/products/{links[there['pro']]}"))
        assert (pro["name"], pro["description"], pro["metadata"]) == ("Éditor Pro!", "Writes.", {"own": "word"})
        slugs = sorted(row["slug"] for row in await shop.rows("products"))
        assert slugs[:2] == ["editor-pro", slugs[1]]
        assert slugs[1].startswith("editor-pro-")
        assert (await shop.row("products", name="Gone"))["status"] == "archived"
        plain = await shop.row("prices", id=links[there["plain"]])
        assert (plain["asset"], plain["unit_amount"], plain["type"]) == ("EUR", 1_500, "one_time")
        again = await shop.row("prices", id=links[there["recurring"]])
        assert (again["asset"], again["unit_amount"], again["tax_mode"]) == ("JPY", 900, "external")
        assert (again["interval"], again["interval_count"], again["product_id"]) == ("month", 3, pro["id"])
        assert await shop.count("outbox") == 0  # they are in step as they are
        assert sorted(await shop.events("product.imported", "price.imported")) == [
            *["price.imported"] * 2,
            *["product.imported"] * 3,
        ]

    @pytest.mark.parametrize("dialect", ["postgresql"])
    async def test_the_planner_learns_of_what_was_imported(
        self, stripe_shop: StripeShop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importing, "_LEARN_AT", 1)
        self.fill(stripe_shop.peer)
        await bring(stripe_shop.shop, STRIPE)
        sizes = sa.text("SELECT reltuples FROM pg_class WHERE relname IN ('products', 'prices') AND :tenant <> ''")
        rows = await stripe_shop.shop.scope.read(lambda tx: tx.all(sizes))
        assert sorted(row.reltuples for row in rows) == [0, 3]  # after the products, before the prices

    async def test_a_second_time_imports_nothing(self, stripe_shop: StripeShop) -> None:
        shop = stripe_shop.shop
        self.fill(stripe_shop.peer)
        await shop.tier("own", amount=1_500, asset="EUR")
        await stripe_shop.push()
        await bring(shop, STRIPE)
        before = await shop.everything()
        again = await bring(shop, STRIPE)
        assert (again.products, again.prices, again.known) == (0, 0, 7)
        assert await shop.everything() == before

    async def test_two_at_once_import_everything_once(
        self, stripe_shop: StripeShop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shop = stripe_shop.shop
        self.fill(stripe_shop.peer)
        monkeypatch.setattr(importing, "BATCH", 1)
        one, two = await asyncio.gather(bring(shop, STRIPE), bring(shop, STRIPE))
        assert (one.products + two.products, one.prices + two.prices) == (3, 2)
        assert (await shop.count("products"), await shop.count("prices")) == (3, 2)

    async def test_a_change_of_what_was_imported_goes_there(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        there = self.fill(peer)
        await bring(shop, STRIPE, "product")
        assert await shop.count("prices") == 0
        ours = (await shop.row("rail_links", reference=there["pro"]))["object_id"]
        good(await shop.staff.patch(f"/v1/products/{ours}", json={"name": "Ours now"}))
        await stripe_shop.push()
        product = peer.look(f"products/{there['pro']}")
        assert (product["name"], product["metadata"]["counterfoil_id"]) == ("Ours now", ours)
        assert len(peer.look("products")["data"]) == 3

    async def test_no_answer_keeps_what_was_imported(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        self.fill(peer)
        peer.fail("^GET /v1/prices$", status=500)
        with pytest.raises(RailUnavailable):
            await bring(shop, STRIPE)
        assert await shop.count("products") == 3
        assert (await bring(shop, STRIPE)).prices == 2


async def test_paddle(paddle_shop: PaddleShop) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    pro = peer.api("POST", "/products", {"name": "Editor", "tax_category": "saas", "custom_data": {"own": 1}})
    price = {
        "product_id": pro["id"],
        "description": "Monthly",
        "name": "Monthly",
        "unit_price": {"amount": "1500", "currency_code": "EUR"},
        "billing_cycle": {"interval": "month", "frequency": 1},
        "trial_period": {"interval": "week", "frequency": 2},
        "tax_mode": "external",
        "unit_price_overrides": [
            {"country_codes": ["CH"], "unit_price": {"amount": "1800", "currency_code": "EUR"}},
        ],
        "quantity": {"minimum": 1, "maximum": 50},
    }
    monthly = peer.api("POST", "/prices", price)
    foreign = [{"country_codes": ["CH"], "unit_price": {"amount": "1800", "currency_code": "CHF"}}]
    other = peer.api("POST", "/prices", {**price, "unit_price_overrides": foreign})
    done = await bring(shop, PADDLE)
    assert (done.products, done.prices) == (1, 1)
    assert done.skipped == [Skipped("price", "a price with another currency in some countries", 1, [other["id"]])]
    product = await shop.row("products")
    assert (product["slug"], product["tax_category"], product["metadata"]) == ("editor", "saas", {"own": 1})
    row = await shop.row("prices")
    assert (row["trial_days"], row["tax_mode"], row["quantity_max"]) == (14, "external", 50)
    assert row["country_overrides"] == [{"countries": ["CH"], "unit_amount": 1_800}]
    assert (await shop.row("rail_links", kind="price"))["reference"] == monthly["id"]
    assert (await bring(shop, PADDLE)).known == 2


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Éditor Pro!", "editor-pro"),
        ("  --A  b--  ", "a-b"),
        ("東京", "product"),
        ("x" * 100, "x" * 69),
        ("a" * 68 + " b", "a" * 68),
    ],
)
def test_slugs(name: str, slug: str) -> None:
    assert slug_for(name) == slug
