"""Orders: every step there is and is not, orders made elsewhere, money that went back, finding, exporting."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, get_args

import msgspec
import pytest
import sqlalchemy as sa
from tests.support.app import MINUTE, Shop, good, opening, problem
from tests.support.orders import imported, new_order, status_of, tick, try_import

from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.secrets import MasterKey
from counterfoil.sales import order_export, order_search, orders
from counterfoil.sales.order_search import Count, Filter
from counterfoil.sales.tables import orders as orders_table
from counterfoil.sales.types import Order, OrderStatus

# Rows: where an order is; columns: where it is to go, in the same order. x: by hand; r: by a refund alone.
STATES = ("created", "paid", "processing", "partially_fulfilled", "fulfilled", "shipped", "delivered", "canceled",
          "refunded")  # fmt: skip
GRID = """
created              . x . . . . . x .
paid                 . . x x x x x x r
processing           . . . x x x x x r
partially_fulfilled  . . x . x x x . r
fulfilled            . . x x . x x . r
shipped              . . . . . . x . r
delivered            . . . . . . . . r
canceled             . . . . . . . . .
refunded             . . . . . . . . .
"""
PAIRS = {
    (before, after): mark
    for before, *marks in (line.split() for line in GRID.strip().splitlines())
    for after, mark in zip(STATES, marks, strict=True)
}

_PUT = (
    sa.update(orders_table)
    .where(mine(orders_table), orders_table.c.id == sa.bindparam("order_id"))
    .values(status=sa.bindparam("to"), refunded=0)
)


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


def _put(tx: Tx, order_id: str, status: str) -> None:
    assert tx.execute(_PUT, {"order_id": order_id, "to": status}) == 1


# -- steps ---------------------------------------------------------------------------------------------


async def test_every_pair_of_states(shop: Shop) -> None:
    assert set(STATES) == set(get_args(OrderStatus))
    order_id = (await imported(shop, "1"))["id"]
    steps = 1
    for (before, after), mark in PAIRS.items():
        await shop.scope.run(_put, order_id, before)
        tick(shop)
        answer = await shop.staff.post(f"/v1/orders/{order_id}/status", json={"status": after, "note": "why"})
        if mark == "x":
            assert good(answer)["status"] == after, (before, after)
            steps += 1
            last = (await shop.rows("order_history", order_id=order_id))[-1]
            assert (last["from_status"], last["to_status"], last["note"]) == (before, after, "why")
            assert (last["actor_kind"], last["actor_id"][:4]) == ("key", "key_")
            assert (await shop.events())[-1] == f"order.{after}"
        else:
            detail = problem(answer, 409, "illegal_transition")["detail"]
            assert before in detail
            assert after in detail
            assert await status_of(shop, order_id) == before
        assert await shop.count("order_history", order_id=order_id) == steps, (before, after)


async def test_a_refund_moves_what_may_be_refunded(shop: Shop) -> None:
    order_id = (await imported(shop, "1"))["id"]
    for before in STATES:
        await shop.scope.run(_put, order_id, before)
        given = await shop.scope.run(orders.note_refund, order_id, 500)
        assert given.status == ("refunded" if PAIRS[before, "refunded"] == "r" else before), before
        assert given.refunded == 500


async def test_a_refused_step_changes_nothing(shop: Shop) -> None:
    order_id = (await imported(shop, "1"))["id"]
    before = await shop.everything()
    for body, status, code in (
        ({"status": "created"}, 409, "illegal_transition"),
        ({"status": "refunded"}, 409, "illegal_transition"),
        ({"status": "gone"}, 422, "invalid_request"),
        ({"status": "processing", "note": "x" * 2001}, 422, "invalid_request"),
        ({"status": "processing", "note": "\u202e"}, 422, "invalid_request"),
        ({"status": "processing", "actor": "me"}, 422, "invalid_request"),
    ):
        problem(await shop.staff.post(f"/v1/orders/{order_id}/status", json=body), status, code)
    problem(await shop.staff.post("/v1/orders/ord_x/status", json={"status": "paid"}), 404, "order_not_found")
    assert await shop.everything() == before


async def test_of_a_hundred_who_take_one_step_one_does(shop: Shop) -> None:
    order_id = (await imported(shop, "1"))["id"]
    path = f"/v1/orders/{order_id}/status"
    answers = await asyncio.gather(*[shop.staff.post(path, json={"status": "processing"}) for _ in range(100)])
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 99}
    assert await shop.count("order_history", order_id=order_id) == 2
    assert await shop.events("order.processing") == ["order.processing"]


async def test_steps_by_the_system_and_unknown_orders(shop: Shop) -> None:
    order_id = (await imported(shop, "1"))["id"]
    shop.clock.advance(MINUTE)
    moved = await shop.scope.run(orders.advance, order_id, "delivered")
    assert (moved.status, moved.status_updated_at, moved.updated_at) == (
        "delivered", shop.clock.now(), shop.clock.now(),
    )  # fmt: skip
    history = (await shop.scope.read(orders.history, order_id)).data
    assert [(step.to_status, step.actor_kind) for step in history] == [("paid", "key"), ("delivered", "system")]
    for op, arguments in (
        (orders.advance, ("paid",)), (orders.note_refund, (1,)), (orders.history, ()), (orders.lock, ()),
    ):  # fmt: skip
        with pytest.raises(NotFound) as error:
            await shop.scope.run(op, "ord_x", *arguments)  # type: ignore[operator,arg-type]
        assert error.value.code == "order_not_found"


async def test_a_settled_checkout_is_an_order_that_was_created_and_paid(shop: Shop) -> None:
    opened = await shop.checkout((await shop.tier(), 2), email="ada@example.com")
    await shop.play(opened, "pay")
    order = await shop.row("orders")
    assert (order["status"], order["status_updated_at"], order["refunded"]) == ("paid", shop.clock.now(), 0)
    assert [item["ships"] for item in order["items"]] == [False]
    (step,) = await shop.rows("order_history")
    assert (step["order_id"], step["from_status"], step["to_status"], step["note"]) == (
        order["id"], "created", "paid", "",
    )  # fmt: skip
    assert (step["actor_kind"], step["actor_id"]) == ("rail", "sandbox")
    assert await shop.events("order.created", "order.paid") == ["order.created", "order.paid"]


# -- orders made elsewhere -----------------------------------------------------------------------------


async def test_an_import_is_new_once(shop: Shop) -> None:
    sold = await shop.tier()
    customer = good(await shop.staff.post("/v1/customers", json={"kind": "organization", "name": "Ada"}))["id"]
    body = new_order(
        " Stand 7/12 ",
        2,
        {"name": "Mug", "unit_amount": 900, "total": 850, "price_id": sold.price_id, "ships": True},
        discount_total=350,
        tax_total=120,
        amount=1620,
        email="Ada@Example.COM",
        customer_id=customer,
        shipping={"city": "Wien"},
        metadata={"till": 3},
    )
    first = await shop.staff.post("/v1/orders", json=body)
    assert first.status_code == 201
    made = good(first)
    assert made["items"] == [
        {"product_id": None, "price_id": None, "tier": None, "name": "Thing 0", "quantity": 2, "unit_amount": 500,
         "discount_total": 0, "total": 1000, "ships": False},
        {"product_id": sold.product_id, "price_id": sold.price_id, "tier": None, "name": "Mug", "quantity": 1,
         "unit_amount": 900, "discount_total": 0, "total": 850, "ships": True},
    ]  # fmt: skip
    assert {name: made[name] for name in ("source", "purchase_reference", "amount", "email", "customer_id")} == {
        "source": "fair", "purchase_reference": "Stand 7/12", "amount": 1620, "email": "ada@example.com",
        "customer_id": customer,
    }  # fmt: skip
    assert (made["shipping"], made["metadata"], made["checkout_id"]) == ({"city": "Wien"}, {"till": 3}, None)
    assert [(step["from_status"], step["to_status"], step["note"]) for step in made["history"]] == [
        ("created", "paid", "Imported from fair")
    ]
    before = await shop.everything()
    again = await shop.staff.post("/v1/orders", json=body | {"amount": 1630, "tax_total": 130})
    assert (again.status_code, good(again)) == (200, made)
    assert await shop.everything() == before
    assert (await imported(shop, "Stand 7/12", source="shopify"))["id"] != made["id"]
    unpaid = await imported(shop, "2", status="created")
    assert (unpaid["status"], unpaid["history"]) == ("created", [])
    assert (await shop.events())[-1] == "order.created"
    shown = good(await shop.staff.get(f"/v1/customers/{customer}/orders"))["data"]
    assert [(order["id"], order["checkout_id"]) for order in shown] == [(made["id"], None)]


async def test_a_hundred_imports_of_one_purchase_make_one_order(shop: Shop) -> None:
    answers = await asyncio.gather(*[try_import(shop, "1", 3) for _ in range(100)])
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 99}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await shop.count("orders"), await shop.count("order_history")) == (1, 1)


async def test_bad_imports_change_nothing(shop: Shop) -> None:
    sold, other = await shop.tier(), await shop.tier("viewer")
    before = await shop.everything()

    def item(**fields: Any) -> dict[str, Any]:
        return {"name": "Mug", "quantity": 1, "unit_amount": 5, "total": 5, **fields}

    refused: list[tuple[dict[str, Any], int, str]] = [
        (new_order("1", amount=501), 422, "total_mismatch"),
        (new_order("1", discount_total=1), 422, "total_mismatch"),
        (new_order("1", tax_total=1), 422, "total_mismatch"),
        (new_order("1", item(), amount=-5), 422, "invalid_request"),
        (new_order("1", item(total=-5)), 422, "invalid_request"),
        (new_order("1", item(total=10**16)), 422, "invalid_request"),
        (new_order("1", item(total=10**30)), 422, "invalid_request"),
        (new_order("1", item(unit_amount=-1)), 422, "invalid_request"),
        (new_order("1", item(unit_amount=0.5)), 422, "invalid_request"),
        (new_order("1", item(quantity=0)), 422, "quantity_out_of_range"),
        (new_order("1", item(quantity=10_001)), 422, "quantity_out_of_range"),
        (new_order("1", item(name="")), 422, "invalid_request"),
        (new_order("1", item(name="a\tb")), 422, "invalid_request"),
        (new_order("1", item(color="red")), 422, "invalid_request"),
        (new_order("1", item(product_id="pro_x")), 404, "product_not_found"),
        (new_order("1", item(price_id="pri_x")), 404, "price_not_found"),
        (new_order("1", item(price_id=sold.price_id, product_id=other.product_id)), 404, "price_not_found"),
        (new_order("1", items=[]), 422, "empty_order"),
        (new_order("1", *[item()] * 101), 422, "order_too_large"),
        (new_order("1", asset="XXY"), 422, "unknown_asset"),
        (new_order("1", source="sandbox"), 422, "source_reserved"),
        (new_order("1", source="btcpay"), 422, "source_reserved"),
        (new_order("1", source="free"), 422, "source_reserved"),
        (new_order("1", source="My Shop"), 422, "invalid_request"),
        (new_order("1", source=""), 422, "invalid_request"),
        (new_order(" "), 422, "invalid_request"),
        (new_order("x" * 256), 422, "invalid_request"),
        (new_order("1", status="shipped"), 422, "invalid_request"),
        (new_order("1", email="ada"), 422, "invalid_request"),
        (new_order("1", metadata={"x": "y" * 11_000}), 422, "invalid_request"),
        (new_order("1", shipping={"x": "y" * 11_000}), 422, "invalid_request"),
        (new_order("1", customer_id="cus_x"), 404, "customer_not_found"),
        (new_order("1", user_id="usr_x"), 404, "user_not_found"),
    ]
    for body, status, code in refused:
        problem(await shop.staff.post("/v1/orders", json=body), status, code)
    assert await shop.everything() == before


# -- money that went back ------------------------------------------------------------------------------


async def test_money_goes_back_in_parts(shop: Shop) -> None:
    order_id = (await imported(shop, "1", 2))["id"]
    tick(shop)
    part = await shop.scope.run(orders.note_refund, order_id, 400)
    assert (part.status, part.refunded) == ("paid", 400)
    before = await shop.everything()
    with pytest.raises(Conflict) as refused:
        await shop.scope.run(orders.note_refund, order_id, 601)
    assert refused.value.code == "refund_exceeds_order"
    for amount in (0, -1):
        with pytest.raises(Invalid):
            await shop.scope.run(orders.note_refund, order_id, amount)
    assert await shop.everything() == before
    tick(shop)
    whole = await shop.scope.run(orders.note_refund, order_id, 600)
    assert (whole.status, whole.refunded) == ("refunded", 1000)
    steps = [(row["from_status"], row["to_status"], row["note"]) for row in await shop.rows("order_history")]
    assert steps == [
        ("created", "paid", "Imported from fair"),
        ("paid", "paid", "Given back: 4.00 USD"),
        ("paid", "refunded", "Given back: 6.00 USD"),
    ]
    told = await shop.events("order.partially_refunded", "order.refunded")
    assert told == ["order.partially_refunded", "order.refunded"]


async def test_a_hundred_at_once_give_back_what_there_is(shop: Shop) -> None:
    order_id = (await imported(shop, "1"))["id"]
    given = await asyncio.gather(
        *[shop.scope.run(orders.note_refund, order_id, 30) for _ in range(100)], return_exceptions=True
    )
    refused = [one for one in given if not isinstance(one, Order)]
    assert len(refused) == 100 - 500 // 30
    assert {type(one) for one in refused} == {Conflict}
    assert (await shop.row("orders"))["refunded"] == 500 // 30 * 30


# -- finding -------------------------------------------------------------------------------------------


async def _list(shop: Shop, **params: Any) -> list[str]:
    """Every page's references, two orders a page."""
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = good(await shop.staff.get("/v1/orders", params={"limit": 2, **params, **after}))
        found += [order["purchase_reference"] for order in page["data"]]
        if page["next"] is None:
            return found
        after = {"after": page["next"]}


async def test_filters_and_pages(shop: Shop) -> None:
    customer = good(await shop.staff.post("/v1/customers", json={"kind": "organization", "name": "Ada"}))["id"]
    emails = ["ada@example.com", "adam@example.com", None, "bob@example.com", "ada@example.com", "zoe@example.com"]
    made = []
    for place, email in enumerate(emails):
        whose = {"customer_id": customer} if place % 2 else {}
        made.append(await imported(shop, f"r{place}", email=email, **whose))
        shop.clock.advance(MINUTE)
    await shop.scope.run(orders.advance, made[1]["id"], "processing")
    await shop.scope.run(orders.advance, made[2]["id"], "delivered")
    await shop.scope.run(orders.note_refund, made[3]["id"], 1)
    await shop.scope.run(orders.note_refund, made[4]["id"], 500)
    times = [order["created_at"] for order in made]

    expected: list[tuple[dict[str, Any], str]] = [
        ({}, "012345"),
        ({"status": "paid"}, "035"),
        ({"status": ["paid", "processing"]}, "0135"),
        ({"status": ["paid", "paid"]}, "035"),
        ({"status": ["delivered", "refunded", "canceled"]}, "24"),
        ({"partially_refunded": True}, "3"),
        ({"partially_refunded": True, "status": "paid"}, "3"),
        ({"partially_refunded": True, "status": "refunded"}, ""),
        ({"email": "ADA@example.com"}, "04"),
        ({"email": "ada@example.com", "status": "paid"}, "0"),
        ({"customer_id": customer}, "135"),
        ({"customer_id": customer, "status": ["paid", "processing"]}, "135"),
        ({"customer_id": "cus_x"}, ""),
        ({"search": "r4"}, "4"),
        ({"search": made[3]["id"]}, "3"),
        ({"search": "r"}, ""),
        ({"search": "nobody@"}, ""),
        ({"search": "r4", "status": "paid"}, ""),
        ({"created_after": times[2]}, "2345"),
        ({"created_before": times[2]}, "01"),
        ({"created_after": times[1], "created_before": times[4]}, "123"),
        ({"created_after": times[1], "status": "paid"}, "35"),
        ({"created_after": "9999-12-31T23:59:59Z"}, ""),
        ({"created_before": "0001-01-01T00:00:00Z"}, ""),
        ({"created_after": "0001-01-01T00:00:00Z", "created_before": "9999-12-31T23:59:59.999999Z"}, "012345"),
    ]
    for params, places in expected:
        wanted = [f"r{place}" for place in places]
        assert await _list(shop, **params) == wanted, params
        assert await _list(shop, **params, order="desc") == wanted[::-1], params
        counted = good(await shop.staff.get("/v1/orders", params={**params, "total": True}))["total"]
        assert counted == {"count": len(places), "is_exact": True}, params
    # By address, then oldest first.
    for search, places in (("ad", "041"), ("ADA@", "04"), ("ada", "041")):
        wanted = [f"r{place}" for place in places]
        assert await _list(shop, search=search) == wanted
        assert await _list(shop, search=search, order="desc") == wanted[::-1]
    assert await _list(shop, search="ada", status=["paid", "processing"]) == ["r0", "r1"]


async def test_a_millisecond_apart(shop: Shop) -> None:
    """Ids tell the time to the millisecond, filters to the microsecond."""
    for place in range(3):
        good(await try_import(shop, f"r{place}"))
        shop.clock.advance(timedelta(microseconds=1))
    times = [order["created_at"] for order in await shop.rows("orders")]
    second = sorted(times)[1].isoformat()
    assert await _list(shop, created_after=second, created_before=second) == []
    assert sorted(await _list(shop, created_after=second)) == ["r1", "r2"]
    assert await _list(shop, created_before=second) == ["r0"]


async def test_bad_questions(shop: Shop) -> None:
    for place in range(3):
        await imported(shop, f"r{place}", email=f"a{place}@example.com")
    found = good(await shop.staff.get("/v1/orders", params={"limit": 1, "search": "a"}))
    listed = good(await shop.staff.get("/v1/orders", params={"limit": 1}))
    for params, code in (
        ({"after": found["next"]}, "invalid_cursor"),
        ({"after": listed["next"], "search": "a"}, "invalid_cursor"),
        ({"after": "x"}, "invalid_cursor"),
        ({"search": " "}, "invalid_request"),
        ({"search": ""}, "invalid_request"),
        ({"search": "x" * 256}, "invalid_request"),
        ({"status": "gone"}, "invalid_request"),
        ({"order": "sideways"}, "invalid_request"),
        ({"created_after": "yesterday"}, "invalid_request"),
        ({"created_after": "2026-01-01T00:00:00"}, "invalid_request"),
        ({"limit": 0}, "invalid_request"),
    ):
        for path in ("/v1/orders", "/v1/orders/export.csv"):
            if path == "/v1/orders" or (set(params) & {"search", "status", "created_after"} and "after" not in params):
                problem(await shop.staff.get(path, params=params), 422, code)


async def test_counting_stops(shop: Shop) -> None:
    for place in range(4):
        await imported(shop, f"r{place}")
    for most, counted in ((3, Count(3, False)), (4, Count(4, True)), (None, Count(4, True))):
        assert await shop.scope.read(order_search.count, most=most) == counted
    paid = Filter(statuses=("paid", "shipped"), search="r1")
    assert await shop.scope.read(order_search.count, only=paid) == Count(1, True)


async def test_a_page_among_many_candidates_goes_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two filters only so many candidates are looked at for a page; the next page goes on behind them."""
    monkeypatch.setattr(order_search, "_CANDIDATES", 2)
    order_search._list.cache_clear()
    order_search._last_candidate.cache_clear()
    for place in range(5):
        order = await imported(shop, f"r{place}", email="ada@example.com")
        if place == 4:
            await shop.scope.run(orders.advance, order["id"], "shipped")
        shop.clock.advance(MINUTE)
    both = {"email": "ada@example.com", "status": "shipped"}
    first = good(await shop.staff.get("/v1/orders", params=both))
    assert (first["data"], first["next"] is None) == ([], False)
    assert await _list(shop, **both) == ["r4"]
    assert await _list(shop, **both, order="desc") == ["r4"]
    assert await _list(shop, search="ada@", status="shipped") == ["r4"]
    order_search._list.cache_clear()
    order_search._last_candidate.cache_clear()


_PLANS = {
    "statuses": ("ix_orders_status",),
    "is_partially_refunded": ("ix_orders_partially_refunded",),
    "email": ("ix_orders_email",),
    "customer_id": ("ix_orders_customer",),
    "search": ("uq_orders_purchase", "ix_orders_email"),
}


def _add_many(tx: Tx, like: str) -> None:
    """As many orders as it takes for a database to look for indexes."""
    order = orders.get(tx, like)
    copies = []
    for place in range(2000):
        fields = {"id": tx.new_id("ord"), "purchase_reference": f"r{place}", "email": f"a{place}@example.com"}
        copies.append(msgspec.structs.replace(order, **fields, status=STATES[place % 9]))
    tx.insert(orders_table, *copies)


def _plan(tx: Tx, only: Filter, direction: order_search.Direction) -> str:
    shape, params = order_search._read(only, direction)
    params |= order_search._keyset(shape, params, ()) | {"limit": 3, "tenant": tx.tenant}
    connection = tx._connection
    is_postgresql = connection.dialect.name == "postgresql"
    if is_postgresql:
        connection.execute(sa.text("ANALYZE orders"))
    compiled = order_search._list(shape).compile(dialect=connection.dialect)
    assert isinstance(compiled, sa.sql.compiler.SQLCompiler)
    values = compiled.construct_params(params)
    values |= {name: process(values[name]) for name, process in compiled._bind_processors.items()}
    explain = "EXPLAIN " if is_postgresql else "EXPLAIN QUERY PLAN "
    given: Any = tuple(values[name] for name in compiled.positiontup) if compiled.positional else values
    return "\n".join(str(tuple(row)) for row in connection.exec_driver_sql(explain + str(compiled), given))


async def test_every_filter_has_its_index(shop: Shop) -> None:
    """No filter walks the table."""
    values: dict[str, Any] = {
        "statuses": ("paid", "shipped"), "is_partially_refunded": True, "email": "a@b.c", "customer_id": "cus_x",
        "search": "ada",
    }  # fmt: skip
    await shop.scope.run(_add_many, (await imported(shop, "1"))["id"])
    for name, indexes in _PLANS.items():
        only = Filter(**{name: values[name]})
        for direction in get_args(order_search.Direction):
            plan = await shop.scope.run(_plan, only, direction)
            missing = [index for index in indexes if index not in plan]
            assert missing == [], f"{name}: {plan}"
            assert "Seq Scan" not in plan, plan
            assert "SCAN orders'" not in plan, plan


# -- exporting -----------------------------------------------------------------------------------------


async def test_the_exact_bytes_of_an_export(shop: Shop) -> None:
    first = await imported(
        shop,
        '=cmd|"/c calc"!A1',
        {"name": "+Mug, large", "quantity": 2, "unit_amount": 450, "total": 900},
        {"name": "Cap", "unit_amount": 1000, "total": 1000},
        discount_total=100,
        tax_total=34,
        amount=1834,
        email="ada@example.com",
    )
    shop.clock.advance(MINUTE)
    second = await imported(
        shop, "-2", {"name": "Sticker", "quantity": 1, "unit_amount": 700, "total": 700}, asset="JPY", status="created"
    )
    await shop.scope.run(orders.note_refund, first["id"], 34)
    answer = await shop.staff.get("/v1/orders/export.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="orders.csv"'
    assert answer.content.decode() == (
        "id,created_at,status,status_updated_at,source,purchase_reference,customer_id,email,items,asset,amount,"
        "refunded,discount_total,tax_total\r\n"
        f"{first['id']},2026-01-02T03:04:05.679901Z,paid,2026-01-02T03:04:05.679901Z,fair,"
        '"\'=cmd|""/c calc""!A1",,ada@example.com,"2 x +Mug, large; 1 x Cap",USD,18.34,0.34,1.00,0.34\r\n'
        f"{second['id']},2026-01-02T03:05:05.680901Z,created,2026-01-02T03:05:05.680901Z,fair,"
        "'-2,,,1 x Sticker,JPY,700,0,0,0\r\n"
    )
    only = await shop.staff.get("/v1/orders/export.csv", params={"status": "created"})
    assert only.content.decode().splitlines()[1:] == answer.content.decode().splitlines()[2:]


@pytest.mark.parametrize("dialect", ["sqlite"])
async def test_an_export_of_several_pages(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_search, "_PAGE", 2)
    for place in range(5):
        await imported(shop, f"r{place}", email="ada@example.com")
        shop.clock.advance(MINUTE)
    for params in ({}, {"search": "ada"}):
        lines = (await shop.staff.get("/v1/orders/export.csv", params=params)).text.splitlines()[1:]
        assert [line.split(",")[5] for line in lines] == [f"r{place}" for place in range(5)]


def test_cells_that_a_spreadsheet_would_run() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    fields: dict[str, Any] = dict.fromkeys(Order.__struct_fields__)
    whole = Order(**(fields | {"id": "ord_1", "status": "paid", "items": [], "amount": 5, "refunded": 0, "asset": "SAT",
                               "discount_total": 0, "tax_total": 0, "created_at": now, "updated_at": now}))  # fmt: skip
    for text, cell in (
        ("=1", "'=1"), ("+1", "'+1"), ("-1", "'-1"), ("@a", "'@a"), ("\t=1", "'\t=1"), ("a=1", "a=1"),
        ('a"b', '"a""b"'), ("a,b", '"a,b"'), ("a\nb", '"a\nb"'), ("", ""), ("日本", "日本"),
    ):  # fmt: skip
        line = order_export.lines([msgspec.structs.replace(whole, source=text)]).decode()
        assert line == f"ord_1,2026-01-02T00:00:00.000000Z,paid,,{cell},,,,,SAT,5,0,0,0\r\n"


def test_the_grid_is_whole() -> None:
    assert len(PAIRS) == len(STATES) ** 2
    assert all(mark in {"x", "r", "."} for mark in PAIRS.values())
    assert [before for before, _ in pairwise(STATES)] == list(STATES[:-1])
