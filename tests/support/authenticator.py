"""A security key in software, and the browser it is plugged into.

key = Authenticator()
credential = key.make(options)       # navigator.credentials.create
credential = key.show(options)       # navigator.credentials.get

What they say can be chosen, true or not.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any, Literal

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

ORIGIN = "http://localhost:8787"
RP_ID = "localhost"

UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40

Algorithm = Literal[-7, -8, -257]
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def text_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def bytes_of(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Authenticator:
    """One credential, and how its authenticator behaves."""

    algorithm: Algorithm = -7
    rsa_bits: int = 2048
    counts: bool = True
    """Whether it has a counter; else it says 0."""
    counter: int = 0
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    user_handle: bytes = b""

    def __post_init__(self) -> None:
        self.key: PrivateKey
        match self.algorithm:
            case -7:
                self.key = ec.generate_private_key(ec.SECP256R1())
            case -8:
                self.key = ed25519.Ed25519PrivateKey.generate()
            case -257:
                self.key = rsa.generate_private_key(65537, self.rsa_bits)

    @property
    def id(self) -> str:
        return text_of(self.credential_id)

    def cose(self) -> bytes:
        """The public key (RFC 9052)."""
        match self.key:
            case ec.EllipticCurvePrivateKey():
                at = self.key.public_key().public_numbers()
                key = {1: 2, 3: -7, -1: 1, -2: at.x.to_bytes(32, "big"), -3: at.y.to_bytes(32, "big")}
            case ed25519.Ed25519PrivateKey():
                key = {1: 1, 3: -8, -1: 6, -2: self.key.public_key().public_bytes_raw()}
            case rsa.RSAPrivateKey():
                of = self.key.public_key().public_numbers()
                key = {1: 3, 3: -257, -1: of.n.to_bytes(-(-of.n.bit_length() // 8), "big"), -2: b"\x01\x00\x01"}
        return cbor2.dumps(key)

    def make(
        self,
        options: dict[str, Any],
        *,
        origin: str = ORIGIN,
        rp_id: str = RP_ID,
        flags: int = UP | UV,
        kind: str = "webauthn.create",
        challenge: str | None = None,
        public_key: bytes | None = None,
        more: dict[str, Any] | None = None,
        transports: list[str] | None = None,
    ) -> dict[str, Any]:
        """Make the credential, as the options ask. ``more``: further members of the client data."""
        self.user_handle = bytes_of(options["user"]["id"])
        data = self._authenticator_data(rp_id, flags | AT, self._count())
        data += bytes(16) + len(self.credential_id).to_bytes(2, "big") + self.credential_id
        data += self.cose() if public_key is None else public_key
        client = _client_data(kind, challenge or options["challenge"], origin, more)
        return {
            "id": self.id,
            "rawId": self.id,
            "type": "public-key",
            "authenticatorAttachment": "cross-platform",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": text_of(client),
                "attestationObject": text_of(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})),
                "transports": ["usb", "nfc"] if transports is None else transports,
            },
        }

    def show(
        self,
        options: dict[str, Any],
        *,
        origin: str = ORIGIN,
        rp_id: str = RP_ID,
        flags: int = UP | UV,
        kind: str = "webauthn.get",
        challenge: str | None = None,
        counter: int | None = None,
        user_handle: bytes | None = None,
        more: dict[str, Any] | None = None,
        tamper: bool = False,
    ) -> dict[str, Any]:
        """Sign the challenge."""
        data = self._authenticator_data(rp_id, flags, self._count() if counter is None else counter)
        client = _client_data(kind, challenge or options["challenge"], origin, more)
        signature = bytearray(self._sign(data + hashlib.sha256(client).digest()))
        if tamper:
            signature[-1] ^= 1
        return {
            "id": self.id,
            "rawId": self.id,
            "type": "public-key",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": text_of(client),
                "authenticatorData": text_of(data),
                "signature": text_of(bytes(signature)),
                "userHandle": text_of(self.user_handle if user_handle is None else user_handle),
            },
        }

    def _count(self) -> int:
        if self.counts:
            self.counter += 1
        return self.counter

    def _authenticator_data(self, rp_id: str, flags: int, counter: int) -> bytes:
        return hashlib.sha256(rp_id.encode()).digest() + bytes([flags]) + counter.to_bytes(4, "big")

    def _sign(self, message: bytes) -> bytes:
        match self.key:
            case ec.EllipticCurvePrivateKey():
                return self.key.sign(message, ec.ECDSA(SHA256()))
            case ed25519.Ed25519PrivateKey():
                return self.key.sign(message)
            case rsa.RSAPrivateKey():
                return self.key.sign(message, padding.PKCS1v15(), SHA256())


def _client_data(kind: str, challenge: str, origin: str, more: dict[str, Any] | None) -> bytes:
    said = {"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": False, **(more or {})}
    return json.dumps(said).encode()
