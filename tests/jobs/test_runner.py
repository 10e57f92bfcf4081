"""Jobs run on time, each in one process at a time, whatever fails and whoever dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.support.app import Shop, good, opening, problem

from counterfoil.accounts import one_time_tokens
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.base import Scope
from counterfoil.jobs import runner as jobs
from counterfoil.jobs.runner import JobKind, Runner
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
EVERY = timedelta(minutes=10)
CLAIMED = timedelta(minutes=5)
QUOTE = timedelta(minutes=15)


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


def runner(shop: Shop, *kinds: JobKind) -> Runner:
    """One process's share of these jobs, in one tenant."""

    async def tenants() -> list[str]:
        return [DEFAULT_TENANT]

    return Runner(shop.house.database, list(kinds), tenants)


def job(name: str, work: Callable[[Scope], Awaitable[int]], *, every: timedelta = EVERY) -> JobKind:
    return JobKind(name, every, work)


class Work:
    """Something to do that says how often it was done, and by whom."""

    def __init__(self) -> None:
        self.runs = 0
        self.actors: list[tuple[str, str | None]] = []

    async def __call__(self, scope: Scope) -> int:
        self.runs += 1
        self.actors.append((scope.actor.kind, scope.actor.id))
        return 1


class SlowWork(Work):
    """Starts, says so, and goes on only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self, scope: Scope) -> int:
        done = await super().__call__(scope)
        self.started.set()
        await self.may_end.wait()
        return done


async def breaks(_: Scope) -> int:
    raise RuntimeError("the printer is on fire")


async def row(shop: Shop, name: str) -> dict[str, Any]:
    return await shop.row("jobs", id=name)


def ends(shop: Shop, *, due: datetime, error: str | None = None, finished: datetime | None = None) -> dict[str, Any]:
    """What the row of a job that nobody runs says."""
    return {
        "due_at": due,
        "claimed_by": None,
        "claimed_until": None,
        "finished_at": finished or shop.clock.now(),
        "error": error,
    }


async def state(shop: Shop, name: str) -> dict[str, Any]:
    hidden = {"id", "created_at", "updated_at"}
    return {column: value for column, value in (await row(shop, name)).items() if column not in hidden}


# -- when ---------------------------------------------------------------------------------------------


async def test_a_new_job_runs_at_once_and_again_after_its_interval(shop: Shop) -> None:
    work = Work()
    one = runner(shop, job("sweep", work))
    begun = shop.clock.now()
    assert await one.run_due() == 1
    assert await state(shop, "sweep") == ends(shop, due=begun + EVERY)
    assert await one.run_due() == 0
    shop.clock.advance(EVERY - MICROSECOND)
    assert await one.run_due() == 0
    assert work.runs == 1
    shop.clock.advance(MICROSECOND)
    assert await one.run_due() == 1
    assert (work.runs, work.actors) == (2, [("job", "sweep")] * 2)
    assert await state(shop, "sweep") == ends(shop, due=begun + 2 * EVERY)


async def test_what_was_missed_is_not_made_up_for(shop: Shop) -> None:
    work = Work()
    one = runner(shop, job("sweep", work))
    await one.run_due()
    shop.clock.advance(10 * EVERY)
    assert await one.run_due() == 1
    assert await one.run_due() == 0
    assert (await row(shop, "sweep"))["due_at"] == shop.clock.now() + EVERY


async def test_the_interval_counts_from_the_end(shop: Shop) -> None:
    async def takes_a_minute(_: Scope) -> int:
        shop.clock.advance(timedelta(minutes=1))
        return 0

    begun = shop.clock.now()
    await runner(shop, job("sweep", takes_a_minute)).run_due()
    assert (await row(shop, "sweep"))["due_at"] == begun + timedelta(minutes=1) + EVERY


async def test_each_job_has_an_interval_of_its_own(shop: Shop) -> None:
    often, seldom = Work(), Work()
    one = runner(shop, job("often", often, every=SECOND), job("seldom", seldom, every=3 * SECOND))
    for _ in range(7):
        await one.run_due()
        shop.clock.advance(SECOND)
    assert (often.runs, seldom.runs) == (7, 3)


async def test_a_job_that_this_process_does_not_know_is_left_alone(shop: Shop) -> None:
    await runner(shop, job("old", Work())).run_due()
    shop.clock.advance(EVERY)
    before = await row(shop, "old")
    assert await runner(shop, job("new", Work())).run_due() == 1
    assert await row(shop, "old") == before


# -- one at a time ------------------------------------------------------------------------------------


async def test_two_runners_never_run_one_job_at_once(shop: Shop) -> None:
    slow, other = SlowWork(), Work()
    first, second = runner(shop, job("sweep", slow)), runner(shop, job("sweep", other))
    task = asyncio.create_task(first.run_due())
    await slow.started.wait()
    begun = shop.clock.now()
    held = await row(shop, "sweep")
    assert (held["claimed_by"], held["claimed_until"]) == (first.worker, begun + CLAIMED)
    shop.clock.advance(CLAIMED - MICROSECOND)
    assert await second.run_due() == 0
    assert await row(shop, "sweep") == held
    slow.may_end.set()
    assert await task == 1
    assert (slow.runs, other.runs) == (1, 0)
    assert await state(shop, "sweep") == ends(shop, due=shop.clock.now() + EVERY)


async def test_many_runners_at_once_run_a_job_once(shop: Shop) -> None:
    work = Work()
    runners = [runner(shop, job("sweep", work)) for _ in range(10)]
    for _ in range(3):
        assert sum(await asyncio.gather(*(one.run_due() for one in runners))) == 1
        shop.clock.advance(EVERY)
    assert work.runs == 3
    assert len({one.worker for one in runners}) == 10


async def test_another_job_runs_beside_one_that_is_taken(shop: Shop) -> None:
    slow, other = SlowWork(), Work()
    task = asyncio.create_task(runner(shop, job("slow", slow)).run_due())
    await slow.started.wait()
    assert await runner(shop, job("slow", slow), job("other", other)).run_due() == 1
    slow.may_end.set()
    await task
    assert (slow.runs, other.runs) == (1, 1)


async def test_a_dead_workers_claim_is_taken_over_once_its_time_is_over(shop: Shop) -> None:
    await shop.scope.run(jobs.register, "sweep")
    assert await shop.scope.run(jobs.claim, "sweep", "dead") is True
    work = Work()
    alive = runner(shop, job("sweep", work))
    shop.clock.advance(CLAIMED - MICROSECOND)
    assert await alive.run_due() == 0
    assert (await row(shop, "sweep"))["claimed_by"] == "dead"
    shop.clock.advance(MICROSECOND)
    assert await alive.run_due() == 1
    assert work.runs == 1
    assert await state(shop, "sweep") == ends(shop, due=shop.clock.now() + EVERY)


async def test_who_was_thought_dead_does_not_end_its_followers_claim(shop: Shop) -> None:
    slow, follower = SlowWork(), SlowWork()
    first, second = runner(shop, job("sweep", slow)), runner(shop, job("sweep", follower))
    late = asyncio.create_task(first.run_due())
    await slow.started.wait()
    shop.clock.advance(CLAIMED)
    takes_over = asyncio.create_task(second.run_due())
    await follower.started.wait()
    held = await row(shop, "sweep")
    assert held["claimed_by"] == second.worker
    slow.may_end.set()
    await late
    assert await row(shop, "sweep") == held
    assert await runner(shop, job("sweep", Work())).run_due() == 0
    follower.may_end.set()
    await takes_over
    assert await state(shop, "sweep") == ends(shop, due=shop.clock.now() + EVERY)


async def test_a_job_is_claimed_only_when_it_is_due(shop: Shop) -> None:
    await shop.scope.run(jobs.register, "sweep")
    assert await shop.scope.run(jobs.claim, "sweep", "a") is True
    assert await shop.scope.run(jobs.claim, "sweep", "b") is False
    await shop.scope.run(jobs.finish, "sweep", "b", every=EVERY, error=None)  # not b's to finish
    assert (await row(shop, "sweep"))["claimed_by"] == "a"
    await shop.scope.run(jobs.finish, "sweep", "a", every=EVERY, error=None)
    before = await row(shop, "sweep")
    assert await shop.scope.run(jobs.claim, "sweep", "b") is False
    assert await shop.scope.run(jobs.claim, "nosuch", "b") is False
    await shop.scope.run(jobs.register, "sweep")  # known: stays as it is
    assert await row(shop, "sweep") == before


# -- what goes wrong ----------------------------------------------------------------------------------


async def test_a_failing_job_is_noted_and_the_others_go_on(shop: Shop) -> None:
    before, after = Work(), Work()
    one = runner(shop, job("a-before", before), job("b-broken", breaks), job("c-after", after))
    assert await one.run_due() == 3
    assert (before.runs, after.runs) == (1, 1)
    error = "RuntimeError: the printer is on fire"
    assert await state(shop, "b-broken") == ends(shop, due=shop.clock.now() + EVERY, error=error)
    assert [(await row(shop, name))["error"] for name in ("a-before", "c-after")] == [None, None]
    shop.clock.advance(EVERY)
    due = await shop.scope.read(jobs.due)
    assert due == {"a-before": None, "b-broken": error, "c-after": None}


async def test_an_error_is_forgotten_when_the_job_goes_well_again(shop: Shop) -> None:
    await runner(shop, job("sweep", breaks)).run_due()
    shop.clock.advance(EVERY)
    assert await runner(shop, job("sweep", Work())).run_due() == 1
    assert await state(shop, "sweep") == ends(shop, due=shop.clock.now() + EVERY)


@pytest.mark.parametrize("text", ["x" * 10_000, "a\x00b", "a\ud800b"], ids=["long", "NUL", "half a character"])
async def test_an_error_that_no_column_holds_as_it_is(shop: Shop, text: str) -> None:
    """An error's words may be anybody's, such as a rail's; noting them must not fail."""

    async def breaks_oddly(_: Scope) -> int:
        raise ValueError(text)

    after = Work()
    assert await runner(shop, job("a-broken", breaks_oddly), job("b-after", after)).run_due() == 2
    noted = await row(shop, "a-broken")
    assert noted["error"].startswith(f"ValueError: {text[0]}")
    assert len(noted["error"]) <= 500
    assert (noted["claimed_by"], noted["due_at"], after.runs) == (None, shop.clock.now() + EVERY, 1)


async def test_what_a_failing_job_wrote_in_one_transaction_is_undone(shop: Shop) -> None:
    async def half_done(scope: Scope) -> int:
        def op(tx: Any) -> None:
            jobs.register(tx, "half")
            raise RuntimeError("no")

        return int(bool(await scope.run(op)))

    await runner(shop, job("sweep", half_done)).run_due()
    assert [found["id"] for found in await shop.rows("jobs")] == ["sweep"]


async def test_health_says_which_jobs_nobody_ran(shop: Shop) -> None:
    one = runner(shop, job("sweep", Work()))
    await one.run_due()
    shop.clock.advance(EVERY + timedelta(minutes=5) - MICROSECOND)
    assert good(await shop.http.get("/health"))["checks"]["jobs"] == {"status": "ok"}
    shop.clock.advance(MICROSECOND)
    late = good(await shop.http.get("/health"))["checks"]["jobs"]
    assert late == {"status": "warning", "detail": "not run for 5 minutes: sweep"}
    await one.run_due()
    assert good(await shop.http.get("/health"))["checks"]["jobs"] == {"status": "ok"}


async def test_a_runner_in_the_background_ends_with_its_block(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("counterfoil.jobs.runner.GRACE_SECONDS", 0.1)
    slow = SlowWork()
    async with runner(shop, job("sweep", slow)).running():
        await slow.started.wait()
    assert slow.runs == 1
    # It was cut off, so its claim holds until its time is over.
    shop.clock.advance(CLAIMED)
    assert await runner(shop, job("sweep", Work())).run_due() == 1


# -- the jobs there are -------------------------------------------------------------------------------


async def test_the_jobs_there_are(shop: Shop) -> None:
    begun = shop.clock.now()
    runner_ = shop.house.runner()
    assert await runner_.run_due() == len(runner_.names)
    assert {found["id"]: found["due_at"] - begun for found in await shop.rows("jobs")} == {
        "expire_checkouts": timedelta(seconds=15),
        "send_mail": timedelta(seconds=5),
        "send_webhooks": timedelta(seconds=5),
        "reconcile": timedelta(minutes=1),
        "execute_refunds": timedelta(seconds=30),
        "compare_payments": timedelta(hours=1),
        "reconcile_subscriptions": timedelta(minutes=5),
        "push_to_rails": timedelta(seconds=30),
        "follow_margins": timedelta(minutes=10),
        "ask_about_news": timedelta(seconds=10),
        "seal_events": timedelta(seconds=5),
        "seal_late_events": timedelta(hours=1),
        "tidy": timedelta(hours=6),
    }
    assert {found["error"] for found in await shop.rows("jobs")} == {None}


async def test_expire_checkouts_gives_the_discounts_use_back(shop: Shop) -> None:
    sold = await shop.tier()
    await shop.discount("ONCE", amount=1_000, usage_limit=1)
    opened = await shop.checkout(sold, code="ONCE")
    house = shop.house.runner()
    shop.clock.advance(QUOTE - MICROSECOND)
    await house.run_due()
    assert (await shop.claim(opened))["status"] == "open"
    before = await shop.everything("jobs")
    problem(await shop.try_checkout(sold, code="ONCE"), 422, "discount_exhausted")
    assert await shop.everything("jobs") == before
    shop.clock.advance(timedelta(seconds=15))
    await house.run_due()
    assert (await shop.claim(opened))["status"] == "expired"
    assert (await shop.row("discounts"))["times_used"] == 0
    assert (await shop.row("discount_redemptions"))["status"] == "released"
    expired = await shop.row("events", type="checkout.expired")
    assert (expired["actor_kind"], expired["actor_id"], expired["object_id"]) == (
        "job",
        "expire_checkouts",
        opened["id"],
    )
    again = await shop.checkout(sold, code="ONCE")
    assert (await shop.row("discounts"))["times_used"] == 1
    # Run again, it gives nothing back a second time.
    shop.clock.advance(timedelta(minutes=1))
    await house.run_due()
    assert (await shop.row("discounts"))["times_used"] == 1
    assert (await shop.claim(again))["status"] == "open"


async def test_tidy_forgets_old_log_lines_and_old_tokens_and_nothing_else(
    database_url: str, clock: ManualClock, master: MasterKey
) -> None:
    async with opening(database_url, clock, master, validation_log_days=10) as shop:
        keys = await shop.buy(await shop.tier(license={"duration_seconds": 60}))
        await shop.checkout(await shop.tier("viewer"))
        begun = shop.clock.now()

        async def leave_traces(name: str) -> None:
            good(await shop.http.post("/v1/validate", json={"key": keys[0], "fingerprint": name}))
            await shop.scope.run(one_time_tokens.create, "test", f"token-{name}", lasts=timedelta(days=8), details={})

        await leave_traces("old")  # the token is good until day 8, and kept until day 9
        shop.clock.advance(timedelta(days=5))
        await leave_traces("new")
        tidy = next(kind for kind in shop.house._jobs() if kind.name == "tidy")
        one = runner(shop, tidy)
        logged, tokens = await shop.rows("validation_log"), await shop.rows("one_time_tokens")
        assert (len(logged), len(tokens)) == (2, 2)
        before = await shop.everything("validation_log", "one_time_tokens", "jobs")

        # Exactly at the edge both stay.
        shop.clock.advance(timedelta(days=4))
        await one.run_due()
        assert await shop.rows("one_time_tokens") == tokens
        assert shop.clock.now() == begun + timedelta(days=9)
        shop.clock.advance(timedelta(days=1))
        await one.run_due()
        assert await shop.rows("validation_log") == logged
        assert await shop.rows("one_time_tokens") == tokens[1:]

        # And a day later the old line is gone too.
        shop.clock.advance(timedelta(days=1))
        await one.run_due()
        assert await shop.rows("validation_log") == logged[1:]
        assert await shop.rows("one_time_tokens") == tokens[1:]
        assert await shop.everything("validation_log", "one_time_tokens", "jobs") == before
        assert (await row(shop, "tidy"))["error"] is None
