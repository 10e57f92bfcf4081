"""What connecting a BTCPay store leaves behind."""

from __future__ import annotations

from typing import Any

import msgspec


class BTCPaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """One connected store. Holds two secrets, which no representation of it shows."""

    base_url: str
    """As :func:`~counterfoil.rails.btcpay.wire.normalize_base_url` returns it."""
    store_id: str
    api_key: str
    webhook_id: str | None
    """None while no webhook is registered there; reports are then only asked for."""
    webhook_secret: str

    def __repr__(self) -> str:
        return (
            f"BTCPaySettings(base_url={self.base_url!r}, store_id={self.store_id!r}, api_key=..., "
            f"webhook_id={self.webhook_id!r}, webhook_secret=...)"
        )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich, whose tracebacks would otherwise print every field."""
        return [("base_url", self.base_url), ("store_id", self.store_id), ("webhook_id", self.webhook_id)]
