"""A command line in this process, on each database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.cli.main import run
from counterfoil.db.engines import connect
from counterfoil.kernel.clock import SystemClock

R = TypeVar("R")


class Cli:
    """Runs commands: ``cli("product", "list")`` is what it prints, and fails the test if the command fails."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self.error = ""
        """What the last command wrote to standard error."""
        self._capsys = capsys

    def attempt(self, *arguments: str) -> tuple[int, str]:
        """Run a command; its exit code and its standard output."""
        self._capsys.readouterr()
        code = run(arguments)
        captured = self._capsys.readouterr()
        self.error = captured.err
        return code, captured.out

    def __call__(self, *arguments: str) -> str:
        code, output = self.attempt(*arguments)
        assert code == 0, self.error
        return output

    def json(self, *arguments: str) -> Any:
        """Run a command with ``--json``; the one document it prints."""
        return msgspec.json.decode(self(*arguments, "--json"))

    def refused(self, *arguments: str, code: int = 1) -> str:
        """Run a command that must fail; its complaint. Nothing may be on standard output."""
        given, output = self.attempt(*arguments)
        assert given == code, (given, output, self.error)
        assert output == ""
        return self.error

    def on_database(self, op: Callable[..., R], *arguments: Any, **more: Any) -> R:
        """Run an operation directly."""

        async def work() -> R:
            database = connect(self.url, SystemClock())
            try:
                return await database.scope(DEFAULT_TENANT).run(op, *arguments, **more)
            finally:
                await database.close()

        return asyncio.run(work())


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of one's own, without anybody's settings."""
    for name in list(os.environ):
        if name.startswith("COUNTERFOIL_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(database_url: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line on a migrated database without rows."""
    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", database_url)
    return Cli(database_url, capsys)


@pytest.fixture
def editor(cli: Cli) -> dict[str, str]:
    """A product that is for sale: its id and its price's."""
    product = cli.json("product", "create", "editor", "--name", "Editor")
    cli("benefit", "set", "editor", "--machines", "2", "--entitlement", "sync")
    price = cli.json("price", "create", "editor", "--sats", "21000")
    return {"product": product["id"], "price": price["id"]}
