"""Floor 4: requests that may be sent again."""
