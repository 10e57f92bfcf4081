"""What every route declares: read off the application, so that none can be forgotten."""

from __future__ import annotations

from typing import Literal, NamedTuple

from litestar import Litestar
from litestar.routes import HTTPRoute

from counterfoil.accounts.access import SIGNED_IN
from counterfoil.accounts.permissions import PERMISSIONS
from counterfoil.http.access import PUBLIC

CUSTOMER = "{customer_id"
_DESCRIBING = {"HEAD", "OPTIONS"}


class UndeclaredRoute(RuntimeError):
    """A route without a permission, or with one that does not exist: the program refuses to start."""


class Declared(NamedTuple):
    """One route, and who may call it."""

    method: str
    path: str
    permission: str
    reach: Literal["anybody", "oneself", "customer", "tenant"]
    """Where the permission must be held."""


def declared_routes(app: Litestar) -> list[Declared]:
    """Every route by path and method. Raises UndeclaredRoute."""
    found = []
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                methods = sorted(handler.http_methods - _DESCRIBING)
                permission = str(handler.opt.get("access"))
                if methods and permission not in PERMISSIONS and permission not in {PUBLIC, SIGNED_IN}:
                    raise UndeclaredRoute(f"{route.path} declares no permission that exists: {permission}")
                reach = _reach(permission, route.path_format)
                found += [Declared(method, route.path_format, permission, reach) for method in methods]
    return sorted(found, key=lambda one: (one.path, one.method))


def _reach(permission: str, path: str) -> Literal["anybody", "oneself", "customer", "tenant"]:
    if permission == PUBLIC:
        return "anybody"
    if permission == SIGNED_IN:
        return "oneself"
    return "customer" if CUSTOMER in path else "tenant"
