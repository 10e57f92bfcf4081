"""Secrets: sealed at rest, derived from one master key, compared in constant time.

Sealing is AES-256-GCM with a random 96-bit nonce; the context (what the secret is and whose) is
authenticated with it, so a sealed value moved to another row does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION = b"\x01"


class SealBroken(Exception):
    """A sealed value does not open: the wrong master key, the wrong context, or it was altered."""


class MasterKey:
    """The one key of an installation. Everything secret is sealed under it or derived from it."""

    __slots__ = ("_aead", "_root")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ValueError(f"a master key has {KEY_BYTES} bytes, this one {len(raw)}")
        self._root = raw
        self._aead = AESGCM(self.derive("seal"))

    @classmethod
    def generate(cls) -> MasterKey:
        """A fresh random key."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def from_text(cls, text: str) -> MasterKey:
        """Read the text form (base 64). Raises ValueError when it is not one."""
        try:
            raw = base64.b64decode(text.strip(), validate=True)
        except binascii.Error as error:
            raise ValueError("a master key is 32 bytes in base 64") from error
        return cls(raw)

    def to_text(self) -> str:
        """The text form, for the key file. Handle it like a password."""
        return base64.b64encode(self._root).decode()

    def __repr__(self) -> str:
        return "MasterKey(...)"

    def derive(self, purpose: str) -> bytes:
        """A 32-byte key for one purpose (HKDF-SHA256, RFC 5869), independent of all others."""
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"counterfoil/{purpose}".encode()).derive(self._root)

    def seal(self, plain: bytes, context: str) -> bytes:
        """Encrypt and authenticate ``plain``, bound to ``context``."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._aead.encrypt(nonce, plain, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Undo :meth:`seal`. Raises SealBroken."""
        if len(sealed) <= 1 + _NONCE_BYTES or sealed[:1] != _VERSION:
            raise SealBroken(context)
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._aead.decrypt(nonce, body, context.encode())
        except InvalidTag as error:
            raise SealBroken(context) from error


def new_secret(size: int = 20) -> str:
    """Random lower-case base 32 text worth ``size`` bytes (a multiple of 5 leaves no padding)."""
    return base64.b32encode(secrets.token_bytes(size)).decode().rstrip("=").lower()


def same(left: str | bytes, right: str | bytes) -> bool:
    """Whether two secrets are equal, in time that does not depend on where they differ."""
    left = left.encode() if isinstance(left, str) else left
    right = right.encode() if isinstance(right, str) else right
    return hmac.compare_digest(left, right)


def fingerprint(text: str) -> str:
    """SHA-256 in hex: for high-entropy secrets we only ever compare, and for machine fingerprints."""
    return hashlib.sha256(text.encode()).hexdigest()


def hmac_sha256(key: bytes, message: bytes) -> str:
    """HMAC-SHA256 in hex (RFC 2104)."""
    return hmac.new(key, message, hashlib.sha256).hexdigest()
