"""Pages that speak of the code say what the code says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec
import pytest

from counterfoil.cli import describe
from counterfoil.settings import Settings

ROOT = Path(__file__).parents[2]


def test_command_line_page() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == describe.describe()


def test_command_line_page_can_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "cli.md"
    assert describe.main([]) == 0
    page.write_text(capsys.readouterr().out)
    assert describe.main(["--check", str(page)]) == 0
    page.write_text("something else")
    assert describe.main(["--check", str(page)]) == 1
    assert describe.main(["--what"]) == 2


def _documented() -> dict[str, str]:
    text = (ROOT / "docs" / "settings.md").read_text()
    return dict(
        re.findall(r"^\| `COUNTERFOIL_([A-Z_]+)` \| (.*?) \| .+ \|$", text.replace("| |", "|  |"), re.MULTILINE)
    )


def test_settings_page_names_every_setting_and_its_default() -> None:
    wanted = {}
    for field in msgspec.structs.fields(Settings):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if default is None:
            shown = ""
        elif isinstance(default, bool | list):
            shown = f"`{msgspec.json.encode(default).decode()}`"
        else:
            shown = f"`{default}`"
        wanted[field.name.upper()] = shown
    assert _documented() == wanted


@pytest.mark.parametrize("page", ["README.md", "docs/cli.md", "docs/settings.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200
    assert sys.version_info >= (3, 11)
