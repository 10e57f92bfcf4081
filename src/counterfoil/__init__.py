"""Counterfoil: verified money in, rights out, exactly once, in one transaction."""

__version__ = "0.1.0"
