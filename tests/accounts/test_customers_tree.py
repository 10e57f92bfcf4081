"""The tree of customers: levels, moves, and that nothing that happens at once can bend it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.app import Shop, good, opening, problem

from counterfoil.accounts.tables import customers
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

_ROWS = sa.select(
    customers.c.id, customers.c.parent_id, customers.c.level, customers.c.path, customers.c.deleted_at
).where(mine(customers))


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def make(shop: Shop, name: str, parent: str | None = None, **fields: Any) -> str:
    """Its id."""
    body = {"kind": "organization", "name": name, "parent_id": parent, **fields}
    return str(good(await shop.staff.post("/v1/customers", json=body))["id"])


async def move(shop: Shop, customer: str, parent: str | None) -> Any:
    return await shop.staff.post(f"/v1/customers/{customer}/move", json={"parent_id": parent})


def _faults(tx: Tx) -> list[str]:
    """Every customer whose level or path is not what its parents make it, found by walking up."""
    rows = {row.id: row for row in tx.all(_ROWS)}
    found = []
    for row in rows.values():
        ids, above = [row.id], row.parent_id
        while above is not None and len(ids) < 10:
            ids.insert(0, above)
            above = rows[above].parent_id
        if len(ids) > 3:
            found.append(f"{row.id} is {len(ids)} deep, or above itself")
        if row.path != "".join(f"{one}/" for one in ids):
            found.append(f"{row.id} has the path {row.path}")
        if row.parent_id is not None and row.level != rows[row.parent_id].level + 1:
            found.append(f"{row.id} is at level {row.level}, its parent at {rows[row.parent_id].level}")
        if row.parent_id is None and row.level not in {1, 2}:
            found.append(f"{row.id} is at the top and at level {row.level}")
        if row.parent_id is not None and row.deleted_at is None and rows[row.parent_id].deleted_at is not None:
            found.append(f"{row.id} is below a deleted customer")
    return found


async def faults(shop: Shop) -> list[str]:
    return await shop.scope.read(_faults)


async def shape(shop: Shop) -> dict[str, tuple[str | None, int]]:
    """Each customer's parent and level, by name."""
    assert await faults(shop) == []
    rows = await shop.rows("customers")
    names = {row["id"]: row["name"] for row in rows}
    return {row["name"]: (names.get(row["parent_id"]), row["level"]) for row in rows}


async def refused(shop: Shop, code: str, customer: str, parent: str | None, status: int = 409) -> None:
    before = await shop.everything()
    problem(await move(shop, customer, parent), status, code)
    assert await shop.everything() == before


# -- levels -------------------------------------------------------------------------------------------


async def test_each_is_one_level_below_its_parent(shop: Shop) -> None:
    msp = await make(shop, "msp", level=1)
    client = await make(shop, "client", msp)
    department = await make(shop, "department", client)
    alone = await make(shop, "alone")
    await make(shop, "alone too", level=2)
    await make(shop, "its department", alone)
    assert await shape(shop) == {
        "msp": (None, 1),
        "client": ("msp", 2),
        "department": ("client", 3),
        "alone": (None, 2),
        "alone too": (None, 2),
        "its department": ("alone", 3),
    }
    assert (await shop.row("customers", id=department))["path"] == f"{msp}/{client}/{department}/"


async def test_what_cannot_be_made_below_what(shop: Shop) -> None:
    client = await make(shop, "client")
    department = await make(shop, "department", client)
    archived = await make(shop, "archived")
    deleted = await make(shop, "deleted")
    good(await shop.staff.post(f"/v1/customers/{archived}/archive"))
    await shop.staff.delete(f"/v1/customers/{deleted}")
    before = await shop.everything()
    for parent, status, code in (
        (department, 409, "too_deep"),
        (archived, 409, "parent_not_active"),
        (deleted, 409, "parent_not_active"),
        ("cus_01j00000000000000000000000", 404, "customer_not_found"),
        ("", 404, "customer_not_found"),
        ("no id", 404, "customer_not_found"),
    ):
        body = {"kind": "person", "name": "X", "parent_id": parent}
        problem(await shop.staff.post("/v1/customers", json=body), status, code)
    body = {"kind": "person", "name": "X"}
    problem(await shop.staff.post(f"/v1/customers/{department}/customers", json=body), 409, "too_deep")
    problem(await shop.staff.post(f"/v1/customers/{archived}/customers", json=body), 409, "parent_not_active")
    problem(await shop.staff.post(f"/v1/customers/{deleted}/customers", json=body), 404, "customer_not_found")
    elsewhere = {**body, "parent_id": archived}
    problem(await shop.staff.post(f"/v1/customers/{client}/customers", json=elsewhere), 422, "parent_given")
    leveled = {**body, "level": 2}
    problem(await shop.staff.post(f"/v1/customers/{client}/customers", json=leveled), 422, "level_given")
    assert await shop.everything() == before


# -- what is below ------------------------------------------------------------------------------------


async def test_children_and_the_whole_subtree(shop: Shop) -> None:
    msp = await make(shop, "msp", level=1)
    other = await make(shop, "other msp", level=1)
    clients = [await make(shop, f"client {number}", msp) for number in range(3)]
    for number, client in enumerate(clients):
        path = f"/v1/customers/{client}/customers"
        for letter in "ab":
            good(await shop.staff.post(path, json={"kind": "organization", "name": f"{number}{letter}"}))
    gone = await make(shop, "gone", msp)
    await make(shop, "elsewhere", other)
    await shop.staff.delete(f"/v1/customers/{gone}")

    async def seen(customer: str, **query: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        while True:
            page = good(
                await shop.staff.get(f"/v1/customers/{customer}/customers", params={"limit": 2, **query, **after})
            )
            rows += page["data"]
            if page["next"] is None:
                return rows
            after = {"after": page["next"]}

    assert sorted(row["name"] for row in await seen(msp)) == ["client 0", "client 1", "client 2"]
    below = await seen(msp, below=True)
    assert sorted(row["name"] for row in below) == sorted(
        ["client 0", "client 1", "client 2", "0a", "0b", "1a", "1b", "2a", "2b"]
    )
    places = {row["id"]: place for place, row in enumerate(below)}
    for row in below:  # each comes after the one above it, and before the next client's
        if row["parent_id"] != msp:
            assert 0 < places[row["id"]] - places[row["parent_id"]] <= 2
    assert await seen(clients[0], below=True) == [row for row in below if row["parent_id"] == clients[0]]
    problem(await shop.staff.get(f"/v1/customers/{msp}/customers?after=x"), 422, "invalid_cursor")


# -- moves --------------------------------------------------------------------------------------------


async def test_a_subtree_moves_whole(shop: Shop) -> None:
    first, second = await make(shop, "first", level=1), await make(shop, "second", level=1)
    client = await make(shop, "client", first)
    await make(shop, "department", client)
    gone = await make(shop, "gone", client)
    await shop.staff.delete(f"/v1/customers/{gone}")
    shop.clock.advance(shop.house.settings.quote_lasts)
    moved = good(await move(shop, client, second))
    assert (moved["parent_id"], moved["level"], moved["path"]) == (second, 2, f"{second}/{client}/")
    assert await shape(shop) == {
        "first": (None, 1),
        "second": (None, 1),
        "client": ("second", 2),
        "department": ("client", 3),
        "gone": ("client", 3),
    }
    event = await shop.row("events", type="customer.moved")
    assert (event["object_id"], event["customer_id"]) == (client, client)
    assert event["details"] == {"from_parent_id": first, "to_parent_id": second, "level": 2}


async def test_to_the_top_and_down_again(shop: Shop) -> None:
    msp = await make(shop, "msp", level=1)
    client = await make(shop, "client", msp)
    department = await make(shop, "department", client)
    good(await move(shop, client, None))
    assert await shape(shop) == {"msp": (None, 1), "client": (None, 2), "department": ("client", 3)}
    good(await move(shop, department, None))
    assert await shape(shop) == {"msp": (None, 1), "client": (None, 2), "department": (None, 2)}
    good(await move(shop, department, client))
    good(await move(shop, client, msp))
    assert await shape(shop) == {"msp": (None, 1), "client": ("msp", 2), "department": ("client", 3)}
    before = await shop.everything()
    good(await move(shop, client, msp))  # it is there
    good(await move(shop, msp, None))
    assert await shop.everything() == before


async def test_an_msp_can_become_a_customer(shop: Shop) -> None:
    big, small = await make(shop, "big", level=1), await make(shop, "small", level=1)
    await make(shop, "client", small)
    good(await move(shop, small, big))
    assert await shape(shop) == {"big": (None, 1), "small": ("big", 2), "client": ("small", 3)}


async def test_moves_that_would_bend_the_tree(shop: Shop) -> None:
    msp, other = await make(shop, "msp", level=1), await make(shop, "other", level=1)
    client = await make(shop, "client", msp)
    department = await make(shop, "department", client)
    sibling = await make(shop, "sibling", msp)
    hidden = await make(shop, "hidden", sibling)
    await shop.staff.delete(f"/v1/customers/{hidden}")
    archived = await make(shop, "archived", level=1)
    good(await shop.staff.post(f"/v1/customers/{archived}/archive"))
    for moved, parent, code in (
        (msp, msp, "customer_cycle"),
        (msp, client, "customer_cycle"),
        (msp, department, "customer_cycle"),
        (client, department, "customer_cycle"),
        (msp, other, "too_deep"),  # its department would be at level 4
        (client, sibling, "too_deep"),
        (sibling, client, "too_deep"),  # with a deleted one below it
        (sibling, department, "too_deep"),
        (client, archived, "parent_not_active"),
        (client, hidden, "parent_not_active"),
    ):
        await refused(shop, code, moved, parent)
    await refused(shop, "customer_not_found", client, "cus_01j00000000000000000000000", 404)
    await refused(shop, "customer_not_found", hidden, msp, 404)
    assert await faults(shop) == []


# -- at once ------------------------------------------------------------------------------------------


async def test_moves_and_births_at_once_leave_a_tree(shop: Shop) -> None:
    dice = random.Random(20260102)  # any mix will do, and always the same
    msps = [await make(shop, f"msp {number}", level=1) for number in range(3)]
    clients = [await make(shop, f"client {number}", msps[number % 3]) for number in range(6)]
    departments = [await make(shop, f"department {number}", clients[number % 6]) for number in range(6)]
    everyone = [*msps, *clients, *departments]

    async def one(number: int) -> int:
        if number % 4 == 0:
            body = {"kind": "person", "name": f"new {number}", "parent_id": dice.choice(everyone)}
            answer = await shop.staff.post("/v1/customers", json=body)
        elif number % 10 == 1:
            answer = await shop.staff.delete(f"/v1/customers/{dice.choice(everyone)}")
        else:
            answer = await move(shop, dice.choice(everyone), dice.choice([*everyone, None]))
        if not answer.is_success:
            assert answer.json()["code"] in {
                "customer_cycle", "too_deep", "parent_not_active", "customer_not_found", "customer_has_children",
            }  # fmt: skip
        return answer.status_code

    statuses = await asyncio.gather(*[one(number) for number in range(100)])
    assert {200, 201, 409} <= set(statuses) <= {200, 201, 204, 404, 409}
    assert await faults(shop) == []


async def test_two_cannot_be_put_below_each_other(shop: Shop) -> None:
    pairs = [(await make(shop, f"a{number}", level=1), await make(shop, f"b{number}", level=1)) for number in range(50)]
    answers = await asyncio.gather(*[move(shop, one, other) for a, b in pairs for one, other in ((a, b), (b, a))])
    assert sorted(answer.status_code for answer in answers) == [200] * 50 + [409] * 50
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"customer_cycle"}
    assert await faults(shop) == []


async def test_nobody_is_born_below_a_customer_that_goes(shop: Shop) -> None:
    parents = [await make(shop, f"p{number}") for number in range(25)]

    async def race(parent: str, number: int) -> tuple[int, int]:
        body = {"kind": "person", "name": f"c{number}", "parent_id": parent}
        gone, born = await asyncio.gather(
            shop.staff.delete(f"/v1/customers/{parent}"), shop.staff.post("/v1/customers", json=body)
        )
        return gone.status_code, born.status_code

    outcomes = await asyncio.gather(*[race(parent, number) for number, parent in enumerate(parents)])
    assert set(outcomes) <= {(204, 409), (409, 201)}
    assert await faults(shop) == []
