"""What a rail keeps copies of, and how they are kept in step. We lead: our row is the truth, the copy follows.

Pure as all rails' code: subjects in, requests out; answers in, facts out.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from counterfoil.rails.base import HttpRequest, HttpResponse, PaymentFact, RailUnavailable
from counterfoil.rails.facts import Fact, ItemFact, RailCopy, SubscriptionFact

Kind = Literal["product", "price", "discount", "customer", "address", "business"]
Proration = Literal["now", "next_period", "full_now", "full_next_period", "none"]
"""What a change costs for the rest of the period: the difference now, the difference with the next bill, the whole new
price now or with the next bill, or nothing."""


class RailBusy(RailUnavailable):
    """The rail refused because too much was asked of it; surely nothing was done."""

    def __init__(self, words: str, *, retry_after: float | None = None) -> None:
        super().__init__(words)
        self.retry_after = retry_after
        """Seconds to wait, where the rail says so."""


class MoreToAsk(RailUnavailable):
    """The answer does not tell yet: send ``request`` now, and read what comes of it with the same reader.

    For lists of which only the next page can tell, and for conflicts that name an object worth a look. Whoever does
    not follow it has what it is, too: an answer from which nothing is known.
    """

    def __init__(self, words: str, request: HttpRequest) -> None:
        super().__init__(words)
        self.request = request


class Product(msgspec.Struct, frozen=True, kw_only=True, tag="product"):
    """A product to copy."""

    id: str
    name: str
    description: str
    image_url: str | None
    tax_category: str
    active: bool
    metadata: dict[str, Any] = {}


class Price(msgspec.Struct, frozen=True, kw_only=True, tag="price"):
    """A price to copy."""

    id: str
    product_id: str
    product_reference: str
    name: str
    description: str
    asset: str
    unit_amount: int
    interval: Literal["day", "week", "month", "year"] | None
    interval_count: int | None
    trial_days: int
    country_overrides: tuple[tuple[tuple[str, ...], int], ...]
    """Countries (ISO 3166-1) and the unit amount there."""
    quantity_min: int
    quantity_max: int
    tax_mode: str
    active: bool
    metadata: dict[str, Any] = {}
    variant_of: str | None = None
    """Of a variant (:meth:`Mirror.price_variant`): our price's id. ``id`` is the variant's own then."""


class Discount(msgspec.Struct, frozen=True, kw_only=True, tag="discount"):
    """A discount to copy."""

    id: str
    description: str
    code: str | None
    kind: Literal["percentage", "flat", "flat_per_seat", "set_price", "free"]
    amount: int
    """Basis points for a percentage, minor units of ``asset`` else."""
    asset: str | None
    recurring: bool
    max_periods: int | None
    usage_limit: int | None
    per_customer_limit: int | None
    starts_at: datetime | None
    expires_at: datetime | None
    product_references: tuple[str, ...]
    """The products it is for; with ``price_references`` empty, too: all."""
    price_references: tuple[str, ...]
    active: bool
    metadata: dict[str, Any] = {}
    variant_of: str | None = None
    """Of a variant (:meth:`Mirror.discount_variant`): our discount's id. ``id`` is the variant's own then."""


class Customer(msgspec.Struct, frozen=True, kw_only=True, tag="customer"):
    """A customer to copy."""

    id: str
    name: str | None
    email: str | None
    locale: str | None
    marketing_consent: bool
    active: bool
    address: Address | None = None
    """Its first active address, for rails that keep it with the customer."""
    metadata: dict[str, Any] = {}


class Address(msgspec.Struct, frozen=True, kw_only=True, tag="address"):
    """An address to copy."""

    id: str
    customer_id: str
    customer_reference: str | None
    description: str | None
    first_line: str | None
    second_line: str | None
    city: str | None
    region: str | None
    postal_code: str | None
    country: str
    active: bool
    metadata: dict[str, Any] = {}


class Business(msgspec.Struct, frozen=True, kw_only=True, tag="business"):
    """A business to copy."""

    id: str
    customer_id: str
    customer_reference: str
    name: str
    company_number: str | None
    tax_identifier: str | None
    contacts: tuple[tuple[str, str], ...]
    """Names and e-mail addresses."""
    active: bool
    metadata: dict[str, Any] = {}


Subject: TypeAlias = Product | Price | Discount | Customer | Address | Business


class Rhythm(NamedTuple):
    """How a subscription is paid."""

    interval: Literal["day", "week", "month", "year"]
    interval_count: int
    trial_days: int
    begins: datetime
    """About when: the same whenever it is asked for the same sale."""


class Rate(NamedTuple):
    """How much may be asked of a rail."""

    requests: int
    seconds: float
    at_once: int
    """Requests under way together."""
    by_address: bool = False
    """Whether it holds for all that one address asks, whichever account it is about."""


class SubscriptionChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change to make to a subscription at its rail."""

    action: Literal["pause", "resume", "cancel", "keep", "change"]
    """``keep`` takes a scheduled change back; ``change`` is of the items or the discount."""
    at_period_end: bool = True
    """Whether it waits for the end of the paid period (pause, cancel)."""
    resume_at: datetime | None = None
    items: tuple[tuple[str, int], ...] = ()
    """For ``change``: the rail's names of all prices that it is for from now on, and their quantities."""
    proration: Proration = "now"
    discount_reference: str | None = None
    variants: tuple[tuple[str, str], ...] = ()
    """For ``change``: our prices of which a variant stands in ``items``, and the rail's names of those."""


class Portal(msgspec.Struct, frozen=True, kw_only=True):
    """Where a customer manages a payment method, bills and subscriptions at the rail, for a short time."""

    url: str
    update_payment_method: str | None = None
    cancel: str | None = None


class NoFollowUps:
    """The part about follow-ups and variants of a rail whose copies take one request each, and do for every sale."""

    def price_variant(self, settings: Any, price: Price, unit_amount: int) -> Price | None:
        """The copy knows all amounts."""
        return None

    def discount_variant(self, settings: Any, discount: Discount, rhythm: Rhythm) -> Discount | None:
        """The copy counts periods."""
        return None

    def follow_up_request(self, settings: Any, subject: Subject, copy: RailCopy, key: str) -> HttpRequest | None:
        """Nothing belongs to a copy."""
        return None

    def switch_follow_up_request(self, settings: Any, subject: Subject, reference: str, key: str) -> HttpRequest | None:
        """Nothing belongs to a copy."""
        return None

    def read_follow_up(self, settings: Any, response: HttpResponse) -> str:
        """Never asked. Raises RailUnavailable."""
        raise RailUnavailable("this rail has no follow-ups")

    def find_follow_up_request(self, settings: Any, subject: Subject) -> HttpRequest:
        """Never asked. Raises RailUnavailable."""
        raise RailUnavailable("this rail has no follow-ups")

    def read_found_follow_up(self, settings: Any, subject: Subject, response: HttpResponse) -> str | None:
        """Never asked. Raises RailUnavailable."""
        raise RailUnavailable("this rail has no follow-ups")


class Mirror(Protocol):
    """What a rail offers that keeps copies of our objects. In the signatures ``settings`` is the rail's own type."""

    name: str

    mirrors: tuple[Kind, ...]
    """What it keeps copies of; whatever another refers to comes first."""

    payments_kept: timedelta | None
    """How far back :meth:`payments_request` can look; None: to the beginning."""

    def rate(self, settings: Any) -> Rate:
        """How much may be asked of it."""
        ...

    # -- copies ------------------------------------------------------------------------------------------------------

    def create_request(self, settings: Any, subject: Subject, key: str) -> HttpRequest:
        """How to make the copy. ``key``: the same for the same attempt, for rails with idempotency keys.

        Raises RailRefused for what the rail cannot represent, saying why.
        """
        ...

    def update_request(self, settings: Any, subject: Subject, reference: str, key: str) -> HttpRequest | None:
        """How to bring the copy in step; None where nothing of it can change there. Raises RailRefused."""
        ...

    def read_copy(self, settings: Any, kind: Kind, response: HttpResponse) -> RailCopy:
        """The answer to both. Raises RailRefused (in the rail's words), RailBusy, RailUnavailable."""
        ...

    def find_copy_request(self, settings: Any, subject: Subject) -> HttpRequest:
        """How to look for the copy by our id, after an attempt to make it whose outcome is unknown."""
        ...

    def read_found_copy(self, settings: Any, subject: Subject, response: HttpResponse) -> RailCopy | None:
        """The copy, or None when the rail surely has none.

        Raises RailRefused when a copy cannot be made, because another object has its place; MoreToAsk, RailBusy,
        RailUnavailable.
        """
        ...

    def get_request(self, settings: Any, kind: Kind, reference: str, subject: Subject | None) -> HttpRequest:
        """How to read a copy. ``subject``: ours, where the address needs it (an address' customer)."""
        ...

    def follow_up_request(self, settings: Any, subject: Subject, copy: RailCopy, key: str) -> HttpRequest | None:
        """What belongs to the copy and takes a request of its own; None where nothing does. Raises RailRefused."""
        ...

    def switch_follow_up_request(self, settings: Any, subject: Subject, reference: str, key: str) -> HttpRequest | None:
        """How to have that in use, or out of it, as the object itself is; None where nothing belongs to the copy."""
        ...

    def read_follow_up(self, settings: Any, response: HttpResponse) -> str:
        """The answer to both: the rail's name for it. Raises RailRefused, RailBusy, RailUnavailable."""
        ...

    def find_follow_up_request(self, settings: Any, subject: Subject) -> HttpRequest:
        """How to look for it, before it is made."""
        ...

    def read_found_follow_up(self, settings: Any, subject: Subject, response: HttpResponse) -> str | None:
        """Its name, or None when the rail surely has none. Raises RailRefused, RailBusy, RailUnavailable."""
        ...

    def price_variant(self, settings: Any, price: Price, unit_amount: int) -> Price | None:
        """What has to be there beside the copy of a price for it to be sold at this amount; None: the copy will do.

        It is made, found and read as a copy is. Whatever of the rail's is for a variant is for our price.
        """
        ...

    def discount_variant(self, settings: Any, discount: Discount, rhythm: Rhythm) -> Discount | None:
        """What has to be there beside the copy of a discount for it to last as long as it says; None: the copy will do.

        Only the discount's own terms are looked at, and not what it is for. Raises RailRefused where it cannot last so.
        """
        ...

    def imported(self, settings: Any, copy: RailCopy) -> Product | Price:
        """A product or price that somebody made there, as one of ours without ids.

        Raises RailRefused for what we cannot represent, saying why.
        """
        ...

    def list_request(self, settings: Any, kind: Kind, after: str | None) -> HttpRequest:
        """A page of all objects of a kind there, archived ones included; ``after``: what the last page gave."""
        ...

    def read_list(self, settings: Any, kind: Kind, response: HttpResponse) -> tuple[tuple[RailCopy, ...], str | None]:
        """A page, and how to ask for the next one (None: it was the last). Raises as :meth:`read_copy`."""
        ...

    def expected(self, settings: Any, subject: Subject) -> dict[str, Any]:
        """The ``values`` of a copy that is in step."""
        ...

    # -- subscriptions -----------------------------------------------------------------------------------------------

    def subscription_request(self, settings: Any, reference: str) -> HttpRequest:
        """How to read a subscription."""
        ...

    def read_subscription(self, settings: Any, response: HttpResponse) -> SubscriptionFact:
        """The answer. Raises RailRefused, RailBusy, RailUnavailable."""
        ...

    def change_request(
        self, settings: Any, reference: str, change: SubscriptionChange, items: tuple[ItemFact, ...], key: str
    ) -> HttpRequest:
        """How to change a subscription; ``items``: what it is for now. Answered by :meth:`read_subscription`."""
        ...

    def is_changed(self, change: SubscriptionChange, fact: SubscriptionFact) -> bool:
        """Whether a subscription is as the change wants it: then it is not asked for again."""
        ...

    def portal_request(
        self, settings: Any, customer_reference: str, subscriptions: tuple[str, ...], return_url: str
    ) -> HttpRequest:
        """How to open a portal session."""
        ...

    def read_portal(self, settings: Any, response: HttpResponse) -> Portal:
        """The answer. Raises RailRefused, RailBusy, RailUnavailable."""
        ...

    # -- comparing and catching up -----------------------------------------------------------------------------------

    def payments_request(self, settings: Any, since: datetime, until: datetime, after: str | None) -> HttpRequest:
        """A page of the money that came in between two moments (the first included)."""
        ...

    def read_payments(self, settings: Any, response: HttpResponse) -> tuple[tuple[PaymentFact, ...], str | None]:
        """The page, with the references that webhooks give, too; and how to ask for the next."""
        ...

    def events_request(self, settings: Any, after: str | None, since: datetime) -> HttpRequest:
        """A page of webhooks that were or should have been sent, oldest first; ``after``: the last event's id."""
        ...

    def read_events(self, settings: Any, response: HttpResponse) -> tuple[tuple[bytes, ...], str | None]:
        """Their bodies, each as a webhook would bring it; and how to ask for the next page."""
        ...


__all__ = ["Fact", "Mirror", "MoreToAsk", "RailBusy", "Rate", "Subject", "SubscriptionChange"]
