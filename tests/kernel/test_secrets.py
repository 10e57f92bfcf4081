"""Secrets: sealed, bound to their place, derived apart, compared safely."""

from __future__ import annotations

import hashlib
import hmac
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.kernel.secrets import (
    MasterKey,
    SealBroken,
    fingerprint,
    hmac_sha256,
    new_secret,
    same,
)

RAW = bytes(range(32))
MASTER = MasterKey(RAW)


@given(st.binary(max_size=200), st.text(max_size=50))
def test_what_is_sealed_opens(plain: bytes, context: str) -> None:
    assert MASTER.open(MASTER.seal(plain, context), context) == plain


def test_another_installation_of_the_same_key_opens_it() -> None:
    assert MasterKey(RAW).open(MASTER.seal(b"secret", "here"), "here") == b"secret"


def test_sealing_twice_gives_two_texts_and_shows_neither() -> None:
    first, second = MASTER.seal(b"secret", "here"), MASTER.seal(b"secret", "here")
    assert first != second
    assert b"secret" not in first
    assert len(first) == 1 + 12 + len(b"secret") + 16


def test_a_sealed_value_opens_only_in_its_place() -> None:
    sealed = MASTER.seal(b"secret", "signing_key/ten_1/sgk_1")
    for elsewhere in ("signing_key/ten_2/sgk_1", "signing_key/ten_1/sgk_2", ""):
        with pytest.raises(SealBroken):
            MASTER.open(sealed, elsewhere)


def test_a_sealed_value_opens_only_under_its_key() -> None:
    with pytest.raises(SealBroken):
        MasterKey(bytes(32)).open(MASTER.seal(b"secret", "here"), "here")


def test_a_sealed_value_that_was_altered_does_not_open() -> None:
    sealed = MASTER.seal(b"secret", "here")
    for place in range(len(sealed)):
        for bit in range(8):
            altered = bytearray(sealed)
            altered[place] ^= 1 << bit
            with pytest.raises(SealBroken):
                MASTER.open(bytes(altered), "here")


def test_a_sealed_value_that_was_cut_or_grew_does_not_open() -> None:
    sealed = MASTER.seal(b"secret", "here")
    for altered in [*(sealed[:length] for length in range(len(sealed))), sealed + b"\0"]:
        with pytest.raises(SealBroken):
            MASTER.open(altered, "here")


def test_derived_keys_are_those_of_rfc_5869() -> None:
    extracted = hmac.digest(bytes(32), RAW, "sha256")
    expected = hmac.digest(extracted, b"counterfoil/sessions\x01", "sha256")
    assert MASTER.derive("sessions") == expected
    assert MASTER.derive("links") != expected
    assert MasterKey(bytes(32)).derive("sessions") != expected


def test_text_form() -> None:
    assert MASTER.to_text() == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    assert MasterKey.from_text(f" {MASTER.to_text()}\n").to_text() == MASTER.to_text()
    assert MasterKey.generate().to_text() != MasterKey.generate().to_text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==",  # 31 bytes
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g",  # 33 bytes
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",  # no padding
        "AAECAwQFBgcICQoLDA0ODxAR EhMUFRYXGBkaGxwdHh8=",
        "clé",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"master key|ASCII"):
        MasterKey.from_text(text)


def test_a_master_key_does_not_print_itself() -> None:
    assert repr(MASTER) == "MasterKey(...)"
    assert str(MASTER) == "MasterKey(...)"


def test_new_secrets() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"[a-z2-7]{32}", secret) for secret in made)
    assert len(new_secret(32)) == 52


@pytest.mark.parametrize(
    ("left", "right", "answer"),
    [
        ("secret", "secret", True),
        ("secret", b"secret", True),
        ("clé", "clé", True),
        ("", "", True),
        ("secret", "Secret", False),
        ("secret", "secret ", False),
        ("secret", "", False),
    ],
)
def test_same(left: str | bytes, right: str | bytes, answer: bool) -> None:
    assert same(left, right) is answer


def test_fingerprint() -> None:
    assert fingerprint("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert fingerprint("clé") == hashlib.sha256(b"cl\xc3\xa9").hexdigest()


def test_hmac_is_that_of_rfc_4231() -> None:
    assert hmac_sha256(b"Jefe", b"what do ya want for nothing?") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
