"""Customers: made, found, changed, archived, deleted and brought back; and what each refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.support.app import Shop, client_of, good, opening, problem

from counterfoil.accounts import api_keys, customers, users
from counterfoil.accounts.customers import NewCustomer
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.errors import Conflict
from counterfoil.kernel.secrets import MasterKey

NOW = "2026-01-02T03:04:05.678901Z"
NOBODY = "cus_01j00000000000000000000000"


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def make(shop: Shop, name: str = "Acme", **fields: Any) -> dict[str, Any]:
    body = {"kind": "organization", "name": name, **fields}
    made: dict[str, Any] = good(await shop.staff.post("/v1/customers", json=body))
    return made


async def refused(
    shop: Shop, answer: httpx.Response, status: int, code: str, before: dict[str, Any], pointer: str | None = None
) -> None:
    """A refusal that changed nothing."""
    told = problem(answer, status, code)
    if pointer is not None:
        assert [error["pointer"] for error in told["errors"]] == [pointer]
    assert await shop.everything() == before


# -- made and read ------------------------------------------------------------------------------------


async def test_a_customer_in_every_detail(shop: Shop) -> None:
    fields = {
        "kind": "organization",
        "name": "Acme",
        "slug": "acme",
        "logo_url": "https://example.com/logo.png",
        "locale": "de-AT",
        "time_zone": "Europe/Vienna",
        "marketing_consent": True,
        "metadata": {"segment": [1, {"a": None}]},
    }
    answer = await shop.staff.post("/v1/customers", json={**fields, "email": " Buyer@Example.COM "})
    assert answer.status_code == 201
    made = good(answer)
    assert made == {
        "id": made["id"],
        **fields,
        "email": "buyer@example.com",
        "parent_id": None,
        "level": 2,
        "path": f"{made['id']}/",
        "status": "active",
        "owner_user_id": None,
        "is_default": False,
        "created_at": NOW,
        "updated_at": NOW,
    }
    assert good(await shop.staff.get(f"/v1/customers/{made['id']}")) == made
    row = await shop.row("customers")
    assert (row["internal_notes"], row["import_meta"], row["deleted_at"]) == ("", None, None)
    event = await shop.row("events", object_id=made["id"])
    assert (event["type"], event["customer_id"]) == ("customer.created", made["id"])
    assert event["details"] == {"kind": "organization", "level": 2, "parent_id": None}


async def test_what_is_left_out_has_a_default(shop: Shop) -> None:
    made = good(await shop.staff.post("/v1/customers", json={"kind": "person", "name": "Ada"}))
    assert {name: made[name] for name in ("locale", "time_zone", "marketing_consent", "metadata", "slug", "email")} == {
        "locale": "en",
        "time_zone": "UTC",
        "marketing_consent": False,
        "metadata": {},
        "slug": None,
        "email": None,
    }


@pytest.mark.parametrize(
    "name",
    [
        "O'Brien & Söhne <GmbH>",
        "株式会社カウンターフォイル",
        "شركة المثال",
        "חברה לדוגמה",
        "Ελληνική Εταιρεία",
        "Пример и Сыновья",
        "예시 주식회사",
        "उदाहरण लिमिटेड",
        "ตัวอย่าง จำกัด",
        "👩‍💻 Studio",  # a zero-width joiner holds the emoji together
        "x" * 200,
    ],
)
async def test_names_in_any_script(shop: Shop, name: str) -> None:
    made = await make(shop, name)
    assert made["name"] == name
    assert (await shop.row("customers"))["name"] == name


async def test_a_name_is_composed_and_trimmed(shop: Shop) -> None:
    made = await make(shop, "  Zoe\u0308 \u1100\u1161 ")
    assert made["name"] == "Zo\u00eb \uac00"


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"name": ""}, "/name", "invalid_request"),
        ({"name": " \t "}, "/name", "invalid_request"),
        ({"name": "x" * 201}, "/name", "invalid_request"),
        ({"name": "a\nb"}, "/name", "invalid_request"),
        ({"name": "a\x1bb"}, "/name", "invalid_request"),
        ({"name": "a\x85b"}, "/name", "invalid_request"),
        ({"name": "a\u2028b"}, "/name", "invalid_request"),
        ({"name": "evil\u202egnp.exe"}, "/name", "invalid_request"),
        ({"name": "\u2066x\u2069"}, "/name", "invalid_request"),
        ({"kind": "robot"}, "/kind", "invalid_request"),
        ({"slug": ""}, "/slug", "invalid_request"),
        ({"slug": "Acme"}, "/slug", "invalid_request"),
        ({"slug": "-a"}, "/slug", "invalid_request"),
        ({"slug": "a" * 64}, "/slug", "invalid_request"),
        ({"slug": "größe"}, "/slug", "invalid_request"),
        ({"email": "nobody"}, "/email", "invalid_request"),
        ({"email": "a@b@c"}, "/email", "invalid_request"),
        ({"email": "a@b\u202ec.example"}, "/email", "invalid_request"),
        ({"logo_url": "http://example.com/a.png"}, "/logo_url", "invalid_request"),
        ({"logo_url": "javascript:alert(1)"}, "/logo_url", "invalid_request"),
        ({"locale": "xx"}, "/locale", "unknown_locale"),
        ({"locale": "EN"}, "/locale", "unknown_locale"),
        ({"locale": "en_US"}, "/locale", "unknown_locale"),
        ({"locale": "../../etc"}, "/locale", "unknown_locale"),
        ({"time_zone": "Mars/Olympus"}, "/time_zone", "unknown_time_zone"),
        ({"time_zone": "europe/berlin"}, "/time_zone", "unknown_time_zone"),
        ({"metadata": {"k": "x" * 10_240}}, "/metadata", "invalid_request"),
        ({"metadata": []}, "/metadata", "invalid_request"),
        ({"level": 3}, "/level", "invalid_request"),
        ({"level": 0}, "/level", "invalid_request"),
        ({"marketing_consent": "yes"}, "/marketing_consent", "invalid_request"),
    ],
)
async def test_a_bad_field_is_named_and_changes_nothing(
    shop: Shop, fields: dict[str, Any], pointer: str, code: str
) -> None:
    before = await shop.everything()
    body = {"kind": "organization", "name": "Acme", **fields}
    await refused(shop, await shop.staff.post("/v1/customers", json=body), 422, code, before, pointer)
    if "level" in fields:
        return
    made = await make(shop)
    before = await shop.everything()
    answer = await shop.staff.patch(f"/v1/customers/{made['id']}", json=fields)
    await refused(shop, answer, 422, code, before, pointer)


@pytest.mark.parametrize("unknown", ["status", "is_default", "owner_user_id", "internal_notes", "path", "deleted_at"])
async def test_nobody_sets_what_is_not_theirs_to_set(shop: Shop, unknown: str) -> None:
    made = await make(shop)
    before = await shop.everything()
    body = {"kind": "person", "name": "Ada", unknown: "x"}
    await refused(shop, await shop.staff.post("/v1/customers", json=body), 422, "invalid_request", before)
    answer = await shop.staff.patch(f"/v1/customers/{made['id']}", json={unknown: "x"})
    await refused(shop, answer, 422, "invalid_request", before)


async def test_a_customer_there_is_not(shop: Shop) -> None:
    before = await shop.everything()
    path = f"/v1/customers/{NOBODY}"
    for answer in (
        await shop.staff.get(path),
        await shop.staff.patch(path, json={"name": "X"}),
        await shop.staff.patch(path, json={}),
        await shop.staff.delete(path),
        await shop.staff.post(f"{path}/archive"),
        await shop.staff.post(f"{path}/restore"),
        await shop.staff.post(f"{path}/move", json={"parent_id": None}),
        await shop.staff.get(f"{path}/notes"),
        await shop.staff.put(f"{path}/notes", json={}),
        await shop.staff.get(f"{path}/customers"),
        await shop.staff.post(f"{path}/customers", json={"kind": "person", "name": "X"}),
        await shop.staff.get(f"{path}/addresses"),
        await shop.staff.post(f"{path}/addresses", json={"country_code": "DE"}),
        await shop.staff.get(f"{path}/businesses"),
        await shop.staff.post(f"{path}/businesses", json={"name": "X"}),
        *[await shop.staff.get(f"{path}/{name}") for name in ("orders", "payments", "licenses", "checkouts", "events")],
    ):
        await refused(shop, answer, 404, "customer_not_found", before)


# -- lists --------------------------------------------------------------------------------------------


async def listed(shop: Shop, **query: Any) -> list[str]:
    """The names on every page of a list, two to a page."""
    names: list[str] = []
    after: str | None = None
    while True:
        page = good(
            await shop.staff.get("/v1/customers", params={**query, "limit": 2, **({"after": after} if after else {})})
        )
        names += [row["name"] for row in page["data"]]
        after = page["next"]
        if after is None:
            return names
        assert len(page["data"]) == 2


async def test_lists_page_and_filter(shop: Shop) -> None:
    msp = await make(shop, "MSP", level=1)
    await make(shop, "A", parent_id=msp["id"], email="a@example.com")
    await make(shop, "B", parent_id=msp["id"])
    ada = await make(shop, "Ada", kind="person", email="A@example.com")
    gone = await make(shop, "Gone")
    good(await shop.staff.post(f"/v1/customers/{ada['id']}/archive"))
    assert (await shop.staff.delete(f"/v1/customers/{gone['id']}")).status_code == 204
    assert sorted(await listed(shop)) == ["A", "Ada", "B", "MSP"]
    assert sorted(await listed(shop, email=" A@EXAMPLE.com ")) == ["A", "Ada"]
    assert await listed(shop, kind="person") == ["Ada"]
    assert await listed(shop, level=1) == ["MSP"]
    assert sorted(await listed(shop, level=2, status="active")) == ["A", "B"]
    assert await listed(shop, status="archived") == ["Ada"]
    assert sorted(await listed(shop, parent_id=msp["id"])) == ["A", "B"]
    assert await listed(shop, parent_id=msp["id"], email="a@example.com", kind="organization") == ["A"]
    assert await listed(shop, parent_id="nonsense") == []
    for wrong in ({"level": 4}, {"level": 0}, {"kind": "x"}, {"status": "deleted"}):
        problem(await shop.staff.get("/v1/customers", params=wrong), 422, "invalid_request")


# -- changed ------------------------------------------------------------------------------------------


async def test_changes_leave_the_rest_alone(shop: Shop) -> None:
    made = await make(shop, slug="acme", email="a@example.com", locale="fr", metadata={"a": 1})
    path = f"/v1/customers/{made['id']}"
    assert good(await shop.staff.patch(path, json={})) == made
    changed = good(await shop.staff.patch(path, json={"name": " Acme\u0301 ", "email": None, "kind": "person"}))
    assert changed == {**made, "name": "Acm\u00e9", "email": None, "kind": "person"}
    event = (await shop.rows("events", type="customer.updated"))[0]
    assert event["details"] == {"changed": ["email", "kind", "name"]}
    assert good(await shop.staff.patch(path, json={"slug": "acme"}))["slug"] == "acme"
    assert good(await shop.staff.patch(path, json={"slug": None}))["slug"] is None


async def test_a_slug_is_one_customers(shop: Shop) -> None:
    await make(shop, slug="acme")
    other = await make(shop, "Other")
    before = await shop.everything()
    body = {"kind": "person", "name": "Third", "slug": "acme"}
    await refused(shop, await shop.staff.post("/v1/customers", json=body), 409, "slug_taken", before)
    answer = await shop.staff.patch(f"/v1/customers/{other['id']}", json={"slug": "acme"})
    await refused(shop, answer, 409, "slug_taken", before)


async def test_many_want_one_slug(shop: Shop) -> None:
    made = [await make(shop, f"C{number}") for number in range(50)]
    answers = await asyncio.gather(
        *[shop.staff.patch(f"/v1/customers/{one['id']}", json={"slug": "wanted"}) for one in made],
        *[
            shop.staff.post("/v1/customers", json={"kind": "person", "name": f"N{number}", "slug": "wanted"})
            for number in range(50)
        ],
    )
    assert sorted(answer.status_code for answer in answers)[1:] == [409] * 99
    assert await shop.count("customers", slug="wanted") == 1


# -- archived, deleted, restored ----------------------------------------------------------------------


async def test_to_the_archive_and_back(shop: Shop) -> None:
    made = await make(shop, slug="acme")
    path = f"/v1/customers/{made['id']}"
    for _ in range(2):  # the second time changes nothing
        assert good(await shop.staff.post(f"{path}/archive")) == {**made, "status": "archived"}
    for _ in range(2):
        assert good(await shop.staff.post(f"{path}/restore")) == made
    told = await shop.events("customer.archived", "customer.restored")
    assert sorted(told) == ["customer.archived", "customer.restored"]


async def test_a_deleted_customer_is_gone_and_its_row_stays(shop: Shop) -> None:
    made = await make(shop, slug="acme")
    path = f"/v1/customers/{made['id']}"
    answer = await shop.staff.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    row = await shop.row("customers")
    assert (row["slug"], row["deleted_at"], row["name"]) == (None, shop.clock.now(), "Acme")
    before = await shop.everything()
    await refused(shop, await shop.staff.get(path), 404, "customer_not_found", before)
    await refused(shop, await shop.staff.delete(path), 404, "customer_not_found", before)
    await refused(shop, await shop.staff.put(f"{path}/notes", json={}), 404, "customer_not_found", before)
    again = await make(shop, slug="acme")
    restored = await shop.scope.run(customers.restore, made["id"])
    assert (restored.slug, restored.deleted_at, restored.status) == (None, None, "active")
    assert good(await shop.staff.get(path)) == {**made, "slug": None}
    assert again["slug"] == "acme"


async def test_what_has_customers_below_it_is_not_deleted(shop: Shop) -> None:
    msp = await make(shop, "MSP", level=1)
    child = await make(shop, "Child", parent_id=msp["id"])
    good(await shop.staff.post(f"/v1/customers/{child['id']}/archive"))
    before = await shop.everything()
    answer = await shop.staff.delete(f"/v1/customers/{msp['id']}")
    await refused(shop, answer, 409, "customer_has_children", before)
    assert (await shop.staff.delete(f"/v1/customers/{child['id']}")).status_code == 204
    assert (await shop.staff.delete(f"/v1/customers/{msp['id']}")).status_code == 204
    with pytest.raises(Conflict) as told:
        await shop.scope.run(customers.restore, child["id"])
    assert told.value.code == "parent_not_active"
    await shop.scope.run(customers.restore, msp["id"])
    assert (await shop.scope.run(customers.restore, child["id"])).parent_id == msp["id"]


async def test_a_default_is_its_owners_only_one(shop: Shop) -> None:
    user = await shop.scope.run(users.create, email="a@example.com", first_name="A", last_name="B", via="x")
    new = NewCustomer(kind="person", name="Ada")
    first = await shop.scope.run(customers.create, new, owner_user_id=user.id, is_default=True)
    assert (first.owner_user_id, first.is_default) == (user.id, True)
    with pytest.raises(Conflict) as told:
        await shop.scope.run(customers.create, new, owner_user_id=user.id, is_default=True)
    assert told.value.code == "default_taken"
    await shop.scope.run(customers.create, new, owner_user_id=user.id)
    await shop.scope.run(customers.delete, first.id)
    assert (await shop.scope.run(customers.create, new, owner_user_id=user.id, is_default=True)).is_default


# -- what only staff sees -----------------------------------------------------------------------------


async def test_notes_are_for_staff(shop: Shop) -> None:
    made = await make(shop)
    path = f"/v1/customers/{made['id']}"
    assert good(await shop.staff.get(f"{path}/notes")) == {"internal_notes": "", "import_meta": None}
    notes = {"internal_notes": "Pays late.\nCall first.", "import_meta": {"from": "crm", "row": 7}}
    assert good(await shop.staff.put(f"{path}/notes", json=notes)) == notes
    assert good(await shop.staff.get(f"{path}/notes")) == notes
    seen = [await shop.staff.get(path), await shop.staff.get("/v1/customers"), await shop.staff.get(f"{path}/events")]
    for answer in seen:
        assert "late" not in answer.text
        assert "crm" not in answer.text
        assert "notes" not in answer.text
    assert (await shop.row("events", type="customer.notes_changed"))["details"] == {}
    before = await shop.everything()
    for wrong, pointer in (
        ({"internal_notes": "x" * 10_001}, "/internal_notes"),
        ({"internal_notes": "a\u202eb"}, "/internal_notes"),
        ({"import_meta": {"k": "x" * 10_240}}, "/import_meta"),
    ):
        answer = await shop.staff.put(f"{path}/notes", json=wrong)
        await refused(shop, answer, 422, "invalid_request", before, pointer)
    assert good(await shop.staff.put(f"{path}/notes", json={})) == {"internal_notes": "", "import_meta": None}


async def test_the_customers_own_events_say_neither_who_nor_from_where(shop: Shop) -> None:
    made = await make(shop)
    (event,) = good(await shop.staff.get(f"/v1/customers/{made['id']}/events"))["data"]
    assert event == {
        "id": event["id"],
        "type": "customer.created",
        "object_kind": "customer",
        "object_id": made["id"],
        "customer_id": made["id"],
        "amount": None,
        "asset": None,
        "created_at": NOW,
    }


async def test_a_customers_own_key_reaches_it_and_what_is_below_but_never_what_staff_keeps(shop: Shop) -> None:
    msp = await make(shop, "msp", level=1)
    client = await make(shop, "client", parent_id=msp["id"])
    stranger = await make(shop, "stranger")
    secret = api_keys.new_secret()
    await shop.scope.run(api_keys.create, "msp's", ["*"], secret=secret, customer_id=msp["id"])
    async with client_of(shop.app, headers={"Authorization": f"Bearer {secret}"}) as theirs:
        for one in (msp, client):
            assert good(await theirs.get(f"/v1/customers/{one['id']}")) == one
        assert good(await theirs.get(f"/v1/customers/{msp['id']}/customers"))["data"] == [client]
        good(await theirs.patch(f"/v1/customers/{client['id']}", json={"name": "Client"}))
        before = await shop.everything("api_keys")
        path = f"/v1/customers/{stranger['id']}"
        for answer in (
            await theirs.get(path),
            await theirs.patch(path, json={"name": "X"}),
            await theirs.delete(path),
            await theirs.get(f"{path}/orders"),
            await theirs.post(f"{path}/addresses", json={"country_code": "DE"}),
        ):
            problem(answer, 404, "customer_not_found")
        for answer in (
            await theirs.get("/v1/customers"),
            await theirs.post("/v1/customers", json={"kind": "person", "name": "X"}),
            await theirs.post(f"/v1/customers/{client['id']}/move", json={"parent_id": None}),
            await theirs.get(f"/v1/customers/{client['id']}/notes"),
            await theirs.put(f"/v1/customers/{client['id']}/notes", json={}),
        ):
            problem(answer, 403, "key_limited_to_customer")
        assert await shop.everything("api_keys") == before
