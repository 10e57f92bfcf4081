"""Keeping Paddle's copies of our objects in step, and finding them again.

Source: Paddle's OpenAPI specification of 2025-05-27, operations ``create-``, ``update-``, ``get-`` and ``list-`` of
products, prices, discounts, customers, addresses and businesses.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

from counterfoil.kernel.ids import made_at
from counterfoil.rails.base import HttpRequest, HttpResponse, RailRefused, RailUnavailable
from counterfoil.rails.facts import RailCopy
from counterfoil.rails.mirror import (
    Address,
    Business,
    Customer,
    Kind,
    MoreToAsk,
    NoFollowUps,
    Price,
    Product,
    Rate,
    Subject,
)
from counterfoil.rails.paddle import catalog, imports
from counterfoil.rails.paddle.settings import PaddleSettings
from counterfoil.rails.paddle.wire import ALL_COPIES, Json, call, failure, maybe_moment, read, read_page

_PATHS: Final[dict[Kind, str]] = {
    "product": "products",
    "price": "prices",
    "discount": "discounts",
    "customer": "customers",
    "address": "addresses",
    "business": "businesses",
}
_EXISTS: Final = "customer_already_exists"
_CUSTOMER_ID: Final = re.compile(r"ctm_[0-9a-z]{26}")
_PAGE: Final = ("per_page", "200")
_SKEW: Final = timedelta(days=1)
"""By how much our clock may be ahead of Paddle's, generously."""


class Copies(NoFollowUps):
    """The part of the rail about copies."""

    mirrors: tuple[Kind, ...] = ("product", "price", "discount", "customer", "address", "business")

    def rate(self, settings: PaddleSettings) -> Rate:
        """200 requests a minute, of the 240 that Paddle takes from one address."""
        return Rate(200, 60, 4, by_address=True)

    def create_request(self, settings: PaddleSettings, subject: Subject, key: str) -> HttpRequest:
        """``POST`` of the kind. Paddle has no idempotency keys: after an unknown outcome, look for it first.

        A copy is made active, and archived with the next update. Raises RailRefused.
        """
        body = catalog.write(settings, subject)
        if isinstance(subject, Price):
            body["product_id"] = subject.product_reference
        return call(settings, "POST", *_collection(subject), body=body)

    def update_request(
        self, settings: PaddleSettings, subject: Subject, reference: str, key: str
    ) -> HttpRequest | None:
        """``PATCH`` of the kind, with all that can change there. Raises RailRefused."""
        body = catalog.write(settings, subject) | {"status": _status(subject)}
        return call(settings, "PATCH", *_collection(subject), reference, body=body)

    def read_copy(self, settings: PaddleSettings, kind: Kind, response: HttpResponse) -> RailCopy:
        """The copy. Raises RailRefused, RailBusy, RailUnavailable.

        Raises MoreToAsk when Paddle has a customer with this e-mail address already, as it has of everybody who ever
        paid there: the answer is that customer. Whoever asked takes it over, unless ``our_id`` says it is another's.
        """
        said = failure(response) if kind == "customer" and response.status == 409 else None
        if said is not None and said.code == _EXISTS:
            found = _CUSTOMER_ID.search(said.detail)
            if found is None:
                raise RailUnavailable(said.words)  # it can be found by its e-mail address
            raise MoreToAsk(said.words, self.get_request(settings, kind, found[0], None))
        return catalog.read(kind, read(response))

    def find_copy_request(self, settings: PaddleSettings, subject: Subject, after: str | None = None) -> HttpRequest:
        """The kind's list, newest first, narrowed as far as Paddle can; ``after``: the last one of the page before."""
        query = [ALL_COPIES, ("order_by", "id[DESC]"), _PAGE]
        if isinstance(subject, Customer):
            if not subject.email:
                raise RailRefused("Paddle needs a customer's e-mail address")
            query.append(("email", subject.email))
        if isinstance(subject, Price):
            query.append(("product_id", subject.product_reference))
        if after is not None:
            query.append(("after", after))
        return call(settings, "GET", *_collection(subject), query=query)

    def read_found_copy(self, settings: PaddleSettings, subject: Subject, response: HttpResponse) -> RailCopy | None:
        """The copy that carries our id; for a customer also one with the same e-mail address that carries none.

        None when the list ends, or goes back to before the object was made, without it. Raises MoreToAsk while there
        are pages to look at; RailRefused when the e-mail address is another customer's of ours; RailBusy,
        RailUnavailable.
        """
        page, after = read_page(response)
        kind = catalog.kind_of(subject)
        copies = [catalog.read(kind, data) for data in page]
        ours = next((copy for copy in copies if copy.our_id == subject.id), None)
        if ours is not None:
            return ours
        if isinstance(subject, Customer) and copies:
            free = next((copy for copy in copies if copy.our_id is None), None)
            if free is None:
                raise RailRefused(f"at Paddle, this e-mail address is that of the customer {copies[0].our_id}")
            return free
        if after is None or _is_before(subject, page[-1]):
            return None
        more = self.find_copy_request(settings, subject, after)
        raise MoreToAsk("the copy may be on the next page of Paddle's list", more)

    def get_request(self, settings: PaddleSettings, kind: Kind, reference: str, subject: Subject | None) -> HttpRequest:
        """``GET`` of the kind. Raises RailRefused for an address or a business without ``subject``."""
        if subject is not None:
            return call(settings, "GET", *_collection(subject), reference)
        if kind in {"address", "business"}:
            raise RailRefused("Paddle reads addresses and businesses by their customer only")
        return call(settings, "GET", _PATHS[kind], reference)

    def list_request(self, settings: PaddleSettings, kind: Kind, after: str | None) -> HttpRequest:
        """``GET`` of the kind's list, archived ones included. Raises RailRefused for addresses and businesses."""
        if kind in {"address", "business"}:
            raise RailRefused("Paddle lists addresses and businesses by their customer only")
        query = [ALL_COPIES, ("order_by", "id[ASC]"), _PAGE]
        return call(settings, "GET", _PATHS[kind], query=query + ([("after", after)] if after else []))

    def read_list(
        self, settings: PaddleSettings, kind: Kind, response: HttpResponse
    ) -> tuple[tuple[RailCopy, ...], str | None]:
        """A page. Raises as :meth:`read_copy`, but for MoreToAsk."""
        page, after = read_page(response)
        return tuple(catalog.read(kind, data) for data in page), after

    def expected(self, settings: PaddleSettings, subject: Subject) -> dict[str, Any]:
        """The ``values`` of a copy that is in step. Raises RailRefused for what Paddle cannot represent."""
        return catalog.expected(settings, subject)

    def imported(self, settings: PaddleSettings, copy: RailCopy) -> Product | Price:
        """A product or price of Paddle's as one of ours. Raises RailRefused for what we cannot represent."""
        return imports.product(copy) if copy.kind == "product" else imports.price(copy)


def _collection(subject: Subject) -> tuple[str, ...]:
    """Where copies of its kind are."""
    path = _PATHS[catalog.kind_of(subject)]
    if not isinstance(subject, (Address, Business)):
        return (path,)
    if not subject.customer_reference:
        raise RailRefused("its customer has no copy at Paddle")
    return ("customers", subject.customer_reference, path)


def _status(subject: Subject) -> str:
    return "active" if subject.active else "archived"


def _is_before(subject: Subject, data: Json) -> bool:
    """Whether something of Paddle's is older than our object, so that everything after it in the list is, too."""
    created = data.get("created_at")
    try:
        made = made_at(subject.id)
    except ValueError:
        return False
    then = maybe_moment(created) if isinstance(created, str) else None
    return then is not None and then < made - _SKEW
