"""How often somebody may try to sign in, and have letters sent. Counted in this process.

Failures count against the account, so that guessing from many addresses gains nothing. A browser in which its
owner has signed in before holds a device cookie and is counted apart: whoever hammers an account cannot lock its
owner out of that browser (OWASP, "Slow down online guessing attacks with device cookies").
"""

from __future__ import annotations

import math
import re
import time

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from litestar.datastructures import Cookie

from counterfoil.http.access import SLUG_STATE, Asker, address_of, house_of
from counterfoil.kernel.errors import TooManyRequests
from counterfoil.kernel.secrets import fingerprint, hmac_sha256, new_secret, same
from counterfoil.settings import Settings

MOST_FAILURES, FAILURE_MINUTES = 10, 15
"""How often an account's password may be wrong within how long."""
LETTERS_PER_HOUR = 3
"""To one address."""

_DEVICE_DAYS = 365
_DEVICE = re.compile(r"(usr_[0-9a-z]{1,40})\.([a-z2-7]{16})\.([0-9a-f]{40})")


class Throttle:
    """The counters."""

    def __init__(self, settings: Settings) -> None:
        self._storage = MemoryStorage()
        self._window = FixedWindowRateLimiter(self._storage)
        per_minute = settings.sign_ins_per_minute
        self._address: RateLimitItem | None = (
            RateLimitItemPerMinute(per_minute, namespace="address") if per_minute else None
        )
        self._failures = RateLimitItemPerMinute(MOST_FAILURES, FAILURE_MINUTES, namespace="failures")
        self._letters = RateLimitItemPerHour(LETTERS_PER_HOUR, namespace="letters")

    def check_address(self, tenant: str, address: str | None) -> None:
        """Count a try of this client address, whatever comes of it. Raises TooManyRequests."""
        if self._address is not None:
            self._hit(self._address, tenant, address or "unknown")

    def begin(self, *who: str) -> Attempt:
        """Count a try at somebody's password as a failure, until it proves good. Raises TooManyRequests."""
        self._hit(self._failures, *who)
        return Attempt(self, who)

    def _forgive(self, who: tuple[str, ...]) -> None:
        self._storage.decr(self._failures.key_for(*who))

    def allow_letter(self, tenant: str, email: str) -> bool:
        """Count a letter to this address. Whether it may be sent: nobody is told when not."""
        return self._window.hit(self._letters, tenant, fingerprint(email))

    def _hit(self, item: RateLimitItem, *who: str) -> None:
        if not self._window.hit(item, *who):
            wait = self._window.get_window_stats(item, *who).reset_time - time.time()
            raise TooManyRequests(
                "Too many tries. Wait a while, then try again.", retry_after=max(1, min(3600, math.ceil(wait)))
            )


class Attempt:
    """One try at somebody's password."""

    def __init__(self, throttle: Throttle, who: tuple[str, ...]) -> None:
        self._throttle = throttle
        self._who = who

    def succeeded(self) -> None:
        """It was no failure after all."""
        self._throttle._forgive(self._who)  # noqa: SLF001 # the two are one


def throttle_of(request: Asker) -> Throttle:
    """The counters of this process."""
    throttle: Throttle = request.app.state.throttle
    return throttle


def check_sign_ins(request: Asker, tenant: str) -> None:
    """Count a request that tries a password or a code, or asks for a letter. Raises TooManyRequests."""
    throttle_of(request).check_address(tenant, address_of(request))


def begin_attempt(request: Asker, tenant: str, email: str, user_id: str | None) -> Attempt:
    """Count a try at the password of an account, known or not. Raises TooManyRequests."""
    device = _device_of(request, tenant)
    if device is not None and user_id is not None and device[0] == user_id:
        return throttle_of(request).begin(tenant, "device", device[1])
    return throttle_of(request).begin(tenant, "others", fingerprint(email))


# -- device cookies -----------------------------------------------------------------------------------


def device_cookie(request: Asker, tenant: str, user_id: str) -> Cookie:
    """Says that this user has signed in in this browser. It opens nothing."""
    known = _device_of(request, tenant)
    nonce = known[1] if known is not None and known[0] == user_id else new_secret(10)
    return Cookie(
        key=_cookie_name(request),
        value=f"{user_id}.{nonce}.{_mac(request, tenant, user_id, nonce)}",
        max_age=_DEVICE_DAYS * 86_400,
        path="/",
        httponly=True,
        secure=house_of(request).settings.base_url.startswith("https://"),
        samesite="lax",
    )


def _device_of(request: Asker, tenant: str) -> tuple[str, str] | None:
    """Who has signed in in this browser before, and the browser's own name."""
    match = _DEVICE.fullmatch(request.cookies.get(_cookie_name(request), ""))
    if match is None or not same(match[3], _mac(request, tenant, match[1], match[2])):
        return None
    return match[1], match[2]


def _mac(request: Asker, tenant: str, user_id: str, nonce: str) -> str:
    key = house_of(request).master.derive("device")
    return hmac_sha256(key, f"{tenant}\n{user_id}\n{nonce}".encode())[:40]


def _cookie_name(request: Asker) -> str:
    slug = request.scope["state"].get(SLUG_STATE)
    name = "cf_device" if slug is None else f"cf_device_{slug}"
    return f"__Host-{name}" if house_of(request).settings.base_url.startswith("https://") else name
