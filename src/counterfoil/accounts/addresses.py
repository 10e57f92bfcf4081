"""Operations on a customer's addresses. They are archived, never removed: papers name them."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.accounts import customers
from counterfoil.accounts.tables import addresses
from counterfoil.accounts.types import Address, CustomerStatus
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Row, Tx
from counterfoil.kernel.countries import check_country
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.paging import Page, page_of
from counterfoil.kernel.text import check_line

_LONGEST = {
    "description": 200,
    "first_line": 200,
    "second_line": 200,
    "city": 100,
    "region": 100,
    "zip_code": 20,
}

_OF_CUSTOMER = sa.select(*columns(addresses)).where(
    mine(addresses), addresses.c.customer_id == sa.bindparam("customer_id")
)
_GET = _OF_CUSTOMER.where(addresses.c.id == sa.bindparam("id"))
_LIST = (
    _OF_CUSTOMER.where(addresses.c.id > sa.bindparam("after"))
    .order_by(addresses.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LIST_STATUS = _LIST.where(addresses.c.status == sa.bindparam("status"))
_CHANGE = (
    sa.update(addresses)
    .where(
        mine(addresses),
        addresses.c.id == sa.bindparam("address_id"),
        addresses.c.customer_id == sa.bindparam("of_customer_id"),
    )
    .returning(*columns(addresses))
)


class NewAddress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it takes to make an address: the country at least."""

    country_code: str
    description: str = ""
    first_line: str = ""
    second_line: str = ""
    city: str = ""
    region: str = ""
    zip_code: str = ""


class AddressChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change about an address; what is left out stays."""

    country_code: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType = msgspec.UNSET
    first_line: str | msgspec.UnsetType = msgspec.UNSET
    second_line: str | msgspec.UnsetType = msgspec.UNSET
    city: str | msgspec.UnsetType = msgspec.UNSET
    region: str | msgspec.UnsetType = msgspec.UNSET
    zip_code: str | msgspec.UnsetType = msgspec.UNSET
    status: CustomerStatus | msgspec.UnsetType = msgspec.UNSET


def _checked(fields: NewAddress | AddressChanges) -> dict[str, Any]:
    given = {name: value for name in fields.__struct_fields__ if (value := getattr(fields, name)) is not msgspec.UNSET}
    for name, most in _LONGEST.items():
        if name in given:
            given[name] = check_line(name, given[name], most=most)
    if "country_code" in given:
        check_country("country_code", given["country_code"])
    return given


def create(tx: Tx, customer_id: str, new: NewAddress) -> Address:
    """Add an address to a customer. Raises Invalid, NotFound."""
    fields = _checked(new)
    customers.hold(tx, customer_id)
    address = Address(
        **fields,
        id=tx.new_id("adr"),
        customer_id=customer_id,
        status="active",
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.insert(addresses, address)
    tx.record("address.created", "address", address.id, customer_id=customer_id, country_code=address.country_code)
    return address


def _found(row: Row | None) -> Address:
    if row is None:
        raise NotFound("This customer has no such address.", code="address_not_found")
    return Address(*row)


def get(tx: Tx, customer_id: str, address_id: str) -> Address:
    """Raise NotFound (``address_not_found``) when the customer has none such."""
    return _found(tx.one(_GET, {"customer_id": customer_id, "id": address_id}))


def list_(
    tx: Tx, customer_id: str, *, status: CustomerStatus | None = None, after: str = "", limit: int = 20
) -> Page[Address]:
    """A page of a customer's addresses, oldest first. Raises NotFound."""
    customers.get(tx, customer_id)
    params = {"customer_id": customer_id, "after": after, "limit": limit + 1}
    rows = tx.all(_LIST_STATUS, {**params, "status": status}) if status else tx.all(_LIST, params)
    return page_of([Address(*row) for row in rows], limit)


def update(tx: Tx, customer_id: str, address_id: str, changes: AddressChanges) -> Address:
    """Change an address, archive it or bring it back. Raises Invalid, NotFound."""
    given = _checked(changes)
    if not given:
        return get(tx, customer_id, address_id)
    statement = _CHANGE.values(**given, updated_at=tx.now)
    address = _found(tx.one(statement, {"of_customer_id": customer_id, "address_id": address_id}))
    verb = "archived" if given.get("status") == "archived" else "updated"
    tx.record(f"address.{verb}", "address", address_id, customer_id=customer_id, changed=sorted(given))
    return address
