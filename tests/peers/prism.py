"""Prism as a validating proxy: what passes it obeys the specification, in both directions.

With ``--errors``, Prism answers 500 when the server's answer breaks the specification and 422 when the
request does. Violations of neither kind are only named in the ``sl-violations`` header.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
BINARY = TOOLS / "node_modules" / ".bin" / "prism"
PACKAGE = "@stoplight/prism-cli@5.14.2"
SPECS = ROOT.parent / "shared" / "specs"
SPEC = SPECS / "btcpay-greenfield-2.4.1.json"
PADDLE = SPECS / "paddle-openapi-2025-05-27.yaml"
START_SECONDS = 60


def available(spec: Path = SPEC) -> str | None:
    """Why Prism cannot be used here; None when it can."""
    if not spec.is_file():
        return f"the specification {spec.name} is not in ../shared/specs"
    if shutil.which("node") is None:
        return "node is not installed"
    if not BINARY.exists():
        return f"{PACKAGE} is not in .tools (tests.peers.prism.install() puts it there)"
    return None


def install() -> bool:
    """Install Prism under ``.tools``; False when there is no npm to do it. Raises CalledProcessError."""
    npm = shutil.which("npm")
    if npm is None:
        return False
    command = [npm, "install", "--prefix", str(TOOLS), "--no-audit", "--no-fund", PACKAGE]
    subprocess.run(command, check=True, capture_output=True)
    return True


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running(upstream: str, spec: Path = SPEC) -> Iterator[str]:
    """The address of a Prism in front of ``upstream``. Raises RuntimeError when it does not start."""
    port = _free_port()
    command = [str(BINARY), "proxy", str(spec), upstream, "--errors", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    output, ready = process.stdout, threading.Event()
    lines: list[str] = []

    def read() -> None:
        # Read to the end, or a full pipe would block it.
        for line in output:
            if len(lines) < 200:
                lines.append(line.decode(errors="replace"))
            if b"listening on" in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        if not ready.wait(START_SECONDS) or process.poll() is not None:
            raise RuntimeError("Prism did not start:\n" + "".join(lines))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(10)
        output.close()
