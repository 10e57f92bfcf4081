"""The transaction: all that an operation may touch.

An operation is a plain function whose first argument is a ``Tx``. It has no other way to reach the
clock, randomness or the database, so it can be retried, and tested without mocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

import msgspec
import sqlalchemy as sa

from counterfoil.db.functions import any_of, insert_new
from counterfoil.db.schema import TENANT, mine, row_of
from counterfoil.events.tables import events
from counterfoil.events.types import Actor
from counterfoil.kernel.ids import IdMaker
from counterfoil.kernel.money import Money

Row: TypeAlias = "sa.Row[*tuple[Any, ...]]"
"""One row of any statement."""

Recorded: TypeAlias = Mapping[str, Any]
"""An event as it was written: the columns of its row by name."""
OnEvents: TypeAlias = "Callable[[Tx, Sequence[Recorded]], AbstractSet[str]]"
"""What else becomes of events in the transaction that records them; who is to be woken when it is durable."""

_INSERT_EVENTS = sa.insert(events)
_NOTHING: Mapping[str, Any] = {}

R = TypeVar("R")


class Tx:
    """One tenant's view of one database transaction.

    Every statement it runs gets the parameter ``tenant``; statements are written with
    ``schema.mine(table)``, so forgetting the tenant is an error rather than a leak.
    """

    __slots__ = (
        "_connection",
        "_events",
        "_found",
        "_later",
        "_on_events",
        "_statements_left",
        "_sums",
        "actor",
        "new_id",
        "now",
        "tenant",
        "wakes",
    )

    def __init__(
        self,
        connection: sa.Connection,
        *,
        tenant: str,
        actor: Actor,
        now: datetime,
        single: bool = False,
        on_events: OnEvents | None = None,
    ) -> None:
        self._connection = connection
        self._on_events = on_events
        self.wakes: AbstractSet[str] = frozenset()
        """Who is to be woken when this is durable."""
        self._statements_left = 1 if single else -1
        self._events: list[dict[str, Any]] = []
        self._sums: dict[sa.Executable, dict[str, int]] = {}
        self._later: dict[sa.Table, list[dict[str, Any]]] = {}
        self._found: dict[str, Any] = {}
        self.tenant = tenant
        self.actor = actor
        self.now = now
        self.new_id = IdMaker(now)

    def for_tenant(self, tenant: str) -> Tx:
        """The same transaction as another tenant sees it; it records no events."""
        return Tx(self._connection, tenant=tenant, actor=self.actor, now=self.now)

    def one(self, statement: sa.Executable, params: Mapping[str, Any] = _NOTHING) -> Row | None:
        """The only row, or None. More than one row is a defect and raises."""
        return self._query(statement, params).one_or_none()

    def all(self, statement: sa.Executable, params: Mapping[str, Any] = _NOTHING) -> Sequence[Row]:
        """Every row."""
        return self._query(statement, params).all()

    def _query(self, statement: sa.Executable, params: Mapping[str, Any]) -> sa.CursorResult[*tuple[Any, ...]]:
        if not self._statements_left:
            raise RuntimeError("a single-statement operation ran a second statement")
        if not statement.is_select:
            self._check_may_write()
        self._statements_left -= 1
        return self._connection.execute(statement, {**params, "tenant": self.tenant})

    def execute(self, statement: sa.Executable, params: Mapping[str, Any] = _NOTHING) -> int:
        """Change rows; how many it changed."""
        self._check_may_write()
        return self._connection.execute(statement, {**params, "tenant": self.tenant}).rowcount

    def add_up(self, statement: sa.Executable, key: str, amount: int) -> None:
        """Have a statement run before the commit: once for each ``key``, in their order, with all ``amount`` together.

        The statement has parameters of these names, and ``now``. It is for rows where many changes of one
        transaction meet, because each change of a row slows down the next.
        """
        sums = self._sums.setdefault(statement, {})
        sums[key] = sums.get(key, 0) + amount

    def insert(self, table: sa.Table, *rows: msgspec.Struct) -> None:
        """Add rows, given as structs that match the table."""
        self._check_may_write()
        if rows:
            self._connection.execute(_insert_into(table), [self._row(row) for row in rows])

    def insert_later(self, table: sa.Table, *rows: msgspec.Struct) -> None:
        """Add rows before the commit, all of a table together. For rows that nothing in this transaction reads."""
        self._check_may_write()
        if rows:
            self._later.setdefault(table, []).extend(self._row(row) for row in rows)

    def write_rows(self) -> None:
        """Add now what ``insert_later`` put off: somebody is about to read it after all."""
        later, self._later = self._later, {}
        for table, rows in later.items():
            self._connection.execute(_insert_into(table), rows)

    def once(self, name: str, find: Callable[[], R]) -> R:
        """What ``find`` finds, looked up once a transaction: for what does not change while it lasts."""
        if name not in self._found:
            self._found[name] = find()
        found: R = self._found[name]
        return found

    def insert_if_new(self, table: sa.Table, row: msgspec.Struct) -> bool:
        """Add a row unless one with the same unique key exists. Whether it was added."""
        self._check_may_write()
        return self._connection.execute(_insert_if_new(table), self._row(row)).rowcount == 1

    def insert_new(self, table: sa.Table, rows: Sequence[msgspec.Struct]) -> list[bool]:
        """Add rows with new ids, in their order, but none whose unique key exists. Whether each was added."""
        if len(rows) == 1:
            return [self.insert_if_new(table, rows[0])]
        self._check_may_write()
        values = [self._row(row) for row in rows]
        # How many rows many statements change, no driver says one by one; the ids that are there now tell.
        self._connection.execute(_insert_if_new(table), values)
        there = {row.id for row in self.all(_which_of(table), {"ids": [value["id"] for value in values]})}
        return [value["id"] in there for value in values]

    def record(
        self,
        type_: str,
        object_kind: str,
        object_id: str,
        *,
        customer_id: str | None = None,
        money: Money | None = None,
        **details: Any,
    ) -> None:
        """Say that something happened, and to which customer. The event commits, or not, with everything else.

        Secrets have no place in ``details``.
        """
        self._events.append(
            {
                TENANT: self.tenant,
                "id": self.new_id("evt"),
                "type": type_,
                "object_kind": object_kind,
                "object_id": object_id,
                "customer_id": customer_id,
                "actor_kind": self.actor.kind,
                "actor_id": self.actor.id,
                "amount": money.amount if money else None,
                "asset": money.asset if money else None,
                "source": self.actor.source,
                "address": self.actor.address,
                "user_agent": self.actor.user_agent,
                "details": details,
                "created_at": self.now,
            }
        )

    def flush(self) -> None:
        """Run what was put off, write the events recorded so far, and see to who hears of them.

        The database calls it before it commits.
        """
        self.write_rows()
        put_off, self._sums = self._sums, {}
        for statement, sums in put_off.items():
            same = {"now": self.now, "tenant": self.tenant}
            params = [{"key": key, "amount": amount, **same} for key, amount in sorted(sums.items())]
            self._connection.execute(statement, params)
        recorded, self._events = self._events, []
        if recorded:
            self._connection.execute(_INSERT_EVENTS, recorded)
            if self._on_events is not None:
                self.wakes |= self._on_events(self, recorded)

    def _check_may_write(self) -> None:
        if self._statements_left >= 0:  # a single statement runs outside a transaction, so nothing else refuses it
            raise RuntimeError("a single-statement operation only reads")

    def _row(self, row: msgspec.Struct) -> dict[str, Any]:
        values = row_of(row)
        values[TENANT] = self.tenant
        return values


_inserts: dict[sa.Table, sa.Insert] = {}
_new_inserts: dict[sa.Table, sa.Insert] = {}
_known_ids: dict[sa.Table, sa.Select[Any]] = {}


def _insert_into(table: sa.Table) -> sa.Insert:
    statement = _inserts.get(table)
    if statement is None:
        statement = _inserts[table] = sa.insert(table)
    return statement


def _insert_if_new(table: sa.Table) -> sa.Insert:
    statement = _new_inserts.get(table)
    if statement is None:
        statement = _new_inserts[table] = insert_new(table)
    return statement


def _which_of(table: sa.Table) -> sa.Select[Any]:
    statement = _known_ids.get(table)
    if statement is None:
        statement = _known_ids[table] = sa.select(table.c.id).where(mine(table), any_of(table.c.id, "ids"))
    return statement
