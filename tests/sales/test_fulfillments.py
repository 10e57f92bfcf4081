"""Parcels: what is in them never exceeds the order, and the order follows them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.app import Shop, good, opening, problem
from tests.support.orders import imported, pack, packed, status_of, tick

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.sales import orders


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def do(shop: Shop, parcel: str, what: str, **tracking: Any) -> dict[str, Any]:
    tick(shop)
    body = {"json": tracking} if what == "ship" else {}
    answer: dict[str, Any] = good(await shop.staff.post(f"/v1/fulfillments/{parcel}/{what}", **body))
    return answer


def now(shop: Shop) -> str:
    return shop.clock.now().isoformat().replace("+00:00", "Z")


async def steps(shop: Shop, order_id: str) -> list[str]:
    shown = good(await shop.staff.get(f"/v1/orders/{order_id}/history"))["data"]
    return [step["to_status"] for step in shown]


async def test_two_parcels_from_packing_to_the_door(shop: Shop) -> None:
    order = await imported(shop, "1", 2, 1)
    tick(shop)
    first = good(await pack(shop, order["id"], (1, 1), (0, 1), carrier=" DHL ", metadata={"box": "S"}))
    at = now(shop)
    assert first == {
        "id": first["id"], "order_id": order["id"], "status": "pending",
        "items": [{"line": 0, "quantity": 1}, {"line": 1, "quantity": 1}],
        "carrier": "DHL", "tracking_number": "", "tracking_url": None, "shipped_at": None, "delivered_at": None,
        "metadata": {"box": "S"}, "created_at": at, "updated_at": at,
    }  # fmt: skip
    assert await status_of(shop, order["id"]) == "partially_fulfilled"
    second = await packed(shop, order["id"], (0, 1))
    assert await status_of(shop, order["id"]) == "fulfilled"
    url = "https://example.com/track?id=1"
    shipped = await do(shop, first["id"], "ship", tracking_number="JD01", tracking_url=url)
    assert (shipped["status"], shipped["carrier"], shipped["tracking_number"], shipped["tracking_url"]) == (
        "shipped", "DHL", "JD01", url,
    )  # fmt: skip
    assert shipped["shipped_at"] == (left_at := now(shop))
    assert await status_of(shop, order["id"]) == "fulfilled"
    await do(shop, second, "ship")
    assert await status_of(shop, order["id"]) == "shipped"
    delivered = await do(shop, second, "deliver")
    assert delivered["delivered_at"] == now(shop)
    assert left_at < delivered["shipped_at"] < delivered["delivered_at"]
    assert await status_of(shop, order["id"]) == "shipped"
    await do(shop, first["id"], "deliver")
    assert await steps(shop, order["id"]) == ["paid", "partially_fulfilled", "fulfilled", "shipped", "delivered"]
    shown = good(await shop.staff.get(f"/v1/orders/{order['id']}"))
    assert [(one["id"], one["status"]) for one in shown["fulfillments"]] == [
        (first["id"], "delivered"), (second, "delivered"),
    ]  # fmt: skip
    assert [step["note"] for step in shown["history"][1:3]] == [f"Parcel {first['id']}", f"Parcel {second}"]
    told = [one.removeprefix("fulfillment.") for one in await shop.events() if one.startswith("fulfillment.")]
    assert Counter(told) == {"created": 2, "shipped": 2, "delivered": 2}


async def test_canceling_brings_the_order_back(shop: Shop) -> None:
    order = await imported(shop, "1", 1, 1)
    one, two = await packed(shop, order["id"], (0, 1)), await packed(shop, order["id"], (1, 1))
    await do(shop, one, "cancel")
    assert await status_of(shop, order["id"]) == "partially_fulfilled"
    await do(shop, two, "cancel")
    assert await status_of(shop, order["id"]) == "processing"
    again = await packed(shop, order["id"], (0, 1), (1, 1))
    await do(shop, again, "ship")
    assert await steps(shop, order["id"]) == [
        "paid", "partially_fulfilled", "fulfilled", "partially_fulfilled", "processing", "fulfilled", "shipped",
    ]  # fmt: skip


async def test_only_goods_count_where_there_are_goods(shop: Shop) -> None:
    mug = {"name": "Mug", "quantity": 2, "unit_amount": 5, "total": 10, "ships": True}
    order = await imported(shop, "1", {"name": "License", "unit_amount": 5, "total": 5}, mug)
    license_parcel = await packed(shop, order["id"], (0, 1))
    assert await status_of(shop, order["id"]) == "paid"
    await do(shop, license_parcel, "cancel")
    assert await status_of(shop, order["id"]) == "paid"
    half = await packed(shop, order["id"], (1, 1))
    assert await status_of(shop, order["id"]) == "partially_fulfilled"
    rest = await packed(shop, order["id"], (1, 1))
    for parcel in (half, rest):
        await do(shop, parcel, "ship")
    assert await status_of(shop, order["id"]) == "shipped"


async def test_an_order_that_a_person_moved_on_stays_there(shop: Shop) -> None:
    order = await imported(shop, "1", 2)
    tick(shop)
    await shop.scope.run(orders.advance, order["id"], "shipped")
    parcel = await packed(shop, order["id"], (0, 2))
    assert await status_of(shop, order["id"]) == "shipped"
    await do(shop, parcel, "ship")
    await do(shop, parcel, "deliver")
    assert await steps(shop, order["id"]) == ["paid", "shipped", "delivered"]


async def test_every_pair_of_states(shop: Shop) -> None:
    order = await imported(shop, "1", 100)
    allowed = {("pending", "ship"), ("pending", "cancel"), ("shipped", "deliver")}
    ways = {"pending": [], "shipped": ["ship"], "delivered": ["ship", "deliver"], "canceled": ["cancel"]}
    names = {"ship": "shipped", "deliver": "delivered", "cancel": "canceled"}
    for before, way in ways.items():
        for what, after in names.items():
            parcel = await packed(shop, order["id"], (0, 1))
            for step in way:
                await do(shop, parcel, step)
            if (before, what) in allowed:
                assert (await do(shop, parcel, what))["status"] == after
                continue
            kept = await shop.everything()
            body = {"json": {}} if what == "ship" else {}
            refused = problem(
                await shop.staff.post(f"/v1/fulfillments/{parcel}/{what}", **body), 409, "illegal_transition"
            )
            assert refused["detail"] == f"A parcel cannot go from {before} to {after}."
            assert await shop.everything() == kept


async def test_tracking(shop: Shop) -> None:
    order = await imported(shop, "1", 2)
    parcel = await packed(shop, order["id"], (0, 1), carrier="UPS", tracking_url="http://example.com/1")
    path = f"/v1/fulfillments/{parcel}"
    tick(shop)
    changed = good(await shop.staff.patch(path, json={"tracking_number": "1Z", "tracking_url": None}))
    assert (changed["carrier"], changed["tracking_number"], changed["tracking_url"]) == ("UPS", "1Z", None)
    assert good(await shop.staff.get(path)) == changed
    assert (await shop.events())[-1] == "fulfillment.updated"
    before = await shop.everything()
    for field, value in (
        ("tracking_url", "ftp://example.com/1"), ("tracking_url", "javascript:alert(1)"),
        ("tracking_url", "https://a b"), ("tracking_url", 'https://a"b'), ("tracking_url", "https://" + "a" * 2000),
        ("carrier", "x" * 101), ("carrier", "a\nb"), ("tracking_number", "x" * 201), ("status", "shipped"),
        ("carrier", None),
    ):  # fmt: skip
        problem(await shop.staff.patch(path, json={field: value}), 422, "invalid_request")
        problem(await shop.staff.post(f"{path}/ship", json={field: value}), 422, "invalid_request")
        if value is not None:
            problem(await pack(shop, order["id"], (0, 1), **{field: value}), 422, "invalid_request")
    assert await shop.everything() == before
    await do(shop, parcel, "cancel")
    problem(await shop.staff.patch(path, json={"carrier": "DHL"}), 409, "fulfillment_canceled")


async def test_bad_parcels_change_nothing(shop: Shop) -> None:
    order = await imported(shop, "1", 2, 3)
    await packed(shop, order["id"], (0, 1))
    before = await shop.everything()
    for items, status, code in (
        ([], 422, "no_items"),
        ([(2, 1)], 422, "unknown_line"),
        ([(-1, 1)], 422, "unknown_line"),
        ([(10**30, 1)], 422, "unknown_line"),
        ([(0, 0)], 422, "quantity_out_of_range"),
        ([(0, -1)], 422, "quantity_out_of_range"),
        ([(0, 1), (0, 1)], 422, "duplicate_line"),
        ([(0, 2)], 409, "quantity_exceeds_order"),
        ([(1, 3), (0, 2)], 409, "quantity_exceeds_order"),
        ([(1, 10**30)], 409, "quantity_exceeds_order"),
    ):
        problem(await pack(shop, order["id"], *items), status, code)
    problem(await pack(shop, order["id"], (0, 1), metadata={"x": "y" * 11_000}), 422, "invalid_request")
    problem(await pack(shop, "ord_x", (0, 1)), 404, "order_not_found")
    for method, path in (
        ("GET", "/v1/orders/ord_x/fulfillments"), ("GET", "/v1/fulfillments/ful_x"),
        ("POST", "/v1/fulfillments/ful_x/deliver"), ("POST", "/v1/fulfillments/ful_x/cancel"),
    ):  # fmt: skip
        code = "order_not_found" if "orders" in path else "fulfillment_not_found"
        problem(await shop.staff.request(method, path), 404, code)
    for method, path in (("PATCH", "/v1/fulfillments/ful_x"), ("POST", "/v1/fulfillments/ful_x/ship")):
        problem(await shop.staff.request(method, path, json={}), 404, "fulfillment_not_found")
    assert await shop.everything() == before


async def test_orders_of_which_nothing_is_sent(shop: Shop) -> None:
    unpaid = await imported(shop, "1", status="created")
    canceled, refunded, done = [await imported(shop, str(place), 2) for place in (2, 3, 4)]
    await shop.scope.run(orders.advance, canceled["id"], "canceled")
    parcel = await packed(shop, refunded["id"], (0, 1))
    left = await packed(shop, refunded["id"], (0, 1))
    await do(shop, left, "ship")
    await shop.scope.run(orders.note_refund, refunded["id"], 1000)
    await shop.scope.run(orders.advance, done["id"], "delivered")
    before = await shop.everything()
    for order in (unpaid, canceled, refunded, done):
        problem(await pack(shop, order["id"], (0, 1)), 409, "order_not_fulfillable")
    problem(await shop.staff.post(f"/v1/fulfillments/{parcel}/ship", json={}), 409, "order_not_fulfillable")
    assert await shop.everything() == before
    # What is under way still arrives, and what is not is unpacked; the order stays refunded.
    assert (await do(shop, left, "deliver"))["status"] == "delivered"
    assert (await do(shop, parcel, "cancel"))["status"] == "canceled"
    assert await status_of(shop, refunded["id"]) == "refunded"


async def test_a_hundred_who_pack_at_once_pack_what_there_is(shop: Shop) -> None:
    order = await imported(shop, "1", 30, 7)
    wanted = [((0, 2),) if place % 2 else ((1, 1), (0, 1)) for place in range(100)]
    answers = await asyncio.gather(*[pack(shop, order["id"], *items) for items in wanted])
    counted = Counter(answer.status_code for answer in answers)
    assert set(counted) == {201, 409}
    packed_of = Counter[int]()
    for row in await shop.rows("fulfillment_items"):
        packed_of[row["line"]] += row["quantity"]
    assert packed_of[0] in {29, 30}  # a lone unit is left where only pairs came late
    assert packed_of[1] == 7
    assert await shop.count("fulfillments") == counted[201]
    codes = {answer.json()["code"] for answer in answers if answer.status_code == 409}
    assert codes == {"quantity_exceeds_order"}
    assert await status_of(shop, order["id"]) == ("fulfilled" if packed_of[0] == 30 else "partially_fulfilled")


async def test_shipping_against_canceling(shop: Shop) -> None:
    order = await imported(shop, "1", 20)
    parcels = [await packed(shop, order["id"], (0, 1)) for _ in range(20)]
    answers = await asyncio.gather(
        *[shop.staff.post(f"/v1/fulfillments/{one}/ship", json={}) for one in parcels],
        *[shop.staff.post(f"/v1/fulfillments/{one}/cancel") for one in parcels],
    )
    assert Counter(answer.status_code for answer in answers) == {200: 20, 409: 20}
    states = Counter(row["status"] for row in await shop.rows("fulfillments"))
    assert states["shipped"] + states["canceled"] == 20


async def test_pages_of_parcels(shop: Shop) -> None:
    order = await imported(shop, "1", 5)
    made = [await packed(shop, order["id"], (0, 1)) for _ in range(5)]
    path = f"/v1/orders/{order['id']}/fulfillments"
    first = good(await shop.staff.get(path, params={"limit": 3}))
    rest = good(await shop.staff.get(path, params={"limit": 3, "after": first["next"]}))
    assert [one["id"] for one in first["data"] + rest["data"]] == made
    assert [one["items"] for one in rest["data"]] == [[{"line": 0, "quantity": 1}]] * 2
    assert rest["next"] is None
    history = good(await shop.staff.get(f"/v1/orders/{order['id']}/history", params={"limit": 2}))
    more = good(await shop.staff.get(f"/v1/orders/{order['id']}/history", params={"after": history["next"]}))
    assert [step["to_status"] for step in history["data"] + more["data"]] == [
        "paid", "partially_fulfilled", "fulfilled",
    ]  # fmt: skip
