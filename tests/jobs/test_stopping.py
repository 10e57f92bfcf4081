"""The loop that looks for due jobs: it outlives whatever goes wrong, and stops without leaving a mess."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.support.app import TRANSACTIONS_OVERLAP, Shop, competitor, opening

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.base import DatabaseUnavailable, Scope
from counterfoil.jobs import runner as runner_module
from counterfoil.jobs.runner import JobKind, Runner, claim, register
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

EVERY = timedelta(seconds=30)
CLAIMED = timedelta(minutes=5)
MANY_SECONDS = 30


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


class Work:
    """A job that counts its runs, and can be held in the middle of one."""

    def __init__(self, *, held: bool = False) -> None:
        self.runs = 0
        self.begun = asyncio.Event()
        self.hold = asyncio.Event()
        if not held:
            self.hold.set()

    async def __call__(self, scope: Scope) -> int:
        self.runs += 1
        self.begun.set()
        await self.hold.wait()
        return 1


async def ours() -> list[str]:
    return [DEFAULT_TENANT]


def runner(shop: Shop, **jobs: Work) -> Runner:
    return Runner(shop.house.database, [JobKind(name, EVERY, work) for name, work in jobs.items()], ours)


async def job(shop: Shop, name: str) -> dict[str, Any]:
    return await shop.row("jobs", id=name)


async def test_the_loop_outlives_whatever_goes_wrong(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_TICK_SECONDS", 0)
    troubles: list[Exception] = [DatabaseUnavailable("away"), RuntimeError("a defect"), OSError("odd")]

    async def tenants() -> list[str]:
        if troubles:
            raise troubles.pop()
        return [DEFAULT_TENANT]

    work = Work()
    loop = Runner(shop.house.database, [JobKind("tick", EVERY, work)], tenants)
    async with asyncio.timeout(MANY_SECONDS), loop.running():
        await work.begun.wait()
    assert (troubles, work.runs) == ([], 1)


async def test_stopping_lets_the_job_under_way_finish_and_begins_no_other(shop: Shop) -> None:
    first, second = Work(held=True), Work()
    async with asyncio.timeout(MANY_SECONDS), runner(shop, a=first, b=second).running():
        await first.begun.wait()
        asyncio.get_running_loop().call_soon(first.hold.set)  # when the block has ended
    assert (first.runs, second.runs) == (1, 0)
    done, left = await job(shop, "a"), await job(shop, "b")
    assert (done["finished_at"], done["claimed_by"], done["error"]) == (shop.clock.now(), None, None)
    assert (left["finished_at"], left["claimed_by"], left["due_at"]) == (None, None, shop.clock.now())


async def test_a_job_cut_off_is_taken_over_when_its_claim_has_run_out(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "GRACE_SECONDS", 0)
    work = Work(held=True)
    async with asyncio.timeout(MANY_SECONDS), runner(shop, tick=work).running():
        await work.begun.wait()
    assert (await job(shop, "tick"))["claimed_until"] == shop.clock.now() + CLAIMED
    work.hold.set()
    assert await runner(shop, tick=work).run_due() == 0
    shop.clock.advance(CLAIMED)
    assert await runner(shop, tick=work).run_due() == 1
    assert work.runs == 2


async def test_a_job_without_end_is_ended_before_its_claim_is(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_LONGEST", timedelta(milliseconds=20))
    assert await runner(shop, endless=Work(held=True), fine=Work()).run_due() == 2
    assert (await job(shop, "endless"))["error"].startswith("TimeoutError")
    assert (await job(shop, "fine"))["error"] is None


@TRANSACTIONS_OVERLAP
async def test_a_rival_that_claims_between_the_look_and_the_claim_wins(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work()
    await shop.scope.run(register, "tick")
    rival = competitor(monkeypatch, runner_module, "claim", shop.scope, claim, "tick", "rival")
    assert await runner(shop, tick=work).run_due() == 0
    assert (rival, work.runs) == ([True], 0)
    assert (await job(shop, "tick"))["claimed_by"] == "rival"


async def test_a_broken_rail_does_not_keep_checkouts_open(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = await shop.checkout(await shop.tier())

    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the rail's code is broken")

    monkeypatch.setattr(shop.house.rails, "get", broken)
    shop.clock.advance(timedelta(minutes=15))
    await shop.house.runner().run_due()
    errors = {row["id"]: row["error"] for row in await shop.rows("jobs") if row["error"]}
    asking = ("compare_payments", "reconcile", "reconcile_subscriptions")
    assert errors == dict.fromkeys(asking, "RuntimeError: the rail's code is broken")
    assert (await shop.claim(opened))["status"] == "expired"
