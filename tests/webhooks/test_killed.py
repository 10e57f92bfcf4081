"""A server that sends is ended with SIGKILL; whoever comes after it sends what it had in hand."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import httpx
from tests.support import server as servers
from tests.support.app import good, opening
from tests.support.listening import send
from tests.support.receiver import Message, Receiver, Reply

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.webhooks import deliveries

COUNT = 12


async def test_what_a_killed_server_had_in_hand_is_sent(
    database_url: str, tmp_path: Path, master: MasterKey, receiver: Receiver
) -> None:
    hanging = asyncio.Event()

    async def hang(_: Message) -> Reply:
        if len(receiver.messages) >= 4:
            hanging.set()
            await asyncio.sleep(60)
        return Reply()

    receiver.answer = hang
    server = await asyncio.to_thread(
        servers.start, database_url, tmp_path, master=master, webhooks_allow_loopback="true"
    )
    try:
        key = await asyncio.to_thread(servers.mint_key, database_url)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False, timeout=30) as http:
            body = {"url": receiver.url, "event_types": ["product.created"]}
            good(await http.post("/v1/webhook-endpoints", json=body))
            for number in range(COUNT):
                good(await http.post("/v1/products", json={"slug": f"p-{number}", "name": "P"}))
        async with asyncio.timeout(20):
            await hanging.wait()
    finally:
        server.kill()
    receiver.answers(200)
    later = ManualClock(datetime.now(UTC) + deliveries.CLAIM_LASTS)
    async with opening(database_url, later, master, webhooks_allow_loopback=True) as shop:
        events = {row["id"] for row in await shop.rows("events", type="product.created")}
        await send(shop)
        assert {row["status"] for row in await shop.rows("webhook_deliveries")} == {"success"}
    assert len(events) == COUNT
    assert {message.id for message in receiver.messages} == events
