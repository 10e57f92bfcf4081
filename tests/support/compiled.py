"""One cache of compiled statements for all tests of a process.

SQLAlchemy keeps what it compiled for each engine, and every test opens engines of its own: compiling the same
statements again and again would take a third of all the time. Servers have one engine, and are not affected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from counterfoil.db import postgres, sqlite

_kept: dict[Any, sa.Engine] = {}


def _sharing(key: Any, engine: sa.Engine) -> None:
    first = _kept.setdefault(key, engine)
    if first is not engine:
        engine.dialect = first.dialect  # a part of what compiled statements are found by
        engine.pool._dialect = first.dialect  # SQLAlchemy has no public way
        engine._compiled_cache = first._compiled_cache


def share() -> None:
    """Have all engines that are made from now on share what they compile."""
    make_sqlite: Callable[..., sa.Engine] = sqlite.engine_for
    make_postgres: Callable[..., sa.Engine] = postgres.create_engine

    def engine_for(path: str, *, read_only: bool = False) -> sa.Engine:
        engine = make_sqlite(path, read_only=read_only)
        _sharing(("sqlite", read_only), engine)
        return engine

    def create_engine(url: sa.URL, **options: Any) -> sa.Engine:
        engine = make_postgres(url, **options)
        _sharing("postgresql", engine)
        return engine

    sqlite.engine_for = engine_for
    postgres.create_engine = create_engine  # type: ignore[assignment]
