"""People as OpenID Connect providers know them, and who they are here.

A provider's word counts for the subject it names, always the same one, and for the addresses it says it has
verified. It never opens an account that was there before: whoever owns that links the provider themselves.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import msgspec
import sqlalchemy as sa

from counterfoil.accounts import sign_up, users
from counterfoil.accounts.tables import identities, passkeys, user_emails
from counterfoil.accounts.tables import users as users_table
from counterfoil.accounts.types import ProviderIdentity, User
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, Forbidden, NotFound
from counterfoil.kernel.paging import Page, page_of

_BY_SUBJECT = sa.select(*columns(identities)).where(
    mine(identities),
    identities.c.provider == sa.bindparam("provider"),
    identities.c.subject == sa.bindparam("subject"),
)
_VIA = sa.select(user_emails.c.via).where(
    mine(user_emails), user_emails.c.email == sa.bindparam("email"), user_emails.c.verified_at.is_not(None)
)
_LIST = (
    sa.select(*columns(identities))
    .where(mine(identities), identities.c.user_id == sa.bindparam("user_id"), identities.c.id > sa.bindparam("after"))
    .order_by(identities.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_HOLD_USER = (
    sa.select(users_table.c.password_hash)
    .where(mine(users_table), users_table.c.id == sa.bindparam("user_id"))
    .with_for_update(key_share=True)
)
_PROVIDERS = sa.select(identities.c.id, identities.c.provider).where(
    mine(identities), identities.c.user_id == sa.bindparam("user_id")
)
_PASSKEY = sa.select(passkeys.c.id).where(mine(passkeys), passkeys.c.user_id == sa.bindparam("user_id")).limit(1)
_DELETE = sa.delete(identities).where(
    mine(identities), identities.c.user_id == sa.bindparam("of_user"), identities.c.id == sa.bindparam("identity_id")
)


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider has just proved about somebody."""

    provider: str
    subject: str
    """The provider's own name for them, which never becomes somebody else's."""
    email: str | None
    """Their address, normalized; None unless the provider has verified it."""
    first_name: str
    last_name: str


class ProofNotEnough(Conflict):
    """There is an account with the address that was proved; its owner must link the provider themselves."""

    default_code = "sign_in_to_link"


def enter(tx: Tx, proof: Proof, signed_in: str | None) -> User:
    """Whom a proof lets in, made for it when nobody has its address; ``signed_in`` is whose browser it is already.

    Raises Forbidden (``email_not_verified``, ``user_disabled``); ProofNotEnough; Conflict (``email_taken``)
    when others were faster: the same proof then finds what they made.
    """
    known = _by_subject(tx, proof)
    if known is not None:
        return _active(tx, known.user_id)
    if proof.email is None:
        raise Forbidden(
            "The provider has not verified your e-mail address. Verify it there, or sign in another way.",
            code="email_not_verified",
        )
    owner = users.by_email(tx, proof.email)
    if owner is None:
        return _make(tx, proof, proof.email)
    if owner.status != "active":
        raise _disabled()
    if owner.id != signed_in and not _came_by(tx, proof.email, proof.provider):
        raise ProofNotEnough("There is an account with this address already.")
    link(tx, owner.id, proof)
    return owner


def _make(tx: Tx, proof: Proof, email: str) -> User:
    user = users.create(tx, email=email, first_name=proof.first_name, last_name=proof.last_name, via=proof.provider)
    name = f"{proof.first_name} {proof.last_name}".strip() or email
    sign_up.first_customer(tx, user, kind="person", name=name, email=email)
    link(tx, user.id, proof)
    return user


def _by_subject(tx: Tx, proof: Proof) -> ProviderIdentity | None:
    row = tx.one(_BY_SUBJECT, {"provider": proof.provider, "subject": proof.subject})
    return ProviderIdentity(*row) if row else None


def _came_by(tx: Tx, email: str, provider: str) -> bool:
    row = tx.one(_VIA, {"email": email})
    return row is not None and row.via == provider


def _active(tx: Tx, user_id: str) -> User:
    try:
        user = users.get(tx, user_id)
    except NotFound:  # deleted
        raise _disabled() from None
    if user.status != "active":
        raise _disabled()
    return user


def _disabled() -> Forbidden:
    return Forbidden("This account is disabled.", code="user_disabled")


def link(tx: Tx, user_id: str, proof: Proof) -> None:
    """Let a proof open a user's account from now on; nothing changes when it does so already.

    Raises Conflict (``identity_taken``) when it opens another's.
    """
    identity = ProviderIdentity(
        id=tx.new_id("idn"),
        user_id=user_id,
        provider=proof.provider,
        subject=proof.subject,
        email=proof.email,
        created_at=tx.now,
    )
    if tx.insert_if_new(identities, identity):
        tx.record("identity.linked", "identity", identity.id, user_id=user_id, provider=proof.provider)
        return
    known = _by_subject(tx, proof)
    if known is None or known.user_id != user_id:
        raise Conflict("This opens another account already.", code="identity_taken")


def list_(tx: Tx, user_id: str, *, after: str = "", limit: int = 20) -> Page[ProviderIdentity]:
    """A page of a user's linked providers, oldest first."""
    rows = tx.all(_LIST, {"user_id": user_id, "after": after, "limit": limit + 1})
    return page_of([ProviderIdentity(*row) for row in rows], limit)


def unlink(tx: Tx, user_id: str, identity_id: str, *, providers: AbstractSet[str]) -> None:
    """Let a provider open a user's account no longer; ``providers`` are those that can be used at present.

    Whatever takes away a way to sign in holds the user's row first. Raises NotFound (``identity_not_found``);
    Conflict (``last_sign_in``) when there is no other way in.
    """
    held = tx.one(_HOLD_USER, {"user_id": user_id})
    of_user = {"user_id": user_id}
    linked = {row.id: row.provider for row in tx.all(_PROVIDERS, of_user)}
    if held is None or identity_id not in linked:
        raise NotFound("No such provider is linked.", code="identity_not_found")
    del linked[identity_id]
    if held.password_hash is None and providers.isdisjoint(linked.values()) and tx.one(_PASSKEY, of_user) is None:
        raise Conflict(
            "This is the only way into your account. Set a password or add a passkey first.", code="last_sign_in"
        )
    tx.execute(_DELETE, {"of_user": user_id, "identity_id": identity_id})
    tx.record("identity.unlinked", "identity", identity_id, user_id=user_id)
