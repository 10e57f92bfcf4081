"""What keeps the tests apart from one another, and from the world."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from counterfoil.accounts import tenants
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.base import Database
from counterfoil.db.engines import connect, parse_url
from counterfoil.kernel.clock import ManualClock
from tests.support.databases import Databases, Dialect
from tests.support.network import OffTheNetwork, is_loopback, take_refused
from tests.support.rows import add_product, names


@pytest.mark.parametrize("time", ["first", "second"])
async def test_each_test_finds_an_empty_database(database: Database, tenant: str, time: str) -> None:
    scope = database.scope(tenant)
    assert await scope.read(names) == []
    await scope.run(add_product, "left over")


async def test_databases_of_ones_own(databases: Databases, dialect: Dialect, clock: ManualClock) -> None:
    with databases.fresh(dialect) as first, databases.fresh(dialect) as second, databases.clean(dialect) as shared:
        assert len({first, second, shared}) == 3
        for url in (first, second, shared):
            opened = connect(url, clock)
            scope = opened.scope(DEFAULT_TENANT)
            assert await scope.run(tenants.create, "default", "Default")
            await opened.close()


async def test_a_forgotten_transaction_holds_up_nobody(databases: Databases, clock: ManualClock) -> None:
    with databases.clean("postgresql") as url:
        forgotten = create_async_engine(parse_url(url))
        connection = await forgotten.connect()
        await connection.execute(text("LOCK TABLE products"))
        with databases.clean("postgresql") as again:
            assert again == url
            opened = connect(url, clock)
            assert await opened.scope(DEFAULT_TENANT).run(names) == []
            await opened.close()
        await connection.invalidate()
        await connection.close()
        await forgotten.dispose()


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("8.8.8.8", 53), ("0.0.0.0", 80)])
def test_connecting_beyond_this_machine_fails(address: tuple[str, int]) -> None:
    with socket.socket() as sock:
        with pytest.raises(OffTheNetwork):
            sock.connect(address)
        with pytest.raises(OffTheNetwork):
            sock.connect_ex(address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(OffTheNetwork):
        sock.sendto(b"x", address)
    assert take_refused() == [repr(address)] * 3


def test_connecting_beyond_this_machine_fails_over_ipv6() -> None:
    with socket.socket(socket.AF_INET6) as sock, pytest.raises(OffTheNetwork):
        sock.connect(("2001:db8::1", 80))
    assert take_refused() == ["('2001:db8::1', 80)"]


async def test_libraries_cannot_connect_beyond_this_machine_either() -> None:
    with pytest.raises(OffTheNetwork):
        await asyncio.open_connection("192.0.2.1", 80)
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://192.0.2.2/")
    assert take_refused() == ["('192.0.2.1', 80)", "('192.0.2.2', 80)"]


def test_connecting_within_this_machine_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        assert sock.getpeername() == server.getsockname()


@pytest.mark.parametrize(
    ("family", "address", "answer"),
    [
        (socket.AF_UNIX, "/tmp/x", True),
        (socket.AF_INET, ("127.0.0.1", 1), True),
        (socket.AF_INET, ("127.255.0.9", 1), True),
        (socket.AF_INET6, ("::1", 1, 0, 0), True),
        (socket.AF_INET, ("localhost", 1), True),
        (socket.AF_INET, ("128.0.0.1", 1), False),
        (socket.AF_INET6, ("fe80::1", 1, 0, 0), False),
        (socket.AF_INET, ("localhost.example", 1), False),
        (socket.AF_INET, ("", 1), False),
    ],
)
def test_what_counts_as_this_machine(family: int, address: object, answer: bool) -> None:
    assert is_loopback(family, address) is answer
