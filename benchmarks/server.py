"""A real server process to measure, and what the system says about it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used so far, by itself."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mb(pid: int) -> float:
    """Memory a process holds now, in MB (10**6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass
class Running:
    """A server that answers."""

    port: int
    pid: int
    first_answer_seconds: float
    """From starting the process to its first answer."""


@contextlib.contextmanager
def running(url: str, folder: Path, **settings: str) -> Iterator[Running]:
    """Start a server on a migrated database, and stop it afterwards."""
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COUNTERFOIL_")},
        "COUNTERFOIL_DATABASE_URL": url,
        "COUNTERFOIL_PORT": str(port),
        "COUNTERFOIL_SANDBOX": "1",
        "COUNTERFOIL_LOG_LEVEL": "warning",
        "COUNTERFOIL_VALIDATIONS_PER_MINUTE": "0",
        "COUNTERFOIL_MASTER_KEY_FILE": str(folder / "master.key"),
        **{f"COUNTERFOIL_{name.upper()}": value for name, value in settings.items()},
    }
    command = [sys.executable, "-m", "counterfoil.cli.main", "serve"]  # what a seller starts
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        yield Running(port, process.pid, _wait(port, process, started))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def _wait(port: int, process: subprocess.Popen[bytes], started: float) -> float:
    while time.perf_counter() - started < 30:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            if connection.recv(100).startswith(b"HTTP/1.1 200"):
                return time.perf_counter() - started
        time.sleep(0.005)
    raise TimeoutError("the server did not answer")
