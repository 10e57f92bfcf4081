"""A shop with its pages, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from tests.support.app import Shop, client_of, opening
from tests.web.browsers import quit_idle

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey


@pytest.fixture(scope="session", autouse=True)
def _browsers() -> Iterator[None]:
    yield
    quit_idle()


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


@pytest.fixture
async def visitor(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    """A browser without JavaScript: it keeps cookies and follows nothing by itself."""
    async with client_of(shop.app) as client:
        yield client


@pytest.fixture
async def other_visitor(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    """Another browser."""
    async with client_of(shop.app) as client:
        yield client
