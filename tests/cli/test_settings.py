"""What a command says when it cannot even begin."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path

import pytest
from tests.cli.conftest import Cli

from counterfoil.cli.main import run
from counterfoil.db.migrate import HEAD
from counterfoil.kernel.secrets import MasterKey
from counterfoil.settings import Settings


@pytest.fixture
def bare(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line where nothing was set up: an SQLite file that does not exist yet."""
    return Cli("sqlite:///var/counterfoil.db", capsys)


def test_database_that_was_not_migrated(
    empty_database_url: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", empty_database_url)
    cli = Cli(empty_database_url, capsys)
    for command in (["product", "list"], ["serve"], ["worker"], ["health"]):
        error = cli.refused(*command)
        assert error.endswith(" has no tables yet\nhint:  run: counterfoil migrate\n"), error
    applied = cli("migrate").splitlines()
    assert (applied[0], applied[-2]) == ("applied 0001_first_tables", f"applied {HEAD}")
    assert cli("migrate").endswith(f" is up to date at {HEAD}\n")
    assert cli("product", "list") == ""


def test_refused_command_makes_no_files(bare: Cli, elsewhere: Path) -> None:
    assert bare.refused("product", "list").startswith("error: sqlite:///var/counterfoil.db has no tables yet\n")
    assert list(elsewhere.iterdir()) == []


def test_first_command_makes_a_private_master_key(bare: Cli, elsewhere: Path) -> None:
    bare("migrate")
    bare("product", "create", "editor")
    assert stat.S_IMODE((elsewhere / "var" / "master.key").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("DATABASE_URL", "mysql://db/x", "mysql is not supported: use sqlite:///path or postgresql://user@host/name"),
        ("DATABASE_URL", "nonsense", "not a database URL: use sqlite:///path or postgresql://user@host/name"),
        ("DATABASE_URL", "sqlite://", "an SQLite URL names a file: sqlite:///var/counterfoil.db"),
        ("PORT", "http", "COUNTERFOIL_PORT: must be a whole number, at least 0, at most 65535"),
        ("PORT", "70000", "COUNTERFOIL_PORT: must be a whole number, at least 0, at most 65535"),
        ("LOG_LEVEL", "loud", "COUNTERFOIL_LOG_LEVEL: must be one of: debug, info, warning, error"),
        (
            "ARCHIVAL_RETENTION",
            "90",
            "COUNTERFOIL_ARCHIVAL_RETENTION: must be hours (2160h) or days (90d), at least 1h",
        ),
        (
            "ARCHIVAL_RETENTION",
            "0h",
            "COUNTERFOIL_ARCHIVAL_RETENTION: must be hours (2160h) or days (90d), at least 1h",
        ),
        (
            "ARCHIVAL_INTERVAL",
            "-1d",
            "COUNTERFOIL_ARCHIVAL_INTERVAL: must be hours (2160h) or days (90d), at least 1h",
        ),
        (
            "ARCHIVAL_INTERVAL",
            "999999d",
            "COUNTERFOIL_ARCHIVAL_INTERVAL: must be hours (2160h) or days (90d), at least 1h",
        ),
        ("TRUSTED_PROXIES", "10.0.0.0/8", "COUNTERFOIL_TRUSTED_PROXIES: must be JSON"),
    ],
)
def test_bad_settings(bare: Cli, monkeypatch: pytest.MonkeyPatch, name: str, value: str, complaint: str) -> None:
    monkeypatch.setenv(f"COUNTERFOIL_{name}", value)
    error = bare.refused("product", "list")
    assert error.startswith(f"error: {complaint}")
    assert len(error.splitlines()) == 2
    assert "Traceback" not in error


def test_bad_settings_file(bare: Cli, elsewhere: Path) -> None:
    (elsewhere / "counterfoil.toml").write_text("port = \n")
    assert bare.refused("product", "list").startswith("error: counterfoil.toml cannot be read: ")
    (elsewhere / "counterfoil.toml").write_text("prot = 1\n")
    assert bare.refused("product", "list").startswith("error: COUNTERFOIL_PROT: there is no such setting\n")


def test_database_password_is_never_shown(bare: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", "postgresql://seller:hunter2@127.0.0.1:1/shop")
    error = bare.refused("product", "list")
    assert error.startswith("error: The database cannot be reached")
    assert error.endswith("\nhint:  is it running, and is COUNTERFOIL_DATABASE_URL right?\n")
    assert "hunter2" not in error


def test_file_that_is_no_database(bare: Cli, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "notes.txt").write_text("buy milk\n" * 1000)
    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", "sqlite:///notes.txt")
    for command in ("health", "migrate"):
        assert bare.refused(command).startswith("error: The database could not be ")


@pytest.mark.parametrize("text", ["", "short", "not base 64!"])
def test_bad_master_key_file(cli: Cli, elsewhere: Path, text: str) -> None:
    (elsewhere / "var").mkdir()
    (elsewhere / "var" / "master.key").write_text(text)
    error = cli.refused("product", "list")
    assert error.startswith("error: the master key cannot be read: ")
    assert error.endswith("hint:  set COUNTERFOIL_MASTER_KEY_FILE or COUNTERFOIL_MASTER_KEY\n")
    assert text == "" or text not in error


def test_master_key_that_is_a_folder(cli: Cli, elsewhere: Path) -> None:
    (elsewhere / "var" / "master.key").mkdir(parents=True)
    assert cli.refused("product", "list").startswith("error: the master key cannot be read: ")


def test_master_key_of_another_installation(cli: Cli, editor: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    cli("license", "create", "editor")
    license_id = cli.json("license", "list")["data"][0]["id"]
    monkeypatch.setenv("COUNTERFOIL_MASTER_KEY", MasterKey.generate().to_text())
    assert cli.refused("license", "show", license_id) == (
        "error: the master key is not the one this database was made with\n"
        "hint:  set COUNTERFOIL_MASTER_KEY_FILE or COUNTERFOIL_MASTER_KEY\n"
    )


def test_unknown_tenant(cli: Cli) -> None:
    assert cli.refused("--tenant", "acme", "product", "list") == "error: there is no tenant 'acme'\n"
    assert cli("--tenant", "default", "product", "list") == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["prodcut"], "error: No such command 'prodcut'. Did you mean 'product'?\nhint:  counterfoil --help\n"),
        (["product"], "error: Missing command.\nhint:  counterfoil product --help\n"),
        (["product", "show"], "error: Missing argument 'PRODUCT'.\nhint:  counterfoil product show --help\n"),
        (["product", "list", "--limit", "0"], "hint:  counterfoil product list --help\n"),
        (
            ["product", "list", "--lots"],
            "error: No such option: --lots (Possible options: --limit)\nhint:  counterfoil product list --help\n",
        ),
        (["product", "show", "\udcff"], "error: the arguments are not text in this terminal's encoding\n"),
    ],
)
def test_commands_that_make_no_sense(bare: Cli, arguments: list[str], complaint: str) -> None:
    assert bare.refused(*arguments, code=2).endswith(complaint)


def test_defects_are_not_hidden(bare: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("counterfoil.cli.context.load_settings", broken)
    with pytest.raises(ZeroDivisionError):
        run(["product", "list"])


@pytest.mark.parametrize(("text", "hours"), [("2160h", 2160), ("90d", 2160), ("1h", 1), ("36h", 36), ("1d", 24)])
def test_spans(text: str, hours: int) -> None:
    settings = Settings.load(archival_retention=text, archival_interval=text)
    assert settings.archived_after == settings.archived_every == timedelta(hours=hours)
    assert settings.archival_enabled is False
