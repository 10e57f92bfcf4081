"""Subscriptions: what is paid again."""
