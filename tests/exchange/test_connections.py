"""Connections to rails and receivers: those that are cut off at once are no answer, and nothing worse."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime
from typing import Any

import httpcore
import pytest
from tests.peers.hangs_up import hanging_up
from tests.support.receiver import receiving

from counterfoil.connections import Connections
from counterfoil.exchange.client import RailClient
from counterfoil.rails.base import HttpRequest, RailUnavailable
from counterfoil.webhooks.sender import Sender

KINDS = {"ConnectError", "ReadError", "WriteError", "RemoteProtocolError"}
NOW = datetime(2026, 5, 1, tzinfo=UTC)
MANY = 300
"""A reset is noticed at one of several moments; among so many connections at each of them."""


async def test_a_rail_that_hangs_up_is_not_available() -> None:
    client = RailClient()
    with hanging_up() as url:
        for request in [HttpRequest(method="GET", url=url), HttpRequest(method="POST", url=url, body=b"{}")]:
            for _ in range(MANY // 20):
                tries = await asyncio.gather(*[client.send(request) for _ in range(10)], return_exceptions=True)
                assert {type(one) for one in tries} == {RailUnavailable}
    with pytest.raises(RailUnavailable, match=r"^no answer: ConnectError$"):
        await client.send(HttpRequest(method="GET", url=url))
    await client.close()


async def test_a_rail_at_a_name_with_letters_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = Connections.connect_tcp
    asked: list[str] = []

    async def nearby(self: Connections, host: str, **more: Any) -> httpcore.AsyncNetworkStream:
        asked.append(host)
        return await connect(self, "127.0.0.1", **more)

    monkeypatch.setattr(Connections, "connect_tcp", nearby)
    client = RailClient()
    async with receiving() as receiver:
        request = HttpRequest(method="DELETE", url=f"http://bücher.example:{receiver.port}/a%20b?c=%C3%BC")
        assert (await client.send(request)).status == 200
        (message,) = receiver.messages
    assert asked == ["xn--bcher-kva.example"]
    assert message.path == "/a%20b?c=%C3%BC"
    assert message.headers["host"] == f"xn--bcher-kva.example:{receiver.port}"
    assert (message.headers["content-length"], message.headers["user-agent"]) == ("0", "Counterfoil")
    with pytest.raises(RailUnavailable, match=r"^no answer: UnicodeE"):
        await client.send(HttpRequest(method="GET", url="http://bücher..example/"))
    await client.close()


async def test_a_receiver_that_hangs_up_has_not_answered() -> None:
    sender = Sender(allow_loopback=True, seconds=10)
    with hanging_up() as url:
        for _ in range(MANY // 10):
            for answer in await asyncio.gather(*[sender.post(url, {}, b"{}", at=NOW) for _ in range(10)]):
                assert answer.status is None
                assert answer.error is not None
                assert answer.error.partition(":")[0] in KINDS
    await sender.close()


async def test_a_connection_that_is_dropped_is_closed() -> None:
    ended = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        writer.close()
        ended.set()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await Connections().connect_tcp("127.0.0.1", port)  # its answer is lost
    gc.collect()
    async with asyncio.timeout(20):
        await ended.wait()
    server.close()
    await server.wait_closed()
