"""Passwords: which are good enough, and how they are kept."""

from __future__ import annotations

import re
import unicodedata

import pytest
from argon2 import PasswordHasher

from counterfoil.accounts import passwords
from counterfoil.kernel.errors import Invalid

pytestmark = pytest.mark.usefixtures("real_passwords")

ABOUT = ["Grace", "Hopper", "grace.hopper@example.com"]


@pytest.mark.parametrize(
    "text",
    [
        "correct horse",
        "ten chars!",
        "a" * 250 + "bcdefg",
        "пароль из слов",
        "とても長い秘密の言葉です",
        "🐎🔋📎🦆🌵🎻🪁🧊🫐🎯",
        "gracious hopping",
        "20260102030405",
        "<script>alert(1)</script>",
        "'; DROP TABLE users; --",
    ],
)
def test_any_long_phrase_will_do(text: str) -> None:
    assert passwords.check("password", text, ABOUT) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must have 10 to 256 characters"),
        ("nine char", "must have 10 to 256 characters"),
        ("  nine char  ", "must have 10 to 256 characters"),
        ("x" * 257, "must have 10 to 256 characters"),
        ("tab\tin the middle", "must not contain control characters"),
        ("a bell \x07 rings", "must not contain control characters"),
        ("half a \ud83d pair", "must not contain control characters"),
        ("password123", "is one of the first that others would guess"),
        ("P@ssw0rd2024!", "is one of the first that others would guess"),
        ("QWERTYUIOP", "is one of the first that others would guess"),
        ("qwerty 12345", "is one of the first that others would guess"),
        ("1234567890", "is one of the first that others would guess"),
        ("0987654321", "is one of the first that others would guess"),
        ("aaaaaaaaaaaaaa", "is one of the first that others would guess"),
        ("abababababab", "is one of the first that others would guess"),
        ("!!!!!!!!!!!!", "is one of the first that others would guess"),
        ("grace.hopper@example.com", "must not be your name or your address"),
        ("GRACE.HOPPER", "must not be your name or your address"),
        ("grace hopper", "must not be your name or your address"),
        ("HopperGrace1906", "must not be your name or your address"),
        ("...hopper...1906", "must not be your name or your address"),
    ],
)
def test_what_others_would_guess_is_refused(text: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        passwords.check("new_password", text, ABOUT)
    assert caught.value.code == "weak_password"
    assert [(error.pointer, error.detail) for error in caught.value.errors] == [("/new_password", said)]


def test_somebody_of_whom_nothing_is_known_has_no_name_to_avoid() -> None:
    assert passwords.check("password", "a fine phrase", ["", ""]) == "a fine phrase"


def test_a_password_is_the_same_however_it_is_typed() -> None:
    composed, apart = "ein schöner Satz", unicodedata.normalize("NFD", "ein schöner Satz")
    assert composed != apart
    stored = passwords.hash_(passwords.check("password", apart))
    assert passwords.verify(stored, composed)
    assert passwords.verify(stored, f"  {apart}\n")
    assert not passwords.verify(stored, composed.upper())
    assert not passwords.verify(stored, composed[:-1])
    assert not passwords.verify(stored, "")


def test_hashes_are_argon2id_with_salts_of_their_own() -> None:
    first, second = passwords.hash_("the same phrase"), passwords.hash_("the same phrase")
    assert first != second
    assert re.fullmatch(r"\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}", first)
    assert "same phrase" not in first


def test_nobodys_password_matches_nothing_at_the_price_of_any_other() -> None:
    for text in ("", "x", "correct horse battery", "\x00" * 32):
        assert not passwords.verify(None, text)
    known, nobodys = passwords.hash_("some phrase"), passwords._NOBODYS
    assert [len(part) for part in nobodys.split("$")] == [len(part) for part in known.split("$")]
    assert nobodys.rsplit("$", 2)[0] == known.rsplit("$", 2)[0]


def test_what_is_no_hash_matches_nothing() -> None:
    for broken in ("", "plain text", "$argon2id$v=19$m=19456,t=2,p=1$x$y", "$2b$12$abcdefghijklmnopqrstuv"):
        assert not passwords.verify(broken, "plain text")


def test_old_parameters_are_noticed() -> None:
    assert not passwords.is_outdated(passwords.hash_("a fine phrase"))
    assert passwords.is_outdated(PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("a fine phrase"))
