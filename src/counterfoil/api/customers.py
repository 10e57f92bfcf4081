"""Customers over HTTP: for staff, and for the members and keys of a customer within what is theirs.

A path with ``{customer_id}`` asks for the permission at that customer. Where it says ``{customer}``, the
permission must be held in the tenant itself.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Router, delete, get, patch, post, put
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from counterfoil.accounts import customer_tree, customers
from counterfoil.accounts.customers import CustomerChanges, CustomerNotes, NewCustomer
from counterfoil.accounts.types import Customer, CustomerKind, CustomerStatus
from counterfoil.api.catalog import After, Limit, start
from counterfoil.http.access import Asker, scope_of
from counterfoil.http.idempotency import shaped
from counterfoil.http.problems import route
from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page

Below = Annotated[bool, QueryParameter(description="With everything below it, not only its own.")]
Level = Annotated[int | None, QueryParameter(ge=1, le=3, description="1 MSP, 2 end customer, 3 department.")]


class CustomerView(msgspec.Struct, frozen=True):
    """A customer as its members see it: everything but what staff notes about it."""

    id: str
    kind: CustomerKind
    parent_id: str | None
    level: int
    path: str
    name: str
    slug: str | None
    email: str | None
    logo_url: str | None
    locale: str
    time_zone: str
    status: CustomerStatus
    owner_user_id: str | None
    is_default: bool
    marketing_consent: bool
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


def customer_view(customer: Customer) -> CustomerView:
    """What its members see of a customer."""
    return CustomerView(*[getattr(customer, name) for name in CustomerView.__struct_fields__])


def _page(page: Page[Customer]) -> Page[CustomerView]:
    return Page([customer_view(customer) for customer in page.data], page.next)


@get("/v1/customers", **route("customers:read"))
async def list_customers(
    request: Asker,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    email: FromQuery[str | None] = None,
    kind: FromQuery[CustomerKind | None] = None,
    level: Level = None,
    status: FromQuery[CustomerStatus | None] = None,
    parent_id: FromQuery[str | None] = None,
) -> Page[CustomerView]:
    """Customers that fit every filter, oldest first."""
    page = await scope_of(request).read(
        customers.list_,
        email=email,
        kind=kind,
        level=level,
        status=status,
        parent_id=parent_id,
        after=start(after),
        limit=limit,
    )
    return _page(page)


@post("/v1/customers", **route("customers:write", 404, 409))
async def create_customer(request: Asker, data: JSONBody[NewCustomer]) -> CustomerView:
    """Make a customer."""
    return await scope_of(request).run(shaped(customers.create, customer_view), data)


@get("/v1/customers/{customer_id:str}", **route("customers:read", 404))
async def get_customer(request: Asker, customer_id: FromPath[str]) -> CustomerView:
    """One customer."""
    return customer_view(await scope_of(request).read(customers.get, customer_id))


@patch("/v1/customers/{customer_id:str}", **route("customers:write", 404, 409))
async def update_customer(request: Asker, customer_id: FromPath[str], data: JSONBody[CustomerChanges]) -> CustomerView:
    """Change a customer; what is left out stays."""
    return await scope_of(request).run(shaped(customers.update, customer_view), customer_id, data)


@post("/v1/customers/{customer_id:str}/archive", status_code=200, **route("customers:write", 404))
async def archive_customer(request: Asker, customer_id: FromPath[str]) -> CustomerView:
    """Sell to a customer no longer. What it has goes on."""
    return await scope_of(request).run(shaped(customers.archive, customer_view), customer_id)


@post("/v1/customers/{customer_id:str}/restore", status_code=200, **route("customers:write", 404, 409))
async def restore_customer(request: Asker, customer_id: FromPath[str]) -> CustomerView:
    """Bring a customer back from the archive."""
    return await scope_of(request).run(shaped(customers.restore, customer_view), customer_id)


@delete("/v1/customers/{customer_id:str}", **route("customers:write", 404, 409))
async def delete_customer(request: Asker, customer_id: FromPath[str]) -> None:
    """Delete a customer that has none below it. What it bought stays on record."""
    await scope_of(request).run(customers.delete, customer_id)


@get("/v1/customers/{customer_id:str}/customers", **route("customers:read", 404))
async def list_customers_below(
    request: Asker,
    customer_id: FromPath[str],
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    below: Below = False,
) -> Page[CustomerView]:
    """The customers right below one, oldest first; with ``below`` the whole tree, from the top down."""
    op = customer_tree.below if below else customer_tree.children
    return _page(await scope_of(request).read(op, customer_id, after=start(after), limit=limit))


@post("/v1/customers/{customer_id:str}/customers", **route("customers:write", 404, 409))
async def create_customer_below(
    request: Asker, customer_id: FromPath[str], data: JSONBody[NewCustomer]
) -> CustomerView:
    """Make a customer below another one."""
    if data.parent_id not in {None, customer_id}:
        raise Invalid.field("parent_id", "comes from the path; leave it out", code="parent_given")
    new = msgspec.structs.replace(data, parent_id=customer_id)
    return await scope_of(request).run(shaped(customers.create, customer_view), new)


class MoveCustomer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The customer to be above it; null for the top."""

    parent_id: str | None


@post("/v1/customers/{customer:str}/move", status_code=200, **route("customers:move", 404, 409))
async def move_customer(request: Asker, customer: FromPath[str], data: JSONBody[MoveCustomer]) -> CustomerView:
    """Put a customer, with everything below it, below another one."""
    return await scope_of(request).run(shaped(customer_tree.move, customer_view), customer, data.parent_id)


@get("/v1/customers/{customer:str}/notes", **route("customers:notes", 404))
async def get_customer_notes(request: Asker, customer: FromPath[str]) -> CustomerNotes:
    """What staff notes about a customer; its members never see it."""
    found = await scope_of(request).read(customers.get, customer)
    return CustomerNotes(found.internal_notes, found.import_meta)


@put("/v1/customers/{customer:str}/notes", **route("customers:notes", 404))
async def put_customer_notes(request: Asker, customer: FromPath[str], data: JSONBody[CustomerNotes]) -> CustomerNotes:
    """Replace what staff notes about a customer."""
    found = await scope_of(request).run(customers.set_notes, customer, data)
    return CustomerNotes(found.internal_notes, found.import_meta)


customers_router = Router(
    path="/",
    tags=["Customers"],
    route_handlers=[
        list_customers,
        create_customer,
        get_customer,
        update_customer,
        archive_customer,
        restore_customer,
        delete_customer,
        list_customers_below,
        create_customer_below,
        move_customer,
        get_customer_notes,
        put_customer_notes,
    ],
)
