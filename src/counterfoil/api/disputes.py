"""Disputes over HTTP: buyers who ask their banks for the money back."""

from __future__ import annotations

from litestar import Router, get
from litestar.params import FromPath, FromQuery

from counterfoil.api.catalog import After, Limit, start
from counterfoil.http.access import Asker, scope_of
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.sales import disputes
from counterfoil.sales.types import Dispute, DisputeStatus


@get("/v1/disputes", **route("payments:read"))
async def list_disputes(
    request: Asker,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    status: FromQuery[DisputeStatus | None] = None,
) -> Page[Dispute]:
    """Disputes, oldest first."""
    return await scope_of(request).read(disputes.list_, status=status, after=start(after), limit=limit)


@get("/v1/disputes/{dispute_id:str}", **route("payments:read", 404))
async def get_dispute(request: Asker, dispute_id: FromPath[str]) -> Dispute:
    """One dispute: what it is about, how it stands, and until when the bank wants evidence."""
    return await scope_of(request).read(disputes.get, dispute_id)


disputes_router = Router(path="/", tags=["Disputes"], route_handlers=[list_disputes, get_dispute])
