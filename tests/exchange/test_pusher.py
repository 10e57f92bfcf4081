"""Copies at the rails: made once whatever happens on the way, in their order, and no faster than the rail allows."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.app import Shop, good
from tests.support.paddle_shop import PaddleShop
from tests.support.stripe_shop import BAD_LUCK, RAIL, StripeShop

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.schema import mine
from counterfoil.exchange.pace import NoTurn, Pace, Paces
from counterfoil.exchange.pusher import Pusher
from counterfoil.exchange.rails import Connection
from counterfoil.exchange.tables import outbox
from counterfoil.kernel.errors import RailFailed
from counterfoil.rails.mirror import Rate
from counterfoil.rails.paddle import PaddleRail, PaddleSettings
from counterfoil.rails.stripe import StripeRail, StripeSettings
from counterfoil.settlement.tables import rail_links

pytestmark = pytest.mark.xdist_group("rail-copies")


async def fill(shop: Shop) -> dict[str, str]:
    """One of each kind; their ids."""
    sold = await shop.tier("editor", amount=1_500, asset="EUR")
    discount = await shop.discount("TEN", amount=1_000, description="Ten percent", product_ids=[sold.product_id])
    new = {"kind": "organization", "name": "One", "email": "one@example.com"}
    customer = good(await shop.staff.post("/v1/customers", json=new))["id"]
    return {"product": sold.product_id, "price": sold.price_id, "discount": discount, "customer": customer}


async def owed(shop: Shop, **where: Any) -> list[dict[str, Any]]:
    return [row for row in await shop.rows("outbox", **where) if row["status"] != "done"]


async def push_late(shop: Shop) -> None:
    """Push now, and all that is left once every pause is over."""
    await shop.house.pusher.go_round(DEFAULT_TENANT)
    for _ in range(4):
        shop.clock.advance(timedelta(minutes=20))
        shop.house.pusher._paces = Paces(shop.house.client)  # 429 holds back in real time
        await shop.house.pusher.go_round(DEFAULT_TENANT)


class TestStripe:
    async def test_all_kinds_in_the_order_in_which_they_depend(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        ids = await fill(shop)
        await stripe_shop.push()
        assert await owed(shop) == []
        links = {row["kind"]: row for row in await shop.rows("rail_links")}
        assert {kind: row["object_id"] for kind, row in links.items()} == ids
        assert {row["sync_status"] for row in links.values()} == {"synced"}
        assert {row["pending_since"] for row in links.values()} == {None}
        asked = [one["path"] for one in peer.requests("POST")]
        assert asked.index("/v1/products") < asked.index("/v1/prices") < asked.index("/v1/coupons")
        coupon = peer.look(f"coupons/{ids['discount']}")
        assert (coupon["percent_off"], coupon["name"]) == (10.0, "Ten percent")

    @pytest.mark.parametrize("luck", BAD_LUCK)
    @pytest.mark.parametrize("dialect", ["sqlite"])
    async def test_bad_luck_never_makes_two(self, stripe_shop: StripeShop, luck: str) -> None:
        """Each kind meets it once."""
        shop, peer = stripe_shop.shop, stripe_shop.peer
        kinds = ("products", "prices", "coupons", "promotion_codes", "customers")
        for name in kinds:
            peer.fail(f"^POST /v1/{name}$", **BAD_LUCK[luck])
        ids = await fill(shop)
        await push_late(shop)
        assert await owed(shop) == []
        for name in kinds:
            assert len(peer.look(f"{name}?limit=10")["data"]) == 1, name
        assert {row["object_id"] for row in await shop.rows("rail_links", sync_status="synced")} == set(ids.values())

    async def test_what_has_no_answer_is_in_doubt_and_tried_again_after_a_pause(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        peer.fail("^POST /v1/products$", after=True, hang_up=True)
        await shop.tier("editor", amount=1_500, asset="EUR")
        began = shop.clock.now()
        await stripe_shop.push()
        (row,) = await owed(shop, kind="product")
        assert (row["status"], row["attempts"], row["pending_since"]) == ("in_doubt", 1, began)
        assert row["next_attempt_at"] == began + timedelta(minutes=5)
        (waiting,) = await owed(shop, kind="price")
        assert (waiting["status"], waiting["attempts"]) == ("owed", 0)
        assert waiting["error"] == f"waits for the product {row['object_id']}"
        shop.clock.advance(timedelta(minutes=4))
        await stripe_shop.push()
        assert len(await owed(shop)) == 2
        shop.clock.advance(timedelta(minutes=2))
        await stripe_shop.push()
        assert await owed(shop) == []
        assert [one["method"] for one in peer.requests("/v1/products")] == ["POST", "GET"]

    async def test_a_refusal_is_shown_and_stays_until_it_is_retried(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        error = {"type": "invalid_request_error", "message": "That name will not do."}
        peer.fail("^POST /v1/products$", status=400, error=error)
        await shop.tier("editor", amount=1_500, asset="EUR")
        await stripe_shop.push()
        (row,) = await owed(shop, kind="product")
        assert (row["status"], row["next_attempt_at"]) == ("refused", None)
        assert row["error"] == "Stripe answered 400: That name will not do."
        assert await shop.events("sync.refused") == ["sync.refused"]
        (waiting,) = await owed(shop, kind="price")
        assert waiting["error"] == f"waits for the product {row['object_id']}, which was refused"
        shop.clock.advance(timedelta(days=2))
        assert (await owed(shop, kind="product"))[0]["status"] == "refused"
        (status,) = good(await shop.staff.get("/v1/sync"))
        assert (status["rail"], status["owed"], status["refused"]) == (RAIL, 1, 1)
        assert good(await shop.staff.post(f"/v1/sync/{RAIL}/retry", json={})) == {"count": 2}
        await stripe_shop.push()
        assert await owed(shop) == []

    async def test_what_changes_while_it_is_sent_is_sent_again(
        self, stripe_shop: StripeShop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        sold = await shop.tier("editor", amount=1_500, asset="EUR")
        create = shop.house.pusher._create

        async def create_slowly(*args: Any) -> Any:
            made = await create(*args)
            if made.kind == "product":
                good(await shop.staff.patch(f"/v1/products/{sold.product_id}", json={"name": "Editor 2"}))
            return made

        monkeypatch.setattr(shop.house.pusher, "_create", create_slowly)
        await stripe_shop.push()
        assert peer.look(f"products/{sold.product_id}")["name"] == "Editor 2"
        assert await owed(shop) == []
        assert {row["sync_status"] for row in await shop.rows("rail_links")} == {"synced"}

    async def test_two_workers_make_one_of_each(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        for place in range(8):
            await shop.tier(f"editor-{place}", amount=1_500, asset="EUR")
        house = shop.house
        other = Pusher(house.database, house.rails, house.client)
        await asyncio.gather(house.pusher.go_round(DEFAULT_TENANT), other.go_round(DEFAULT_TENANT))
        shop.clock.advance(timedelta(minutes=1))  # a price may have waited for its product
        await asyncio.gather(house.pusher.go_round(DEFAULT_TENANT), other.go_round(DEFAULT_TENANT))
        assert await owed(shop) == []
        made = Counter(one["path"] for one in peer.requests("POST"))
        assert made == {"/v1/products": 8, "/v1/prices": 8}

    async def test_too_many_requests_hold_the_rail_back(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        peer.fail("^POST /v1/products$", status=429, retry_after=120)
        await shop.tier("editor", amount=1_500, asset="EUR")
        await shop.tier("writer", amount=1_500, asset="EUR")
        await stripe_shop.push()
        rows = await owed(shop, kind="product")
        waits = [row for row in rows if row["error"]]
        (told,) = [row for row in waits if row["error"].startswith("Stripe answered 429")]
        assert {row["error"] for row in waits if row is not told} <= {"the rail's limit is reached"}
        assert {(row["status"], row["attempts"]) for row in waits} == {("owed", 0)}
        assert told["next_attempt_at"] == shop.clock.now() + timedelta(seconds=120)
        before = len(peer.requests())
        shop.clock.advance(timedelta(seconds=121))
        await stripe_shop.push()
        assert len(peer.requests()) == before  # two minutes of real time are not over

    async def test_a_code_is_switched_off_and_on_with_its_discount(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        discount = await shop.discount("TEN", amount=1_000, description="Ten percent")
        await stripe_shop.push()
        link = await shop.row("rail_links", kind="discount")
        (code,) = peer.look("promotion_codes?limit=10")["data"]
        assert link["raw"]["counterfoil_follow_up"] == code["id"]
        for place in range(2):
            change = {"status": "archived", "description": f"gone {place}"}
            good(await shop.staff.patch(f"/v1/discounts/{discount}", json=change))
            await stripe_shop.push()
            assert await owed(shop) == []
            (off,) = peer.look("promotion_codes?limit=10")["data"]
            assert (off["id"], off["active"]) == (code["id"], False)
            assert [one["id"] for one in peer.look("coupons?limit=10")["data"]] == [discount]
            assert (await shop.row("rail_links", kind="discount"))["sync_status"] == "synced"
        good(await shop.staff.patch(f"/v1/discounts/{discount}", json={"status": "active"}))
        await stripe_shop.push()
        (back,) = peer.look("promotion_codes?limit=10")["data"]
        assert (back["id"], back["active"]) == (code["id"], True)
        assert await owed(shop) == []

    async def test_a_code_whose_name_was_lost_is_found_and_switched_off(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        discount = await shop.discount("TEN", amount=1_000)
        await stripe_shop.push()
        await shop.scope.run(_forget_codes)
        good(await shop.staff.patch(f"/v1/discounts/{discount}", json={"status": "archived"}))
        await stripe_shop.push()
        (off,) = peer.look("promotion_codes?limit=10")["data"]
        assert off["active"] is False
        assert await owed(shop) == []

    async def test_an_archived_discount_gets_no_code(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        peer.fail("POST /v1/promotion_codes", status=400)
        discount = await shop.discount("TEN", amount=1_000)
        await stripe_shop.push()
        good(await shop.staff.patch(f"/v1/discounts/{discount}", json={"status": "archived"}))
        await stripe_shop.push()
        assert await owed(shop) == []
        assert peer.look("promotion_codes?limit=10")["data"] == []

    async def test_a_code_that_is_taken_is_refused_and_the_coupon_stays(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        other = peer.official().coupons.create({"percent_off": 5, "duration": "once"})
        peer.official().promotion_codes.create({"promotion": {"type": "coupon", "coupon": other.id}, "code": "TEN"})
        discount = await shop.discount("TEN", amount=1_000)
        await stripe_shop.push()
        (row,) = await owed(shop)
        assert row["status"] == "refused"
        link = await shop.row("rail_links", kind="discount")
        assert (link["reference"], link["sync_status"]) == (discount, "refused")
        assert await shop.house.pusher.ensure(shop.scope, RAIL, "discount", discount) == discount

    async def test_what_the_rail_takes_no_money_in_is_not_copied(self, stripe_shop: StripeShop) -> None:
        shop, peer = stripe_shop.shop, stripe_shop.peer
        sold = await shop.tier("editor", amount=21_000, asset="SAT")
        await stripe_shop.push()
        assert await owed(shop) == []
        assert peer.requests("/v1/prices") == []
        with pytest.raises(RailFailed, match="takes no copy of this price"):
            await shop.house.pusher.ensure(shop.scope, RAIL, "price", sold.price_id)

    async def test_what_was_not_owed_is_copied_first(self, stripe_shop: StripeShop) -> None:
        """A price of a product that was archived before the account was connected."""
        shop = stripe_shop.shop
        sold = await shop.tier("editor", amount=1_500, asset="EUR")
        await shop.scope.run(_forget_owed, "product")
        await stripe_shop.push()
        assert [row["kind"] for row in await owed(shop)] == ["price"]
        shop.clock.advance(timedelta(seconds=31))
        await stripe_shop.push()
        assert await owed(shop) == []
        assert await shop.count("rail_links", object_id=sold.price_id) == 1


def _forget_codes(tx: Any) -> None:
    tx.execute(sa.update(rail_links).where(mine(rail_links), rail_links.c.kind == "discount").values(raw={}))


def _forget_owed(tx: Any, kind: str) -> None:
    tx.execute(sa.delete(outbox).where(mine(outbox), outbox.c.kind == kind))


class TestPaddle:
    @pytest.mark.parametrize("luck", ["the answer is lost", "it fails after it acted", "it fails"])
    @pytest.mark.parametrize("dialect", ["sqlite"])
    async def test_bad_luck_never_makes_two(self, paddle_shop: PaddleShop, luck: str) -> None:
        shop, peer = paddle_shop.shop, paddle_shop.peer
        faults: dict[str, dict[str, Any]] = {
            "the answer is lost": {"after": True, "hang_up": True},
            "it fails after it acted": {"after": True, "status": 500},
            "it fails": {"status": 500},
        }
        for place in ("products", "prices", "discounts", "customers"):
            peer.control("fail", match=f"^POST /{place}$", **faults[luck])
        ids = await fill(shop)
        home = {"country_code": "AT", "zip_code": "1010"}
        address = good(await shop.staff.post(f"/v1/customers/{ids['customer']}/addresses", json=home))
        await push_late(shop)
        assert await owed(shop) == []
        for name in ("products", "prices", "discounts", "customers"):
            assert len(peer.api("GET", f"/{name}")) == 1, name
        known = {row["object_id"] for row in await shop.rows("rail_links", sync_status="synced")}
        assert known == {*ids.values(), address["id"]}

    async def test_a_customer_that_is_there_is_taken_over(self, paddle_shop: PaddleShop) -> None:
        shop, peer = paddle_shop.shop, paddle_shop.peer
        theirs = peer.api("POST", "/customers", {"email": "one@example.com", "name": "Before"})
        ids = await fill(shop)
        await paddle_shop.push()
        assert await owed(shop) == []
        link = await shop.row("rail_links", kind="customer")
        assert (link["reference"], link["sync_status"]) == (theirs["id"], "synced")
        now = peer.api("GET", f"/customers/{theirs['id']}")
        assert (now["name"], now["custom_data"]["counterfoil_id"]) == ("One", ids["customer"])

    async def test_a_customer_of_another_object_is_refused(self, paddle_shop: PaddleShop) -> None:
        shop, peer = paddle_shop.shop, paddle_shop.peer
        other = {"counterfoil_id": "cus_another"}
        peer.api("POST", "/customers", {"email": "one@example.com", "custom_data": other})
        new = {"kind": "organization", "name": "One", "email": "one@example.com"}
        good(await shop.staff.post("/v1/customers", json=new))
        await paddle_shop.push()
        (row,) = await owed(shop)
        assert row["status"] == "refused"
        assert row["error"].endswith("as the copy of another object, cus_another")
        assert await shop.count("rail_links") == 0

    async def test_what_was_archived_meanwhile_is_archived_there(self, paddle_shop: PaddleShop) -> None:
        shop, peer = paddle_shop.shop, paddle_shop.peer
        sold = await shop.tier("editor", amount=1_500, asset="EUR")
        good(await shop.staff.patch(f"/v1/products/{sold.product_id}", json={"status": "archived"}))
        await paddle_shop.push()
        (product,) = peer.api("GET", "/products?status=archived")
        assert product["custom_data"]["counterfoil_id"] == sold.product_id
        assert (await shop.row("rail_links", kind="product"))["sync_status"] == "synced"


class TestPace:
    async def test_turns_are_spread_evenly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        at = _clock(monkeypatch)
        pace = Pace(Rate(20, 1, 8))
        turns = []
        for _ in range(41):
            async with pace.turn():
                turns.append(at[0])
        assert turns[-1] - turns[0] == pytest.approx(2.0)

    async def test_a_rail_that_says_to_wait_is_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        at = _clock(monkeypatch)
        pace = Pace(Rate(20, 1, 8))
        pace.hold(10)
        began = at[0]
        async with pace.turn():
            assert at[0] - began == pytest.approx(10)
        pace.hold(60)
        with pytest.raises(NoTurn) as refused:
            async with pace.turn():
                raise AssertionError
        assert refused.value.retry_after == pytest.approx(60)

    def test_whose_limit_it_is(self) -> None:
        paces = Paces(client=None)  # type: ignore[arg-type]
        at_stripe = Connection(StripeRail("stripe"), StripeSettings(api_key="sk_live_x", livemode=True))
        at_paddle = Connection(PaddleRail("paddle"), PaddleSettings(api_key="x", livemode=True))
        assert paces.of("one", at_stripe) is paces.of("one", at_stripe)
        assert paces.of("one", at_stripe) is not paces.of("two", at_stripe)
        assert paces.of("one", at_paddle) is paces.of("two", at_paddle)


def _clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that sleeping moves."""
    at = [1_000.0]

    async def sleep(seconds: float) -> None:
        at[0] += seconds

    monkeypatch.setattr("counterfoil.exchange.pace.time.monotonic", lambda: at[0])
    monkeypatch.setattr("counterfoil.exchange.pace.asyncio.sleep", sleep)
    return at
