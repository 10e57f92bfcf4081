"""The OpenAPI document against the running server: made-up requests find no 5xx and no undocumented answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import CHECKS
from schemathesis.core.failures import FailureGroup
from tests.support.databases import Databases, Dialect
from tests.support.server import Server, serving

from counterfoil.accounts import api_keys
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.engines import connect
from counterfoil.kernel.clock import SystemClock

EXAMPLES = 25
"""Made-up requests for each operation, on each database: the budget."""

_LOOKED_AT = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
]


_PUBLIC = {
    ("get", "/health"),
    ("get", "/v1/products"),
    ("get", "/v1/products/{product}"),
    ("get", "/v1/products/{slug}/policies"),
    ("post", "/v1/checkouts"),
    ("get", "/v1/claims/{claim}"),
    ("get", "/v1/pubkey"),
    ("get", "/v1/issuer/public-key"),
    ("post", "/v1/validate"),
    ("post", "/v1/machines/activate"),
    ("post", "/v1/machines/heartbeat"),
    ("post", "/v1/machines/deactivate"),
    ("post", "/v1/purchase"),
    ("get", "/v1/purchase/{invoice_id}"),
    ("post", "/v1/redeem"),
    ("post", "/v1/rails/btcpay/callback"),
    ("post", "/v1/webhooks/{rail}"),
}
"""What anybody may call: a new route gets on this list deliberately or needs a key."""


async def _make_key(url: str) -> str:
    database = connect(url, SystemClock())
    try:
        made = await database.scope(DEFAULT_TENANT).run(api_keys.create, "fuzz", ["*"], secret=api_keys.new_secret())
    finally:
        await database.close()
    return made.secret


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def fuzzed(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, str, Any]]:
    """A server, a key for it, and its document."""
    dialect: Dialect = request.param
    with (
        databases.fresh(dialect) as url,
        serving(url, tmp_path_factory.mktemp("fuzz"), jobs="false", validations_per_minute="0") as server,
    ):
        key = asyncio.run(_make_key(url))
        _seed(server.url, key)
        yield server, key, schemathesis.openapi.from_url(f"{server.url}/v1/openapi.json")


def _seed(base: str, key: str) -> None:
    """Something to find: a product with a price and a license."""
    with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {key}"}) as client:
        product = client.post("/v1/products", json={"slug": "found", "name": "Found"}).raise_for_status().json()
        benefits = {"license": {"max_machines": 2}}
        client.put(f"/v1/products/{product['id']}/benefits", json=benefits).raise_for_status()
        price = {"asset": "SAT", "unit_amount": 5}
        client.post(f"/v1/products/{product['id']}/prices", json=price).raise_for_status()
        client.post("/v1/licenses", json={"product": "found"}).raise_for_status()


def test_no_made_up_request_breaks_the_server(fuzzed: tuple[Server, str, Any]) -> None:
    server, key, schema = fuzzed
    checks = [CHECKS.get_one(name) for name in _LOOKED_AT]
    operations = [found.ok() for found in schema.get_all_operations()]
    sent = 0

    def check(operation: Any) -> None:
        @seed(20260102)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def once(case: Any) -> None:
            nonlocal sent
            sent += 1
            response = case.call(base_url=server.url, headers={"Authorization": f"Bearer {key}"})
            case.validate_response(response, checks=checks)

        once()

    failures = []
    for operation in operations:
        try:
            check(operation)
        except (FailureGroup, AssertionError) as failure:
            failures.append(f"{operation.label}: {failure}")
    assert not failures, "\n\n".join(failures)
    assert len(operations) >= 45
    assert sent >= len(operations) * EXAMPLES // 2
    assert httpx.get(f"{server.url}/health").json()["status"] in {"ok", "degraded"}


def test_every_route_is_in_the_document_and_says_who_may_call_it(fuzzed: tuple[Server, str, Any]) -> None:
    server, _, _ = fuzzed
    document = httpx.get(f"{server.url}/v1/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert {"400", "422", "429"} <= set(operation["responses"]), f"{method} {path}"
            if operation.get("security"):
                assert {"401", "403"} <= set(operation["responses"]), f"{method} {path}"
            else:
                assert (method, path) in _PUBLIC, f"{method} {path} is public"


def test_an_unknown_address_is_a_problem_too(fuzzed: tuple[Server, str, Any]) -> None:
    server, _, _ = fuzzed
    answer = httpx.get(f"{server.url}/v1/nothing-here")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:counterfoil:problem:not_found",
        "title": "Not Found",
        "status": 404,
        "detail": "Not Found",
        "code": "not_found",
        "retryable": False,
    }
