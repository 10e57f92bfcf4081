"""Every request of the Stripe rail, against Stripe's whole specification."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from tests.peers.stripe_peers import Steady, running_steady, steady_available
from tests.rails.stripe_values import KINDS, RAIL, discount, intent, line, monthly, refund_intent, subjects

from counterfoil.kernel.money import Money
from counterfoil.rails.base import HttpRequest
from counterfoil.rails.facts import ItemFact, RailCopy
from counterfoil.rails.mirror import SubscriptionChange
from counterfoil.rails.stripe import StripeSettings, connect


@pytest.fixture(scope="module")
def steady() -> Iterator[Steady]:
    if reason := steady_available():
        pytest.skip(reason)
    with running_steady() as validator:
        yield validator


def impossible() -> HttpRequest:
    raise AssertionError("there is a request for it")


def everything_asked(config: StripeSettings) -> Iterator[HttpRequest]:
    """Every request that the rail can build."""
    for automatic_tax in (False, True):
        taxed = msgspec.structs.replace(config, automatic_tax=automatic_tax)
        yield RAIL.open_request(
            taxed, intent(line(product_reference="prod_1"), line(quantity=3, total=1000, unit_amount=400))
        )
        yield RAIL.open_request(taxed, intent(line(price_reference="price_1"), customer_reference="cus_1"))
        trial = monthly(price_reference="price_1", trial_days=14, total=0)
        yield RAIL.open_request(taxed, intent(trial, line(), discount_reference="dsc_1"))
        yield RAIL.open_request(taxed, intent(monthly(), amount=Money(900, "EUR")))
        yield RAIL.open_request(taxed, intent(amount=Money(500, "JPY"), email=None))
        for number, (kind, subject) in enumerate(zip(KINDS, subjects(), strict=True)):
            yield RAIL.create_request(taxed, subject, f"create-{number}")
            yield RAIL.update_request(taxed, subject, "name_1", f"update-{number}") or impossible()
            yield RAIL.find_copy_request(taxed, subject)
            yield RAIL.get_request(taxed, kind, "name_1", subject)
            yield RAIL.list_request(taxed, kind, "name_1")
    expires = datetime.now(UTC) + timedelta(days=30)
    flat = discount(kind="flat", amount=500, asset="EUR", expires_at=expires, product_references=("prod_1",))
    yield RAIL.create_request(config, flat, "flat")
    yield RAIL.update_request(config, discount(active=False), "dsc_1", "end") or impossible()
    copy = RailCopy(kind="discount", reference="dsc_1", our_id=None, occurred_at=None, active=True, values={})
    yield RAIL.follow_up_request(config, flat, copy, "flat") or impossible()
    yield from RAIL.report_requests(config, "cs_1")
    for name in ("pi_1", "ch_1"):
        yield RAIL.refund_request(config, refund_intent("rfd_1", name, 100))
        yield RAIL.find_refund_request(config, refund_intent("rfd_1", name, 100))
    yield RAIL.refund_question(config, refund_intent("rfd_1", "in_1", 100)) or impossible()
    item = ItemFact(reference="si_1", price_reference="price_1", quantity=1)
    yield RAIL.subscription_request(config, "sub_1")
    for change in (
        SubscriptionChange(action="pause", at_period_end=False, resume_at=expires),
        SubscriptionChange(action="pause", at_period_end=False),
        SubscriptionChange(action="resume"),
        SubscriptionChange(action="cancel"),
        SubscriptionChange(action="cancel", at_period_end=False),
        SubscriptionChange(action="keep"),
        SubscriptionChange(action="change", items=(("price_2", 2),)),
        SubscriptionChange(action="change", items=(("price_1", 2), ("price_2", 1)), proration="next_period"),
        SubscriptionChange(action="change", discount_reference="dsc_1", proration="none"),
        SubscriptionChange(action="change", discount_reference=""),
    ):
        yield RAIL.change_request(config, "sub_1", change, (item,), "change")
    yield RAIL.portal_request(config, "cus_1", ("sub_1",), "https://shop.example/account")
    yield RAIL.payments_request(config, expires, expires, "evt_1")
    yield RAIL.events_request(config, "before:evt_1", expires)
    yield connect.account_request(config)
    yield connect.balance_request(config)
    yield connect.create_webhook_request(config, "https://shop.example/hook", "hook")
    yield connect.webhooks_request(config)
    yield connect.delete_webhook_request(config, "we_1")


def test_every_request_is_one_that_stripe_s_specification_allows(steady: Steady) -> None:
    config = StripeSettings(base_url=steady.url, api_key="sk_test_x", livemode=False)
    formats = {"x-steady-query-array-format": "brackets", "x-steady-query-object-format": "brackets"}
    checked = 0
    for request in everything_asked(config):
        steady.check(msgspec.structs.replace(request, headers={**request.headers, **formats}))
        checked += 1
    assert checked > 60
