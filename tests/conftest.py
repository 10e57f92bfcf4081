"""What every test may ask for."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any, get_args

import hypothesis
import pytest
import structlog

from counterfoil.accounts import tenants
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.base import Database
from counterfoil.db.engines import connect
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.kernel.signing import PrivateKey
from counterfoil.licensing import signing_keys
from counterfoil.server import loop_factory
from tests.support import cheaper, connections, kept_file
from tests.support.compiled import share as share_compiled_statements
from tests.support.databases import Databases, Dialect, in_memory_folder
from tests.support.network import guarded, stay_on_loopback, take_refused
from tests.support.postgres import URL_VARIABLE, PostgresServer

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    stay_on_loopback()
    # Nobody reads a line for each request; what goes wrong is still said, in plain text.
    structlog.configure(
        processors=[structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    share_compiled_statements()
    cheaper.make_cheap()
    connections.share()
    kept_file.share()
    config.option.anyio_mode = "auto"  # every ``async def test_...`` runs without a mark
    spreads = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if spreads and URL_VARIABLE not in os.environ:
        # pytest-xdist: one server for all workers, which inherit the environment.
        server = PostgresServer()
        config.add_cleanup(server.stop)
        os.environ[URL_VARIABLE] = server.url


_LONGEST = (
    "exchange/test_stripe_orderings",
    "promises/test_kill",
    "web/test_browser",
    "api/test_openapi",
    "exchange/test_btcpay_flow",
    "exchange/test_compare",
    "cli/test_processes",
    "settlement/test_settle",
    "exchange/test_paddle_orders",
    "peers/test_paddle_server",
    "db/test_schema_mapping",
    "db/test_migrations",
    "promises/test_access_sweep",
    "exchange/test_paddle_deaths",
    "promises/test_books",
)
"""Files that take longest with those of their groups, in order."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have pytest-xdist keep a file's tests together, which share what takes long to start, and begin with long ones.

    So no worker is left alone with one at the end.
    """
    group_of: dict[str, str] = {}
    for item in items:
        marker = item.get_closest_marker("xdist_group")
        if marker is None:
            item.add_marker(pytest.mark.xdist_group(item.location[0]))
        else:
            group_of[item.location[0]] = str(marker.args[0])
    order = {group_of.get(f"tests/{name}.py", f"tests/{name}.py"): place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(_group(item), len(order)))


def _group(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    assert marker is not None
    return str(marker.args[0])


def pytest_collection_finish(session: pytest.Session) -> None:
    # The collector would walk every module and test again and again: a tenth of all the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


@pytest.fixture(autouse=True)
def _loopback_only() -> Iterator[None]:
    """Fails a test that tried to reach something beyond this machine, even when nobody noticed."""
    yield
    assert take_refused() == []


@pytest.fixture
def real_passwords() -> Iterator[None]:
    """Hashes passwords at the price they have in production."""
    with cheaper.real_passwords():
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The event loop that servers have."""
    return "asyncio", {"loop_factory": guarded(loop_factory() or asyncio.new_event_loop)}


@pytest.fixture(scope="session", autouse=True)
async def _one_loop(anyio_backend: object, databases: Databases) -> AsyncIterator[None]:
    """Keeps one event loop for all tests, and what belongs to it."""
    async with connections.kept():
        yield


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Makes databases: ``with databases.fresh("postgresql") as url`` for a module's own."""
    with in_memory_folder(tmp_path_factory.mktemp("databases")) as folder:
        made = Databases(folder)
        yield made
        made.close()


@pytest.fixture(params=get_args(Dialect))
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """Runs the test on each database."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def database_url(databases: Databases, dialect: Dialect) -> Iterator[str]:
    """A migrated database without rows, for this test alone."""
    with databases.clean(dialect) as url:
        yield url


@pytest.fixture
def empty_database_url(databases: Databases, dialect: Dialect) -> Iterator[str]:
    """A database without tables, for this test alone."""
    with databases.fresh(dialect, migrated=False) as url:
        yield url


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands at 2026-01-02 03:04:05.678901 UTC until it is moved."""
    return ManualClock(datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC))


@pytest.fixture
async def database(database_url: str, clock: ManualClock) -> AsyncIterator[Database]:
    """An open, migrated database without rows."""
    opened = connect(database_url, clock)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def master() -> MasterKey:
    """The installation's master key."""
    return MasterKey(bytes(range(32)))


@pytest.fixture(scope="session")
def signing_key() -> PrivateKey:
    """The default tenant's first license signing key, not sealed."""
    return PrivateKey(bytes(range(32, 64)))


@pytest.fixture
async def tenant(database: Database, master: MasterKey, signing_key: PrivateKey) -> str:
    """The default tenant's id; the tenant and its signing key exist."""
    scope = database.scope(DEFAULT_TENANT)
    assert await scope.run(tenants.create, "default", "Default")
    assert await scope.run(signing_keys.create_first, master, signing_key)
    return DEFAULT_TENANT
