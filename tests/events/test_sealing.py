from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta

import msgspec
import pytest
from tests.events.conftest import Hands, Record
from tests.support.app import TRANSACTIONS_OVERLAP, competitor, opening

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.base import Database
from counterfoil.events import auditing, chain, sealing
from counterfoil.events.chain import Chain, Link
from counterfoil.events.types import Actor
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.kernel.signing import PrivateKey
from counterfoil.licensing import signing_keys

MINUTE = timedelta(minutes=1)


async def _chain(record: Record) -> list[Link]:
    return await record.scope.read(auditing.links, record.dialect, after=0)


async def test_seals_in_order_without_a_gap(record: Record) -> None:
    made = await record.ids()  # the signing key's own event
    assert made
    assert await record.seal() == 1
    first = await record.add(3)
    second = await record.add(2)
    assert await record.seal() == 5
    assert await record.seal() == 0
    links = await _chain(record)
    assert [(link.seq, link.event_id) for link in links] == list(enumerate([*made, *first, *second], start=1))
    assert [link.seq for link in links if link.signature] == [1, 6]
    report = await record.verify()
    assert (report.good, report.signed, report.fault) == (6, 6, None)
    assert str(report.head) == f"6:{links[-1].hash}"


async def test_the_format_is_the_one_others_read(record: Record, signing_key: PrivateKey) -> None:
    """Computed here by hand, from the documentation alone."""
    await record.add(a=1.50, b="ä")
    await record.seal()
    before = hashlib.sha256(b"counterfoil/audit/1\n" + DEFAULT_TENANT.encode()).digest()
    for text in await record.lines():
        line = msgspec.json.decode(text)
        event = text[text.index(b',"event":') + len(b',"event":') : -1]
        digest = hashlib.sha256(b"counterfoil/event/1\n" + event).digest()
        before = hashlib.sha256(before + digest).digest()
        assert (line["digest"], line["hash"]) == (digest.hex(), before.hex())
    message = f"counterfoil/audit/1\n{DEFAULT_TENANT}\n{line['seq']}\n{line['hash']}"
    assert signing_key.public().verify(bytes.fromhex(line["signature"]), message.encode())
    (_, event_id) = await record.ids()
    # The moment is the clock's. Keys are sorted, NULLs left out.
    assert event.decode() == (
        '{"actor_id":"usr_1","actor_kind":"user","address":"192.0.2.7","amount":2100,"asset":"USD",'
        f'"created_at":"2026-01-02T03:04:06.678901Z","customer_id":"cus_1","details":{{"a":1.5,"b":"ä"}},'
        f'"id":"{event_id}","object_id":"prc_0","object_kind":"price","source":"api",'
        f'"tenant_id":"{DEFAULT_TENANT}","type":"price.created","user_agent":"Mozilla/5.0 (X11)"}}'
    )


async def test_an_event_that_commits_late_is_sealed_by_the_next_run(record: Record, hands: Hands) -> None:
    await record.add(2)
    record.clock.advance(MINUTE)
    await record.add(2)
    assert await record.seal() == 5
    late = await _late(record, hands, timedelta(minutes=14))
    assert await record.seal() == 1
    assert (await _chain(record))[-1].event_id == late
    assert (await record.verify()).fault is None


async def test_an_event_that_commits_very_late_is_sealed_by_the_run_that_looks_far_back(
    record: Record, hands: Hands
) -> None:
    await record.add(2)
    record.clock.advance(timedelta(days=2))
    await record.add(2)
    assert await record.seal() == 5
    await _late(record, hands, timedelta(days=1))
    assert await record.seal() == 0
    fault = (await record.verify()).fault
    assert fault is not None
    assert fault.problem == "never_sealed"
    assert await record.seal(back=timedelta(days=3), rows=10_000_000) == 1
    assert (await record.verify()).fault is None


async def test_looking_back_ends_after_so_many_links(record: Record, hands: Hands) -> None:
    await record.add(3)
    await record.add(3)
    assert await record.seal() == 7
    await _late(record, hands, timedelta(seconds=1.5))
    assert await record.seal(rows=1) == 0
    assert await record.seal(rows=5) == 1


async def _late(record: Record, hands: Hands, by: timedelta) -> str:
    """An event whose transaction began ``by`` ago and commits now."""
    clock = ManualClock(record.clock.now() - by)
    database = record.scope.database
    kept, database.clock = database.clock, clock
    try:
        (made,) = await record.add()
    finally:
        database.clock = kept
    return made


async def test_a_run_that_stopped_for_days_goes_on_where_it_stopped(record: Record) -> None:
    await record.add()
    assert await record.seal() == 2
    for _ in range(3):
        record.clock.advance(timedelta(days=10))
        await record.add()
    assert await record.seal() == 3


async def test_more_than_a_batch_and_more_than_a_slice(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_SLICE", 50)
    monkeypatch.setattr(sealing, "_MOST_AT_ONCE", 1000)
    for _ in range(3):
        await record.add(500)
    assert await record.seal() == 1000
    assert await record.seal() == 501
    assert await record.seal() == 0
    assert (await record.verify()).good == 1501


async def test_many_sealers_at_once(record: Record) -> None:
    await record.add(1500)
    counts = await asyncio.gather(*[record.seal() for _ in range(20)])
    await record.seal()  # one that found others at work leaves the rest for later
    assert sum(counts) <= 1501
    report = await record.verify()
    assert (report.good, report.fault) == (1501, None)


@TRANSACTIONS_OVERLAP
async def test_a_sealer_that_comes_second_does_nothing(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    await record.add(3)
    signer = (await record.ring()).signer()
    assert signer is not None
    key_id, key = signer
    rival = competitor(
        monkeypatch, sealing, "digest_of", record.scope, sealing.seal, key.sign, key_id, first="", limit=2
    )
    assert await record.scope.run(sealing.seal, key.sign, key_id, first="") is None
    assert rival[0].count == 2
    assert [link.seq for link in await _chain(record)] == [1, 2]
    assert await record.seal() == 2
    assert (await record.verify()).fault is None


async def test_keys_rotate(record: Record, master: MasterKey) -> None:
    await record.add(2)
    await record.seal()
    fresh = await record.scope.run(signing_keys.rotate, master, PrivateKey(bytes(range(64, 96))))
    await record.add(2)
    await record.seal()
    links = await _chain(record)
    assert len({link.signing_key_id for link in links if link.signing_key_id}) == 2
    assert links[-1].signing_key_id == fresh.id
    assert (await record.verify()).fault is None


async def test_a_retired_key_ends_no_chain(record: Record, hands: Hands, master: MasterKey) -> None:
    await record.add(2)
    await record.seal()
    await record.scope.run(signing_keys.rotate, master, PrivateKey(bytes(range(64, 96))))
    hands("UPDATE signing_keys SET status = 'retired' WHERE status = 'verify_only'")
    fault = (await record.verify()).fault
    assert fault is not None
    assert (fault.seq, fault.problem) == (3, "retired_key")
    assert await record.seal() == 1  # the rotation
    assert (await record.verify()).fault is None


async def test_jobs_seal(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    async with opening(database_url, clock, master) as shop:
        await shop.tier("editor", license={"max_machines": 1})
        await shop.house.runner().run_due()
        events = await shop.rows("events")
        assert [row["id"] for row in await shop.rows("event_seals")] == [row["id"] for row in events]
        every = {kind.name: kind.every for kind in shop.house._jobs() if kind.name.startswith("seal_")}
        assert every == {"seal_events": timedelta(seconds=5), "seal_late_events": timedelta(hours=1)}
        ring = await shop.house.fresh_keyring(DEFAULT_TENANT)
        assert (await auditing.verify(shop.scope, ring.proven())).fault is None


async def test_a_tenant_without_a_key_waits(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    async with opening(database_url, clock, master) as shop:
        assert await shop.house.seal(shop.house.scope("ten_" + "1" * 26, Actor("job"))) == 0


async def test_a_broken_end_stops_the_sealing(record: Record, hands: Hands) -> None:
    await record.add()
    await record.seal()
    hands("UPDATE event_seals SET hash = 'nothing' WHERE seq = 2")
    await record.add()
    with pytest.raises(sealing.ChainBroken, match="audit verify"):
        await record.seal()


async def test_twenty_thousand(record: Record, database: Database) -> None:
    for _ in range(10):
        await record.add(2000)
    assert await record.seal() == 20_001
    report = await record.verify()
    assert (report.good, report.signed, report.fault) == (20_001, 20_001, None)
    keys = list((await record.ring()).proven().values())
    assert auditing.verify_lines(await record.lines(), keys) == report


def test_links_of_several_tenants_do_not_fit() -> None:
    assert chain.first_hash("a") != chain.first_hash("b")
    assert chain.message("a", 1, bytes(32)) != chain.message("b", 1, bytes(32))
    assert Chain("a", {}).report(None) == chain.Report(0, 0, None, None)
