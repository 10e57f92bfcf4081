"""A way to the stand-in for Paddle that the SDK watches; and Prism, where it leads through it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

from tests.peers import paddle_sdk
from tests.peers.paddle_fixtures import PaddlePeer
from tests.peers.paddle_hooks import EVENT_NAMES
from tests.peers.paddle_world import API_KEY

MONTH = {"interval": "month", "frequency": 1}


@dataclass
class Route:
    """A way to the stand-in. What comes back is as the specification says, and the SDK understands it."""

    url: str
    peer: PaddlePeer

    def send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {API_KEY}", "content-type": "application/json"}
        content = b"" if body is None else json.dumps(body).encode()
        answer = self.peer.client.request(method, self.url + path, headers=headers, content=content)
        assert json.loads(answer.headers.get("sl-violations", "[]")) == []
        assert b"stoplight.io/prism" not in answer.content, answer.text
        return answer

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.send(method, path, body)
        assert answer.is_success, answer.text
        if not answer.content:
            return None
        if answer.status_code != 202:
            paddle_sdk.understand(path, answer.content)
        return answer.json()["data"]

    def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        """The status and code of an error."""
        answer = self.send(method, path, body)
        assert answer.is_error, answer.text
        return answer.status_code, answer.json()["error"]["code"]

    # -- things to sell, and to whom -------------------------------------------------------------------

    def price(self, amount: int = 1000, *, product_id: str | None = None, **more: Any) -> Any:
        product = product_id or self.ask("POST", "/products", {"name": "Editor", "tax_category": "saas"})["id"]
        unit_price = {"amount": str(amount), "currency_code": "USD"}
        body = {"description": "Editor, one seat", "product_id": product, "unit_price": unit_price, **more}
        return self.ask("POST", "/prices", body)

    def buyer(self, email: str = "ada@example.com", country_code: str = "DE") -> tuple[str, str]:
        """A customer and an address."""
        customer = self.ask("POST", "/customers", {"email": email, "name": "Ada Lovelace"})["id"]
        return customer, self.ask("POST", f"/customers/{customer}/addresses", {"country_code": country_code})["id"]

    def sale(self, *items: tuple[str, int], **more: Any) -> Any:
        body = {"items": [{"price_id": price_id, "quantity": quantity} for price_id, quantity in items], **more}
        return self.ask("POST", "/transactions", body)

    def subscribed(self, amount: int = 1000, quantity: int = 1, **more: Any) -> tuple[Any, Any]:
        """A price of a month, and a subscription to it."""
        customer, address = self.buyer()
        price = self.price(amount, billing_cycle=MONTH, **more)
        data = {"checkout_id": "chk_1"}
        sale = self.sale((price["id"], quantity), customer_id=customer, address_id=address, custom_data=data)
        paid = self.peer.transaction(sale["id"])
        return price, self.ask("GET", f"/subscriptions/{paid['subscription_id']}")

    def listen(self, url: str, *events: str) -> Any:
        """A destination for webhooks."""
        body = {
            "description": "Counterfoil",
            "type": "url",
            "destination": url,
            "subscribed_events": list(events or EVENT_NAMES),
            "api_version": 1,
            "include_sensitive_fields": False,
            "traffic_source": "platform",
        }
        return self.ask("POST", "/notification-settings", body)
