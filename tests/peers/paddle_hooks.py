"""The webhooks of the stand-in for Paddle: destinations, signatures, deliveries, and lists of what happened."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
import string
import time
from copy import deepcopy
from datetime import timedelta
from urllib.parse import urlsplit

import httpx

from tests.peers.paddle_fields import boolean, integer, many, one_of, read, text
from tests.peers.paddle_world import Answer, Listing, Problem, Request, Row, World, stamp

TIMEOUT_SECONDS = 5
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_CATALOG = ("address", "business", "customer", "discount", "price", "product")
EVENT_TYPES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_CATALOG, ("created", "imported", "updated")),
    "adjustment": ("created", "updated"),
    "api_key": ("created", "expired", "expiring", "revoked", "updated"),
    "payment_method": ("saved", "deleted"),
    "payout": ("created", "paid"),
    "report": ("created", "updated"),
    "subscription": (
        *("activated", "canceled", "created", "imported", "past_due", "paused", "resumed", "trialing", "updated"),
    ),
    "transaction": (
        *("billed", "canceled", "completed", "created", "paid", "past_due", "payment_failed", "ready", "revised"),
        "updated",
    ),
}
EVENT_NAMES = tuple(f"{group}.{what}" for group, kinds in EVENT_TYPES.items() for what in kinds)


def sign(secret_keys: list[str], body: bytes, ts: int) -> str:
    """The value of ``Paddle-Signature``: one ``h1`` for each secret."""
    signed = f"{ts}:".encode() + body
    found = (hmac.new(key.encode(), signed, hashlib.sha256).hexdigest() for key in secret_keys)
    return f"ts={ts};" + ";".join(f"h1={value}" for value in found)


def encode(event: Row) -> bytes:
    """A webhook's body."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


_SETTING = {
    "description": text(1, 500),
    "type": one_of("url", "email"),
    "destination": text(1, 2048),
    "active": boolean,
    "api_version": integer(1, 1),
    "include_sensitive_fields": boolean,
    "subscribed_events": many(one_of(*EVENT_NAMES)),
    "traffic_source": one_of("platform", "simulation", "all"),
}


class Hooks:
    """Who wants to hear what, and what became of telling them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False)
        self.queues: dict[str, asyncio.Queue[Row]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.open = 0
        self.quiet = asyncio.Event()
        self.quiet.set()
        world.listeners.append(self.notify)
        self.reset()

    def reset(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.tasks.clear()
        self.queues.clear()
        self.open = 0
        self.quiet.set()
        # What /_control/config changes.
        self.capture = False
        self.world_time = False
        self.retries = 3
        self.retry_seconds = 0.05

    # -- destinations ----------------------------------------------------------------------------------

    def list_settings(self, request: Request) -> Answer:
        rows = [self._view(row) for row in self.world.rows["setting"].values()]
        return self.world.page(request, rows, Listing(filters=("active", "traffic_source"), per_page=200), "id")

    def get_setting(self, request: Request) -> Answer:
        return Answer(self._view(self.world.get("setting", request.params["id"])))

    def create_setting(self, request: Request) -> Answer:
        required = ("description", "type", "destination", "subscribed_events")
        values = read(request.json(), _SETTING, required, closed=False)
        self._check_destination(values)
        if sum(row["active"] for row in self.world.rows["setting"].values()) >= 10 and values.get("active", True):
            words = "maximum number of active notification settings reached"
            raise Problem(400, "notification_maximum_active_settings_reached", words)
        row = {
            "id": self.world.new_id("setting"),
            "active": True,
            "api_version": 1,
            "include_sensitive_fields": False,
            "traffic_source": "platform",
            **values,
        }
        row["secrets"] = [self._secret(row)]
        return Answer(self._view(self.world.add("setting", row)), 201)

    def update_setting(self, request: Request) -> Answer:
        row = self.world.get("setting", request.params["id"])
        fields = {name: check for name, check in _SETTING.items() if name != "type"}
        values = read(request.json(), fields, closed=False)
        self._check_destination({**row, **values})
        row |= values
        return Answer(self._view(row))

    def delete_setting(self, request: Request) -> Answer:
        del self.world.rows["setting"][self.world.get("setting", request.params["id"])["id"]]
        return Answer(None, 204)

    def rotate(self, row: Row) -> str:
        """A new secret; until the old one is dropped both sign. The new one."""
        row["secrets"] = [self._secret(row), *row["secrets"]]
        return str(row["secrets"][0])

    def _secret(self, row: Row) -> str:
        letters = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(32))
        return f"pdl_{row['id']}_{letters}"

    def _check_destination(self, values: Row) -> None:
        parts = urlsplit(values["destination"])
        if values["type"] == "url" and (parts.scheme not in {"http", "https"} or not parts.hostname):
            words = "URL notification setting destination must be a URL"
            raise Problem(400, "url_notification_setting_incorrect", words)
        if values["type"] == "email" and "@" not in values["destination"]:
            words = "email notification setting destination must be an email"
            raise Problem(400, "email_notification_setting_incorrect", words)

    def _view(self, row: Row) -> Row:
        shown = {name: value for name, value in row.items() if name not in {"secrets", "subscribed_events"}}
        kinds = [event_type(name) for name in row["subscribed_events"]]
        return {**shown, "subscribed_events": kinds, "endpoint_secret_key": row["secrets"][0]}

    # -- what happened ---------------------------------------------------------------------------------

    def event_types(self, request: Request) -> Answer:
        return Answer([event_type(name) for name in EVENT_NAMES])

    def list_events(self, request: Request) -> Answer:
        return self.world.page(request, self.world.rows["event"].values(), Listing(), "event_id")

    def list_notifications(self, request: Request) -> Answer:
        rows = list(self.world.rows["notification"].values())
        if (about := request.first("filter")) is not None:
            keys = ("id", "transaction_id", "customer_id", "subscription_id")
            rows = [row for row in rows if about in {row["payload"]["data"].get(key) for key in keys}]
        return self.world.page(request, rows, Listing(filters=("notification_setting_id", "status")))

    def get_notification(self, request: Request) -> Answer:
        return Answer(self.world.get("notification", request.params["id"]))

    def list_logs(self, request: Request) -> Answer:
        row = self.world.get("notification", request.params["id"])
        logs = [log for log in self.world.rows["log"].values() if log["notification_id"] == row["id"]]
        answer = self.world.page(request, logs, Listing())
        answer.data = [{key: value for key, value in log.items() if key != "notification_id"} for log in answer.data]
        return answer

    def replay(self, request: Request) -> Answer:
        """The same event again, as a notification of its own."""
        old = self.world.get("notification", request.params["id"])
        if old["origin"] != "event":
            words = "can only replay notifications with an origin of event"
            raise Problem(400, "notification_replay_invalid_origin_type", words)
        if old["notification_setting_id"] not in self.world.rows["setting"]:
            raise Problem(400, "notification_cannot_replay", "notification cannot be replayed")
        old["replayed_at"] = stamp(self.world.now())
        event = {key: value for key, value in old["payload"].items() if key != "notification_id"}
        row = self._notification(event, old["notification_setting_id"], "replay")
        return Answer({"notification_id": row["id"]}, 202)

    # -- telling ---------------------------------------------------------------------------------------

    def notify(self, event: Row) -> None:
        for setting in list(self.world.rows["setting"].values()):
            if setting["active"] and event["event_type"] in setting["subscribed_events"]:
                self._notification(event, setting["id"], "event")

    def _notification(self, event: Row, setting_id: str, origin: str) -> Row:
        notification_id = self.world.new_id("notification")
        row: Row = {
            "id": notification_id,
            "type": event["event_type"],
            "status": "not_attempted",
            "payload": {**deepcopy(event), "notification_id": notification_id},
            "occurred_at": event["occurred_at"],
            "delivered_at": None,
            "replayed_at": None,
            "origin": origin,
            "last_attempt_at": None,
            "retry_at": None,
            "times_attempted": 0,
            "notification_setting_id": setting_id,
        }
        self.world.add("notification", row)
        if not self.capture:
            self._enqueue(row)
        return row

    def _enqueue(self, row: Row) -> None:
        setting_id = row["notification_setting_id"]
        queue = self.queues.get(setting_id)
        if queue is None:
            queue = self.queues[setting_id] = asyncio.Queue()
            task = asyncio.create_task(self._work(queue))
            self.tasks.add(task)
        self.open += 1
        self.quiet.clear()
        queue.put_nowait(row)

    async def _work(self, queue: asyncio.Queue[Row]) -> None:
        """Deliver to one destination, in order: a repetition stays behind what came meanwhile."""
        while True:
            row = await queue.get()
            await self.send(row)
            if row["status"] == "needs_retry":
                await asyncio.sleep(self.retry_seconds * 2 ** (row["times_attempted"] - 1))
                queue.put_nowait(row)
                continue
            self.open -= 1
            if self.open == 0:
                self.quiet.set()

    def signed(self, row: Row, ts: int | None = None) -> tuple[dict[str, str], bytes]:
        """What is sent for a notification now."""
        body = encode(row["payload"])
        if ts is None:
            ts = int(self.world.now().timestamp()) if self.world_time else int(time.time())
        setting = self.world.rows["setting"].get(row["notification_setting_id"], {"secrets": []})
        headers = {
            "content-type": "application/json",
            "user-agent": "Paddle",
            "paddle-version": "1",
            "paddle-signature": sign(setting["secrets"], body, ts),
        }
        return headers, body

    async def send(self, row: Row) -> None:
        """One attempt."""
        setting = self.world.rows["setting"].get(row["notification_setting_id"])
        row["times_attempted"] += 1
        row["last_attempt_at"] = stamp(self.world.now())
        if setting is None or urlsplit(setting["destination"]).hostname not in LOOPBACK:
            row["status"] = "failed"  # deleted meanwhile; or elsewhere, where a stand-in never goes
            return
        headers, body = self.signed(row)
        code, kind, words = 0, None, ""
        try:
            response = await self.client.post(setting["destination"], content=body, headers=headers)
        except httpx.HTTPError as error:
            words = repr(error)
        else:
            code, kind, words = response.status_code, response.headers.get("content-type"), response.text[:2000]
        log = {"response_code": code, "response_content_type": kind, "response_body": words}
        attempted = {"id": self.world.new_id("log"), "attempted_at": row["last_attempt_at"]}
        self.world.add("log", {**attempted, **log, "notification_id": row["id"]})
        if code == 200:
            row |= {"status": "delivered", "delivered_at": stamp(self.world.now()), "retry_at": None}
        elif row["times_attempted"] > self.retries:
            row |= {"status": "failed", "retry_at": None}
        else:
            retry_at = self.world.now() + timedelta(seconds=self.retry_seconds)
            row |= {"status": "needs_retry", "retry_at": stamp(retry_at)}

    async def idle(self) -> None:
        """Until nothing is waiting to be delivered."""
        await self.quiet.wait()

    async def close(self) -> None:
        self.reset()
        await self.client.aclose()


def event_type(name: str) -> Row:
    group = name.split(".", maxsplit=1)[0]
    words = f"Occurs when this happens: {name}."
    return {
        "name": name,
        "description": words,
        "group": group.replace("_", " ").capitalize(),
        "available_versions": [1],
    }
