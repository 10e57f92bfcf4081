"""Quotes, checkouts, payments and orders."""
