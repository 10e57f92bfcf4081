"""The program ``counterfoil``.

A command's module is imported when that command runs, so that the help and a server's start do not pay
for what they do not use.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from counterfoil import __version__
from counterfoil.cli.options import HELP, Globals, group


class Command(NamedTuple):
    """Where a command is, and what it does in a few words."""

    module: str
    summary: str


COMMANDS = {
    "demo": Command("demo", "Serve with a demo catalog and the sandbox rail, to try things out."),
    "serve": Command("serve", "Serve the API and the pages."),
    "worker": Command("worker", "Run the jobs beside servers that do not (COUNTERFOIL_JOBS=false)."),
    "migrate": Command("migrate", "Bring the database's tables up to date."),
    "health": Command("health", "Say whether the database, the jobs and the server are well."),
    "product": Command("product", "Products: what is sold."),
    "price": Command("price", "Prices: for how much."),
    "benefit": Command("benefit", "Benefits: what a tier of a product promises."),
    "discount": Command("discount", "Discounts: codes and customers' margins that make it cheaper."),
    "stock": Command("stock", "Stock: how much there is to sell."),
    "customer": Command("customer", "Customers: who buys."),
    "cart": Command("cart", "Carts: quotes that hold for a while."),
    "checkout": Command("checkout", "Checkouts: attempts to pay."),
    "order": Command("order", "Orders: what was bought."),
    "fulfillment": Command("fulfillment", "Fulfillments: the parcels of an order."),
    "payment": Command("payment", "Payments: money that a rail has proved."),
    "refund": Command("refund", "Refunds: money given back."),
    "report": Command("report", "Reports: what was earned."),
    "subscription": Command("subscription", "Subscriptions: what is paid again and again."),
    "invoice": Command("invoice", "Invoices: the bills of rails."),
    "dispute": Command("dispute", "Disputes: buyers who ask their banks for the money back."),
    "license": Command("license", "Licenses: the right to run."),
    "machine": Command("machine", "Machines that hold a license."),
    "rail": Command("rail", "Rails: ways for money to arrive."),
    "sync": Command("sync", "Sync: rails' copies of what is sold, and who buys."),
    "inbox": Command("inbox", "Inbox: news from rails that has not taken effect."),
    "mail": Command("mail", "Mail: letters on their way out."),
    "webhook": Command("webhook", "Webhooks: news for other systems."),
    "event": Command("event", "Events: the record of what happened."),
    "audit": Command("audit", "Audit: whether anybody changed the record."),
    "enroll": Command("enroll", "Enroll: a one-time link that makes somebody staff."),
    "tenant": Command("tenant", "Tenants: the sellers on this installation."),
    "member": Command("member", "Members: users with a role at a customer."),
    "staff": Command("staff", "Staff: users with a role in the tenant itself."),
    "role": Command("role", "Roles: named sets of permissions."),
    "api-key": Command("api_key", "API keys: credentials of programs."),
    "keys": Command("keys", "The keys that sign licenses."),
}


_LASTING = {"demo", "serve", "worker"}
"""Commands that last. Alone they need no parsing, for which typer loads a library that holds 8 MB until they end."""


def _import(name: str) -> Any:
    module = import_module(f"counterfoil.cli.{COMMANDS[name].module}")
    if not gc.isenabled():  # see main
        gc.freeze()
        gc.enable()
    return module


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are asked for."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands: Any = dict.fromkeys(COMMANDS)  # in the order of the help; imported when asked for

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a command; None when there is none of this name."""
        if self.commands.get(cmd_name) is None and cmd_name in COMMANDS:
            self.commands[cmd_name] = typer.main.get_command(_import(cmd_name).app)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])


root = group(HELP, cls=LazyGroup)


@root.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    *,
    tenant: Annotated[str, typer.Option("--tenant", metavar="SLUG", help="The seller to work for.")] = "default",
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    ctx.obj = Globals(tenant)
    if version:
        typer.echo(f"counterfoil {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program, and leave with its exit code: 0, 1 for an error, 2 for a command that makes no sense."""
    # What imports make lives as long as the process: walking it again and again would cost a start a sixth
    # of its time.
    gc.disable()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code."""
    if any("\udc80" <= char <= "\udcff" for argument in arguments for char in argument):
        _complain("the arguments are not text in this terminal's encoding", None)
        return 2
    try:
        code = _do(arguments)
        sys.stdout.flush()
    except typer.TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "counterfoil")
        _complain(error.format_message(), f"{command} --help")
        return error.exit_code
    except typer.Abort:
        _complain("stopped; nothing was changed", None)
        return 1
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        from counterfoil.cli.errors import explain  # noqa: PLC0415 # it imports all that can fail

        explained = explain(error)
        if explained is None:
            raise
        _complain(*explained)
        return 1
    return code if isinstance(code, int) else 0


def _do(arguments: Sequence[str]) -> Any:
    if len(arguments) == 1 and arguments[0] in _LASTING:
        (name,) = arguments
        return getattr(_import(name), name)()
    return _program().main(list(arguments), prog_name="counterfoil", standalone_mode=False)


@functools.cache
def _program() -> Any:
    """The parser of all commands. It keeps those it has made, for whoever runs more than one in a process."""
    return typer.main.get_command(root)


def _complain(message: str, hint: str | None) -> None:
    typer.echo(f"error: {message}", err=True)
    if hint:
        typer.echo(f"hint:  {hint}", err=True)


if __name__ == "__main__":
    main()
