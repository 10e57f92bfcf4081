"""Commands on rails that keep copies: connecting them, their copies and their news."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.cli.conftest import Cli
from tests.peers.stripe_peers import StripePeer, running_stripe, stripe_available

from counterfoil.db.tx import Tx
from counterfoil.exchange import inbox
from counterfoil.kernel.clock import from_seconds
from counterfoil.rails.base import Notice

pytestmark = [pytest.mark.xdist_group("rail-copies"), pytest.mark.parametrize("dialect", ["sqlite"])]


@pytest.fixture(scope="module")
def server() -> Iterator[StripePeer]:
    if reason := stripe_available():
        pytest.skip(reason)
    with running_stripe() as peer:
        yield peer


@pytest.fixture
def peer(server: StripePeer) -> Iterator[StripePeer]:
    account = server.fresh()
    yield account
    account.close()


@pytest.fixture
def key(elsewhere: Path, peer: StripePeer) -> str:
    (elsewhere / "key").write_text(f"{peer.api_key}\n")
    return str(elsewhere / "key")


def connect(cli: Cli, peer: StripePeer, key: str, *more: str) -> Any:
    return cli.json("rail", "connect-stripe", "--test", "--api-key-file", key, "--base-url", peer.url, *more)


def test_from_the_key_to_copies(cli: Cli, peer: StripePeer, key: str) -> None:
    cli("product", "create", "editor", "--name", "Editor")
    cli("price", "create", "editor", "--amount", "15.00", "--asset", "EUR")
    done = connect(cli, peer, key)
    assert (done["rail"], done["livemode"], done["owed"]) == ("stripe-test", False, 2)
    assert peer.api_key not in cli("rail", "list") + cli("event", "list", "--json")
    assert "result   well" in cli("rail", "check", "stripe-test")
    (row,) = cli.json("sync", "status")["data"]
    assert (row["rail"], row["owed"], row["copies"]) == ("stripe-test", 2, 0)
    assert {one["object_id"][:3] for one in cli.json("sync", "owed")["data"]} == {"pro", "pri"}
    assert cli.json("sync", "retry") == {"retried": 2, "left": 0, "refused": 0}
    assert len(peer.look("prices")["data"]) == 1
    assert cli.json("sync", "diff", "--rail", "stripe-test")["differences"] == []
    (product,) = peer.look("products")["data"]
    peer.official().products.update(product["id"], {"name": "Otherwise"})
    code, printed = cli.attempt("sync", "diff", "--rail", "stripe-test")
    assert code == 1
    assert f"{product['id']}  {product['id']}  name" in printed
    assert cli.json("sync", "status")["data"][0]["different"] == 1
    assert cli.json("sync", "retry", "--rail", "stripe-test")["retried"] == 1
    assert peer.look(f"products/{product['id']}")["name"] == "Editor"
    cli("rail", "disconnect", "stripe-test", "--yes")
    assert peer.control("webhooks") == []
    assert "is not connected" in cli.refused("sync", "diff", "--rail", "stripe-test")


def test_importing(cli: Cli, peer: StripePeer, key: str) -> None:
    product = peer.official().products.create({"name": "Editor"})
    peer.official().prices.create({"product": product.id, "currency": "eur", "unit_amount": 1_500})
    peer.official().prices.create({"product": product.id, "currency": "eur", "unit_amount_decimal": "0.5"})
    connect(cli, peer, key)
    done = cli.json("sync", "pull", "prices", "--rail", "stripe-test")
    assert (done["products"], done["prices"], done["skipped"][0]["count"]) == (1, 1, 1)
    assert "an amount with parts of the smallest unit" in cli("sync", "pull", "prices", "--rail", "stripe-test")
    assert [row["slug"] for row in cli.json("product", "list")["data"]] == ["editor"]
    assert cli.json("sync", "pull", "products", "--rail", "stripe-test")["known"] == 1
    peer.fail("^GET /v1/products$", status=503)
    assert "Stripe answered 503" in cli.refused("sync", "pull", "products", "--rail", "stripe-test")


def test_secrets(cli: Cli, peer: StripePeer, key: str, elsewhere: Path) -> None:
    (elsewhere / "secret").write_text("whsec_mine\n")
    connect(cli, peer, key, "--webhook-secret-file", str(elsewhere / "secret"))
    assert peer.control("webhooks") == []
    assert cli.json("rail", "rotate", "stripe-test")["webhook_secrets"] == 2
    assert len(peer.control("webhooks")) == 1
    assert cli.json("rail", "rotate", "stripe-test", "--drop-old")["dropped"] == 1
    peer.fail("^GET /v1/account$", status=401)
    code, printed = cli.attempt("rail", "check", "stripe-test")
    assert (code, "the key was refused" in printed) == (1, True)
    assert "cannot be read" in cli.refused("rail", "connect-stripe", "--api-key-file", "nowhere")
    assert "takes live keys" in cli.refused("rail", "connect-stripe", "--api-key-file", key)


def test_news_that_was_kept(cli: Cli, peer: StripePeer, key: str) -> None:
    connect(cli, peer, key)
    peer.official().products.create({"name": "Editor"})
    event = {"id": "evt_1", "object": "event", "type": "unheard.of", "created": 1, "livemode": False}
    body = msgspec.json.encode({**event, "data": {"object": {}}})
    cli.on_database(_keep, body)
    (entry,) = cli.json("inbox", "list", "--status", "set_aside")["data"]
    assert (entry["event_id"], entry["error"], "body" in entry) == ("evt_1", "it does not fit", False)
    assert cli.json("inbox", "show", entry["id"])["body"] == body.decode()
    assert "We do not know news of type unheard.of" in cli.refused("inbox", "replay", entry["id"])
    assert "no such news" in cli.refused("inbox", "replay", "inb_nothing")
    assert cli.json("sync", "catch-up", "--rail", "stripe-test", "--since", "2020-01-01")["new"] >= 1
    assert cli.json("sync", "catch-up", "--rail", "stripe-test", "--since", "2020-01-01")["new"] == 0


def _keep(tx: Tx, body: bytes) -> None:
    notice = Notice(event_id="evt_1", type="unheard.of", occurred_at=from_seconds(1), reference=None)
    inbox.set_aside(tx, inbox.News("stripe-test", notice, None, body), "it does not fit")
