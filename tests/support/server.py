"""A real server in a process of its own, reached over real HTTP.

    with serving(database_url, tmp_path) as server:
        httpx.get(f"{server.url}/health")

The process stops by its own pid, and ends by itself should the tests die first.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import socket
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import httpx

from counterfoil.accounts import api_keys
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.engines import connect
from counterfoil.kernel.clock import SystemClock
from counterfoil.kernel.secrets import MasterKey
from tests.support import server_process

ROOT = Path(__file__).parents[2]
READY_SECONDS = 60
"""How long a start may take: generous, for machines that run many tests at once."""
STOP_SECONDS = 30
_STARTS = 3
_PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to connections (``ip_local_port_range``)."""


class ServerDidNotStart(RuntimeError):
    """The server ended, or did not answer in time; its output is the message."""


_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.support.server_process"])


class Server:
    """A running server."""

    def __init__(self, url: str, port: int, process: ForkServerProcess, lifeline: Connection, log: Path) -> None:
        self.url = url
        """Its address, without a slash at the end."""
        self.port = port
        self.log = log
        """What it wrote to standard output and standard error."""
        self._process = process
        self._lifeline = lifeline

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def stop(self) -> int:
        """Ask it to stop (SIGTERM), as an operator would; its exit code. Raises TimeoutError."""
        if self.is_alive:
            self._process.terminate()
        self._process.join(STOP_SECONDS)
        code = self._process.exitcode
        if code is None:
            self.kill()
            raise TimeoutError(f"the server did not stop within {STOP_SECONDS} seconds")
        self._lifeline.close()
        return code

    def kill(self) -> None:
        """End it at once (SIGKILL): the pulled plug."""
        self._process.kill()
        self._process.join(STOP_SECONDS)
        self._lifeline.close()


def mint_key(database_url: str) -> str:
    """An API key of the default tenant that may do everything; the server has started before."""

    async def mint() -> str:
        database = connect(database_url, SystemClock())
        try:
            scope = database.scope(DEFAULT_TENANT)
            return (await scope.run(api_keys.create, "tests", ["*"], secret=api_keys.new_secret())).secret
        finally:
            await database.close()

    # A loop of its own that is never the current one, so that it disturbs no test's.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(mint())


def free_port() -> int:
    """A loopback port that was free a moment ago.

    Not one that the system hands out by itself: while its server is away, nobody's connection may take it.
    """
    for port in random.sample(_PORTS, 100):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")


def start(
    database_url: str,
    folder: Path,
    *,
    master: MasterKey | None = None,
    port: int | None = None,
    sandbox: bool = True,
    **settings: str,
) -> Server:
    """Migrate a database and serve it. ``folder`` keeps its master key and its log, also across restarts.

    ``settings`` are more of them by name: ``quote_minutes="1"``. Without ``port``, a free one is found.
    Raises ServerDidNotStart.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if master is not None:
        (folder / "master.key").write_text(master.to_text())
    for attempt in range(1, _STARTS + 1):
        # The address must be known before the start, because it is part of what the server hands out. So
        # another process may take the port in between: then try another one.
        chosen = port or free_port()
        server = _launch(database_url, folder, chosen, {"sandbox": "true" if sandbox else "false", **settings})
        if _wait_until_ready(server):
            return server
        output = server.log.read_text(errors="replace")[-8000:]
        server.kill()
        if port is not None or attempt == _STARTS or "address already in use" not in output.lower():
            raise ServerDidNotStart(output)
    raise AssertionError("unreachable")


@contextlib.contextmanager
def serving(
    database_url: str,
    folder: Path,
    *,
    master: MasterKey | None = None,
    port: int | None = None,
    sandbox: bool = True,
    **settings: str,
) -> Iterator[Server]:
    """:func:`start`, and stop at the end."""
    server = start(database_url, folder, master=master, port=port, sandbox=sandbox, **settings)
    try:
        yield server
    finally:
        if server.is_alive:
            server.stop()


def _launch(database_url: str, folder: Path, port: int, settings: dict[str, str]) -> Server:
    given = {
        "database_url": database_url,
        "host": "127.0.0.1",
        "port": str(port),
        "master_key_file": str(folder / "master.key"),
        **settings,
    }
    ours = {f"COUNTERFOIL_{name.upper()}": value for name, value in given.items()}
    log = folder / "server.log"
    lifeline, theirs = _forks.Pipe()
    process = _forks.Process(target=server_process.main, args=(folder, log, ours, theirs), daemon=True)
    process.start()
    theirs.close()
    return Server(f"http://127.0.0.1:{port}", port, process, lifeline, log)


def _wait_until_ready(server: Server) -> bool:
    deadline = time.monotonic() + READY_SECONDS
    with httpx.Client(timeout=5, trust_env=False) as client:
        while time.monotonic() < deadline and server.is_alive:
            with contextlib.suppress(httpx.TransportError):
                # Another program's answer on this port is not ours.
                if client.get(f"{server.url}/health").status_code == 200 and server.is_alive:
                    return True
            time.sleep(0.02)
    return False
