from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.support.app import Shop, client_of, good, opening, problem

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.tx import Tx
from counterfoil.events import reading
from counterfoil.events.types import Actor
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

_SECRETS = re.compile(r"(cf[a-z]_|LIC1-|pur_|token=|PRIVATE KEY)[A-Za-z0-9]")
"""What API keys, tokens, license keys and claims look like."""


async def _fill(shop: Shop) -> list[dict[str, Any]]:
    """Two actors, three types, two customers, three objects, a second apart; the events, oldest first."""

    def one(tx: Tx, number: int) -> None:
        tx.record(
            f"test.{number % 3}", "thing", f"thi_{number % 4}", customer_id=("cus_a", None)[number % 2], at=number
        )

    shop.clock.advance(timedelta(hours=1))
    for number in range(12):
        actor = Actor("user", f"usr_{number // 6}", source="api")
        await shop.house.scope(DEFAULT_TENANT, actor).run(one, number)
        shop.clock.advance(timedelta(seconds=1))
    return [row for row in await shop.rows("events") if row["type"].startswith("test.")]


async def _numbers(shop: Shop, **params: Any) -> list[int]:
    """The events of every page, by their numbers."""
    found: list[int] = []
    after: dict[str, Any] = {}
    while True:
        page = good(await shop.staff.get("/v1/events", params={"limit": 5, **params, **after}))
        found += [event["details"]["at"] for event in page["data"] if event["type"].startswith("test.")]
        if page["next"] is None:
            return found
        after = {"after": page["next"]}


async def test_filters(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    async with opening(database_url, clock, master) as shop:
        begun = clock.now() + timedelta(hours=1)
        await _fill(shop)
        everything = list(range(12))
        assert await _numbers(shop) == everything
        assert await _numbers(shop, order="desc") == everything[::-1]
        assert await _numbers(shop, type="test.1") == [1, 4, 7, 10]
        assert await _numbers(shop, object_id="thi_2") == [2, 6, 10]
        assert await _numbers(shop, customer_id="cus_a", order="desc") == [10, 8, 6, 4, 2, 0]
        assert await _numbers(shop, actor_id="usr_1") == [6, 7, 8, 9, 10, 11]
        assert await _numbers(shop, actor_id="usr_1", type="test.1", customer_id="cus_a") == [10]
        assert await _numbers(shop, type="test.9") == []
        since, until = begun + timedelta(seconds=3), begun + timedelta(seconds=6)
        assert await _numbers(shop, since=since.isoformat()) == everything[3:]
        assert await _numbers(shop, until=until.isoformat()) == everything[:6]
        window = {"since": since.isoformat(), "until": until.isoformat()}
        assert await _numbers(shop, **window) == [3, 4, 5]
        assert await _numbers(shop, **window, order="desc") == [5, 4, 3]
        assert await _numbers(shop, **window, type="test.1", actor_id="usr_0") == [4]
        just_after = (since + timedelta(microseconds=1)).isoformat()
        assert await _numbers(shop, since=just_after, until=until.isoformat()) == [4, 5]
        assert await _numbers(shop, since=since.isoformat(), until=just_after) == [3]


async def test_with_several_filters_a_page_may_be_short(
    database_url: str, clock: ManualClock, master: MasterKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_CANDIDATES", 2)
    reading._list.cache_clear()
    reading._last_candidate.cache_clear()
    try:
        async with opening(database_url, clock, master) as shop:
            await _fill(shop)
            wanted = {"customer_id": "cus_a", "type": "test.0"}
            page = good(await shop.staff.get("/v1/events", params={**wanted, "limit": 5}))
            assert [event["details"]["at"] for event in page["data"]] == [0]
            assert page["next"] is not None
            assert await _numbers(shop, **wanted) == [0, 6]
            assert await _numbers(shop, **wanted, order="desc") == [6, 0]
            assert await _numbers(shop, **wanted, limit=1) == [0, 6]
    finally:
        reading._list.cache_clear()
        reading._last_candidate.cache_clear()


@pytest.mark.parametrize(
    "params",
    [
        {"since": "2026-01-01T00:00:00"},
        {"until": "yesterday"},
        {"order": "up"},
        {"type": "x" * 201},
        {"limit": "0"},
        {"after": "x"},
    ],
)
async def test_bad_filters(database_url: str, clock: ManualClock, master: MasterKey, params: dict[str, str]) -> None:
    async with opening(database_url, clock, master) as shop:
        answer = await shop.staff.get("/v1/events", params=params)
        problem(answer, 422, "invalid_cursor" if "after" in params else "invalid_request")


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00"),
        ("1969-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
async def test_the_ends_of_time(
    database_url: str, clock: ManualClock, master: MasterKey, since: str, until: str
) -> None:
    async with opening(database_url, clock, master) as shop:
        everything = [row["id"] for row in await shop.rows("events")]
        page = good(await shop.staff.get("/v1/events", params={"since": since, "until": until, "limit": 100}))
        assert [event["id"] for event in page["data"]] == everything
        assert good(await shop.staff.get("/v1/events", params={"since": until, "until": since}))["data"] == []


async def test_events_say_who_and_where(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    async with opening(database_url, clock, master) as shop:
        key = shop.staff.headers["Authorization"]
        headers = {"Authorization": key, "User-Agent": "builder/1.0"}
        async with client_of(shop.app, address="192.0.2.7", headers=headers) as builder:
            good(await builder.post("/v1/products", json={"slug": "editor", "name": "Editor"}))
        event = await shop.row("events", type="product.created")
        told = {name: event[name] for name in ("actor_kind", "source", "address", "user_agent")}
        assert told == {"actor_kind": "key", "source": "api", "address": "192.0.2.7", "user_agent": "builder/1.0"}


async def test_no_secret_is_in_the_record(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    """Whatever is answered once and never again, or opens anything, is in no event."""
    async with opening(database_url, clock, master) as shop:
        seen: list[str] = []

        async def look(response: httpx.Response) -> None:
            await response.aread()
            seen.extend(re.findall(r'"((?:cf[a-z]_|pur_|LIC1-)[^"]{16,})"', response.text))

        for client in (shop.staff, shop.http):
            client.event_hooks = {"response": [look]}
        sold = await shop.tier("editor", license={"max_machines": 1})
        keys = await shop.buy(sold, email="buyer@example.com")
        body = {"key": keys[0], "fingerprint": "machine-one", "product_slug": "editor"}
        await shop.http.post("/v1/validate", json=body)
        assert seen
        record = "\n".join(str(row) for row in await shop.rows("events"))
        for secret in {*seen, *keys, shop.staff.headers["Authorization"].removeprefix("Bearer ")}:
            assert secret not in record
        assert _SECRETS.search(record) is None
        assert "machine-one" not in record
