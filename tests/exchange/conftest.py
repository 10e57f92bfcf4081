"""Peers, each started once for all tests here that one worker runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from tests.peers.conftest import localstripe, stripe_peer, stripe_server
from tests.support.app import opening
from tests.support.mirrors import Till, paddle_till, stripe_till
from tests.support.paddle_shop import paddle_server, paddle_shop
from tests.support.stripe_shop import stripe_shop

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.mirror import Rate
from counterfoil.rails.paddle import PaddleRail

__all__ = ["localstripe", "paddle_server", "paddle_shop", "stripe_peer", "stripe_server", "stripe_shop", "till"]


@pytest.fixture(params=["stripe", "paddle"])
async def till(
    database_url: str, master: MasterKey, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Till]:
    """A shop at each provider. Its clock is the machine's, as the stand-ins' is."""
    monkeypatch.setattr(PaddleRail, "rate", lambda _rail, _settings: Rate(1_000, 1, 4))  # the stand-in takes more
    async with opening(database_url, ManualClock(datetime.now(UTC)), master) as shop:
        if request.param == "paddle":
            yield await paddle_till(shop, request.getfixturevalue("paddle_server"))
            return
        account = request.getfixturevalue("stripe_server").fresh()
        yield await stripe_till(shop, account)
        account.close()
