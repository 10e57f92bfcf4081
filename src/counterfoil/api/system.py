"""Health, metrics and the record over HTTP."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from litestar import MediaType, Response, Router, get
from litestar.params import FromQuery, QueryParameter
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from counterfoil import __version__
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.api.catalog import After, Limit, start
from counterfoil.db.base import DatabaseUnavailable
from counterfoil.db.tx import Tx
from counterfoil.events import reading
from counterfoil.events.reading import Filter, Order
from counterfoil.events.types import Event
from counterfoil.house import House
from counterfoil.http.access import PUBLIC, Asker, house_of, scope_of
from counterfoil.http.metrics import Metrics
from counterfoil.http.problems import route
from counterfoil.jobs import runner
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.webhooks import deliveries

EventType = Annotated[str | None, QueryParameter(name="type", description="For example `order.created`.")]
Since = Annotated[datetime | None, QueryParameter(description="At this moment or later.")]
Until = Annotated[datetime | None, QueryParameter(description="Before this moment.")]

_OVERDUE = timedelta(minutes=5)


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that must work."""

    status: Literal["ok", "failing", "warning"]
    detail: str = ""


class Health(msgspec.Struct, frozen=True):
    """Whether this server can do its work, and what is wrong if not."""

    status: Literal["ok", "degraded", "failing"]
    version: str
    checks: dict[str, Check]


def _check_jobs(tx: Tx) -> Check:
    late = runner.overdue(tx, by=_OVERDUE)
    if late is None:
        return Check("warning", "no jobs have run yet: COUNTERFOIL_JOBS is off and there is no worker")
    if late:
        return Check("warning", f"not run for 5 minutes: {', '.join(late)}")
    failed = runner.failing(tx)
    if failed:  # with what is for the log: anybody may read this
        return Check("warning", f"failed when last run: {', '.join(failed)}")
    return Check("ok")


@get("/health", **route("public", 503))
async def health(request: Asker) -> Response[Health]:
    """Say how we are: 200 while requests can be served, 503 when not."""
    checks: dict[str, Check] = {}
    try:
        checks["jobs"] = await house_of(request).scope(DEFAULT_TENANT).read(_check_jobs)
        checks["database"] = Check("ok")
    except DatabaseUnavailable as error:
        checks["database"] = Check("failing", error.detail)
    kinds = {check.status for check in checks.values()}
    status: Literal["ok", "degraded", "failing"] = (
        "failing" if "failing" in kinds else "degraded" if "warning" in kinds else "ok"
    )
    return Response(Health(status, __version__, checks), status_code=503 if status == "failing" else 200)


@get("/metrics", media_type=MediaType.TEXT, include_in_schema=False, **route("public"))
async def metrics(request: Asker) -> Response[bytes]:
    """Metrics in Prometheus's text format."""
    kept: Metrics = request.app.state.metrics
    kept.show_webhooks(*await _webhooks(house_of(request)))
    return Response(generate_latest(kept.registry), media_type=CONTENT_TYPE_LATEST)


async def _webhooks(house: House) -> tuple[dict[str, int], float]:
    """How many webhooks stand how, of all tenants, and how many seconds ago the oldest was queued that is not over."""
    counts = dict.fromkeys(("pending", "processing", "failed"), 0)
    age = 0.0
    with contextlib.suppress(DatabaseUnavailable):  # whoever asks hears that from /health
        for tenant in await house.tenants():
            depth = await house.scope(tenant).read(deliveries.depth)
            counts = {status: count + depth.counts.get(status, 0) for status, count in counts.items()}
            if depth.oldest is not None:
                age = max(age, (house.database.clock.now() - depth.oldest).total_seconds())
    return counts, age


@get("/v1/openapi.json", media_type=MediaType.JSON, include_in_schema=False, **route(PUBLIC))
async def openapi(request: Asker) -> dict[str, Any]:
    """This API's own description (OpenAPI 3.1)."""
    return request.app.openapi_schema.to_schema()


@get("/v1/events", **route("events:read"))
async def list_events(
    request: Asker,
    event_type: EventType = None,
    object_id: FromQuery[str | None] = None,
    customer_id: FromQuery[str | None] = None,
    actor_id: FromQuery[str | None] = None,
    since: Since = None,
    until: Until = None,
    order: FromQuery[Order] = "asc",
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[Event]:
    """The record, oldest first, or newest first with `order=desc`; all of it, or what every filter is true of.

    With several filters a page may be short, and have a `next` all the same.
    """
    only = Filter(
        type=event_type,
        object_id=object_id,
        customer_id=customer_id,
        actor_id=actor_id,
        since=since,
        until=until,
    )
    return await scope_of(request).read(reading.list_, only=only, order=order, after=start(after), limit=limit)


system = Router(path="/", tags=["System"], route_handlers=[health, metrics, openapi, list_events])
