"""Floor 4: work that nobody asks for: expiring, reconciling, tidying."""
