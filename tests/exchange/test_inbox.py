"""What rails tell us is claimed once and applied once, alone or with others in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.app import TRANSACTIONS_OVERLAP, Shop, opening

from counterfoil.db import postgres
from counterfoil.db.tx import Tx
from counterfoil.exchange import inbox
from counterfoil.exchange.inbox import News, apply_many
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.base import Notice
from counterfoil.rails.sandbox.session import act
from counterfoil.settlement.settle import Settlement, settle


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def paid_news(shop: Shop, opened: dict[str, Any]) -> list[News]:
    """That a checkout is being paid, and that it was."""
    _, events = act(await shop.session(opened), "pay", "first", shop.clock.now())
    return [
        News(
            "sandbox",
            Notice(
                event_id=event.id,
                type=event.type,
                occurred_at=event.occurred_at,
                reference=event.report.reference,
                report=event.report,
            ),
            event.report,
        )
        for event in events
    ]


def outcomes(answers: list[Any]) -> list[str | None]:
    return [answer.outcome if isinstance(answer, Settlement) else None for answer in answers]


async def test_news_in_one_transaction_is_answered_in_the_order_given(shop: Shop) -> None:
    sold = await shop.tier()
    one, two = await shop.checkout(sold), await shop.checkout(sold)
    first, second = await paid_news(shop, one), await paid_news(shop, two)
    about_nothing = News("sandbox", Notice(event_id="e", type="t", occurred_at=shop.clock.now(), reference=None), None)
    batch = [second[1], first[0], about_nothing, second[1], first[1], first[0]]
    answers = await shop.scope.run(apply_many, batch)
    # Of two that are the same the first is applied. Whether ``first[0]`` found its checkout settled already
    # depends on which claim came first.
    told = outcomes(answers)
    assert (told[0], told[2], told[3], told[4], told[5]) == ("settled", "waiting", None, "settled", None)
    assert told[1] in {"waiting", "settled"}
    settled = [answer.checkout_id for answer in (answers[0], answers[4]) if isinstance(answer, Settlement)]
    assert settled == [two["id"], one["id"]]
    assert await shop.count("inbox") == 4
    assert outcomes(await shop.scope.run(apply_many, batch)) == [None] * 6
    assert await shop.count("orders") == await shop.count("payments") == 2


async def test_the_claim_and_its_effect_are_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """When settling fails, the news is not claimed, so that it is applied when it comes again."""
    opened = await shop.checkout(await shop.tier())
    news = await paid_news(shop, opened)
    before = await shop.everything()

    def fail(*_: Any) -> None:
        raise RuntimeError("the lights go out")

    with monkeypatch.context() as patch:
        patch.setattr(inbox, "settle", fail)
        with pytest.raises(RuntimeError, match="lights"):
            await shop.scope.run(apply_many, news)
    assert await shop.everything() == before
    assert outcomes(await shop.scope.run(apply_many, news))[1] == "settled"


async def test_news_that_cannot_be_applied_does_not_spoil_its_neighbors(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sold = await shop.tier()
    opened = [await shop.checkout(sold) for _ in range(10)]
    news = [(await paid_news(shop, one))[1] for one in opened]
    bad = news[3].notice.reference

    def fails_for_one(tx: Tx, report: Any, *locked: Any) -> Settlement:
        if report.reference == bad:
            raise RuntimeError("the lights go out")
        return settle(tx, report, *locked)

    monkeypatch.setattr(inbox, "settle", fails_for_one)
    answers = await asyncio.gather(*(shop.scope.coalesce(apply_many, one) for one in news), return_exceptions=True)
    assert [isinstance(answer, RuntimeError) for answer in answers] == [place == 3 for place in range(10)]
    assert await shop.count("orders") == await shop.count("inbox") == 9
    assert {row["id"] for row in await shop.rows("checkouts", status="open")} == {opened[3]["id"]}


_WAITING = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@TRANSACTIONS_OVERLAP
async def test_transactions_with_the_same_news_do_not_wait_in_a_circle(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One applies both events of a checkout; another, which comes in between, only the second."""
    from sqlalchemy.util import await_only

    opened = await shop.checkout(await shop.tier())
    news = sorted(await paid_news(shop, opened), key=lambda one: one.notice.event_id)
    rivals: list[asyncio.Task[Any]] = []
    again = []

    async def rival_comes_and_waits() -> None:
        rivals.append(asyncio.create_task(shop.scope.run(apply_many, news[1:])))
        while not (await shop.scope.read(lambda tx: tx.all(_WAITING)))[0][0]:
            pass  # each look lets the rival go on

    def settle_slowly(tx: Tx, report: Any, *locked: Any) -> Settlement:
        done = settle(tx, report, *locked)
        if not rivals:
            await_only(rival_comes_and_waits())
        return done

    def counted(error: Any) -> bool:
        again.append(error)
        return original(error)

    original = postgres.wants_another_try
    monkeypatch.setattr(postgres, "wants_another_try", counted)
    monkeypatch.setattr(inbox, "settle", settle_slowly)
    async with asyncio.timeout(30):
        answers = await shop.scope.run(apply_many, news)
        (late,) = await asyncio.gather(*rivals)
    assert again == []
    assert None not in outcomes(answers)
    assert outcomes(late) == [None]
    assert await shop.count("orders") == await shop.count("payments") == 1
