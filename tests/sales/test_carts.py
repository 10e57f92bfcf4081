"""Carts: priced, saved, read by whoever may, paid once, and sold at their price for as long as it holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.support.app import Shop, Sold, good, opening, problem

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

NOBODY = "crt_01j00000000000000000000000"


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


def body(*lines: Sold | tuple[Sold, int], **fields: Any) -> dict[str, Any]:
    wanted = [line if isinstance(line, tuple) else (line, 1) for line in lines]
    return {"lines": [{"price_id": sold.price_id, "quantity": count} for sold, count in wanted], **fields}


async def quote(shop: Shop, *lines: Sold | tuple[Sold, int], **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = good(await shop.http.post("/v1/carts", json=body(*lines, **fields)))
    return made


async def check_out(shop: Shop, cart: dict[str, Any], **fields: Any) -> httpx.Response:
    return await shop.http.post("/v1/checkouts", json={"cart_id": cart["claim"], **fields})


async def customer(shop: Shop, name: str = "Acme") -> str:
    return str(good(await shop.staff.post("/v1/customers", json={"kind": "organization", "name": name}))["id"])


# -- priced -------------------------------------------------------------------------------------------


async def test_a_cart_in_every_detail(shop: Shop) -> None:
    editor = await shop.tier(amount=1_000, asset="USD")
    viewer = await shop.tier("viewer", amount=250, asset="USD", name="Solo")
    code = await shop.discount("TEN", amount=1_000)
    wanted = body((editor, 3), viewer, code=" ten ", country="DE", email=" Ann@X.example", rail="sandbox")
    wanted["metadata"] = {"po": "7"}
    wanted["lines"][1]["metadata"] = {"gift": True}
    answer = await shop.http.post("/v1/carts", json=wanted)
    assert answer.status_code == 201
    cart = answer.json()
    assert cart == {
        "id": cart["id"],
        "claim": cart["claim"],
        "status": "open",
        "customer_id": None,
        "asset": "USD",
        "subtotal": 3_250,
        "discount_total": 325,
        "tax_total": 0,
        "total": 2_925,
        "country": "DE",
        "rail": "sandbox",
        "code": "TEN",
        "email": "ann@x.example",
        "paid_by": None,
        "paid_at": None,
        "expires_at": "2026-01-02T03:19:05.678901Z",
        "metadata": {"po": "7"},
        "created_at": "2026-01-02T03:04:05.678901Z",
        "lines": [
            {
                "product_id": editor.product_id,
                "price_id": editor.price_id,
                "tier": "default",
                "name": "Editor",
                "quantity": 3,
                "unit_amount": 1_000,
                "subtotal": 3_000,
                "discount_total": 300,
                "total": 2_700,
                "discounts": [{"discount_id": code, "code": "TEN", "amount": 300}],
                "metadata": {},
            },
            {
                "product_id": viewer.product_id,
                "price_id": viewer.price_id,
                "tier": "default",
                "name": "Viewer Solo",
                "quantity": 1,
                "unit_amount": 250,
                "subtotal": 250,
                "discount_total": 25,
                "total": 225,
                "discounts": [{"discount_id": code, "code": "TEN", "amount": 25}],
                "metadata": {"gift": True},
            },
        ],
    }
    assert good(await shop.http.get(f"/v1/cart-claims/{cart['claim']}")) == cart
    assert good(await shop.staff.get(f"/v1/carts/{cart['id']}")) == cart
    assert good(await shop.staff.get("/v1/carts")) == {"data": [cart], "next": None}
    assert [await shop.count(name) for name in ("checkouts", "discount_redemptions")] == [0, 0]
    assert (await shop.row("discounts"))["times_used"] == 0  # a quote reserves nothing


@pytest.mark.parametrize(
    ("change", "status", "code", "pointer"),
    [
        ({"lines": []}, 422, "empty_cart", "/lines"),
        ({"quantity": 0}, 422, "quantity_out_of_range", "/lines/1/quantity"),
        ({"quantity": -1}, 422, "quantity_out_of_range", "/lines/1/quantity"),
        ({"quantity": 10_001}, 422, "quantity_out_of_range", "/lines/1/quantity"),
        ({"quantity": 10**30}, 422, "quantity_out_of_range", "/lines/1/quantity"),
        ({"price_id": "pri_01j00000000000000000000000"}, 404, "price_not_found", None),
        ({"price_id": ""}, 404, "price_not_found", None),
        ({"many": 101}, 422, "cart_too_large", "/lines"),
        ({"other": True}, 422, "mixed_assets", "/lines/1/price_id"),
        ({"metadata": {"k": "x" * 10_240}}, 422, "invalid_request", "/metadata"),
        ({"line_metadata": {"k": "x" * 10_240}}, 422, "invalid_request", "/lines/1/metadata"),
        ({"country": "de"}, 422, "invalid_request", "/country"),
        ({"email": "nobody"}, 422, "invalid_request", "/email"),
        ({"code": "NOSUCH"}, 422, "discount_not_found", "/code"),
        ({"rail": "stripe"}, 404, "rail_not_connected", None),
        ({"customer_id": "cus_01j00000000000000000000000"}, 422, "invalid_request", None),
    ],
)
async def test_a_bad_cart_is_refused_and_nothing_is_saved(
    shop: Shop, change: dict[str, Any], status: int, code: str, pointer: str | None
) -> None:
    sold, euros = await shop.tier(asset="USD"), await shop.tier("viewer", asset="EUR")
    wanted = body(sold, (sold, 2))
    line = wanted["lines"][1]
    match change:
        case {"quantity": _} | {"price_id": _}:
            line.update(change)
        case {"line_metadata": metadata}:
            line["metadata"] = metadata
        case {"many": count}:
            wanted["lines"] = [line] * count
        case {"other": _}:
            line["price_id"] = euros.price_id
        case _:
            wanted.update(change)
    before = await shop.everything()
    told = problem(await shop.http.post("/v1/carts", json=wanted), status, code)
    if pointer is not None:
        assert [error["pointer"] for error in told["errors"]] == [pointer]
    assert await shop.everything() == before


async def test_the_largest_cart(shop: Shop) -> None:
    sold = await shop.tier(amount=1, asset="USD", quantity_max=10_000)
    cart = await quote(shop, *[(sold, 10_000)] * 100)
    assert (cart["total"], len(cart["lines"])) == (1_000_000, 100)


async def test_how_long_a_quote_holds_is_a_setting(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    async with opening(database_url, clock, master, quote_minutes=2) as shop:
        cart = await quote(shop, await shop.tier())
        shop.clock.advance(timedelta(minutes=2) - timedelta(microseconds=1))
        good(await check_out(shop, cart))
        shop.clock.advance(timedelta(microseconds=1))
        before = await shop.everything()
        problem(await check_out(shop, cart), 409, "quote_expired")
        assert await shop.everything() == before


async def test_a_customers_cart_has_its_margin(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    buyer, other = await customer(shop), await customer(shop, "Other")
    good(await shop.staff.post("/v1/discounts", json={"kind": "percentage", "customer_id": buyer, "amount": 3_000}))
    path = f"/v1/customers/{buyer}/carts"
    cart = good(await shop.staff.post(path, json=body(sold)))
    assert (cart["customer_id"], cart["total"]) == (buyer, 700)
    problem(await shop.http.post(path, json=body(sold)), 401, "unauthorized")
    wrong = await shop.staff.post(f"/v1/customers/{other}/checkouts", json={"cart_id": cart["claim"]})
    problem(wrong, 404, "cart_not_found")
    opened = good(await shop.staff.post(f"/v1/customers/{buyer}/checkouts", json={"cart_id": cart["id"]}))
    assert opened["amount"] == 700
    await shop.play(opened, "pay")
    paid = good(await shop.staff.get(f"/v1/carts/{cart['id']}"))
    assert (paid["status"], paid["paid_by"]) == ("paid", buyer)
    assert (await shop.row("orders"))["customer_id"] == buyer


# -- who may read it ----------------------------------------------------------------------------------


async def test_a_carts_id_alone_shows_nothing(shop: Shop) -> None:
    cart = await quote(shop, await shop.tier(), email="ann@x.example")
    problem(await shop.http.get(f"/v1/carts/{cart['id']}"), 401, "unauthorized")
    problem(await shop.http.post("/v1/checkouts", json={"cart_id": cart["id"]}), 404, "cart_not_found")
    forged = cart["claim"][:-1] + ("a" if cart["claim"][-1] != "a" else "b")
    for claim in (forged, cart["claim"].replace("qte_", "pur_"), cart["id"], "qte_", "x"):
        problem(await shop.http.get(f"/v1/cart-claims/{claim}"), 404, "cart_not_found")
    problem(await shop.http.get(f"/v1/claims/{cart['claim']}"), 404, "checkout_not_found")
    problem(await shop.staff.get(f"/v1/carts/{NOBODY}"), 404, "cart_not_found")
    assert good(await shop.staff.post("/v1/checkouts", json={"cart_id": cart["id"]}))["amount"] == cart["total"]
    problem(await shop.staff.post("/v1/checkouts", json={"cart_id": NOBODY}), 404, "cart_not_found")


# -- several at once ----------------------------------------------------------------------------------


async def test_carts_are_saved_together_or_not_at_all(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    buyer = await customer(shop)
    wanted = [body((sold, count + 1)) for count in range(4)]
    wanted[2]["customer_id"] = buyer
    made = good(await shop.staff.post("/v1/carts/batch", json={"carts": wanted}))["data"]
    assert [(cart["total"], cart["customer_id"]) for cart in made] == [
        (1_000, None),
        (2_000, None),
        (3_000, buyer),
        (4_000, None),
    ]
    ids = [made[2]["id"], NOBODY, made[0]["id"], made[2]["id"]]
    assert good(await shop.staff.get("/v1/carts", params={"ids": ",".join(ids)}))["data"] == [made[2], made[0]]
    before = await shop.everything()
    wanted[3]["lines"].append({"price_id": sold.price_id, "quantity": 0})
    told = problem(await shop.staff.post("/v1/carts/batch", json={"carts": wanted}), 422, "quantity_out_of_range")
    assert [error["pointer"] for error in told["errors"]] == ["/carts/3/lines/1/quantity"]
    wanted[3]["lines"][1] = {"price_id": "pri_nobody"}
    told = problem(await shop.staff.post("/v1/carts/batch", json={"carts": wanted}), 404, "price_not_found")
    assert told["detail"] == "carts/3: lines/1/price_id: there is no such price."
    for count, code in ((0, "invalid_request"), (101, "too_many_carts")):
        answer = await shop.staff.post("/v1/carts/batch", json={"carts": [wanted[0]] * count})
        problem(answer, 422, code)
    problem(await shop.http.post("/v1/carts/batch", json={"carts": wanted[:1]}), 401, "unauthorized")
    problem(await shop.staff.get("/v1/carts", params={"ids": ",".join(["x"] * 101)}), 422, "too_many_ids")
    assert await shop.everything() == before


async def test_carts_come_in_pages(shop: Shop) -> None:
    sold = await shop.tier()
    made = [(await quote(shop, sold))["id"] for _ in range(5)]
    seen: list[str] = []
    after: dict[str, Any] = {}
    while True:
        page = good(await shop.staff.get("/v1/carts", params={"limit": 2, **after}))
        seen += [cart["id"] for cart in page["data"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == sorted(made)


# -- paid ---------------------------------------------------------------------------------------------


async def test_a_cart_is_paid_once(shop: Shop) -> None:
    cart = await quote(shop, await shop.tier())
    at = f"/v1/carts/{cart['id']}"

    async def has_access(payer: str) -> bool:
        return bool(good(await shop.staff.get(f"{at}/access", params={"paid_by": payer}))["has_access"])

    assert not await has_access("wallet-1")
    paid = good(await shop.staff.post(f"{at}/paid", json={"paid_by": " wallet-1 "}))
    assert (paid["status"], paid["paid_by"], paid["paid_at"]) == ("paid", "wallet-1", "2026-01-02T03:04:05.678901Z")
    assert [await has_access(payer) for payer in ("wallet-1", "wallet-2")] == [True, False]
    before = await shop.everything()
    shop.clock.advance(timedelta(days=1))
    assert good(await shop.staff.post(f"{at}/paid", json={"paid_by": "wallet-1"})) == paid
    problem(await shop.staff.post(f"{at}/paid", json={"paid_by": "wallet-2"}), 409, "cart_already_paid")
    problem(await check_out(shop, cart), 409, "cart_already_paid")
    for wrong in ("", " ", "a\nb", "x" * 501):
        problem(await shop.staff.post(f"{at}/paid", json={"paid_by": wrong}), 422, "invalid_request")
    problem(await shop.staff.post(f"/v1/carts/{NOBODY}/paid", json={"paid_by": "x"}), 404, "cart_not_found")
    problem(await shop.staff.get(f"/v1/carts/{NOBODY}/access", params={"paid_by": "x"}), 404, "cart_not_found")
    problem(await shop.staff.get(f"{at}/access"), 422, "invalid_request")
    assert await shop.everything() == before
    assert await shop.events("cart.paid") == ["cart.paid"]


async def test_an_expired_cart_is_not_marked_paid(shop: Shop) -> None:
    cart = await quote(shop, await shop.tier())
    shop.clock.advance(timedelta(minutes=15))
    before = await shop.everything()
    problem(await shop.staff.post(f"/v1/carts/{cart['id']}/paid", json={"paid_by": "x"}), 409, "quote_expired")
    assert await shop.everything() == before


async def test_a_hundred_payers_of_one_cart_and_one_of_them_is_first(shop: Shop) -> None:
    cart = await quote(shop, await shop.tier())
    at = f"/v1/carts/{cart['id']}/paid"
    answers = await asyncio.gather(*[shop.staff.post(at, json={"paid_by": f"p{n % 50}"}) for n in range(100)])
    first = (await shop.row("carts"))["paid_by"]
    for number, answer in enumerate(answers):
        if f"p{number % 50}" == first:
            assert good(answer)["paid_by"] == first
        else:
            problem(answer, 409, "cart_already_paid")
    assert await shop.events("cart.paid") == ["cart.paid"]


# -- sold ---------------------------------------------------------------------------------------------


async def test_a_quote_is_sold_at_its_price(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    code = await shop.discount("HALF", amount=5_000, usage_limit=1)
    cart = await quote(shop, (sold, 2), code="half", email="ann@x.example")
    good(await shop.staff.patch(f"/v1/prices/{sold.price_id}", json={"unit_amount": 5_000}))
    good(await shop.staff.patch(f"/v1/discounts/{code}", json={"status": "archived"}))
    shop.clock.advance(timedelta(minutes=14))
    opened = good(await check_out(shop, cart, rail="sandbox"))
    assert (opened["amount"], opened["email"]) == (1_000, "ann@x.example")
    assert opened["expires_at"] == "2026-01-02T03:33:05.678901Z"  # the buyer has the whole time to pay
    assert (await shop.row("discounts"))["times_used"] == 1
    before = await shop.everything()
    told = problem(await check_out(shop, cart), 422, "discount_exhausted")
    assert [error["pointer"] for error in told["errors"]] == ["/cart_id"]
    assert await shop.everything() == before
    await shop.play(opened, "pay")
    order = await shop.row("orders")
    assert (order["amount"], order["discount_total"], order["items"][0]["quantity"]) == (1_000, 1_000, 2)
    paid = await shop.row("carts")
    assert (paid["id"], paid["status"], paid["paid_by"]) == (cart["id"], "paid", "sandbox-tester")
    assert (await shop.row("discount_redemptions"))["status"] == "redeemed"
    assert len((await shop.claim(opened))["license_keys"]) == 2


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"code": "TEN"}, "cart_is_fixed"),
        ({"country": "DE"}, "cart_is_fixed"),
        ({"metadata": {"a": 1}}, "cart_is_fixed"),
        ({"lines": [{"price_id": "pri_x"}]}, "cart_is_fixed"),
        ({"rail": "free"}, "cart_is_fixed"),
        ({"email": "nobody"}, "invalid_request"),
    ],
)
async def test_what_a_cart_has_is_not_said_again(shop: Shop, fields: dict[str, Any], code: str) -> None:
    cart = await quote(shop, await shop.tier(), rail="sandbox")
    before = await shop.everything()
    told = problem(await check_out(shop, cart, **fields), 422, code)
    assert [error["pointer"] for error in told["errors"]] == [f"/{next(iter(fields))}"]
    assert await shop.everything() == before


async def test_a_free_cart_is_given_at_once(shop: Shop) -> None:
    sold = await shop.tier(amount=0)
    cart = await quote(shop, sold)
    opened = good(await check_out(shop, cart))
    assert (opened["status"], len(opened["license_keys"])) == ("settled", 1)
    problem(await check_out(shop, cart), 409, "cart_already_paid")
    assert await shop.count("orders") == 1


async def test_two_payments_for_one_cart_make_one_order(shop: Shop) -> None:
    """Whoever pays both checkouts of a cart has bought once; the other money waits for a person."""
    cart = await quote(shop, await shop.tier())
    first, second = good(await check_out(shop, cart)), good(await check_out(shop, cart))
    await shop.play(first, "pay")
    await shop.play(second, "pay")
    assert await shop.count("orders") == 1
    assert (await shop.row("checkouts", id=second["id"]))["status"] == "processing"
    (payment,) = good(await shop.staff.get("/v1/payments", params={"attention": True}))["data"]
    assert payment["checkout_id"] == second["id"]
    decided = {"resolution": "accepted", "note": "They wanted two."}
    good(await shop.staff.post(f"/v1/payments/{payment['id']}/resolve", json=decided))
    assert await shop.count("orders") == 2


async def test_money_for_a_cart_that_was_paid_elsewhere_waits(shop: Shop) -> None:
    code = await shop.discount("TEN", amount=1_000)
    cart = await quote(shop, await shop.tier(), code="TEN")
    opened = good(await check_out(shop, cart))
    good(await shop.staff.post(f"/v1/carts/{cart['id']}/paid", json={"paid_by": "wire 7"}))
    await shop.play(opened, "pay")
    assert await shop.count("orders") == 0
    assert (await shop.row("carts"))["paid_by"] == "wire 7"
    assert (await shop.row("discounts", id=code))["times_used"] == 1


async def test_a_cart_whose_discount_is_gone_stays_open(shop: Shop) -> None:
    """Late money finds the last use taken: it waits, and the cart is as it was."""
    sold = await shop.tier(amount=1_000)
    await shop.discount("ONCE", amount=1_000, usage_limit=1)
    cart = await quote(shop, sold, code="ONCE")
    late = good(await check_out(shop, cart))
    shop.clock.advance(timedelta(minutes=15))
    await shop.house.runner().run_due()
    await shop.checkout(sold, code="ONCE")
    await shop.play(late, "pay")
    row = await shop.row("carts", id=cart["id"])
    assert (row["status"], row["paid_by"], row["paid_at"]) == ("open", None, None)
    assert await shop.count("orders") == 0


async def test_twenty_checkouts_of_one_cart_settle_once(shop: Shop) -> None:
    cart = await quote(shop, await shop.tier())
    opened = [good(answer) for answer in await asyncio.gather(*[check_out(shop, cart) for _ in range(20)])]
    await asyncio.gather(*[shop.play(one, "pay") for one in opened])
    assert await shop.count("orders") == 1
    assert len(await shop.rows("checkouts", status="settled")) == 1
    assert await shop.count("payments") == 20
