"""The private name of a purchase: what its buyer holds, and nobody else.

A checkout's id is known to the rail that carries it, so the id alone must never show a license key. A
claim is the id with a keyed checksum that only this installation can make; it is not stored, and the
same checkout always has the same claim.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from counterfoil.kernel.ids import is_id
from counterfoil.kernel.secrets import same

_ULID_CHARS = 26


class Claims:
    """Makes and reads claims of one installation."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, tenant: str, checkout_id: str) -> str:
        """The claim on a checkout: ``pur_`` + the id's 26 characters + 26 of checksum (128 bits)."""
        ulid = checkout_id.partition("_")[2]
        return f"pur_{ulid}{self._mac(tenant, checkout_id)}"

    def read(self, tenant: str, claim: str) -> str | None:
        """The checkout's id, or None when the claim is not genuine."""
        prefix, _, rest = claim.partition("_")
        checkout_id = f"chk_{rest[:_ULID_CHARS]}"
        if prefix != "pur" or not is_id("chk", checkout_id):
            return None
        return checkout_id if same(rest[_ULID_CHARS:], self._mac(tenant, checkout_id)) else None

    def _mac(self, tenant: str, checkout_id: str) -> str:
        digest = hmac.digest(self._key, f"{tenant}/{checkout_id}".encode(), hashlib.sha256)
        return base64.b32encode(digest[:16]).decode().rstrip("=").lower()
