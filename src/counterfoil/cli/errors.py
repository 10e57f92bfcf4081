"""What went wrong, in a sentence for whoever typed the command."""

from __future__ import annotations

from counterfoil.db.engines import BadDatabaseUrl
from counterfoil.db.migrate import BrokenReferences, MissingTables, NewerDatabase
from counterfoil.house import BadMasterKey
from counterfoil.kernel.errors import CounterfoilError
from counterfoil.kernel.secrets import SealBroken
from counterfoil.rails.base import RailRefused, RailUnavailable

_HINTS = {
    "product_not_found": "counterfoil product list",
    "price_not_found": "counterfoil price list",
    "license_not_found": "counterfoil license list",
    "order_not_found": "counterfoil order list",
    "checkout_not_found": "counterfoil checkout list",
    "payment_not_found": "counterfoil payment list",
    "cart_not_found": "counterfoil cart list",
    "discount_not_found": "counterfoil discount list",
    "customer_not_found": "counterfoil customer list",
    "refund_not_found": "counterfoil refund list",
    "subscription_not_found": "counterfoil subscription list",
    "invoice_not_found": "counterfoil invoice list",
    "dispute_not_found": "counterfoil dispute list",
    "change_in_progress": "counterfoil sync status",
    "payment_required": "name one with --payment",
    "address_not_found": "counterfoil customer address list CUSTOMER",
    "business_not_found": "counterfoil customer business list CUSTOMER",
    "machine_not_found": "counterfoil machine list LICENSE",
    "api_key_not_found": "counterfoil api-key list",
    "role_not_found": "counterfoil role list",
    "staff_not_found": "counterfoil staff list",
    "member_not_found": "counterfoil member list CUSTOMER",
    "tenant_not_found": "counterfoil tenant list",
    "email_not_found": "counterfoil mail list",
    "rail_not_connected": "counterfoil rail list",
    "rail_required": "name one with --rail",
    "unknown_asset": "codes are written in capitals: USD, EUR, SAT",
    "database_unavailable": "is it running, and is COUNTERFOIL_DATABASE_URL right?",
}
_MASTER_KEY = "set COUNTERFOIL_MASTER_KEY_FILE or COUNTERFOIL_MASTER_KEY"


class CliError(Exception):
    """A command cannot be done; ``hint`` says what may help."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def explain(error: Exception) -> tuple[str, str | None] | None:
    """The sentence for an error and a hint, or None for a defect."""
    match error:
        case CliError():
            hint = error.hint
        case CounterfoilError():
            hint = _HINTS.get(error.code)
        case RailRefused() | RailUnavailable():
            hint = None
        case BadDatabaseUrl():
            hint = "set COUNTERFOIL_DATABASE_URL"
        case BadMasterKey():
            hint = _MASTER_KEY
        case NewerDatabase():
            hint = "use the newest version of the program on this database"
        case MissingTables():
            hint = "docs/schema-mapping.md tells how names are given"
        case SealBroken():
            return "the master key is not the one this database was made with", _MASTER_KEY
        case BrokenReferences():
            hint = None
        case _:
            return None
    return str(error), hint
