"""Servers that cut connections off at once: there is no answer, and nothing worse."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from tests.peers.hangs_up import hanging_up

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


async def test_a_receiver_that_hangs_up_has_not_answered() -> None:
    sender = Sender(allow_loopback=True, seconds=10)
    with hanging_up() as url:
        for _ in range(MANY // 10):
            for answer in await asyncio.gather(*[sender.post(url, {}, b"{}", at=NOW) for _ in range(10)]):
                assert answer.status is None
                assert answer.error is not None
                assert answer.error.partition(":")[0] in KINDS
    await sender.close()
