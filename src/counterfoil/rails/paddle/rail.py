"""Paddle as a rail and as a mirror: its parts put together, and what is left over."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from counterfoil.rails.base import HttpRequest, HttpResponse, PaymentFact
from counterfoil.rails.paddle.adjustments import Refunds
from counterfoil.rails.paddle.checkouts import Checkouts
from counterfoil.rails.paddle.copies import Copies
from counterfoil.rails.paddle.settings import PaddleSettings
from counterfoil.rails.paddle.subscriptions import Subscriptions
from counterfoil.rails.paddle.transactions import Reading
from counterfoil.rails.paddle.webhooks import Webhooks
from counterfoil.rails.paddle.wire import call, read_page, write_moment


class PaddleRail(Checkouts, Refunds, Webhooks, Copies, Subscriptions):
    """The translations for Paddle Billing, API version 1: ``paddle`` for live accounts, ``paddle-test`` for sandboxes.

    Paddle is the merchant: it charges the buyer, tax included, and pays the seller what is left.
    """

    payments_kept: timedelta | None = None

    def __init__(self, name: str = "paddle") -> None:
        self.name = name

    def payments_request(
        self, settings: PaddleSettings, since: datetime, until: datetime, after: str | None
    ) -> HttpRequest:
        """``GET /transactions`` that are paid and may have been between the two moments.

        Paddle cannot be asked when money came in. What was made before ``until`` and has changed after ``since``
        holds all of it, and some more; each payment says when it was made.
        """
        query = [
            ("status", "paid,completed"),
            ("updated_at[GTE]", write_moment(since)),
            ("created_at[LT]", write_moment(until)),
            ("order_by", "id[ASC]"),
            ("per_page", "30"),
        ]
        return call(settings, "GET", "transactions", query=query + ([("after", after)] if after else []))

    def read_payments(
        self, settings: PaddleSettings, response: HttpResponse
    ) -> tuple[tuple[PaymentFact, ...], str | None]:
        """The page: checkouts' payments and renewals alike, by the references that webhooks give, too."""
        page, after = read_page(response)
        facts = (Reading(settings, data).payment() for data in page)
        return tuple(fact for fact in facts if fact is not None), after

    def read_events(self, settings: PaddleSettings, response: HttpResponse) -> tuple[tuple[bytes, ...], str | None]:
        """The page: each event as a webhook would bring it, for :meth:`read_event`."""
        page, after = read_page(response, "event_id")
        return tuple(msgspec.json.encode(event) for event in page), after
