"""The whole application in this process: a shop with a clock of its own, reached over ASGI.

async with opening(database_url, clock, master) as shop:
    tier = await shop.tier("editor", amount=21_000, license={"max_machines": 3})
    opened = await shop.checkout(tier)
    await shop.play(opened, "pay")
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from litestar import Litestar
from litestar.types import ASGIApp

from counterfoil.accounts import api_keys
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.api.app import build, move_in
from counterfoil.db.base import Scope
from counterfoil.db.schema import metadata
from counterfoil.db.tx import Tx
from counterfoil.house import House, open_house
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.mail import outgoing
from counterfoil.rails.base import CheckoutReport
from counterfoil.rails.sandbox.rail import SandboxSettings, sign
from counterfoil.rails.sandbox.session import Action, SandboxEvent, Session, act, unseal
from counterfoil.settings import Settings
from counterfoil.settlement.settle import Settlement, settle
from counterfoil.web.site import PAGES
from tests.support.furnished import Furnished

ANSWERED = "http://127.0.0.1:8787"
TRANSACTIONS_OVERLAP = pytest.mark.parametrize("dialect", ["postgresql"])
"""For races that :func:`competitor` runs: on SQLite transactions take turns, and nothing comes between."""

_EMPTY: list[Litestar] = []
# Applications that were built and whose houses are closed: building one takes longer than most tests.

_MAIL = TemporaryDirectory(prefix="counterfoil-mail-")
_numbers = itertools.count(1)

_ID = re.compile(r"[a-z]{3}_[0-7][0-9a-hjkmnp-tv-z]{25}")


@dataclass(frozen=True)
class Sold:
    """A product's tier that is for sale."""

    product_id: str
    slug: str
    price_id: str
    tier: str
    amount: int
    asset: str


class Letter(NamedTuple):
    """A letter that waits to be sent."""

    id: str
    recipient: str
    template: str
    context: dict[str, str]


class Shop:
    """An open house and its doors."""

    def __init__(self, house: House, app: ASGIApp, http: httpx.AsyncClient, staff: httpx.AsyncClient) -> None:
        self.house = house
        self.app = app
        self.http = http
        """Anybody."""
        self.staff = staff
        """Whoever holds a key that may do everything."""

    @property
    def scope(self) -> Scope:
        return self.house.scope(DEFAULT_TENANT)

    @property
    def clock(self) -> ManualClock:
        clock = self.house.database.clock
        assert isinstance(clock, ManualClock)
        return clock

    # -- catalog -----------------------------------------------------------------------------------

    async def tier(
        self,
        slug: str = "editor",
        *,
        amount: int = 21_000,
        asset: str = "SAT",
        tier: str = "default",
        license: dict[str, Any] | None = None,  # noqa: A002 # its name in the API
        **price: Any,
    ) -> Sold:
        """A product (made when it is new), what the tier promises, and its price."""
        made = await self.staff.post("/v1/products", json={"slug": slug, "name": slug.title()})
        if made.status_code == 409:
            made = await self.staff.get(f"/v1/products/{slug}")
        product = good(made)
        await self.set_benefit(product["id"], tier, license or {})
        body = {"asset": asset, "unit_amount": amount, "tier": tier, **price}
        priced = good(await self.staff.post(f"/v1/products/{product['id']}/prices", json=body))
        return Sold(product["id"], slug, priced["id"], tier, amount, asset)

    async def set_benefit(self, product_id: str, tier: str, spec: dict[str, Any]) -> None:
        good(await self.staff.put(f"/v1/products/{product_id}/benefits", json={"tier": tier, "license": spec}))

    async def discount(self, code: str, **fields: Any) -> str:
        """Its id."""
        made = good(await self.staff.post("/v1/discounts", json={"code": code, "kind": "percentage", **fields}))
        return str(made["id"])

    async def license(self, sold: Sold, **spec: Any) -> dict[str, Any]:
        """A license issued by hand, with its key."""
        body = {"product": sold.product_id, "tier": sold.tier, **({"license": spec} if spec else {})}
        return good(await self.staff.post("/v1/licenses", json=body))

    # -- sales -------------------------------------------------------------------------------------

    async def checkout(self, *lines: Sold | tuple[Sold, int], key: str | None = None, **fields: Any) -> dict[str, Any]:
        """An open checkout."""
        return good(await self.try_checkout(*lines, key=key, **fields))

    async def try_checkout(
        self, *lines: Sold | tuple[Sold, int], key: str | None = None, **fields: Any
    ) -> httpx.Response:
        wanted = [line if isinstance(line, tuple) else (line, 1) for line in lines]
        body = {"lines": [{"price_id": sold.price_id, "quantity": count} for sold, count in wanted], **fields}
        return await self.http.post("/v1/checkouts", json=body, headers={"Idempotency-Key": key} if key else {})

    async def sandbox(self) -> SandboxSettings:
        settings = (await self.house.rails.get(DEFAULT_TENANT, "sandbox")).settings
        assert isinstance(settings, SandboxSettings)
        return settings

    async def session(self, opened: dict[str, Any]) -> Session:
        """What the sandbox page knows of a checkout before anybody acts there."""
        return unseal(opened["url"].rsplit("/", 1)[1], (await self.sandbox()).secret)

    async def tell(self, event: SandboxEvent) -> httpx.Response:
        """Deliver one piece of the sandbox's news."""
        body = msgspec.json.encode(event)
        headers = {"Sandbox-Signature": sign(body, (await self.sandbox()).secret, self.clock.now())}
        return await self.http.post("/v1/webhooks/sandbox", content=body, headers=headers)

    async def play(self, opened: dict[str, Any], *actions: Action) -> Session:
        """Act on the sandbox page, and deliver the news in order."""
        session = await self.session(opened)
        for place, action in enumerate(actions):
            session, events = act(session, action, f"attempt-{place}", self.clock.now())
            for event in events:
                good(await self.tell(event))
        return session

    async def settle(self, report: CheckoutReport) -> Settlement:
        return await self.scope.run(settle, report)

    async def claim(self, opened: dict[str, Any]) -> dict[str, Any]:
        """What the buyer sees."""
        return good(await self.http.get(f"/v1/claims/{opened['claim']}"))

    async def buy(self, *lines: Sold | tuple[Sold, int], **fields: Any) -> list[str]:
        """Buy and pay; the license keys."""
        opened = await self.checkout(*lines, **fields)
        await self.play(opened, "pay")
        keys: list[str] = (await self.claim(opened))["license_keys"]
        return keys

    async def letters(self, recipient: str | None = None) -> list[Letter]:
        """The letters that wait to be sent, and what they say: all, or those to one address."""
        page = await self.scope.read(outgoing.list_, status="queued", limit=100)
        return [
            Letter(email.id, email.recipient, email.template, outgoing.unseal(email, DEFAULT_TENANT, self.house.master))
            for email in page.data
            if recipient in {None, email.recipient}
        ]

    # -- what is written ---------------------------------------------------------------------------

    async def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        """The default tenant's rows of a table, sorted by id: oldest first, but at random within a millisecond."""
        found = await self.scope.read(_rows, table, where)
        return [{name: value for name, value in row.items() if name != "tenant_id"} for row in found]

    async def row(self, table: str, **where: Any) -> dict[str, Any]:
        (only,) = await self.rows(table, **where)
        return only

    async def count(self, table: str, **where: Any) -> int:
        return len(await self.rows(table, **where))

    async def everything(self, *but: str) -> dict[str, list[dict[str, Any]]]:
        """Every row of every table, to show that nothing changed."""
        return await self.scope.read(_everything, but)

    async def events(self, *types: str) -> list[str]:
        """Types of the record's entries, oldest first: all, or those named."""
        return [row["type"] for row in await self.rows("events") if not types or row["type"] in types]


# One quick question first: most tables are empty, and asking each would take longer than the test.
_WITH_ROWS = sa.text(
    " UNION ALL ".join(
        f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {table.name} WHERE tenant_id = :tenant)"
        for name, table in metadata.tables.items()
    )
).columns(sa.Column("name", sa.Text))


def _everything(tx: Tx, but: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    with_rows = {name for (name,) in tx.all(_WITH_ROWS)}
    return {name: _rows(tx, name, {}) if name in with_rows else [] for name in metadata.tables if name not in but}


def _rows(tx: Tx, name: str, where: dict[str, Any]) -> list[dict[str, Any]]:
    table = metadata.tables[name]
    conditions = [table.c.tenant_id == tx.tenant, *[table.c[column] == value for column, value in where.items()]]
    order = [table.c.id] if "id" in table.c else table.primary_key.columns
    return [dict(row._mapping) for row in tx.all(sa.select(table).where(*conditions).order_by(*order))]


def good(response: httpx.Response) -> Any:
    """The body of a success."""
    assert response.is_success, f"{response.request.method} {response.request.url} {response.text}"
    return response.json()


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of a refusal, which must be this one."""
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    return body


def named(rows: Any, known: dict[str, str] | None = None) -> Any:
    """The same rows with every id replaced by its kind and a number, so that two stories can be compared.

    Numbers follow the order in which ids are met. ``known`` names other texts that differ by story.
    """
    names: dict[str, str] = dict(known or {})
    counts: dict[str, int] = {}

    def name_of(text: str) -> str:
        if text not in names:
            if not _ID.fullmatch(text):
                return text
            kind = text[:3]
            counts[kind] = counts.get(kind, 0) + 1
            names[text] = f"{kind}#{counts[kind]}"
        return names[text]

    def walk(value: Any) -> Any:
        match value:
            case str():
                return name_of(value)
            case dict():
                return {key: walk(inner) for key, inner in value.items()}
            case list():
                return [walk(inner) for inner in value]
            case _:
                return value

    return walk(rows)


@contextlib.asynccontextmanager
async def opening(database_url: str, clock: ManualClock, master: MasterKey, **settings: Any) -> AsyncIterator[Shop]:
    """Open a shop on a migrated database: sandbox connected, no jobs running, no rate limits unless given."""
    given: dict[str, Any] = {"validations_per_minute": 0, "heartbeats_per_hour": 0, "sandbox": True, **settings}
    given.setdefault("mail_folder", Path(_MAIL.name) / str(next(_numbers)))  # made with the first letter
    made = Settings.load(database_url=database_url, jobs=False, master_key=master.to_text(), **given)
    furnished = Furnished(database_url, clock.now(), master.to_text(), made.base_url, made.sandbox)
    async with open_house(made, clock) as house:
        secret = furnished.said
        if secret is None:
            secret = api_keys.new_secret()
            await house.scope(DEFAULT_TENANT).run(api_keys.create, "tests", ["*"], secret=secret)
            furnished.keep(secret)
        built = _EMPTY.pop() if _EMPTY else build(PAGES)
        app = move_in(built, house)
        key = {"Authorization": f"Bearer {secret}"}
        async with client_of(app) as http, client_of(app, headers=key) as staff:
            yield Shop(house, app, http, staff)
        _EMPTY.append(built)


def client_of(app: ASGIApp, *, address: str = "127.0.0.1", headers: dict[str, str] | None = None) -> httpx.AsyncClient:
    """A client of an application in this process, seen by it at ``address``."""
    transport = httpx.ASGITransport(app, client=(address, 40_000))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url=ANSWERED, headers=headers, timeout=60)


def competitor(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, scope: Scope, *rival: Any, **arguments: Any
) -> list[Any]:
    """Have a rival's whole transaction commit just before ``owner.name`` is called for the first time.

    So a race is run on purpose, and every time. Only where transactions
    overlap. The answer is a list that holds the rival's answer once it ran.
    """
    from sqlalchemy.util import await_only

    original: Callable[..., Any] = getattr(owner, name)
    answers: list[Any] = []

    def first_the_rival(*args: Any, **kwargs: Any) -> Any:
        if not answers:
            answers.append(None)
            answers[0] = await_only(scope.run(*rival, **arguments))
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, first_the_rival)
    return answers


def total(rows: Iterable[dict[str, Any]], column: str = "amount") -> int:
    return sum(row[column] for row in rows)


MINUTE = timedelta(minutes=1)
