"""What people type: names, notes and addresses, in any script."""

from __future__ import annotations

import re
import unicodedata

from counterfoil.kernel.errors import Invalid

_EMAIL = re.compile(r"[^\s@<>\"(),:;\\\[\]]{1,64}@[^\s@<>\"(),:;\\\[\]_]{1,255}")
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_BREAKS = {"\n", "\r", "\t"}


def check_line(field: str, value: str, *, most: int, least: int = 0) -> str:
    """One line of text without blanks around it, NFC-normalized. Raises Invalid.

    Letters of any script are welcome; control characters, and those that turn the direction of writing, are not.
    """
    text = unicodedata.normalize("NFC", value).strip()
    if any(_is_unseen(char) for char in text):
        raise Invalid.field(field, "must not contain control characters")
    if not least <= len(text) <= most:
        raise Invalid.field(field, f"must have {least} to {most} characters")
    return text


def clean_line(value: str, *, most: int) -> str:
    """What :func:`check_line` lets through of a text that others vouch for and nobody can correct."""
    text = "".join(char for char in unicodedata.normalize("NFC", value) if not _is_unseen(char))
    return text.strip()[:most].strip()


def check_note(field: str, value: str, *, most: int) -> str:
    """Text of several lines. Raises Invalid."""
    text = unicodedata.normalize("NFC", value).strip()
    if any(_is_unseen(char) and char not in _BREAKS for char in text):
        raise Invalid.field(field, "must not contain control characters")
    if len(text) > most:
        raise Invalid.field(field, f"must have at most {most} characters")
    return text


def _is_unseen(char: str) -> bool:
    # Cc: control; Cs: half a surrogate pair; Zl, Zp: line breaks in disguise; the others turn the direction of
    # writing, with which one name can be made to look like another (Unicode Technical Report 36).
    return (
        unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}
        or char in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    )


def normalize_email(field: str, value: str) -> str:
    """An e-mail address in the form we store and compare: NFC, in lower case. Raises Invalid.

    Whether mail arrives there only a letter can tell.
    """
    text = unicodedata.normalize("NFC", value).strip().lower()
    if len(text) > 254 or not _EMAIL.fullmatch(text) or any(_is_unseen(char) for char in text):
        raise Invalid.field(field, "not an e-mail address")
    domain = text.rpartition("@")[2]
    if domain.startswith((".", "-")) or domain.endswith((".", "-")) or ".." in text:
        raise Invalid.field(field, "not an e-mail address")
    return text


def check_slug(field: str, value: str) -> str:
    """A name for addresses: lower-case letters, digits and inner hyphens, 63 at most. Raises Invalid."""
    if not _SLUG.fullmatch(value):
        raise Invalid.field(field, "1 to 63 lower-case letters, digits and inner hyphens")
    return value


def check_url(field: str, value: str) -> str:
    """An https address, 2,000 characters at most. Raises Invalid."""
    if not re.fullmatch(r"https://[^\s\x00-\x1f\x7f<>\"'\\]{1,1990}", value):
        raise Invalid.field(field, "must be an https address")
    return value
