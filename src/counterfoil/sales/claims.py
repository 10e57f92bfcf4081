"""The private name of a purchase, or of a quote: what its buyer holds, and nobody else.

A checkout's id is known to the rail that carries it, and ids that one transaction makes follow one another; so an id
alone must never show a license key, or what somebody was quoted. A claim is the id with a keyed checksum
that only this installation can make; it is not stored, and the same checkout always has the same claim.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from counterfoil.kernel.ids import is_id
from counterfoil.kernel.secrets import same

_ULID_CHARS = 26
_PREFIXES = {"chk": "pur", "crt": "qte"}


class Claims:
    """Makes and reads claims of one installation."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, tenant: str, id_: str) -> str:
        """The claim on a checkout or a cart: ``pur_`` or ``qte_``, the id's 26 characters, 26 of checksum."""
        kind, _, ulid = id_.partition("_")
        return f"{_PREFIXES[kind]}_{ulid}{self._mac(tenant, id_)}"

    def read(self, tenant: str, claim: str) -> str | None:
        """The checkout's id, or None when the claim is not genuine."""
        return self._read(tenant, claim, "chk")

    def read_cart(self, tenant: str, claim: str) -> str | None:
        """The cart's id, or None when the claim is not genuine."""
        return self._read(tenant, claim, "crt")

    def _read(self, tenant: str, claim: str, kind: str) -> str | None:
        prefix, _, rest = claim.partition("_")
        id_ = f"{kind}_{rest[:_ULID_CHARS]}"
        if prefix != _PREFIXES[kind] or not is_id(kind, id_):
            return None
        return id_ if same(rest[_ULID_CHARS:], self._mac(tenant, id_)) else None

    def _mac(self, tenant: str, id_: str) -> str:
        digest = hmac.digest(self._key, f"{tenant}/{id_}".encode(), hashlib.sha256)
        return base64.b32encode(digest[:16]).decode().rstrip("=").lower()
