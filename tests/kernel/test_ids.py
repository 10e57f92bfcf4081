"""Ids: ULIDs with a prefix, sortable, and UUIDs underneath."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.kernel.ids import (
    IdMaker,
    first_id,
    from_uuid,
    is_id,
    new_ulid,
    to_uuid,
    ulid_text,
    ulid_value,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

values = st.integers(0, 2**128 - 1)

# github.com/ulid/spec's own example, as a ULID and as the UUID of the same 128 bits.
EXAMPLE = "01arz3ndektsv4rrffq69g5fav"
EXAMPLE_UUID = uuid.UUID("01563e3a-b5d3-d676-4c61-efb99302bd5b")


def test_known_answer() -> None:
    assert ulid_value(EXAMPLE) == EXAMPLE_UUID.int
    assert ulid_text(EXAMPLE_UUID.int) == EXAMPLE
    assert to_uuid(f"lic_{EXAMPLE}") == EXAMPLE_UUID
    assert from_uuid("lic", EXAMPLE_UUID) == f"lic_{EXAMPLE}"


def test_the_ends_of_the_range() -> None:
    assert ulid_text(0) == "0" * 26
    assert ulid_text(2**128 - 1) == "7" + "z" * 25
    assert ulid_value("7" + "z" * 25) == 2**128 - 1


@given(values)
def test_text_and_value_are_inverse(value: int) -> None:
    text = ulid_text(value)
    assert len(text) == 26
    assert ulid_value(text) == value


@given(values, values)
def test_texts_sort_as_their_values(left: int, right: int) -> None:
    assert (ulid_text(left) < ulid_text(right)) == (left < right)


@pytest.mark.parametrize(
    "text",
    [
        "",
        EXAMPLE.upper(),
        EXAMPLE[:-1],
        EXAMPLE + "0",
        "8" + EXAMPLE[1:],  # more than 128 bits
        "i" + EXAMPLE[1:],
        EXAMPLE[:-1] + "l",
        EXAMPLE[:-1] + "o",
        EXAMPLE[:-1] + "u",
        EXAMPLE[:-1] + "-",
        EXAMPLE[:-1] + "\n",
        EXAMPLE + "\n",
        " " + EXAMPLE[1:],
    ],
)
def test_malformed_ids_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a lower-case ULID"):
        ulid_value(text)
    with pytest.raises(ValueError, match="not a lower-case ULID"):
        to_uuid(f"lic_{text}")
    assert not is_id("lic", f"lic_{text}")


@pytest.mark.parametrize("text", ["", "lic", "lic_", EXAMPLE, f"ord_{EXAMPLE}", f"lic__{EXAMPLE}", f"LIC_{EXAMPLE}"])
def test_ids_of_another_kind_are_told_apart(text: str) -> None:
    assert not is_id("lic", text)
    assert is_id("lic", f"lic_{EXAMPLE}")


def test_an_id_tells_its_millisecond() -> None:
    assert new_ulid(NOW) >> 80 == 1_767_323_045_678
    assert new_ulid(NOW) != new_ulid(NOW)


def test_ids_of_one_transaction_rise() -> None:
    new_id = IdMaker(NOW)
    ids = [new_id("evt") for _ in range(1000)]
    assert ids == sorted(set(ids))
    assert all(is_id("evt", one) for one in ids)
    other = IdMaker(NOW)
    assert {other("evt") for _ in range(1000)}.isdisjoint(ids)


def test_ids_of_different_kinds_rise_together() -> None:
    new_id = IdMaker(NOW)
    first, second = new_id("ord"), new_id("lic")
    assert to_uuid(second).int == to_uuid(first).int + 1


def test_the_first_id_of_a_moment() -> None:
    made = IdMaker(NOW)("ord")
    assert first_id("ord", NOW - MILLISECOND) < first_id("ord", NOW) <= made < first_id("ord", NOW + MILLISECOND)
    assert is_id("ord", first_id("ord", NOW))
