from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.events.conftest import Hands, Record
from tests.support.databases import Dialect

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.events import auditing
from counterfoil.events.chain import Fault, Head, Report, digest_of, first_hash, hash_after
from counterfoil.events.tables import events
from counterfoil.kernel.signing import PrivateKey, PublicKey

COLUMNS = [column.name for column in events.c]
SQLITE = pytest.mark.parametrize("dialect", ["sqlite"])
POSTGRES = pytest.mark.parametrize("dialect", ["postgresql"])


async def _sealed(record: Record) -> list[str]:
    """Five events, sealed in two runs: the third link is the one to be damaged, the fifth is signed."""
    await record.add(3)
    await record.seal()
    await record.add(2)
    await record.seal()
    ids = await record.ids()
    assert len(ids) == 6
    return ids


def _found(report: Report) -> tuple[int, Any]:
    """How many links were good, and the place, the event and the problem."""
    fault = report.fault
    return report.good, (fault.seq, fault.event_id, fault.problem) if fault else None


@pytest.mark.parametrize("column", COLUMNS)
async def test_any_column_changed(record: Record, hands: Hands, dialect: Dialect, column: str) -> None:
    ids = await _sealed(record)
    missing = column in {"tenant_id", "id"}
    wanted = (2, (3, ids[2], "event_missing" if missing else "event_changed"))
    assert _found(await record.verify()) == (6, None)
    kept = hands(f"SELECT {column} FROM events WHERE id = ?", ids[2])[0][0]
    if dialect == "sqlite":
        (number,) = hands("SELECT rowid FROM events WHERE id = ?", ids[2])[0]
        stored = str(kept).encode()
        for place, bit in itertools.product(range(len(stored)), (1, 5, 7)):  # each byte: a little, case, not UTF-8
            flipped = stored[:place] + bytes([stored[place] ^ 1 << bit]) + stored[place + 1 :]
            if column == "id" and flipped.decode(errors="replace") in ids:
                continue
            hands(f"UPDATE events SET {column} = CAST(? AS TEXT) WHERE rowid = ?", flipped, number)
            assert _found(await record.verify()) == wanted, flipped
        others: list[Any] = [None, stored, 1.5] if column not in {"tenant_id", "id"} else [stored]
        for other in others:
            try:
                hands(f"UPDATE events SET {column} = ? WHERE rowid = ?", other, number)
            except sqlite3.IntegrityError:  # NOT NULL
                continue
            assert _found(await record.verify()) == wanted, other
        hands(f"UPDATE events SET {column} = ? WHERE rowid = ?", kept, number)
    else:
        changed = {
            "amount": "amount + 1",
            "created_at": "created_at + interval '1 microsecond'",
            "details": "details || '{\"a\": 1}'",
        }.get(column, f"{column} || 'x'")
        hands(f"UPDATE events SET {column} = {changed} WHERE id = ?", ids[2])
        assert _found(await record.verify()) == wanted
        where = f"{ids[2]}x" if column == "id" else ids[2]
        hands(f"UPDATE events SET {column} = ? WHERE id = ?", kept, where)
    assert _found(await record.verify()) == (6, None)


@POSTGRES
@pytest.mark.parametrize(
    "change",
    [
        "created_at = 'infinity'",
        "created_at = '-infinity'",
        "created_at = '20000-01-01'",
        "created_at = '0044-03-15 BC'",
        "details = 'null'",
        "details = '[]'",
        "details = '1'",
        "amount = NULL",
        "address = NULL",
        'details = details || \'{"list": [1.0, {"b": null, "a": true}]}\'',
    ],
)
async def test_values_python_has_no_word_for(record: Record, hands: Hands, change: str) -> None:
    ids = await _sealed(record)
    hands(f"UPDATE events SET {change} WHERE id = ?", ids[2])
    assert _found(await record.verify()) == (2, (3, ids[2], "event_changed"))


@SQLITE
async def test_texts_that_decode_to_the_same(record: Record, hands: Hands) -> None:
    await record.add(a="\u001f", n=1.5)
    await record.seal()
    (_, event_id) = await record.ids()
    (stored,) = hands("SELECT details FROM events WHERE id = ?", event_id)[0]
    assert stored == '{"a":"\\u001f","n":1.5}'
    for other in (
        '{"a":"\\u001F","n":1.5}',
        '{"a":"\\u001f","n":1.50}',
        '{"a":"\\u001f","n":15e-1}',
        '{"a": "\\u001f","n":1.5}',
        '{"\\u0061":"\\u001f","n":1.5}',
        '{"a":"","a":"\\u001f","n":1.5}',
        "[" * 100_000,
        "",
        "1",
    ):
        hands("UPDATE events SET details = ? WHERE id = ?", other, event_id)
        assert _found(await record.verify()) == (1, (2, event_id, "event_changed")), other[:50]
    hands("UPDATE events SET details = ? WHERE id = ?", stored, event_id)
    assert (await record.verify()).fault is None


@SQLITE
async def test_every_byte_of_the_row_in_the_file(record: Record, database_url: str, hands: Hands) -> None:
    """Behind SQLite's back, so that its indexes still say what they said."""
    ids = await _sealed(record)
    file = _File(database_url, hands)
    row = "".join([DEFAULT_TENANT, ids[2], "price.created", "price", "prc_1"])
    begin = file.whole.index(row.encode())  # only in the table do the columns stand side by side
    end = file.whole.index(b"}]}", begin)
    assert end - begin > 150
    await record.scope.database.close()
    for place in range(begin, end):
        file.put(place, bytes([file.whole[place] ^ 1]))
        async with record.reopened(database_url) as again:
            assert _found(await again.verify()) == (2, (3, ids[2], "event_changed")), file.whole[place : place + 20]


class _File:
    """An SQLite file, to be damaged."""

    def __init__(self, url: str, hands: Hands) -> None:
        hands("PRAGMA wal_checkpoint(TRUNCATE)")
        self._path = Path(url.removeprefix("sqlite:///"))
        self.whole = self._path.read_bytes()

    def put(self, place: int, damage: bytes) -> None:
        """Write the file as it was, but for this."""
        self._path.write_bytes(self.whole[:place] + damage + self.whole[place + len(damage) :])


async def test_an_event_deleted(record: Record, hands: Hands) -> None:
    ids = await _sealed(record)
    hands("DELETE FROM events WHERE id = ?", ids[2])
    assert _found(await record.verify()) == (2, (3, ids[2], "event_missing"))


async def test_a_seal_deleted(record: Record, hands: Hands) -> None:
    ids = await _sealed(record)
    hands("DELETE FROM event_seals WHERE id = ?", ids[2])
    report = await record.verify()
    assert _found(report) == (2, (3, None, "seal_missing"))
    assert report.fault is not None
    assert "the next one is number 4" in report.fault.detail
    hands("DELETE FROM events WHERE id = ?", ids[2])
    assert _found(await record.verify()) == (2, (3, None, "seal_missing"))
    hands("UPDATE event_seals SET seq = seq - 1 WHERE seq = 4")
    hands("UPDATE event_seals SET seq = seq - 1 WHERE seq = 5")
    assert _found(await record.verify()) == (2, (3, ids[3], "out_of_order"))


async def test_two_seals_swapped(record: Record, hands: Hands) -> None:
    ids = await _sealed(record)
    for seq, event_id in ((99, ids[2]), (3, ids[3]), (4, ids[2])):
        hands("UPDATE event_seals SET seq = ? WHERE id = ?", seq, event_id)
    assert _found(await record.verify()) == (2, (3, ids[3], "out_of_order"))


async def test_two_events_swapped(record: Record, hands: Hands) -> None:
    ids = await _sealed(record)
    for old, new in ((ids[2], "evt_x"), (ids[3], ids[2]), ("evt_x", ids[3])):
        hands("UPDATE events SET id = ? WHERE id = ?", new, old)
    assert _found(await record.verify()) == (2, (3, ids[2], "event_changed"))


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("id", "'evt_x'", "event_missing"),
        ("digest", "'00' || substr(digest, 3)", "seal_changed"),
        ("digest", "upper(digest)", "seal_changed"),
        ("hash", "'00' || substr(hash, 3)", "out_of_order"),
        ("hash", "upper(hash)", "out_of_order"),
        ("signature", "'00' || substr(signature, 3)", "bad_signature"),
        ("signature", "upper(signature)", "bad_signature"),
        ("signature", "'x'", "bad_signature"),
        ("signature", "NULL", "bad_signature"),
        ("signing_key_id", "'sgk_x'", "unknown_key"),
        ("signing_key_id", "NULL", "unknown_key"),
    ],
)
async def test_a_seal_changed(record: Record, hands: Hands, column: str, value: str, problem: str) -> None:
    await record.add(2)
    await record.seal()
    ids = await record.ids()
    with _unchecked(record, hands):
        hands(f"UPDATE event_seals SET {column} = {value} WHERE seq = 3")
        named = "evt_x" if column == "id" else ids[2]
        assert _found(await record.verify()) == (2, (3, named, problem))


@contextlib.contextmanager
def _unchecked(record: Record, hands: Hands) -> Iterator[None]:
    """Without the check that a signature has its key; the tables are left as they were."""
    if record.dialect == "sqlite":  # these hands look at no checks
        yield
        return
    check = "ck_event_seals_signed"
    hands(f"ALTER TABLE event_seals DROP CONSTRAINT {check}")
    try:
        yield
    finally:
        rule = "(signature IS NULL) = (signing_key_id IS NULL)"
        hands(f"ALTER TABLE event_seals ADD CONSTRAINT {check} CHECK ({rule}) NOT VALID")


@SQLITE
@pytest.mark.parametrize("value", ["'x'", "x'00'", "'3x'", "9999999999999999"])
async def test_a_seals_number_of_another_type(record: Record, hands: Hands, value: str) -> None:
    await _sealed(record)
    hands(f"UPDATE event_seals SET seq = {value} WHERE seq = 3")
    assert _found(await record.verify()) == (2, (3, None, "seal_missing"))
    hands("DELETE FROM event_seals WHERE typeof(seq) = 'integer' AND seq BETWEEN 3 AND 6")
    fault = (await record.verify()).fault
    assert fault is not None
    assert (fault.seq, fault.problem) == (3, "seal_missing" if value == "9999999999999999" else "seal_changed")


async def test_an_event_inserted(record: Record, hands: Hands) -> None:
    ids = await _sealed(record)
    columns = ", ".join(column for column in COLUMNS if column != "id")
    planted = ids[2][:-3] + "zzz"
    hands(f"INSERT INTO events (id, {columns}) SELECT ?, {columns} FROM events WHERE id = ?", planted, ids[2])
    assert _found(await record.verify()) == (6, None)  # it may be about to be sealed
    record.clock.advance(timedelta(minutes=61))
    assert _found(await record.verify()) == (6, (None, planted, "never_sealed"))


async def test_the_end_unsigned_and_the_end_cut_off(record: Record, hands: Hands) -> None:
    ids = await _sealed(record)
    head = (await record.verify()).head
    assert head is not None
    hands("DELETE FROM event_seals WHERE seq = 6")
    assert _found(await record.verify()) == (5, (5, ids[4], "unsigned_end"))
    hands("DELETE FROM event_seals WHERE seq = 5")
    cut = await record.verify()
    assert _found(cut) == (4, None)  # which cannot be seen from inside
    assert _found(await record.verify(head)) == (4, (5, None, "truncated"))
    assert cut.head is not None
    assert _found(await record.verify(cut.head)) == (4, None)
    other = Head(2, "0" * 64)
    assert _found(await record.verify(other)) == (1, (2, ids[1], "head_differs"))


async def _rewrite(
    record: Record, hands: Hands, sign: PrivateKey | None = None, key_id: str | None = None
) -> list[str]:
    """Change the third event, and compute all digests and hashes anew, as whoever writes to the database can."""
    ids = await _sealed(record)
    hands("UPDATE events SET actor_id = 'usr_2' WHERE id = ?", ids[2])
    before = first_hash(DEFAULT_TENANT)
    for link in await record.scope.read(auditing.links, record.dialect, after=0):
        digest = digest_of(link.event or b"")
        before = hash_after(before, digest)
        hands("UPDATE event_seals SET digest = ?, hash = ? WHERE seq = ?", digest.hex(), before.hex(), link.seq)
        if sign is not None and link.signature is not None:
            assert link.seq is not None
            text = f"counterfoil/audit/1\n{DEFAULT_TENANT}\n{link.seq}\n{before.hex()}".encode()
            signed = (sign.sign(text).hex(), key_id or link.signing_key_id, link.seq)
            hands("UPDATE event_seals SET signature = ?, signing_key_id = ? WHERE seq = ?", *signed)
    return ids


async def test_the_chain_rewritten_without_the_key(record: Record, hands: Hands) -> None:
    ids = await _rewrite(record, hands)
    report = await record.verify()
    assert _found(report) == (3, (4, ids[3], "bad_signature"))
    assert (report.signed, report.fault and report.fault.detail) == (
        0,
        "the signature does not fit: something from link 1 to here was rewritten",
    )


async def test_the_chain_rewritten_with_a_key_of_ones_own(record: Record, hands: Hands) -> None:
    own = PrivateKey(bytes(32))
    ids = await _rewrite(record, hands, own)
    assert _found(await record.verify()) == (3, (4, ids[3], "bad_signature"))
    hands("UPDATE signing_keys SET public_key = ?", own.public().to_raw())  # the sealed one is what counts
    assert _found(await record.verify()) == (3, (4, ids[3], "bad_signature"))


async def test_the_chain_signed_by_a_planted_key(record: Record, hands: Hands) -> None:
    own = PrivateKey(bytes(32))
    ids = await _rewrite(record, hands, own, "sgk_own")
    columns = "tenant_id, algorithm, private_key_sealed, created_at, updated_at"
    hands(
        f"INSERT INTO signing_keys ({columns}, id, status, public_key) "
        f"SELECT {columns}, 'sgk_own', 'verify_only', ? FROM signing_keys",
        own.public().to_raw(),
    )
    assert _found(await record.verify()) == (3, (4, ids[3], "unknown_key"))


async def test_nothing_recorded_nothing_wrong(record: Record) -> None:
    assert await record.verify() == Report(0, 0, None, None)
    assert await record.lines() == []


@SQLITE
async def test_a_page_of_the_file_that_is_no_more(record: Record, database_url: str, hands: Hands) -> None:
    ids = await _sealed(record)
    file = _File(database_url, hands)
    begin = file.whole.index(f"{DEFAULT_TENANT}{ids[2]}price".encode())
    await record.scope.database.close()
    file.put(begin // 4096 * 4096, b"\xff" * 4096)
    async with record.reopened(database_url) as again:
        assert _found(await again.verify()) == (0, (1, None, "unreadable"))


# -- exports -------------------------------------------------------------------------------------------


async def _keys(record: Record) -> list[PublicKey]:
    return list((await record.ring()).proven().values())


async def test_an_export_says_the_same(record: Record) -> None:
    await _sealed(record)
    assert auditing.verify_lines(await record.lines(), await _keys(record)) == await record.verify()
    assert auditing.verify_lines([], await _keys(record)) == Report(0, 0, None, None)


async def test_every_byte_of_an_export(record: Record) -> None:
    await record.add(2)
    await record.seal()
    lines = await record.lines()
    keys = await _keys(record)
    for number, line in enumerate(lines):
        key_id = re.search(rb'"sgk_.{26}","event"', line)  # it only says which key to try
        named = range(*key_id.span()) if key_id else ()
        for place in set(range(len(line))) - set(named):
            flipped = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
            report = auditing.verify_lines([*lines[:number], flipped, *lines[number + 1 :]], keys)
            assert report.fault is not None, flipped
            assert report.good <= number, flipped


async def test_lines_of_an_export_dropped_or_swapped(record: Record) -> None:
    ids = await _sealed(record)
    lines, keys = await record.lines(), await _keys(record)
    assert _found(auditing.verify_lines([*lines[:2], *lines[3:]], keys)) == (2, (3, None, "seal_missing"))
    assert _found(auditing.verify_lines([*lines[:2], lines[3], lines[2]], keys)) == (2, (3, None, "seal_missing"))
    assert _found(auditing.verify_lines([*lines[:3], lines[1]], keys)) == (3, (4, ids[1], "out_of_order"))
    assert _found(auditing.verify_lines([*lines, b"x"], keys)) == (6, (7, None, "unreadable"))
    assert _found(auditing.verify_lines(lines[:5], keys)) == (5, (5, ids[4], "unsigned_end"))
    assert _found(auditing.verify_lines(lines, [PrivateKey(bytes(32)).public()])) == (3, (4, ids[3], "bad_signature"))


async def test_a_damaged_record_is_exported_as_it_is(record: Record, hands: Hands) -> None:
    ids = await _sealed(record)
    hands("DELETE FROM event_seals WHERE seq = 2")
    hands("DELETE FROM events WHERE id = ?", ids[3])
    lines = [msgspec.json.decode(line) for line in await record.lines()]
    assert [line["seq"] for line in lines] == [1, 3, 4, 5, 6]
    assert [line["event"] is None for line in lines] == [False, False, True, False, False]


def test_heads_are_read_as_they_are_printed() -> None:
    head = Head(12, hashlib.sha256(b"").hexdigest())
    assert Head.parse(str(head)) == head
    for bad in ("", "12", "0:" + head.hash, "12:" + head.hash.upper(), f"-1:{head.hash}", f"12:{head.hash} "):
        with pytest.raises(ValueError, match="SEQ:HASH"):
            Head.parse(bad)
    assert Fault(1, None, "truncated", "") == Fault(1, None, "truncated", "")
