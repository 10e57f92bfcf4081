"""What commands print: tables and fields for people, one JSON document for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import typer

from counterfoil.kernel import money
from counterfoil.kernel.paging import Page

T = TypeVar("T")


class Column(NamedTuple, Generic[T]):
    """One column of a table."""

    title: str
    of: Callable[[T], Any]
    right: bool = False


def text(value: Any) -> str:
    """Any value on one line. What a buyer wrote cannot move the cursor or color the terminal."""
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%SZ")
        case list() | tuple():
            return ", ".join(text(one) for one in value) or "-"
        case dict():
            return msgspec.json.encode(value).decode() if value else "-"
        case _:
            return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(value))


def amount(value: int, asset: str) -> str:
    """Money for a person to read."""
    return money.show(money.Money(value, asset))


def view(row: msgspec.Struct, *without: str, **more: Any) -> dict[str, Any]:
    """A struct's fields for JSON, without some and with more."""
    fields = {name: getattr(row, name) for name in row.__struct_fields__ if name not in without}
    return fields | more


def print_json(document: Any) -> None:
    """Print one JSON document."""
    typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def print_page(page: Page[T], columns: Sequence[Column[T]], shape: Callable[[T], Any], *, as_json: bool) -> None:
    """Print a page of a list: as a table, or as ``{"data": [...], "next": ...}`` of what ``shape`` makes of each."""
    if as_json:
        print_json({"data": [shape(row) for row in page.data], "next": page.next})
        return
    if not page.data:
        typer.echo("nothing found", err=True)
        return
    print_table(columns, page.data)
    if page.next:
        typer.echo(f"more: --after {page.next}", err=True)


def print_table(columns: Sequence[Column[T]], rows: Iterable[T]) -> None:
    """Print a table: folded by Rich to a terminal's width, plain and never cut anywhere else."""
    cells = [[text(column.of(row)) for column in columns] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, cells)
        return
    titles = [column.title for column in columns]
    widths = [max(len(line[place]) for line in [titles, *cells]) for place in range(len(columns))]
    for line in [titles, *cells]:
        padded = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        typer.echo("  ".join(padded).rstrip())


def _draw(columns: Sequence[Column[T]], cells: list[list[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 # only a terminal needs it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for line in cells:
        table.add_row(*[Text(cell) for cell in line])
    Console().print(table)


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Print one thing, a field a line."""
    shown = [(name, text(value)) for name, value in fields]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        typer.echo(f"{name.ljust(width)}  {value}")


def print_section(title: str, columns: Sequence[Column[T]], rows: Sequence[T]) -> None:
    """Print a titled table below what was printed before, unless it is empty."""
    if rows:
        typer.echo(f"\n{title}")
        print_table(columns, rows)
