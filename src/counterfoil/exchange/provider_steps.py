"""The steps of connecting an account, as each provider takes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol

import msgspec

from counterfoil.exchange.client import RailClient
from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.secrets import new_secret
from counterfoil.rails import paddle, stripe
from counterfoil.rails.base import RailUnavailable
from counterfoil.rails.paddle import PaddleSettings
from counterfoil.rails.paddle import connect as at_paddle
from counterfoil.rails.stripe import StripeSettings
from counterfoil.rails.stripe import connect as at_stripe
from counterfoil.rails.stripe.settings import BASE_URL
from counterfoil.rails.stripe.webhooks import TYPES

_LONGEST_SECRET = 250
_DESCRIPTION = "Counterfoil"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What a key belongs to, as far as the provider says."""

    id: str | None = None
    name: str | None = None
    country: str | None = None
    currency: str | None = None
    problems: tuple[str, ...] = ()


class Webhook(NamedTuple):
    """An endpoint of ours there."""

    id: str
    secret: str


class Steps(Protocol):
    """What connecting takes. All that ask raise RailRefused, RailUnavailable."""

    provider: str

    def rail(self, name: str) -> Any:
        """The rail itself."""
        ...

    def settings(self, rail: str, *, api_key: str, base_url: str | None, **own: Any) -> Any:
        """The settings to try. Raises Invalid for a key that is none, or of the other mode."""
        ...

    def check_secret(self, secret: str) -> str:
        """A signing secret that the seller gives. Raises Invalid."""
        ...

    def webhook_id(self, settings: Any) -> str | None:
        """The endpoint that we made."""
        ...

    def with_webhook(self, settings: Any, webhook_id: str | None, secrets: tuple[str, ...]) -> Any:
        """The settings with another endpoint."""
        ...

    def public(self, settings: Any, account: Account, webhook_url: str) -> dict[str, Any]:
        """What may be shown."""
        ...

    def public_webhook(self, settings: Any) -> dict[str, Any]:
        """What of it is about the endpoint."""
        ...

    async def account(self, client: RailClient, settings: Any) -> Account:
        """Whether the key works, and whose it is."""
        ...

    async def make_webhook(self, client: RailClient, settings: Any, url: str) -> Webhook:
        """Have webhooks sent to ``url``."""
        ...

    async def webhook_problems(self, client: RailClient, settings: Any, url: str) -> list[str]:
        """What is wrong with our endpoint; nothing where the seller made it, which the key may not see."""
        ...

    async def tidy_webhooks(self, client: RailClient, settings: Any, url: str, keep: str) -> None:
        """Delete endpoints of ours for ``url`` that nobody has the secret of."""
        ...

    async def delete_webhook(self, client: RailClient, settings: Any, webhook_id: str) -> None:
        """Delete an endpoint; one that is gone already is fine."""
        ...


class _Common(ABC):
    provider: str

    def public_webhook(self, settings: Any) -> dict[str, Any]:
        """How many secrets there are, never which."""
        return {"webhook_id": self.webhook_id(settings), "webhook_secrets": len(settings.webhook_secrets)}

    @abstractmethod
    def webhook_id(self, settings: Any) -> str | None:
        """The endpoint that we made."""

    def _public(self, settings: Any, account: Account, webhook_url: str) -> dict[str, Any]:
        return {
            "base_url": settings.base_url,
            "account": account.id,
            "store_name": account.name,
            "livemode": settings.livemode,
            "webhook_url": webhook_url,
            "on_dispute": settings.on_dispute,
            **self.public_webhook(settings),
        }


class StripeSteps(_Common):
    """Stripe's."""

    provider = "Stripe"

    def rail(self, name: str) -> Any:
        """The rail itself."""
        return stripe.StripeRail(name)

    def settings(self, rail: str, *, api_key: str, base_url: str | None, **own: Any) -> StripeSettings:
        """See :func:`counterfoil.rails.stripe.connect.check_key`. Raises Invalid."""
        livemode = at_stripe.check_key(rail, api_key)
        return StripeSettings(api_key=api_key, livemode=livemode, base_url=base_url or BASE_URL, **own)

    def check_secret(self, secret: str) -> str:
        """Raise Invalid for what is no signing secret."""
        return at_stripe.check_secret(secret)

    def webhook_id(self, settings: StripeSettings) -> str | None:
        """The endpoint that we made."""
        return settings.webhook_id

    def with_webhook(self, settings: StripeSettings, webhook_id: str | None, secrets: tuple[str, ...]) -> Any:
        """The settings with another endpoint."""
        return msgspec.structs.replace(settings, webhook_id=webhook_id, webhook_secrets=secrets)

    def public(self, settings: StripeSettings, account: Account, webhook_url: str) -> dict[str, Any]:
        """What may be shown."""
        more = {"country": account.country, "currency": account.currency, "automatic_tax": settings.automatic_tax}
        return self._public(settings, account, webhook_url) | more

    async def account(self, client: RailClient, settings: StripeSettings) -> Account:
        """The account; a key that may not read it has to read the balance."""
        found = at_stripe.read_account(await client.send(at_stripe.account_request(settings)))
        if found is None:
            live = at_stripe.read_balance(await client.send(at_stripe.balance_request(settings)))
            return Account(problems=() if live == settings.livemode else ("the key is of the other mode",))
        return Account(
            id=found.id,
            name=found.name,
            country=found.country,
            currency=found.currency,
            problems=() if found.charges_enabled else ("Stripe does not let this account take money yet",),
        )

    async def make_webhook(self, client: RailClient, settings: StripeSettings, url: str) -> Webhook:
        """Stripe tells the secret once; asked again with the same key, it gives the same answer."""
        request = at_stripe.create_webhook_request(settings, url, new_secret(20))
        try:
            made = at_stripe.read_webhook_created(await client.send(request))
        except RailUnavailable:
            made = at_stripe.read_webhook_created(await client.send(request))
        return Webhook(made.id, made.secret or "")

    async def webhook_problems(self, client: RailClient, settings: StripeSettings, url: str) -> list[str]:
        """Whether it is there, on, and for all that we understand."""
        if settings.webhook_id is None:
            return []
        found = at_stripe.read_webhooks(await client.send(at_stripe.webhooks_request(settings)))
        ours = next((one for one in found if one.id == settings.webhook_id), None)
        if ours is None:
            return ["our webhook endpoint is not at Stripe any more: connect again"]
        wrong = [] if ours.url == url else [f"our webhook endpoint sends to {ours.url} instead of {url}: connect again"]
        wrong += [] if ours.enabled else ["our webhook endpoint is switched off at Stripe"]
        complete = "*" in ours.types or set(TYPES) <= set(ours.types)
        wrong += [] if complete else ["our webhook endpoint does not get all news that we understand: connect again"]
        return wrong

    async def tidy_webhooks(self, client: RailClient, settings: StripeSettings, url: str, keep: str) -> None:
        """What earlier attempts to connect have left behind."""
        for one in at_stripe.read_webhooks(await client.send(at_stripe.webhooks_request(settings))):
            if one.url == url and one.id != keep:
                await self.delete_webhook(client, settings, one.id)

    async def delete_webhook(self, client: RailClient, settings: StripeSettings, webhook_id: str) -> None:
        """Delete an endpoint."""
        request = at_stripe.delete_webhook_request(settings, webhook_id)
        at_stripe.read_webhook_deleted(await client.send(request))


class PaddleSteps(_Common):
    """Paddle's."""

    provider = "Paddle"

    def rail(self, name: str) -> Any:
        """The rail itself."""
        return paddle.PaddleRail(name)

    def settings(self, rail: str, *, api_key: str, base_url: str | None, **own: Any) -> PaddleSettings:
        """See :func:`counterfoil.rails.paddle.connect.check_key`. Raises Invalid."""
        livemode = not rail.endswith("-test")
        at_paddle.check_key(api_key, livemode=livemode)
        return PaddleSettings(api_key=api_key, livemode=livemode, base_url=base_url or "", **own)

    def check_secret(self, secret: str) -> str:
        """Raise Invalid for what cannot be a destination's secret key."""
        if not (0 < len(secret) <= _LONGEST_SECRET and secret.isascii() and secret.isprintable() and " " not in secret):
            raise Invalid.field("webhook_secret", "This is no secret key of a notification destination.")
        return secret

    def webhook_id(self, settings: PaddleSettings) -> str | None:
        """The destination that we made."""
        return settings.notification_setting_id

    def with_webhook(self, settings: PaddleSettings, webhook_id: str | None, secrets: tuple[str, ...]) -> Any:
        """The settings with another destination."""
        return msgspec.structs.replace(settings, notification_setting_id=webhook_id, webhook_secrets=secrets)

    def public(self, settings: PaddleSettings, account: Account, webhook_url: str) -> dict[str, Any]:
        """What may be shown."""
        more = {"tax_mode": settings.tax_mode, "checkout_url": settings.checkout_url}
        return self._public(settings, account, webhook_url) | more

    async def account(self, client: RailClient, settings: PaddleSettings) -> Account:
        """Whether the key works: Paddle does not say whose it is."""
        at_paddle.read_connection(await client.send(at_paddle.connection_request(settings)))
        return Account()

    async def make_webhook(self, client: RailClient, settings: PaddleSettings, url: str) -> Webhook:
        """A destination. Should the answer be lost, the next attempt to connect deletes it."""
        request = at_paddle.create_destination_request(settings, url, _DESCRIPTION)
        made = at_paddle.read_destination(await client.send(request))
        return Webhook(made.id, made.secret)

    async def webhook_problems(self, client: RailClient, settings: PaddleSettings, url: str) -> list[str]:
        """Whether it is there, and on."""
        if settings.notification_setting_id is None:
            return []
        found = at_paddle.read_destinations(await client.send(at_paddle.destinations_request(settings)), url)
        ours = next((one for one in found if one.id == settings.notification_setting_id), None)
        if ours is None:
            return [f"our notification destination for {url} is not at Paddle any more: connect again"]
        return [] if ours.active else ["our notification destination is switched off at Paddle"]

    async def tidy_webhooks(self, client: RailClient, settings: PaddleSettings, url: str, keep: str) -> None:
        """What earlier attempts to connect have left behind: destinations for our address, which is nobody else's."""
        for one in at_paddle.read_destinations(await client.send(at_paddle.destinations_request(settings)), url):
            if one.id != keep:
                await self.delete_webhook(client, settings, one.id)

    async def delete_webhook(self, client: RailClient, settings: PaddleSettings, webhook_id: str) -> None:
        """Delete a destination."""
        request = at_paddle.delete_destination_request(settings, webhook_id)
        at_paddle.read_destination_deleted(await client.send(request))
