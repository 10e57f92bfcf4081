"""Orders over HTTP: who may, what the answers look like, and that they are described."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.support.app import Shop, client_of, good, opening, problem
from tests.support.orders import imported, new_order, packed

from counterfoil.accounts import api_keys
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

pytestmark = pytest.mark.parametrize("dialect", ["sqlite"])


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def test_what_an_order_looks_like(shop: Shop) -> None:
    opened = await shop.checkout(await shop.tier(), email="ada@example.com")
    await shop.play(opened, "pay")
    (listed,) = good(await shop.staff.get("/v1/orders"))["data"]
    shown = good(await shop.staff.get(f"/v1/orders/{listed['id']}"))
    (license_,) = await shop.rows("licenses")
    (step,) = await shop.rows("order_history")
    at = listed["created_at"]
    assert shown == listed | {
        "license_ids": [license_["id"]],
        "history": [
            {"id": step["id"], "order_id": listed["id"], "from_status": "created", "to_status": "paid", "note": "",
             "actor_kind": "rail", "actor_id": "sandbox", "created_at": at}
        ],
        "fulfillments": [],
    }  # fmt: skip
    assert (shown["source"], shown["purchase_reference"], shown["checkout_id"]) == (
        "sandbox", opened["id"], opened["id"],
    )  # fmt: skip


async def test_total_only_when_asked_for(shop: Shop) -> None:
    await imported(shop, "1")
    assert set(good(await shop.staff.get("/v1/orders"))) == {"data", "next"}
    assert good(await shop.staff.get("/v1/orders?total=true"))["total"] == {"count": 1, "is_exact": True}


async def test_readers_do_not_move_orders(shop: Shop) -> None:
    order = await imported(shop, "1", 2)
    parcel = await packed(shop, order["id"], (0, 1))
    secret = api_keys.new_secret()
    await shop.scope.run(api_keys.create, "reader", ["orders:read"], secret=secret)
    before = await shop.everything("api_keys")
    async with client_of(shop.app, headers={"Authorization": f"Bearer {secret}"}) as reader:
        for path in (
            "/v1/orders", f"/v1/orders/{order['id']}", f"/v1/orders/{order['id']}/history", "/v1/orders/export.csv",
            f"/v1/orders/{order['id']}/fulfillments", f"/v1/fulfillments/{parcel}",
        ):  # fmt: skip
            assert (await reader.get(path)).status_code == 200
            assert (await shop.http.get(path)).status_code == 401
        for method, path in (
            ("POST", "/v1/orders"), ("POST", f"/v1/orders/{order['id']}/status"),
            ("POST", f"/v1/orders/{order['id']}/fulfillments"), ("PATCH", f"/v1/fulfillments/{parcel}"),
            *[("POST", f"/v1/fulfillments/{parcel}/{what}") for what in ("ship", "deliver", "cancel")],
        ):  # fmt: skip
            problem(await reader.request(method, path, json={}), 403, "missing_scope")
    assert await shop.everything("api_keys") == before


async def test_an_import_repeated_under_its_key_is_answered_as_before(shop: Shop) -> None:
    headers = {"Idempotency-Key": "till-1"}
    first = await shop.staff.post("/v1/orders", json=new_order("1"), headers=headers)
    again = await shop.staff.post("/v1/orders", json=new_order("1"), headers=headers)
    assert (first.status_code, again.status_code, first.content) == (201, 201, again.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert await shop.count("orders") == 1


async def test_the_description(shop: Shop) -> None:
    paths = good(await shop.http.get("/v1/openapi.json"))["paths"]
    assert {"200", "201", "404", "422"} <= set(paths["/v1/orders"]["post"]["responses"])
    assert list(paths["/v1/orders/export.csv"]["get"]["responses"]["200"]["content"]) == ["text/csv"]
    names = {one["name"] for one in paths["/v1/orders"]["get"]["parameters"]}
    assert names == {
        "after", "limit", "order", "status", "search", "email", "customer_id", "partially_refunded", "created_after",
        "created_before", "total",
    }  # fmt: skip
