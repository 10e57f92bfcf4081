"""The letter that invites a member."""

from __future__ import annotations

from counterfoil.accounts.access import Identity
from counterfoil.accounts.invitations import Letter
from counterfoil.house import House
from counterfoil.kernel.secrets import new_secret

_TOKEN_BYTES = 20


async def new_letter(house: House, inviter: Identity) -> Letter:
    """A fresh secret, and the page it opens at the inviter's tenant."""
    token = new_secret(_TOKEN_BYTES)
    link = f"{await house.base_url(inviter.tenant)}/invitations/{token}"
    return Letter(token=token, link=link, inviter=inviter.name or "Somebody")
