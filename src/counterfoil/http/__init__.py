"""Floor 4: what the API and the pages share: who asks, what may follow, and how errors are told."""
