"""The links in letters that end one kind of letter, without signing in (RFC 8058)."""

from __future__ import annotations

from counterfoil.accounts import preferences
from counterfoil.accounts.preferences import Unsubscribing
from counterfoil.accounts.types import EmailType
from counterfoil.house import House
from counterfoil.kernel.errors import NotFound


async def unsubscribe_url(house: House, tenant: str, user_id: str, email_type: EmailType) -> str:
    """What a letter of this type to this user has as its ``unsubscribe_url``. It works for ever."""
    token = preferences.make_token(house.master.derive("unsubscribe"), tenant, user_id, email_type)
    return f"{await house.base_url(tenant)}/unsubscribe/{token}"


def read_link(house: House, tenant: str, token: str) -> Unsubscribing:
    """Whom a link unsubscribes, and from what. Raises NotFound (``unsubscribe_link_not_found``)."""
    found = preferences.read_token(house.master.derive("unsubscribe"), tenant, token)
    if found is None:
        raise NotFound("This link is not whole. Open it once more from the letter.", code="unsubscribe_link_not_found")
    return found
