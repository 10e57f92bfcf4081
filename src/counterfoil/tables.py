"""Every table, for migrations and for the tests over the schema.

This module looks up the house from below, which no other module on this floor may do.
"""

from counterfoil.accounts import tables as accounts
from counterfoil.catalog import tables as catalog
from counterfoil.db.schema import metadata
from counterfoil.events import tables as events
from counterfoil.exchange import tables as exchange
from counterfoil.jobs import tables as jobs
from counterfoil.licensing import tables as licensing
from counterfoil.sales import tables as sales
from counterfoil.settlement import tables as settlement

__all__ = ["accounts", "catalog", "events", "exchange", "jobs", "licensing", "metadata", "sales", "settlement"]
