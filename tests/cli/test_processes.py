"""The program as a person starts and stops it: real processes, real signals, real ports."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli
from tests.support.server import free_port

PROGRAM = [sys.executable, "-m", "counterfoil.cli.main"]
_SECONDS = 60


class Started:
    """A command that goes on until it is told to stop."""

    def __init__(self, arguments: Sequence[str], folder: Path, url: str, port: int, **settings: str) -> None:
        self.port = port
        self.began = time.monotonic()
        self.output = folder / f"{arguments[0]}-{port}.out"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*PROGRAM, *arguments],
                cwd=folder,
                env=environment(url, port, **settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, there: Callable[[], Any]) -> Any:
        """Wait until something is there; it."""
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            found = there()
            if found:
                return found
            time.sleep(0.01)
        raise AssertionError(self.text())

    def get(self, path: str, key: str | None = None) -> tuple[int, Any]:
        """Ask the server; the status and the document."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
            answer = connection.getresponse()
            body = answer.read()
            kind = answer.headers.get_content_type()
            return answer.status, json.loads(body) if kind.endswith("json") else body.decode()
        finally:
            connection.close()

    def until_it_answers(self, path: str = "/health") -> float:
        """Wait for the first answer; seconds from the start."""

        def answers() -> float | None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get(path)[0] == 200:
                    return time.monotonic() - self.began
            return None

        seconds: float = self.wait_for(answers)
        return seconds

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(_SECONDS)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(_SECONDS)


def environment(url: str, port: int, **settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERFOIL_")}
    ours = {f"COUNTERFOIL_{name.upper()}": value for name, value in settings.items()}
    return {**inherited, "COUNTERFOIL_DATABASE_URL": url, "COUNTERFOIL_PORT": str(port), **ours}


@pytest.fixture
def start(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts commands on one migrated database, in one folder; whatever still runs at the end is killed."""
    running: list[Started] = []

    def _start(*arguments: str, port: int | None = None, url: str = database_url, **settings: str) -> Started:
        started = Started(arguments, tmp_path, url, port or free_port(), **settings)
        running.append(started)
        return started

    yield _start
    for started in running:
        started.kill()


def run(*arguments: str, folder: Path, url: str, port: int = 1, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=folder,
        env=environment(url, port),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        **more,
    )


@pytest.mark.parametrize(("dialect", "number"), [("sqlite", signal.SIGTERM), ("postgresql", signal.SIGINT)])
def test_serve_answers_and_stops_cleanly(start: Callable[..., Started], number: int) -> None:
    server = start("serve")
    server.until_it_answers()
    assert server.get("/v1/products") == (200, {"data": [], "next": None})
    assert server.stop(number) == 0
    assert server.text().splitlines()[0].endswith(f" serves http://127.0.0.1:{server.port}")
    assert '"level": "error"' not in server.text()
    assert "Traceback" not in server.text()


def test_serve_migrates_when_asked(start: Callable[..., Started], empty_database_url: str, tmp_path: Path) -> None:
    refused = run("serve", folder=tmp_path, url=empty_database_url)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.endswith(" has no tables yet\nhint:  run: counterfoil migrate\n")
    server = start("serve", "--migrate", url=empty_database_url)
    server.until_it_answers()
    assert server.stop() == 0


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_port_in_use(database_url: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for command in ("serve", "demo"):
            refused = run(command, folder=tmp_path, url=database_url, port=port)
            assert (refused.returncode, refused.stdout) == (1, "")
            assert refused.stderr == f"error: port {port} of 127.0.0.1 is in use\nhint:  set COUNTERFOIL_PORT\n"


def test_worker_does_the_jobs_of_servers_that_do_not(start: Callable[..., Started], cli: Cli) -> None:
    server = start("serve", jobs="false")
    server.until_it_answers()
    worker = start("worker")
    worker.wait_for(lambda: "jobs run here" in worker.text())
    worker.wait_for(lambda: '"jobs": "ok"' in cli.attempt("health", "--json")[1])
    assert worker.stop() == 0
    said, *logged = worker.text().splitlines()
    assert said == "jobs run here"
    assert {(line["event"], line["level"]) for line in map(json.loads, logged)} <= {("job done", "info")}
    assert server.stop() == 0


def _demo_key(text: str) -> str:
    found = re.search(r"demo key   (cfk_[0-9a-z]{38})$", text, re.MULTILINE)
    assert found is not None, text
    return found[1]


def test_demo_twice_is_one_demo(start: Callable[..., Started], tmp_path: Path) -> None:
    first = start("demo")
    took = [first.until_it_answers()]
    first.wait_for(lambda: "Ctrl-C" in first.text())
    key = _demo_key(first.text())
    catalog = first.get("/v1/products")[1]
    everything = {path: first.get(path, key)[1] for path in ("/v1/prices", "/v1/discounts")}
    assert [one["slug"] for one in catalog["data"]] == ["quillpad", "inkwell"]
    assert [one["code"] for one in everything["/v1/discounts"]["data"]] == ["GIFT", "TENOFF"]
    for line in first.text().splitlines():
        if line.startswith(("  shop", "  product", "  API")):
            address = line.split()[1]
            assert address.startswith(f"http://127.0.0.1:{first.port}/")
            assert first.get(address.removeprefix(f"http://127.0.0.1:{first.port}"))[0] == 200, line
    assert first.stop(signal.SIGINT) == 0
    kept = tmp_path / "var" / "demo.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    second = start("demo", port=first.port)
    took.append(second.until_it_answers())
    second.wait_for(lambda: "Ctrl-C" in second.text())
    assert second.text() == first.text()
    assert second.get("/v1/products")[1] == catalog
    assert {path: second.get(path, key)[1] for path in everything} == everything
    assert second.stop() == 0
    print(f"seconds to the first answer: {took[0]:.2f}, then {took[1]:.2f}")


def test_demo_leaves_what_the_seller_changed(start: Callable[..., Started], cli: Cli) -> None:
    first = start("demo")
    first.wait_for(lambda: "Ctrl-C" in first.text())
    key = _demo_key(first.text())
    first.stop()
    cli("product", "archive", "inkwell")
    (listed,) = cli.json("api-key", "list")["data"]
    assert listed["name"] == "demo"
    cli("api-key", "revoke", listed["id"])
    second = start("demo")
    second.wait_for(lambda: "Ctrl-C" in second.text())
    fresh = _demo_key(second.text())
    assert fresh != key
    assert (second.get("/v1/orders", fresh)[0], second.get("/v1/orders", key)[0]) == (200, 401)
    assert [one["slug"] for one in second.get("/v1/products")[1]["data"]] == ["quillpad"]


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_reader_who_has_seen_enough_is_no_error(database_url: str, tmp_path: Path, cli: Cli) -> None:
    cli("product", "create", "editor")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*PROGRAM, "product", "show", "editor"],
        cwd=tmp_path,
        env=environment(database_url, 1),
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=_SECONDS,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_terminal_shows_what_a_pipe_gets(database_url: str, tmp_path: Path, cli: Cli) -> None:
    cli("product", "create", "editor")
    plain = run("product", "list", folder=tmp_path, url=database_url).stdout
    ours, theirs = pty.openpty()
    env = {**environment(database_url, 1), "COLUMNS": "150", "TERM": "xterm"}
    with subprocess.Popen(
        [*PROGRAM, "product", "list"], cwd=tmp_path, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        process.wait(_SECONDS)
        os.close(theirs)
        shown = os.read(ours, 100_000).decode()
        os.close(ours)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in shown.splitlines()]
    assert lines == plain.splitlines()
    assert "\x1b[1m" in shown


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_revoking_asks_a_person(database_url: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"n\n")
    done = run("keys", "rotate", folder=tmp_path, url=database_url, stdin=theirs)
    os.close(theirs)
    os.close(ours)
    assert (done.returncode, done.stdout.strip()) == (1, "")
    assert done.stderr.startswith("Programs that check licenses offline need the new public key. Rotate? [y/N]:")
    assert done.stderr.endswith("error: stopped; nothing was changed\n")


_HEAVY = ("alembic", "httpx", "jinja2", "litestar", "pydantic", "sqlalchemy", "uvicorn", "rich")


@pytest.mark.parametrize(
    ("code", "without"),
    [
        ("import counterfoil.cli.main as m; m.run(['--help'])", _HEAVY),
        ("import counterfoil.cli.product", ("alembic", "httpx", "jinja2", "litestar", "uvicorn")),
        ("import counterfoil.cli.serve", ("alembic", "httpx", "typer.rich_utils")),
        (
            "import counterfoil.cli.serve, counterfoil.db.postgres, counterfoil.api.app as a; a.build()",
            ("alembic", "attr", "pydantic", "rich", "sqlalchemy.orm"),
        ),
    ],
)
def test_what_is_not_used_is_not_imported(code: str, without: tuple[str, ...]) -> None:
    script = f"import sys; {code}; print('|'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(done.stdout.splitlines()[-1].split("|"))
    assert modules.isdisjoint(without)
