"""A closed-loop HTTP/1.1 load generator: each connection has one request under way, and sends the next at once.

Requests are bytes made beforehand, so that the generator measures the server and not itself. It speaks
to loopback addresses only and stops after its count or its time, whichever comes first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httptools
import uvloop

Source = Callable[[int], bytes]
"""The n-th request, whole."""


@dataclass
class Result:
    """What a run measured."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    refusals: list[float] = field(default_factory=list)
    """How long each answer took that was no success."""
    bodies: list[bytes] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many requests were answered."""
        return len(self.latencies)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.count / self.seconds

    def percentile(self, share: float, *, of: list[float] | None = None) -> float:
        """Milliseconds that this share of the requests (or of some of them) took at most."""
        ranked = sorted(self.latencies if of is None else of)
        return ranked[min(len(ranked) - 1, int(len(ranked) * share))] * 1000


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._started = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's own kind of transport
        self._next()

    def _next(self) -> None:
        request = self._run.take()
        if request is None:
            self._transport.close()
            return
        self._body = b""
        self._started = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._run.note(time.perf_counter() - self._started, self._parser.get_status_code(), self._body)
        self._parser = httptools.HttpResponseParser(self)
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.lost()


class _Run:
    def __init__(self, source: Source, count: int, seconds: float, connections: int, *, keep_bodies: bool) -> None:
        self.result = Result()
        self._source = source
        self._count = count
        self._until = time.perf_counter() + seconds
        self._sent = 0
        self._open = connections
        self._keep_bodies = keep_bodies
        self.done = asyncio.get_running_loop().create_future()

    def take(self) -> bytes | None:
        if self._sent >= self._count or time.perf_counter() > self._until:
            return None
        self._sent += 1
        return self._source(self._sent - 1)

    def note(self, seconds: float, status: int, body: bytes) -> None:
        self.result.latencies.append(seconds)
        self.result.statuses[status] = self.result.statuses.get(status, 0) + 1
        if status >= 300:
            self.result.refusals.append(seconds)
        if self._keep_bodies:
            self.result.bodies.append(body)

    def lost(self) -> None:
        self._open -= 1
        if not self._open and not self.done.done():
            self.done.set_result(None)


async def _drive(port: int, run: _Run, connections: int) -> Result:
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(run), "127.0.0.1", port)
    await run.done
    run.result.seconds = time.perf_counter() - started
    return run.result


def drive(
    port: int,
    source: Source,
    *,
    count: int,
    seconds: float,
    connections: int = 64,
    keep_bodies: bool = False,
) -> Result:
    """Send requests until ``count`` are answered or ``seconds`` have passed."""

    async def whole() -> Result:
        return await _drive(port, _Run(source, count, seconds, connections, keep_bodies=keep_bodies), connections)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(whole())


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """One request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    if body:
        lines.append("Content-Type: application/json")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
