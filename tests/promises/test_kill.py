"""Promise 1: no acknowledged payment, order or grant is lost, whenever the server is killed.

A server works under load and is ended with SIGKILL at random moments, again and again. Clients know only
what they were told: what was answered must be there, and what was not answered they ask for again, with
the same key or the same event, until it is.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from keysat_licensing_client import PublicKey, Verifier
from tests.support import server as servers
from tests.support.databases import Dialect
from tests.support.remote import Remote, connected

from counterfoil.kernel.secrets import MasterKey

KILLS = 50
BUYERS = 6
LONGEST_LIFE = 0.25
"""Seconds that a server lives at most once it answers."""
MACHINES = 2


@dataclass
class Told:
    """What the server acknowledged."""

    checkouts: dict[str, str] = field(default_factory=dict)
    """Checkout ids by the key they were asked for with."""
    settled: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)
    """License keys by checkout."""
    validations: set[str] = field(default_factory=set)
    """The name (user agent) under which each was asked."""
    machines: set[str] = field(default_factory=set)
    retries: int = 0


class Buyer:
    """Buys, pays, validates and activates, over and over, whatever happens to the server."""

    def __init__(self, name: str, remote: Remote, price_id: str, told: Told, stop: threading.Event) -> None:
        self._name = name
        self._remote = remote
        self._price_id = price_id
        self._told = told
        self._stop = stop

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self._remote.url, timeout=10, trust_env=False) as self._http:
            number = 0
            while not self._stop.is_set():
                number += 1
                await self._sale(f"{self._name}-{number}")

    async def _sale(self, name: str) -> None:
        wanted = {"lines": [{"price_id": self._price_id}], "email": f"{name}@example.com"}
        opened = await self._until_answered("/v1/checkouts", {"Idempotency-Key": name}, json=wanted)
        assert self._told.checkouts.setdefault(name, opened["id"]) == opened["id"]
        for event in self._remote.news_of(opened["url"], attempt=name):
            body, headers = self._remote.signed(event)
            await self._until_answered("/v1/webhooks/sandbox", headers, content=body)
        self._told.settled.add(opened["id"])
        claim = await self._until_answered(f"/v1/claims/{opened['claim']}", {}, method="GET")
        (key,) = claim["license_keys"]
        self._told.keys[opened["id"]] = key
        for place in range(MACHINES + 1):
            agent = f"buyer/{name}/{place}"
            asked = {"key": key, "fingerprint": f"{name}/{place}"}
            answer = await self._until_answered("/v1/validate", {"User-Agent": agent}, json=asked)
            assert answer["ok"] is (place < MACHINES), answer
            self._told.validations.add(agent)
            if answer["ok"]:
                self._told.machines.add(answer["machine_id"])

    async def _until_answered(
        self, path: str, headers: dict[str, str], *, method: str = "POST", **request: Any
    ) -> dict[str, Any]:
        while True:
            try:
                answer = await self._http.request(method, path, headers=headers, **request)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code != 503:
                assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
                body: dict[str, Any] = answer.json()
                return body
            self._told.retries += 1
            await asyncio.sleep(0.1)  # the server is on its way back


def _load(remote: Remote, price_id: str, told: Told, stop: threading.Event, failures: list[BaseException]) -> None:
    async def everyone() -> None:
        await asyncio.gather(*[Buyer(f"b{n}", remote, price_id, told, stop).run() for n in range(BUYERS)])

    try:
        asyncio.run(everyone())
    except BaseException as error:
        failures.append(error)
        raise


@pytest.mark.xdist_group("kill")
def test_what_was_acknowledged_survives_fifty_kills(
    database_url: str, dialect: Dialect, tmp_path: Path, master: MasterKey, capsys: pytest.CaptureFixture[str]
) -> None:
    port = servers.free_port()
    moments = random.Random(f"kill-{dialect}")
    told, stop, failures = Told(), threading.Event(), list[BaseException]()

    def start() -> servers.Server:
        return servers.start(
            database_url, tmp_path, master=master, port=port, validations_per_minute="0", log_level="warning"
        )

    server = start()
    try:
        with connected(server.url, database_url, master) as remote:
            price_id = _tier(remote)
            pem = remote.http.get("/v1/pubkey").json()["public_key_pem"]
            load = threading.Thread(target=_load, args=(remote, price_id, told, stop, failures), daemon=True)
            load.start()
            for _ in range(KILLS):
                stop.wait(moments.uniform(0, LONGEST_LIFE))
                server.kill()
                assert not failures
                server = start()
            stop.set()
            load.join(timeout=60)
            assert not load.is_alive()
            assert not failures
            _check_books(remote, told)
    finally:
        if server.is_alive:
            server.stop()
    _check_keys(told, pem)
    if dialect == "sqlite":
        _check_file(Path(database_url.removeprefix("sqlite:///")))
    counts = {name: len(getattr(told, name)) for name in ("checkouts", "settled", "validations", "machines")}
    with capsys.disabled():
        print(f"\n{dialect}: {KILLS} kills; acknowledged and found: {counts}; {told.retries} retries")


def _tier(remote: Remote) -> str:
    product = remote.staff("POST", "/v1/products", slug="editor", name="Editor")
    remote.staff("PUT", f"/v1/products/{product['id']}/benefits", license={"max_machines": MACHINES})
    price = remote.staff("POST", f"/v1/products/{product['id']}/prices", asset="SAT", unit_amount=21_000)
    return str(price["id"])


def _check_books(remote: Remote, told: Told) -> None:
    checkouts = {row["id"]: row for row in remote.rows("checkouts")}
    orders = {row["checkout_id"]: row for row in remote.rows("orders")}
    payments, licenses, grants = remote.rows("payments"), remote.rows("licenses"), remote.rows("grants")
    machines, log, events = remote.rows("machines"), remote.rows("validation_log"), remote.rows("events")

    # Every acknowledged thing is there, and each buyer was served to the end. (How many sales there were is up to the
    # machine's speed.)
    assert len(told.checkouts) >= BUYERS
    assert told.retries >= KILLS
    assert {row["idempotency_key"].split()[-1]: row["id"] for row in checkouts.values()} == told.checkouts
    assert told.settled == set(checkouts) == set(orders)
    assert {row["user_agent"] for row in log} >= told.validations
    assert {row["id"] for row in machines} == told.machines

    # Nothing is there twice or half: one payment, one order, one license and one grant for each checkout.
    for rows in (payments, licenses, grants):
        assert len(rows) == len(orders)
    assert {row["checkout_id"] for row in payments} == set(orders)
    assert {row["status"] for row in payments} == {row["status"] for row in checkouts.values()} == {"settled"}
    assert {row["order_id"] for row in licenses} == {row["id"] for row in orders.values()}
    assert {(row["order_id"], row["object_id"]) for row in grants} == {(row["order_id"], row["id"]) for row in licenses}
    assert all(row["paid"] == row["amount"] == 21_000 for row in checkouts.values())
    assert sum(row["amount"] for row in payments) == sum(row["amount"] for row in orders.values())
    recorded = Counter(row["type"] for row in events)
    for type_ in ("checkout.opened", "payment.settled", "order.created", "license.issued", "checkout.settled"):
        assert recorded[type_] == len(orders), type_

    # The count of machines and the machines agree, and the cap held.
    active = Counter(row["license_id"] for row in machines if row["deactivated_at"] is None)
    assert {row["id"]: row["machine_count"] for row in licenses} == dict(active)
    assert set(active.values()) == {MACHINES}
    assert recorded["machine.activated"] == len(machines)


def _check_keys(told: Told, pem: str) -> None:
    verifier = Verifier(PublicKey.from_pem(pem))
    assert len({str(verifier.verify(key).license_id) for key in told.keys.values()}) == len(told.checkouts)


def _check_file(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
