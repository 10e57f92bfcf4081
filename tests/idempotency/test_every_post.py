"""Each POST of the API stores its answer in the transaction that changes something, or says why it cannot.

A story goes through the routes, every request with a key of its own, and what was stored with the change must be
what was sent, byte for byte.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from itertools import count
from typing import Any, TypeAlias

import httpx
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute
from tests.support import fake_rails
from tests.support.accounts import token_to
from tests.support.app import Shop, good, opening
from tests.support.orders import new_order
from tests.support.people import person

from counterfoil.api.app import API
from counterfoil.http.idempotency import Idempotent, repeats_of
from counterfoil.idempotency.handling import Handling, Reply
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

Post: TypeAlias = Callable[..., Awaitable[Any]]

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
    "/v1/rails/{rail}", "/v1/rails/{rail}/rotate", "/v1/inbox/{news_id}/replay",
    # They change nothing with us; a rail's portal is a session there.
    "/v1/customers/{customer_id}/portal", "/v1/customers/{customer_id}/subscriptions/{subscription_id}/portal",
    "/v1/subscriptions/{subscription_id}/portal",
    "/v1/discounts/validate", "/v1/rails/{rail}/check",
}  # fmt: skip
"""Routes whose answer is stored after the change: a crash in between loses it (``idempotency_answer_lost``)."""

BASICS = {
    "/v1/api-keys",
    "/v1/checkouts/{checkout_id}/cancel",
    "/v1/customers",
    "/v1/customers/{customer_id}/addresses",
    "/v1/customers/{customer_id}/api-keys",
    "/v1/customers/{customer_id}/archive",
    "/v1/customers/{customer_id}/businesses",
    "/v1/customers/{customer_id}/customers",
    "/v1/customers/{customer_id}/restore",
    "/v1/customers/{customer}/move",
    "/v1/discounts",
    "/v1/licenses",
    "/v1/licenses/{license_id}/reinstate",
    "/v1/licenses/{license_id}/revoke",
    "/v1/licenses/{license_id}/suspend",
    "/v1/me/recovery-codes",
    "/v1/nonces",
    "/v1/payments",
    "/v1/payments/batch",
    "/v1/payments/{payment_id}/resolve",
    "/v1/products",
    "/v1/products/{product}/prices",
    "/v1/refunds",
    "/v1/roles",
    "/v1/staff",
    "/v1/sync/{rail}/retry",
    "/v1/tenants",
    "/v1/tenants/{tenant_id}/resume",
    "/v1/tenants/{tenant_id}/suspend",
    "/v1/users/{user_id}/disable",
    "/v1/users/{user_id}/enable",
}
SELLING = {
    "/v1/carts",
    "/v1/carts/batch",
    "/v1/carts/{cart_id}/paid",
    "/v1/claims/{claim}/cancel",
    "/v1/customers",
    "/v1/customers/{customer_id}/carts",
    "/v1/customers/{customer_id}/refunds",
    "/v1/fulfillments/{fulfillment_id}/cancel",
    "/v1/fulfillments/{fulfillment_id}/deliver",
    "/v1/fulfillments/{fulfillment_id}/ship",
    "/v1/nonces",
    "/v1/orders",
    "/v1/orders/{order_id}/fulfillments",
    "/v1/orders/{order_id}/status",
    "/v1/products/{product}/stock/adjust",
    "/v1/refunds/batch",
    "/v1/refunds/{refund_id}/approve",
    "/v1/refunds/{refund_id}/deny",
    "/v1/refunds/{refund_id}/settle",
}
SUBSCRIPTIONS = {
    f"{path}/{verb}"
    for path in (
        "/v1/customers/{customer_id}/subscriptions/{subscription_id}",
        "/v1/subscriptions/{subscription_id}",
    )
    for verb in ("cancel", "change", "keep", "pause", "resume")
} | {"/v1/subscriptions/{subscription_id}/discount"}
PEOPLE_AND_WEBHOOKS = {
    "/v1/customers",
    "/v1/customers/{customer_id}/invitations",
    "/v1/customers/{customer_id}/invitations/{invitation_id}/resend",
    "/v1/customers/{customer_id}/invitations/{invitation_id}/revoke",
    "/v1/invitations/accept",
    "/v1/machines/{machine_id}/deactivate",
    "/v1/me/emails/verify",
    "/v1/me/emails/{email_id}/primary",
    "/v1/me/leave",
    "/v1/webhook-deliveries/{delivery_id}/retry",
    "/v1/webhook-endpoints",
    "/v1/webhook-endpoints/{endpoint_id}/disable",
    "/v1/webhook-endpoints/{endpoint_id}/enable",
    "/v1/webhook-endpoints/{endpoint_id}/rotate-secret",
    "/v1/webhook-endpoints/{endpoint_id}/test",
}


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


@pytest.fixture
def post(shop: Shop) -> Post:
    """Sends each request twice under one key, and sees that the second is answered like the first."""
    numbers = count(1)

    async def send(path: str, body: Any = None, http: httpx.AsyncClient = shop.staff, **headers: str) -> Any:
        sent = {"Idempotency-Key": f"k{next(numbers)}", **headers}
        first = await http.post(path, json={} if body is None else body, headers=sent)
        again = await http.post(path, json={} if body is None else body, headers=sent)
        assert (again.status_code, again.content) == (first.status_code, first.content), path
        assert again.headers["idempotent-replayed"] == "true", path
        assert first.is_success, first.text
        return first.json() if first.content else None

    return send


async def nonce(post: Post, purpose: str) -> str:
    return str((await post("/v1/nonces", {"purpose": purpose}))["nonce"])


def assert_stored(told: dict[str, bool], driven: set[str]) -> None:
    """These routes answered, and every answer was stored with its change."""
    assert {path for path, stored in told.items() if not stored} == set()
    assert set(told) == driven


async def test_the_answer_is_stored_with_the_change(shop: Shop, told: dict[str, bool], post: Post) -> None:
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
    await post("/v1/sync/stripe/retry")

    boss = await person(shop, "boss@example.com", staff="SuperAdmin", app=shop.app)
    await post("/v1/me/recovery-codes", http=boss.http)
    await post("/v1/staff", {"user_id": boss.id, "role": "SuperAdmin"}, Nonce=await nonce(post, "staff.grant"))
    other = await person(shop, "other@example.com", app=shop.app)
    await post(f"/v1/users/{other.id}/disable")
    await post(f"/v1/users/{other.id}/enable")
    made = await post("/v1/tenants", {"slug": "second", "name": "Second"})
    await post(f"/v1/tenants/{made['id']}/suspend", Nonce=await nonce(post, "tenant.suspend"))
    await post(f"/v1/tenants/{made['id']}/resume")

    assert_stored(told, BASICS)


async def test_the_answers_of_what_sells_are_stored_too(shop: Shop, told: dict[str, bool], post: Post) -> None:
    sold = await shop.tier(amount=1_200, asset="EUR")
    good(await shop.staff.put(f"/v1/products/{sold.product_id}/stock", json={"on_hand": 50}))
    await post(f"/v1/products/{sold.product_id}/stock/adjust", {"by": 1})
    firm = (await post("/v1/customers", {"kind": "organization", "name": "One"}))["id"]
    wanted = {"lines": [{"price_id": sold.price_id}], "rail": "sandbox"}
    cart = await post("/v1/carts", wanted)
    await post(f"/v1/carts/{cart['id']}/paid", {"paid_by": "cash"})
    await post("/v1/carts/batch", {"carts": [wanted, wanted]})
    await post(f"/v1/customers/{firm}/carts", wanted)
    opened = good(await shop.http.post("/v1/checkouts", json=wanted))
    await post(f"/v1/claims/{opened['claim']}/cancel", http=shop.http)

    order = (await post("/v1/orders", new_order("1", 3)))["id"]
    again = await shop.staff.post("/v1/orders", json=new_order("1", 3), headers={"Idempotency-Key": "another"})
    assert (again.status_code, again.json()["id"]) == (200, order)
    await post(f"/v1/orders/{order}/status", {"status": "processing"})
    kept = (await post(f"/v1/orders/{order}/fulfillments", {"items": [{"line": 0, "quantity": 1}]}))["id"]
    left = (await post(f"/v1/orders/{order}/fulfillments", {"items": [{"line": 0, "quantity": 1}]}))["id"]
    await post(f"/v1/fulfillments/{kept}/cancel")
    await post(f"/v1/fulfillments/{left}/ship")
    await post(f"/v1/fulfillments/{left}/deliver")

    bought = good(await shop.staff.post(f"/v1/customers/{firm}/checkouts", json=wanted))
    await shop.play(bought, "pay")
    payment = (await shop.row("payments"))["id"]
    two = [{"payment_id": payment, "amount": 1}, {"payment_id": payment, "amount": 2}]
    yes, no = (await post("/v1/refunds/batch", {"refunds": two}))["data"]
    await post(f"/v1/refunds/{yes['id']}/approve", Nonce=await nonce(post, "refund.approve"))
    await post(f"/v1/refunds/{yes['id']}/settle", {"reference": "1"}, Nonce=await nonce(post, "refund.settle"))
    await post(f"/v1/refunds/{no['id']}/deny", Nonce=await nonce(post, "refund.deny"))
    await post(f"/v1/customers/{firm}/refunds", {"payment_id": payment, "amount": 3})
    assert_stored(told, SELLING)


async def test_the_answers_of_subscriptions_are_stored_too(shop: Shop, told: dict[str, bool], post: Post) -> None:
    rail = fake_rails.connect(shop)
    firm = good(await shop.staff.post("/v1/customers", json={"kind": "organization", "name": "One"}))["id"]
    often = {"type": "recurring", "interval": "month", "interval_count": 1, "asset": "EUR"}
    one, two = await shop.tier("one", **often), await shop.tier("two", **often)
    made = await fake_rails.subscribe(shop, rail, one, customer_id=firm)
    discount = await shop.discount("LOYAL", amount=1_000, recurring=True)
    told.clear()
    plans = ([{"price_id": two.price_id}, {"price_id": one.price_id}], [{"price_id": one.price_id}])
    paths = (f"/v1/customers/{firm}/subscriptions/{made}", f"/v1/subscriptions/{made}")
    for path, items in zip(paths, plans, strict=True):
        for verb, body in (("cancel", {}), ("keep", {}), ("pause", {"at_period_end": False}), ("resume", {}),
                           ("change", {"items": items})):  # fmt: skip
            await post(f"{path}/{verb}", body)
            await fake_rails.push(shop)
    await post(f"{paths[1]}/discount", {"discount_id": discount})
    assert_stored(told, SUBSCRIPTIONS)


async def test_the_answers_of_members_machines_and_webhooks_are_stored_too(
    shop: Shop, told: dict[str, bool], post: Post
) -> None:
    firm = (await post("/v1/customers", {"kind": "organization", "name": "One"}))["id"]
    path = f"/v1/customers/{firm}/invitations"
    ada = (await post(path, {"email": "ada@example.com", "role": "Member"}))["id"]
    bob = (await post(path, {"email": "bob@example.com", "role": "Member"}))["id"]
    await post(f"{path}/{bob}/revoke")
    shop.clock.advance(timedelta(hours=2))
    await post(f"{path}/{ada}/resend")
    known = await person(shop, "ada@example.com", app=shop.app)
    token = (await shop.letters("ada@example.com"))[-1].context["link"].rpartition("/")[2]
    await post("/v1/invitations/accept", {"token": token}, http=known.http)
    await post("/v1/me/leave", {"customer_id": firm}, http=known.http)
    good(await known.http.post("/v1/me/emails", json={"email": "ada@work.example"}))
    address = {"token": await token_to(shop, "ada@work.example", "verify_address")}
    verified = await post("/v1/me/emails/verify", address, http=known.http)
    await post(f"/v1/me/emails/{verified['id']}/primary", http=known.http)

    license_ = await shop.license(await shop.tier(), max_machines=1)
    good(await shop.http.post("/v1/validate", json={"key": license_["key"], "fingerprint": "f"}))
    await post(f"/v1/machines/{(await shop.row('machines'))['id']}/deactivate")

    hook = (await post("/v1/webhook-endpoints", {"url": "https://example.com/hook", "event_types": ["order.*"]}))["id"]
    for deed in ("disable", "enable", "rotate-secret", "test"):
        await post(f"/v1/webhook-endpoints/{hook}/{deed}")
    await post(f"/v1/webhook-deliveries/{(await shop.row('webhook_deliveries'))['id']}/retry")
    assert_stored(told, PEOPLE_AND_WEBHOOKS)


def test_every_route_is_driven_or_named() -> None:
    """A new POST is given a place in a story above, or in the list of those that answer later."""
    app = Litestar(route_handlers=[*API], openapi_config=None)
    once = {
        route.path_format
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if repeats_of(handler) == "once"
    }
    driven = BASICS | SELLING | SUBSCRIPTIONS | PEOPLE_AND_WEBHOOKS
    assert once == AFTERWARDS | driven
    assert not AFTERWARDS & driven
