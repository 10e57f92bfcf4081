"""Comparing a rail's copies with what they are copies of."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from tests.support.app import Shop, good
from tests.support.paddle_shop import RAIL as PADDLE
from tests.support.paddle_shop import PaddleShop
from tests.support.stripe_shop import RAIL as STRIPE
from tests.support.stripe_shop import StripeShop

from counterfoil.exchange.comparing import Comparison, KindCompared, compare
from counterfoil.kernel.errors import NotFound

pytestmark = pytest.mark.xdist_group("rail-copies")


async def look(shop: Shop, rail: str) -> Comparison:
    shop.clock.advance(timedelta(seconds=1))
    return await compare(shop.scope, shop.house.rails, shop.house.pusher, rail)


def counts(result: Comparison) -> dict[str, KindCompared]:
    return {one.kind: one for one in result.kinds if one != KindCompared(one.kind)}


async def test_stripe(stripe_shop: StripeShop) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    kept = await shop.tier("editor", amount=1_500, asset="EUR")
    renamed = await shop.tier("writer", amount=1_500, asset="EUR")
    customers = [
        good(await shop.staff.post("/v1/customers", json={"kind": "person", "name": name, "email": email}))["id"]
        for name, email in (("Ada", "ada@example.com"), ("Bob", "bob@example.com"))
    ]
    await shop.discount("TEN", amount=1_000)
    await stripe_shop.push()
    result = await look(shop, STRIPE)
    assert (result.differences, {kind: one.in_step for kind, one in counts(result).items()}) == (
        [],
        {"product": 2, "price": 2, "discount": 1, "customer": 2},
    )
    peer.official().products.update(renamed.product_id, {"name": "Something else"})
    peer.official().products.create({"name": "Theirs"})
    gone = await shop.row("rail_links", object_id=customers[1])
    peer.official().customers.delete(gone["reference"])
    good(await shop.staff.patch(f"/v1/products/{kept.product_id}", json={"name": "Not sent yet"}))
    result = await look(shop, STRIPE)
    assert counts(result)["product"] == KindCompared("product", different=1, owed=1, not_ours=1)
    assert counts(result)["customer"] == KindCompared("customer", in_step=1, missing=1)
    found = {one.object_id: one.fields for one in result.differences}
    assert found == {renamed.product_id: ["name"], customers[1]: []}
    different = {row["object_id"] for row in await shop.rows("rail_links", sync_status="different")}
    assert different == set(found)
    (status,) = good(await shop.staff.get("/v1/sync"))
    assert (status["different"], status["owed"], status["copies"]) == (2, 1, 7)


async def test_paddle(paddle_shop: PaddleShop) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    await shop.tier("editor", amount=1_500, asset="EUR")
    new = {"kind": "organization", "name": "One", "email": "one@example.com"}
    customer = good(await shop.staff.post("/v1/customers", json=new))["id"]
    home = {"country_code": "AT", "zip_code": "1010"}
    address = good(await shop.staff.post(f"/v1/customers/{customer}/addresses", json=home))["id"]
    business = good(await shop.staff.post(f"/v1/customers/{customer}/businesses", json={"name": "One Ltd"}))["id"]
    await paddle_shop.push()
    shop.clock.advance(timedelta(minutes=1))
    await paddle_shop.push()
    result = await look(shop, PADDLE)
    assert (result.differences, {kind: one.in_step for kind, one in counts(result).items()}) == (
        [],
        {"product": 1, "price": 1, "customer": 1, "address": 1, "business": 1},
    )
    links = {row["object_id"]: row["reference"] for row in await shop.rows("rail_links")}
    path = f"/customers/{links[customer]}"
    peer.api("PATCH", f"{path}/addresses/{links[address]}", {"city": "Graz"})
    peer.api("PATCH", f"{path}/businesses/{links[business]}", {"status": "archived"})
    result = await look(shop, PADDLE)
    assert {one.object_id: one.fields for one in result.differences} == {address: ["city"], business: ["active"]}
    assert msgspec.json.encode(result)


async def test_a_rail_without_copies(paddle_shop: PaddleShop) -> None:
    with pytest.raises(NotFound) as refused:
        await look(paddle_shop.shop, "sandbox")
    assert refused.value.code == "rail_keeps_no_copies"
