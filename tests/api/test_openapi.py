"""The OpenAPI document against the running server: made-up requests find no 5xx and no undocumented answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, get_args

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import CHECKS
from schemathesis.core.failures import FailureGroup
from tests.support.databases import Databases, Dialect
from tests.support.server import Server, serving

from counterfoil.accounts import api_keys, assignments, roles, sessions, users
from counterfoil.accounts.sessions import Lasts
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.engines import connect
from counterfoil.db.tx import Tx
from counterfoil.kernel.clock import SystemClock
from counterfoil.kernel.secrets import new_secret

pytestmark = pytest.mark.xdist_group("openapi")

R = TypeVar("R")

EXAMPLES = 5
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
    ("post", "/v1/carts"),
    ("get", "/v1/cart-claims/{claim}"),
    ("post", "/v1/checkouts"),
    ("get", "/v1/claims/{claim}"),
    ("post", "/v1/claims/{claim}/cancel"),
    ("get", "/v1/pubkey"),
    ("get", "/v1/issuer/public-key"),
    ("post", "/v1/validate"),
    ("post", "/v1/machines/activate"),
    ("post", "/v1/machines/heartbeat"),
    ("post", "/v1/machines/deactivate"),
    ("post", "/v1/purchase"),
    ("get", "/v1/purchase/{invoice_id}"),
    ("post", "/v1/redeem"),
    ("post", "/v1/sign-up"),
    ("post", "/v1/sign-up/finish"),
    ("post", "/v1/session"),
    ("post", "/v1/session/passkey"),
    ("post", "/v1/session/passkey/options"),
    ("post", "/v1/session/recovery"),
    ("post", "/v1/password-resets"),
    ("post", "/v1/password-resets/finish"),
    ("post", "/v1/rails/btcpay/callback"),
    ("post", "/v1/webhooks/{rail}"),
}
"""What anybody may call: a new route gets on this list deliberately or needs a key."""


class Fuzzed(NamedTuple):
    """A running server, and what it takes to be let in."""

    server: Server
    key: str
    schema: Any
    sign_in: Callable[[], str]
    """Makes somebody who has just shown a passkey; their session's token."""


def _on(url: str, op: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    async def main() -> R:
        database = connect(url, SystemClock())
        try:
            return await database.scope(DEFAULT_TENANT).run(op, *args, **kwargs)
        finally:
            await database.close()

    return asyncio.run(main())


def _make_staff(tx: Tx, token: str) -> None:
    address = f"{token}@example.com"
    user = users.create(tx, email=address, first_name="Fuzz", last_name="", via="tests")
    assignments.grant(tx, user.id, roles.by_name(tx, "SuperAdmin").id, None)
    lasts = Lasts(idle=timedelta(days=1), longest=timedelta(days=1), passkey=timedelta(days=1))
    sessions.open_(tx, user.id, token, "passkey", lasts)


@pytest.fixture(scope="module")
def fuzzed(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Dialect, Fuzzed]]:
    """A server on each database."""
    with (
        _fuzzing("sqlite", databases, tmp_path_factory) as one,
        _fuzzing("postgresql", databases, tmp_path_factory) as other,
    ):
        yield {"sqlite": one, "postgresql": other}


@contextlib.contextmanager
def _fuzzing(dialect: Dialect, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    """A server without limits on how often one may ask."""
    limits = {"validations_per_minute": "0", "sign_ins_per_minute": "0"}
    with (
        databases.fresh(dialect) as url,
        serving(url, tmp_path_factory.mktemp("fuzz"), jobs="false", **limits) as server,
    ):
        key = _on(url, api_keys.create, "fuzz", ["*"], secret=api_keys.new_secret()).secret
        _seed(server.url, key)

        def sign_in() -> str:
            token = new_secret(20)
            _on(url, _make_staff, token)
            return token

        yield Fuzzed(server, key, schemathesis.openapi.from_url(f"{server.url}/v1/openapi.json"), sign_in)


def _seed(base: str, key: str) -> None:
    """Something to find: a product with a price and a license."""
    with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {key}"}) as client:
        product = client.post("/v1/products", json={"slug": "found", "name": "Found"}).raise_for_status().json()
        benefits = {"license": {"max_machines": 2}}
        client.put(f"/v1/products/{product['id']}/benefits", json=benefits).raise_for_status()
        price = {"asset": "SAT", "unit_amount": 5}
        client.post(f"/v1/products/{product['id']}/prices", json=price).raise_for_status()
        client.post("/v1/licenses", json={"product": "found"}).raise_for_status()


class Door(NamedTuple):
    """How an operation is reached at one of the servers."""

    url: str
    headers: dict[str, str]
    customer: str
    session: requests.Session
    """Keeps the connection."""


def _door(one: Fuzzed, path: str) -> Door:
    headers = {"Authorization": f"Bearer {one.key}"}
    customer = ""
    if "{customer_id}" in path:  # one that is there: made-up ones lead nowhere
        body = {"kind": "organization", "name": "Fuzzed"}
        made = httpx.post(f"{one.server.url}/v1/customers", json=body, headers=headers, timeout=60)
        customer = made.raise_for_status().json()["id"]
    if path.startswith(("/v1/me", "/v1/session")):  # about oneself: a key has no account
        headers = {"Cookie": f"cf_session={one.sign_in()}"}
    session = requests.Session()
    session.trust_env = False
    return Door(one.server.url, headers, customer, session)


def test_no_made_up_request_breaks_a_server(fuzzed: dict[Dialect, Fuzzed]) -> None:
    """Each request goes to the server on SQLite and to the one on PostgreSQL: making it up takes longest."""
    checks = [CHECKS.get_one(name) for name in _LOOKED_AT]
    operations = [found.ok() for found in fuzzed["sqlite"].schema.get_all_operations()]
    sent = 0

    def check(operation: Any) -> None:
        doors = [_door(one, operation.path) for one in fuzzed.values()]

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
            for door in doors:
                if door.customer:
                    case.path_parameters["customer_id"] = door.customer
                response = case.call(base_url=door.url, headers=door.headers, session=door.session)
                case.validate_response(response, checks=checks)

        try:
            once()
        finally:
            for door in doors:
                door.session.close()

    failures = []
    for operation in operations:
        try:
            check(operation)
        except (FailureGroup, AssertionError) as failure:
            failures.append(f"{operation.label}: {failure}")
    assert not failures, "\n\n".join(failures)
    assert len(operations) >= 130
    assert sent >= len(operations) * EXAMPLES // 2
    for one in fuzzed.values():
        assert httpx.get(f"{one.server.url}/health").json()["status"] in {"ok", "degraded"}


@pytest.mark.parametrize("dialect", get_args(Dialect))
def test_every_route_is_in_the_document_and_says_who_may_call_it(
    fuzzed: dict[Dialect, Fuzzed], dialect: Dialect
) -> None:
    server = fuzzed[dialect].server
    document = httpx.get(f"{server.url}/v1/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert {"400", "422", "429"} <= set(operation["responses"]), f"{method} {path}"
            if operation.get("security"):
                assert {"401", "403"} <= set(operation["responses"]), f"{method} {path}"
            else:
                assert (method, path) in _PUBLIC, f"{method} {path} is public"


@pytest.mark.parametrize("dialect", get_args(Dialect))
def test_an_unknown_address_is_a_problem_too(fuzzed: dict[Dialect, Fuzzed], dialect: Dialect) -> None:
    server = fuzzed[dialect].server
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
