"""Cursors: opaque, exact, and harmless when made up."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.kernel.errors import FieldError, Invalid
from counterfoil.kernel.paging import Page, decode_cursor, encode_cursor, page_of


class Row(msgspec.Struct, frozen=True):
    id: str
    position: int


ROWS = [Row(f"r{number}", number) for number in range(4)]


def cursor_of(json: bytes) -> str:
    return base64.urlsafe_b64encode(json).decode().rstrip("=")


def test_known_answer() -> None:
    assert encode_cursor(("ord_1", 7)) == "WyJvcmRfMSIsN10"
    assert decode_cursor("WyJvcmRfMSIsN10", (str, int)) == ("ord_1", 7)


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.integers(-(2**63), 2**63 - 1),
)
def test_cursors_keep_their_values(text: str, number: int) -> None:
    cursor = encode_cursor((text, number))
    assert decode_cursor(cursor, (str, int)) == (text, number)
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "!",
        "a",
        "ü",
        "\0",
        cursor_of(b""),
        cursor_of(b"\xff"),
        cursor_of(b"null"),
        cursor_of(b'"ord_1"'),
        cursor_of(b"[]"),
        cursor_of(b"[1]"),
        cursor_of(b"[true]"),
        cursor_of(b"[null]"),
        cursor_of(b'[["ord_1"]]'),
        cursor_of(b'["ord_1", "ord_2"]'),
        cursor_of(b'["ord_1"'),
        cursor_of(b'["a\\u0000b"]'),  # PostgreSQL's text holds no NUL
        cursor_of(b'{"id": "ord_1"}'),
    ],
)
def test_made_up_cursors_are_refused(cursor: str) -> None:
    with pytest.raises(Invalid) as refused:
        decode_cursor(cursor, (str,))
    assert refused.value.code == "invalid_cursor"
    assert refused.value.errors == (FieldError("/after", "This cursor did not come from a list of this kind."),)


@pytest.mark.parametrize("number", [b"1.0", b"1e3", b"true", b"9223372036854775808", b"-9223372036854775809"])
def test_only_what_an_integer_column_holds_is_an_integer(number: bytes) -> None:
    with pytest.raises(Invalid, match="not a cursor"):
        decode_cursor(cursor_of(b"[" + number + b"]"), (int,))


@given(st.text(max_size=40))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    try:
        values = decode_cursor(text, (str,))
    except Invalid:
        return
    assert len(values) == 1
    assert isinstance(values[0], str)


def test_a_last_page_names_no_next() -> None:
    assert page_of(ROWS[:2], 3) == Page(ROWS[:2], None)
    assert page_of(ROWS[:3], 3) == Page(ROWS[:3], None)
    assert page_of([], 3) == Page([], None)


def test_a_page_is_cut_to_its_limit_and_names_its_last_row() -> None:
    page = page_of(ROWS, 3)
    assert page.data == ROWS[:3]
    assert page.next is not None
    assert decode_cursor(page.next, (str,)) == ("r2",)


def test_a_page_may_be_sorted_by_another_attribute() -> None:
    page = page_of(ROWS, 1, key="position")
    assert page.data == ROWS[:1]
    assert page.next is not None
    assert decode_cursor(page.next, (int,)) == (0,)
