"""Measured work. ``make bench`` prints a table; nothing here asserts by the clock."""
