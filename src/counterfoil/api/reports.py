"""Reports over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from litestar import Router, get
from litestar.params import QueryParameter

from counterfoil.api.catalog import After, Limit
from counterfoil.http.access import Asker, scope_of
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.settlement import reports
from counterfoil.settlement.reports import DiscountRevenue

From = Annotated[datetime | None, QueryParameter(name="from", description="Orders made at this moment or later.")]
To = Annotated[datetime | None, QueryParameter(name="to", description="Orders made before this moment.")]


@get("/v1/reports/margins", **route("orders:read"))
async def report_margins(
    request: Asker, since: From = None, until: To = None, after: After = None, limit: Limit = DEFAULT_LIMIT
) -> Page[DiscountRevenue]:
    """Revenue by discount and asset: codes, what applies by itself, and the margins of customers who sell on."""
    return await scope_of(request).read(reports.margins, since=since, until=until, after=after, limit=limit)


reports_router = Router(path="/", tags=["Reports"], route_handlers=[report_margins])
