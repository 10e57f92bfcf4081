"""Requests with an Idempotency-Key, through the API's own doors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.support.app import Shop, client_of, good, opening, problem
from tests.support.people import person

from counterfoil.accounts import api_keys
from counterfoil.db.base import Database
from counterfoil.idempotency import keys
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

PRODUCT = {"slug": "editor", "name": "Editor"}


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def make(http: httpx.AsyncClient, key: str = "k", path: str = "/v1/products", **fields: Any) -> httpx.Response:
    return await http.post(path, json=fields or PRODUCT, headers={"Idempotency-Key": key})


async def test_the_same_request_again_gets_the_same_answer(shop: Shop) -> None:
    first = await make(shop.staff)
    assert first.status_code == 201
    assert "idempotent-replayed" not in first.headers
    again = await make(shop.staff)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["idempotent-replayed"] == "true"
    assert len(await shop.rows("products")) == 1
    assert (await make(shop.staff, '"k"')).content == first.content
    row = await shop.row("idempotency_keys")
    assert (row["status"], row["answer_status"]) == ("done", 201)
    assert first.content not in row["answer_sealed"]
    assert row["expires_at"] == shop.clock.now() + timedelta(hours=24)


async def test_another_request_under_the_same_key_is_refused(shop: Shop) -> None:
    await make(shop.staff)
    before = await shop.everything()
    problem(await make(shop.staff, slug="viewer", name="Viewer"), 422, "idempotency_key_reused")
    problem(await make(shop.staff, path="/v1/products?x=1"), 422, "idempotency_key_reused")
    assert await shop.everything() == before


@pytest.mark.parametrize("key", ["", '""', "a b", "a" * 256, "caf\xe9", "tab\there"])
async def test_a_key_is_visible_ascii(shop: Shop, key: str) -> None:
    before = await shop.everything()
    headers = [("Idempotency-Key", key.encode("latin-1")), ("Authorization", shop.staff.headers["authorization"])]
    answer = await shop.http.post("/v1/products", json=PRODUCT, headers=headers)  # type: ignore[arg-type]
    problem(answer, 422, "bad_idempotency_key")
    assert await shop.everything() == before


async def test_a_key_belongs_to_its_caller_and_its_path(shop: Shop) -> None:
    first = good(await make(shop.staff, path="/v1/customers", kind="organization", name="One"))
    secret = api_keys.new_secret()
    await shop.scope.run(api_keys.create, "second", ["*"], secret=secret)
    boss = await person(shop, "boss@example.com", staff="SuperAdmin", app=shop.app)
    made = {first["id"]}
    for http in (client_of(shop.app, headers={"Authorization": f"Bearer {secret}"}), boss.http):
        made.add(good(await make(http, path="/v1/customers", kind="organization", name="One"))["id"])
    below = f"/v1/customers/{first['id']}/customers"
    made.add(good(await make(shop.staff, path=below, kind="organization", name="One"))["id"])
    assert len(made) == 4
    assert len(await shop.rows("idempotency_keys")) == 4


async def test_anybody_is_known_by_their_address(shop: Shop) -> None:
    sold = await shop.tier()
    body = {"lines": [{"price_id": sold.price_id}]}
    ids = []
    for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
        http = client_of(shop.app, address=address)
        ids.append(good(await make(http, path="/v1/checkouts", **body))["id"])
    assert ids[0] == ids[2] != ids[1]


async def test_after_a_day_a_key_is_new(shop: Shop) -> None:
    sold = await shop.tier()
    one = good(await shop.try_checkout(sold, key="k"))
    made = good(await make(shop.staff, path="/v1/customers", kind="organization", name="One"))
    shop.clock.advance(timedelta(hours=24) - timedelta(microseconds=1))
    again = await make(shop.staff, path="/v1/customers", kind="organization", name="One")
    assert again.json() == made
    assert good(await shop.try_checkout(sold, key="k")) == one
    shop.clock.advance(timedelta(microseconds=1))
    other = good(await make(shop.staff, path="/v1/customers", kind="organization", name="Two"))
    assert other["id"] != made["id"]
    assert good(await shop.try_checkout(sold, key="k"))["id"] != one["id"]


async def test_old_keys_are_tidied(shop: Shop) -> None:
    for number in range(5):
        await make(shop.staff, str(number), "/v1/customers", kind="organization", name="One")
    assert await shop.scope.run(keys.tidy) == 0
    shop.clock.advance(timedelta(hours=24))
    assert await shop.scope.run(keys.tidy, limit=3) == 3
    assert await shop.scope.run(keys.tidy, limit=3) == 2
    assert await shop.rows("idempotency_keys") == []


async def test_refusals_are_kept_except_those_that_pass(shop: Shop) -> None:
    first = problem(await make(shop.staff, slug="NO", name="x"), 422, "invalid_request")
    again = await make(shop.staff, slug="NO", name="x")
    assert (again.json(), again.headers["idempotent-replayed"]) == (first, "true")
    await make(shop.staff, "other")
    refused = problem(await make(shop.staff, "taken"), 409, "slug_taken")
    await shop.staff.patch("/v1/products/editor", json={"slug": "was-editor"})
    assert (await make(shop.staff, "taken")).json() == refused
    # Who may not now may later.
    secret = api_keys.new_secret()
    weak = client_of(shop.app, headers={"Authorization": f"Bearer {secret}"})
    problem(await make(weak, "later"), 401, "bad_api_key")
    boss = await person(shop, "boss@example.com", staff="SuperAdmin", app=shop.app)
    body = {"user_id": boss.id, "role": "SuperAdmin"}
    problem(await make(shop.staff, "nonce", "/v1/staff", **body), 403, "nonce_required")
    assert {row["answer_status"] for row in await shop.rows("idempotency_keys")} == {201, 409, 422}


async def test_fifty_at_once_make_one(shop: Shop) -> None:
    async def until_answered() -> httpx.Response:
        while True:
            answer = await make(shop.staff, path="/v1/customers", kind="organization", name="One")
            if answer.status_code != 409:
                return answer
            assert problem(answer, 409, "idempotency_key_in_use")["retryable"] is True
            assert answer.headers["retry-after"] == "1"

    answers = await asyncio.gather(*(until_answered() for _ in range(50)))
    assert {(one.status_code, one.content) for one in answers} == {(201, answers[0].content)}
    assert sum("idempotent-replayed" not in one.headers for one in answers) == 1
    assert len(await shop.rows("customers")) == 1
    assert (await shop.events("customer.created")) == ["customer.created"]


async def test_fifty_checkouts_at_once_are_one(shop: Shop) -> None:
    sold = await shop.tier()
    answers = await asyncio.gather(*(shop.try_checkout(sold, key="k") for _ in range(50)))
    assert {(one.status_code, one.content) for one in answers} == {(201, answers[0].content)}
    assert len(await shop.rows("checkouts")) == 1
    again = await shop.try_checkout(sold, key="k")
    assert (again.content, again.headers["idempotent-replayed"]) == (answers[0].content, "true")


async def test_an_answer_that_never_left_is_replayed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process fails between the commit and the answer."""
    write = type(shop.house.database).write

    async def and_fail(self: Database, work: Any, tenant: str, actor: Any) -> Any:
        answer = await write(self, work, tenant, actor)
        if actor.kind == "key":
            raise RuntimeError("gone")
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(type(shop.house.database), "write", and_fail)
        problem(await make(shop.staff), 500, "internal_error")
    (product,) = await shop.rows("products")
    again = await make(shop.staff)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.json()["id"] == product["id"]
    assert len(await shop.rows("products")) == 1


async def test_what_failed_can_be_asked_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from counterfoil.catalog import products

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of order")

    with monkeypatch.context() as patched:
        patched.setattr(products, "create", fail)
        problem(await make(shop.staff), 500, "internal_error")
    assert await shop.rows("idempotency_keys") == []
    assert (await make(shop.staff)).status_code == 201


async def test_a_slow_handling_changes_nothing_once_it_is_taken_for_dead(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = type(shop.house.database).write
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(self: Database, work: Any, tenant: str, actor: Any) -> Any:
        if actor.kind == "key" and not reached.is_set():
            reached.set()
            await go_on.wait()
        return await write(self, work, tenant, actor)

    monkeypatch.setattr(type(shop.house.database), "write", slow)
    first = asyncio.create_task(make(shop.staff))
    await reached.wait()
    problem(await make(shop.staff), 409, "idempotency_key_in_use")
    shop.clock.advance(keys.CLAIMED)
    second = await make(shop.staff)
    assert second.status_code == 201
    go_on.set()
    late = await first
    assert (late.status_code, late.content, late.headers["idempotent-replayed"]) == (201, second.content, "true")
    assert len(await shop.rows("products")) == 1


async def test_a_change_whose_answer_is_lost_is_not_made_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A route that shapes its answer after the change, in a process that dies in between."""
    from counterfoil.idempotency.handling import Handling

    async def die(*_: Any) -> None:
        raise asyncio.CancelledError

    boss = await person(shop, "boss@example.com", staff="SuperAdmin", app=shop.app)
    with monkeypatch.context() as patched:
        patched.setattr(Handling, "finish", die)
        with pytest.raises(asyncio.CancelledError):
            await make(boss.http, path="/v1/me/emails", email="more@example.com")
    problem(await make(boss.http, path="/v1/me/emails", email="more@example.com"), 409, "idempotency_key_in_use")
    shop.clock.advance(keys.CLAIMED)
    problem(await make(boss.http, path="/v1/me/emails", email="more@example.com"), 409, "idempotency_answer_lost")


async def test_without_a_key_nothing_is_kept(shop: Shop) -> None:
    good(await shop.staff.post("/v1/products", json=PRODUCT))
    problem(await shop.staff.post("/v1/products", json=PRODUCT), 409, "slug_taken")
    assert await shop.rows("idempotency_keys") == []


async def test_routes_that_take_no_key(shop: Shop) -> None:
    key = {"Idempotency-Key": "a b"}
    for path, body in (
        ("/v1/validate", {"key": "LIC1-x"}),
        ("/v1/webhooks/sandbox", {}),
    ):
        answer = await shop.http.post(path, json=body, headers=key)
        assert answer.json().get("code") != "bad_idempotency_key"
    assert await shop.rows("idempotency_keys") == []


async def test_the_description_names_the_header_where_it_counts(shop: Shop) -> None:
    document = good(await shop.http.get("/v1/openapi/openapi.json"))
    takes = {
        path: "Idempotency-Key" in {parameter["name"] for parameter in item["post"].get("parameters", [])}
        for path, item in document["paths"].items()
        if "post" in item
    }
    none = {path for path, does in takes.items() if not does}
    assert none == {
        "/v1/validate", "/v1/machines/activate", "/v1/machines/heartbeat", "/v1/machines/deactivate",
        "/v1/rails/btcpay/callback", "/v1/webhooks/{rail}",
    }  # fmt: skip
    for path, item in document["paths"].items():
        for method, operation in item.items():
            names = [parameter["name"] for parameter in operation.get("parameters", [])]
            assert names.count("Idempotency-Key") == (method == "post" and takes[path])
            if method == "post" and takes[path]:
                assert {"409", "422"} <= set(operation["responses"])
