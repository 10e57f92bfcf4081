"""A tenant's signing keys, opened: signs and checks license keys without a database."""

from __future__ import annotations

import contextlib
import uuid
from collections import OrderedDict

from counterfoil.kernel.clock import to_seconds
from counterfoil.kernel.ids import to_uuid
from counterfoil.kernel.secrets import MasterKey, SealBroken
from counterfoil.kernel.signing import PrivateKey, PublicKey
from counterfoil.licensing import keys
from counterfoil.licensing.signing_keys import context
from counterfoil.licensing.types import License, SigningKey

_REMEMBERED = 10_000


class BadLicenseSignature(ValueError):
    """The key is well formed, but none of the tenant's keys signed it."""


class Keyring:
    """Every key of one tenant that may still verify.

    Signatures that were found good are remembered (bounded, by the key's whole text): the same text
    under the same keys cannot become bad, and a client validates the same key again and again.
    """

    def __init__(self, tenant: str, rows: list[SigningKey], master: MasterKey) -> None:
        self._tenant = tenant
        self._master = master
        self._rows = {row.id: row for row in rows}
        self._verifiers = [PublicKey(row.public_key) for row in rows if row.status != "retired"]
        self._signers: dict[str, PrivateKey] = {}
        self._good: OrderedDict[str, uuid.UUID] = OrderedDict()

    @property
    def active(self) -> SigningKey:
        """The key that signs now."""
        return next(row for row in self._rows.values() if row.status == "active")

    def public(self) -> PublicKey:
        """The key that what is signed now verifies with."""
        return PublicKey(self.active.public_key)

    @property
    def retired(self) -> set[str]:
        """The keys that sign nothing that is good today."""
        return {row.id for row in self._rows.values() if row.status == "retired"}

    def signer(self) -> tuple[str, PrivateKey] | None:
        """The key that signs now, and its id; None for a tenant without one."""
        active = next((row.id for row in self._rows.values() if row.status == "active"), None)
        return (active, self._signer(active)) if active is not None else None

    def proven(self) -> dict[str, PublicKey]:
        """Every key, retired ones too, that the master key vouches for.

        Made from the sealed private halves: whoever can write to the database can add a public key, but cannot seal.
        """
        found = {}
        for key_id in self._rows:
            with contextlib.suppress(SealBroken):
                found[key_id] = self._signer(key_id).public()
        return found

    def knows(self, key_id: str) -> bool:
        """Whether the key is among these."""
        return key_id in self._rows

    def license_id(self, text: str) -> uuid.UUID:
        """The license a key names, once its signature is checked.

        Raises keys.BadKey, BadLicenseSignature.
        """
        known = self._good.get(text)
        if known is not None:
            return known
        parsed = keys.parse(text)
        if not any(verifier.verify(parsed.signature, parsed.signed) for verifier in self._verifiers):
            raise BadLicenseSignature("not signed by this seller")
        self._good[text] = parsed.payload.license_id
        if len(self._good) > _REMEMBERED:
            self._good.popitem(last=False)
        return parsed.payload.license_id

    def key_of(self, license_: License) -> str:
        """The key of a license: derived from its row, so always the same until the row's terms change."""
        payload = keys.Payload(
            product_id=to_uuid(license_.product_id),
            license_id=to_uuid(license_.id),
            issued_at=to_seconds(license_.issued_at),
            expires_at=to_seconds(license_.expires_at) if license_.expires_at else 0,
            is_trial=license_.is_trial,
            entitlements=tuple(license_.entitlements),
        )
        return keys.sign(payload, self._signer(license_.signing_key_id))

    def _signer(self, key_id: str) -> PrivateKey:
        signer = self._signers.get(key_id)
        if signer is None:
            sealed = self._rows[key_id].private_key_sealed
            signer = PrivateKey(self._master.open(sealed, context(self._tenant, key_id)))
            self._signers[key_id] = signer
        return signer
