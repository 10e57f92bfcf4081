"""Writes ``docs/cli.md``: every command with its options.

``python -m counterfoil.cli.describe`` prints the page; with ``--check FILE`` it prints nothing, and its exit
status is 1 when the file says something else.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from counterfoil.cli.main import root

_WIDTH = 100
_INTRODUCTION = """\
# The command line

Made from the code by `python -m counterfoil.cli.describe`; a test holds the two together. Edit the code.

Commands work on the database that `COUNTERFOIL_DATABASE_URL` names, beside servers that may be running, and
are in the record as `system/cli`. Run them where the server runs, with the same [settings](settings.md): they
need the same master key.

Lists are tables for people, folded to the width of a terminal and never cut in a pipe. With `--json` a list is
`{"data": [...], "next": ...}` and anything else one object, with amounts in minor units; `--after` takes the
`next` of the list before. Errors are one line, and often a hint, on standard error. The exit code is 0, 1 for
an error, 2 for a command that makes no sense.
"""


def describe() -> str:
    """The page, as Markdown."""
    command = typer.main.get_command(root)
    names = ["-h", "--help"]
    context = typer.Context(command, info_name="counterfoil", terminal_width=_WIDTH, help_option_names=names)
    return "\n".join([_INTRODUCTION, *_sections(command, context, depth=2)])


def _sections(command: Any, context: Any, *, depth: int) -> list[str]:
    sections = [f"{'#' * depth} {context.command_path}\n", f"```text\n{context.get_help()}\n```\n"]
    for name in command.list_commands(context) if hasattr(command, "list_commands") else []:
        child = command.get_command(context, name)
        inner = typer.Context(child, info_name=name, parent=context, terminal_width=_WIDTH)
        sections += _sections(child, inner, depth=min(depth + 1, 3))
    return sections


def main(arguments: list[str]) -> int:
    """Print the page, or check a file against it; the exit status."""
    match arguments:
        case []:
            sys.stdout.write(describe())
            return 0
        case ["--check", path]:
            if Path(path).read_text() == describe():
                return 0
            sys.stderr.write(f"{path} is not what `python -m counterfoil.cli.describe` prints\n")
            return 1
        case _:
            sys.stderr.write("usage: python -m counterfoil.cli.describe [--check FILE]\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
