"""Products: made, read, changed and archived through the API, and shown to buyers without what is internal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.app import Shop, good, opening, problem

from counterfoil.catalog import shelf
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.paging import encode_cursor
from counterfoil.kernel.secrets import MasterKey

SECOND = timedelta(seconds=1)
NOBODY = "pro_01j00000000000000000000000"


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def make(shop: Shop, slug: str, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = good(await shop.staff.post("/v1/products", json={"slug": slug, "name": slug, **fields}))
    return made


async def refused(shop: Shop, body: dict[str, Any], pointer: str, *, at: str | None = None) -> None:
    """A product, or a change to one, that names a bad field and changes nothing."""
    before = await shop.everything()
    answer = await (shop.staff.patch(at, json=body) if at else shop.staff.post("/v1/products", json=body))
    told = problem(answer, 422, "invalid_request")
    assert [error["pointer"] for error in told["errors"]] == [pointer]
    assert await shop.everything() == before


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is sent to any database meanwhile."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


# -- made and read ------------------------------------------------------------------------------------


async def test_a_product_in_every_detail(shop: Shop) -> None:
    fields = {
        "slug": "editor",
        "name": "Editor ✎",
        "description": "Writes.\nReads.",
        "image_url": "https://x.example/editor.png",
        "tax_category": "saas",
        "type": "custom",
        "metadata": {"cost_center": 7},
    }
    answer = await shop.staff.post("/v1/products", json=fields)
    assert answer.status_code == 201
    made = good(answer)
    now = "2026-01-02T03:04:05.678901Z"
    assert made == {"id": made["id"], **fields, "status": "active", "created_at": now, "updated_at": now}
    assert made["id"].startswith("pro_")
    shown = {name: value for name, value in made.items() if name not in {"type", "metadata", "updated_at"}}
    for name in ("editor", made["id"]):
        assert good(await shop.http.get(f"/v1/products/{name}")) == {**shown, "prices": [], "benefits": []}
    listed = good(await shop.http.get("/v1/products"))
    assert listed == {"data": [{**shown, "prices": []}], "next": None}
    event = await shop.row("events", object_id=made["id"])
    assert (event["type"], event["details"]) == ("product.created", {"slug": "editor", "name": "Editor ✎"})


async def test_what_is_left_out_has_a_default(shop: Shop) -> None:
    made = await make(shop, "editor")
    assert (made["description"], made["image_url"], made["tax_category"], made["metadata"]) == (
        "",
        None,
        "standard",
        {},
    )


@pytest.mark.parametrize("slug", ["a", "0", "a-b", "editor-2-pro", "x" * 80])
async def test_a_good_slug(shop: Shop, slug: str) -> None:
    assert (await make(shop, slug))["slug"] == slug


@pytest.mark.parametrize(
    "slug",
    [
        "",
        "A",
        "Editor",
        "a b",
        "a_b",
        "a--b",
        "-a",
        "a-",
        "a/b",
        "a.b",
        "é",
        "a\n",
        "x" * 81,
        "pro_01j00000000000000000000000",
    ],
)
async def test_a_bad_slug(shop: Shop, slug: str) -> None:
    await refused(shop, {"slug": slug, "name": "Editor"}, "/slug")


async def test_a_slug_is_taken_once(shop: Shop) -> None:
    first = await make(shop, "editor", name="First")
    before = await shop.everything()
    problem(await shop.staff.post("/v1/products", json={"slug": "editor", "name": "Second"}), 409, "slug_taken")
    assert await shop.everything() == before
    good(await shop.staff.patch(f"/v1/products/{first['id']}", json={"status": "archived"}))
    # Also an archived product keeps its slug: it is in links, and in the programs of those who bought it.
    problem(await shop.staff.post("/v1/products", json={"slug": "editor", "name": "Second"}), 409, "slug_taken")


async def test_many_want_the_same_slug_at_once(shop: Shop) -> None:
    answers = await asyncio.gather(
        *(shop.staff.post("/v1/products", json={"slug": "editor", "name": f"Number {place}"}) for place in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    (winner,) = [good(answer) for answer in answers if answer.is_success]
    assert (await shop.row("products"))["name"] == winner["name"]
    assert await shop.events("product.created") == ["product.created"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "x" * 201}, "/name"),
        ({"name": "bell\x07"}, "/name"),
        ({"description": "x" * 10_001}, "/description"),
        ({"tax_category": ""}, "/tax_category"),
        ({"tax_category": "x" * 81}, "/tax_category"),
        ({"image_url": "javascript:alert(1)"}, "/image_url"),
        ({"image_url": "/local.png"}, "/image_url"),
        ({"image_url": "https://x.example/a b"}, "/image_url"),
        ({"image_url": "https://x.example/a\n"}, "/image_url"),
        ({"image_url": "https://x.example/a\x1b"}, "/image_url"),
        ({"image_url": "https://x.example/" + "a" * 2_000}, "/image_url"),
        ({"image_url": ""}, "/image_url"),
    ],
)
async def test_a_bad_field_is_named_and_changes_nothing(shop: Shop, fields: dict[str, Any], pointer: str) -> None:
    await refused(shop, {"slug": "editor", "name": "Editor", **fields}, pointer)
    made = await make(shop, "viewer")
    await refused(shop, fields, pointer, at=f"/v1/products/{made['id']}")


@pytest.mark.parametrize(
    "body", [{}, {"slug": "editor"}, {"slug": "editor", "name": "E", "price": 1}, {"slug": 1, "name": "E"}]
)
async def test_what_is_missing_unknown_or_of_the_wrong_kind(shop: Shop, body: dict[str, Any]) -> None:
    before = await shop.everything()
    problem(await shop.staff.post("/v1/products", json=body), 422, "invalid_request")
    assert await shop.everything() == before


# -- metadata -----------------------------------------------------------------------------------------


def metadata_of(size: int) -> dict[str, Any]:
    """Metadata that takes so many bytes as JSON."""
    return {"k": "x" * (size - len('{"k":""}'))}


async def test_metadata_may_have_10_kib_and_no_more(shop: Shop) -> None:
    made = await make(shop, "editor", metadata=metadata_of(10 * 1024))
    assert made["metadata"] == metadata_of(10 * 1024)
    at = f"/v1/products/{made['id']}"
    await refused(shop, {"metadata": metadata_of(10 * 1024 + 1)}, "/metadata", at=at)
    await refused(shop, {"slug": "other", "name": "O", "metadata": metadata_of(10 * 1024 + 1)}, "/metadata")
    # It is bytes that count, not characters.
    await refused(shop, {"metadata": {"k": "é" * 5_117}}, "/metadata", at=at)
    assert good(await shop.staff.patch(at, json={"metadata": {"k": "é" * 5_116}}))["metadata"] == {"k": "é" * 5_116}


async def test_only_staff_sees_metadata(shop: Shop) -> None:
    sold = await shop.tier(metadata={"margin": "PRICE-SECRET"})
    good(await shop.staff.patch(f"/v1/products/{sold.product_id}", json={"metadata": {"margin": "PRODUCT-SECRET"}}))
    for at in (
        "/v1/products",
        "/v1/products/editor",
        f"/v1/products/{sold.product_id}",
        "/v1/products/editor/policies",
    ):
        answer = await shop.http.get(at)
        assert good(answer)
        assert "SECRET" not in answer.text
        assert "metadata" not in answer.text
    assert good(await shop.staff.get("/v1/products/editor"))["metadata"] == {"margin": "PRODUCT-SECRET"}
    assert good(await shop.staff.get(f"/v1/prices/{sold.price_id}"))["metadata"] == {"margin": "PRICE-SECRET"}


# -- changed and archived -----------------------------------------------------------------------------


async def test_a_change_leaves_the_rest_as_it_was(shop: Shop) -> None:
    made = await make(shop, "editor", description="Writes.", image_url="https://x.example/e.png", metadata={"a": 1})
    at = f"/v1/products/{made['id']}"
    shop.clock.advance(SECOND)
    changed = good(await shop.staff.patch(at, json={"name": "Editor 2", "image_url": None}))
    assert changed == {**made, "name": "Editor 2", "image_url": None, "updated_at": "2026-01-02T03:04:06.678901Z"}
    event = await shop.row("events", object_id=made["id"], type="product.updated")
    assert event["details"] == {"changed": ["image_url", "name"]}
    before = await shop.everything()
    assert good(await shop.staff.patch(at, json={})) == changed
    assert await shop.everything() == before


async def test_a_slug_is_for_good(shop: Shop) -> None:
    made = await make(shop, "editor")
    before = await shop.everything()
    problem(await shop.staff.patch(f"/v1/products/{made['id']}", json={"slug": "other"}), 422, "invalid_request")
    assert await shop.everything() == before


async def test_no_such_product(shop: Shop) -> None:
    before = await shop.everything()
    for name in ("nosuch", NOBODY, "pri_01j00000000000000000000000", "%C3%A9"):
        problem(await shop.http.get(f"/v1/products/{name}"), 404, "product_not_found")
    for body in ({"name": "Other"}, {}):
        problem(await shop.staff.patch(f"/v1/products/{NOBODY}", json=body), 404, "product_not_found")
    assert await shop.everything() == before


async def test_an_archived_product_is_for_staff_only(shop: Shop) -> None:
    made = await make(shop, "editor")
    shop.clock.advance(SECOND)
    await make(shop, "viewer")
    at = f"/v1/products/{made['id']}"
    assert good(await shop.staff.patch(at, json={"status": "archived"}))["status"] == "archived"
    assert await shop.events("product.archived") == ["product.archived"]
    assert [row["slug"] for row in good(await shop.http.get("/v1/products"))["data"]] == ["viewer"]
    for name in ("editor", made["id"]):
        problem(await shop.http.get(f"/v1/products/{name}"), 404, "product_not_found")
        assert good(await shop.staff.get(f"/v1/products/{name}"))["status"] == "archived"
    problem(await shop.http.get("/v1/products", params={"status": "archived"}), 403, "missing_scope")
    archived = good(await shop.staff.get("/v1/products", params={"status": "archived"}))
    assert [(row["slug"], row["status"]) for row in archived["data"]] == [("editor", "archived")]
    # And back.
    assert good(await shop.staff.patch(at, json={"status": "active"}))["status"] == "active"
    assert [row["slug"] for row in good(await shop.http.get("/v1/products"))["data"]] == ["editor", "viewer"]


async def test_a_status_there_is_not(shop: Shop) -> None:
    made = await make(shop, "editor")
    before = await shop.everything()
    problem(await shop.staff.patch(f"/v1/products/{made['id']}", json={"status": "deleted"}), 422, "invalid_request")
    problem(await shop.staff.get("/v1/products", params={"status": "deleted"}), 422, "invalid_request")
    assert await shop.everything() == before


# -- lists --------------------------------------------------------------------------------------------


async def test_buyers_see_active_prices_oldest_first(shop: Shop) -> None:
    first = await shop.tier(amount=500, asset="USD")
    shop.clock.advance(SECOND)
    gone = await shop.tier(amount=400, asset="USD")
    shop.clock.advance(SECOND)
    last = await shop.tier(amount=21_000)
    good(await shop.staff.patch(f"/v1/prices/{gone.price_id}", json={"status": "archived"}))
    (listed,) = good(await shop.http.get("/v1/products"))["data"]
    assert [price["id"] for price in listed["prices"]] == [first.price_id, last.price_id]
    assert listed["prices"] == good(await shop.http.get("/v1/products/editor"))["prices"]


async def test_pages_stay_the_same_while_products_are_added(shop: Shop) -> None:
    """Each product once, in order, whatever is added, changed or archived between two pages."""
    made = []
    for place in range(7):
        made.append(await shop.tier(f"p-{place}", amount=place))
        shop.clock.advance(SECOND)
    seen: list[str] = []
    after: dict[str, Any] = {}
    sizes = []
    while True:
        page = good(await shop.http.get("/v1/products", params={"limit": 3, **after}))
        seen += [row["slug"] for row in page["data"]]
        sizes.append(len(page["data"]))
        assert all(len(row["prices"]) == 1 for row in page["data"])
        if page["next"] is None:
            break
        after = {"after": page["next"]}
        await shop.tier(f"added-{len(sizes)}", amount=1)
        shop.clock.advance(SECOND)
        if len(sizes) == 1:  # one that was shown and one that was not are taken off the shelf
            for gone in (made[0], made[4]):
                good(await shop.staff.patch(f"/v1/products/{gone.product_id}", json={"status": "archived"}))
    assert seen == ["p-0", "p-1", "p-2", "p-3", "p-5", "p-6", "added-1", "added-2"]
    assert sizes == [3, 3, 2]


async def test_the_last_page_says_so_also_when_it_is_full(shop: Shop) -> None:
    assert good(await shop.http.get("/v1/products")) == {"data": [], "next": None}
    for place in range(4):
        await make(shop, f"p-{place}")
        shop.clock.advance(SECOND)
    first = good(await shop.http.get("/v1/products", params={"limit": 2}))
    second = good(await shop.http.get("/v1/products", params={"limit": 2, "after": first["next"]}))
    assert [row["slug"] for row in first["data"] + second["data"]] == ["p-0", "p-1", "p-2", "p-3"]
    assert second["next"] is None
    beyond = good(await shop.http.get("/v1/products", params={"after": encode_cursor((second["data"][-1]["id"],))}))
    assert beyond == {"data": [], "next": None}


async def test_a_page_has_1_to_100_rows_and_20_unless_told(shop: Shop) -> None:
    for place in range(101):
        await make(shop, f"p-{place}")
    for asked, got in [({}, 20), ({"limit": 1}, 1), ({"limit": 100}, 100)]:
        assert len(good(await shop.http.get("/v1/products", params=asked))["data"]) == got
    for wrong in ("0", "101", "-1", "x", "1.5", ""):
        problem(await shop.http.get("/v1/products", params={"limit": wrong}), 422, "invalid_request")


@pytest.mark.parametrize("cursor", ["x", "!!!", encode_cursor((1,)), encode_cursor(("a", "b")), "é", "a" * 300])
async def test_a_cursor_that_is_not_ours(shop: Shop, cursor: str) -> None:
    answer = problem(await shop.http.get("/v1/products", params={"after": cursor}), 422, "invalid_cursor")
    assert [error["pointer"] for error in answer["errors"]] == ["/after"]


@pytest.mark.parametrize("size", [0, 1, 30])
async def test_the_list_is_one_statement_whatever_its_size(shop: Shop, size: int) -> None:
    for place in range(size):
        for amount in (100, 200):
            await shop.tier(f"p-{place}", amount=amount, asset="USD")
    await shop.http.get("/v1/products")  # a first connection asks the server about itself
    for status in ("active", "archived", None):
        with statements() as sent:
            page = await shop.scope.read(shelf.list_, limit=100, status=status)
        assert len(page.data) == (0 if status == "archived" else size)
        assert len(sent) == 1, sent
    with statements() as sent:
        shown = good(await shop.http.get("/v1/products", params={"limit": 100}))["data"]
    assert [len(row["prices"]) for row in shown] == [2] * size
    # Whose shop it is, is remembered for a few seconds and may have to be read again.
    assert len([one for one in sent if "FROM tenants" not in one]) == 1, sent
