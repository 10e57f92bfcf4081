"""Peers that are installed beside the project, under ``.tools``: ``python -m tests.peers.tools``.

Standard library only. What cannot be installed here is said, and the tests that need it skip.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOOLS = ROOT / ".tools"
INSTALL_SECONDS = 300


@dataclass(frozen=True)
class PythonTool:
    """A Python environment of its own, with exactly what a requirements file names."""

    name: str
    requirements: Path
    version: str | None = None
    """The Python it needs, such as ``3.13``; None for the one that runs this."""
    options: tuple[str, ...] = ()
    """For pip."""

    @property
    def folder(self) -> Path:
        return TOOLS / self.name

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def stamp(self) -> Path:
        return self.folder / "installed.txt"

    def available(self) -> str | None:
        """Why it cannot be used here; None when it can."""
        if self.stamp.is_file() and self.stamp.read_text() == self.requirements.read_text():
            return None
        if self.interpreter() is None:
            return f"{self.name} needs Python {self.version}, which is not installed"
        return f"{self.name} is not in .tools (tests/install-peers puts it there)"

    def interpreter(self) -> str | None:
        """The Python to make it with; None where there is none."""
        if self.version is None:
            return sys.executable
        found = [shutil.which(f"python{self.version}")]
        found += [str(path) for path in sorted(Path.home().glob(f".pyenv/versions/{self.version}*/bin/python"))]
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            # What is installed already, without fetching any.
            command = [uv, "python", "find", "--offline", "--no-python-downloads", self.version]
            found.append(subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip())
        for candidate in found:
            if candidate and self._is_it(candidate):
                return candidate
        return None

    def _is_it(self, candidate: str) -> bool:
        # A pyenv shim is on the PATH also for versions that are not chosen.
        asked = "import sys; print('%d.%d' % sys.version_info[:2])"
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            answer = subprocess.run([candidate, "-c", asked], check=True, capture_output=True, text=True, timeout=30)
            return answer.stdout.strip() == self.version
        return False

    def install(self) -> None:
        """Make it, unless it is there. Raises CalledProcessError, TimeoutExpired."""
        interpreter = self.interpreter()
        if self.available() is None or interpreter is None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--no-deps", *self.options]
        for command in ([interpreter, "-m", "venv", str(self.folder)], [*pip, "-r", str(self.requirements)]):
            subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS)
        shutil.copyfile(self.requirements, self.stamp)


@dataclass(frozen=True)
class NodeTool:
    """A command of an npm package."""

    command: str
    package: str
    version: str

    @property
    def binary(self) -> Path:
        return TOOLS / "node_modules" / ".bin" / self.command

    def available(self) -> str | None:
        """Why it cannot be used here; None when it can."""
        if shutil.which("node") is None:
            return "node is not installed"
        if not self.binary.exists():
            return f"{self.package} is not in .tools (tests/install-peers puts it there)"
        return None

    def install(self) -> None:
        """Install it, unless it is there or there is no npm. Raises CalledProcessError, TimeoutExpired."""
        npm = shutil.which("npm")
        if self.binary.exists() or npm is None:
            return
        command = [npm, "install", "--prefix", str(TOOLS), "--no-audit", "--no-fund", "--silent"]
        subprocess.run(
            [*command, f"{self.package}@{self.version}"], check=True, capture_output=True, timeout=INSTALL_SECONDS
        )


STRIPE_WORLD = PythonTool(
    "stripe-world",
    HERE / "requirements-stripe.txt",
    version="3.13",
    # Compiled by its own hook; see stripe_world.py.
    options=("--ignore-requires-python", "--no-compile", "--only-binary=:all:"),
)
LOCALSTRIPE = PythonTool("localstripe", HERE / "requirements-localstripe.txt")
STEADY = NodeTool("steady", "@stdy/cli", "0.22.2")

STRIPE_SPEC = STRIPE_WORLD.folder / "lib/python3.13/site-packages/seahaven_stripe_world/spec/spec3.json"
"""Stripe's full OpenAPI document, which the package carries."""


@contextlib.contextmanager
def running(command: list[str], *, ready: str, seconds: float = 60) -> Iterator[str]:
    """A server, until the block ends; gives the first line of its output that holds ``ready``.

    Raises RuntimeError when it does not start.
    """
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    output, started = process.stdout, threading.Event()
    lines: list[str] = []
    first: list[str] = []

    def read() -> None:
        # Read to the end, or a full pipe would block it.
        for raw in output:
            line = raw.decode(errors="replace")
            if len(lines) < 200:
                lines.append(line)
            if ready in line and not first:
                first.append(line.strip())
                started.set()
        started.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        if not started.wait(seconds) or not first:
            raise RuntimeError(f"{command[0]} did not start:\n" + "".join(lines))
        yield first[0]
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(10)
        output.close()


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def main() -> None:
    """Install what this machine allows."""
    for tool, name in ((STRIPE_WORLD, "stripe-world"), (LOCALSTRIPE, "localstripe"), (STEADY, "steady")):
        if tool.available() is None:
            continue
        print(f"installing {name}")
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            tool.install()
        if reason := tool.available():
            print(f"could not install it; its tests will skip: {reason}")


if __name__ == "__main__":
    main()
