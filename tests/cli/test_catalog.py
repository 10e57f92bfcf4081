from __future__ import annotations

from typing import Any

import pytest
from tests.cli.conftest import Cli

from counterfoil.catalog import prices


def test_product_list_is_a_table(cli: Cli) -> None:
    first = cli.json("product", "create", "quillpad", "--name", "Quillpad")
    second = cli.json("product", "create", "a-very-long-slug-for-a-product", "--name", "Long")
    cli("price", "create", "quillpad", "--amount", "19.90", "--asset", "USD")
    cli("price", "create", "quillpad", "--sats", "21000")
    assert cli("product", "list") == (
        "SLUG                            NAME      PRICES               STATUS  ID\n"
        f"quillpad                        Quillpad  $19.90, 21,000 sats  active  {first['id']}\n"
        f"a-very-long-slug-for-a-product  Long      -                    active  {second['id']}\n"
    )


def test_empty_list_says_so(cli: Cli) -> None:
    assert (cli("product", "list"), cli.error) == ("", "nothing found\n")
    assert cli.json("product", "list") == {"data": [], "next": None}


def test_product_shows_prices_and_benefits(cli: Cli, editor: dict[str, str]) -> None:
    lines = cli("product", "show", "editor").splitlines()
    assert lines[0] == f"id            {editor['product']}"
    assert lines[1:9] == [
        "slug          editor",
        "name          Editor",
        "description   -",
        "image_url     -",
        "tax_category  standard",
        "type          standard",
        "status        active",
        "metadata      -",
    ]
    at = lines.index("prices")
    assert lines[at + 1 : at + 3] == [
        "TIER          AMOUNT  PAID  STATUS  ID",
        f"default  21,000 sats  once  active  {editor['price']}",
    ]
    at = lines.index("benefits")
    assert lines[at + 1] == "TIER     KIND     LASTS     GRACE  MACHINES  ENTITLEMENTS  ID"
    assert lines[at + 2].startswith("default  license  for ever  -             2  sync          ben_")


def test_product_changes_and_comes_back_from_the_archive(cli: Cli) -> None:
    made = cli.json("product", "create", "editor", "--metadata", '{"a": [1]}')
    assert (made["name"], made["metadata"]) == ("Editor", {"a": [1]})
    changed = cli.json("product", "update", "editor", "--name", "Writer", "--description", "Writes.")
    assert (changed["name"], changed["description"], changed["metadata"]) == ("Writer", "Writes.", {"a": [1]})
    assert cli.json("product", "archive", made["id"])["status"] == "archived"
    assert cli("product", "list") == ""
    assert [one["id"] for one in cli.json("product", "list", "--status", "archived")["data"]] == [made["id"]]
    assert [one["id"] for one in cli.json("product", "list", "--status", "any")["data"]] == [made["id"]]
    assert cli.json("product", "update", "editor", "--status", "active")["status"] == "active"
    assert cli.json("product", "show", "editor") == cli.json("product", "show", made["id"])


def test_lists_page(cli: Cli) -> None:
    made = [cli.json("product", "create", f"p{number}")["id"] for number in range(5)]
    page = cli("product", "list", "--limit", "2")
    assert len(page.splitlines()) == 3
    assert cli.error.startswith("more: --after ")
    seen, after = [], ""
    while True:
        document = cli.json("product", "list", "--limit", "2", "--after", after)
        seen += [one["id"] for one in document["data"]]
        after = document["next"]
        if after is None:
            break
    assert seen == made
    assert cli.refused("product", "list", "--after", "nonsense") == "error: after: not a cursor of this list\n"


def test_what_others_wrote_cannot_play_with_the_terminal(cli: Cli) -> None:
    cli("product", "create", "evil", "--description", "two\nlines")
    assert "description   two\\x0alines" in cli("product", "show", "evil")
    assert cli.json("product", "show", "evil")["description"] == "two\nlines"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["product", "show", "nope"], "error: There is no such product.\nhint:  counterfoil product list\n"),
        (
            ["product", "create", "No Slug"],
            "error: slug: use 1 to 80 lower-case letters, digits and single hyphens\n",
        ),
        (["product", "create", "editor"], "error: There is already a product with the slug 'editor'.\n"),
        (["price", "show", "pri_x"], "error: There is no such price.\nhint:  counterfoil price list\n"),
        (
            ["price", "create", "nope", "--sats", "1"],
            "error: There is no such product.\nhint:  counterfoil product list\n",
        ),
        (
            ["price", "create", "editor", "--sats", "1", "--trial-days", "3"],
            "error: trial_days: only a recurring price has a trial\n",
        ),
        (["benefit", "set", "nope"], "error: There is no such product.\nhint:  counterfoil product list\n"),
    ],
)
def test_refusals_are_a_sentence(cli: Cli, editor: dict[str, str], arguments: list[str], complaint: str) -> None:
    assert cli.refused(*arguments) == complaint


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--amount", "19.999", "--asset", "USD"], "--amount: USD has 2 decimal places, '19.999' has more"),
        (["--amount", "1e3", "--asset", "USD"], "--amount: '1e3' is not a plain decimal number"),
        (["--amount", "1,50", "--asset", "EUR"], "--amount: '1,50' is not a plain decimal number"),
        (["--amount", "5", "--asset", "usd"], "--asset: 'usd' is not a currency or token we know"),
        (["--sats", "0.5"], "--sats: SAT has 0 decimal places, '0.5' has more"),
        (["--amount", "5"], "say --amount 19.90 --asset USD, or --sats 21000"),
        (["--sats", "5", "--asset", "SAT"], "--sats goes without --amount and --asset"),
        (["--sats", "5", "--country", "DE"], "--country: 'DE': say DE,AT=17.90"),
        (["--sats", "5", "--metadata", "[]"], "--metadata: must be a JSON object"),
        (["--sats", "5", "--every", "fortnight"], "'fortnight' is not one of"),
    ],
)
def test_mistyped_prices_make_nothing(cli: Cli, editor: dict[str, str], options: list[str], complaint: str) -> None:
    error = cli.refused("price", "create", "editor", *options, code=2)
    assert error.startswith("error: ")
    assert complaint in error
    assert error.endswith("hint:  counterfoil price create --help\n")
    assert len(cli.json("price", "list")["data"]) == 1


def test_price_options_reach_the_price(cli: Cli, editor: dict[str, str]) -> None:
    made = cli.json(
        "price", "create", "editor", "--amount", "19.90", "--asset", "EUR", "--tier", "pro", "--name", "Pro",
        "--every", "month", "--count", "3", "--trial-days", "14", "--country", "DE,AT=17.90", "--country", "CH=21",
        "--quantity-min", "2", "--quantity-max", "9",
    )  # fmt: skip
    assert cli.json("price", "show", made["id"]) == made
    assert {name: made[name] for name in ("asset", "unit_amount", "tier", "name", "type", "interval")} == {
        "asset": "EUR",
        "unit_amount": 1990,
        "tier": "pro",
        "name": "Pro",
        "type": "recurring",
        "interval": "month",
    }
    assert (made["interval_count"], made["trial_days"], made["quantity_min"], made["quantity_max"]) == (3, 14, 2, 9)
    assert made["country_overrides"] == [
        {"countries": ["DE", "AT"], "unit_amount": 1790},
        {"countries": ["CH"], "unit_amount": 2100},
    ]
    assert "pro           €19.90  every 3 months  active" in cli("price", "list", "--product", "editor")


def test_quoted_price_is_replaced_and_the_command_says_so(cli: Cli, editor: dict[str, str]) -> None:
    changed = cli("price", "update", editor["price"], "--amount", "20000")
    assert (changed.splitlines()[0], cli.error) == (f"id                 {editor['price']}", "")
    assert "unit_amount        20,000 sats" in changed
    cli.on_database(prices.lock_terms, [editor["price"]])
    replaced = cli("price", "update", editor["price"], "--amount", "25000", "--country", "DE=24000")
    fresh = replaced.splitlines()[0].split()[1]
    assert cli.error == (f"{editor['price']} was quoted before, so its terms are fixed: {fresh} replaces it\n")
    old, new = (cli.json("price", "show", one) for one in (editor["price"], fresh))
    assert (old["status"], old["unit_amount"]) == ("archived", 20000)
    assert (new["status"], new["unit_amount"], new["replaces"]) == ("active", 25000, editor["price"])
    assert new["country_overrides"] == [{"countries": ["DE"], "unit_amount": 24000}]
    cli("price", "update", fresh, "--name", "Early")
    assert cli.error == ""


def test_benefit_terms(cli: Cli, editor: dict[str, str]) -> None:
    made = cli.json(
        "benefit", "set", "editor", "--tier", "team", "--duration", "365d", "--grace", "14d", "--machines", "0",
        "--entitlement", "sync", "--entitlement", "plugins", "--trial",
    )  # fmt: skip
    assert made["spec"] == {
        "duration_seconds": 365 * 86400,
        "grace_seconds": 14 * 86400,
        "max_machines": 0,
        "is_trial": True,
        "entitlements": ["sync", "plugins"],
    }
    table = cli("benefit", "list", "editor").splitlines()
    assert table[2].startswith("team     license  365 days  14 days       any  sync, plugins  ben_")
    assert [one["tier"] for one in cli.json("benefit", "list", "editor")["data"]] == ["default", "team"]
    error = cli.refused("benefit", "set", "editor", "--duration", "365", code=2)
    assert error.startswith("error: Invalid value for --duration: '365' is not a duration: say 365d, 12h or 0\n")


@pytest.mark.parametrize(
    ("options", "kind", "amount", "asset"),
    [
        (["--percent", "10"], "percentage", 1000, None),
        (["--percent", "12.5"], "percentage", 1250, None),
        (["--flat", "5", "--asset", "USD"], "flat", 500, "USD"),
        (["--price", "9000", "--asset", "SAT"], "set_price", 9000, "SAT"),
        (["--free"], "free", 0, None),
    ],
)
def test_discounts(
    cli: Cli, editor: dict[str, str], options: list[str], kind: str, amount: int, asset: str | None
) -> None:
    made: dict[str, Any] = cli.json(
        "discount", "create", "spring", *options, "--product", "editor", "--tier", "default", "--uses", "3",
        "--expires", "2031-12-31T18:00+01:00",
    )  # fmt: skip
    assert (made["code"], made["kind"], made["amount"], made["asset"]) == ("SPRING", kind, amount, asset)
    assert (made["product_ids"], made["tiers"], made["usage_limit"]) == ([editor["product"]], ["default"], 3)
    assert made["expires_at"] == "2031-12-31T17:00:00Z"
    listed = cli.json("discount", "list")["data"]
    assert listed == [made]
    assert cli.json("discount", "archive", made["id"])["status"] == "archived"


def test_discount_table(cli: Cli) -> None:
    for code, *options in [
        ["a", "--percent", "12.5"],
        ["b", "--flat", "5", "--asset", "USD", "--uses", "2"],
        ["c", "--price", "9000", "--asset", "SAT"],
        ["d", "--free"],
    ]:
        cli("discount", "create", code, *options)
    table = [line.split("  dsc_")[0] for line in cli("discount", "list").splitlines()]
    assert table == [
        "CODE  WORTH           USED    EXPIRES  STATUS  ID",
        "A     12.5 % off      0       -        active",
        "B     $5.00 off       0 of 2  -        active",
        "C     for 9,000 sats  0       -        active",
        "D     free            0       -        active",
    ]


@pytest.mark.parametrize(
    "options",
    [[], ["--free", "--percent", "5"], ["--flat", "5"], ["--percent", "x"], ["--free", "--expires", "soon"]],
)
def test_mistyped_discounts_make_nothing(cli: Cli, options: list[str]) -> None:
    assert cli.refused("discount", "create", "x", *options, code=2).startswith("error: ")
    assert cli.json("discount", "list")["data"] == []
