"""Connecting Stripe and Paddle: the key is tried, our webhook endpoint made there, and all we sell owed to it.

What differs between the two is in :class:`_Stripe` and :class:`_Paddle`; the order of steps is the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.exchange import outbox, rail_settings, subjects
from counterfoil.exchange.client import RailClient, follow
from counterfoil.exchange.rails import Connection, Rails
from counterfoil.kernel.errors import Conflict, Invalid, NotFound, RailFailed, Unavailable
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.base import RailRefused, RailUnavailable
from counterfoil.sales.types import GrantsPolicy
from counterfoil.settlement import links

if TYPE_CHECKING:
    from counterfoil.exchange.provider_steps import Account, Steps

BATCH = 500
_PROBED: Final = ("product", "price", "customer")
_PROBES = 3
"""Of how many copies we ask whether they are in an account, where it does not say which one it is."""


class NewConnection(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to connect an account."""

    rail: str
    api_key: str
    webhook_secret: str | None = None
    """The signing secret of a webhook endpoint that the seller made; None: we make one."""
    on_dispute: GrantsPolicy = "suspend"
    tax_mode: Literal["internal", "external"] = "internal"
    """Paddle: whether our prices have their tax in them."""
    automatic_tax: bool = False
    """Stripe: whether it works the tax out."""
    checkout_url: str | None = None
    """Paddle: the seller's own page that opens the checkout."""
    base_url: str | None = None
    """Where the API is; None: where the provider says."""
    force: bool = False
    """Connect even if it is another account; what we know of copies in the other one is then forgotten."""

    def __repr__(self) -> str:
        return f"NewConnection(rail={self.rail!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich."""
        return [("rail", self.rail)]


class ConnectedMirror(msgspec.Struct, frozen=True):
    """An account that is connected."""

    rail: str
    account: str | None
    """The provider's name for it, where it says."""
    name: str | None
    livemode: bool
    webhook: str
    """The address that the account's webhooks go to."""
    webhook_id: str | None
    """The endpoint that we made; None where the seller made it."""
    owed: int
    """How many copies are owed to it now."""


class Checked(msgspec.Struct, frozen=True):
    """What a look at a connected rail found."""

    rail: str
    ok: bool
    account: str | None
    problems: list[str]


async def connect(
    scope: Scope,
    rails: Rails,
    client: RailClient,
    master: MasterKey,
    new: NewConnection,
    *,
    webhook_url: str,
    on_owed: Callable[[int], None] = lambda _: None,
) -> ConnectedMirror:
    """Connect an account, or connect it again with another key or other settings.

    Raises Invalid; Conflict (``rail_account_changed``) for another account than the one that our copies are in;
    RailFailed in the provider's words, also where it makes no webhook endpoint for us; Unavailable.
    """
    steps = _steps(new.rail)
    settings = steps.settings(
        new.rail, api_key=new.api_key, base_url=_origin(new.base_url), on_dispute=new.on_dispute, **_own(new)
    )
    if new.webhook_secret is not None:
        steps.check_secret(new.webhook_secret)
    before = await _connection(scope, rails, new.rail)
    try:
        account = await steps.account(client, settings)
        if not await _is_same_account(scope, client, steps, new.rail, settings, account):
            if not new.force:
                raise Conflict(
                    f"Our copies at {new.rail} are in another account than this key's. "
                    "To leave them there and make new ones in this account, say so (force).",
                    code="rail_account_changed",
                )
            await _forget_copies(scope, new.rail)
            before = None
        settings = await _with_webhook(client, steps, settings, before, new.webhook_secret, webhook_url)
    except RailRefused as error:
        raise RailFailed(f"{steps.provider}: {error}") from error
    except RailUnavailable as error:
        raise Unavailable(f"{steps.provider} did not answer: {error}", code="rail_unavailable") from error
    await scope.run(rail_settings.save, master, new.rail, settings, steps.public(settings, account, webhook_url))
    rails.forget(scope.tenant, new.rail)
    owed = await owe_everything(scope, new.rail, on_owed)
    return ConnectedMirror(
        new.rail, account.id, account.name, settings.livemode, webhook_url, steps.webhook_id(settings), owed
    )


async def owe_everything(scope: Scope, rail: str, on_owed: Callable[[int], None] = lambda _: None) -> int:
    """Owe a rail a copy of every active object that it keeps copies of, some hundreds a transaction; how many."""
    count = 0
    for kind in outbox.MIRRORED[rail]:
        after = ""
        while ids := await scope.run(_owe_page, rail, kind, after):
            after = ids[-1]
            count += len(ids)
            on_owed(count)
    return count


def _owe_page(tx: Tx, rail: str, kind: str, after: str) -> list[str]:
    ids = subjects.ids(tx, kind, after=after, limit=BATCH)
    outbox.owe(tx, rail, [(kind, one) for one in ids])
    return ids


async def rotate(
    scope: Scope,
    rails: Rails,
    client: RailClient,
    master: MasterKey,
    rail: str,
    *,
    webhook_url: str,
    webhook_secret: str | None = None,
) -> int:
    """Have webhooks signed with another secret from now on; those of before count, too, until they are dropped.

    ``webhook_secret``: that of an endpoint of the seller's; None: ours is made anew. How many secrets count then.
    Raises Invalid, NotFound, RailFailed, Unavailable.
    """
    steps, connection = await _connected(scope, rails, rail)
    settings = connection.settings
    old_id = steps.webhook_id(settings)
    if webhook_secret is not None:
        secret, made_id = steps.check_secret(webhook_secret), old_id
    else:
        try:
            made = await steps.make_webhook(client, settings, webhook_url)
        except RailRefused as error:
            raise RailFailed(f"{steps.provider}: {error}") from error
        except RailUnavailable as error:
            raise Unavailable(f"{steps.provider} did not answer: {error}", code="rail_unavailable") from error
        secret, made_id = made.secret, made.id
    secrets = (secret, *[one for one in settings.webhook_secrets if one != secret])
    settings = steps.with_webhook(settings, made_id, secrets)
    await _save(scope, rails, master, rail, steps, settings)
    if old_id is not None and made_id != old_id:
        await _delete_quietly(steps, client, settings, old_id)
    return len(secrets)


async def drop_old_secrets(scope: Scope, rails: Rails, master: MasterKey, rail: str) -> int:
    """Believe no webhook any more that is signed with a secret of before; how many were dropped. Raises NotFound."""
    steps, connection = await _connected(scope, rails, rail)
    settings = connection.settings
    dropped = max(0, len(settings.webhook_secrets) - 1)
    if dropped:
        settings = steps.with_webhook(settings, steps.webhook_id(settings), settings.webhook_secrets[:1])
        await _save(scope, rails, master, rail, steps, settings)
    return dropped


async def check(client: RailClient, connection: Connection, webhook_url: str) -> Checked:
    """Whether a connected account answers, takes money, and sends its webhooks to us."""
    steps = _steps(connection.rail.name)
    settings = connection.settings
    problems: list[str] = []
    account = None
    try:
        account = await steps.account(client, settings)
        problems += account.problems
        problems += await steps.webhook_problems(client, settings, webhook_url)
    except (RailRefused, RailUnavailable) as error:
        problems.append(str(error))
    if not settings.webhook_secrets:
        problems.append("no webhook secret is set, so no webhook is believed")
    return Checked(connection.rail.name, not problems, account.id if account else None, problems)


async def take_webhook_back(client: RailClient, connection: Connection) -> list[str]:
    """Have the account send us nothing any more; what could not be done there."""
    steps = _steps(connection.rail.name)
    webhook_id = steps.webhook_id(connection.settings)
    if webhook_id is None:
        return []
    try:
        await steps.delete_webhook(client, connection.settings, webhook_id)
    except (RailRefused, RailUnavailable) as error:
        return [f"the webhook endpoint {webhook_id} is still at {steps.provider}: {error}"]
    return []


async def _with_webhook(
    client: RailClient, steps: Steps, settings: Any, before: Connection | None, secret: str | None, url: str
) -> Any:
    """The settings with what webhooks are signed with: as the seller says, as it was, or made now."""
    known = before.settings if before is not None else None
    if secret is not None:
        earlier = tuple(one for one in known.webhook_secrets if one != secret) if known is not None else ()
        return steps.with_webhook(settings, None, (secret, *earlier))
    if known is not None and steps.webhook_id(known) is not None:
        kept = steps.with_webhook(settings, steps.webhook_id(known), known.webhook_secrets)
        if not await steps.webhook_problems(client, kept, url):
            return kept
    try:
        made = await steps.make_webhook(client, settings, url)
    except RailRefused as error:
        raise RailRefused(
            f"{error}. No webhook endpoint could be made: make one there for {url}, and give its signing secret."
        ) from error
    await steps.tidy_webhooks(client, settings, url, made.id)
    earlier = tuple(one for one in known.webhook_secrets if one != made.secret) if known is not None else ()
    return steps.with_webhook(settings, made.id, (made.secret, *earlier))


async def _is_same_account(
    scope: Scope, client: RailClient, steps: Steps, rail: str, settings: Any, account: Account
) -> bool:
    """Whether our copies are in this account: it says which one it is, or has one of them."""
    known = await scope.read(links.some, rail, _PROBED, limit=_PROBES)
    earlier = await _account_before(scope, rail)
    if not known or (earlier is not None and account.id is not None):
        return not known or earlier == account.id
    mirror: Any = steps.rail(rail)
    for link in known:
        request = mirror.get_request(settings, link.kind, link.reference, None)
        try:
            await follow(client, request, functools.partial(mirror.read_copy, settings, link.kind))
        except RailRefused:
            continue
        return True
    return False


async def _account_before(scope: Scope, rail: str) -> str | None:
    """The account that is or was connected last, where we know."""
    rows = await scope.read(rail_settings.list_)
    return next((row.public.get("account") for row in rows if row.rail == rail), None)


async def _forget_copies(scope: Scope, rail: str) -> None:
    while await scope.run(links.forget, rail, outbox.MIRRORED[rail], limit=BATCH):
        pass


async def _connection(scope: Scope, rails: Rails, rail: str) -> Connection | None:
    try:
        return await rails.get(scope.tenant, rail, fresh=True)
    except NotFound:
        return None


async def _connected(scope: Scope, rails: Rails, rail: str) -> tuple[Steps, Connection]:
    steps = _steps(rail)
    return steps, await rails.get(scope.tenant, rail, fresh=True)


async def _save(scope: Scope, rails: Rails, master: MasterKey, rail: str, steps: Steps, settings: Any) -> None:
    row = await scope.read(rail_settings.load, rail)
    if row is None:
        raise NotFound("This rail is not connected.", code="rail_not_connected")
    public = {**row.public, **steps.public_webhook(settings)}
    await scope.run(rail_settings.save, master, rail, settings, public)
    rails.forget(scope.tenant, rail)


async def _delete_quietly(steps: Steps, client: RailClient, settings: Any, webhook_id: str) -> None:
    try:
        await steps.delete_webhook(client, settings, webhook_id)
    except (RailRefused, RailUnavailable):
        return  # it sends what is known already; the check of the connection names it


def _steps(rail: str) -> Steps:
    from counterfoil.exchange.provider_steps import PaddleSteps, StripeSteps  # noqa: PLC0415 # a start needs neither

    match rail.removesuffix("-test"):
        case "stripe":
            return StripeSteps()
        case "paddle":
            return PaddleSteps()
        case _:
            raise Invalid.field("rail", f"one of {', '.join(sorted(outbox.MIRRORED))}", code="unknown_rail")


def _own(new: NewConnection) -> dict[str, Any]:
    if new.rail.startswith("stripe"):
        return {"automatic_tax": new.automatic_tax}
    if new.checkout_url is not None and urlsplit(new.checkout_url).scheme != "https":
        raise Invalid.field("checkout_url", "must be an https address")
    return {"tax_mode": new.tax_mode, "checkout_url": new.checkout_url}


def _origin(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise Invalid.field("base_url", "must be an http or https address")
    return url.rstrip("/")
