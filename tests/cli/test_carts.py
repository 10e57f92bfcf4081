from __future__ import annotations

from tests.cli.conftest import Cli


def test_a_cart_is_quoted_shown_and_paid(cli: Cli, editor: dict[str, str]) -> None:
    cli("discount", "create", "ten", "--percent", "10")
    cart = cli.json("cart", "quote", f"{editor['price']}:2", "--code", "ten", "--email", "ann@x.example")
    assert (cart["subtotal"], cart["total"], cart["status"], cart["code"]) == (42_000, 37_800, "open", "TEN")
    assert cli.json("cart", "show", cart["id"]) == cart
    assert cli.json("cart", "list")["data"] == [cart]
    shown = cli("cart", "show", cart["id"]).splitlines()
    assert "total           37,800 sats" in shown
    assert shown[-2:] == [
        "ITEM    QUANTITY   EACH   OFF  TOTAL  BY",
        "Editor         2  21000  4200  37800  TEN",
    ]
    assert cli.refused("cart", "access", cart["id"], "wire 7") == "error: wire 7 has not paid for this cart.\n"
    assert cli.json("cart", "paid", cart["id"], "wire 7")["paid_by"] == "wire 7"
    assert cli("cart", "access", cart["id"], "wire 7") == "yes\n"
    assert cli.json("cart", "access", cart["id"], "x") == {"has_access": False}
    assert "paid by somebody else" in cli.refused("cart", "paid", cart["id"], "wire 8")
    assert "counterfoil cart list" in cli.refused("cart", "show", "crt_nobody")


def test_a_saved_cart_is_checked_out(cli: Cli, editor: dict[str, str]) -> None:
    cli("discount", "create", "gift", "--free")
    cart = cli.json("cart", "quote", editor["price"], "--code", "gift")
    opened = cli.json("checkout", "create", "--cart", cart["id"], "--rail", "free")
    assert (opened["cart_id"], opened["status"], opened["amount"]) == (cart["id"], "settled", 0)
    assert "has been paid" in cli.refused("checkout", "create", "--cart", cart["id"], "--rail", "free")
    for wrong in ([], [editor["price"], "--cart", cart["id"]], ["x:y"]):
        assert cli.refused("checkout", "create", *wrong, code=2).startswith("error: ")


def test_every_kind_of_discount(cli: Cli) -> None:
    made = cli.json(
        "discount", "create", "--auto", "--per-seat", "1.50", "--asset", "USD", "--stage", "catalog", "--group", "g",
        "--rail", "sandbox", "--only-price", "pri_1", "--uses-each", "2", "--periods", "3",
    )  # fmt: skip
    chosen = ("code", "auto_apply", "kind", "amount", "stage", "group_id", "rails", "price_ids", "per_customer_limit")
    assert [made[name] for name in chosen] == [
        None, True, "flat_per_seat", 150, "catalog", "g", ["sandbox"], ["pri_1"], 2,
    ]  # fmt: skip
    assert (made["recurring"], made["max_periods"]) == (True, 3)
    typed = cli.json("discount", "create", "x", "--percent", "5")
    assert [one["id"] for one in cli.json("discount", "list", "--auto")["data"]] == [made["id"]]
    assert [one["id"] for one in cli.json("discount", "list", "--typed")["data"]] == [typed["id"]]
    assert [one["id"] for one in cli.json("discount", "list", "--code", "X")["data"]] == [typed["id"]]
    assert "by itself" in cli("discount", "list", "--group", "g")
    for wrong in (["--percent", "5"], ["x", "--percent", "5", "--margin-of", "cus_1"], ["y", "--per-seat", "1"]):
        assert cli.refused("discount", "create", *wrong, code=2).startswith("error: ")


def test_a_discount_changes(cli: Cli, editor: dict[str, str]) -> None:
    made = cli.json("discount", "create", "x", "--percent", "5", "--uses", "3")
    changed = cli.json(
        "discount", "update", made["id"], "--uses", "9", "--expires", "2999-01-01", "--metadata", '{"a": 1}'
    )
    assert (changed["usage_limit"], changed["expires_at"], changed["metadata"]) == (9, "2999-01-01T00:00:00Z", {"a": 1})
    lifted = cli.json("discount", "update", made["id"], "--lift", "uses", "--lift", "expires", "--description", "Hi.")
    assert (lifted["usage_limit"], lifted["expires_at"], lifted["description"]) == (None, None, "Hi.")
    assert cli.refused("discount", "update", made["id"]) == "error: Say what is to change.\n"
    verdict = cli.json("discount", "validate", "X", f"{editor['price']}:2")
    assert (verdict["valid"], verdict["takes_off"], verdict["total"]) == (True, 2_100, 39_900)
    assert "takes_off       2,100 sats" in cli("discount", "validate", "X", f"{editor['price']}:2").splitlines()
    assert "discount_not_found" in cli("discount", "validate", "Y")
