"""What connecting a Paddle account leaves behind."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

TaxMode = Literal["internal", "external"]
"""Whether a price has its tax in it, or tax comes on top."""

LIVE: Final = "https://api.paddle.com"
SANDBOX: Final = "https://sandbox-api.paddle.com"


class PaddleSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One connected account, live or sandbox. Holds secrets, which no representation of it shows."""

    api_key: str
    livemode: bool
    webhook_secrets: tuple[str, ...] = ()
    """Secret keys of notification destinations: any of them may have signed, so that they can be rotated."""
    notification_setting_id: str | None = None
    """Our notification destination there; None while there is none, and Paddle is only asked."""
    tax_mode: TaxMode = "internal"
    """What a price means by ``account_setting``. Paddle's API does not tell the account's own setting, so the seller
    does, and every price is sent with one of the two."""
    checkout_url: str | None = None
    """A page of the seller's on a domain that Paddle has approved, which opens Paddle's checkout; None for the
    account's default payment link."""
    on_dispute: Literal["keep", "suspend", "revoke"] = "suspend"
    """What becomes of what was bought while a dispute about it is open."""
    base_url: str = ""
    """Where the API is: scheme, host and port. Left out, Paddle's own for the mode."""

    def __post_init__(self) -> None:
        origin = self.base_url.rstrip("/") or (LIVE if self.livemode else SANDBOX)
        msgspec.structs.force_setattr(self, "base_url", origin)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"PaddleSettings({shown}, api_key=..., webhook_secrets=...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich, whose tracebacks would otherwise print every field."""
        hidden = {"api_key", "webhook_secrets"}
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name not in hidden]
