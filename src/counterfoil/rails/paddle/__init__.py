"""Paddle Billing: cards, wallets and more, with Paddle as the merchant, which also does the tax.

``rail`` puts the parts together: ``checkouts``, ``adjustments`` (refunds and disputes), ``webhooks``, ``copies`` and
``subscriptions``. ``transactions``, ``catalog`` and ``imports`` translate objects, ``entities`` names their fields,
``wire`` is what all calls share, and ``connect`` has the steps that connect an account.
"""

from __future__ import annotations

from counterfoil.rails.paddle.rail import PaddleRail
from counterfoil.rails.paddle.settings import PaddleSettings

__all__ = ["PaddleRail", "PaddleSettings"]
