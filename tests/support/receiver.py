"""A receiver of webhooks on this machine, in the test's own loop: it keeps what it was sent and answers as told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Message:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers.get("webhook-id", "")

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content


@dataclass
class Reply:
    """An answer; None as status: none, the connection is closed."""

    status: int | None = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Answering = Callable[[Message], Awaitable[Reply]]


async def _take(_: Message) -> Reply:
    return Reply()


class Receiver:
    """Listens on a port; ``answer`` decides."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.answer: Answering = _take
        self.under_way: dict[str, int] = {}
        self.most_under_way = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def answers(self, status: int | None, body: bytes = b"", **headers: str) -> None:
        """From now on, always this."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def answer(_: Message) -> Reply:
            return Reply(status, named, body)

        self.answer = answer

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, and cut off whoever is connected."""
        assert self._server is not None
        self._server.close()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._serve_one(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        headers = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in lines}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        message = Message(first.split(" ")[1], headers, body)
        self.messages.append(message)
        self.under_way[message.id] = self.under_way.get(message.id, 0) + 1
        self.most_under_way = max(self.most_under_way, sum(self.under_way.values()))
        try:
            reply = await self.answer(message)
        finally:
            self.under_way[message.id] -= 1
        if reply.status is None:
            return False
        named = {"Content-Length": str(len(reply.body)), **reply.headers}
        text = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        writer.write(f"HTTP/1.1 {reply.status} So\r\n{text}\r\n".encode("latin-1") + reply.body)
        await writer.drain()
        return True


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that takes everything until told otherwise."""
    receiver = Receiver()
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()
