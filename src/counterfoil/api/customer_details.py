"""A customer's addresses and businesses over HTTP."""

from __future__ import annotations

from litestar import Router, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody

from counterfoil.accounts import addresses, businesses
from counterfoil.accounts.addresses import AddressChanges, NewAddress
from counterfoil.accounts.businesses import BusinessChanges, NewBusiness
from counterfoil.accounts.types import Address, Business, CustomerStatus
from counterfoil.api.catalog import After, Limit, start
from counterfoil.http.access import Asker, scope_of
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page

_ADDRESSES = "/v1/customers/{customer_id:str}/addresses"
_BUSINESSES = "/v1/customers/{customer_id:str}/businesses"


@get(_ADDRESSES, **route("customers:read", 404))
async def list_addresses(
    request: Asker,
    customer_id: FromPath[str],
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    status: FromQuery[CustomerStatus | None] = None,
) -> Page[Address]:
    """A customer's addresses, oldest first."""
    scope = scope_of(request)
    return await scope.read(addresses.list_, customer_id, status=status, after=start(after), limit=limit)


@post(_ADDRESSES, **route("customers:write", 404))
async def create_address(request: Asker, customer_id: FromPath[str], data: JSONBody[NewAddress]) -> Address:
    """Add an address to a customer."""
    return await scope_of(request).run(addresses.create, customer_id, data)


@get(_ADDRESSES + "/{address_id:str}", **route("customers:read", 404))
async def get_address(request: Asker, customer_id: FromPath[str], address_id: FromPath[str]) -> Address:
    """One address of a customer."""
    return await scope_of(request).read(addresses.get, customer_id, address_id)


@patch(_ADDRESSES + "/{address_id:str}", **route("customers:write", 404))
async def update_address(
    request: Asker, customer_id: FromPath[str], address_id: FromPath[str], data: JSONBody[AddressChanges]
) -> Address:
    """Change an address, or bring it back from the archive; what is left out stays."""
    return await scope_of(request).run(addresses.update, customer_id, address_id, data)


@delete(_ADDRESSES + "/{address_id:str}", status_code=200, **route("customers:write", 404))
async def archive_address(request: Asker, customer_id: FromPath[str], address_id: FromPath[str]) -> Address:
    """Archive an address."""
    archived = AddressChanges(status="archived")
    return await scope_of(request).run(addresses.update, customer_id, address_id, archived)


@get(_BUSINESSES, **route("customers:read", 404))
async def list_businesses(
    request: Asker,
    customer_id: FromPath[str],
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    status: FromQuery[CustomerStatus | None] = None,
) -> Page[Business]:
    """A customer's businesses, oldest first."""
    scope = scope_of(request)
    return await scope.read(businesses.list_, customer_id, status=status, after=start(after), limit=limit)


@post(_BUSINESSES, **route("customers:write", 404))
async def create_business(request: Asker, customer_id: FromPath[str], data: JSONBody[NewBusiness]) -> Business:
    """Add a business to a customer."""
    return await scope_of(request).run(businesses.create, customer_id, data)


@get(_BUSINESSES + "/{business_id:str}", **route("customers:read", 404))
async def get_business(request: Asker, customer_id: FromPath[str], business_id: FromPath[str]) -> Business:
    """One business of a customer."""
    return await scope_of(request).read(businesses.get, customer_id, business_id)


@patch(_BUSINESSES + "/{business_id:str}", **route("customers:write", 404))
async def update_business(
    request: Asker, customer_id: FromPath[str], business_id: FromPath[str], data: JSONBody[BusinessChanges]
) -> Business:
    """Change a business, or bring it back from the archive; what is left out stays."""
    return await scope_of(request).run(businesses.update, customer_id, business_id, data)


@delete(_BUSINESSES + "/{business_id:str}", status_code=200, **route("customers:write", 404))
async def archive_business(request: Asker, customer_id: FromPath[str], business_id: FromPath[str]) -> Business:
    """Archive a business."""
    archived = BusinessChanges(status="archived")
    return await scope_of(request).run(businesses.update, customer_id, business_id, archived)


customer_details = Router(
    path="/",
    tags=["Customers"],
    route_handlers=[
        list_addresses,
        create_address,
        get_address,
        update_address,
        archive_address,
        list_businesses,
        create_business,
        get_business,
        update_business,
        archive_business,
    ],
)
