"""Addresses and businesses of customers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.app import Shop, good, opening, problem

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

NOW = "2026-01-02T03:04:05.678901Z"
SMALLEST = {"addresses": {"country_code": "DE"}, "businesses": {"name": "Acme"}}
NOT_FOUND = {"addresses": "address_not_found", "businesses": "business_not_found"}
each_kind = pytest.mark.parametrize("kind", ["addresses", "businesses"])


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def customer(shop: Shop, name: str = "Acme") -> str:
    """Its path."""
    made = good(await shop.staff.post("/v1/customers", json={"kind": "organization", "name": name}))
    return f"/v1/customers/{made['id']}"


async def test_an_address_in_every_detail(shop: Shop) -> None:
    path = await customer(shop)
    fields = {
        "description": "本社",
        "first_line": "千代田1-1",
        "second_line": "3階",
        "city": "東京",
        "region": "関東",
        "country_code": "JP",
        "zip_code": "100-0001",
    }
    answer = await shop.staff.post(f"{path}/addresses", json=fields)
    assert answer.status_code == 201
    made = good(answer)
    assert made == {
        "id": made["id"],
        "customer_id": path.rsplit("/", 1)[1],
        **fields,
        "status": "active",
        "created_at": NOW,
        "updated_at": NOW,
    }
    assert good(await shop.staff.get(f"{path}/addresses/{made['id']}")) == made
    event = await shop.row("events", object_id=made["id"])
    assert (event["type"], event["customer_id"], event["details"]) == (
        "address.created",
        made["customer_id"],
        {"country_code": "JP"},
    )
    changed = good(await shop.staff.patch(f"{path}/addresses/{made['id']}", json={"city": "大阪"}))
    assert changed == {**made, "city": "大阪"}


async def test_a_business_in_every_detail(shop: Shop) -> None:
    path = await customer(shop)
    fields = {
        "name": "Acme GmbH & Co. KG",
        "company_number": "HRB 12345",
        "tax_identifier": "DE123456789",
        "contacts": [{"name": "Zoë", "email": "zoe@example.com"}],
        "metadata": {"a": [1]},
    }
    contacts = [{"name": " Zoe\u0308", "email": "Zoe@Example.com"}]
    made = good(await shop.staff.post(f"{path}/businesses", json={**fields, "contacts": contacts}))
    assert made == {
        "id": made["id"],
        "customer_id": path.rsplit("/", 1)[1],
        **fields,
        "status": "active",
        "created_at": NOW,
        "updated_at": NOW,
    }
    assert good(await shop.staff.get(f"{path}/businesses/{made['id']}")) == made
    changed = good(await shop.staff.patch(f"{path}/businesses/{made['id']}", json={"company_number": None}))
    assert changed == {**made, "company_number": None}
    assert (await shop.row("events", type="business.updated"))["details"] == {"changed": ["company_number"]}


@pytest.mark.parametrize(
    ("kind", "fields", "pointer", "code"),
    [
        *[
            ("addresses", {"country_code": wrong}, "/country_code", "unknown_country")
            for wrong in ("", "de", "D", "DEU", "XK", "UK", "EU", "ZZ", "ß", "AN", "D\u0415")
        ],
        ("addresses", {"country_code": None}, "/country_code", "invalid_request"),
        ("addresses", {"first_line": "x" * 201}, "/first_line", "invalid_request"),
        ("addresses", {"second_line": "a\nb"}, "/second_line", "invalid_request"),
        ("addresses", {"city": "x" * 101}, "/city", "invalid_request"),
        ("addresses", {"region": "\u202e"}, "/region", "invalid_request"),
        ("addresses", {"zip_code": "1" * 21}, "/zip_code", "invalid_request"),
        ("addresses", {"description": "x" * 201}, "/description", "invalid_request"),
        ("businesses", {"name": ""}, "/name", "invalid_request"),
        ("businesses", {"name": "a\u2067b"}, "/name", "invalid_request"),
        ("businesses", {"company_number": ""}, "/company_number", "invalid_request"),
        ("businesses", {"tax_identifier": "1" * 51}, "/tax_identifier", "invalid_request"),
        ("businesses", {"contacts": [{"name": "A"}]}, "/contacts/0", "invalid_request"),
        ("businesses", {"contacts": [{"name": "", "email": "a@b.c"}]}, "/contacts/0/name", "invalid_request"),
        ("businesses", {"contacts": [{"name": "A", "email": "a"}]}, "/contacts/0/email", "invalid_request"),
        ("businesses", {"contacts": [{"name": "A", "email": "a@b.c"}] * 21}, "/contacts", "invalid_request"),
        ("businesses", {"metadata": {"k": "x" * 10_240}}, "/metadata", "invalid_request"),
    ],
)
async def test_a_bad_field_is_named_and_changes_nothing(
    shop: Shop, kind: str, fields: dict[str, Any], pointer: str, code: str
) -> None:
    path = await customer(shop)
    made = good(await shop.staff.post(f"{path}/{kind}", json=SMALLEST[kind]))
    before = await shop.everything()
    for answer in (
        await shop.staff.post(f"{path}/{kind}", json={**SMALLEST[kind], **fields}),
        await shop.staff.patch(f"{path}/{kind}/{made['id']}", json=fields),
    ):
        assert [error["pointer"] for error in problem(answer, 422, code)["errors"]] == [pointer]
    assert await shop.everything() == before


@each_kind
async def test_to_the_archive_and_back(shop: Shop, kind: str) -> None:
    path = await customer(shop)
    made = good(await shop.staff.post(f"{path}/{kind}", json=SMALLEST[kind]))
    kept = good(await shop.staff.post(f"{path}/{kind}", json=SMALLEST[kind]))
    one = f"{path}/{kind}/{made['id']}"
    assert good(await shop.staff.delete(one)) == {**made, "status": "archived"}
    assert good(await shop.staff.get(f"{path}/{kind}?status=active"))["data"] == [kept]
    assert [row["id"] for row in good(await shop.staff.get(f"{path}/{kind}?status=archived"))["data"]] == [made["id"]]
    assert good(await shop.staff.patch(one, json={"status": "active"})) == made
    assert good(await shop.staff.patch(one, json={})) == made
    assert {"address.archived", "address.updated", "business.archived", "business.updated"} & set(
        await shop.events()
    ) == {f"{'address' if kind == 'addresses' else 'business'}.{verb}" for verb in ("archived", "updated")}


@each_kind
async def test_another_customers_is_not_found(shop: Shop, kind: str) -> None:
    mine, other = await customer(shop), await customer(shop, "Other")
    made = good(await shop.staff.post(f"{mine}/{kind}", json=SMALLEST[kind]))
    before = await shop.everything()
    theirs = f"{other}/{kind}/{made['id']}"
    for answer in (
        await shop.staff.get(theirs),
        await shop.staff.patch(theirs, json={"status": "archived"}),
        await shop.staff.patch(theirs, json={}),
        await shop.staff.delete(theirs),
        await shop.staff.get(f"{mine}/{kind}/nonsense"),
    ):
        problem(answer, 404, NOT_FOUND[kind])
    assert good(await shop.staff.get(f"{other}/{kind}")) == {"data": [], "next": None}
    assert await shop.everything() == before


@each_kind
async def test_lists_page(shop: Shop, kind: str) -> None:
    path = await customer(shop)
    made = {good(await shop.staff.post(f"{path}/{kind}", json=SMALLEST[kind]))["id"] for _ in range(5)}
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = good(await shop.staff.get(f"{path}/{kind}", params={"limit": 2, **after}))
        seen += [row["id"] for row in page["data"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == sorted(made)


@each_kind
async def test_nothing_is_added_to_a_customer_that_goes(shop: Shop, kind: str) -> None:
    paths = [await customer(shop, f"C{number}") for number in range(25)]

    async def race(path: str) -> tuple[int, int]:
        gone, added = await asyncio.gather(
            shop.staff.delete(path), shop.staff.post(f"{path}/{kind}", json=SMALLEST[kind])
        )
        return gone.status_code, added.status_code

    outcomes = await asyncio.gather(*[race(path) for path in paths])
    assert set(outcomes) <= {(204, 201), (204, 404)}
    gone = {row["id"] for row in await shop.rows("customers") if row["deleted_at"] is not None}
    assert len(gone) == 25
    assert await shop.count(kind) == [added for _, added in outcomes].count(201)
