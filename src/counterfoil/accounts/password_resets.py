"""A new password for whoever lost theirs: by a letter to a verified address, once, within an hour."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from counterfoil.accounts import emails, one_time_tokens, sessions, users
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.secrets import MasterKey
from counterfoil.mail import outgoing

LASTS = timedelta(hours=1)
_PURPOSE = "reset_password"
_NOBODYS = "reset_password.nobody"


class Reset(msgspec.Struct, frozen=True):
    """Whose password a link resets."""

    user_id: str
    email: str
    """Where the letter went."""
    about: list[str]
    """What the new password must not be: names and addresses."""


def start(tx: Tx, master: MasterKey, address: str, *, token: str, base: str) -> None:
    """Send a link to an address, if it is a user's. Earlier links become worth nothing.

    ``token`` is the link's secret, ``base`` where the tenant's pages are. Whether there is such a user shows
    neither in the answer nor in how much there is to write.
    """
    user = users.by_email(tx, address)
    if user is None or user.status != "active":
        one_time_tokens.create(tx, _NOBODYS, token, lasts=LASTS, details={})
        return
    one_time_tokens.void(tx, _PURPOSE, user.id)
    details = {"user_id": user.id, "email": address}
    one_time_tokens.create(tx, _PURPOSE, token, lasts=LASTS, details=details, user_id=user.id)
    tx.record("user.reset_requested", "user", user.id)
    context = {"link": f"{base}/reset?token={token}", "expires": "in one hour"}
    outgoing.queue(tx, master, address, "reset_password", context)


def read(tx: Tx, token: str) -> Reset:
    """Whose password a link resets, without using it. Raises Invalid (``bad_token``)."""
    found = one_time_tokens.look(tx, _PURPOSE, token)
    if found is None:
        raise one_time_tokens.bad_token()
    details, _ = found
    try:
        user = users.get(tx, details["user_id"])
    except NotFound:
        raise one_time_tokens.bad_token() from None
    if user.status != "active":
        raise one_time_tokens.bad_token()
    return Reset(user.id, details["email"], about(tx, user.id))


def about(tx: Tx, user_id: str) -> list[str]:
    """A user's names and addresses, which are no passwords. Raises NotFound."""
    user = users.get(tx, user_id)
    names = [user.first_name, user.last_name, user.username or ""]
    return [*names, *(one.email for one in emails.list_(tx, user_id))]


def finish(tx: Tx, master: MasterKey, token: str, password_hash: str) -> str:
    """Use a link up: set the new password and end every session; whose it is.

    Raises Invalid (``bad_token``).
    """
    user_id = read(tx, token).user_id
    if one_time_tokens.spend(tx, _PURPOSE, token) is None:  # a moment ago
        raise one_time_tokens.bad_token()
    set_password(tx, master, user_id, password_hash)
    return user_id


def set_password(tx: Tx, master: MasterKey, user_id: str, password_hash: str, *, but: str = "") -> None:
    """Give a user a new password, end their sessions except ``but``, and tell them. Raises NotFound."""
    users.set_password(tx, user_id, password_hash)
    one_time_tokens.void(tx, _PURPOSE, user_id)
    sessions.revoke_all(tx, user_id, but=but)
    address = emails.primary_of(tx, user_id)
    if address is not None:
        outgoing.queue(tx, master, address, "password_changed", {})
