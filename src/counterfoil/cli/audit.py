"""Commands that check the record, and hand it to others to check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from counterfoil.cli.context import within
from counterfoil.cli.errors import CliError
from counterfoil.cli.options import AsJson, group
from counterfoil.cli.output import print_fields, print_json, view
from counterfoil.cli.streams import bar, target
from counterfoil.db.base import Scope
from counterfoil.events import auditing
from counterfoil.events.chain import Head, Report
from counterfoil.house import House
from counterfoil.kernel.signing import PublicKey

app = group("Audit: whether anybody changed the record.")


@app.command("verify")
def verify(
    ctx: typer.Context,
    *,
    head: Annotated[
        str | None, typer.Option("--head", metavar="SEQ:HASH", help="A link you kept; it must still be there.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Check an export; needs no database.")
    ] = None,
    public_keys: Annotated[
        list[Path] | None,
        typer.Option("--public-key", metavar="PEMFILE", help="With --file: whose signatures count. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every sealed event, and name the first one that was changed, dropped or reordered.

    The exit code is 1 when something is wrong. What was cut off the end of the chain only --head can tell.
    """
    if (file is None) != (not public_keys):
        raise typer.BadParameter("--file and --public-key go together")
    kept = _head(head)
    if file is not None:
        report = _verify_file(file, public_keys or [], kept)
    else:

        async def work(house: House, scope: Scope) -> Report:
            ring = await house.fresh_keyring(scope.tenant)
            with bar("Checking", await scope.read(auditing.length)) as show:
                return await auditing.verify(scope, ring.proven(), retired=ring.retired, kept=kept, on_page=show)

        report = within(ctx, work)
    _print(report, as_json=as_json)
    if report.fault is not None:
        raise typer.Exit(1)


@app.command("export")
def export(
    ctx: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Standard output unless named.")] = None,
) -> None:
    """Write every sealed event with its seal as lines of JSON, oldest seal first.

    Whoever has your public key can check them: counterfoil audit verify --file.
    """

    async def work(_: House, scope: Scope) -> None:
        with target(file) as out, bar("Writing", await scope.read(auditing.length)) as show:
            done = 0
            async for lines in auditing.export(scope):
                out.write(b"\n".join(lines) + b"\n")
                done += len(lines)
                show(done)

    within(ctx, work)


@app.command("seal")
def seal(ctx: typer.Context) -> None:
    """Seal what has no seal yet, which running servers do every five seconds."""

    async def work(house: House, scope: Scope) -> int:
        done = 0
        while count := await house.seal(scope):
            done += count
        return done

    typer.echo(f"{within(ctx, work)} events sealed")


def _head(typed: str | None) -> Head | None:
    if typed is None:
        return None
    try:
        return Head.parse(typed)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--head") from error


def _verify_file(path: Path, key_paths: list[Path], kept: Head | None) -> Report:
    try:
        keys = [PublicKey.from_pem(key.read_text()) for key in key_paths]
    except (OSError, ValueError) as error:
        raise CliError(f"a public key cannot be read: {error}", "counterfoil keys show prints it") from error
    try:
        with path.open("rb") as lines, bar("Checking", path.stat().st_size) as show:
            return auditing.verify_lines(_counted(lines, show), keys, kept=kept)
    except OSError as error:
        raise CliError(f"the export cannot be read: {error}") from error


def _counted(lines: BinaryIO, show: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    for number, line in enumerate(lines):
        yield line
        done += len(line)
        if number % auditing.PAGE == 0:
            show(done)


def _print(report: Report, *, as_json: bool) -> None:
    fault = report.fault
    if as_json:
        print_json(view(report, head=str(report.head) if report.head else None, ok=fault is None))
        return
    fields = [("good", report.good), ("signed", report.signed), ("head", report.head)]
    if fault is None:
        print_fields([("result", "nothing was changed"), *fields])
        return
    where = [("link", fault.seq)] if fault.seq is not None else []
    print_fields([("result", fault.problem), *where, ("event", fault.event_id), ("what", fault.detail), *fields])
