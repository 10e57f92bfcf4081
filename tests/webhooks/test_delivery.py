"""News on its way: signed, sent, tried again, given up."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import standardwebhooks
import svix.webhooks
from tests.support.app import Shop, good, problem
from tests.support.listening import happen, listen, send
from tests.support.receiver import Message, Receiver, Reply, receiving

from counterfoil.accounts import assignments, roles, users
from counterfoil.db.tx import Tx
from counterfoil.kernel.secrets import MasterKey
from counterfoil.kernel.signing import PublicKey
from counterfoil.webhooks import deliveries, endpoints, worker
from counterfoil.webhooks.worker import Courier

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
WAITS = [
    timedelta(seconds=5),
    5 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    14 * HOUR,
    20 * HOUR,
    24 * HOUR,
]


async def test_what_happens_is_sent_signed(shop: Shop, receiver: Receiver) -> None:
    endpoint = await listen(shop, receiver.url)
    product_id = await happen(shop)
    assert await send(shop) == 1
    (message,) = receiver.messages
    event = await shop.row("events", type="product.created")
    shown = good(await shop.staff.get(f"/v1/products/{product_id}"))
    assert message.id == event["id"]
    assert message.headers["content-type"] == "application/json"
    assert message.content == {
        "id": event["id"],
        "type": "product.created",
        "timestamp": event["created_at"].isoformat().replace("+00:00", "Z"),
        "version": "1",
        "sequence": 1,
        "data": {**message.content["data"], **{name: shown[name] for name in message.content["data"].keys() & shown}},
        "details": event["details"],
    }
    assert set(message.content["data"]) >= {"id", "slug", "name", "status", "created_at"}
    delivery = await shop.row("webhook_deliveries")
    assert delivery["payload"].encode() == message.body
    assert (delivery["status"], delivery["attempts"], delivery["last_status"]) == ("success", 1, 200)
    assert (delivery["claimed_by"], delivery["claimed_until"], delivery["completed_at"]) == (
        None,
        None,
        shop.clock.now(),
    )
    # Both packages check it as their users do.
    assert standardwebhooks.Webhook(endpoint["secret"]).verify(message.body, message.headers) == message.content
    svix.webhooks.Webhook(endpoint["secret"]).verify(message.body, message.headers)
    forged = message.body.replace(b"editor", b"edited")
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(endpoint["secret"]).verify(forged, message.headers)
    with pytest.raises(svix.webhooks.WebhookVerificationError):
        svix.webhooks.Webhook(endpoint["secret"]).verify(forged, message.headers)
    # The asymmetric one needs no shared secret.
    assert endpoint["public_key"].startswith("whpk_")
    key = PublicKey(base64.b64decode(endpoint["public_key"].removeprefix("whpk_")))
    signed = f"{message.id}.{message.headers['webhook-timestamp']}.".encode()
    (asymmetric,) = [one[4:] for one in message.headers["webhook-signature"].split() if one.startswith("v1a,")]
    assert key.verify(base64.b64decode(asymmetric), signed + message.body)
    assert not key.verify(base64.b64decode(asymmetric), signed + forged)


async def test_a_rotated_secret_overlaps_with_the_one_before(shop: Shop, receiver: Receiver) -> None:
    endpoint = await listen(shop, receiver.url)
    rotated = good(await shop.staff.post(f"/v1/webhook-endpoints/{endpoint['id']}/rotate-secret"))
    assert rotated["secret"] != endpoint["secret"]
    assert rotated["public_key"] == endpoint["public_key"]

    async def accepted() -> list[bool]:
        await happen(shop, f"product-{len(receiver.messages)}")
        await send(shop)
        message = receiver.messages[-1]
        # The packages compare with the real time, which has not moved.
        message.headers["webhook-timestamp"] = str(int(shop.clock.now().timestamp()))
        good_for = []
        for secret in (endpoint["secret"], rotated["secret"]):
            hook = standardwebhooks.Webhook(secret)
            at = datetime.fromtimestamp(int(message.headers["webhook-timestamp"]), UTC)
            good_for.append(hook.sign(message.id, at, message.body.decode()) in message.headers["webhook-signature"])
        return good_for

    assert await accepted() == [True, True]
    shop.clock.advance(timedelta(hours=24) - timedelta(seconds=1))
    assert await accepted() == [True, True]
    shop.clock.advance(timedelta(seconds=1))
    assert await accepted() == [False, True]
    assert (await shop.row("webhook_endpoints"))["old_secret_sealed"] is not None
    await worker.tidy(shop.scope, keep=timedelta(days=30))
    stored = await shop.row("webhook_endpoints")
    assert (stored["old_secret_sealed"], stored["old_secret_until"]) == (None, None)


async def test_endpoints_hear_what_they_asked_for(shop: Shop) -> None:
    async with receiving() as all_, receiving() as orders, receiving() as one:
        await listen(shop, all_.url, "*")
        await listen(shop, orders.url, "order.*", "payment.settled")
        await listen(shop, one.url, "license.issued")
        await shop.buy(await shop.tier())
        await send(shop)
        events = {row["id"]: row["type"] for row in await shop.rows("events")}
        told = {message.id: message.content["type"] for message in all_.messages}
        assert len(told) == len(all_.messages)
        assert told.items() <= events.items()
        made_before = {"api_key.created", "rail.connected", "role.created", "tenant.created", "signing_key.created"}
        assert {kind for key, kind in events.items() if key not in told} <= made_before
        assert {"order.created", "license.issued", "product.created"} <= set(told.values())
        assert {message.content["type"] for message in orders.messages} == {
            kind for kind in events.values() if kind.startswith("order.") or kind == "payment.settled"
        }
        assert [message.content["type"] for message in orders.messages].count("order.created") == 1
        assert [message.content["type"] for message in one.messages] == ["license.issued"]
        (license_,) = [message.content["data"] for message in one.messages]
        assert license_["id"] == (await shop.row("licenses"))["id"]


async def test_a_message_says_what_was_true_when_it_happened(shop: Shop, receiver: Receiver) -> None:
    await listen(shop, receiver.url)
    product_id = await happen(shop)
    for name in ("Second", "Third"):
        good(await shop.staff.patch(f"/v1/products/{product_id}", json={"name": name}))
    await send(shop)
    found = sorted((message.content["sequence"], message.content["data"]["name"]) for message in receiver.messages)
    assert found == [(1, "Editor"), (2, "Second"), (3, "Third")]
    assert (await shop.row("webhook_sequences"))["last"] == 3


async def test_one_transaction_numbers_an_objects_events_in_order(shop: Shop, receiver: Receiver) -> None:
    def work(tx: Tx) -> None:
        for number in range(3):
            tx.record("thing.changed", "thing", "thi_1", number=number)
            tx.record("thing.changed", "thing", "thi_2", number=number)

    await listen(shop, receiver.url, "thing.*")
    await shop.scope.run(work)
    shop.clock.advance(MINUTE)
    await shop.scope.run(work)
    await send(shop)
    contents = [message.content for message in receiver.messages]
    told = {name: [one for one in contents if one["data"] == {"id": name}] for name in ("thi_1", "thi_2")}
    for own in told.values():
        own.sort(key=lambda one: one["sequence"])
        assert [one["sequence"] for one in own] == [1, 2, 3, 4, 5, 6]
        assert [one["details"]["number"] for one in own] == [0, 1, 2, 0, 1, 2]
        assert sorted(one["id"] for one in own) == [one["id"] for one in own]


async def test_what_is_not_committed_is_not_news(shop: Shop, receiver: Receiver) -> None:
    def work(tx: Tx) -> None:
        tx.record("thing.changed", "thing", "thi_1")
        tx.flush()
        raise RuntimeError

    await listen(shop, receiver.url, "thing.*")
    with pytest.raises(RuntimeError):
        await shop.scope.run(work)
    assert await send(shop) == 0
    assert await shop.count("webhook_deliveries") == await shop.count("webhook_sequences") == 0


async def test_secrets_stay_here(shop: Shop, receiver: Receiver, master: MasterKey) -> None:
    await listen(shop, receiver.url, "*")
    good(await shop.staff.post("/v1/api-keys", json={"name": "reader", "role": "read-only"}))
    customer = good(await shop.staff.post("/v1/customers", json={"kind": "person", "name": "Ada"}))
    notes = {"internal_notes": "owes us a favor"}
    good(await shop.staff.put(f"/v1/customers/{customer['id']}/notes", json=notes))
    await shop.checkout(await shop.tier(), key="once")
    await send(shop)
    said = b"".join(message.body for message in receiver.messages)
    assert b"favor" not in said
    for name in ("sealed", "secret_hash", "idempotency_key", "request_hash", "password", "claimed_by"):
        assert name.encode() not in said
    (key,) = [one.content for one in receiver.messages if one.content["type"] == "api_key.created"]
    assert key["data"] == {"id": (await shop.rows("api_keys", name="reader"))[0]["id"]}


# -- failure ------------------------------------------------------------------------------------------


async def test_what_fails_is_tried_ten_times_over_three_days(shop: Shop, receiver: Receiver) -> None:
    await listen(shop, receiver.url)
    await happen(shop)
    receiver.answers(500, b"database on fire\x00\n")
    for attempt, wait in enumerate(WAITS, start=1):
        assert await send(shop) == 1
        delivery = await shop.row("webhook_deliveries")
        assert (delivery["status"], delivery["attempts"], delivery["last_status"]) == ("pending", attempt, 500)
        assert delivery["last_error"] == "answered 500: database on fire"
        waits = delivery["next_attempt_at"] - shop.clock.now()
        assert wait <= waits <= wait * 1.1
        shop.clock.advance(wait - timedelta(seconds=1))
        assert await send(shop) == 0
        shop.clock.advance(waits - wait + timedelta(seconds=1))
    assert await send(shop) == 1
    delivery = await shop.row("webhook_deliveries")
    assert (delivery["status"], delivery["attempts"], delivery["completed_at"]) == ("failed", 10, shop.clock.now())
    shop.clock.advance(timedelta(days=30))
    assert await send(shop) == 0
    assert len({message.id for message in receiver.messages}) == 1
    assert len({message.headers["webhook-timestamp"] for message in receiver.messages}) == 10
    # Whoever mends the receiver has it sent again, with all its attempts before it.
    receiver.answers(204)
    retried = good(await shop.staff.post(f"/v1/webhook-deliveries/{delivery['id']}/retry"))
    assert (retried["status"], retried["attempts"]) == ("pending", 0)
    assert await send(shop) == 1
    assert (await shop.row("webhook_deliveries"))["status"] == "success"
    assert (await shop.row("webhook_endpoints"))["first_failed_at"] is None


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        ("120", timedelta(seconds=120)),
        ("999999999999999999", timedelta(hours=24)),
        ("date", timedelta(minutes=10)),
        ("soon", None),
        ("-5", None),
    ],
)
async def test_retry_after_is_obeyed(shop: Shop, receiver: Receiver, asked: str, waited: timedelta | None) -> None:
    if asked == "date":
        asked = (shop.clock.now() + timedelta(minutes=10)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    receiver.answers(503, retry_after=asked)
    await listen(shop, receiver.url)
    await happen(shop)
    await send(shop)
    waits = (await shop.row("webhook_deliveries"))["next_attempt_at"] - shop.clock.now()
    if waited is None:
        assert timedelta(seconds=5) <= waits <= timedelta(seconds=5.5)
    else:
        assert waited - timedelta(seconds=1) < waits <= waited


async def test_what_is_no_answer_fails(shop: Shop, receiver: Receiver) -> None:
    await listen(shop, receiver.url)
    await happen(shop)

    async def failed() -> tuple[int | None, str]:
        assert await send(shop) == 1
        delivery = await shop.row("webhook_deliveries")
        assert delivery["status"] == "pending"
        good(await shop.staff.post(f"/v1/webhook-deliveries/{delivery['id']}/retry"))
        return delivery["last_status"], delivery["last_error"]

    receiver.answers(302, location="http://127.0.0.1:1/elsewhere")
    assert await failed() == (302, "answered 302")
    receiver.answers(None)
    status, error = await failed()
    assert status is None
    assert "disconnected" in error
    receiver.answers(400, b"x" * 100_000)
    status, error = await failed()
    assert (status, error[:20], len(error)) == (400, "answered 400: xxxxxx", len("answered 400: ") + 1024)

    async def hang(_: Message) -> Reply:
        await asyncio.sleep(60)
        return Reply()

    receiver.answer = hang
    shop.house.courier = Courier(
        shop.house.database,
        msgspec.structs.replace(shop.house.settings, webhook_timeout_seconds=0.2),
        shop.house.master,
    )
    assert await failed() == (None, "no answer within 0.2 seconds")
    await receiver.stop()
    status, error = await failed()
    assert (status, error.partition(":")[0]) == (None, "ConnectError")


async def test_410_disables_at_once(shop: Shop, receiver: Receiver, master: MasterKey) -> None:
    await make_owner(shop, "owner@example.com")
    endpoint = await listen(shop, receiver.url)
    await happen(shop)
    receiver.answers(410)
    await send(shop)
    assert (await shop.row("webhook_deliveries"))["status"] == "failed"
    found = good(await shop.staff.get(f"/v1/webhook-endpoints/{endpoint['id']}"))
    assert (found["status"], found["disabled_reason"]) == ("disabled", "gone")
    (letter,) = await shop.letters("owner@example.com")
    assert (letter.template, letter.context["reason"], letter.context["host"]) == (
        "webhook_disabled",
        "gone",
        f"127.0.0.1:{receiver.port}",
    )
    await happen(shop, "later")
    assert await shop.count("webhook_deliveries") == 1


async def make_owner(shop: Shop, email: str) -> None:
    def work(tx: Tx) -> None:
        user = users.create(tx, email=email, first_name="Ada", last_name="Lovelace", via="enrollment")
        assignments.grant(tx, user.id, roles.by_name(tx, "SuperAdmin").id, None)

    await shop.scope.run(work)


async def test_five_days_of_failure_disable_and_the_owner_is_told(shop: Shop, receiver: Receiver) -> None:
    await make_owner(shop, "owner@example.com")
    endpoint = await listen(shop, receiver.url)
    receiver.answers(500)
    await happen(shop)
    await send(shop)
    begun = shop.clock.now()
    assert (await shop.row("webhook_endpoints"))["first_failed_at"] == begun
    shop.clock.advance(timedelta(days=5) - timedelta(seconds=1))
    await send(shop)
    assert (await shop.row("webhook_endpoints"))["status"] == "enabled"
    await happen(shop, "second")
    shop.clock.advance(timedelta(seconds=1))
    await send(shop)
    stored = await shop.row("webhook_endpoints")
    assert (stored["status"], stored["disabled_reason"], stored["first_failed_at"]) == ("disabled", "failing", begun)
    assert [one.context["reason"] for one in await shop.letters("owner@example.com")] == ["failing"]
    assert await shop.events("webhook_endpoint.disabled") == ["webhook_endpoint.disabled"]
    # Nothing is sent until somebody enables it; then what waited is.
    receiver.answers(200)
    shop.clock.advance(timedelta(days=1))
    assert await send(shop) == 0
    enabled = good(await shop.staff.post(f"/v1/webhook-endpoints/{endpoint['id']}/enable"))
    assert (enabled["status"], enabled["disabled_reason"], enabled["first_failed_at"]) == ("enabled", None, None)
    assert await send(shop) == 2
    assert [row["status"] for row in await shop.rows("webhook_deliveries")] == ["success", "success"]


async def test_one_success_ends_the_count(shop: Shop, receiver: Receiver) -> None:
    await listen(shop, receiver.url)
    receiver.answers(500)
    await happen(shop)
    await send(shop)
    shop.clock.advance(timedelta(days=4))
    receiver.answers(200)
    await send(shop)
    assert (await shop.row("webhook_endpoints"))["first_failed_at"] is None
    shop.clock.advance(timedelta(days=4))
    receiver.answers(500)
    await happen(shop, "second")
    await send(shop)
    assert (await shop.row("webhook_endpoints"))["status"] == "enabled"


# -- what a person decides ----------------------------------------------------------------------------


async def test_a_test_goes_to_one_endpoint_whatever_it_listens_to(shop: Shop, receiver: Receiver) -> None:
    async with receiving() as other:
        endpoint = await listen(shop, receiver.url, "order.paid")
        await listen(shop, other.url, "webhook.*", "order.paid")
        queued = good(await shop.staff.post(f"/v1/webhook-endpoints/{endpoint['id']}/test"))
        assert (queued["event_type"], queued["status"]) == ("webhook.test", "pending")
        await send(shop)
        (message,) = receiver.messages
        assert other.messages == []
        assert message.content["type"] == "webhook.test"
        assert message.id == queued["event_id"]
        found = good(await shop.staff.get(f"/v1/webhook-deliveries/{queued['id']}"))
        assert found["status"] == "success"
        assert found["payload"] == message.content
    good(await shop.staff.post(f"/v1/webhook-endpoints/{endpoint['id']}/disable"))
    before = await shop.everything("api_keys")
    problem(await shop.staff.post(f"/v1/webhook-endpoints/{endpoint['id']}/test"), 409, "webhook_endpoint_disabled")
    assert await shop.everything("api_keys") == before


async def test_replay_sends_again_what_was_sent_since(shop: Shop, receiver: Receiver) -> None:
    endpoint = await listen(shop, receiver.url)
    for slug in ("one", "two", "three"):
        await happen(shop, slug)
        shop.clock.advance(HOUR)
    await send(shop)
    first = [message.id for message in receiver.messages]
    since = (shop.clock.now() - 2 * HOUR).isoformat()
    replayed = await shop.staff.post(f"/v1/webhook-endpoints/{endpoint['id']}/replay", json={"since": since})
    assert good(replayed) == {"count": 2}
    assert await send(shop) == 2
    assert sorted(message.id for message in receiver.messages[3:]) == sorted(first)[1:]
    assert [row["status"] for row in await shop.rows("webhook_deliveries")] == ["success"] * 3
    # In pieces, and for ever back.
    seen, start = 0, ""
    while True:
        done = await shop.scope.run(
            deliveries.replay, endpoint["id"], datetime(1970, 1, 1, tzinfo=UTC), start=start, most=1
        )
        seen += done.count
        if done.next is None:
            break
        start = done.next
    assert seen == 3
    assert await send(shop) == 3
    problem(
        await shop.staff.post("/v1/webhook-endpoints/nope/replay", json={"since": since}),
        404,
        "webhook_endpoint_not_found",
    )
    naive = await shop.staff.post(
        f"/v1/webhook-endpoints/{endpoint['id']}/replay", json={"since": "2026-01-01T00:00:00"}
    )
    assert naive.status_code == 422


async def test_what_is_deleted_is_not_sent(shop: Shop, receiver: Receiver) -> None:
    endpoint = await listen(shop, receiver.url)
    await happen(shop, "one")
    await happen(shop, "two")
    first = (await shop.rows("webhook_deliveries"))[0]
    assert (await shop.staff.delete(f"/v1/webhook-deliveries/{first['id']}")).status_code == 204
    problem(await shop.staff.delete(f"/v1/webhook-deliveries/{first['id']}"), 404, "webhook_delivery_not_found")
    await send(shop)
    assert len(receiver.messages) == 1
    await happen(shop, "three")
    assert (await shop.staff.delete(f"/v1/webhook-endpoints/{endpoint['id']}")).status_code == 204
    assert await send(shop) == 0
    await happen(shop, "four")
    assert await shop.count("webhook_deliveries") == await shop.count("webhook_endpoints") == 0


async def test_an_endpoint_deleted_under_way_poisons_nothing(shop: Shop, receiver: Receiver) -> None:
    endpoint = await listen(shop, receiver.url)
    await happen(shop)

    async def delete_it(_: Message) -> Reply:
        await shop.staff.delete(f"/v1/webhook-endpoints/{endpoint['id']}")
        return Reply()

    receiver.answer = delete_it
    assert await send(shop) == 1
    assert await shop.count("webhook_deliveries") == 0
    async with receiving() as other:
        await listen(shop, other.url)
        await happen(shop, "second")
        assert await send(shop) == 1
        assert len(other.messages) == 1


async def test_what_is_over_is_forgotten_in_time(shop: Shop, receiver: Receiver) -> None:
    await listen(shop, receiver.url)
    await happen(shop, "taken")
    await send(shop)
    receiver.answers(410)
    await happen(shop, "failed")
    await send(shop)
    shop.clock.advance(timedelta(days=30) - timedelta(seconds=1))
    keep = timedelta(days=30)
    assert await worker.tidy(shop.scope, keep=keep) == 0
    shop.clock.advance(timedelta(seconds=1))
    assert await worker.tidy(shop.scope, keep=keep) == 1
    assert [row["status"] for row in await shop.rows("webhook_deliveries")] == ["failed"]
    shop.clock.advance(timedelta(days=60))
    assert await worker.tidy(shop.scope, keep=keep) == 1
    assert await shop.count("webhook_deliveries") == 0


async def test_the_queues_depth_is_a_metric(shop: Shop, receiver: Receiver) -> None:
    await listen(shop, receiver.url)
    await happen(shop, "one")
    await happen(shop, "two")
    shop.clock.advance(MINUTE)
    text = (await shop.http.get("/metrics")).text
    assert 'counterfoil_webhook_deliveries{status="pending"} 2.0' in text
    (age,) = [line for line in text.splitlines() if line.startswith("counterfoil_webhook_oldest_seconds ")]
    assert 60.0 <= float(age.split()[1]) < 60.01
    await send(shop)
    text = (await shop.http.get("/metrics")).text
    assert 'counterfoil_webhook_deliveries{status="pending"} 0.0' in text
    assert "counterfoil_webhook_oldest_seconds 0.0" in text


async def test_a_secret_that_does_not_open_fails_and_says_so(shop: Shop, receiver: Receiver) -> None:
    first = await listen(shop, receiver.url)
    second = await listen(shop, receiver.url)

    def swap(tx: Tx) -> None:
        import sqlalchemy as sa

        from counterfoil.webhooks.tables import webhook_endpoints

        other = tx.one(sa.select(webhook_endpoints.c.secret_sealed).where(webhook_endpoints.c.id == first["id"]))
        assert other is not None
        tx.execute(
            sa.update(webhook_endpoints)
            .where(webhook_endpoints.c.id == second["id"])
            .values(secret_sealed=other.secret_sealed)
        )

    await shop.scope.run(swap)
    await happen(shop)
    await send(shop)
    found = {row["endpoint_id"]: row for row in await shop.rows("webhook_deliveries")}
    assert found[first["id"]]["status"] == "success"
    assert found[second["id"]]["status"] == "pending"
    assert "cannot be opened" in found[second["id"]]["last_error"]
    assert len(receiver.messages) == 1


def test_the_schedule() -> None:
    assert [deliveries.wait_after(attempts) for attempts in range(1, 11)] == [*WAITS, None]
    assert timedelta(hours=24) == endpoints.OVERLAP
