"""What the pages about accounts share: how they are shown, and where somebody who must sign in first is sent."""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from urllib.parse import quote

from litestar import Response
from litestar.datastructures import Cookie

from counterfoil.accounts.types import EmailType
from counterfoil.http.access import Asker
from counterfoil.http.problems import route
from counterfoil.kernel.errors import CounterfoilError, Forbidden, Unauthorized
from counterfoil.web import words
from counterfoil.web.render import NOT_INDEXED, NOT_STORED, error_page, page, root_of, see_other, to_ourselves

OPEN: dict[str, Any] = {"include_in_schema": False, **route("public", 404)}
"""What a page declares that anybody may open."""
OWN: dict[str, Any] = {"include_in_schema": False, **route("signed_in", 404, 409)}
"""What a page declares that is about whoever is signed in."""

LETTERS: dict[EmailType, tuple[str, str]] = {
    "product_updates": ("Product updates", "New versions of what you use, and what changed."),
    "payment_receipts": ("Payment receipts", "A receipt for each payment."),
    "marketing": ("Offers", "Discounts, and products you do not have yet."),
}
"""The letters people choose, and what they bring."""

# No other site, and no log of another, learns an address that holds a token. Unlike "no-referrer" this lets
# browsers say where a form comes from, also those that know no Fetch Metadata.
_HEADERS = {**NOT_STORED, **NOT_INDEXED, "Referrer-Policy": "strict-origin"}


async def account_page(
    request: Asker,
    template: str,
    *,
    status: int = 200,
    form_action: str | None = None,
    errors: dict[str, str] | None = None,
    form: dict[str, str] | None = None,
    cookies: list[Cookie] | None = None,
    **context: Any,
) -> Response[str]:
    """A page of the folder ``account``: never stored, its forms to ourselves only unless ``form_action`` says more.

    ``errors``: what to say beside which field, ``form`` where it belongs to none. ``form``: what was filled in.
    """
    return await page(
        request,
        f"account/{template}",
        status=status,
        form_action=form_action or to_ourselves(request),
        headers=_HEADERS,
        cookies=cookies,
        errors=errors or {},
        form=defaultdict(str, form or {}),
        **context,
    )


def errors_of(error: CounterfoilError, *fields: str) -> dict[str, str]:
    """What to say beside which of these fields; beside ``form`` what belongs to none of them."""
    found: dict[str, str] = {}
    for one in error.errors:
        name = one.pointer.removeprefix("/")
        if name in fields:
            found.setdefault(name, words.field_error(error.code, one.detail))
    return found or {"form": error.detail}


def account_error(request: Asker, error: Exception) -> Response[Any]:
    """An error as a page; whoever must sign in, or show a passkey, is sent to do so and comes back."""
    if isinstance(error, Unauthorized):
        return see_other(f"{root_of(request)}/sign-in?next={_way_back(request)}")
    if isinstance(error, Forbidden) and error.code == "passkey_required":
        return see_other(f"{root_of(request)}/sign-in/passkey?next={_way_back(request)}")
    return error_page(request, error)


def _way_back(request: Asker) -> str:
    path = request.scope["path"]
    if request.method != "GET":  # what was sent is lost, and a form's own address shows nothing
        path = "/account"
    elif query := request.scope["query_string"].decode("latin-1"):
        path = f"{path}?{query}"
    return quote(root_of(request) + path, safe="/")
