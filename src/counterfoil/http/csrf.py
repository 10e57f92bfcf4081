"""Forms that only our own pages can send.

Every form carries a token derived from a cookie that other sites can neither read nor set: the session's, or for
visitors one made for this. Besides, a form that a browser says comes from another site is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from litestar.datastructures import Cookie

from counterfoil.http.access import Asker, check_origin, house_of, session_token_of
from counterfoil.kernel.errors import Forbidden
from counterfoil.kernel.secrets import hmac_sha256, new_secret, same

FIELD = "csrf"


def _visitor_cookie_name(request: Asker) -> str:
    secure = house_of(request).settings.base_url.startswith("https://")
    return "__Host-cf_visitor" if secure else "cf_visitor"


def token_for(request: Asker) -> tuple[str, list[Cookie]]:
    """The token for the forms of a page, and the cookie it needs where the browser has none yet."""
    bound = session_token_of(request) or request.cookies.get(_visitor_cookie_name(request))
    if bound:
        return _token(request, bound), []
    fresh = new_secret(20)
    cookie = Cookie(
        key=_visitor_cookie_name(request),
        value=fresh,
        path="/",
        httponly=True,
        secure=house_of(request).settings.base_url.startswith("https://"),
        samesite="lax",
    )
    return _token(request, fresh), [cookie]


def check(request: Asker, fields: Mapping[str, str]) -> None:
    """Refuse a form that did not come from one of our pages in this browser. Raises Forbidden."""
    check_origin(request)
    bound = session_token_of(request) or request.cookies.get(_visitor_cookie_name(request))
    if not bound or not same(fields.get(FIELD, ""), _token(request, bound)):
        raise Forbidden("This form is too old. Go back, reload the page, and send it again.", code="bad_csrf_token")


def _token(request: Asker, bound: str) -> str:
    return hmac_sha256(house_of(request).master.derive("csrf"), bound.encode(errors="replace"))[:40]
