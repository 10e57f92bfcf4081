"""Each POST of the API stores its answer in the transaction that changes something, or says why it cannot.

A story goes through the routes, every request with a key of its own, and what was stored with the change must be
what was sent, byte for byte.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute
from tests.support.app import Shop, good, opening
from tests.support.people import person

from counterfoil.api.app import API
from counterfoil.http.idempotency import Idempotent, repeats_of
from counterfoil.idempotency.handling import Handling, Reply
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

AFTERWARDS = {
    # They set a cookie.
    "/v1/me/passkeys", "/v1/password-resets/finish", "/v1/session", "/v1/session/passkey", "/v1/session/recovery",
    "/v1/sign-up/finish",
    # They answer the same whatever they found, so that nobody learns who is known here.
    "/v1/password-resets", "/v1/sign-up",
    # They ask somebody, or give work to a queue, before they answer; what is written in between may be written again.
    "/v1/rails/btcpay", "/v1/rails/btcpay/authorize", "/v1/stock/reconcile",
    "/v1/webhook-endpoints/{endpoint_id}/replay",
    "/v1/me/passkeys/options", "/v1/session/passkey/options", "/v1/me/emails", "/v1/staff-enrollments",
    # What they answer with is put together after the change.
    "/v1/carts", "/v1/carts/batch", "/v1/customers/{customer_id}/carts", "/v1/claims/{claim}/cancel", "/v1/orders",
    # They change nothing.
    "/v1/discounts/validate",
}  # fmt: skip
"""Routes whose answer is stored after the change: a crash in between loses it (``idempotency_answer_lost``)."""


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """By route: whether every answer was stored with its change."""
    found: dict[str, bool] = {}
    finish, call = Handling.finish, Idempotent.__call__
    path = ""

    async def watched(self: Handling, reply: Reply) -> Reply:
        if reply.status < 300:
            found[path] = found.get(path, True) and self.stored == reply
        return await finish(self, reply)

    async def noted(self: Idempotent, scope: Any, receive: Any, send: Any) -> None:
        nonlocal path
        path = scope.get("path_template") or ""
        await call(self, scope, receive, send)

    monkeypatch.setattr(Handling, "finish", watched)
    monkeypatch.setattr(Idempotent, "__call__", noted)
    return found


async def test_the_answer_is_stored_with_the_change(shop: Shop, told: dict[str, bool]) -> None:
    count = 0

    async def post(path: str, body: Any = None, http: httpx.AsyncClient = shop.staff, **headers: str) -> Any:
        nonlocal count
        count += 1
        sent = {"Idempotency-Key": f"k{count}", **headers}
        first = await http.post(path, json={} if body is None else body, headers=sent)
        again = await http.post(path, json={} if body is None else body, headers=sent)
        assert (again.status_code, again.content) == (first.status_code, first.content), path
        assert again.headers["idempotent-replayed"] == "true", path
        return good(first) if first.content else None

    async def nonce(purpose: str) -> str:
        return str((await post("/v1/nonces", {"purpose": purpose}))["nonce"])

    product = await post("/v1/products", {"slug": "editor", "name": "Editor"})
    await shop.set_benefit(product["id"], "default", {"max_machines": 2})
    price = await post(f"/v1/products/{product['id']}/prices", {"asset": "EUR", "unit_amount": 1200})
    await post("/v1/discounts", {"code": "x", "kind": "free"})
    await post("/v1/roles", {"name": "Reader", "permissions": ["orders:read"]})
    await post("/v1/api-keys", {"name": "second", "scopes": ["orders:read"]})

    one = (await post("/v1/customers", {"kind": "organization", "name": "One", "level": 1}))["id"]
    below = (await post(f"/v1/customers/{one}/customers", {"kind": "organization", "name": "Below"}))["id"]
    await post(f"/v1/customers/{below}/move", {"parent_id": None})
    await post(f"/v1/customers/{below}/archive")
    await post(f"/v1/customers/{below}/restore")
    await post(f"/v1/customers/{one}/addresses", {"country_code": "AT"})
    await post(f"/v1/customers/{one}/businesses", {"name": "One Ltd"})
    await post(f"/v1/customers/{one}/api-keys", {"name": "limited", "scopes": ["orders:read"]})

    license_ = (await post("/v1/licenses", {"product": "editor"}))["id"]
    await post(f"/v1/licenses/{license_}/suspend", {"reason": "late"})
    await post(f"/v1/licenses/{license_}/reinstate")
    await post(f"/v1/licenses/{license_}/revoke", {"reason": "gone"})

    wanted = {"lines": [{"price_id": price["id"]}], "rail": "sandbox"}
    opened = good(await shop.http.post("/v1/checkouts", json=wanted))
    await post(f"/v1/checkouts/{opened['id']}/cancel")
    await post("/v1/payments", {"reference": "1", "amount": 5, "asset": "EUR"})
    batch = [{"reference": "2", "amount": 5, "asset": "EUR"}, {"reference": "3", "amount": 5, "asset": "EUR"}]
    await post("/v1/payments/batch", {"payments": batch})
    short = good(await shop.http.post("/v1/checkouts", json=wanted))
    paid = {"reference": "4", "amount": 5, "asset": "EUR", "checkout_id": short["id"]}
    payment = (await post("/v1/payments", paid))["id"]
    await post(f"/v1/payments/{payment}/resolve", {"resolution": "accepted"})
    await post("/v1/refunds", {"payment_id": payment, "amount": 1})

    boss = await person(shop, "boss@example.com", staff="SuperAdmin", app=shop.app)
    await post("/v1/me/recovery-codes", http=boss.http)
    await post("/v1/staff", {"user_id": boss.id, "role": "SuperAdmin"}, Nonce=await nonce("staff.grant"))
    other = await person(shop, "other@example.com", app=shop.app)
    await post(f"/v1/users/{other.id}/disable")
    await post(f"/v1/users/{other.id}/enable")
    made = await post("/v1/tenants", {"slug": "second", "name": "Second"})
    await post(f"/v1/tenants/{made['id']}/suspend", Nonce=await nonce("tenant.suspend"))
    await post(f"/v1/tenants/{made['id']}/resume")

    late = {path for path, stored in told.items() if not stored}
    assert late == set()
    assert len(told) == 30


def test_the_list_names_routes_that_are_there() -> None:
    app = Litestar(route_handlers=[*API], openapi_config=None)
    once = {
        route.path_format
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if repeats_of(handler) == "once"
    }
    assert once >= AFTERWARDS
