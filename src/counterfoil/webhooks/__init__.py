"""Floor 4: telling other systems what happened."""
