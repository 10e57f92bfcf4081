"""Signatures that receivers check: Standard Webhooks 1.0 (standardwebhooks.com), symmetric and asymmetric.

What is signed is ``{id}.{timestamp}.{body}``. ``v1`` is HMAC-SHA256 with the endpoint's secret, ``v1a`` is Ed25519
with its signing key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from datetime import datetime
from typing import NamedTuple

from counterfoil.kernel.clock import to_seconds
from counterfoil.kernel.signing import PrivateKey, PublicKey

_SECRET, _PUBLIC = "whsec_", "whpk_"
_SECRET_BYTES = 32


class Keys(NamedTuple):
    """What an endpoint's news is signed with now."""

    secrets: list[str]
    """The secret, and while it is being replaced the one before."""
    signing_key: PrivateKey


def new_secret() -> str:
    """A fresh secret, as receivers know it."""
    return _SECRET + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def public_text(key: PublicKey) -> str:
    """A public key, as receivers know it."""
    return _PUBLIC + base64.b64encode(key.to_raw()).decode()


def headers(message_id: str, at: datetime, body: bytes, keys: Keys) -> dict[str, str]:
    """The three headers of a message that is sent at this moment."""
    timestamp = str(to_seconds(at))
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [
        *[f"v1,{_text(hmac.digest(_raw(secret), signed, hashlib.sha256))}" for secret in keys.secrets],
        f"v1a,{_text(keys.signing_key.sign(signed))}",
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }


def _raw(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(_SECRET))


def _text(signature: bytes) -> str:
    return base64.b64encode(signature).decode()
