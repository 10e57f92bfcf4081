"""A database behind the program's back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from counterfoil.db.engines import parse_url

R = TypeVar("R")


def on(url: str, work: Callable[[sa.Connection], R]) -> R:
    """Do something on a connection of one's own, and commit."""

    async def main() -> R:
        engine = create_async_engine(parse_url(url))
        try:
            async with engine.begin() as connection:
                return await connection.run_sync(work)
        finally:
            await engine.dispose()

    if url.startswith("sqlite"):
        engine = sa.create_engine(url)
        try:
            with engine.begin() as connection:
                return work(connection)
        finally:
            engine.dispose()
    return asyncio.run(main())
