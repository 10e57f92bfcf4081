"""What costs most on purpose, or does the same again and again, made cheap for tests that are not about it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import httpx
from argon2 import PasswordHasher
from httpx import _urls
from httpx._transports import default

from counterfoil.accounts import passwords

_hasher, _nobodys = passwords._hasher, passwords._NOBODYS
_CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def make_cheap() -> None:
    """Hash passwords at next to no price; have HTTP clients do nothing twice."""
    _use(_CHEAP, _nobodys.replace("m=19456,t=2,p=1", "m=8,t=1,p=1"))
    # Every HTTP client reads them again, in 25 ms, and then asks servers that have no certificate.
    default.create_ssl_context = functools.cache(default.create_ssl_context)
    _urls.urlparse = functools.lru_cache(4096)(_urls.urlparse)
    extract_cookies = httpx.Cookies.extract_cookies

    def extract(self: httpx.Cookies, response: httpx.Response) -> None:
        if "set-cookie" in response.headers:
            extract_cookies(self, response)

    httpx.Cookies.extract_cookies = extract  # type: ignore[method-assign]


@contextlib.contextmanager
def real_passwords() -> Iterator[None]:
    """Hash passwords as in production for a while."""
    cheap = passwords._NOBODYS
    _use(_hasher, _nobodys)
    yield
    _use(_CHEAP, cheap)


def _use(hasher: PasswordHasher, nobodys: str) -> None:
    passwords._hasher, passwords._NOBODYS = hasher, nobodys
