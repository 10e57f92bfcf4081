"""The letter that invites a member."""

from __future__ import annotations

from counterfoil.accounts.access import Identity
from counterfoil.accounts.invitations import Letter
from counterfoil.house import House
from counterfoil.kernel.secrets import new_secret

_TOKEN_BYTES = 20


async def new_letter(house: House, inviter: Identity) -> Letter:
    """A fresh secret, and the page it opens at the inviter's tenant."""
    return await new_letter_from(house, inviter.tenant, inviter.name or "Somebody")


async def new_letter_from(house: House, tenant: str, inviter: str) -> Letter:
    """The same in anybody's name."""
    token = new_secret(_TOKEN_BYTES)
    return Letter(token=token, link=f"{await house.base_url(tenant)}/invitations/{token}", inviter=inviter)
