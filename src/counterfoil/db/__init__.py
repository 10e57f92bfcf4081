"""Floor 1: transactions on SQLite and PostgreSQL, and the rules every table follows."""
