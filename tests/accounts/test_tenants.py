"""Operations on tenants: names, host names, settings."""

from __future__ import annotations

import asyncio

import pytest

from counterfoil.accounts import tenants
from counterfoil.accounts.tenants import MOST_HOSTS, NewTenant, SettingsChanges, TenantChanges
from counterfoil.db.base import Database
from counterfoil.kernel.errors import Conflict, Invalid

OWN = "shop.example.net"
IDS = [f"ten_01jgkx0000000000000000{number:04d}" for number in range(100)]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("Shop.Example.com", "shop.example.com"),
        ("shop.example.com.", "shop.example.com"),
        (" shop.example.com ", "shop.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("intranet", "intranet"),
        ("a-1.b2", "a-1.b2"),
    ],
)
def test_host_names_are_kept_as_browsers_send_them(typed: str, kept: str) -> None:
    assert tenants.check_host("hosts/0", typed, OWN) == kept


@pytest.mark.parametrize(
    "typed",
    ["", ".", "a..b", "-a.b", "a-.b", "a_b.c", "a b.c", "a/b", "a:80", "1.2.3.4", "[::1]", "a.b\n.c", "a" * 64 + ".b",
     ".".join(["abcdefgh"] * 29), "*.example.com", "http://a.b", "\ud800.example", "xn--a.example", "a\x00.b"],
)  # fmt: skip
def test_what_is_no_host_name(typed: str) -> None:
    with pytest.raises(Invalid):
        tenants.check_host("hosts/0", typed, OWN)


@pytest.mark.parametrize("typed", [OWN, OWN.upper(), "localhost"])
def test_the_installations_own_name_is_nobodys(typed: str) -> None:
    with pytest.raises(Invalid) as refused:
        tenants.check_host("hosts/0", typed, OWN)
    assert refused.value.code == "host_reserved"


async def test_settings_are_merged_and_taken_away(database: Database, tenant: str) -> None:
    scope = database.scope(tenant)

    async def change(**settings: str | None) -> dict[str, object]:
        changes = TenantChanges(settings=SettingsChanges(**settings))
        return (await scope.run(tenants.update, changes, own_host=OWN)).settings

    assert await change(support_email="Help@Example.com", brand_color="#1F6F54") == {
        "support_email": "help@example.com",
        "brand_color": "#1f6f54",
    }
    assert await change(support_url="https://example.com/help", brand_color=None) == {
        "support_email": "help@example.com",
        "support_url": "https://example.com/help",
    }
    for wrong in ({"support_email": "x"}, {"support_url": "http://x"}, {"brand_color": "red"}):
        with pytest.raises(Invalid):
            await change(**wrong)  # type: ignore[arg-type]
    assert (await scope.read(tenants.own)).name == "Default"


@pytest.mark.parametrize("slug", ["default", "admin", "Upper", "a_b", "", "-a", "a" * 64, "ä"])
async def test_slugs_that_cannot_be(database: Database, tenant: str, slug: str) -> None:
    with pytest.raises(Invalid):
        await database.scope(IDS[0]).run(tenants.open_, NewTenant(slug, "X"), own_host=OWN)
    assert list(await database.scope(tenant).read(tenants.everyone)) == [tenant]


async def test_a_host_name_claimed_by_a_hundred_tenants_at_once_is_ones(database: Database, tenant: str) -> None:
    async def claim(number: int) -> object:
        new = NewTenant(f"t{number}", "X", [f"own{number}.example", "Shop.example"])
        return await database.scope(IDS[number]).run(tenants.open_, new, own_host=OWN)

    found = await asyncio.gather(*[claim(number) for number in range(100)], return_exceptions=True)
    refused = [one for one in found if isinstance(one, Conflict)]
    assert (len(refused), {one.code for one in refused}) == (99, {"host_taken"})
    everyone = await database.scope(tenant).read(tenants.everyone)
    assert [row.hosts[1:] for row in everyone.values() if row.hosts] == [["shop.example"]]
    assert len(everyone) == 2


async def test_a_host_name_is_claimed_by_changing_tenants_once(database: Database, tenant: str) -> None:
    for number in range(20):
        await database.scope(IDS[number]).run(tenants.open_, NewTenant(f"t{number}", "X"), own_host=OWN)

    async def claim(number: int) -> object:
        changes = TenantChanges(hosts=["shop.example"])
        return await database.scope(IDS[number]).run(tenants.update, changes, own_host=OWN)

    tries = [claim(number % 20) for number in range(100)]
    found = await asyncio.gather(*tries, return_exceptions=True)
    assert len([one for one in found if not isinstance(one, BaseException)]) == 5  # the same one, again and again
    everyone = await database.scope(tenant).read(tenants.everyone)
    assert [row.hosts for row in everyone.values() if row.hosts] == [["shop.example"]]
    (winner,) = [key for key, row in everyone.items() if row.hosts]
    assert (await database.scope(winner).run(tenants.update, TenantChanges(hosts=[]), own_host=OWN)).hosts == []
    loser = next(key for key in IDS[:20] if key != winner)
    assert (await database.scope(loser).run(tenants.update, TenantChanges(hosts=["shop.example"]), own_host=OWN)).hosts


async def test_a_slug_claimed_a_hundred_times_is_ones(database: Database, tenant: str) -> None:
    tries = [database.scope(one).run(tenants.open_, NewTenant("acme", "X"), own_host=OWN) for one in IDS]
    found = await asyncio.gather(*tries, return_exceptions=True)
    assert len([one for one in found if isinstance(one, Conflict) and one.code == "slug_taken"]) == 99
    assert len(await database.scope(tenant).read(tenants.list_)) == 2


async def test_so_many_hosts_and_no_more(database: Database, tenant: str) -> None:
    hosts = [f"h{number}.example" for number in range(MOST_HOSTS)]
    kept = await database.scope(tenant).run(tenants.update, TenantChanges(hosts=[*hosts[:-1], hosts[0]]), own_host=OWN)
    assert kept.hosts == hosts[:-1]
    with pytest.raises(Invalid):
        await database.scope(tenant).run(tenants.update, TenantChanges(hosts=[*hosts, "x.example"]), own_host=OWN)
