"""Connecting accounts that keep copies: the key, the account, the webhook endpoint, and what is owed from then on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.peers.paddle_world import API_KEY
from tests.peers.stripe_peers import StripePeer
from tests.support.app import Shop, good
from tests.support.paddle_shop import PaddleShop
from tests.support.stripe_shop import StripeShop

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.exchange import connect as every_rail
from counterfoil.exchange import connect_mirrors
from counterfoil.exchange.connect_mirrors import Checked, ConnectedMirror, NewConnection
from counterfoil.kernel.errors import Conflict, CounterfoilError, Invalid, NotFound, RailFailed, Unavailable
from counterfoil.rails.paddle import PaddleSettings
from counterfoil.rails.stripe import StripeSettings

pytestmark = [pytest.mark.xdist_group("rail-copies"), pytest.mark.parametrize("dialect", ["sqlite"])]

STRIPE_HOOK = "https://shop.example/v1/webhooks/stripe-test"
PADDLE_HOOK = "https://shop.example/v1/webhooks/paddle-test"


async def connect_stripe(shop: Shop, peer: StripePeer, **more: Any) -> ConnectedMirror:
    given = {"rail": "stripe-test", "api_key": peer.api_key, "base_url": peer.url, **more}
    house = shop.house
    return await connect_mirrors.connect(
        shop.scope, house.rails, house.client, house.master, NewConnection(**given), webhook_url=STRIPE_HOOK
    )


async def connect_paddle(shop: Shop, url: str, api_key: str, **more: Any) -> ConnectedMirror:
    new = NewConnection(rail="paddle-test", api_key=api_key, base_url=url, **more)
    house = shop.house
    return await connect_mirrors.connect(
        shop.scope, house.rails, house.client, house.master, new, webhook_url=PADDLE_HOOK
    )


async def stripe_settings(shop: Shop) -> StripeSettings:
    settings = (await shop.house.rails.get(DEFAULT_TENANT, "stripe-test", fresh=True)).settings
    assert isinstance(settings, StripeSettings)
    return settings


async def paddle_settings(shop: Shop) -> PaddleSettings:
    settings = (await shop.house.rails.get(DEFAULT_TENANT, "paddle-test", fresh=True)).settings
    assert isinstance(settings, PaddleSettings)
    return settings


async def look(shop: Shop, rail: str, hook: str) -> Checked:
    return await every_rail.check(shop.house.rails, shop.house.client, DEFAULT_TENANT, rail, hook)


async def disconnect(shop: Shop, rail: str) -> list[str]:
    return await every_rail.disconnect(shop.scope, shop.house.rails, shop.house.client, rail)


def hooks(peer: StripePeer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = peer.control("webhooks")
    return found


class TestStripe:
    @pytest.fixture
    async def shop(self, stripe_shop: StripeShop) -> Shop:
        """One that has no rail yet."""
        await disconnect(stripe_shop.shop, "stripe-test")
        return stripe_shop.shop

    async def test_connecting_owes_all_that_is_sold(self, shop: Shop, stripe_shop: StripeShop) -> None:
        peer = stripe_shop.peer
        sold = await shop.tier("editor", amount=1_500, asset="EUR")
        old = await shop.tier("old", amount=1_500, asset="EUR")
        good(await shop.staff.patch(f"/v1/products/{old.product_id}", json={"status": "archived"}))
        await shop.discount("TEN", amount=1_000)
        assert await shop.count("outbox") == 0
        done = await connect_stripe(shop, peer, on_dispute="revoke")
        (hook,) = hooks(peer)
        assert (hook["url"], hook["status"], hook["id"]) == (STRIPE_HOOK, "enabled", done.webhook_id)
        settings = await stripe_settings(shop)
        assert settings.webhook_secrets == (hook["secret"],)
        assert (settings.on_dispute, settings.livemode, done.name) == ("revoke", False, "A shop")
        owed = {row["object_id"] for row in await shop.rows("outbox")}
        assert (done.owed, sold.product_id in owed, old.product_id in owed) == (4, True, False)
        assert await look(shop, "stripe-test", STRIPE_HOOK) == Checked("stripe-test", True, done.account, [])
        shown = msgspec.json.encode([await shop.rows("events"), good(await shop.staff.get("/v1/rails"))]).decode()
        assert done.account is not None
        assert done.account in shown
        assert peer.api_key not in shown
        assert hook["secret"] not in shown

    @pytest.mark.parametrize("key", ["sk_live_x", "pk_test_x", "", "sk_test_x y"])
    async def test_a_key_that_does_not_fit_asks_nobody(self, shop: Shop, stripe_shop: StripeShop, key: str) -> None:
        with pytest.raises(Invalid):
            await connect_stripe(shop, stripe_shop.peer, api_key=key)
        assert stripe_shop.peer.requests() == []

    async def test_a_refused_key_is_not_kept(self, shop: Shop, stripe_shop: StripeShop) -> None:
        stripe_shop.peer.fail("^GET /v1/account$", status=401)
        with pytest.raises(RailFailed, match=r"Stripe: the key was refused: .*Invalid API Key"):
            await connect_stripe(shop, stripe_shop.peer)
        with pytest.raises(NotFound):
            await stripe_settings(shop)

    async def test_no_answer(self, shop: Shop, stripe_shop: StripeShop) -> None:
        stripe_shop.peer.fail("^GET /v1/account$", hang_up=True)
        with pytest.raises(Unavailable):
            await connect_stripe(shop, stripe_shop.peer)

    async def test_a_key_that_may_make_no_endpoint_takes_the_sellers_secret(
        self, shop: Shop, stripe_shop: StripeShop
    ) -> None:
        peer = stripe_shop.peer
        for _ in range(2):
            peer.fail("^GET /v1/account$", status=403)
        peer.fail("^POST /v1/webhook_endpoints$", status=403)
        with pytest.raises(RailFailed, match=f"make one there for {STRIPE_HOOK}"):
            await connect_stripe(shop, peer, api_key="rk_test_narrow")
        done = await connect_stripe(shop, peer, api_key="rk_test_narrow", webhook_secret="whsec_by_hand")
        assert (done.webhook_id, done.account) == (None, None)
        assert (await stripe_settings(shop)).webhook_secrets == ("whsec_by_hand",)
        with pytest.raises(Invalid):
            await connect_stripe(shop, peer, webhook_secret="by hand")

    async def test_a_lost_answer_leaves_one_endpoint(self, shop: Shop, stripe_shop: StripeShop) -> None:
        peer = stripe_shop.peer
        peer.fail("^POST /v1/webhook_endpoints$", after=True, hang_up=True)
        await connect_stripe(shop, peer)
        (hook,) = hooks(peer)
        assert (await stripe_settings(shop)).webhook_secrets == (hook["secret"],)

    async def test_connecting_again_keeps_the_endpoint(self, shop: Shop, stripe_shop: StripeShop) -> None:
        first = await connect_stripe(shop, stripe_shop.peer)
        before = await stripe_settings(shop)
        again = await connect_stripe(shop, stripe_shop.peer, automatic_tax=True)
        assert (again.webhook_id, len(hooks(stripe_shop.peer))) == (first.webhook_id, 1)
        assert await stripe_settings(shop) == msgspec.structs.replace(before, automatic_tax=True)

    async def test_another_account_only_by_force(self, shop: Shop, stripe_shop: StripeShop) -> None:
        peer = stripe_shop.peer
        await shop.tier("editor", amount=1_500, asset="EUR")
        await connect_stripe(shop, peer)
        await stripe_shop.push()
        assert await shop.count("rail_links") == 2
        other = peer.fresh()
        # The stand-in calls every account the same, so this one does not say which it is.
        other.fail("^GET /v1/account$", status=403, count=2)
        with pytest.raises(Conflict) as refused:
            await connect_stripe(shop, other)
        assert refused.value.code == "rail_account_changed"
        assert await shop.count("rail_links") == 2
        assert (await connect_stripe(shop, other, force=True)).owed == 2
        assert await shop.count("rail_links") == 0
        await stripe_shop.push()
        assert len(other.look("products")["data"]) == len(other.look("prices")["data"]) == 1
        other.close()

    async def test_secrets_are_rotated(self, shop: Shop, stripe_shop: StripeShop) -> None:
        peer, house = stripe_shop.peer, shop.house
        await connect_stripe(shop, peer)
        (old,) = hooks(peer)
        count = await connect_mirrors.rotate(
            shop.scope, house.rails, house.client, house.master, "stripe-test", webhook_url=STRIPE_HOOK
        )
        (new,) = hooks(peer)
        assert (count, old["id"] != new["id"]) == (2, True)
        assert (await stripe_settings(shop)).webhook_secrets == (new["secret"], old["secret"])
        path = "/v1/rails/stripe-test/rotate"
        assert good(await shop.staff.post(path, json={"webhook_secret": "whsec_third"}))["webhook_secrets"] == 3
        assert good(await shop.staff.post(path, json={"drop_old": True}))["webhook_secrets"] == 1
        assert (await stripe_settings(shop)).webhook_secrets == ("whsec_third",)

    async def test_the_check_names_what_is_wrong(self, shop: Shop, stripe_shop: StripeShop) -> None:
        peer = stripe_shop.peer
        done = await connect_stripe(shop, peer)
        peer.official().webhook_endpoints.update(done.webhook_id, {"disabled": True})
        answer = good(await shop.staff.post("/v1/rails/stripe-test/check", json={}))
        assert (answer["ok"], answer["account"]) == (False, done.account)
        assert "our webhook endpoint is switched off at Stripe" in answer["problems"]
        peer.official().webhook_endpoints.delete(done.webhook_id)
        gone = await look(shop, "stripe-test", STRIPE_HOOK)
        assert gone.problems == ["our webhook endpoint is not at Stripe any more: connect again"]
        peer.fail("^GET /v1/account$", status=401)
        assert not (await look(shop, "stripe-test", STRIPE_HOOK)).ok

    async def test_disconnecting_deletes_the_endpoint(self, shop: Shop, stripe_shop: StripeShop) -> None:
        peer = stripe_shop.peer
        await connect_stripe(shop, peer)
        assert await disconnect(shop, "stripe-test") == []
        assert hooks(peer) == []
        await connect_stripe(shop, peer)
        peer.fail("^DELETE", status=500)
        (left,) = await disconnect(shop, "stripe-test")
        assert left.startswith("the webhook endpoint we_")
        with pytest.raises(NotFound):
            await stripe_settings(shop)


class TestPaddle:
    @pytest.fixture
    async def shop(self, paddle_shop: PaddleShop) -> Shop:
        """One that has no rail yet."""
        await disconnect(paddle_shop.shop, "paddle-test")
        return paddle_shop.shop

    async def test_connecting_checking_and_disconnecting(self, shop: Shop, paddle_shop: PaddleShop) -> None:
        peer = paddle_shop.peer
        await shop.tier("editor", amount=1_500, asset="EUR")
        done = await connect_paddle(shop, peer.url, API_KEY, tax_mode="external")
        (there,) = peer.api("GET", "/notification-settings")
        settings = await paddle_settings(shop)
        assert (there["destination"], done.webhook_id) == (PADDLE_HOOK, there["id"])
        assert settings.webhook_secrets == (there["endpoint_secret_key"],)
        assert (settings.tax_mode, done.owed) == ("external", 2)
        assert await look(shop, "paddle-test", PADDLE_HOOK) == Checked("paddle-test", True, None, [])
        again = await connect_paddle(shop, peer.url, API_KEY)
        assert again.webhook_id == done.webhook_id
        house = shop.house
        await connect_mirrors.rotate(
            shop.scope, house.rails, house.client, house.master, "paddle-test", webhook_url=PADDLE_HOOK
        )
        (new,) = peer.api("GET", "/notification-settings")
        secrets = (new["endpoint_secret_key"], there["endpoint_secret_key"])
        assert (await paddle_settings(shop)).webhook_secrets == secrets
        assert await disconnect(shop, "paddle-test") == []
        assert peer.api("GET", "/notification-settings") == []

    async def test_another_account_is_known_by_what_is_not_there(self, shop: Shop, paddle_shop: PaddleShop) -> None:
        peer = paddle_shop.peer
        await shop.tier("editor", amount=1_500, asset="EUR")
        await connect_paddle(shop, peer.url, API_KEY)
        await paddle_shop.push()
        peer.control("reset")
        with pytest.raises(Conflict) as refused:
            await connect_paddle(shop, peer.url, API_KEY)
        assert refused.value.code == "rail_account_changed"
        await connect_paddle(shop, peer.url, API_KEY, force=True)
        await paddle_shop.push()
        assert len(peer.api("GET", "/products")) == 1

    @pytest.mark.parametrize(("key", "error"), [("pdl_live_apikey_x", Invalid), ("pdl_sdbx_apikey_wrong", RailFailed)])
    async def test_keys_that_do_not_fit(
        self, shop: Shop, paddle_shop: PaddleShop, key: str, error: type[CounterfoilError]
    ) -> None:
        with pytest.raises(error):
            await connect_paddle(shop, paddle_shop.peer.url, key)


async def test_rails_that_cannot_be_connected_so(paddle_shop: PaddleShop) -> None:
    answer = await paddle_shop.shop.staff.post("/v1/rails/sandbox", json={"api_key": "x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_rail")
    answer = await paddle_shop.shop.staff.post("/v1/rails/btcpay/check", json={})
    assert (answer.status_code, answer.json()["code"]) == (404, "rail_not_connected")
    assert good(await paddle_shop.shop.staff.post("/v1/rails/sandbox/check", json={}))["ok"] is True
