"""Keeps the tests off the network."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys
from collections.abc import Callable
from typing import Any

_active = False
_refused: list[str] = []


class OffTheNetwork(OSError):
    """A test tried to reach something beyond this machine. An OSError, so that libraries clean up after it."""


def is_loopback(family: int, address: Any) -> bool:
    """Whether connecting there stays on this machine."""
    if family == socket.AF_UNIX:
        return True
    if family not in (socket.AF_INET, socket.AF_INET6):
        return False
    host = address[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # any other name
        return False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        sock, address = arguments
        _check(sock.family, address)


def _check(family: int, address: Any) -> None:
    if not is_loopback(family, address):
        _refused.append(repr(address))
        raise OffTheNetwork(f"tests do not connect to {address!r}")


def guarded(make: Callable[[], asyncio.AbstractEventLoop]) -> Callable[[], asyncio.AbstractEventLoop]:
    """Have event loops keep their own connections on this machine: uvloop's do not go through Python's sockets."""

    first = make()
    first.close()

    class Guarded(type(first)):  # type: ignore[misc] # known when it runs
        async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **more: Any) -> Any:
            if host is not None:
                _check(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))
            return await super().create_connection(factory, host, port, **more)

    return Guarded


def take_refused() -> list[str]:
    """Where something tried to connect since this was last asked: programs may swallow the error."""
    taken = _refused.copy()
    _refused.clear()
    return taken


def stay_on_loopback() -> None:
    """From now on, until the process ends, refuse to connect to anything beyond this machine.

    An audit hook sees the connections of every library that goes through Python's sockets; see also :func:`guarded`.
    """
    global _active  # noqa: PLW0603 # a hook cannot be removed, so it is added once
    if not _active:
        _active = True
        sys.addaudithook(_watch)
