"""Importing what a seller has at a rail already: products and prices that are none of ours become ours, linked.

What is ours already is left alone, so that an import can be repeated, and can go on where it was cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from typing import Final, Literal, cast

import msgspec
from sqlalchemy.exc import IntegrityError

from counterfoil.catalog import imports
from counterfoil.catalog.imports import ImportedPrice, ImportedProduct
from counterfoil.catalog.prices import NewPrice
from counterfoil.catalog.tables import prices, products
from counterfoil.catalog.types import CatalogStatus, CountryOverride, TaxMode
from counterfoil.db.base import DatabaseUnavailable, Scope
from counterfoil.db.tx import Tx
from counterfoil.exchange import subjects
from counterfoil.exchange.pusher import Pusher
from counterfoil.exchange.rails import Connection, Rails
from counterfoil.kernel.errors import Invalid
from counterfoil.rails import mirror
from counterfoil.rails.base import RailRefused
from counterfoil.rails.facts import RailCopy
from counterfoil.settlement import links
from counterfoil.settlement.tables import rail_links

BATCH: Final = 500
_EXAMPLES: Final = 5
_TRIES: Final = 3
_PAGES_AHEAD: Final = 8
_LEARN_AT: Final = 2_000
"""After so many the database looks at its tables anew, and whenever there are four times as many."""
What = Literal["product", "price"]


class Skipped(msgspec.Struct):
    """Why some were not imported."""

    kind: What
    reason: str
    count: int = 0
    examples: list[str] = []
    """The rail's names of the first ones."""


class Imported(msgspec.Struct):
    """What an import did."""

    rail: str
    products: int = 0
    prices: int = 0
    known: int = 0
    """Ours before."""
    skipped: list[Skipped] = []

    def add(self, kind: What, taken: _Taken) -> None:
        """Count a batch."""
        if kind == "product":
            self.products += taken.imported
        else:
            self.prices += taken.imported
        self.known += taken.known
        for reason, reference in taken.skipped:
            self._skip(kind, reason, reference)

    def _skip(self, kind: What, reason: str, reference: str) -> None:
        found = next((one for one in self.skipped if (one.kind, one.reason) == (kind, reason)), None)
        if found is None:
            found = Skipped(kind, reason)
            self.skipped.append(found)
        found.count += 1
        if len(found.examples) < _EXAMPLES:
            found.examples.append(reference)


async def pull(
    scope: Scope,
    rails: Rails,
    pusher: Pusher,
    rail: str,
    what: What,
    on_seen: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Import a rail's products, or its prices with the products that they are of.

    Raises NotFound (also ``rail_keeps_no_copies``); RailRefused, RailUnavailable: what was imported until then stays.
    """
    connection = await rails.get(scope.tenant, rail, fresh=True)
    done = Imported(rail)
    seen, learn_at = 0, _LEARN_AT
    kinds: tuple[What, ...] = ("product", "price") if what == "price" else ("product",)
    for kind in kinds:
        async for batch in _batches(scope, pusher, connection, kind):
            done.add(kind, await _take(scope, connection, kind, batch))
            seen += len(batch)
            on_seen(seen)
            if seen >= learn_at:
                learn_at = 4 * seen
                with contextlib.suppress(DatabaseUnavailable):  # it would only have been quicker
                    await scope.database.learn(rail_links.name, products.name, prices.name)
    return done


async def _take(scope: Scope, connection: Connection, kind: What, batch: list[RailCopy]) -> _Taken:
    for _ in range(_TRIES - 1):
        with contextlib.suppress(IntegrityError):  # somebody else imports the same: look again at what is ours
            return await scope.run(_TAKE[kind], connection, batch)
    return await scope.run(_TAKE[kind], connection, batch)


async def _batches(scope: Scope, pusher: Pusher, connection: Connection, kind: What) -> AsyncIterator[list[RailCopy]]:
    """All of a kind that the rail has, read ahead while the ones before are written."""
    pages: asyncio.Queue[tuple[RailCopy, ...] | BaseException | None] = asyncio.Queue(_PAGES_AHEAD)
    reading = asyncio.create_task(_read(scope, pusher, connection, kind, pages))
    batch: list[RailCopy] = []
    try:
        while (page := await pages.get()) is not None:
            if isinstance(page, BaseException):
                raise page
            batch += page
            if len(batch) >= BATCH:
                yield batch
                batch = []
        if batch:
            yield batch
    finally:
        reading.cancel()


async def _read(
    scope: Scope,
    pusher: Pusher,
    connection: Connection,
    kind: What,
    pages: asyncio.Queue[tuple[RailCopy, ...] | BaseException | None],
) -> None:
    keeper, settings = connection.mirror, connection.settings
    after: str | None = None
    try:
        while True:
            request = keeper.list_request(settings, kind, after)
            read = functools.partial(keeper.read_list, settings, kind)
            page, after = await pusher.ask(scope, connection, request, read)
            await pages.put(page)
            if after is None:
                break
    except Exception as error:  # noqa: BLE001 # whoever takes the pages raises it
        await pages.put(error)
    await pages.put(None)


class _Taken(msgspec.Struct):
    """What became of one batch."""

    imported: int = 0
    known: int = 0
    skipped: list[tuple[str, str]] = []
    """Reasons, and the rail's names."""


def _new_ones(tx: Tx, rail: str, kind: What, batch: list[RailCopy], taken: _Taken) -> list[RailCopy]:
    """Those that are none of ours."""
    ours = links.objects(tx, rail, kind, [copy.reference for copy in batch])
    claimed = [copy.our_id for copy in batch if copy.our_id is not None and copy.reference not in ours]
    here = subjects.existing(tx, kind, claimed)
    found = {}
    for copy in batch:
        if copy.reference in ours:
            taken.known += 1
        elif copy.our_id in here:
            taken.skipped.append(("it carries the id of one of ours, and is not its copy", copy.reference))
        elif copy.reference not in found:
            found[copy.reference] = copy
    return list(found.values())


def _take_products(tx: Tx, connection: Connection, batch: list[RailCopy]) -> _Taken:
    rail, taken = connection.rail.name, _Taken()
    made: list[tuple[str, RailCopy]] = []
    for copy in _new_ones(tx, rail, "product", batch, taken):
        try:
            said = cast("mirror.Product", connection.mirror.imported(connection.settings, copy))
            new = ImportedProduct(
                source=rail,
                reference=copy.reference,
                name=said.name,
                description=said.description,
                image_url=said.image_url,
                tax_category=said.tax_category,
                status=_status(said),
                metadata=said.metadata,
            )
            made.append((imports.add_product(tx, new), copy))
        except (RailRefused, Invalid) as error:
            taken.skipped.append((_words(error), copy.reference))
    links.link_new(tx, rail, "product", made)
    taken.imported = len(made)
    return taken


def _take_prices(tx: Tx, connection: Connection, batch: list[RailCopy]) -> _Taken:
    rail, taken = connection.rail.name, _Taken()
    wanted: list[tuple[RailCopy, mirror.Price]] = []
    for copy in _new_ones(tx, rail, "price", batch, taken):
        try:
            wanted.append((copy, cast("mirror.Price", connection.mirror.imported(connection.settings, copy))))
        except RailRefused as error:
            taken.skipped.append((_words(error), copy.reference))
    products = links.objects(tx, rail, "product", [said.product_reference for _, said in wanted])
    rows, made = [], []
    for copy, said in wanted:
        product_id = products.get(said.product_reference)
        if product_id is None:
            taken.skipped.append(("its product was not imported", copy.reference))
            continue
        try:
            row = imports.make_price(tx, _price(rail, copy, said, product_id))
        except Invalid as error:
            taken.skipped.append((_words(error), copy.reference))
            continue
        rows.append(row)
        made.append((row.id, copy))
    imports.add_prices(tx, rail, rows)
    links.link_new(tx, rail, "price", made)
    taken.imported = len(made)
    return taken


_TAKE: Final[dict[What, Callable[[Tx, Connection, list[RailCopy]], _Taken]]] = {
    "product": _take_products,
    "price": _take_prices,
}


def _price(rail: str, copy: RailCopy, said: mirror.Price, product_id: str) -> ImportedPrice:
    price = NewPrice(
        asset=said.asset,
        unit_amount=said.unit_amount,
        name=said.name,
        description=said.description,
        type="one_time" if said.interval is None else "recurring",
        interval=said.interval,
        interval_count=said.interval_count,
        trial_days=said.trial_days,
        tax_mode=cast("TaxMode", said.tax_mode),
        country_overrides=[CountryOverride(list(countries), amount) for countries, amount in said.country_overrides],
        quantity_min=said.quantity_min,
        quantity_max=said.quantity_max,
        metadata=said.metadata,
    )
    return ImportedPrice(
        source=rail, reference=copy.reference, product_id=product_id, price=price, status=_status(said)
    )


def _status(said: mirror.Product | mirror.Price) -> CatalogStatus:
    return "active" if said.active else "archived"


def _words(error: RailRefused | Invalid) -> str:
    return error.detail if isinstance(error, Invalid) else str(error)
