"""The license key format ``LIC1-<payload>-<signature>``; pure.

Both parts are RFC 4648 base 32, upper case, unpadded. The signature is Ed25519 over the payload's
bytes. Payload, version 2, integers big-endian:

====== ==== ==========================================================
offset size field
====== ==== ==========================================================
0      1    version = 2
1      1    flags: bit 0 bound to a fingerprint, bit 1 trial
2      16   product id (UUID)
18     16   license id (UUID)
34     8    issued at, seconds since the epoch
42     8    expires at, seconds since the epoch; 0 = never
50     32   SHA-256 of the fingerprint, zeros when unbound
82     1    number of entitlements
83     ...  each: one byte of length, then UTF-8
====== ==== ==========================================================

Version 1 (74 bytes: no expiry, no entitlements) is read, never written. Nothing may follow the last
entitlement. Existing clients read exactly this, so it may not change.
"""

from __future__ import annotations

import base64
import binascii
import uuid

import msgspec

from counterfoil.kernel.signing import SIGNATURE_BYTES, PrivateKey

PREFIX = "LIC1"
FLAG_BOUND = 1
FLAG_TRIAL = 2
_VERSION_1, _VERSION_2 = 1, 2
_V1_BYTES, _V2_HEAD_BYTES = 74, 83
_UNBOUND = bytes(32)
MAX_TEXT = 110_000
"""Longer than any key can be (255 entitlements of 255 bytes)."""


class BadKey(ValueError):
    """The text is not a license key."""


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """What a key says."""

    product_id: uuid.UUID
    license_id: uuid.UUID
    issued_at: int
    expires_at: int = 0
    is_trial: bool = False
    fingerprint_hash: bytes = _UNBOUND
    is_bound: bool = False
    entitlements: tuple[str, ...] = ()


class ParsedKey(msgspec.Struct, frozen=True):
    """A key taken apart, its signature not yet checked."""

    payload: Payload
    signed: bytes
    signature: bytes


def _encode(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    if not text.isascii():
        raise BadKey("not base 32")  # upper() would make ASCII letters of some others
    try:
        data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError) as error:
        raise BadKey("not base 32") from error
    if _encode(data) != text.upper():
        raise BadKey("not the one way to write these bytes")  # else one license would have many keys
    return data


def pack(payload: Payload) -> bytes:
    """The bytes that are signed. Raises ValueError when the entitlements do not fit."""
    if len(payload.entitlements) > 255:
        raise ValueError("at most 255 entitlements")
    flags = (FLAG_TRIAL if payload.is_trial else 0) | (FLAG_BOUND if payload.is_bound else 0)
    parts = [
        bytes((_VERSION_2, flags)),
        payload.product_id.bytes,
        payload.license_id.bytes,
        payload.issued_at.to_bytes(8, "big"),
        payload.expires_at.to_bytes(8, "big"),
        payload.fingerprint_hash,
        bytes((len(payload.entitlements),)),
    ]
    for name in payload.entitlements:
        encoded = name.encode()
        if len(encoded) > 255:
            raise ValueError("an entitlement has at most 255 bytes")
        parts.append(bytes((len(encoded),)) + encoded)
    return b"".join(parts)


def sign(payload: Payload, key: PrivateKey) -> str:
    """The key for a payload: always the same text for the same payload and signing key."""
    signed = pack(payload)
    return f"{PREFIX}-{_encode(signed)}-{_encode(key.sign(signed))}"


def parse(text: str) -> ParsedKey:
    """Take a key apart. Blanks around it and lower case after the prefix are fine. Raises BadKey.

    The signature is not checked: ``PublicKey.verify(parsed.signature, parsed.signed)`` does that.
    """
    if len(text) > MAX_TEXT:
        raise BadKey("too long")
    parts = text.strip().split("-")
    if len(parts) != 3 or parts[0] != PREFIX:
        raise BadKey("not LIC1-<payload>-<signature>")
    signed, signature = _decode(parts[1]), _decode(parts[2])
    if len(signature) != SIGNATURE_BYTES:
        raise BadKey("the signature has the wrong length")
    return ParsedKey(_unpack(signed), signed, signature)


def _unpack(data: bytes) -> Payload:
    entitlements: tuple[str, ...]
    if data[:1] == bytes((_VERSION_1,)) and len(data) == _V1_BYTES:
        expires_at, bound, entitlements = 0, data[42:74], ()
    elif data[:1] == bytes((_VERSION_2,)) and len(data) >= _V2_HEAD_BYTES:
        expires_at, bound, entitlements = int.from_bytes(data[42:50], "big"), data[50:82], _entitlements(data)
    else:
        raise BadKey("unknown version or length")
    return Payload(
        product_id=uuid.UUID(bytes=data[2:18]),
        license_id=uuid.UUID(bytes=data[18:34]),
        issued_at=int.from_bytes(data[34:42], "big"),
        expires_at=expires_at,
        is_trial=bool(data[1] & FLAG_TRIAL),
        fingerprint_hash=bound,
        is_bound=bool(data[1] & FLAG_BOUND),
        entitlements=entitlements,
    )


def _entitlements(data: bytes) -> tuple[str, ...]:
    found: list[str] = []
    at = _V2_HEAD_BYTES
    for _ in range(data[_V2_HEAD_BYTES - 1]):
        if at >= len(data):
            raise BadKey("an entitlement is cut off")
        end = at + 1 + data[at]
        if end > len(data):
            raise BadKey("an entitlement is cut off")
        try:
            found.append(data[at + 1 : end].decode())
        except UnicodeDecodeError as error:
            raise BadKey("an entitlement is not UTF-8") from error
        at = end
    if at != len(data):
        raise BadKey("something follows the last entitlement")
    return tuple(found)
