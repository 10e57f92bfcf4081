"""Ed25519 signatures (RFC 8032), and keys in the PEM forms other programs read (RFC 8410)."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

SIGNATURE_BYTES = 64


class PublicKey:
    """Checks signatures."""

    __slots__ = ("_key",)

    def __init__(self, raw: bytes) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(raw)

    @classmethod
    def from_pem(cls, pem: str) -> PublicKey:
        """Read ``BEGIN PUBLIC KEY``. Raises ValueError when it is not an Ed25519 key."""
        key = load_pem_public_key(pem.encode())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("not an Ed25519 public key")
        return cls(key.public_bytes_raw())

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` is this key's over ``message``."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def to_pem(self) -> str:
        """SubjectPublicKeyInfo in PEM."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def to_raw(self) -> bytes:
        """The bare 32 bytes."""
        return self._key.public_bytes_raw()


class PrivateKey:
    """Makes signatures."""

    __slots__ = ("_key",)

    def __init__(self, raw: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(raw)

    @classmethod
    def generate(cls) -> PrivateKey:
        """A fresh random key."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    def __repr__(self) -> str:
        return "PrivateKey(...)"

    def sign(self, message: bytes) -> bytes:
        """Sixty-four bytes; the same message always gives the same signature."""
        return self._key.sign(message)

    def public(self) -> PublicKey:
        """The key that checks what this one signs."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    def to_raw(self) -> bytes:
        """The bare 32 bytes: seal before storing."""
        return self._key.private_bytes_raw()

    def to_pem(self) -> str:
        """PKCS#8 in PEM, unencrypted: for a deliberate export only."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
