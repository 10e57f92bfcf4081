"""One handling of a request that came with an Idempotency-Key: its changes, once, and its answer with them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.idempotency import keys
from counterfoil.idempotency.keys import Answer
from counterfoil.kernel.secrets import MasterKey

R = TypeVar("R")


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it was sent."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Told(msgspec.Struct, frozen=True):
    """What an operation returns whose answer's status depends on what it found."""

    status: int
    body: Any


class Shape(msgspec.Struct, frozen=True):
    """How a route answers: with what an operation returned, where that is of this type."""

    kind: Any
    status: int

    def reply(self, result: object) -> Reply | None:
        """The answer, if this result is all of it."""
        if isinstance(result, Told):
            return _json(result.status, result.body)
        if self.kind is None or self.kind is type(None):
            return Reply(self.status, [], b"") if result is None else None
        if type(result) is not self.kind:
            return None
        return _json(self.status, result)


def _json(status: int, body: object) -> Reply:
    return Reply(status, [(b"content-type", b"application/json")], msgspec.json.encode(body))


class Handling:
    """What a request does under its key.

    Every write transaction marks the key, so that a second handling changes nothing. Where an operation returns
    what the route answers with, the answer is stored in that very transaction.
    """

    def __init__(self, scope: Scope, master: MasterKey, key_id: str, shape: Shape, *, shared: bool) -> None:
        self._scope = scope
        self._master = master
        self._context = f"idempotency/{scope.tenant}/{key_id}"
        self._shape = shape
        self._made = False
        self.key_id = key_id
        self.me = secrets.token_hex(8)
        self.shared = shared
        self.begun_at: datetime | None = None
        self.stored: Reply | None = None
        """The answer that was stored with the change."""

    async def begin(self, request_hash: str) -> Reply | None:
        """Claim the key; the answer, when it has one. Raises what :func:`keys.claim` raises."""
        claim = await self._scope.run(keys.claim, self.key_id, request_hash, self.me, shared=self.shared)
        self.begun_at = claim.begun_at
        return self._open(claim.answer) if claim.answer else None

    async def write(self, scope: Scope, work: Callable[[Tx], R]) -> R:
        """Run a write transaction of the handling. Raises Overtaken besides what ``work`` raises."""
        stored: Reply | None = None

        def once(tx: Tx) -> R:
            nonlocal stored
            home = tx if tx.tenant == self._scope.tenant else tx.for_tenant(self._scope.tenant)
            keys.mark_effect(home, self.key_id, self.me, first=not self._made)
            result = work(tx)
            stored = self._shape.reply(result)
            if stored is not None:
                keys.store(home, self.key_id, self.me, self._seal(stored))
            return result

        result = await scope.database.write(once, scope.tenant, scope.actor)
        self._made = True
        self.stored = stored or self.stored
        return result

    async def finish(self, reply: Reply) -> Reply:
        """Keep the answer, if its change did not bring it along; the answer to send."""
        if self.shared:
            kept = await self._scope.run(keys.store_first, self.key_id, self._seal(reply))
            return self._open(kept)
        if self.stored != reply:
            await self._scope.run(keys.store, self.key_id, self.me, self._seal(reply))
        return reply

    async def free(self) -> None:
        """Nothing was done that stays."""
        if not self.shared:
            await self._scope.run(keys.free, self.key_id, self.me)

    async def let_go(self) -> None:
        """It went wrong: whoever asks again may have it done, unless it was done."""
        if not self.shared:
            await self._scope.run(keys.let_go, self.key_id, self.me)

    async def answered_meanwhile(self) -> Reply | None:
        """What another handling of the request answered."""
        found = await self._scope.read(keys.answer_of, self.key_id)
        return self._open(found) if found else None

    def _seal(self, reply: Reply) -> Answer:
        return Answer(reply.status, self._master.seal(msgspec.msgpack.encode(reply), self._context))

    def _open(self, answer: Answer) -> Reply:
        return msgspec.msgpack.decode(self._master.open(answer.sealed, self._context), type=Reply)
