"""Stripe: cards and more, with the seller as the merchant.

``rail`` is the door: it puts together what the others hold. ``checkout`` has sessions and what they report;
``webhooks`` signatures and events; ``subscriptions``, ``invoices``, ``refunds`` (with disputes) and ``catalog`` one
kind of object each; ``imports`` what becomes ours; ``connect`` the steps that connect an account; ``amounts`` Stripe's
minor units; ``wire`` what all calls share.
"""

from __future__ import annotations

from counterfoil.rails.stripe.rail import StripeRail
from counterfoil.rails.stripe.settings import API_VERSION, StripeSettings

__all__ = ["API_VERSION", "StripeRail", "StripeSettings"]
