"""A shop that may send to this machine, and somebody who listens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from tests.support.app import Shop, opening
from tests.support.receiver import Receiver, receiving

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey


@pytest.fixture
def clock() -> ManualClock:
    """Begins now, since receivers compare with the time of their own machine."""
    return ManualClock(datetime.now(UTC))


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    settings = {"webhooks_allow_loopback": True, "webhook_timeout_seconds": 30}
    async with opening(database_url, clock, master, **settings) as shop:
        yield shop


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver
