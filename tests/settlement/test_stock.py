"""Stock and goods in a sale: never sold twice, given back on every way out, shipped to somewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.app import TRANSACTIONS_OVERLAP, Shop, Sold, competitor, good, opening, problem, total
from tests.support.databases import Dialect

from counterfoil.catalog import stock_reservations
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.base import CheckoutReport, RailRefused
from counterfoil.sales import checkouts, orders
from counterfoil.sales import tables as sales
from counterfoil.sales.types import Order
from counterfoil.settlement import goods, holds
from counterfoil.settlement.checkout import expire_due

QUOTE = timedelta(minutes=15)
HOME = {"name": "Ada Example", "line1": "1 Main Street", "city": "Springfield", "country": "US"}
KEPT = {**HOME, "line2": "", "region": "", "postal_code": "", "phone": ""}


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def count(shop: Shop, sold: Sold, on_hand: int, **fields: Any) -> str:
    """Say how much there is; the item's id."""
    body = {"on_hand": on_hand, **fields}
    return str(good(await shop.staff.put(f"/v1/products/{sold.slug}/stock", json=body))["id"])


async def goods_of(shop: Shop, sold: Sold, **spec: Any) -> None:
    good(await shop.staff.put(f"/v1/products/{sold.slug}/benefits", json={"goods": spec, "tier": sold.tier}))


async def shelf(shop: Shop, item_id: str | None = None) -> tuple[int, int]:
    """On hand and reserved; what is reserved must be what active reservations hold."""
    items = await shop.rows("stock_items")
    (item,) = [row for row in items if item_id in {None, row["id"]}]
    held = await shop.rows("stock_reservations", stock_item_id=item["id"], status="active")
    assert item["reserved"] == total(held, "quantity")
    return item["on_hand"], item["reserved"]


async def fail(shop: Shop, opened: dict[str, Any]) -> None:
    """Have the rail say that nothing will come of it."""
    reference = (await shop.row("checkouts", id=opened["id"]))["rail_reference"]
    report = CheckoutReport(
        rail="sandbox", reference=reference, checkout_id=opened["id"], state="failed", payments=(), final=True
    )
    assert (await shop.settle(report)).outcome == "waiting"


async def statuses(shop: Shop, opened: dict[str, Any]) -> list[str]:
    return [row["status"] for row in await shop.rows("stock_reservations", checkout_id=opened["id"])]


# -- reserved -----------------------------------------------------------------------------------------


async def test_a_sale_takes_from_the_shelf(shop: Shop) -> None:
    sold = await shop.tier("mug")
    await count(shop, sold, 5)
    opened = await shop.checkout((sold, 2))
    assert await shelf(shop) == (5, 2)
    row = await shop.row("stock_reservations")
    assert (row["checkout_id"], row["quantity"], row["status"]) == (opened["id"], 2, "active")
    assert row["expires_at"] == shop.clock.now() + QUOTE
    await shop.play(opened, "pay")
    assert await shelf(shop) == (3, 0)
    assert await statuses(shop, opened) == ["converted"]
    await shop.play(opened, "pay")  # told again
    assert await shelf(shop) == (3, 0)


async def test_what_is_not_there_is_not_sold(shop: Shop) -> None:
    sold, other = await shop.tier("mug"), await shop.tier("cap")
    await count(shop, sold, 2)
    before = await shop.everything()
    told = problem(await shop.try_checkout(other, (sold, 3)), 409, "out_of_stock")
    assert told["detail"] == "Mug: only 2 left."
    assert told["errors"] == [{"pointer": "/lines/1/quantity", "detail": "only 2 left"}]
    assert await shop.everything() == before
    await shop.checkout((sold, 2))
    told = problem(await shop.try_checkout(sold), 409, "out_of_stock")
    assert told["detail"] == "Mug: none left."


async def test_lines_that_take_from_one_item_count_together(shop: Shop) -> None:
    sold = await shop.tier("mug")
    gold = await shop.tier("mug", amount=99_000)  # another price of the same thing
    await count(shop, sold, 3)
    before = await shop.everything()
    told = problem(await shop.try_checkout((sold, 2), (gold, 2)), 409, "out_of_stock")
    assert [error["pointer"] for error in told["errors"]] == ["/lines/0/quantity", "/lines/1/quantity"]
    problem(await shop.try_checkout((sold, 2), (sold, 2)), 409, "out_of_stock")
    assert await shop.everything() == before
    opened = await shop.checkout((sold, 1), (gold, 1), (sold, 1))
    assert (await shop.row("stock_reservations"))["quantity"] == 3
    await shop.play(opened, "pay")
    assert await shelf(shop) == (0, 0)


async def test_a_variant_has_a_shelf_of_its_own(shop: Shop) -> None:
    small, large, plain = [await shop.tier("shirt", amount=amount) for amount in (1_000, 1_100, 1_200)]
    rest = await count(shop, plain, 1)
    of_small = await count(shop, small, 2, price_id=small.price_id)
    of_large = await count(shop, large, 3, price_id=large.price_id)
    opened = await shop.checkout((small, 2), (large, 1), (plain, 1))
    problem(await shop.try_checkout(small), 409, "out_of_stock")
    problem(await shop.try_checkout(plain), 409, "out_of_stock")
    await shop.checkout((large, 2))
    await shop.play(opened, "pay")
    assert [await shelf(shop, one) for one in (rest, of_small, of_large)] == [(0, 0), (0, 0), (2, 2)]


async def test_a_variants_shelf_follows_its_price(shop: Shop) -> None:
    sold = await shop.tier("shirt")
    item = await count(shop, sold, 2, price_id=sold.price_id)
    quote = good(await shop.http.post("/v1/carts", json={"lines": [{"price_id": sold.price_id, "quantity": 2}]}))
    price = sold.price_id
    for amount in (22_000, 23_000):  # quoted in between, so that each change makes a new price
        price = good(await shop.staff.patch(f"/v1/prices/{price}", json={"unit_amount": amount}))["id"]
        body = {"lines": [{"price_id": price, "quantity": 1}]}
        opened = good(await shop.http.post("/v1/checkouts", json=body))
        assert await shelf(shop, item) == (2, 1)
        good(await shop.staff.post(f"/v1/checkouts/{opened['id']}/cancel"))
    assert price != sold.price_id
    assert (await shop.row("stock_items"))["price_id"] == price
    # A quote of the oldest price takes from the same shelf.
    held = good(await shop.http.post("/v1/checkouts", json={"cart_id": quote["claim"], "rail": "sandbox"}))
    assert await shelf(shop, item) == (2, 2)
    await shop.play(held, "pay")
    assert await shelf(shop, item) == (0, 0)
    problem(await shop.http.post("/v1/checkouts", json=body), 409, "out_of_stock")


async def test_backorders_are_sold_and_owed(shop: Shop) -> None:
    sold = await shop.tier("mug")
    await count(shop, sold, 1, policy="allow_backorder")
    opened = await shop.checkout((sold, 3))
    assert await shelf(shop) == (1, 3)
    await shop.play(opened, "pay")
    assert await shelf(shop) == (-2, 0)


async def test_what_is_free_takes_from_the_shelf_at_once(shop: Shop) -> None:
    sold = await shop.tier("sticker", amount=0)
    await count(shop, sold, 1)
    opened = await shop.checkout(sold)
    assert opened["status"] == "settled"
    assert await shelf(shop) == (0, 0)
    problem(await shop.try_checkout(sold), 409, "out_of_stock")


async def test_the_same_request_holds_once(shop: Shop) -> None:
    sold = await shop.tier("mug")
    await count(shop, sold, 5)
    answers = [await shop.checkout((sold, 2), key="same") for _ in range(3)]
    assert len({answer["id"] for answer in answers}) == 1
    assert await shelf(shop) == (5, 2)


# -- given back ---------------------------------------------------------------------------------------


async def test_every_way_out_gives_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    sold = await shop.tier("mug")
    await count(shop, sold, 4)
    opened = [await shop.checkout(sold) for _ in range(3)]
    assert await shelf(shop) == (4, 3)
    await fail(shop, opened[0])
    assert await shelf(shop) == (4, 2)
    good(await shop.staff.post(f"/v1/checkouts/{opened[1]['id']}/cancel"))
    assert await shelf(shop) == (4, 1)
    shop.clock.advance(QUOTE)
    assert await shop.scope.run(expire_due) == 1
    assert await shelf(shop) == (4, 0)

    async def refuse(*_: Any, **__: Any) -> None:
        raise RailRefused("no")

    monkeypatch.setattr("counterfoil.exchange.checkouts.ask_rail", refuse)
    problem(await shop.try_checkout(sold), 502, "rail_refused")
    assert await shelf(shop) == (4, 0)
    assert {row["status"] for row in await shop.rows("stock_reservations")} == {"released"}


async def test_what_was_left_behind_is_found(shop: Shop) -> None:
    sold = await shop.tier("mug")
    await count(shop, sold, 4)
    lost, open_, paying = [await shop.checkout(sold) for _ in range(3)]
    await shop.scope.run(_end, lost["id"], "failed")  # behind the program's back
    await shop.scope.run(_end, paying["id"], "processing")
    assert await shop.scope.run(holds.reap) == 0  # its time is not over
    shop.clock.advance(QUOTE)
    assert await shop.scope.run(holds.reap) == 1
    assert await shelf(shop) == (4, 2)
    assert await statuses(shop, open_) == await statuses(shop, paying) == ["active"]  # money may be on its way
    assert await shop.scope.run(holds.reap) == 0


def _end(tx: Tx, checkout_id: str, status: str) -> None:
    table = sales.checkouts
    tx.execute(sa.update(table).where(mine(table), table.c.id == checkout_id).values(status=status))


async def test_late_money_takes_again_what_is_left(shop: Shop) -> None:
    sold = await shop.tier("mug")
    await count(shop, sold, 2)
    late = await shop.checkout((sold, 2))
    shop.clock.advance(QUOTE)
    await shop.scope.run(expire_due)
    assert await shelf(shop) == (2, 0)
    await shop.play(late, "pay")
    assert (await shop.claim(late))["status"] == "settled"
    assert await shelf(shop) == (0, 0)
    assert await statuses(shop, late) == ["converted"]


async def test_late_money_for_what_is_gone_waits_for_a_person(shop: Shop) -> None:
    sold = await shop.tier("mug")
    await shop.discount("ONCE", amount=1_000, usage_limit=5)
    await count(shop, sold, 2)
    late = await shop.checkout((sold, 2), code="ONCE")
    shop.clock.advance(QUOTE)
    await shop.scope.run(expire_due)
    await shop.checkout(sold)
    await shop.play(late, "pay")
    assert await shop.count("orders") == 0
    assert await shelf(shop) == (2, 1)
    assert await statuses(shop, late) == ["released"]
    assert (await shop.row("discounts"))["times_used"] == 0
    (payment,) = good(await shop.staff.get("/v1/payments", params={"attention": True}))["data"]
    resolve = f"/v1/payments/{payment['id']}/resolve"
    before = await shop.everything()
    told = problem(await shop.staff.post(resolve, json={"resolution": "accepted"}), 409, "out_of_stock")
    assert told["detail"] == "Mug: only 1 left."
    assert await shop.everything() == before
    await count(shop, sold, 3)
    good(await shop.staff.post(resolve, json={"resolution": "accepted"}))
    assert (await shop.claim(late))["status"] == "settled"
    assert await shelf(shop) == (1, 1)
    assert (await shop.row("discounts"))["times_used"] == 1


async def test_a_discount_that_is_gone_takes_no_stock(shop: Shop) -> None:
    sold = await shop.tier("mug")
    await shop.discount("ONCE", amount=1_000, usage_limit=1)
    await count(shop, sold, 5)
    late = await shop.checkout(sold, code="ONCE")
    shop.clock.advance(QUOTE)
    await shop.scope.run(expire_due)
    await shop.checkout(sold, code="ONCE")
    await shop.play(late, "pay")
    assert await shop.count("orders") == 0
    assert await shelf(shop) == (5, 1)
    (payment,) = good(await shop.staff.get("/v1/payments", params={"attention": True}))["data"]
    good(await shop.staff.post(f"/v1/payments/{payment['id']}/resolve", json={"resolution": "accepted"}))
    assert await shelf(shop) == (4, 1)


# -- called off ---------------------------------------------------------------------------------------


async def test_a_checkout_is_called_off_once(shop: Shop) -> None:
    sold = await shop.tier("mug")
    await count(shop, sold, 1)
    opened = await shop.checkout(sold)
    path = f"/v1/checkouts/{opened['id']}/cancel"
    problem(await shop.http.post(path), 401, "unauthorized")
    assert good(await shop.staff.post(path))["status"] == "canceled"
    before = await shop.everything()
    assert good(await shop.staff.post(path))["status"] == "canceled"
    assert await shop.everything() == before
    assert await shop.events("checkout.canceled") == ["checkout.canceled"]
    assert [row["id"] for row in good(await shop.staff.get("/v1/checkouts", params={"status": "canceled"}))["data"]]
    problem(await shop.staff.post("/v1/checkouts/chk_01j00000000000000000000000/cancel"), 404, "checkout_not_found")


async def test_buyers_call_off_their_own(shop: Shop) -> None:
    sold = await shop.tier("mug")
    await count(shop, sold, 1)
    opened = await shop.checkout(sold)
    problem(await shop.http.post(f"/v1/claims/pur_{'0' * 52}/cancel"), 404, "checkout_not_found")
    shown = good(await shop.http.post(f"/v1/claims/{opened['claim']}/cancel"))
    assert (shown["id"], shown["status"], shown["claim"]) == (opened["id"], "canceled", opened["claim"])
    assert await shelf(shop) == (1, 0)


@pytest.mark.parametrize("action", ["pay", "fail", "expire"])
async def test_what_is_not_open_cannot_be_called_off(shop: Shop, action: Any) -> None:
    sold = await shop.tier("mug")
    opened = await shop.checkout(sold)
    if action == "fail":
        await fail(shop, opened)
    else:
        await shop.play(opened, action)
    before = await shop.everything()
    problem(await shop.http.post(f"/v1/claims/{opened['claim']}/cancel"), 409, "checkout_not_open")
    problem(await shop.staff.post(f"/v1/checkouts/{opened['id']}/cancel"), 409, "checkout_not_open")
    assert await shop.everything() == before


async def test_money_for_what_was_called_off_still_buys(shop: Shop) -> None:
    sold = await shop.tier("mug")
    await count(shop, sold, 1)
    opened = await shop.checkout(sold)
    good(await shop.http.post(f"/v1/claims/{opened['claim']}/cancel"))
    await shop.play(opened, "pay")
    assert (await shop.claim(opened))["status"] == "settled"
    assert await shelf(shop) == (0, 0)


# -- races --------------------------------------------------------------------------------------------


async def test_two_hundred_buyers_of_ten_mugs(shop: Shop) -> None:
    sold, cap = await shop.tier("mug"), await shop.tier("cap")
    mugs, caps = await count(shop, sold, 10), await count(shop, cap, 1_000)
    # Half of them ask for the two things in the other order.
    carts = [(sold, cap), (cap, sold)]
    answers = await asyncio.gather(*[shop.try_checkout(*carts[number % 2]) for number in range(200)])
    assert sorted({answer.status_code for answer in answers}) == [201, 409]
    won = [answer.json() for answer in answers if answer.status_code == 201]
    assert len(won) == 10
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"out_of_stock"}
    assert [await shelf(shop, one) for one in (mugs, caps)] == [(10, 10), (1_000, 10)]
    await asyncio.gather(*[shop.play(opened, "pay") for opened in won])
    assert [await shelf(shop, one) for one in (mugs, caps)] == [(0, 0), (990, 0)]
    assert await shop.count("orders") == await shop.count("stock_reservations", stock_item_id=mugs) == 10


async def test_paying_against_expiry_and_new_buyers(shop: Shop) -> None:
    sold = await shop.tier("mug")
    await count(shop, sold, 20)
    opened = [await shop.checkout(sold) for _ in range(20)]
    shop.clock.advance(QUOTE)
    results = await asyncio.gather(
        *[shop.play(one, "pay") for one in opened],
        *[shop.scope.run(expire_due, limit=5) for _ in range(6)],
        *[shop.try_checkout(sold) for _ in range(20)],
    )
    fresh = [answer for answer in results[26:] if answer.status_code == 201]
    on_hand, reserved = await shelf(shop)
    converted = await shop.count("stock_reservations", status="converted")
    assert on_hand + converted == 20
    assert converted == await shop.count("orders")
    assert reserved == await shop.count("stock_reservations", status="active") <= on_hand
    # Whoever paid and got nothing is known to the seller; nobody got what somebody else was promised.
    waiting = good(await shop.staff.get("/v1/payments", params={"attention": True, "limit": 100}))["data"]
    assert converted + len([one for one in waiting if one["status"] == "late"]) >= 20
    assert converted + len(fresh) <= 20


@TRANSACTIONS_OVERLAP
async def test_expiry_that_wins_just_before_settlement(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, dialect: Dialect
) -> None:
    sold = await shop.tier("mug")
    await count(shop, sold, 1)
    opened = await shop.checkout(sold)
    shop.clock.advance(QUOTE)
    expired = competitor(monkeypatch, checkouts, "lock_by_reference", shop.scope, expire_due)
    await shop.play(opened, "pay")
    assert expired == [1]
    assert await shelf(shop) == (0, 0)
    assert (await shop.claim(opened))["status"] == "settled"


@TRANSACTIONS_OVERLAP
async def test_the_last_one_goes_just_before_it_is_taken(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, dialect: Dialect
) -> None:
    sold = await shop.tier("mug")
    item = await count(shop, sold, 1)
    one = stock_reservations.Demand(product_id=sold.product_id, price_id=sold.price_id, quantity=1)
    later = shop.clock.now() + QUOTE

    def rival(tx: Tx) -> None:
        stock_reservations.reserve(tx, "chk_x", stock_reservations.look_up(tx, [one]), later)

    competitor(monkeypatch, stock_reservations, "_take", shop.scope, rival)
    problem(await shop.try_checkout(sold), 409, "out_of_stock")
    assert await shelf(shop, item) == (1, 1)


# -- goods --------------------------------------------------------------------------------------------


async def test_goods_are_shipped_somewhere(shop: Shop) -> None:
    sold = await shop.tier("mug")
    await goods_of(shop, sold, sku="MUG-1", weight_grams=350)
    before = await shop.everything()
    told = problem(await shop.try_checkout((sold, 2)), 422, "shipping_required")
    assert [error["pointer"] for error in told["errors"]] == ["/shipping"]
    assert await shop.everything() == before
    opened = await shop.checkout((sold, 2), shipping={**HOME, "name": " Ada Example "})
    assert (await shop.row("checkouts"))["shipping"] == KEPT
    await shop.play(opened, "pay")
    order = await shop.row("orders")
    assert order["shipping"] == KEPT
    given = {row["kind"]: row for row in await shop.rows("grants") if row["unit"] == 0}
    assert set(given) == {"license", "goods"}  # the tier promises both
    assert (given["goods"]["object_id"], given["goods"]["line"], given["goods"]["status"]) == (order["id"], 0, "active")
    assert await shop.count("grants", kind="goods") == 1
    assert await shop.count("licenses") == 2


async def test_goods_alone_give_no_license(shop: Shop) -> None:
    sold = await shop.tier("mug")
    (license_,) = good(await shop.staff.get("/v1/products/mug/benefits"))
    await goods_of(shop, sold)
    good(await shop.staff.delete(f"/v1/benefits/{license_['id']}"))
    assert await shop.buy(sold, shipping=HOME) == []
    assert await shop.count("licenses") == 0
    assert [row["kind"] for row in await shop.rows("grants")] == ["goods"]


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"name": " "}, "/shipping/name", "invalid_request"),
        ({"line1": "x" * 201}, "/shipping/line1", "invalid_request"),
        ({"city": ""}, "/shipping/city", "invalid_request"),
        ({"country": "XX"}, "/shipping/country", "unknown_country"),
        ({"country": "us"}, "/shipping/country", "unknown_country"),
        ({"phone": "1\n2"}, "/shipping/phone", "invalid_request"),
        ({"region": "a\u202eb"}, "/shipping/region", "invalid_request"),
        ({"planet": "Mars"}, None, "invalid_request"),
        ({"name": None}, None, "invalid_request"),
    ],
)
async def test_what_is_not_an_address(shop: Shop, changes: dict[str, Any], pointer: str | None, code: str) -> None:
    sold = await shop.tier("mug")
    before = await shop.everything()
    told = problem(await shop.try_checkout(sold, shipping={**HOME, **changes}), 422, code)
    if pointer is not None:
        assert [error["pointer"] for error in told["errors"]] == [pointer]
    assert await shop.everything() == before


@pytest.mark.parametrize(
    "body",
    [
        {"goods": {}, "license": {}},
        {},
        {"goods": {}, "kind": "license"},
        {"goods": {"sku": "x" * 101}},
        {"goods": {"sku": " x"}},
        {"goods": {"weight_grams": -1}},
        {"goods": {"weight_grams": 2**40}},
        {"goods": {"color": "red"}},
    ],
)
async def test_what_goods_cannot_be(shop: Shop, body: dict[str, Any]) -> None:
    await shop.tier("mug")
    before = await shop.everything()
    problem(await shop.staff.put("/v1/products/mug/benefits", json=body), 422, "invalid_request")
    assert await shop.everything() == before


# -- put back -----------------------------------------------------------------------------------------


def _put_back(tx: Tx, order_id: str, restock: list[dict[str, Any]]) -> Order:
    order = orders.get(tx, order_id)
    goods.put_back(tx, order, restock)
    return order


async def test_what_comes_back_is_for_sale_again(shop: Shop) -> None:
    mug, cap, free = await shop.tier("mug"), await shop.tier("cap"), await shop.tier("pdf")
    mugs, caps = await count(shop, mug, 5), await count(shop, cap, 5, price_id=cap.price_id)
    await shop.buy((mug, 3), (cap, 2), (free, 1), (mug, 1))
    order = await shop.row("orders")
    # The variant got a new price since; its shelf is the same one.
    good(await shop.staff.patch(f"/v1/prices/{cap.price_id}", json={"unit_amount": 1}))
    restock = [{"line": 0, "quantity": 2}, {"line": 1, "quantity": 1}, {"line": 2, "quantity": 1}]
    shop.clock.advance(QUOTE)
    await shop.scope.run(_put_back, order["id"], [*restock, {"line": 3, "quantity": 1}])
    assert [await shelf(shop, one) for one in (mugs, caps)] == [(4, 0), (4, 0)]
    changed = [row["details"] for row in await shop.rows("events", type="stock.changed")][-2:]
    assert {(row["by"], row["reason"], row["order_id"]) for row in changed} == {
        (3, "returned", order["id"]),
        (1, "returned", order["id"]),
    }


@pytest.mark.parametrize("one", [(3, 1), (-1, 1), (0, 0), (0, 4)])
async def test_what_was_not_in_the_order_does_not_come_back(shop: Shop, one: tuple[int, int]) -> None:
    mug = await shop.tier("mug")
    await count(shop, mug, 5)
    await shop.buy((mug, 3))
    order = await shop.row("orders")
    before = await shop.everything()
    with pytest.raises(Exception, match="restock/0/"):
        await shop.scope.run(_put_back, order["id"], [{"line": one[0], "quantity": one[1]}])
    assert await shop.everything() == before
