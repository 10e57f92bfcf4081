"""The process behind :mod:`tests.support.server`: migrates, then serves until it is told to stop.

Such processes are forked off one that has imported everything and built the application already, which takes most of a
start. Each stops when the test process that asked for it ends, however it ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

# What only a server imports, so that the process that all are forked off has it.
import alembic.command
import alembic.runtime.migration
import asyncpg
import uvicorn.protocols.http.httptools_impl
import uvloop

from counterfoil import server
from counterfoil.api.app import build, move_in
from counterfoil.db import postgres, sqlite
from counterfoil.db.migrate import migrate
from counterfoil.settings import Settings
from counterfoil.web.site import PAGES
from tests.support.network import stay_on_loopback

__all__ = ["alembic", "asyncpg", "main", "postgres", "sqlite", "uvicorn", "uvloop"]


_APP = build(PAGES)


def main(folder: Path, log: Path, settings: dict[str, str], lifeline: Connection) -> None:
    """Serve. ``lifeline``: ends with whoever wants this server."""
    os.setsid()  # Ctrl-C is for the tests; the server stops after them
    os.chdir(folder)  # so that nobody's counterfoil.toml is read
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for name in [name for name in os.environ if name.startswith("COUNTERFOIL_")]:
        del os.environ[name]
    os.environ.update(settings)
    stay_on_loopback()
    threading.Thread(target=_stop_with, args=(lifeline,), daemon=True).start()
    made = Settings.load()
    migrate(made.database_url)
    server.create_app = lambda house, _: move_in(_APP, house)  # type: ignore[assignment, misc]
    server.serve(made)
    sys.stdout.flush()
    sys.stderr.flush()


def _stop_with(lifeline: Connection) -> None:
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
