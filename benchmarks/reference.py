"""What the same statements cost without us: raw sqlite3 in one loop, and pgbench.

Each does what a validation does to the database (read the license with its product, write the log
line), durably, and nothing else: no HTTP, no signature, no JSON.
"""

from __future__ import annotations

import re
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

from counterfoil.accounts.types import DEFAULT_TENANT

_READ = """
SELECT l.*, p.slug FROM licenses l JOIN products p ON p.tenant_id = l.tenant_id AND p.id = l.product_id
WHERE l.tenant_id = {tenant} AND l.id = {license}
"""
_LOG = """
INSERT INTO validation_log (tenant_id, id, license_id, product_id, result, created_at)
VALUES ({tenant}, {id}, {license}, {product}, 'ok', {now})
"""


_PGBENCH = """
BEGIN;
SELECT l.*, p.slug FROM bench_ids b
JOIN licenses l ON l.tenant_id = b.tenant_id AND l.id = b.id
JOIN products p ON p.tenant_id = l.tenant_id AND p.id = l.product_id
WHERE b.n = :n;
INSERT INTO validation_log (tenant_id, id, license_id, product_id, result, created_at)
SELECT b.tenant_id, 'val_' || gen_random_uuid(), b.id, 'pro', 'ok', now() FROM bench_ids b WHERE b.n = :n;
COMMIT;
"""


def sqlite_rate(path: Path, license_ids: list[str], *, group: int, seconds: float) -> float:
    """Validations a second by raw sqlite3, committing every ``group`` of them with synchronous=FULL."""
    read = _READ.format(tenant="?", license="?")
    log = _LOG.format(tenant="?", id="?", license="?", product="?", now="?")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        done = 0
        started = time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds:
            connection.execute("BEGIN IMMEDIATE")
            for _ in range(group):
                license_id = license_ids[done % len(license_ids)]
                row = connection.execute(read, (DEFAULT_TENANT, license_id)).fetchone()
                now = time.time_ns() // 1000
                connection.execute(log, (DEFAULT_TENANT, f"val_ref_{group}_{started}_{done}", license_id, row[2], now))
                done += 1
            connection.execute("COMMIT")
    return done / spent


def pgbench_rate(programs: Path, url: str, license_ids: list[str], *, clients: int, seconds: int) -> float:
    """Validations a second by pgbench: prepared statements, one transaction each."""
    script = f"\\set n random(0, {len(license_ids) - 1})\n{_PGBENCH}"
    socket = re.search(r"host=([^&]+)", url)
    name = url.partition("?")[0].rpartition("/")[2]
    assert socket is not None
    command = [
        str(programs / "pgbench"), "-h", socket[1], "-U", "postgres", "-n", "-M", "prepared", "-c", str(clients),
        "-j", "1", "-T", str(seconds), "-f", "/dev/stdin", name,
    ]  # fmt: skip
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found is not None
    return float(found[1])
