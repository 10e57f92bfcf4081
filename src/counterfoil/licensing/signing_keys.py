"""Operations on a tenant's license signing keys.

One key is active and signs. Keys that signed before stay as ``verify_only``, so that what they signed
keeps verifying; ``retired`` ones verify nothing any more.
"""

from __future__ import annotations

import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.secrets import MasterKey
from counterfoil.kernel.signing import PrivateKey
from counterfoil.licensing.tables import signing_keys
from counterfoil.licensing.types import SigningKey

_ALL = sa.select(*columns(signing_keys)).where(mine(signing_keys)).order_by(signing_keys.c.id)
_STEP_DOWN = (
    sa.update(signing_keys)
    .where(mine(signing_keys), signing_keys.c.status == "active")
    .values(status="verify_only", updated_at=sa.bindparam("now"))
)


def context(tenant: str, key_id: str) -> str:
    """What a sealed private key is bound to."""
    return f"signing_key/{tenant}/{key_id}"


def everyone(tx: Tx) -> list[SigningKey]:
    """Every key of the tenant, oldest first."""
    return [SigningKey(*row) for row in tx.all(_ALL)]


def create_first(tx: Tx, master: MasterKey, fresh: PrivateKey) -> bool:
    """Make the tenant's first key from ``fresh``, unless it has an active one. Whether it was made."""
    made = _add(tx, master, fresh)
    return made is not None


def rotate(tx: Tx, master: MasterKey, fresh: PrivateKey) -> SigningKey:
    """Sign with ``fresh`` from now on; what the old key signed still verifies."""
    tx.execute(_STEP_DOWN, {"now": tx.now})
    made = _add(tx, master, fresh)
    assert made is not None
    return made


def _add(tx: Tx, master: MasterKey, fresh: PrivateKey) -> SigningKey | None:
    key_id = tx.new_id("sgk")
    key = SigningKey(
        id=key_id,
        algorithm="ed25519",
        public_key=fresh.public().to_raw(),
        private_key_sealed=master.seal(fresh.to_raw(), context(tx.tenant, key_id)),
        status="active",
        created_at=tx.now,
        updated_at=tx.now,
    )
    if not tx.insert_if_new(signing_keys, key):
        return None
    tx.record("signing_key.created", "signing_key", key.id)
    return key
