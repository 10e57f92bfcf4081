"""Stripe's stand-ins, each started once for all modules here that one worker runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.peers.stripe_peers import (
    LocalStripe,
    Steady,
    StripePeer,
    localstripe_available,
    running_localstripe,
    running_steady,
    running_stripe,
    steady_available,
    stripe_available,
)


@pytest.fixture(scope="session")
def stripe_server() -> Iterator[StripePeer]:
    if reason := stripe_available():
        pytest.skip(reason)
    with running_stripe() as peer:
        yield peer


@pytest.fixture
def stripe_peer(stripe_server: StripePeer) -> Iterator[StripePeer]:
    """An account for this test alone."""
    account = stripe_server.fresh()
    yield account
    account.close()


@pytest.fixture
def stripe_client(stripe_peer: StripePeer) -> Any:
    """Stripe's own client of that account."""
    return stripe_peer.official()


@pytest.fixture(scope="session")
def steady() -> Iterator[Steady]:
    if reason := steady_available():
        pytest.skip(reason)
    with running_steady() as validator:
        yield validator


@pytest.fixture(scope="session")
def localstripe() -> Iterator[LocalStripe]:
    if reason := localstripe_available():
        pytest.skip(reason)
    with running_localstripe() as other:
        yield other
