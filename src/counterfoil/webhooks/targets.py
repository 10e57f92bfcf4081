"""Where news may be sent: to the public internet, and nowhere inside the network that this server stands in.

Whoever may add an endpoint could otherwise have the server knock at doors that only it reaches: databases, routers,
a cloud's metadata service (server-side request forgery). Names are resolved here, every address of theirs is
checked, and the connection is made to an address that was checked, so a name cannot change its mind in between.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from counterfoil.kernel.errors import Invalid
from counterfoil.settings import is_safe_url

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a name. Raises OSError when it has none."""

_LONGEST_URL = 2000
_THREADS = 20

_NEVER = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        "::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7",
        "fe80::/10", "fec0::/10", "ff00::/8",
    )
]  # fmt: skip
"""The IANA special-purpose registries (RFC 6890 and later), whatever this Python knows of them."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class TargetRefused(Exception):
    """News is not sent there; the message says why."""


def check_url(field: str, url: str, *, allow_loopback: bool) -> str:
    """An address that news may be sent to, as far as can be told without asking for its name. Raises Invalid.

    ``allow_loopback``: this machine itself will do too, and without encryption (for development).
    """
    if len(url) > _LONGEST_URL or not is_safe_url(url, loopback=allow_loopback):
        raise Invalid.field(
            field, "must be an https address without a user's name, 2,000 characters at most", code="bad_webhook_url"
        )
    host = urlsplit(url).hostname or ""
    why = _why_not_host(host, allow_loopback=allow_loopback)
    if why is not None:
        raise Invalid.field(field, why, code="webhook_target_refused")
    return url


def _why_not_host(host: str, *, allow_loopback: bool) -> str | None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        is_here = host == "localhost" or host.endswith(".localhost")
        return None if allow_loopback or not is_here else "this machine is no target"
    return why_not(host, allow_loopback=allow_loopback)


def why_not(text: str, *, allow_loopback: bool) -> str | None:
    """Why nothing is sent to an IP address; None when it is public."""
    address: _Address = ipaddress.ip_address(text.partition("%")[0])
    for inner in _inside(address):
        if inner.is_loopback and allow_loopback:
            continue
        if not inner.is_global or inner.is_multicast or any(inner in network for network in _networks(inner)):
            return f"the address {address} is not public"
    return None


def _networks(address: _Address) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [network for network in _NEVER if network.version == address.version]


def _inside(address: _Address) -> list[_Address]:
    """The address, or the IPv4 address that it stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address.sixtofour is not None:
        return [address.sixtofour]
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)]
    return [address]


class Resolver:
    """Asks the system for the addresses of names, in threads of its own: a slow answer keeps nobody else waiting."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    async def __call__(self, host: str, port: int) -> list[str]:
        """The addresses of a name, best first. Raises OSError."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="webhook-names")
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host, port)
        return list(dict.fromkeys(found))

    def close(self) -> None:
        """Let go of the threads, without waiting for answers."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[str]:
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except UnicodeError as error:  # a label that is too long
        raise OSError("not a name") from error


async def addresses_of(resolve: Resolve, host: str, port: int, *, allow_loopback: bool) -> list[str]:
    """The addresses behind a host, all of which may be connected to. Raises TargetRefused, OSError.

    One address that is not public refuses them all: which of them answers is not for a name to choose.
    """
    found = await resolve(host, port)
    for address in found:
        why = why_not(address, allow_loopback=allow_loopback)
        if why is not None:
            raise TargetRefused(why)
    if not found:
        raise OSError("the name has no address")
    return found
