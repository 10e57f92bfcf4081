"""What a rail is.

A rail is a way for money to arrive. Its code is pure: it builds requests, reads answers, and turns
webhooks into facts. ``exchange`` sends the requests, keeps the time and writes the rows. So a rail is
tested with bytes in and values out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec

from counterfoil.kernel.money import Money


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for ``exchange`` to send."""

    method: str
    url: str
    headers: dict[str, str] = {}
    body: bytes = b""


class HttpResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


class RailRefused(Exception):
    """The rail understood and said no; asking again will not help. Its words are the message."""


class RefundFailed(RailRefused):
    """The rail had taken the refund on, and it came to nothing: no money went back, and none will."""


class RailUnavailable(Exception):
    """The rail could not answer now, or its answer made no sense; ask again later."""


class BadSignature(Exception):
    """A webhook is not from whom it claims to be, or cannot be read. Nothing may follow from it."""


class LineIntent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of what is to be paid."""

    price_id: str
    price_reference: str | None
    """The rail's name for the price, where it has a copy."""
    product_reference: str | None
    name: str
    quantity: int
    unit_amount: int
    """Minor units, before discounts."""
    total: int
    """Minor units, of all units, after discounts: what the line costs now."""
    tax_category: str = "standard"
    tax_mode: str = "account_setting"
    interval: Literal["day", "week", "month", "year"] | None = None
    """How often it is paid again; None = once."""
    interval_count: int | None = None
    trial_days: int = 0
    by_country: bool = False
    """Whether its copy may charge another amount, by the country that the buyer turns out to be of. Rails whose copies
    do are asked for what it costs here."""
    is_variant: bool = False
    """Whether ``price_reference`` names no copy, but a variant of it that costs this (``Mirror.price_variant``)."""


class CheckoutIntent(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to be paid, as a rail needs to know it."""

    checkout_id: str
    amount: Money
    description: str
    email: str | None
    return_url: str
    """Where the buyer's browser goes afterwards. Holds no secret: rails show it to strangers."""
    now: datetime
    expires_at: datetime
    lines: tuple[LineIntent, ...] = ()
    """What the amount is for. With a line that is paid again, the checkout starts a subscription."""
    discount_reference: str | None = None
    """The rail's name for the discount of a subscription. The lines' totals say what it takes off of the first bill."""
    customer_reference: str | None = None
    address_reference: str | None = None
    business_reference: str | None = None

    @property
    def is_subscription(self) -> bool:
        """Whether something of it is paid again."""
        return any(line.interval is not None for line in self.lines)


class OpenedCheckout(msgspec.Struct, frozen=True, kw_only=True):
    """The rail's side of a checkout: its own reference, and where the buyer pays."""

    reference: str
    url: str


class PaymentFact(msgspec.Struct, frozen=True, kw_only=True):
    """Money that the rail has proved: final, and in the asset in which it counts for the checkout."""

    reference: str
    """The rail's own name for this piece of money, unique on the rail for ever."""
    amount: Money
    occurred_at: datetime
    payer: str | None = None
    details: dict[str, Any] = {}


class RefundIntent(msgspec.Struct, frozen=True, kw_only=True):
    """Money to give back, as a rail needs to know it."""

    refund_id: str
    """Ours. A rail that is asked twice with the same one gives the money back once."""
    payment_reference: str
    """The rail's own name for the payment."""
    amount: Money
    reason: str
    recipient: str | None
    """Where the money goes, on rails that do not know by themselves."""
    details: dict[str, Any] = {}
    """What the rail said of the payment."""


class RefundDone(msgspec.Struct, frozen=True, kw_only=True):
    """The money went back."""

    reference: str
    """The rail's own name for it."""


class RefundUnderWay(msgspec.Struct, frozen=True, kw_only=True):
    """The rail took the refund on, and has not decided or carried it out yet. Its webhook tells what became of it."""

    reference: str
    """The rail's own name for it."""


CheckoutState = Literal["open", "processing", "settled", "expired", "failed"]


class CheckoutReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that a rail says about one checkout at one moment.

    Reports repeat, overlap and arrive in any order; settlement makes one story of them.
    """

    rail: str
    reference: str
    """The rail's reference of the checkout (``OpenedCheckout.reference``); empty where what it says names only ours."""
    checkout_id: str | None
    """Our id, where the rail carries it back."""
    state: CheckoutState
    payments: tuple[PaymentFact, ...] = ()
    """Every proved payment so far, oldest first."""
    accepted_short: int = 0
    """By how many minor units the payments fall short of what the rail was asked for and yet took as paid in
    full (its rounding, or a tolerance the seller set there). Only with the state ``settled``."""
    final: bool
    """Whether the rail will never say anything else about it, so that asking may stop."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook, verified."""

    event_id: str
    """Unique on the rail; the same for every redelivery of the same news."""
    type: str
    occurred_at: datetime
    reference: str | None
    """The checkout it is about, by the rail's reference; None when it is about nothing of ours."""
    report: CheckoutReport | None = None
    """What it proves by itself. None with a reference means: ask the rail before believing anything."""
    facts: tuple[Any, ...] = ()
    """What else it proves (:data:`counterfoil.rails.facts.Fact`)."""
    question: HttpRequest | None = None
    """What to ask before it can be understood (:meth:`Rail.read_answer`). It is taken in first, and asked after."""
    is_known: bool = True
    """Whether we know what its type means; what we do not know is kept as it came."""
    problem: str | None = None
    """Why its object cannot be read, where we know the type and yet cannot. Then ``is_known`` is false, too."""


class Rail(Protocol):
    """The translations every rail offers. ``S`` in the signatures is the rail's own settings type."""

    name: str

    def assets(self, settings: Any) -> frozenset[str] | None:
        """The assets it takes; None for any."""
        ...

    def open_request(self, settings: Any, intent: CheckoutIntent) -> HttpRequest | OpenedCheckout:
        """How to open a checkout there: a request to send, or the answer itself where none is needed."""
        ...

    def read_opened(self, settings: Any, response: HttpResponse) -> OpenedCheckout:
        """The answer to :meth:`open_request`. Raises RailRefused, RailUnavailable."""
        ...

    def find_request(self, settings: Any, checkout_id: str) -> HttpRequest | None:
        """How to look a checkout up by our id after an unknown outcome; None where it cannot exist twice."""
        ...

    def read_found(self, settings: Any, response: HttpResponse, checkout_id: str) -> OpenedCheckout | None:
        """The answer to :meth:`find_request`: None when the rail knows no such checkout.

        Raises RailUnavailable; :class:`~counterfoil.rails.mirror.MoreToAsk`.
        """
        ...

    def read_webhook(self, settings: Any, headers: Mapping[str, str], body: bytes, now: datetime) -> Notice:
        """Check the signature over the raw bytes, then read. Header names are lower case.

        Raises BadSignature.
        """
        ...

    def read_event(self, settings: Any, body: bytes) -> Notice:
        """A webhook's body that was verified before, read once more. Raises BadSignature when it is none."""
        ...

    def read_answer(self, settings: Any, body: bytes, response: HttpResponse, now: datetime) -> Notice:
        """A webhook's body that was verified before, with the answer to its question.

        Raises BadSignature when the body is none; RailRefused, RailUnavailable.
        """
        ...

    def report_requests(self, settings: Any, reference: str) -> tuple[HttpRequest, ...]:
        """The questions whose answers make a report; empty where the rail has nothing to ask."""
        ...

    def read_report(self, settings: Any, responses: tuple[HttpResponse, ...]) -> CheckoutReport:
        """The answers to :meth:`report_requests`. Raises RailRefused, RailUnavailable."""
        ...

    def refund_question(self, settings: Any, intent: RefundIntent) -> HttpRequest | None:
        """What has to be known of the payment before :meth:`refund_request` can be built; None = nothing."""
        ...

    def read_refund_question(self, settings: Any, intent: RefundIntent, response: HttpResponse) -> RefundIntent:
        """The intent with what was asked for in its ``details``. Raises RailRefused, RailUnavailable."""
        ...

    def refund_request(self, settings: Any, intent: RefundIntent) -> HttpRequest | RefundDone | None:
        """How to give money back: a request to send, or the answer itself where none is needed.

        None: this rail cannot, and a person has to. Raises RailRefused, RailUnavailable.
        """
        ...

    def read_refunded(self, settings: Any, response: HttpResponse) -> RefundDone | RefundUnderWay:
        """The answer to :meth:`refund_request`. Raises RailRefused, RailUnavailable."""
        ...

    def find_refund_request(self, settings: Any, intent: RefundIntent) -> HttpRequest | RefundDone | None:
        """How to find out what became of a refund after an unknown outcome; or the answer itself.

        None only where asking again with the same ``refund_id`` never gives the money back twice, however much later.
        """
        ...

    def read_found_refund(
        self, settings: Any, intent: RefundIntent, response: HttpResponse
    ) -> RefundDone | RefundUnderWay | None:
        """The answer to :meth:`find_refund_request`: None when the rail knows no such refund.

        Raises RefundFailed when it came to nothing there; RailRefused when the rail will not tell; RailUnavailable.
        """
        ...


class AsksNothing:
    """The part about questions of a rail whose webhooks and refunds need none."""

    def read_event(self, settings: Any, body: bytes) -> Notice:
        """Never kept. Raises RailRefused."""
        raise RailRefused("this rail's webhooks are not kept")

    def read_answer(self, settings: Any, body: bytes, response: HttpResponse, now: datetime) -> Notice:
        """Never asked. Raises RailRefused."""
        raise RailRefused("this rail asks nothing about webhooks")

    def refund_question(self, settings: Any, intent: RefundIntent) -> HttpRequest | None:
        """Nothing."""
        return None

    def read_refund_question(self, settings: Any, intent: RefundIntent, response: HttpResponse) -> RefundIntent:
        """Never asked. Raises RailRefused."""
        raise RailRefused("this rail asks nothing about refunds")


class RefundsByHand:
    """The part about refunds of a rail that cannot give money back: a person does, and says so."""

    def refund_request(self, settings: Any, intent: RefundIntent) -> HttpRequest | RefundDone | None:
        """It cannot."""
        return None

    def read_refunded(self, settings: Any, response: HttpResponse) -> RefundDone | RefundUnderWay:
        """Never asked. Raises RailUnavailable."""
        raise RailUnavailable("this rail gives no money back")

    def find_refund_request(self, settings: Any, intent: RefundIntent) -> HttpRequest | RefundDone | None:
        """Never asked."""
        return None

    def read_found_refund(
        self, settings: Any, intent: RefundIntent, response: HttpResponse
    ) -> RefundDone | RefundUnderWay | None:
        """Never asked."""
        return None
