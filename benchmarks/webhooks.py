"""Webhooks out, measured: news queued with what it tells, and delivered to a receiver in a process of its own.

``python -m benchmarks.webhooks`` is that receiver: it prints its port, and takes everything until its input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httptools
import msgspec
import uvloop

from benchmarks.seed import settings_for
from counterfoil.accounts import customers
from counterfoil.accounts.customers import NewCustomer
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.house import House, open_house
from counterfoil.kernel.signing import PrivateKey
from counterfoil.webhooks import endpoints, signing
from counterfoil.webhooks.endpoints import NewEndpoint

ENDPOINTS = 4
_AT_ONCE = 64
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Rates(msgspec.Struct, frozen=True):
    """What was measured."""

    alone: float
    """Changes a second while nobody listens."""
    changes: float
    """The same changes a second, each of which is news for every endpoint."""
    queued: float
    """Deliveries queued a second by those."""
    delivered: float
    """Deliveries a second that the receiver took."""


def measure(url: str, folder: Path, seconds: float) -> Rates:
    """Measure on a migrated database with a default tenant."""
    with _receiving() as port, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(url, folder, port, seconds))


async def _measure(url: str, folder: Path, port: int, seconds: float) -> Rates:
    settings = settings_for(url, folder, webhooks_allow_loopback=True, jobs=False)
    async with open_house(settings) as house:
        alone, _ = await _change(house, seconds / 2)
        made = [await _listen(house, port) for _ in range(ENDPOINTS)]
        rate, count = await _change(house, seconds)
        started = time.perf_counter()
        sent = await house.courier.send_due(DEFAULT_TENANT)
        delivered = sent / (time.perf_counter() - started)
        assert sent == count * ENDPOINTS
        for endpoint_id in made:
            await house.scope(DEFAULT_TENANT).run(endpoints.disable, endpoint_id)
        return Rates(alone, rate, rate * ENDPOINTS, delivered)


async def _listen(house: House, port: int) -> str:
    made = await house.scope(DEFAULT_TENANT).run(
        endpoints.create,
        house.master,
        NewEndpoint(url=f"http://127.0.0.1:{port}/hook", event_types=["customer.*"]),
        secret=signing.new_secret(),
        signing_key=PrivateKey.generate(),
        allow_loopback=True,
    )
    return made.id


async def _change(house: House, seconds: float) -> tuple[float, int]:
    """Customers made a second, and how many."""
    scope = house.scope(DEFAULT_TENANT)
    started = time.perf_counter()
    count = 0

    async def work() -> None:
        nonlocal count
        while time.perf_counter() < started + seconds:
            await scope.run(customers.create, NewCustomer(kind="person", name="Ada Lovelace"))
            count += 1

    await asyncio.gather(*[work() for _ in range(_AT_ONCE)])
    return count / (time.perf_counter() - started), count


@contextlib.contextmanager
def _receiving() -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.webhooks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(timeout=10)


class _Taking(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._transport.write(_ANSWER)
        self._parser = httptools.HttpRequestParser(self)


async def _receive() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Taking, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()
    server.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as taking:
        taking.run(_receive())
