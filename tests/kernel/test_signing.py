"""Ed25519, against the test vectors of its standards."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.kernel.signing import SIGNATURE_BYTES, PrivateKey, PublicKey

# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]

# RFC 8410, section 10: one key in both forms.
PRIVATE_PEM = """\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
"""
PUBLIC_PEM = """\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
RFC_8410_SECRET = bytes.fromhex("d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842")

KEY = PrivateKey(bytes(range(32)))


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_the_vectors_of_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    key = PrivateKey(bytes.fromhex(secret))
    assert key.public().to_raw().hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert PublicKey(bytes.fromhex(public)).verify(bytes.fromhex(signature), bytes.fromhex(message))


def test_the_keys_of_rfc_8410() -> None:
    key = PrivateKey(RFC_8410_SECRET)
    assert key.to_pem() == PRIVATE_PEM
    assert key.public().to_pem() == PUBLIC_PEM
    assert PublicKey.from_pem(PUBLIC_PEM).to_raw() == key.public().to_raw()
    assert key.to_raw() == RFC_8410_SECRET


@given(st.binary(max_size=100))
def test_a_signature_verifies_and_repeats(message: bytes) -> None:
    signature = KEY.sign(message)
    assert len(signature) == SIGNATURE_BYTES
    assert KEY.sign(message) == signature
    assert KEY.public().verify(signature, message) is True


def test_nothing_else_verifies() -> None:
    message = b"message"
    signature = KEY.sign(message)
    public = KEY.public()
    for place in range(len(signature)):
        altered = bytearray(signature)
        altered[place] ^= 1
        assert public.verify(bytes(altered), message) is False
    for other in (b"", signature[:-1], signature + b"\0", bytes(64)):
        assert public.verify(other, message) is False
    assert public.verify(signature, b"Message") is False
    assert public.verify(signature, message + b"\0") is False
    assert PrivateKey.generate().public().verify(signature, message) is False


def test_other_pem_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    other_pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(ValueError, match="not an Ed25519 public key"):
        PublicKey.from_pem(other_pem)
    for text in ("", "hello", PRIVATE_PEM, PUBLIC_PEM.replace("MCow", "MCoW")):
        with pytest.raises(ValueError, match=r"."):
            PublicKey.from_pem(text)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_raw_keys_have_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        PublicKey(bytes(length))
    with pytest.raises(ValueError, match="32 bytes"):
        PrivateKey(bytes(length))


def test_a_private_key_does_not_print_itself() -> None:
    assert repr(KEY) == "PrivateKey(...)"
    assert str(KEY) == "PrivateKey(...)"
    assert PrivateKey.generate().to_raw() != PrivateKey.generate().to_raw()
