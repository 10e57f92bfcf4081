"""What connecting a Stripe account leaves behind."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

API_VERSION: Final = "2026-08-26.dahlia"
"""The version whose shapes this rail speaks. Webhook endpoints are made with it, too."""

BASE_URL: Final = "https://api.stripe.com"


class StripeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One connected account, in one mode. Holds secrets, which no representation of it shows."""

    base_url: str = BASE_URL
    """An origin and an optional path, without a last slash."""
    api_key: str
    """A secret (``sk_...``) or restricted (``rk_...``) key."""
    webhook_secrets: tuple[str, ...] = ()
    """The endpoint's signing secrets (``whsec_...``): several while one replaces another."""
    webhook_id: str | None = None
    """The webhook endpoint that we made; None where the seller made it."""
    account_id: str | None = None
    """The account (``acct_...``); None where the key may not read it."""
    livemode: bool
    """Whether the key moves real money."""
    api_version: str = API_VERSION
    automatic_tax: bool = False
    """Whether Stripe works the tax out. Our prices then contain it (see ``checkout.open_parameters``)."""

    on_dispute: Literal["keep", "suspend", "revoke"] = "suspend"
    """What becomes of what was bought while a dispute about it is open."""

    def __repr__(self) -> str:
        return (
            f"StripeSettings(base_url={self.base_url!r}, account_id={self.account_id!r}, livemode={self.livemode}, "
            f"webhook_id={self.webhook_id!r}, api_key=..., webhook_secrets=...)"
        )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich, whose tracebacks would otherwise print every field."""
        return [
            ("base_url", self.base_url),
            ("account_id", self.account_id),
            ("livemode", self.livemode),
            ("webhook_id", self.webhook_id),
        ]
