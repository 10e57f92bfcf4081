"""A server that cuts off whoever connects, at once."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

_CUT = struct.pack("ii", 1, 0)
"""Linger, for no time: the connection is reset."""


@contextlib.contextmanager
def hanging_up() -> Iterator[str]:
    """Its URL. It runs in a thread, so that it can cut a connection off while its maker is doing something else."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        over = threading.Event()

        def cut_off() -> None:
            while not over.is_set():
                connection, _ = server.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CUT)
                connection.close()

        thread = threading.Thread(target=cut_off, daemon=True)
        thread.start()
        host, port = server.getsockname()
        try:
            yield f"http://{host}:{port}/"
        finally:
            over.set()
            socket.create_connection((host, port)).close()
            thread.join()
