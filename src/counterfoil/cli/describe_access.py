"""Writes docs/access.md: who reaches which route. Made from the code, so that a change of it shows in a diff."""

from __future__ import annotations

import sys
from pathlib import Path

from litestar import Litestar

from counterfoil.accounts.permissions import A_LA_CARTE, BUNDLES, KEY_ROLES, PERMISSIONS, ROLES, expand
from counterfoil.api.app import API
from counterfoil.http.declared import Declared, declared_routes
from counterfoil.web.site import PAGES

_INTRODUCTION = """\
# Who may do what

Made from the code by `python -m counterfoil.cli.describe_access`; a check holds the two together. Edit the code.

Every route declares one permission. Who asks holds permissions by API key, or by roles: in the tenant (staff,
with a passkey), or at a customer and all below it. A route whose path names a customer needs its permission
there; other routes need it in the tenant. `signed_in` is for whatever everybody may do about themselves, `public`
for everybody.
"""


def describe() -> str:
    """The page, as Markdown."""
    routes = declared_routes(Litestar(route_handlers=[*API, *PAGES], openapi_config=None))
    return "\n".join([_INTRODUCTION, *_permissions(), *_sets(), *_routes(routes)])


def _permissions() -> list[str]:
    rows = [f"| `{name}` | {meaning}{' *' if name in A_LA_CARTE else ''} |" for name, meaning in PERMISSIONS.items()]
    return [
        "## Permissions\n",
        "Those with a * are in no named set of an API key: they must be spelled out.\n",
        "| permission | |\n|---|---|",
        *rows,
        "",
    ]


def _sets() -> list[str]:
    bundles = [f"| `{name}` | {_listed(held)} |" for name, held in sorted(BUNDLES.items())]
    roles = [f"| {name} | {_listed(role.permissions)} | {role.description} |" for name, role in ROLES.items()]
    keys = [f"| {name} | {_listed(scopes)} |" for name, scopes in KEY_ROLES.items()]
    return [
        "## Bundles\n",
        "| bundle | holds |\n|---|---|",
        *bundles,
        "\n## Roles of people\n",
        "| role | permissions and bundles | |\n|---|---|---|",
        *roles,
        "\n## Roles of API keys\n",
        "| role | permissions |\n|---|---|",
        *keys,
        "",
    ]


def _listed(names: object) -> str:
    held = sorted(names) if isinstance(names, list | frozenset) else []
    return "everything" if set(held) >= set(PERMISSIONS) else ", ".join(f"`{name}`" for name in held)


def _routes(routes: list[Declared]) -> list[str]:
    rows = [
        f"| {one.method} | `{one.path}` | `{one.permission}` | {one.reach} | {_reached_by(one)} |" for one in routes
    ]
    return [
        "## Routes\n",
        "Beside SuperAdmin and keys with `*`, who reach all of them.\n",
        "| | route | permission | held in | roles of people | roles of keys |\n|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _reached_by(route: Declared) -> str:
    if route.reach in {"anybody", "oneself"}:
        return "|"
    people = [name for name, role in ROLES.items() if route.permission in expand(role.permissions)]
    keys = [name for name, scopes in KEY_ROLES.items() if route.permission in expand(scopes)]
    return f"{', '.join(name for name in people if name != 'SuperAdmin')} | {', '.join(keys)}"


def main(arguments: list[str]) -> int:
    """Print the page, or check a file against it; the exit status."""
    match arguments:
        case []:
            sys.stdout.write(describe())
            return 0
        case ["--check", path]:
            if Path(path).read_text() == describe():
                return 0
            sys.stderr.write(f"{path} is not what `python -m counterfoil.cli.describe_access` prints\n")
            return 1
        case _:
            sys.stderr.write("usage: python -m counterfoil.cli.describe_access [--check FILE]\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
