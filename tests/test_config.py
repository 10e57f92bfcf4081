"""Settings from arguments, the environment and the file: who wins, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from counterfoil.config import BadSetting, Secret, convert, read


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 1
    seconds: Annotated[float, Meta(ge=0.5)] = 1.0
    is_on: bool = False
    level: Literal["low", "high"] = "low"
    folder: Path = Path("var")
    key: Secret | None = None
    networks: list[str] = []
    tree: dict[str, Any] = {}


def load(folder: Path, environment: dict[str, str], toml: str = "", **given: Any) -> Shape:
    file = folder / "counterfoil.toml"
    file.write_text(toml)
    return Shape(**convert(Shape, read(Shape, file, environment, given)))


def test_arguments_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    assert read(Shape, tmp_path / "missing.toml", {}, {}) == {}
    toml = 'name = "file"\nport = 2\nlevel = "high"\n[tree.a]\nx = 1\ny = 2\n'
    made = load(tmp_path, {"COUNTERFOIL_PORT": "3", "COUNTERFOIL_NAME": "environment"}, toml, name="given")
    assert (made.name, made.port, made.level, made.tree) == ("given", 3, "high", {"a": {"x": 1, "y": 2}})


def test_tables_are_merged_and_parts_win_over_the_whole(tmp_path: Path) -> None:
    environment = {
        "counterfoil_tree__A__X": "one part",
        "COUNTERFOIL_TREE": '{"a": {"x": "the whole", "z": 3}, "b": {}}',
        "COUNTERFOIL_TREES": "another program's",
        "TREE": "nobody's",
    }
    made = load(tmp_path, environment, "[tree.a]\nx = 1\ny = 2\n")
    assert made.tree == {"a": {"x": "one part", "y": 2, "z": 3}, "b": {}}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("1", True), ("true", True), ("TRUE", True), ("Yes", True), ("on", True), ("0", False), ("no", False)],
)  # fmt: skip
def test_what_counts_as_yes_and_no(tmp_path: Path, text: str, wanted: bool) -> None:
    assert load(tmp_path, {"COUNTERFOIL_IS_ON": text}).is_on is wanted


def test_texts_become_what_they_are_for(tmp_path: Path) -> None:
    environment = {
        "COUNTERFOIL_FOLDER": "/srv/mail", "COUNTERFOIL_KEY": "hunter2", "COUNTERFOIL_SECONDS": "2",
        "COUNTERFOIL_NETWORKS": '["10.0.0.0/8"]',
    }  # fmt: skip
    made = load(tmp_path, environment)
    assert (made.folder, made.seconds, made.networks) == (Path("/srv/mail"), 2.0, ["10.0.0.0/8"])
    assert made.key is not None
    assert made.key.reveal() == "hunter2"
    assert "hunter2" not in f"{made!r} {made.key}"


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("PORT", "http", "must be a whole number, at least 0, at most 65535"),
        ("PORT", "65536", "must be a whole number, at least 0, at most 65535"),
        ("PORT", "-1", "must be a whole number, at least 0, at most 65535"),
        ("PORT", "", "must be a whole number, at least 0, at most 65535"),
        ("PORT__X", "1", "must be a whole number, at least 0, at most 65535"),
        ("SECONDS", "0.4", "must be a number, at least 0.5"),
        ("IS_ON", "maybe", "must be true or false"),
        ("LEVEL", "hunter2", "must be one of: low, high"),
        ("NETWORKS", "10.0.0.0/8", "must be JSON"),
        ("NETWORKS", '["a", 1]', "Expected `str`, got `int` - at `$[1]`"),
        ("TREE", "{", "must be JSON"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, text: str, why: str) -> None:
    with pytest.raises(BadSetting) as refused:
        load(tmp_path, {f"COUNTERFOIL_{name}": text})
    assert str(refused.value) == f"COUNTERFOIL_{name.partition('__')[0]}: {why}"


def test_names_that_do_not_exist(tmp_path: Path) -> None:
    for wrong in ({"toml": "prot = 1\n"}, {"prot": 1}):
        with pytest.raises(BadSetting, match=r"^COUNTERFOIL_PROT: there is no such setting$"):
            load(tmp_path, {}, **wrong)
