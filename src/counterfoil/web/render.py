"""How pages are made: templates, static files, and the headers that every answer carries."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from litestar import Response
from litestar.datastructures import Cookie

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.http.access import SLUG_STATE, Asker, house_of, tenant_of
from counterfoil.http.csrf import token_for
from counterfoil.http.problems import Problem, handle
from counterfoil.kernel.errors import NotFound

if TYPE_CHECKING:
    from jinja2 import Environment

HTML = "text/html"
LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}

_TYPES = {"style.css": "text/css", "app.js": "text/javascript", "passkeys.js": "text/javascript"}
_FOR_EVER = "public, max-age=31536000, immutable"

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

# A license key must not be kept by a cache, nor the one-time value of a form be handed to two buyers.
NOT_STORED = {"Cache-Control": "no-store"}
NOT_INDEXED = {"X-Robots-Tag": "noindex, nofollow"}


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 # a start does not need it

    return Environment(
        loader=PackageLoader("counterfoil.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


@cache
def _static(name: str) -> tuple[bytes, str]:
    body = resources.files("counterfoil.web").joinpath("static", name).read_bytes()
    return body, hashlib.sha256(body).hexdigest()[:16]


def static_response(name: str, version: str | None) -> Response[bytes]:
    """A file of the package. Asked for under the hash of its content, it may be kept for ever."""
    body, digest = _static(name)
    headers = {
        "Cache-Control": _FOR_EVER if version == digest else "no-cache",
        "ETag": f'"{digest}"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(body, media_type=_TYPES[name], headers=headers)


def version_of(name: str) -> str:
    """The hash of a static file's content, to ask for it under."""
    return _static(name)[1]


def root_of(request: Asker) -> str:
    """What every path of this shop begins with, without a slash at the end; empty for most.

    Links stay on the host name by which the buyer came, also behind a proxy that takes off a prefix.
    """
    prefix = urlsplit(house_of(request).settings.base_url).path.rstrip("/")
    slug = request.scope["state"].get(SLUG_STATE)
    return prefix if slug is None else f"{prefix}/t/{slug}"


def proper_address(request: Asker) -> str | None:
    """This page's address under the name that rails and providers send people back to, when they use another one.

    ``localhost`` and ``127.0.0.1`` are one server but two sites: the cookie that shows a license key
    would be left behind at the other. Beyond loopback names a proxy may have good reasons to rename us.
    """
    base = urlsplit(house_of(request).settings.base_url)
    port = f":{base.port}" if base.port else ""
    known = {name + port for name in _LOOPBACK_NAMES}
    host = request.headers.get("host", "").lower()
    if host == base.netloc or host not in known or base.netloc not in known:
        return None
    query = request.scope["query_string"].decode("latin-1")
    path = root_of(request) + quote(request.scope["path"])
    return f"{base.scheme}://{base.netloc}{path}{'?' + query if query else ''}"


async def shop_name(request: Asker) -> str:
    """What the shop is called. Raises NotFound when there is no such shop."""
    tenant = await tenant_of(request)
    row = (await house_of(request).tenants()).get(tenant)
    if row is None or (tenant == DEFAULT_TENANT and row.name == "Default"):  # nobody has named it yet
        return "Shop"
    return row.name


def policy(form_action: str) -> str:
    """The Content-Security-Policy of a page whose forms may lead to these addresses."""
    return (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' https: data:; "
        f"form-action {form_action}; frame-ancestors 'none'; base-uri 'none'"
    )


def to_ourselves(request: Asker) -> str:
    """Where a form may lead that leads to ourselves only.

    On this machine we have two names: passkeys work at ``localhost``, and the shop may be at ``127.0.0.1``. Browsers
    apply ``form-action`` to the redirects that follow a form, too, and those lead from one to the other.
    """
    base = urlsplit(house_of(request).settings.base_url)
    return f"'self' {base.scheme}://{base.netloc}" if base.hostname in LOOPBACK_NAMES else "'self'"


def headers_of(form_action: str) -> dict[str, str]:
    """The headers of every page."""
    return {
        "Content-Security-Policy": policy(form_action),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        # Rails and other sites learn nothing of where a buyer comes from; our own forms keep their Origin.
        "Referrer-Policy": "same-origin",
    }


async def page(
    request: Asker,
    template: str,
    *,
    status: int = 200,
    form_action: str = "'none'",
    headers: Mapping[str, str] = NOT_STORED,
    cookies: list[Cookie] | None = None,
    **context: Any,
) -> Response[str]:
    """A page as an answer."""
    csrf, fresh = token_for(request)
    body = _environment().get_template(template).render(
        root=root_of(request),
        shop=await shop_name(request),
        style=_static("style.css")[1],
        script=_static("app.js")[1],
        csrf=csrf,
        **context,
    )  # fmt: skip
    return Response(
        body,
        status_code=status,
        media_type=HTML,
        headers={**headers_of(form_action), **headers},
        cookies=[*(cookies or []), *(fresh if csrf in body else [])],
    )


def see_other(location: str, cookies: list[Cookie] | None = None) -> Response[None]:
    """Send a browser on after a form (303)."""
    headers = {"Location": location, **NOT_STORED, "Referrer-Policy": "same-origin"}
    return Response(None, status_code=303, headers=headers, cookies=cookies)


_TITLES = {
    404: "We cannot find that page",
    429: "One moment, please",
    500: "Something went wrong",
    502: "The payment service refused",
    503: "We will be right back",
}


def error_page(request: Asker, error: Exception) -> Response[str]:
    """The problem behind an exception, as a page."""
    answer = handle(request, error)
    problem: Problem = answer.content
    in_a_shop = not (isinstance(error, NotFound) and error.code == "tenant_not_found")
    body = _environment().get_template("error.html").render(
        root=root_of(request) if in_a_shop else urlsplit(house_of(request).settings.base_url).path.rstrip("/"),
        shop="Shop",
        style=_static("style.css")[1],
        script=_static("app.js")[1],
        problem=problem,
        title=_TITLES.get(problem.status, problem.title),
    )  # fmt: skip
    return Response(
        body,
        status_code=problem.status,
        media_type=HTML,
        headers={**answer.headers, **headers_of("'none'"), **NOT_STORED, **NOT_INDEXED},
    )
