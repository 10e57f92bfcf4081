"""Invoices over HTTP: the bills of rails, as their rails have them."""

from __future__ import annotations

from typing import Annotated

from litestar import Router, get
from litestar.params import FromPath, FromQuery, QueryParameter

from counterfoil.api.catalog import After, Limit, start
from counterfoil.http.access import Asker, scope_of
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.sales import invoices
from counterfoil.sales.invoices import InvoiceFilter
from counterfoil.sales.types import Invoice, InvoiceStatus

Of = Annotated[str | None, QueryParameter(max_length=255, description="Of this subscription.")]
Whose = Annotated[str | None, QueryParameter(max_length=255, description="Of this customer.")]


@get("/v1/invoices", **route("invoices:read"))
async def list_invoices(
    request: Asker,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    status: FromQuery[InvoiceStatus | None] = None,
    subscription_id: Of = None,
    customer_id: Whose = None,
) -> Page[Invoice]:
    """Invoices, oldest first."""
    only = InvoiceFilter(status=status, subscription_id=subscription_id, customer_id=customer_id)
    return await scope_of(request).read(invoices.list_, only, after=start(after), limit=limit)


@get("/v1/invoices/{invoice_id:str}", **route("invoices:read", 404))
async def get_invoice(request: Asker, invoice_id: FromPath[str]) -> Invoice:
    """One invoice, with what its rail says of the money in ``details``."""
    return await scope_of(request).read(invoices.get, invoice_id)


invoices_router = Router(path="/", tags=["Invoices"], route_handlers=[list_invoices, get_invoice])
