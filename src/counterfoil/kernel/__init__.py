"""Floor 0: values and pure functions. Nothing here reads a file, a socket or a clock by itself."""
