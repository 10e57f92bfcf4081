"""Floor 2: rails, as pure translators between a provider's JSON and our facts. No database, no network."""
