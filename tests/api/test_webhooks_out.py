"""Webhook endpoints and deliveries over HTTP: what can be asked for, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.app import Shop, good, opening, problem

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

URL = "https://hooks.example.com/in"
ENDPOINTS, DELIVERIES = "/v1/webhook-endpoints", "/v1/webhook-deliveries"


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as shop:
        yield shop


async def make(shop: Shop, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = good(await shop.staff.post(ENDPOINTS, json={"url": URL, **fields}))
    return made


async def test_an_endpoint_from_its_making_to_its_end(shop: Shop) -> None:
    made = await make(shop, event_types=["order.*", "order.*", "payment.settled"], description=" ours ")
    now = shop.clock.now().isoformat().replace("+00:00", "Z")
    assert made == {
        "id": made["id"],
        "url": URL,
        "description": "ours",
        "event_types": ["order.*", "payment.settled"],
        "public_key": made["public_key"],
        "status": "enabled",
        "disabled_reason": None,
        "first_failed_at": None,
        "old_secret_until": None,
        "created_at": now,
        "updated_at": now,
        "secret": made["secret"],
    }
    assert made["secret"].startswith("whsec_")
    assert made["public_key"].startswith("whpk_")
    path = f"{ENDPOINTS}/{made['id']}"
    shown = {name: value for name, value in made.items() if name != "secret"}
    assert good(await shop.staff.get(path)) == shown
    assert good(await shop.staff.get(ENDPOINTS)) == {"data": [shown], "next": None}
    changed = good(await shop.staff.patch(path, json={"url": URL + "/new"}))
    assert (changed["url"], changed["event_types"]) == (URL + "/new", made["event_types"])
    changed = good(await shop.staff.patch(path, json={"event_types": ["*"], "description": ""}))
    assert (changed["url"], changed["event_types"], changed["description"]) == (URL + "/new", ["*"], "")
    disabled = good(await shop.staff.post(f"{path}/disable"))
    assert (disabled["status"], disabled["disabled_reason"]) == ("disabled", "by_hand")
    assert good(await shop.staff.post(f"{path}/disable")) == disabled
    assert good(await shop.staff.post(f"{path}/enable"))["status"] == "enabled"
    assert good(await shop.staff.post(f"{path}/enable"))["status"] == "enabled"
    assert (await shop.staff.delete(path)).status_code == 204
    problem(await shop.staff.get(path), 404, "webhook_endpoint_not_found")
    prefix = "webhook_endpoint."
    told = [kind.removeprefix(prefix) for kind in await shop.events() if kind.startswith(prefix)]
    assert sorted(told) == ["created", "deleted", "disabled", "enabled", "updated", "updated"]


async def test_secrets_are_sealed_and_in_no_event(shop: Shop) -> None:
    made = await make(shop)
    rotated = good(await shop.staff.post(f"{ENDPOINTS}/{made['id']}/rotate-secret"))
    everything = str(await shop.everything())
    for secret in (made["secret"], rotated["secret"]):
        assert secret not in everything
        assert secret.removeprefix("whsec_") not in everything


@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        ({"url": "http://hooks.example.com"}, "bad_webhook_url", "/url"),
        ({"url": "https://10.0.0.1/in"}, "webhook_target_refused", "/url"),
        ({"url": "https://ümlaut.example/"}, "bad_webhook_url", "/url"),
        ({"event_types": []}, "bad_event_types", "/event_types"),
        ({"event_types": ["order.paid"] * 101}, "bad_event_types", "/event_types"),
        ({"event_types": ["order.paid", "order"]}, "bad_event_types", "/event_types/1"),
        ({"event_types": ["*.paid"]}, "bad_event_types", "/event_types/0"),
        ({"event_types": [""]}, "bad_event_types", "/event_types/0"),
        ({"event_types": ["Order.Paid\n"]}, "bad_event_types", "/event_types/0"),
        ({"description": "x" * 501}, "invalid_request", "/description"),
        ({"description": "a\u202eb"}, "invalid_request", "/description"),
    ],
)
async def test_bad_endpoints_are_refused(shop: Shop, fields: dict[str, Any], code: str, pointer: str) -> None:
    made = await make(shop)
    before = await shop.everything("api_keys")
    for answer in (
        await shop.staff.post(ENDPOINTS, json={"url": URL, **fields}),
        await shop.staff.patch(f"{ENDPOINTS}/{made['id']}", json=fields),
    ):
        assert problem(answer, 422, code)["errors"][0]["pointer"] == pointer
    assert await shop.everything("api_keys") == before


async def test_what_is_not_there_is_not_found(shop: Shop) -> None:
    before = await shop.everything("api_keys")
    nowhere = f"{ENDPOINTS}/whe_nowhere"
    since = {"since": "2026-01-01T00:00:00Z"}
    for method, path, body in [
        ("GET", nowhere, None),
        ("PATCH", nowhere, {"description": "x"}),
        ("DELETE", nowhere, None),
        ("POST", f"{nowhere}/rotate-secret", None),
        ("POST", f"{nowhere}/enable", None),
        ("POST", f"{nowhere}/disable", None),
        ("POST", f"{nowhere}/test", None),
        ("POST", f"{nowhere}/replay", since),
    ]:
        problem(await shop.staff.request(method, path, json=body), 404, "webhook_endpoint_not_found")
    for method, path in [
        ("GET", f"{DELIVERIES}/whd_nowhere"),
        ("DELETE", f"{DELIVERIES}/whd_nowhere"),
        ("POST", f"{DELIVERIES}/whd_nowhere/retry"),
    ]:
        problem(await shop.staff.request(method, path), 404, "webhook_delivery_not_found")
    assert await shop.everything("api_keys") == before


async def test_deliveries_are_listed_by_what_is_asked(shop: Shop) -> None:
    first, second = await make(shop, event_types=["product.*"]), await make(shop, event_types=["product.created"])
    for slug in ("one", "two"):
        good(await shop.staff.post("/v1/products", json={"slug": slug, "name": slug}))
    good(await shop.staff.patch("/v1/products/one", json={"name": "Uno"}))

    async def listed(**query: Any) -> list[tuple[str, str]]:
        found, after = [], None
        while True:
            asked = {**query, "limit": 2, **({"after": after} if after else {})}
            page = good(await shop.staff.get(DELIVERIES, params=asked))
            found += [(row["endpoint_id"], row["payload"]["type"]) for row in page["data"]]
            after = page["next"]
            if after is None:
                return found

    created, updated = "product.created", "product.updated"
    everything = sorted(await listed())
    assert everything == sorted([*[(one["id"], created) for one in (first, second) * 2], (first["id"], updated)])
    assert sorted(await listed(endpoint_id=first["id"])) == sorted(
        [(first["id"], created), (first["id"], created), (first["id"], updated)]
    )
    assert await listed(event_type=updated, status="pending") == [(first["id"], updated)]
    assert await listed(status="failed") == []
    assert (await shop.staff.get(DELIVERIES, params={"status": "lost"})).status_code == 422
    assert (await shop.staff.get(DELIVERIES, params={"endpoint_id": "x" * 201})).status_code == 422
    one = good(await shop.staff.get(DELIVERIES, params={"limit": 1}))["data"][0]
    assert good(await shop.staff.get(f"{DELIVERIES}/{one['id']}")) == one
    assert (one["status"], one["attempts"], one["last_error"]) == ("pending", 0, None)
    assert not {"claimed_by", "claimed_until"} & one.keys()


async def test_news_while_an_endpoint_is_deleted_never_fails_the_sale(shop: Shop) -> None:
    """A hundred at once: some see the endpoint, some do not, none fails."""
    made = await make(shop, event_types=["product.*"])

    async def product(number: int) -> int:
        body = {"slug": f"p-{number}", "name": "P"}
        return (await shop.staff.post("/v1/products", json=body)).status_code

    async def end() -> int:
        await asyncio.sleep(0)
        return (await shop.staff.delete(f"{ENDPOINTS}/{made['id']}")).status_code

    answers = await asyncio.gather(*[product(n) for n in range(50)], end(), *[product(n) for n in range(50, 100)])
    assert answers == [201] * 50 + [204] + [201] * 50
    assert await shop.count("products") == 100
    assert await shop.count("webhook_deliveries") == 0
