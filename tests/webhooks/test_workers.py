"""Several workers, slow receivers, workers that die: nobody is held up, and everything arrives."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.support.app import Shop
from tests.support.listening import happen, listen, send
from tests.support.receiver import Message, Receiver, Reply, receiving

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.tx import Tx
from counterfoil.webhooks import deliveries
from counterfoil.webhooks.deliveries import Claim, Outcome
from counterfoil.webhooks.sender import Answer, Sender
from counterfoil.webhooks.worker import Courier


def courier(shop: Shop) -> Courier:
    """Another worker on the same database."""
    return Courier(shop.house.database, shop.house.settings, shop.house.master)


def things(tx: Tx, count: int) -> None:
    for number in range(count):
        tx.record("thing.changed", "thing", f"thi_{number % 7}", number=number)


async def until(done: Callable[[], bool]) -> None:
    """Wait for what others do."""
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110 # receivers count what comes in, and know nobody who waits
            await asyncio.sleep(0.005)


async def claim(shop: Shop, endpoint_id: str, name: str, most: int = 10) -> Claim | None:
    return await shop.scope.run(deliveries.claim, endpoint_id, name, most=most)


async def test_claims_never_overlap(shop: Shop) -> None:
    endpoint = await listen(shop, "https://hooks.example.com/", "thing.*")
    await shop.scope.run(things, 100)
    found = await asyncio.gather(*[claim(shop, endpoint["id"], f"w{number}", 3) for number in range(50)])
    claimed = Counter(one.id for held in found if held for one in held.deliveries)
    assert len(claimed) == 100
    assert set(claimed.values()) == {1}
    assert {row["attempts"] for row in await shop.rows("webhook_deliveries")} == {1}


async def test_two_workers_never_send_one_delivery_at_the_same_time(shop: Shop, receiver: Receiver) -> None:
    most = 0

    async def slowly(message: Message) -> Reply:
        nonlocal most
        most = max(most, receiver.under_way[message.id])
        await asyncio.sleep(0.002)
        return Reply()

    receiver.answer = slowly
    await listen(shop, receiver.url, "thing.*")
    await shop.scope.run(things, 100)
    workers = [courier(shop) for _ in range(4)]
    async with contextlib.AsyncExitStack() as running:
        for one in workers:
            await running.enter_async_context(one.at_work())
        await asyncio.gather(*[one.send_due(DEFAULT_TENANT) for one in workers])
    assert most == 1
    assert Counter(message.id for message in receiver.messages).most_common(1)[0][1] == 1
    assert len(receiver.messages) == 100
    assert await shop.count("webhook_deliveries", status="success") == 100


async def test_at_most_two_at_once_to_one_endpoint(shop: Shop, receiver: Receiver) -> None:
    async def slowly(_: Message) -> Reply:
        await asyncio.sleep(0.005)
        return Reply()

    receiver.answer = slowly
    await listen(shop, receiver.url, "thing.*")
    await shop.scope.run(things, 20)
    await send(shop)
    assert (len(receiver.messages), receiver.most_under_way) == (20, 2)


async def test_receivers_that_hang_hold_up_nobody(shop: Shop) -> None:
    """Twelve that hang, and one that works: it has its news long before theirs is given up."""
    release = asyncio.Event()

    async def hang(_: Message) -> Reply:
        await release.wait()
        return Reply(500)

    async with contextlib.AsyncExitStack() as stack:
        hanging = [await stack.enter_async_context(receiving()) for _ in range(12)]
        working = await stack.enter_async_context(receiving())
        for one in hanging:
            one.answer = hang
            await listen(shop, one.url, "thing.*")
        # They have hung before, so they share half of the requests that may be under way.
        await shop.scope.run(things, 1)
        first = asyncio.create_task(send(shop))
        await until(lambda: all(one.messages for one in hanging))
        release.set()
        await first
        release.clear()
        shop.clock.advance(timedelta(hours=1))
        await listen(shop, working.url, "thing.*")
        await shop.scope.run(things, 8)
        sending = asyncio.create_task(send(shop))
        await until(lambda: len(working.messages) == 8)
        assert not sending.done()
        assert sum(one.under_way.get(message.id, 0) for one in hanging for message in one.messages[-1:]) <= 10
        # News that comes meanwhile is sent meanwhile.
        await shop.scope.run(things, 1)
        shop.house.courier.send_soon(DEFAULT_TENANT)
        await until(lambda: len(working.messages) == 9)
        assert not sending.done()
        release.set()
        await sending


async def test_a_dead_workers_claims_are_sent_by_another(shop: Shop, receiver: Receiver) -> None:
    endpoint = await listen(shop, receiver.url)
    await happen(shop)
    held = await claim(shop, endpoint["id"], "dead/1")
    assert held is not None
    assert await send(shop) == 0
    shop.clock.advance(deliveries.CLAIM_LASTS - timedelta(seconds=1))
    assert await send(shop) == 0
    shop.clock.advance(timedelta(seconds=1))
    assert await send(shop) == 1
    delivery = await shop.row("webhook_deliveries")
    assert (delivery["status"], delivery["attempts"]) == ("success", 2)
    # Should it only have been slow, what it says now counts no more.
    late = Outcome(
        delivery_id=delivery["id"], endpoint_id=endpoint["id"], worker="dead/1", attempts=1, status=500, error="late"
    )
    await shop.scope.run(deliveries.finish, shop.house.master, [late])
    assert await shop.row("webhook_deliveries") == delivery
    assert (await shop.row("webhook_endpoints"))["first_failed_at"] is None


async def test_a_defect_leaves_nothing_under_way_and_loses_nothing(
    shop: Shop, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = Sender.post
    begun = 0
    both, never = asyncio.Event(), asyncio.Event()
    cut_off: list[int] = []

    async def broken(*_: Any, **__: Any) -> Answer:
        nonlocal begun
        begun += 1
        if begun == 1:
            await both.wait()
            raise RuntimeError("a defect")
        both.set()
        try:
            await never.wait()
        finally:
            cut_off.append(begun)
        return Answer(200, None)

    await listen(shop, receiver.url, "thing.*")
    await shop.scope.run(things, 10)
    monkeypatch.setattr(Sender, "post", broken)
    async with asyncio.timeout(20):
        assert await send(shop) == 0
    assert (begun, cut_off) == (2, [2])
    monkeypatch.setattr(Sender, "post", post)
    shop.clock.advance(deliveries.CLAIM_LASTS)
    assert await send(shop) == 10
    assert await shop.count("webhook_deliveries", status="success") == len({one.id for one in receiver.messages}) == 10


async def test_what_is_claimed_too_long_ago_is_given_back(shop: Shop, receiver: Receiver) -> None:
    slow = courier(shop)
    slow._begin_within = -1.0
    await listen(shop, receiver.url)
    await happen(shop)
    round_ = asyncio.create_task(slow.send_due(DEFAULT_TENANT))
    await asyncio.sleep(0.05)
    slow.stopping = True
    assert await round_ == 0
    delivery = await shop.row("webhook_deliveries")
    assert (delivery["status"], delivery["attempts"], delivery["claimed_by"]) == ("pending", 0, None)
    assert receiver.messages == []
    assert await send(shop) == 1


async def test_a_retry_while_it_is_sent_changes_nothing_of_that(shop: Shop, receiver: Receiver) -> None:
    await listen(shop, receiver.url)
    await happen(shop)

    async def retry_it(message: Message) -> Reply:
        (row,) = await shop.rows("webhook_deliveries")
        answer = await shop.staff.post(f"/v1/webhook-deliveries/{row['id']}/retry")
        assert (answer.status_code, answer.json()["status"]) == (200, "processing")
        return Reply()

    receiver.answer = retry_it
    assert await send(shop) == 1
    assert (await shop.row("webhook_deliveries"))["status"] == "success"
    assert len(receiver.messages) == 1


async def test_news_leaves_at_once_where_jobs_run(shop: Shop, receiver: Receiver) -> None:
    shop.house.settings.jobs = True
    await listen(shop, receiver.url)
    await happen(shop)
    await until(lambda: bool(receiver.messages))
    shop.house.settings.jobs = False
    await until(lambda: not shop.house.courier._lanes)
    assert await shop.count("webhook_deliveries", status="success") == 1


async def test_everything_arrives_through_errors_hangs_restarts_and_deaths(shop: Shop, receiver: Receiver) -> None:
    """30 % errors, 10 % hangs, a receiver that restarts, workers that are killed: each at least once, by its id."""
    shop.house.settings.webhook_timeout_seconds = 0.1
    dice = random.Random(7)
    taken: Counter[str] = Counter()

    async def moody(message: Message) -> Reply:
        throw = dice.random()
        if throw < 0.1:
            await asyncio.sleep(60)
        if throw < 0.4:
            return Reply(dice.choice([500, 503, 429, 302, 404, None]))
        taken[message.id] += 1
        return Reply(dice.choice([200, 202, 204]))

    receiver.answer = moody
    await listen(shop, receiver.url, "thing.*")
    for _ in range(4):
        await shop.scope.run(things, 15)
    events = {row["id"] for row in await shop.rows("events", type="thing.changed")}
    assert len(events) == 60
    turn = 0
    while await shop.count("webhook_deliveries", status="success") < len(events):
        turn += 1
        assert turn < 100
        await work_and_die(shop, receiver, deaths=2 if turn <= 6 else 0)
        shop.clock.advance(timedelta(hours=27))
        await encourage(shop)
    assert set(taken) == events
    assert {row["status"] for row in await shop.rows("webhook_deliveries")} == {"success"}


async def work_and_die(shop: Shop, receiver: Receiver, *, deaths: int) -> None:
    """Three workers send what is due; so many of them end in the middle of it, when the receiver restarts."""
    workers = [courier(shop) for _ in range(3)]
    sending = [asyncio.create_task(one.send_due(DEFAULT_TENANT)) for one in workers]
    if deaths:
        await asyncio.sleep(0.05)
        await receiver.stop()
        await receiver.start()
    for one, task in zip(workers[:deaths], sending, strict=False):
        task.cancel()
        for part in [*one._rounds.values(), *one._lanes.values()]:
            part.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
    for one in workers:
        async with one.at_work():
            pass


async def encourage(shop: Shop) -> None:
    """What a person does in such a case."""
    for row in await shop.rows("webhook_deliveries", status="failed"):
        await shop.staff.post(f"/v1/webhook-deliveries/{row['id']}/retry")
    for row in await shop.rows("webhook_endpoints", status="disabled"):
        await shop.staff.post(f"/v1/webhook-endpoints/{row['id']}/enable")
