"""Floor 1: the record of what happened. Rows are added by ``Tx.record`` and never changed."""
