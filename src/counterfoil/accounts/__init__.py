"""Who sells (tenants), and the programs that may act for them (API keys)."""
