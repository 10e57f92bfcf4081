"""The pages about accounts: signing up, in and out, and what is one's own.

Each module holds the handlers of one subject in a list; this is where they come together.
"""

from __future__ import annotations

from litestar import Router
from litestar.types import ControllerRouterHandler

from counterfoil.web.accounts import members, oidc, own, passkeys, signing, unsubscribing
from counterfoil.web.accounts.parts import account_error

_HANDLERS: list[ControllerRouterHandler] = [
    *signing.HANDLERS,
    *own.HANDLERS,
    *unsubscribing.HANDLERS,
    *members.HANDLERS,
    *oidc.HANDLERS,
    *passkeys.HANDLERS,
]

account_pages = Router(path="/", exception_handlers={Exception: account_error}, route_handlers=_HANDLERS)
