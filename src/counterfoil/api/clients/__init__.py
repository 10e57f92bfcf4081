"""The routes that programs with existing license clients call; their shapes and statuses are fixed.

Answers never tell an anonymous caller whose license it is. Refusals that a program handles (expired,
too many machines, ...) are 200 with ``ok: false``; only what no program expects is an error status.
Source: the public API of the Keysat licensing service, as its published clients use it.
"""

from __future__ import annotations

from litestar import Router

from counterfoil.api.clients.licenses import activate, deactivate, heartbeat, issuer_public_key, pubkey, validate
from counterfoil.api.clients.purchases import list_policies, purchase, purchase_status, redeem
from counterfoil.http.problems import handle_for_clients

clients = Router(
    path="/",
    tags=["License clients"],
    exception_handlers={Exception: handle_for_clients},
    route_handlers=[
        pubkey,
        issuer_public_key,
        validate,
        activate,
        heartbeat,
        deactivate,
        list_policies,
        purchase,
        purchase_status,
        redeem,
    ],
)
