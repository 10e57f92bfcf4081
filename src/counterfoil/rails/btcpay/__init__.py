"""BTCPay Server: bitcoin and Lightning, paid straight to the seller's own wallet.

``rail`` translates checkouts, webhooks and reports; ``connect`` the steps that connect a store;
``reports`` holds the rules by which an invoice becomes facts; ``wire`` what all calls share.
"""

from __future__ import annotations

from counterfoil.rails.btcpay.rail import BTCPayRail
from counterfoil.rails.btcpay.settings import BTCPaySettings
from counterfoil.rails.btcpay.wire import normalize_base_url

__all__ = ["BTCPayRail", "BTCPaySettings", "normalize_base_url"]
