"""Giving money back on a rail: exactly once, whatever becomes of the answers and of whoever asks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from tests.support.app import MINUTE, Shop, good, opening
from tests.support.refunds import ask, decide, execute, give_back, paid

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.exchange import rail_settings
from counterfoil.exchange.client import RailClient
from counterfoil.exchange.rails import Connection, Rails
from counterfoil.exchange.refunds import Refunder
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.money import Money
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.base import (
    AsksNothing,
    HttpRequest,
    HttpResponse,
    RailRefused,
    RailUnavailable,
    RefundDone,
    RefundIntent,
    RefundsByHand,
)
from counterfoil.rails.btcpay import BTCPaySettings
from counterfoil.rails.sandbox.rail import NO_ANSWER, REFUSE
from counterfoil.sales import payments, refund_attempts
from counterfoil.sales.types import Refund
from counterfoil.settlement import reverse

CLAIM = refund_attempts.CLAIM_LASTS


class BankRail(AsksNothing, RefundsByHand):
    """Translates for a bank that gives the money back every time it is asked, but can be asked what it did."""

    name = "bank"

    def refund_request(self, settings: Any, intent: RefundIntent) -> HttpRequest:
        return HttpRequest(method="POST", url=intent.refund_id, body=msgspec.json.encode(intent.amount))

    def read_refunded(self, settings: Any, response: HttpResponse) -> RefundDone:
        if response.status == 422:
            raise RailRefused(response.body.decode())
        return RefundDone(reference=msgspec.json.decode(response.body, type=dict[str, str])["reference"])

    def find_refund_request(self, settings: Any, intent: RefundIntent) -> HttpRequest:
        return HttpRequest(method="GET", url=intent.refund_id)

    def read_found_refund(self, settings: Any, intent: RefundIntent, response: HttpResponse) -> RefundDone | None:
        if response.status == 404:
            return None
        return self.read_refunded(settings, response)


class Bank(RailClient):
    """A bank, and the line to it. ``acts`` says what becomes of each order to pay; after them all goes well."""

    def __init__(self, *acts: str) -> None:
        super().__init__()
        self.acts = list(acts)
        self.answers_lookups = True
        self.paid: list[tuple[str, Money]] = []
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def send(self, request: HttpRequest) -> HttpResponse:
        if request.method == "GET":
            if not self.answers_lookups:
                return HttpResponse(status=422, body=b"the key was revoked")
            known = any(refund_id == request.url for refund_id, _ in self.paid)
            return _reference(request.url) if known else HttpResponse(status=404)
        act = self.acts.pop(0) if self.acts else "pay"
        if act == "refuse late":
            self.asked.set()
            await self.go_on.wait()
        if act.startswith("refuse"):
            return HttpResponse(status=422, body=b"the account \x00is\n closed")
        if act != "unreachable":
            self.paid.append((request.url, msgspec.json.decode(request.body, type=Money)))
        if act == "hang":
            self.asked.set()
            await self.go_on.wait()
        if act in {"lose the answer", "unreachable"}:
            raise RailUnavailable("no answer: ReadTimeout")
        return HttpResponse(status=201, body=b"<html>") if act == "nonsense" else _reference(request.url)


def _reference(refund_id: str) -> HttpResponse:
    return HttpResponse(status=201, body=msgspec.json.encode({"reference": f"bank-{refund_id}"}))


class ToTheBank(Rails):
    """Every rail is the bank."""

    async def get(self, tenant: str, name: str, *, fresh: bool = False) -> Connection:
        return Connection(BankRail(), None)


def worker(shop: Shop, bank: Bank) -> Refunder:
    return Refunder(shop.house.database, ToTheBank(shop.house.database, shop.house.master), bank)


async def due(refunder: Refunder) -> int:
    return await refunder.execute_due(refunder.scope(DEFAULT_TENANT))


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def approved(shop: Shop, **fields: Any) -> str:
    """The id of an approved refund of everything."""
    bought = await paid(shop)
    refund = await ask(shop, order_id=bought["order"]["id"], **fields)
    good(await decide(shop, refund, "approve"))
    return str(refund["id"])


async def row(shop: Shop) -> Refund:
    return Refund(**await shop.row("refunds"))


async def books(shop: Shop) -> tuple[int, int]:
    """Of the only payment: claimed, given back."""
    payment = await shop.row("payments")
    return payment["refund_reserved"], payment["refunded"]


# -- answers ------------------------------------------------------------------------------------------


async def test_the_sandbox_gives_back_by_itself_and_signs_for_it(shop: Shop) -> None:
    bought = await paid(shop)
    done = await give_back(shop, order_id=bought["order"]["id"])
    assert (done["status"], done["processed_by"], done["attempts"]) == ("processed", "rail:sandbox", 1)
    assert re.fullmatch(r"sbxr_[0-9a-f]{24}", done["rail_reference"])
    assert done["processed_at"] == "2026-01-02T03:04:05.678901Z"
    assert await books(shop) == (1_000, 1_000)
    events = [kind for kind in await shop.events() if kind.startswith("refund.")]
    assert sorted(events) == ["refund.approved", "refund.processed", "refund.processing", "refund.requested"]
    before = await shop.everything()
    assert await execute(shop) == 0
    assert await shop.everything() == before


async def test_the_sandbox_can_be_told_to_refuse_and_not_to_answer(shop: Shop) -> None:
    bought = await paid(shop)
    refused = await give_back(shop, order_id=bought["order"]["id"], recipient=REFUSE)
    assert (refused["status"], refused["error"]) == ("failed", "the sandbox was told to refuse this refund")
    lost = await give_back(shop, order_id=bought["order"]["id"], recipient=NO_ANSWER)
    assert (lost["status"], lost["error"]) == ("processing", "the sandbox was told not to answer")
    shop.clock.advance(MINUTE)
    assert await execute(shop) == 1
    found = good(await shop.staff.get(f"/v1/refunds/{lost['id']}"))
    assert (found["status"], found["attempts"], found["error"]) == ("processed", 2, None)
    assert await books(shop) == (1_000, 1_000)


async def test_a_lost_answer_is_looked_up_and_not_asked_for_again(shop: Shop) -> None:
    refund_id = await approved(shop)
    bank = Bank("lose the answer")
    one = worker(shop, bank)
    assert await due(one) == 1
    waiting = await row(shop)
    assert (waiting.status, waiting.error, waiting.claimed_by) == ("processing", "no answer: ReadTimeout", None)
    assert waiting.next_attempt_at == shop.clock.now() + MINUTE
    assert await books(shop) == (1_000, 0)
    before = await shop.everything()
    assert await due(one) == 0
    assert await shop.everything() == before
    shop.clock.advance(MINUTE)
    assert await due(one) == 1
    done = await row(shop)
    assert (done.status, done.rail_reference) == ("processed", f"bank-{refund_id}")
    assert bank.paid == [(refund_id, Money(1_000, "USD"))]
    assert await books(shop) == (1_000, 1_000)


async def test_what_the_rail_never_heard_of_is_asked_for_again(shop: Shop) -> None:
    refund_id = await approved(shop)
    bank = Bank("unreachable", "unreachable")
    one = worker(shop, bank)
    for pause in (1, 5):
        await due(one)
        assert (await row(shop)).next_attempt_at == shop.clock.now() + pause * MINUTE
        shop.clock.advance(pause * MINUTE)
    assert await due(one) == 1
    assert (await row(shop)).status == "processed"
    assert bank.paid == [(refund_id, Money(1_000, "USD"))]


async def test_an_answer_that_makes_no_sense_may_have_paid(shop: Shop) -> None:
    refund_id = await approved(shop)
    bank = Bank("nonsense")
    await due(worker(shop, bank))
    assert (await row(shop)).status == "processing"
    shop.clock.advance(MINUTE)
    await due(worker(shop, bank))
    assert ((await row(shop)).status, len(bank.paid)) == ("processed", 1)
    assert bank.paid[0][0] == refund_id


async def test_a_rail_that_does_not_say_what_it_did_is_not_asked_to_pay(shop: Shop) -> None:
    await approved(shop)
    bank = Bank("lose the answer")
    bank.answers_lookups = False
    one = worker(shop, bank)
    for pause in (1, 5, 30, 120, 300, 720, 720):
        assert await due(one) == 1
        waiting = await row(shop)
        assert (waiting.status, waiting.next_attempt_at) == ("processing", shop.clock.now() + pause * MINUTE)
        shop.clock.advance(pause * MINUTE)
    assert waiting.error == "it does not say what became of the refund: the key was revoked"
    assert len(bank.paid) == 1
    bank.answers_lookups = True
    await due(one)
    assert ((await row(shop)).status, len(bank.paid)) == ("processed", 1)


async def test_a_refusal_frees_the_money(shop: Shop) -> None:
    await approved(shop)
    bank = Bank("refuse")
    await due(worker(shop, bank))
    failed = await row(shop)
    assert (failed.status, failed.error, failed.next_attempt_at) == ("failed", "the account is closed", None)
    assert await books(shop) == (0, 0)
    assert (await shop.row("licenses"))["status"] == "active"
    event = await shop.row("events", type="refund.failed")
    assert event["details"]["why"] == "the account is closed"
    before = await shop.everything()
    shop.clock.advance(timedelta(days=1))
    assert await due(worker(shop, bank)) == 0
    assert await shop.everything() == before
    assert bank.paid == []


# -- workers ------------------------------------------------------------------------------------------


async def test_many_workers_ask_once(shop: Shop) -> None:
    refund_id = await approved(shop)
    bank = Bank()
    done = await asyncio.gather(*[due(worker(shop, bank)) for _ in range(20)])
    assert (sorted(done), bank.paid) == ([0] * 19 + [1], [(refund_id, Money(1_000, "USD"))])
    assert await books(shop) == (1_000, 1_000)
    assert await shop.count("events", type="refund.processed") == 1


async def test_a_worker_that_dies_before_the_answer_leaves_it_to_be_looked_up(shop: Shop) -> None:
    await approved(shop)
    bank = Bank("hang")
    task = asyncio.create_task(due(worker(shop, bank)))
    await bank.asked.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    left = await row(shop)
    assert (left.status, left.claimed_until) == ("processing", shop.clock.now() + CLAIM)
    shop.clock.advance(CLAIM - timedelta(microseconds=1))
    assert await due(worker(shop, bank)) == 0
    shop.clock.advance(timedelta(microseconds=1))
    assert await due(worker(shop, bank)) == 1
    assert ((await row(shop)).status, len(bank.paid)) == ("processed", 1)
    assert await books(shop) == (1_000, 1_000)


async def test_who_answers_after_its_claim_is_over_changes_nothing_twice(shop: Shop) -> None:
    await approved(shop)
    bank = Bank("hang")
    slow = asyncio.create_task(due(worker(shop, bank)))
    await bank.asked.wait()
    shop.clock.advance(CLAIM)
    assert await due(worker(shop, bank)) == 1
    before = await shop.everything()
    bank.go_on.set()
    await slow
    assert await shop.everything() == before
    assert len(bank.paid) == 1


async def test_a_late_refusal_does_not_undo_what_another_attempt_did(shop: Shop) -> None:
    await approved(shop)
    bank = Bank("refuse late")
    slow = asyncio.create_task(due(worker(shop, bank)))
    await bank.asked.wait()
    shop.clock.advance(CLAIM)
    assert await due(worker(shop, bank)) == 1
    before = await shop.everything()
    bank.go_on.set()
    await slow
    assert await shop.everything() == before
    assert ((await row(shop)).status, await books(shop)) == ("processed", (1_000, 1_000))


async def test_money_that_went_back_after_all_is_booked(shop: Shop) -> None:
    refund_id = await approved(shop)
    await due(worker(shop, Bank("refuse")))
    done = await shop.scope.run(reverse.reverse, refund_id, reference="late")
    assert (done.status, await books(shop)) == ("processed", (1_000, 1_000))


# -- the job ------------------------------------------------------------------------------------------


async def test_the_job_gives_back_and_denies_what_is_over(shop: Shop) -> None:
    await approved(shop)
    other = await paid(shop)
    await ask(shop, order_id=other["order"]["id"], expires_at=(shop.clock.now() + MINUTE).isoformat())
    shop.clock.advance(MINUTE)
    kind = next(kind for kind in shop.house._jobs() if kind.name == "execute_refunds")
    assert kind.every == timedelta(seconds=30)
    assert await kind.work(shop.house.refunder.scope(DEFAULT_TENANT)) == 2
    assert sorted(one["status"] for one in await shop.rows("refunds")) == ["denied", "processed"]


async def test_a_rail_that_is_not_connected_is_waited_for(shop: Shop) -> None:
    await approved(shop)
    known = (await shop.house.rails.get(DEFAULT_TENANT, "sandbox")).settings
    await shop.scope.run(rail_settings.disconnect, "sandbox")
    shop.house.rails.forget(DEFAULT_TENANT, "sandbox")
    assert await execute(shop) == 0
    waiting = await row(shop)
    assert (waiting.status, waiting.attempts, waiting.error) == ("approved", 0, "its rail is not connected")
    await shop.scope.run(rail_settings.save, shop.house.master, "sandbox", known, {})
    assert await execute(shop) == 0
    shop.clock.advance(30 * MINUTE)
    assert await execute(shop) == 1
    assert (await row(shop)).status == "processed"


@pytest.mark.parametrize("rail", ["btcpay", "bank-transfer"])
async def test_a_rail_that_cannot_leaves_it_to_a_person(shop: Shop, rail: str) -> None:
    def pay(tx: Any) -> Any:
        return payments.add_if_new(
            tx, rail=rail, reference="x", checkout_id=None, customer_id=None, payer=None, money=Money(5, "SAT"),
            status="unmatched", details={}, occurred_at=tx.now,
        )  # fmt: skip

    if rail == "btcpay":
        settings = BTCPaySettings(
            base_url="https://b.example", store_id="s", api_key="k", webhook_id=None, webhook_secret="w"
        )
        await shop.scope.run(rail_settings.save, shop.house.master, "btcpay", settings, {})
    payment = await shop.scope.run(pay)
    refund = await ask(shop, payment_id=payment.id)
    good(await decide(shop, refund, "approve"))
    assert await execute(shop) == 0
    waiting = await row(shop)
    assert (waiting.status, waiting.next_attempt_at, waiting.attempts) == ("approved", None, 0)
    assert waiting.error == "its rail gives no money back by itself: do it by hand, and settle this refund"
    shop.clock.advance(timedelta(days=30))
    assert await execute(shop) == 0
    settled = good(await decide(shop, refund, "settle", reference="tx 1"))
    assert (settled["status"], settled["rail_reference"], settled["error"]) == ("processed", "tx 1", None)
    assert settled["processed_by"] == settled["approved_by"]
    assert await books(shop) == (5, 5)
