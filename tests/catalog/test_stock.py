"""Counting stock: of a product or of a variant, never below what is promised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.app import TRANSACTIONS_OVERLAP, Shop, Sold, good, opening, problem

from counterfoil.catalog import stock
from counterfoil.catalog.stock import MOST
from counterfoil.catalog.tables import stock_items
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

SECOND = timedelta(seconds=1)
NOW = "2026-01-02T03:04:05.678901Z"
LATER = "2026-01-02T03:04:06.678901Z"
NOBODY = "01j00000000000000000000000"


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def count(shop: Shop, sold: Sold, **fields: Any) -> dict[str, Any]:
    """Say how much there is."""
    return dict(good(await shop.staff.put(f"/v1/products/{sold.slug}/stock", json=fields)))


async def adjust(shop: Shop, sold: Sold, by: int, **fields: Any) -> dict[str, Any]:
    path = f"/v1/products/{sold.slug}/stock/adjust"
    return dict(good(await shop.staff.post(path, json={"by": by, **fields})))


async def tamper(shop: Shop, values: dict[str, int], item_id: str) -> None:
    """Change an item behind the program's back."""
    await shop.scope.run(_tamper, values, item_id)


def _tamper(tx: Tx, values: dict[str, int], item_id: str) -> None:
    tx.execute(sa.update(stock_items).where(mine(stock_items), stock_items.c.id == item_id).values(**values))


async def refused(shop: Shop, method: str, path: str, body: Any, status: int, code: str) -> dict[str, Any]:
    """What stock does not allow, and what leaves everything as it was."""
    before = await shop.everything()
    told = problem(await shop.staff.request(method, path, json=body), status, code)
    assert await shop.everything() == before
    return told


# -- counted ------------------------------------------------------------------------------------------


async def test_stock_in_every_detail(shop: Shop) -> None:
    sold = await shop.tier("mug")
    item = await count(shop, sold, on_hand=5)
    assert item == {
        "id": item["id"],
        "product_id": sold.product_id,
        "price_id": None,
        "on_hand": 5,
        "reserved": 0,
        "available": 5,
        "policy": "deny",
        "created_at": NOW,
        "updated_at": NOW,
    }
    assert item["id"].startswith("stk_")
    shop.clock.advance(SECOND)
    await shop.checkout((sold, 2))
    assert await count(shop, sold, policy="allow_backorder") == {
        **item, "reserved": 2, "available": 3, "policy": "allow_backorder", "updated_at": LATER,
    }  # fmt: skip
    shop.clock.advance(SECOND)
    assert (await count(shop, sold, on_hand=9))["policy"] == "allow_backorder"  # what is left out stays
    shop.clock.advance(SECOND)
    taken = await adjust(shop, sold, -4, reason="  lost in the post ")
    assert (taken["on_hand"], taken["available"]) == (5, 3)
    assert good(await shop.staff.get(f"/v1/stock/{item['id']}")) == taken
    assert good(await shop.staff.get("/v1/stock")) == {"data": [taken], "next": None}
    details = [row["details"] for row in await shop.rows("events", object_id=item["id"])]
    about = {"product_id": sold.product_id, "price_id": None}
    assert details == [
        {**about, "on_hand": 5, "reserved": 0, "policy": "deny"},
        {**about, "on_hand": 5, "reserved": 2, "policy": "allow_backorder"},
        {**about, "on_hand": 9, "reserved": 2, "policy": "allow_backorder"},
        {**about, "on_hand": 5, "reserved": 2, "policy": "allow_backorder", "by": -4, "reason": "lost in the post"},
    ]
    assert set(await shop.events("stock.changed", "stock.untracked")) == {"stock.changed"}


async def test_lists_page_and_know_their_product(shop: Shop) -> None:
    mug, cap = await shop.tier("mug"), await shop.tier("cap")
    red = await shop.tier("cap", amount=9)
    made = [
        await count(shop, mug, on_hand=1),
        await count(shop, cap, on_hand=2),
        await count(shop, cap, on_hand=3, price_id=red.price_id),
    ]
    made.sort(key=lambda item: str(item["id"]))
    first = good(await shop.staff.get("/v1/stock", params={"limit": 2}))
    rest = good(await shop.staff.get("/v1/stock", params={"limit": 2, "after": first["next"]}))
    assert first["data"] + rest["data"] == made
    assert rest["next"] is None
    of_cap = good(await shop.staff.get("/v1/stock", params={"product": "cap"}))["data"]
    assert {(one["price_id"], one["on_hand"]) for one in of_cap} == {(None, 2), (red.price_id, 3)}
    problem(await shop.staff.get("/v1/stock", params={"product": "none"}), 404, "product_not_found")
    problem(await shop.staff.get("/v1/stock", params={"after": "x"}), 422, "invalid_cursor")
    problem(await shop.staff.get(f"/v1/stock/stk_{NOBODY}"), 404, "stock_not_found")
    problem(await shop.staff.get(f"/v1/stock/stk_{NOBODY}/reservations"), 404, "stock_not_found")
    problem(await shop.http.get("/v1/stock"), 401, "unauthorized")


async def test_what_checkouts_hold_is_listed(shop: Shop) -> None:
    sold = await shop.tier("mug")
    item = await count(shop, sold, on_hand=5)
    one, two = await shop.checkout((sold, 2)), await shop.checkout(sold)
    await shop.play(one, "pay")
    shown = good(await shop.staff.get(f"/v1/stock/{item['id']}/reservations"))["data"]
    assert {(row["checkout_id"], row["quantity"], row["status"]) for row in shown} == {
        (one["id"], 2, "converted"),
        (two["id"], 1, "active"),
    }
    held = good(await shop.staff.get(f"/v1/stock/{item['id']}/reservations", params={"status": "active"}))["data"]
    assert [(row["checkout_id"], row["expires_at"]) for row in held] == [(two["id"], two["expires_at"])]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"on_hand": -1}, "/on_hand"),
        ({"on_hand": MOST + 1}, "/on_hand"),
        ({"on_hand": 2**70}, "/on_hand"),
        ({"on_hand": 1.5}, None),
        ({"on_hand": 1, "policy": "maybe"}, None),
        ({"on_hand": 1, "product": "mug"}, None),
    ],
)
async def test_what_cannot_be_counted(shop: Shop, body: dict[str, Any], pointer: str | None) -> None:
    await shop.tier("mug")
    told = await refused(shop, "PUT", "/v1/products/mug/stock", body, 422, "invalid_request")
    if pointer is not None:
        assert [error["pointer"] for error in told["errors"]] == [pointer]


async def test_whose_stock_it_is_must_be_known(shop: Shop) -> None:
    sold, other = await shop.tier("mug"), await shop.tier("cap")
    stock = "/v1/products/mug/stock"
    await refused(shop, "PUT", "/v1/products/none/stock", {"on_hand": 1}, 404, "product_not_found")
    await refused(shop, "PUT", stock, {"on_hand": 1, "price_id": f"pri_{NOBODY}"}, 404, "price_not_found")
    await refused(shop, "PUT", stock, {"on_hand": 1, "price_id": other.price_id}, 422, "price_of_other_product")
    await refused(shop, "PUT", stock, {}, 422, "on_hand_required")
    await refused(shop, "PUT", stock, {"policy": "deny"}, 422, "on_hand_required")
    await refused(shop, "POST", f"{stock}/adjust", {"by": 1}, 404, "stock_not_found")
    await refused(shop, "DELETE", stock, None, 404, "stock_not_found")
    await count(shop, sold, on_hand=1)
    await refused(shop, "POST", f"{stock}/adjust", {"by": 1, "price_id": sold.price_id}, 404, "stock_not_found")


async def test_adjusting_has_bounds(shop: Shop) -> None:
    sold = await shop.tier("mug")
    await count(shop, sold, on_hand=5)
    path = "/v1/products/mug/stock/adjust"
    for by in (0, MOST + 1, -MOST - 1):
        await refused(shop, "POST", path, {"by": by}, 422, "invalid_request")
    await refused(shop, "POST", path, {"by": MOST}, 422, "invalid_request")
    await refused(shop, "POST", path, {"by": 1, "reason": "x" * 501}, 422, "invalid_request")
    await refused(shop, "POST", path, {"by": 1, "reason": "a\u202eb"}, 422, "invalid_request")
    await refused(shop, "POST", path, {"by": -6}, 409, "stock_reserved")


# -- promised -----------------------------------------------------------------------------------------


async def test_nothing_goes_below_what_is_held(shop: Shop) -> None:
    sold = await shop.tier("mug")
    await count(shop, sold, on_hand=5)
    await shop.checkout((sold, 4))
    stock = "/v1/products/mug/stock"
    await refused(shop, "PUT", stock, {"on_hand": 3}, 409, "stock_reserved")
    await refused(shop, "POST", f"{stock}/adjust", {"by": -2}, 409, "stock_reserved")
    assert (await adjust(shop, sold, -1))["available"] == 0
    assert (await count(shop, sold, on_hand=4))["available"] == 0
    assert (await count(shop, sold, on_hand=0, policy="allow_backorder"))["available"] == -4


async def test_backorders_end_when_there_is_enough(shop: Shop) -> None:
    sold = await shop.tier("mug")
    item = await count(shop, sold, on_hand=1, policy="allow_backorder")
    await shop.checkout((sold, 3))
    stock = "/v1/products/mug/stock"
    await refused(shop, "PUT", stock, {"policy": "deny"}, 409, "stock_backordered")
    await refused(shop, "PUT", stock, {"policy": "deny", "on_hand": 2}, 409, "stock_backordered")
    paid = await shop.checkout(sold)
    await shop.play(paid, "pay")
    assert good(await shop.staff.get(f"/v1/stock/{item['id']}"))["on_hand"] == 0
    assert (await adjust(shop, sold, -7))["on_hand"] == -7  # owed
    await refused(shop, "PUT", stock, {"policy": "deny"}, 409, "stock_backordered")
    denied = await count(shop, sold, policy="deny", on_hand=3)
    assert (denied["available"], denied["policy"]) == (0, "deny")


async def test_what_is_not_counted_any_more_never_runs_out(shop: Shop) -> None:
    sold = await shop.tier("mug")
    item = await count(shop, sold, on_hand=1)
    held = await shop.checkout(sold)
    problem(await shop.try_checkout(sold), 409, "out_of_stock")
    shop.clock.advance(SECOND)
    assert good(await shop.staff.delete("/v1/products/mug/stock"))["on_hand"] == 1
    assert await shop.count("stock_items") == await shop.count("stock_reservations") == 0
    assert (await shop.events())[-1] == "stock.untracked"
    await shop.checkout((sold, 50))
    await shop.play(held, "pay")
    assert (await shop.claim(held))["status"] == "settled"
    again = await count(shop, sold, on_hand=2)
    assert again["id"] != item["id"]
    assert again["reserved"] == 0


# -- at once ------------------------------------------------------------------------------------------


async def test_many_counts_at_once_are_one_item(shop: Shop) -> None:
    sold = await shop.tier("mug")
    path = "/v1/products/mug/stock"
    answers = await asyncio.gather(*[shop.staff.put(path, json={"on_hand": 7}) for _ in range(50)])
    assert {answer.status_code for answer in answers} == {200}
    assert (await shop.row("stock_items"))["on_hand"] == 7
    answers = await asyncio.gather(*[shop.staff.post(f"{path}/adjust", json={"by": -1}) for _ in range(100)])
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [409] * 93
    item = await shop.row("stock_items")
    assert (item["product_id"], item["on_hand"]) == (sold.product_id, 0)


@TRANSACTIONS_OVERLAP
async def test_counted_by_another_between_two_looks(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.util import await_only

    await shop.tier("mug")
    look = Tx.one
    others = []

    def look_after_another(tx: Tx, statement: Any, params: Any = MappingProxyType({})) -> Any:
        if statement is stock._FIND and not others:
            others.append(None)
            others[0] = await_only(shop.scope.run(stock.set_, "mug", on_hand=5))
        return look(tx, statement, params)

    monkeypatch.setattr(Tx, "one", look_after_another)
    assert good(await shop.staff.put("/v1/products/mug/stock", json={"on_hand": 7}))["on_hand"] == 7
    assert [item.on_hand for item in others] == [5]
    assert await shop.count("stock_items") == 1


# -- reconciled ---------------------------------------------------------------------------------------


async def test_reconcile_says_what_is_wrong_and_corrects_it(shop: Shop) -> None:
    sold, other = await shop.tier("mug"), await shop.tier("cap")
    item = await count(shop, sold, on_hand=9)
    await count(shop, other, on_hand=9)
    await shop.checkout((sold, 2), (other, 3))
    gone = await shop.checkout((sold, 4))
    good(await shop.staff.post(f"/v1/checkouts/{gone['id']}/cancel"))
    assert good(await shop.staff.post("/v1/stock/reconcile", json={})) == []
    await tamper(shop, {"reserved": 7}, item["id"])
    wrong = {
        "stock_item_id": item["id"],
        "product_id": sold.product_id,
        "price_id": None,
        "on_hand": 9,
        "reserved": 7,
        "held": 2,
        "fixed": False,
    }
    before = await shop.everything()
    assert good(await shop.staff.post("/v1/stock/reconcile", json={"fix": False})) == [wrong]
    assert await shop.everything() == before
    shop.clock.advance(SECOND)
    assert good(await shop.staff.post("/v1/stock/reconcile", json={"fix": True})) == [{**wrong, "fixed": True}]
    assert (await shop.row("stock_items", id=item["id"]))["reserved"] == 2
    last = (await shop.rows("events", object_id=item["id"]))[-1]["details"]
    assert (last["reason"], last["was_reserved"], last["reserved"]) == ("reconciled", 7, 2)
    assert good(await shop.staff.post("/v1/stock/reconcile", json={"fix": True})) == []


async def test_reconcile_does_not_promise_what_is_not_there(shop: Shop) -> None:
    sold = await shop.tier("mug")
    item = await count(shop, sold, on_hand=3)
    await shop.checkout((sold, 3))
    await tamper(shop, {"reserved": 0, "on_hand": 1}, item["id"])
    (found,) = good(await shop.staff.post("/v1/stock/reconcile", json={"fix": True}))
    assert (found["held"], found["fixed"]) == (3, False)
    await count(shop, sold, policy="allow_backorder")
    (found,) = good(await shop.staff.post("/v1/stock/reconcile", json={"fix": True}))
    assert found["fixed"] is True
    assert (await shop.row("stock_items"))["reserved"] == 3


async def test_a_count_that_went_wrong_keeps_no_checkout_from_ending(shop: Shop) -> None:
    sold = await shop.tier("mug")
    item = await count(shop, sold, on_hand=5)
    one, two = await shop.checkout((sold, 2)), await shop.checkout((sold, 2))
    await tamper(shop, {"reserved": 1}, item["id"])
    good(await shop.staff.post(f"/v1/checkouts/{one['id']}/cancel"))
    assert (await shop.row("stock_items"))["reserved"] == 0
    await shop.play(two, "pay")
    assert (await shop.claim(two))["status"] == "settled"
    row = await shop.row("stock_items")
    assert (row["on_hand"], row["reserved"]) == (3, 0)
