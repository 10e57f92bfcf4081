"""Floor 1: the letters we owe. They are queued here with what they report, and sent by exchange."""
