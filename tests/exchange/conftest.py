"""Peers, each started once for all tests here that one worker runs."""

from tests.peers.conftest import localstripe, stripe_peer, stripe_server
from tests.support.paddle_shop import paddle_server, paddle_shop
from tests.support.stripe_shop import stripe_shop

__all__ = ["localstripe", "paddle_server", "paddle_shop", "stripe_peer", "stripe_server", "stripe_shop"]
