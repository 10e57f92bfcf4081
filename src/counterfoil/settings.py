"""Settings: from the environment (``COUNTERFOIL_...``), else ``counterfoil.toml``, else the defaults here."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from email.utils import getaddresses
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from counterfoil import config, table_names
from counterfoil.config import BadSetting, Secret
from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.text import normalize_email

GOOGLE = "google"
_BUILT_IN = {GOOGLE: {"issuer": "https://accounts.google.com", "label": "Google"}}
_PROVIDER_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_SPAN = re.compile(r"[0-9]{1,6}[hd]")
_ADDRESS_SOURCES = {"enrollment", "invitation"}
"""How an address can come that no provider proved (``UserEmail.via``): no provider may go by such a name."""


class OidcProvider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An OpenID Connect provider to sign in with, as it knows this installation."""

    issuer: Annotated[str, Meta(max_length=1000)]
    """Its address, exactly as its discovery document says it."""
    client_id: Annotated[str, Meta(min_length=1, max_length=500)]
    client_secret: Secret
    label: Annotated[str, Meta(max_length=60)] = ""
    """What people know it by; its name when left out."""
    scopes: tuple[str, ...] = ("openid", "email", "profile")

    def __post_init__(self) -> None:
        if "?" in self.issuer or not is_safe_url(self.issuer):
            raise ValueError("issuer must be an https address without a query; plain http only on this machine")
        if "openid" not in self.scopes or not all(re.fullmatch(r"[!#-\[\]-~]{1,200}", each) for each in self.scopes):
            raise ValueError("scopes must name openid, and each scope without blanks")
        if not self.client_id.isprintable() or not self.label.isprintable():
            raise ValueError("client_id and label must not contain control characters")
        if not 1 <= len(self.client_secret.reveal()) <= 1000:
            raise ValueError("client_secret must have up to 1000 characters")


class Settings(msgspec.Struct, kw_only=True):
    """How this installation runs. Every field is an environment variable with the prefix ``COUNTERFOIL_``."""

    database_url: str = "sqlite:///var/counterfoil.db"
    """``sqlite:///path/to/file`` or ``postgresql://user@host/name``."""
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8787
    public_url: str | None = None
    """Where buyers and rails reach this server; the address it listens on when left out."""
    master_key: Secret | None = None
    """32 bytes in base 64; read from ``master_key_file`` when left out."""
    master_key_file: Path = Path("var/master.key")
    """Made on the first start, readable by its owner only. Back it up apart from the database."""
    sandbox: bool = False
    """Whether the sandbox rail exists: anybody can then "pay" without money."""
    jobs: bool = True
    """Whether ``serve`` also runs the jobs; False where ``counterfoil worker`` runs beside it."""
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    quote_minutes: Annotated[int, Meta(ge=1, le=43_200)] = 15
    """How long a checkout's price holds."""
    claim_days: Annotated[int, Meta(ge=1, le=3650)] = 30
    """How long after a purchase its private link still shows the license key."""
    validation_log_days: Annotated[int, Meta(ge=1)] = 400
    """How long the log of validations is kept."""
    validations_per_minute: Annotated[int, Meta(ge=0)] = 600
    """For one client address, over all license routes; 0 = no limit."""
    heartbeats_per_hour: Annotated[int, Meta(ge=0)] = 60
    """For one machine; 0 = no limit."""
    session_days: Annotated[int, Meta(ge=1, le=400)] = 30
    """How long somebody stays signed in at the longest."""
    session_idle_hours: Annotated[int, Meta(ge=1)] = 24 * 7
    """How long somebody stays signed in without doing anything."""
    passkey_hours: Annotated[int, Meta(ge=1)] = 12
    """How long after a passkey was shown its session may do what staff may."""
    sign_ins_per_minute: Annotated[int, Meta(ge=0)] = 30
    """For one client address: passwords, codes and letters asked for; 0 = no limit."""
    mail_transport: Literal["mailbox", "smtp"] = "mailbox"
    """Where letters go: into a folder, to be looked at, or to a mail server."""
    mail_folder: Path = Path("var/mail")
    """The folder of ``mailbox``: two files a letter, ``.eml`` and ``.html``."""
    mail_from: str = "Shop <no-reply@localhost>"
    """Whom letters are from: an address, with a name or without."""
    smtp_host: str | None = None
    """The mail server; ``smtp`` needs one."""
    smtp_port: Annotated[int, Meta(ge=1, le=65535)] = 587
    smtp_username: str | None = None
    """Signs in to the mail server, with ``smtp_password``; nobody does when both are left out."""
    smtp_password: Secret | None = None
    smtp_tls: Literal["starttls", "implicit", "none"] = "starttls"
    """How the connection to the mail server is encrypted; ``none`` only to this machine itself."""
    oidc_providers: dict[str, OidcProvider] = {}
    """OpenID Connect providers to sign in with, by name; ``google`` needs no issuer and no label."""
    storage: dict[str, Any] = {}
    """``storage.schema_mapping.<table>.table_name``: what a table is called in the database."""
    webhooks_allow_loopback: bool = False
    """Whether webhooks may go to this machine itself, and there without encryption: for development."""
    webhooks_per_endpoint: Annotated[int, Meta(ge=1, le=20)] = 2
    """How many requests to one webhook endpoint may be under way at once, in each process."""
    webhook_timeout_seconds: Annotated[float, Meta(ge=0.1, le=30)] = 15.0
    """How long a webhook's receiver may take to answer."""
    webhook_log_days: Annotated[int, Meta(ge=1)] = 30
    """How long webhooks are kept that were taken; those that failed, 90 days at least."""
    archival_enabled: bool = False
    """Whether old payments are moved to the archive, where their references stay taken for ever."""
    archival_retention: str = "2160h"
    """How old a payment is then: hours (``2160h``) or days (``90d``)."""
    archival_interval: str = "24h"
    """How often that is looked at, in the same form."""
    trusted_proxies: list[str] = []
    """Networks (``10.0.0.0/8``) whose ``X-Forwarded-For`` is believed. Nobody else's is."""

    def __post_init__(self) -> None:
        for name, why in self._wrong():
            raise BadSetting(name, why)

    def _wrong(self) -> Iterator[tuple[str, str]]:
        """Settings that no type refuses, and what is wrong with them."""
        if self.public_url is None and self.host in {"0.0.0.0", "::"}:  # noqa: S104 # compared, not bound
            yield "public_url", "is needed to listen on every address: it is the one to hand out"
        try:
            resolved = table_names.resolve(self.storage)
        except ValueError as error:
            yield "storage", str(error)
        else:
            if resolved != table_names.NAMES:
                one_by_one = "COUNTERFOIL_STORAGE__SCHEMA_MAPPING__<TABLE>__TABLE_NAME"
                why = f"names of tables are read when the program starts: from {table_names.FILE}, or from {one_by_one}"
                yield "storage", why
        for name in ("archival_retention", "archival_interval"):
            text = getattr(self, name)
            if not _SPAN.fullmatch(text) or not timedelta(hours=1) <= _span(text) <= timedelta(days=36_500):
                yield name, "must be hours (2160h) or days (90d), at least 1h"
        yield from self._wrong_about_mail()

    def _wrong_about_mail(self) -> Iterator[tuple[str, str]]:
        if not _is_sender(self.mail_from):
            yield "mail_from", "must be one address, such as: Shop <no-reply@example.com>"
        if self.mail_transport == "smtp" and not self.smtp_host:
            yield "smtp_host", "is needed when COUNTERFOIL_MAIL_TRANSPORT is smtp"
        if (self.smtp_username is None) != (self.smtp_password is None):
            yield "smtp_password", "goes together with COUNTERFOIL_SMTP_USERNAME"
        if self.smtp_tls == "none" and self.smtp_host and not _is_this_machine(self.smtp_host):
            yield "smtp_tls", "may be none for a mail server on this machine only"

    @classmethod
    def load(cls, otherwise: Mapping[str, Any] | None = None, **given: Any) -> Settings:
        """Read the settings; arguments win over the environment, and the environment over the file.

        ``otherwise`` are defaults for what nobody says, instead of those here.

        Raises BadSetting; tomllib.TOMLDecodeError for a file that makes no sense.
        """
        said = {**(otherwise or {}), **config.read(cls, Path(table_names.FILE), os.environ, given)}
        if "oidc_providers" in said:
            said["oidc_providers"] = _filled_in(said["oidc_providers"])
        return cls(**config.convert(cls, said))

    @property
    def base_url(self) -> str:
        """Where others reach this server, without a slash at the end."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def quote_lasts(self) -> timedelta:
        """How long a checkout's price holds."""
        return timedelta(minutes=self.quote_minutes)

    @property
    def claim_lasts(self) -> timedelta:
        """How long a purchase's private link shows its key."""
        return timedelta(days=self.claim_days)

    @property
    def archived_after(self) -> timedelta:
        """How old a payment is when it is moved to the archive."""
        return _span(self.archival_retention)

    @property
    def archived_every(self) -> timedelta:
        """How often old payments are moved."""
        return _span(self.archival_interval)


def _filled_in(providers: Any) -> Any:
    """Providers that everybody knows need no address of theirs."""
    if not isinstance(providers, dict):
        return providers
    for name in providers:
        if not _PROVIDER_NAME.fullmatch(name) or name in _ADDRESS_SOURCES:
            raise BadSetting("oidc_providers", "a provider's name has up to 40 lower-case letters, digits and hyphens")
    return {
        name: {**_BUILT_IN.get(name, {}), **given} if isinstance(given, dict) else given
        for name, given in providers.items()
    }


def _is_sender(text: str) -> bool:
    try:
        ((_, address),) = getaddresses([text])
        return normalize_email("mail_from", address).isascii() and text.isprintable()
    except (ValueError, Invalid):
        return False


def _span(text: str) -> timedelta:
    return timedelta(**{"hours" if text[-1] == "h" else "days": int(text[:-1])})


def is_safe_url(url: str, *, loopback: bool = True) -> bool:
    """Whether secrets may be sent there: an https address, or with ``loopback`` a plain one on this machine.

    Without a user's name, a fragment, or anything that is not plain text.
    """
    if not re.fullmatch(r"https?://[!$-;=?-\[\]_a-z~]+", url):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc:
        return False
    return parts.scheme == "https" or (loopback and _is_this_machine(host))


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
