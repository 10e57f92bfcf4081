"""The application: every route, and what surrounds them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from litestar import Litestar, Response, Router
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp

from counterfoil import __version__
from counterfoil.api.api_keys import api_keys_router
from counterfoil.api.carts import carts_router
from counterfoil.api.catalog import catalog
from counterfoil.api.clients import clients
from counterfoil.api.customer_details import customer_details
from counterfoil.api.customer_sales import customer_sales
from counterfoil.api.customer_subscriptions import customer_subscriptions
from counterfoil.api.customers import customers_router
from counterfoil.api.discounts import discounts_router
from counterfoil.api.disputes import disputes_router
from counterfoil.api.fulfillments import fulfillments_router
from counterfoil.api.identities import identities_router
from counterfoil.api.invoices import invoices_router
from counterfoil.api.licenses import licenses_router
from counterfoil.api.me import me_router
from counterfoil.api.members import members_router
from counterfoil.api.orders import orders_router
from counterfoil.api.passkeys import passkeys_router
from counterfoil.api.payments import payments_router
from counterfoil.api.rails import rails
from counterfoil.api.refunds import refunds_router
from counterfoil.api.reports import reports_router
from counterfoil.api.roles import roles_router
from counterfoil.api.sales import sales
from counterfoil.api.sign_in import sign_in_router
from counterfoil.api.staff import staff_router
from counterfoil.api.stock import stock_router
from counterfoil.api.subscriptions import subscriptions_router
from counterfoil.api.sync import sync_router
from counterfoil.api.system import system
from counterfoil.api.tenants import tenants_router
from counterfoil.api.users import users_router
from counterfoil.api.webhooks_out import webhooks_router
from counterfoil.house import House
from counterfoil.http.access import PUBLIC, Asker, Limits, TenantPaths, Trusted, check_access
from counterfoil.http.declared import declared_routes
from counterfoil.http.hashing import Hashing
from counterfoil.http.idempotency import Idempotent, KeyedOperation, begin, repeats_of
from counterfoil.http.logs import Logged
from counterfoil.http.metrics import Measured, Metrics
from counterfoil.http.problems import handle
from counterfoil.http.throttle import Throttle
from counterfoil.kernel.errors import Invalid

API = [
    system,
    catalog,
    discounts_router,
    stock_router,
    carts_router,
    sales,
    payments_router,
    orders_router,
    fulfillments_router,
    clients,
    licenses_router,
    rails,
    sync_router,
    customers_router,
    customer_details,
    customer_sales,
    customer_subscriptions,
    refunds_router,
    reports_router,
    subscriptions_router,
    invoices_router,
    disputes_router,
    identities_router,
    passkeys_router,
    members_router,
    roles_router,
    staff_router,
    api_keys_router,
    tenants_router,
    sign_in_router,
    me_router,
    users_router,
    webhooks_router,
]
"""The API's routes."""

_LARGEST_BODY = 1024 * 1024

_SECURITY = Components(
    security_schemes={
        "key": SecurityScheme(
            type="http", scheme="bearer", bearer_format="cfk_...", description="An API key of the tenant."
        ),
        "session": SecurityScheme(
            type="apiKey", security_scheme_in="cookie", name="cf_session", description="A signed-in browser."
        ),
    }
)


async def refuse_nul(request: Asker) -> None:
    """Refuse NUL in addresses and bodies: no text column can hold it. Raises Invalid."""
    query: bytes = request.scope["query_string"]
    nul_in_body = False
    if request.method in {"POST", "PUT", "PATCH"}:
        body = await request.body()
        nul_in_body = b"\\u0000" in body or b"\x00" in body
    if "\x00" in request.scope["path"] or b"%00" in query or nul_in_body:
        raise Invalid("The NUL character is not allowed anywhere.", code="nul_character")


async def _before(request: Asker) -> Response[None] | None:
    await refuse_nul(request)
    return await begin(request)


def create_app(house: House, extra: Sequence[Router] = (), *, jobs: bool | None = None) -> ASGIApp:
    """The application over an open house. ``jobs`` overrides the setting of the same name."""
    return move_in(build(extra), house, jobs=jobs)


class _Lean(Litestar):
    """Litestar without its plugins for other libraries' models: we have none, and they hold 10 MB where installed."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def build(extra: Sequence[Router] = ()) -> Litestar:
    """Every route, and what surrounds them, for no house yet: nearly all the time that an application takes."""
    app = _Lean(
        route_handlers=[*API, *extra],
        guards=[check_access],
        before_request=_before,
        exception_handlers={Exception: handle},
        middleware=[Logged, Measured, Idempotent],
        request_max_body_size=_LARGEST_BODY,
        lifespan=[_living],
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="Counterfoil",
            version=__version__,
            openapi_router=Router("/v1/openapi", route_handlers=[], opt={"access": PUBLIC}, include_in_schema=False),
            render_plugins=[JsonRenderPlugin(path="/json")],
            components=_SECURITY,
            use_handler_docstrings=True,
        ),
    )
    declared_routes(app)  # a route that declares nothing must not be served
    _describe_keys(app)
    return app


def _describe_keys(app: Litestar) -> None:
    """Say of every route that takes an Idempotency-Key that it does."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if repeats_of(handler) != "ignored":
                    handler.operation_class = KeyedOperation


def move_in(app: Litestar, house: House, *, jobs: bool | None = None) -> ASGIApp:
    """The application over this house, instead of the one it was over before."""
    app.state = State(
        {
            "house": house,
            "jobs": house.settings.jobs if jobs is None else jobs,
            "limits": Limits(house.settings),
            "throttle": Throttle(house.settings),
            "hashing": Hashing(),
            "trusted": Trusted(house.settings),
            "metrics": Metrics(),
        }
    )
    return TenantPaths(app)


@contextlib.asynccontextmanager
async def _living(app: Litestar) -> AsyncIterator[None]:
    house: House = app.state.house
    async with contextlib.AsyncExitStack() as running:
        await running.enter_async_context(house.uses.flushing())
        if app.state.jobs:
            await running.enter_async_context(house.runner().running())
        yield
