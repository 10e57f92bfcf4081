"""Each method of the usual store interface (docs/storage-interface.md), driven through ours: its queues and keys."""

from __future__ import annotations

import importlib
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.app import Shop, good, opening, problem

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.base import DatabaseUnavailable
from counterfoil.db.engines import connect
from counterfoil.idempotency import keys
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.sales import orders
from counterfoil.webhooks import deliveries
from counterfoil.webhooks.deliveries import Claim, Outcome
from counterfoil.webhooks.types import Delivery

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master, webhooks_allow_loopback=True) as opened:
        yield opened


# -- webhooks ------------------------------------------------------------------------------------------


async def queued(shop: Shop) -> dict[str, Any]:
    """A delivery that waits: a product was made, and somebody wants to hear of it."""
    body = {"url": "http://127.0.0.1:1/", "event_types": ["product.*"]}
    good(await shop.staff.post("/v1/webhook-endpoints", json=body))
    good(await shop.staff.post("/v1/products", json={"slug": "editor", "name": "Editor"}))
    return await shop.row("webhook_deliveries")


async def claimed(shop: Shop) -> Claim | None:
    endpoint_id = (await shop.row("webhook_endpoints"))["id"]
    return await shop.scope.run(deliveries.claim, endpoint_id, "worker-1", most=10)


async def finished(shop: Shop, delivery: Delivery, **came: Any) -> dict[str, Any]:
    outcome = Outcome(
        delivery_id=delivery.id, endpoint_id=delivery.endpoint_id, worker="worker-1", attempts=delivery.attempts, **came
    )
    await shop.scope.run(deliveries.finish, shop.house.master, [outcome])
    return await shop.row("webhook_deliveries")


async def test_enqueue_webhook(shop: Shop) -> None:
    row = await queued(shop)
    event = await shop.row("events", type="product.created")
    assert (row["status"], row["attempts"], row["event_id"]) == ("pending", 0, event["id"])
    assert '"slug":"editor"' in row["payload"].replace(" ", "")


async def test_dequeue_webhooks(shop: Shop) -> None:
    row = await queued(shop)
    found = await shop.scope.read(deliveries.due)
    assert found.endpoint_ids == [row["endpoint_id"]]
    taken = await claimed(shop)
    assert taken is not None
    assert [one.id for one in taken.deliveries] == [row["id"]]
    assert await claimed(shop) is None  # nobody gets it twice


async def test_mark_webhook_processing(shop: Shop) -> None:
    await queued(shop)
    await claimed(shop)
    row = await shop.row("webhook_deliveries")
    assert (row["status"], row["claimed_by"], row["attempts"]) == ("processing", "worker-1", 1)


async def test_mark_webhook_success(shop: Shop) -> None:
    await queued(shop)
    taken = await claimed(shop)
    assert taken is not None
    row = await finished(shop, taken.deliveries[0], status=200, error=None)
    assert (row["status"], row["last_status"], row["completed_at"]) == ("success", 200, shop.clock.now())


async def test_mark_webhook_failed(shop: Shop) -> None:
    await queued(shop)
    taken = await claimed(shop)
    assert taken is not None
    row = await finished(shop, taken.deliveries[0], status=500, error="no", wait=timedelta(seconds=5))
    assert (row["status"], row["last_error"]) == ("pending", "no")
    assert row["next_attempt_at"] == shop.clock.now() + timedelta(seconds=5)


async def test_get_webhook(shop: Shop) -> None:
    row = await queued(shop)
    shown = good(await shop.staff.get(f"/v1/webhook-deliveries/{row['id']}"))
    assert (shown["id"], shown["event_type"], shown["status"]) == (row["id"], "product.created", "pending")
    problem(await shop.staff.get("/v1/webhook-deliveries/whd_none"), 404, "webhook_delivery_not_found")


async def test_list_webhooks(shop: Shop) -> None:
    row = await queued(shop)
    page = good(await shop.staff.get("/v1/webhook-deliveries?status=pending&limit=1"))
    assert ([one["id"] for one in page["data"]], page["next"]) == ([row["id"]], None)
    assert good(await shop.staff.get("/v1/webhook-deliveries?status=failed"))["data"] == []


async def test_retry_webhook(shop: Shop) -> None:
    row = await queued(shop)
    taken = await claimed(shop)
    assert taken is not None
    await finished(shop, taken.deliveries[0], status=410, error="gone", gone=True)
    retried = good(await shop.staff.post(f"/v1/webhook-deliveries/{row['id']}/retry"))
    assert (retried["status"], retried["attempts"]) == ("pending", 0)


async def test_delete_webhook(shop: Shop) -> None:
    row = await queued(shop)
    assert (await shop.staff.delete(f"/v1/webhook-deliveries/{row['id']}")).is_success
    assert await shop.count("webhook_deliveries") == 0


# -- idempotency keys ----------------------------------------------------------------------------------

KEY = {"Idempotency-Key": "once"}
EDITOR = {"slug": "editor", "name": "Editor"}


async def test_save_idempotency_key(shop: Shop) -> None:
    good(await shop.staff.post("/v1/products", json=EDITOR, headers=KEY))
    row = await shop.row("idempotency_keys")
    assert (row["status"], row["answer_status"]) == ("done", 201)
    assert row["expires_at"] == shop.clock.now() + timedelta(hours=24)


async def test_get_idempotency_key(shop: Shop) -> None:
    first = await shop.staff.post("/v1/products", json=EDITOR, headers=KEY)
    again = await shop.staff.post("/v1/products", json=EDITOR, headers=KEY)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert await shop.count("products") == 1


async def test_delete_idempotency_key(shop: Shop) -> None:
    # A refusal that may be otherwise a moment later frees its key.
    refused = await shop.http.post("/v1/products", json=EDITOR, headers=KEY)
    assert refused.status_code == 401
    assert await shop.count("idempotency_keys") == 0


async def test_cleanup_expired_idempotency_keys(shop: Shop) -> None:
    good(await shop.staff.post("/v1/products", json=EDITOR, headers=KEY))
    assert await shop.scope.run(keys.tidy) == 0
    shop.clock.advance(timedelta(hours=24))
    assert await shop.scope.run(keys.tidy) == 1
    assert await shop.count("idempotency_keys") == 0


# -- lifecycle -----------------------------------------------------------------------------------------


async def test_close(database_url: str, clock: ManualClock) -> None:
    database = connect(database_url, clock)
    scope = database.scope(DEFAULT_TENANT)
    await scope.read(orders.of_checkout, "chk_none")
    await database.close()
    with pytest.raises(DatabaseUnavailable):
        await scope.run(orders.get, "ord_none")


# -- the page ------------------------------------------------------------------------------------------


def snake(method: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", method).lower()


def test_every_method_of_the_page_has_its_test() -> None:
    page = (ROOT / "docs" / "storage-interface.md").read_text().partition("## Subscriptions")[0]
    methods = re.findall(r"^\| `([A-Z][A-Za-z]+)` \|", page, re.MULTILINE)
    places = ("sales/test_storage_interface", "sales/test_storage_queues", "catalog/test_storage_repositories")
    tests = "".join((ROOT / "tests" / f"{place}.py").read_text() for place in places)
    assert len(methods) >= 60
    assert [one for one in methods if f"def test_{snake(one)}(" not in tests] == []


def test_every_operation_of_the_page_is_there() -> None:
    page = (ROOT / "docs" / "storage-interface.md").read_text()
    named = set(re.findall(r"`([a-z]+\.[a-z_]+\.[a-z_]+)`", page))
    assert len(named) >= 45
    for name in sorted(named):
        module, _, operation = f"counterfoil.{name}".rpartition(".")
        assert callable(getattr(importlib.import_module(module), operation, None)), name
