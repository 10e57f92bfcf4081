"""Who may do what: keys, scopes, tenants and addresses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from tests.support.app import Shop, client_of, good, opening, problem

from counterfoil.accounts import api_keys, tenants
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.kernel.signing import PrivateKey
from counterfoil.licensing import signing_keys

OTHER = "ten_01jgkx0000000000000000000b"


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def _key(shop: Shop, *scopes: str, tenant: str = DEFAULT_TENANT, lasts: timedelta | None = None) -> str:
    expires_at = shop.clock.now() + lasts if lasts else None
    secret = api_keys.new_secret()
    await shop.house.scope(tenant).run(api_keys.create, "k", list(scopes), secret=secret, expires_at=expires_at)
    return secret


async def _other_tenant(shop: Shop) -> None:
    scope = shop.house.scope(OTHER)
    await scope.run(tenants.create, "other", "Other")
    await scope.run(signing_keys.create_first, shop.house.master, PrivateKey.generate())


def _with(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


NEW = {"slug": "fresh", "name": "Fresh"}


async def test_no_key_a_wrong_key_and_no_scope_are_refused_and_change_nothing(shop: Shop) -> None:
    read_only = await _key(shop, "products:read")
    before = await shop.everything()
    answer = await shop.http.post("/v1/products", json=NEW)
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    for wrong in (
        "",
        "cfk_",
        "nonsense",
        api_keys.new_secret(),
        read_only[:-1] + ("x" if read_only[-1] != "x" else "y"),
        read_only.upper(),
    ):
        problem(await shop.http.post("/v1/products", json=NEW, headers=_with(wrong)), 401, "bad_api_key")
    refused = await shop.http.post("/v1/products", json=NEW, headers=_with(read_only))
    assert problem(refused, 403, "missing_scope")["detail"] == "This key lacks the scope products:write."
    assert await shop.everything() == before


async def test_a_key_ends_when_it_expires_and_when_it_is_revoked(shop: Shop) -> None:
    secret = await _key(shop, "products:write", lasts=timedelta(hours=1))
    good(await shop.http.post("/v1/products", json=NEW, headers=_with(secret)))
    shop.clock.advance(timedelta(hours=1))
    problem(await shop.http.patch("/v1/products/x", json={}, headers=_with(secret)), 401, "bad_api_key")
    lasting = await _key(shop, "products:read")
    good(await shop.http.get("/v1/prices", headers=_with(lasting)))
    key_id = (await shop.rows("api_keys"))[-1]["id"]
    await shop.scope.run(api_keys.revoke, key_id)
    problem(await shop.http.get("/v1/prices", headers=_with(lasting)), 401, "bad_api_key")


async def test_the_secret_is_nowhere_in_the_database(shop: Shop) -> None:
    secret = await _key(shop, "*")
    assert secret not in repr(await shop.everything())
    assert len(secret) == 42
    assert api_keys.looks_right(secret)


async def test_a_tenant_sees_nothing_of_another(shop: Shop) -> None:
    await _other_tenant(shop)
    theirs = await _key(shop, "*", tenant=OTHER)
    sold = await shop.tier("mine", amount=500)
    (key,) = await shop.buy(sold)
    license_id = (await shop.row("licenses"))["id"]
    order_id = (await shop.row("orders"))["id"]
    payment_id = (await shop.row("payments"))["id"]
    checkout_id = (await shop.row("checkouts"))["id"]
    before = await shop.everything("validation_log")
    for path in ("/v1/prices", "/v1/licenses", "/v1/orders", "/v1/payments", "/v1/checkouts", "/v1/discounts"):
        assert good(await shop.http.get(path, headers=_with(theirs))) == {"data": [], "next": None}
    for path in (
        f"/v1/prices/{sold.price_id}",
        f"/v1/licenses/{license_id}",
        f"/v1/orders/{order_id}",
        f"/v1/payments/{payment_id}",
        f"/v1/checkouts/{checkout_id}",
    ):
        assert (await shop.http.get(path, headers=_with(theirs))).status_code == 404
    revoke = await shop.http.post(f"/v1/licenses/{license_id}/revoke", json={"reason": "x"}, headers=_with(theirs))
    problem(revoke, 404, "license_not_found")
    change = await shop.http.patch(f"/v1/products/{sold.product_id}", json={"name": "X"}, headers=_with(theirs))
    problem(change, 404, "product_not_found")
    # On their public routes, our product, our price, our claim and our key are unknown, too.
    problem(await shop.http.get("/t/other/v1/products/mine"), 404, "product_not_found")
    lines = {"lines": [{"price_id": sold.price_id}], "rail": "free"}
    problem(await shop.http.post("/t/other/v1/checkouts", json=lines), 404, "price_not_found")
    claim = shop.house.claims.make(DEFAULT_TENANT, checkout_id)
    problem(await shop.http.get(f"/t/other/v1/claims/{claim}"), 404, "checkout_not_found")
    assert good(await shop.http.post("/t/other/v1/validate", json={"key": key})) == {
        "ok": False,
        "reason": "bad_signature",
    }
    assert good(await shop.http.post("/v1/validate", json={"key": key}))["ok"] is True
    assert await shop.everything("validation_log") == before


async def test_a_key_is_no_good_on_another_tenants_path(shop: Shop) -> None:
    await _other_tenant(shop)
    theirs = await _key(shop, "*", tenant=OTHER)
    problem(await shop.staff.get("/t/other/v1/prices"), 401, "bad_api_key")
    assert good(await shop.http.get("/t/other/v1/prices", headers=_with(theirs))) == {"data": [], "next": None}
    problem(await shop.http.get("/t/nobody/v1/products"), 404, "tenant_not_found")


async def test_addresses_that_are_handed_out_are_the_tenants_own(shop: Shop) -> None:
    await _other_tenant(shop)
    theirs = await _key(shop, "rails:write", tenant=OTHER)
    asked = await shop.http.post(
        "/v1/rails/btcpay/authorize", json={"base_url": "http://127.0.0.1:1"}, headers=_with(theirs)
    )
    link = good(asked)["authorize_url"]
    assert "redirect=http%3A%2F%2F127.0.0.1%3A8787%2Ft%2Fother%2Fv1%2Frails%2Fbtcpay%2Fcallback%3Fstate%3D" in link


async def test_a_header_does_not_choose_the_tenant(shop: Shop) -> None:
    await _other_tenant(shop)
    await shop.tier("mine")
    answer = good(await shop.http.get("/v1/products", headers={"X-Tenant-Id": OTHER, "X-Forwarded-Host": "other"}))
    assert [product["slug"] for product in answer["data"]] == ["mine"]


async def test_addresses_come_from_trusted_proxies_only(
    database_url: str, clock: ManualClock, master: MasterKey
) -> None:
    asked = {"key": "LIC1-AA-AA"}
    async with opening(database_url, clock, master, validations_per_minute=2, trusted_proxies=["10.0.0.0/8"]) as shop:

        async def reasons(address: str, *forwarded: str) -> list[str]:
            async with client_of(shop.app, address=address) as client:
                sent = [
                    await client.post("/v1/validate", json=asked, headers={"X-Forwarded-For": value})
                    for value in forwarded
                ]
            return [good(answer)["reason"] for answer in sent]

        # A stranger's header is not believed: every request counts for the stranger's own address.
        assert await reasons("203.0.113.9", "1.1.1.1", "2.2.2.2", "3.3.3.3") == [
            "bad_format",
            "bad_format",
            "rate_limited",
        ]
        # Behind a proxy, the last address that no proxy of ours wrote counts, whatever stands before it.
        assert await reasons("10.0.0.1", "9.9.9.9", "6.6.6.6, 9.9.9.9", "9.9.9.9, 10.2.2.2", "8.8.8.8") == [
            "bad_format",
            "bad_format",
            "rate_limited",
            "bad_format",
        ]
    addresses = {row["address"] for row in await shop_rows(database_url, clock, master)}
    assert addresses == {"203.0.113.9", "9.9.9.9", "8.8.8.8"}


async def shop_rows(database_url: str, clock: ManualClock, master: MasterKey) -> list[dict[str, object]]:
    async with opening(database_url, clock, master) as shop:
        return await shop.rows("validation_log")


async def test_what_cannot_be_read_is_refused_and_changes_nothing(shop: Shop) -> None:
    before = await shop.everything()
    problem(await shop.staff.post("/v1/products", content=b"{"), 400, "malformed_request")
    wrong = problem(await shop.staff.post("/v1/products", json={"slug": 5, "name": "A"}), 422, "invalid_request")
    assert wrong["errors"] == [{"pointer": "/slug", "detail": "Expected `str`, got `int`"}]
    unknown = await shop.staff.post("/v1/products", json={**NEW, "prize": 1})
    assert problem(unknown, 422, "invalid_request")["errors"][0]["detail"] == "Object contains unknown field `prize`"
    problem(await shop.staff.post("/v1/products", json={**NEW, "name": "a\x00b"}), 422, "nul_character")
    problem(await shop.http.get("/v1/products/a%00b"), 422, "nul_character")
    problem(await shop.http.get("/v1/products?after=%00"), 422, "nul_character")
    problem(await shop.http.get("/v1/products?after=abc"), 422, "invalid_cursor")
    for limit in ("0", "101", "-1", "x"):
        problem(await shop.http.get(f"/v1/products?limit={limit}"), 422, "invalid_request")
    large = await shop.staff.post("/v1/products", content=b'{"name":"' + b"a" * 1_100_000 + b'"}')
    problem(large, 413, "body_too_large")
    problem(await shop.http.put("/v1/products", json={}), 405, "method_not_allowed")
    assert await shop.everything() == before


async def test_every_answer_has_the_requests_id(shop: Shop) -> None:
    given = await shop.http.get("/v1/products", headers={"X-Request-ID": "order-4711.a"})
    assert given.headers["x-request-id"] == "order-4711.a"
    made = await shop.http.get("/v1/products", headers={"X-Request-ID": "bad id\x7f"})
    assert len(made.headers["x-request-id"]) == 16


async def test_metrics_count_by_route_not_by_address(shop: Shop) -> None:
    for slug in ("a", "b", "c"):
        await shop.http.get(f"/v1/products/{slug}")
    text = (await shop.http.get("/metrics")).text
    assert 'counterfoil_http_requests_total{route="/v1/products/{product}",status="404"} 3.0' in text


async def test_health_says_what_is_wrong(shop: Shop) -> None:
    new = good(await shop.http.get("/health"))
    assert (new["status"], new["checks"]["jobs"]["status"]) == ("degraded", "warning")
    await shop.house.runner().run_due()
    healthy = await shop.http.get("/health")
    assert (healthy.status_code, healthy.json()["status"]) == (200, "ok")
    shop.clock.advance(timedelta(hours=1))
    late = good(await shop.http.get("/health"))
    assert late["status"] == "degraded"
    assert late["checks"]["jobs"] == {
        "status": "warning",
        "detail": "not run for 5 minutes: ask_about_news, execute_refunds, expire_checkouts, follow_margins, "
        "push_to_rails, reconcile, reconcile_subscriptions, seal_events, send_mail, send_webhooks",
    }
    await shop.house.database.close()
    gone = await shop.http.get("/health")
    assert (gone.status_code, gone.json()["checks"]["database"]["status"]) == (503, "failing")


async def test_a_lost_database_is_a_retryable_problem(shop: Shop) -> None:
    await shop.house.database.close()
    answer: httpx.Response = await shop.http.get("/v1/products")
    assert problem(answer, 503, "database_unavailable")["retryable"] is True


async def test_an_idempotency_key_is_its_callers_own(shop: Shop) -> None:
    sold = await shop.tier("editor")
    body = {"lines": [{"price_id": sold.price_id}]}
    keyed = {"Idempotency-Key": "1"}

    async def claim(client: httpx.AsyncClient, **headers: str) -> str:
        return str(good(await client.post("/v1/checkouts", json=body, headers={**keyed, **headers}))["claim"])

    async with client_of(shop.app, address="203.0.113.1") as one, client_of(shop.app, address="203.0.113.2") as two:
        first = await claim(one)
        assert await claim(one) == first
        assert await claim(one, **{"Idempotency-Key": '"1"'}) == first
        # Somebody else's "1" is another key, and so is that of a program with an API key at the same address.
        others = [await claim(two), await claim(one, **_with(await _key(shop, "products:read")))]
        assert len({first, *others}) == 3
    assert await shop.count("checkouts") == 3
    changed = {"lines": [{"price_id": sold.price_id, "quantity": 2}]}
    async with client_of(shop.app, address="203.0.113.1") as one:
        reused = await one.post("/v1/checkouts", json=changed, headers=keyed)
    problem(reused, 422, "idempotency_key_reused")
    assert await shop.count("checkouts") == 3
