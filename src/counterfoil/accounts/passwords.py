"""Passwords: which are good enough, and how they are kept (Argon2id). Pure but for the salts.

Hashing takes tens of milliseconds and 19 MiB on purpose: it belongs in a thread, and never inside a transaction.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Iterable

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from counterfoil.kernel.errors import Invalid

LEAST, MOST = 10, 256
"""How many characters a password has."""
MEMORY_KIB, PASSES, LANES = 19_456, 2, 1
"""OWASP's least for Argon2id (Password Storage Cheat Sheet): more would not fit a small server."""

_LEAST_DIFFERENT = 4
_hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)

# What nobody's password matches, at the price of any other: its tag is not the hash of anything we know.
_NOBODYS = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}$" + "$".join(
    base64.b64encode(bytes(size)).decode().rstrip("=") for size in (16, 32)
)

# The commonest of their length, without the digits and signs that people put around them.
_WORDS = """
    password passwort passw0rd p@ssword p@ssw0rd mypassword passwordpassword qwerty qwertyui qwertyuiop qwertyqwerty
    qwertzuiop azertyuiop asdfghjkl asdfghjklöä zxcvbnm qwertyasdf qazwsx qazwsxedc 1q2w3e4r5t 1qaz2wsx3edc
    q1w2e3r4t5 1q2w3e4r5t6y letmein letmeinplease welcome welcometo iloveyou iloveyouso princess sunshine football
    baseball basketball superman batman starwars michael jennifer dragon monkey shadow master trustno admin
    administrator adminadmin changeme changemeplease changeit default secret topsecret supersecret test testtest
    testtesttest testing guest user username computer internet whatever abcdefghij abcdefghijk abcdefgh abcabcabc
    aaaaaaaaaa correcthorsebatterystaple
"""
_COMMON = frozenset(_WORDS.split())
_DIGITS = "01234567890123456789012345678901234567890"
_AROUND = re.compile(r"^[\W\d_]+|[\W\d_]+$")


def tidy(text: str) -> str:
    """A password in the form we hash: NFC, without blanks around it, so that every keyboard gives the same one."""
    return unicodedata.normalize("NFC", text).strip()


def check(field: str, text: str, about: Iterable[str] = ()) -> str:
    """A new password, tidied. ``about``: its owner's names and addresses. Raises Invalid (``weak_password``)."""
    password = tidy(text)
    if not LEAST <= len(password) <= MOST:
        raise Invalid.field(field, f"must have {LEAST} to {MOST} characters", code="weak_password")
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in password):
        raise Invalid.field(field, "must not contain control characters", code="weak_password")
    plain = "".join(password.casefold().split())
    if len(set(plain)) < _LEAST_DIFFERENT or plain in _DIGITS or plain in _DIGITS[::-1]:
        raise _guessable(field)
    core = _AROUND.sub("", plain)
    if plain in _COMMON or core in _COMMON:
        raise _guessable(field)
    own = _own(about)
    if plain in own or (core and core in own):
        raise Invalid.field(field, "must not be your name or your address", code="weak_password")
    return password


def _guessable(field: str) -> Invalid:
    return Invalid.field(field, "is one of the first that others would guess", code="weak_password")


def _own(about: Iterable[str]) -> set[str]:
    """What is said of somebody: each text, the parts of addresses, and all names in a row, either way round."""
    texts = ["".join(tidy(text).casefold().split()) for text in about if text]
    names = [text for text in texts if "@" not in text]
    parts = [text.partition("@")[0] for text in texts if "@" in text]
    found = {*texts, *parts, "".join(names), "".join(reversed(names))}
    return {form for text in found if text for form in (text, _AROUND.sub("", text)) if form}


def hash_(password: str) -> str:
    """Hash a checked password under a fresh salt. Slow."""
    return _hasher.hash(password)


def verify(stored: str | None, text: str) -> bool:
    """Whether the text is the password behind a hash. Slow, and just as slow where there is none."""
    try:
        return _hasher.verify(stored or _NOBODYS, tidy(text).encode(errors="replace")) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(stored: str) -> bool:
    """Whether a hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(stored)
