"""Prices that differ by country, and discounts for some periods, on Stripe, which has neither."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from tests.peers.stripe_shop import assert_shaped
from tests.support.app import Shop, Sold, good
from tests.support.stripe_shop import BAD_LUCK, EMAIL, MONTHLY, RAIL, StripeShop, books_equal

from counterfoil.exchange.comparing import compare
from counterfoil.exchange.importing import pull

pytestmark = pytest.mark.xdist_group("stripe-peers")

COUNTRIES = [{"countries": ["IN", "BD"], "unit_amount": 400}, {"countries": ["CH"], "unit_amount": 1_200}]
SQLITE = pytest.mark.parametrize("dialect", ["sqlite"])
"""For what the database has no part in."""


async def by_country(shop: Shop, tier: str = "default", amount: int = 900, **price: Any) -> Sold:
    """9.00 EUR a month, 4.00 in India, 12.00 in Switzerland; twice, and so on, for other amounts."""
    countries = [{**each, "unit_amount": each["unit_amount"] * amount // 900} for each in COUNTRIES]
    terms = {**MONTHLY, "country_overrides": countries, **price}
    return await shop.tier("editor", tier=tier, amount=amount, license={"max_machines": 2}, **terms)


async def bought(stripe: StripeShop, sold: Sold, **fields: Any) -> tuple[str, str]:
    """A subscription that was paid and told of: our id, and Stripe's name for it."""
    opened = await stripe.shop.checkout(sold, rail=RAIL, email=EMAIL, **fields)
    stripe.pay(opened)
    await stripe.tell_all()
    row = await stripe.shop.row("subscriptions", checkout_id=opened["id"])
    return row["id"], (await stripe.shop.row("rail_links", kind="subscription", object_id=row["id"]))["reference"]


def held(stripe: StripeShop, reference: str) -> list[tuple[int, int]]:
    """The amounts and quantities that Stripe charges for a subscription."""
    items = stripe.peer.look(f"subscriptions/{reference}")["items"]["data"]
    return sorted((item["price"]["unit_amount"], item["quantity"]) for item in items)


def prices(stripe: StripeShop) -> dict[str, dict[str, Any]]:
    """All prices at Stripe, by their lookup keys."""
    return {price["lookup_key"]: price for price in stripe.peer.look("prices?limit=100")["data"]}


async def sales(shop: Shop, subscription_id: str) -> list[tuple[int, int, int]]:
    """Of each order of a subscription, oldest first: what was paid, for how much a unit, and taken off."""
    checkout = (await shop.row("subscriptions", id=subscription_id))["checkout_id"]
    first = await shop.rows("orders", checkout_id=checkout)
    later = await shop.rows("orders", subscription_id=subscription_id, checkout_id=None)
    items = [(order["amount"], *order["items"]) for order in (*first, *later)]
    return [(amount, item["unit_amount"], item["discount_total"]) for amount, item in items]


class TestPricesByCountry:
    async def test_sold_renewed_and_told_by_both_books(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        sold = await by_country(shop)
        for country, amount in (("DE", 900), ("CH", 1_200), ("IN", 400)):
            subscription, reference = await bought(stripe_shop, sold, country=country)
            assert held(stripe_shop, reference) == [(amount, 1)]
            await stripe_shop.end_period(reference)
            assert await sales(shop, subscription) == [(amount, amount, 0)] * 2
            (item,) = await shop.rows("subscription_items", subscription_id=subscription)
            assert (item["price_id"], item["price_snapshot"]["unit_amount"]) == (sold.price_id, amount)
        await bought(stripe_shop, sold, country="BD")
        await books_equal(stripe_shop)
        there = prices(stripe_shop)
        assert set(there) == {sold.price_id, f"{sold.price_id}-400", f"{sold.price_id}-1200"}
        for name, price in there.items():
            assert_shaped("price", price)
            more = {} if name == sold.price_id else {"counterfoil_variant": name}
            assert price["metadata"] == {"counterfoil_id": sold.price_id, **more}
            assert (price["product"], price["currency"], price["active"]) == (sold.product_id, "eur", True)
        assert len(peer.objects()["prices"]) == 3
        # News of the variants came with the rest, and none took the copy's place.
        assert (await shop.row("rail_links", kind="price"))["reference"] == there[sold.price_id]["id"]
        assert await shop.count("inbox", status="set_aside") == 0

    @SQLITE
    async def test_variants_are_neither_compared_nor_imported(self, stripe_shop: StripeShop) -> None:
        shop, house = stripe_shop.shop, stripe_shop.shop.house
        sold = await by_country(shop)
        await bought(stripe_shop, sold, country="IN")
        found = await compare(shop.scope, house.rails, house.pusher, RAIL)
        assert found.differences == []
        assert [(one.in_step, one.not_ours) for one in found.kinds if one.kind == "price"] == [(1, 0)]
        done = await pull(shop.scope, house.rails, house.pusher, RAIL, "price")
        assert (done.prices, done.known, done.skipped) == (0, 2, [])
        assert await shop.count("prices") == 1

    @SQLITE
    async def test_two_sales_at_once_take_one(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        sold = await by_country(shop)
        await stripe_shop.push()
        # Both look before either has made it.
        peer.fail("^GET /v1/prices$", count=2, delay=0.1)
        peer.fail("^POST /v1/prices$", count=2, delay=0.1)
        opening = [shop.checkout(sold, rail=RAIL, email=EMAIL, country="IN") for _ in range(2)]
        for opened in await asyncio.gather(*opening):
            assert stripe_shop.pay(opened)["amount_total"] == 400
        await stripe_shop.tell_all()
        assert len(peer.objects()["prices"]) == 2
        made = peer.requests("^POST /v1/prices$")[1:]
        assert len(made) == 2
        assert len({one["idempotency_key"] for one in made}) == 1
        await books_equal(stripe_shop)

    @SQLITE
    @pytest.mark.parametrize("how", ["the answer is lost", "the request is lost"])
    async def test_whatever_becomes_of_the_answer(self, stripe_shop: StripeShop, how: str) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        sold = await by_country(shop)
        await stripe_shop.push()
        peer.fail("^POST /v1/prices$", **BAD_LUCK[how])
        answer = await shop.try_checkout(sold, key="once", rail=RAIL, email=EMAIL, country="CH")
        # Where it was made all the same it is found at once.
        assert answer.status_code == (201 if how == "the answer is lost" else 503), answer.text
        opened = await shop.checkout(sold, key="once", rail=RAIL, email=EMAIL, country="CH")
        assert stripe_shop.pay(opened)["amount_total"] == 1_200
        await stripe_shop.tell_all()
        assert [len(peer.objects()[one]) for one in ("prices", "sessions", "subscriptions")] == [2, 1, 1]
        await books_equal(stripe_shop)

    @SQLITE
    async def test_a_changed_plan_keeps_to_the_country(self, stripe_shop: StripeShop) -> None:
        shop = stripe_shop.shop
        small, big = await by_country(shop), await by_country(shop, "team", 1_800)
        subscription, reference = await bought(stripe_shop, small, country="IN")
        stripe_shop.move_on(timedelta(days=10))
        await stripe_shop.change(subscription, "change", (big, 2))
        assert held(stripe_shop, reference) == [(800, 2)]
        await books_equal(stripe_shop)
        bill = await shop.row("invoices", billing_reason="subscription_update")
        order = await shop.row("orders", id=bill["order_id"])
        assert [item["price_id"] for item in order["items"]] == [big.price_id]
        await stripe_shop.end_period(reference)
        assert (await sales(shop, subscription))[-1] == (1_600, 800, 0)
        # Asked for once more it is seen to be so, variants and all.
        stripe_shop.move_on(timedelta(days=1))
        await stripe_shop.change(subscription, "change", (big, 1), proration="none")
        assert held(stripe_shop, reference) == [(800, 1)]
        await books_equal(stripe_shop)

    @SQLITE
    async def test_a_bill_before_the_news_of_its_plan(self, stripe_shop: StripeShop) -> None:
        """Stripe's bill names the variant only; whose it is the bill says by itself."""
        shop, peer = stripe_shop.shop, stripe_shop.peer
        small, big = await by_country(shop), await by_country(shop, "team", 1_800)
        subscription, _ = await bought(stripe_shop, small, country="CH")
        stripe_shop.move_on(timedelta(days=10))
        peer.fail("^POST /v1/subscriptions/", after=True, hang_up=True)
        wanted = {"items": [{"price_id": big.price_id, "quantity": 1}]}
        good(await shop.staff.post(f"/v1/subscriptions/{subscription}/change", json=wanted))
        await stripe_shop.push()
        assert (await shop.row("outbox", kind="subscription"))["status"] == "in_doubt"
        news = stripe_shop.news()
        for event in sorted(news, key=lambda one: one["type"] == "customer.subscription.updated"):
            await stripe_shop.tell(event)
        bill = await shop.row("invoices", billing_reason="subscription_update")
        order = await shop.row("orders", id=bill["order_id"])
        assert [item["price_id"] for item in order["items"]] == [big.price_id]
        stripe_shop.move_on(timedelta(minutes=10))
        await stripe_shop.push()
        assert (await shop.row("outbox", kind="subscription"))["status"] == "done"
        assert len(peer.objects()["invoices"]) == 2
        await books_equal(stripe_shop)

    @SQLITE
    @pytest.mark.parametrize(("address", "amount"), [("CH", 2_400), (None, 1_800)])
    async def test_whom_it_was_sold_to_without_a_country(
        self, stripe_shop: StripeShop, address: str | None, amount: int
    ) -> None:
        """The customer's address tells what a new plan costs."""
        shop = stripe_shop.shop
        small, big = await by_country(shop), await by_country(shop, "team", 1_800)
        person = {"kind": "person", "name": "Ada", "email": EMAIL}
        customer = good(await shop.staff.post("/v1/customers", json=person))["id"]
        if address is not None:
            where = {"country_code": address}
            good(await shop.staff.post(f"/v1/customers/{customer}/addresses", json=where))
        body = {"lines": [{"price_id": small.price_id}], "rail": RAIL}
        opened = good(await shop.staff.post(f"/v1/customers/{customer}/checkouts", json=body))
        assert stripe_shop.pay(opened)["amount_total"] == 900
        await stripe_shop.tell_all()
        row = await shop.row("subscriptions")
        stripe_shop.move_on(timedelta(days=1))
        await stripe_shop.change(row["id"], "change", (big, 1), proration="none")
        (reference,) = stripe_shop.peer.objects()["subscriptions"]
        assert held(stripe_shop, reference) == [(amount, 1)]

    @SQLITE
    async def test_archived_and_replaced(self, stripe_shop: StripeShop) -> None:
        """Who holds it keeps it, at what it cost them; a price with new amounts is another one."""
        shop, peer = stripe_shop.shop, stripe_shop.peer
        sold = await by_country(shop)
        subscription, reference = await bought(stripe_shop, sold, country="IN")
        terms = {"country_overrides": [{"countries": ["IN"], "unit_amount": 500}]}
        new = good(await shop.staff.patch(f"/v1/prices/{sold.price_id}", json=terms))["id"]
        assert new != sold.price_id
        await stripe_shop.push()
        there = prices(stripe_shop)
        assert not there[sold.price_id]["active"]
        assert there[f"{sold.price_id}-400"]["active"]
        await stripe_shop.end_period(reference)
        assert (await sales(shop, subscription))[-1] == (400, 400, 0)
        stripe_shop.move_on(timedelta(days=1))
        await stripe_shop.change(subscription, "change", (sold, 3), proration="none")
        assert held(stripe_shop, reference) == [(400, 3)]
        again = Sold(sold.product_id, sold.slug, new, sold.tier, 900, "EUR")
        _, reference = await bought(stripe_shop, again, country="IN")
        assert held(stripe_shop, reference) == [(500, 1)]
        assert len(peer.objects()["prices"]) == 4
        await books_equal(stripe_shop)

    @SQLITE
    async def test_somebody_archived_the_variant_there(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        sold = await by_country(shop)
        await bought(stripe_shop, sold, country="IN")
        name = prices(stripe_shop)[f"{sold.price_id}-400"]["id"]
        peer.official().prices.update(name, {"active": False, "nickname": "Not here"})
        await bought(stripe_shop, sold, country="IN")
        price = peer.look(f"prices/{name}")
        assert (price["active"], price["nickname"]) == (True, None)
        await books_equal(stripe_shop)

    @SQLITE
    async def test_with_what_is_paid_once_and_a_trial_and_a_discount(self, stripe_shop: StripeShop) -> None:
        shop = stripe_shop.shop
        sold = await by_country(shop, trial_days=14)
        setup = {"country_overrides": [{"countries": ["IN"], "unit_amount": 1_000}]}
        once = await shop.tier("setup", amount=5_000, asset="EUR", **setup)
        discount = await shop.discount("HALF", amount=5_000, recurring=True)
        opened = await shop.checkout(sold, once, rail=RAIL, email=EMAIL, country="IN", code="HALF")
        assert stripe_shop.pay(opened)["amount_total"] == 500
        await stripe_shop.tell_all()
        row = await shop.row("subscriptions")
        (reference,) = stripe_shop.peer.objects()["subscriptions"]
        await stripe_shop.end_period(reference)
        assert row["discount_id"] == discount
        (_, renewed) = await shop.rows("orders")
        assert (renewed["amount"], renewed["discount_total"], renewed["items"][0]["unit_amount"]) == (200, 200, 400)
        await books_equal(stripe_shop)


class TestDiscountsForSomePeriods:
    async def test_yearly(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        yearly = await shop.tier("editor", amount=9_000, **{**MONTHLY, "interval": "year"})
        discount = await shop.discount("TWO", amount=2_000, recurring=True, max_periods=2)
        subscription, reference = await bought(stripe_shop, yearly, code="TWO")
        coupons = {coupon["id"]: coupon for coupon in peer.look("coupons")["data"]}
        assert {name: one["duration_in_months"] for name, one in coupons.items()} == {
            discount: 2,
            f"{discount}-24m": 24,
        }
        assert coupons[f"{discount}-24m"]["metadata"] == {
            "counterfoil_id": discount,
            "counterfoil_variant": f"{discount}-24m",
        }
        assert_shaped("coupon", coupons[f"{discount}-24m"])
        await stripe_shop.end_period(reference)
        # Stripe names the variant; to us it is the discount.
        (there,) = peer.look(f"subscriptions/{reference}?expand[]=discounts")["discounts"]
        assert there["source"]["coupon"] == f"{discount}-24m"
        assert (await shop.row("subscriptions"))["discount_id"] == discount
        await stripe_shop.end_period(reference)
        assert await sales(shop, subscription) == [(7_200, 9_000, 1_800)] * 2 + [(9_000, 9_000, 0)]
        links = {row["object_id"]: row["reference"] for row in await shop.rows("rail_links", kind="discount")}
        assert links == {discount: discount}
        await books_equal(stripe_shop)
        house = shop.house
        found = await compare(shop.scope, house.rails, house.pusher, RAIL)
        assert [(one.in_step, one.not_ours) for one in found.kinds if one.kind == "discount"] == [(1, 0)]
        # A second sale takes the same coupon; an archived discount leaves it to who has it.
        _, second = await bought(stripe_shop, yearly, code="TWO")
        good(await shop.staff.patch(f"/v1/discounts/{discount}", json={"status": "archived"}))
        await stripe_shop.push()
        assert sorted(coupon["id"] for coupon in peer.look("coupons")["data"]) == [discount, f"{discount}-24m"]
        await stripe_shop.end_period(second)
        await books_equal(stripe_shop)

    @SQLITE
    async def test_after_a_trial(self, stripe_shop: StripeShop) -> None:
        """A coupon's months begin with the trial: those of the trial come on top."""
        shop, peer = stripe_shop.shop, stripe_shop.peer
        sold = await shop.tier("editor", amount=1_000, **MONTHLY, trial_days=45)
        discount = await shop.discount("TWO", amount=2_000, recurring=True, max_periods=2)
        _, reference = await bought(stripe_shop, sold, code="TWO")
        assert peer.look(f"coupons/{discount}-3m")["duration_in_months"] == 3
        for _ in range(3):
            await stripe_shop.end_period(reference)
        found = sorted(await shop.rows("payments"), key=lambda row: row["occurred_at"])
        assert [row["amount"] for row in found] == [0, 800, 800, 1_000]
        await books_equal(stripe_shop)

    @SQLITE
    async def test_what_stripe_cannot_count(self, stripe_shop: StripeShop) -> None:
        """It is refused before anything is made there; for the first period, and for all, it is not."""
        shop, peer = stripe_shop.shop, stripe_shop.peer
        sold = await shop.tier("editor", amount=1_000, **{**MONTHLY, "interval": "week", "interval_count": 2})
        await shop.discount("TWO", amount=2_000, recurring=True, max_periods=2)
        refused = await shop.try_checkout(sold, rail=RAIL, email=EMAIL, code="TWO")
        assert refused.status_code == 502
        assert refused.json()["detail"] == (
            "stripe-test: Stripe counts in months how long a discount lasts, so what is paid every 2 weeks "
            "cannot have one for 2 periods there, but only for the first or for all"
        )
        assert peer.requests() == []
        assert (await shop.row("checkouts"))["status"] == "failed"
        for code, periods in (("ONE", 1), ("ALL", None)):
            await shop.discount(code, amount=2_000, recurring=True, max_periods=periods)
            opened = await shop.checkout(sold, rail=RAIL, email=EMAIL, code=code)
            assert stripe_shop.pay(opened)["amount_total"] == 800

    @SQLITE
    async def test_the_answer_is_lost(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        yearly = await shop.tier("editor", amount=9_000, **{**MONTHLY, "interval": "year"})
        await shop.discount("TWO", amount=2_000, recurring=True, max_periods=2)
        await stripe_shop.push()
        peer.fail("^POST /v1/coupons$", **BAD_LUCK["the answer is lost"])
        opened = await shop.checkout(yearly, key="once", rail=RAIL, email=EMAIL, code="TWO")
        assert stripe_shop.pay(opened)["amount_total"] == 7_200
        await stripe_shop.tell_all()
        assert [len(peer.objects()[one]) for one in ("coupons", "sessions")] == [2, 1]
        await books_equal(stripe_shop)
