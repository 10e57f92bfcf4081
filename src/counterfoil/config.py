"""Reading a struct of settings from a file and the environment.

With msgspec, which decodes everything else here: a library made for it holds some 10 MB in every process.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec

PREFIX: Final = "COUNTERFOIL_"
_BOOLEANS: Final = {"yes": True, "on": True, "no": False, "off": False}
"""What people write beside ``true`` and ``false``, ``1`` and ``0``."""


class BadSetting(ValueError):
    """A setting that cannot be used; the text names it, and shows no value."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{PREFIX}{name.upper()}: {why}")


class Secret:
    """A text that is not shown by accident."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(...)"


def read(
    kind: type[msgspec.Struct], file: Path, environment: Mapping[str, str], given: dict[str, Any]
) -> dict[str, Any]:
    """What is said of each field: what is given, else what the environment says, else the file; tables are merged.

    Raises BadSetting; tomllib.TOMLDecodeError.
    """
    in_file = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    merged: dict[str, Any] = _merged(_merged(in_file, _from_environment(_types(kind), environment)), given)
    return merged


def convert(kind: type[msgspec.Struct], said: dict[str, Any]) -> dict[str, Any]:
    """The fields' values. Raises BadSetting."""
    types = _types(kind)
    for name in said:
        if name not in types:
            raise BadSetting(name, "there is no such setting")
    return {name: _converted(name, types[name], value) for name, value in said.items()}


@functools.cache
def _types(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def _from_environment(types: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """What the environment says, by name; ``A__B`` is B within A, and wins over what A itself says."""
    variables = {name.upper(): value for name, value in environment.items()}
    found: dict[str, Any] = {}
    for variable in sorted(variables):  # the whole before its parts
        name, *path = variable.removeprefix(PREFIX).lower().split("__")
        if not variable.startswith(PREFIX) or name not in types:
            continue  # another program's, or another version's
        value: Any = variables[variable]
        if not path and _is_json(types[name]):
            value = _decoded(name, value)
        for step in reversed(path):
            value = {step: value}
        found[name] = _merged(found.get(name), value)
    return found


def _is_json(kind: Any) -> bool:
    return get_origin(kind) in {list, dict}


def _decoded(name: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise BadSetting(name, "must be JSON") from error


def _merged(under: Any, over: Any) -> Any:
    """Two tables of settings in one; where both say something, ``over`` does."""
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over
    return {**under, **{name: _merged(under.get(name), value) for name, value in over.items()}}


def _converted(name: str, kind: Any, value: Any) -> Any:
    if isinstance(value, str) and kind is bool:
        value = _BOOLEANS.get(value.lower(), value)
    try:
        return msgspec.convert(value, kind, strict=False, dec_hook=_made)
    except msgspec.ValidationError as error:
        raise BadSetting(name, _wanted(kind) or str(error)) from error


def _made(kind: type, value: Any) -> Any:
    """Path and Secret, which msgspec does not know."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, str):
        raise ValueError("must be text")
    return kind(value)


def _wanted(kind: Any) -> str | None:
    """What a value of this type must be, in words; None where msgspec says it better."""
    if get_origin(kind) is Literal:
        return "must be one of: " + ", ".join(get_args(kind))
    if kind is bool:
        return "must be true or false"
    if get_origin(kind) is Annotated:
        number, limits = get_args(kind)
        words = "a whole number" if number is int else "a number"
        least = f", at least {limits.ge}" if limits.ge is not None else ""
        return f"must be {words}{least}" + (f", at most {limits.le}" if limits.le is not None else "")
    return None
