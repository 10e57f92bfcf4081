"""Floor 5: the pages."""
