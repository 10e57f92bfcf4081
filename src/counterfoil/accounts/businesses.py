"""Operations on businesses: a customer as the company that its invoices name. They are archived, never removed."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.accounts import customers
from counterfoil.accounts.tables import businesses
from counterfoil.accounts.types import Business, CustomerStatus
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Row, Tx
from counterfoil.kernel.errors import Invalid, NotFound
from counterfoil.kernel.metadata import check_metadata
from counterfoil.kernel.paging import Page, page_of
from counterfoil.kernel.text import check_line, normalize_email

MAX_CONTACTS = 20

_OF_CUSTOMER = sa.select(*columns(businesses)).where(
    mine(businesses), businesses.c.customer_id == sa.bindparam("customer_id")
)
_GET = _OF_CUSTOMER.where(businesses.c.id == sa.bindparam("id"))
_LIST = (
    _OF_CUSTOMER.where(businesses.c.id > sa.bindparam("after"))
    .order_by(businesses.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LIST_STATUS = _LIST.where(businesses.c.status == sa.bindparam("status"))
_CHANGE = (
    sa.update(businesses)
    .where(
        mine(businesses),
        businesses.c.id == sa.bindparam("business_id"),
        businesses.c.customer_id == sa.bindparam("of_customer_id"),
    )
    .returning(*columns(businesses))
)


class Contact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person to write to."""

    name: str
    email: str


class NewBusiness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it takes to make a business."""

    name: str
    company_number: str | None = None
    tax_identifier: str | None = None
    """As the country writes it (a VAT number, say); it is not looked up anywhere."""
    contacts: list[Contact] = []
    metadata: dict[str, Any] = {}


class BusinessChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change about a business; what is left out stays."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    company_number: str | msgspec.UnsetType | None = msgspec.UNSET
    tax_identifier: str | msgspec.UnsetType | None = msgspec.UNSET
    contacts: list[Contact] | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    status: CustomerStatus | msgspec.UnsetType = msgspec.UNSET


def _checked(fields: NewBusiness | BusinessChanges) -> dict[str, Any]:
    given = {name: value for name in fields.__struct_fields__ if (value := getattr(fields, name)) is not msgspec.UNSET}
    for name, most in (("name", 200), ("company_number", 50), ("tax_identifier", 50)):
        if given.get(name) is not None:
            given[name] = check_line(name, given[name], most=most, least=1)
    if "contacts" in given:
        given["contacts"] = _contacts(given["contacts"])
    if "metadata" in given:
        check_metadata("metadata", given["metadata"])
    return given


def _contacts(contacts: list[Contact]) -> list[dict[str, Any]]:
    if len(contacts) > MAX_CONTACTS:
        raise Invalid.field("contacts", f"at most {MAX_CONTACTS}")
    return [
        {
            "name": check_line(f"contacts/{place}/name", contact.name, most=200, least=1),
            "email": normalize_email(f"contacts/{place}/email", contact.email),
        }
        for place, contact in enumerate(contacts)
    ]


def create(tx: Tx, customer_id: str, new: NewBusiness) -> Business:
    """Add a business to a customer. Raises Invalid, NotFound."""
    fields = _checked(new)
    customers.hold(tx, customer_id)
    business = Business(
        **fields,
        id=tx.new_id("biz"),
        customer_id=customer_id,
        status="active",
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.insert(businesses, business)
    tx.record("business.created", "business", business.id, customer_id=customer_id)
    return business


def _found(row: Row | None) -> Business:
    if row is None:
        raise NotFound("This customer has no such business.", code="business_not_found")
    return Business(*row)


def get(tx: Tx, customer_id: str, business_id: str) -> Business:
    """Raise NotFound (``business_not_found``) when the customer has none such."""
    return _found(tx.one(_GET, {"customer_id": customer_id, "id": business_id}))


def list_(
    tx: Tx, customer_id: str, *, status: CustomerStatus | None = None, after: str = "", limit: int = 20
) -> Page[Business]:
    """A page of a customer's businesses, oldest first. Raises NotFound."""
    customers.get(tx, customer_id)
    params = {"customer_id": customer_id, "after": after, "limit": limit + 1}
    rows = tx.all(_LIST_STATUS, {**params, "status": status}) if status else tx.all(_LIST, params)
    return page_of([Business(*row) for row in rows], limit)


def update(tx: Tx, customer_id: str, business_id: str, changes: BusinessChanges) -> Business:
    """Change a business, archive it or bring it back. Raises Invalid, NotFound."""
    given = _checked(changes)
    if not given:
        return get(tx, customer_id, business_id)
    statement = _CHANGE.values(**given, updated_at=tx.now)
    business = _found(tx.one(statement, {"of_customer_id": customer_id, "business_id": business_id}))
    verb = "archived" if given.get("status") == "archived" else "updated"
    tx.record(f"business.{verb}", "business", business_id, customer_id=customer_id, changed=sorted(given))
    return business
