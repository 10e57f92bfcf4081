"""Settings: from the environment (``COUNTERFOIL_...``), else ``counterfoil.toml``, else the defaults here."""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from email.utils import getaddresses
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from counterfoil import table_names
from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.text import normalize_email

GOOGLE = "google"
_BUILT_IN = {GOOGLE: {"issuer": "https://accounts.google.com", "label": "Google"}}
_PROVIDER_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_SPAN = re.compile(r"[0-9]{1,6}[hd]")
_ADDRESS_SOURCES = {"enrollment", "invitation"}
"""How an address can come that no provider proved (``UserEmail.via``): no provider may go by such a name."""


class OidcProvider(BaseModel):
    """An OpenID Connect provider to sign in with, as it knows this installation."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    issuer: str = Field(max_length=1000)
    """Its address, exactly as its discovery document says it."""
    client_id: str = Field(min_length=1, max_length=500)
    client_secret: SecretStr = Field(min_length=1, max_length=1000)
    label: str = Field(default="", max_length=60)
    """What people know it by; its name when left out."""
    scopes: list[str] = ["openid", "email", "profile"]

    @field_validator("issuer")
    @classmethod
    def _need_a_safe_address(cls, value: str) -> str:
        if "?" in value or not is_safe_url(value):
            raise ValueError("must be an https address without a query; plain http only on this machine")
        return value

    @field_validator("scopes")
    @classmethod
    def _need_openid(cls, value: list[str]) -> list[str]:
        if "openid" not in value or not all(re.fullmatch(r"[!#-\[\]-~]{1,200}", scope) for scope in value):
            raise ValueError("must name openid, and each scope without blanks")
        return value

    @field_validator("client_id", "label")
    @classmethod
    def _need_visible_text(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("must not contain control characters")
        return value


class Settings(BaseSettings):
    """How this installation runs. Every field is an environment variable with the prefix ``COUNTERFOIL_``."""

    model_config = SettingsConfigDict(
        env_prefix="COUNTERFOIL_",
        env_nested_delimiter="__",
        toml_file=table_names.FILE,
        extra="forbid",
        hide_input_in_errors=True,
    )

    database_url: str = "sqlite:///var/counterfoil.db"
    """``sqlite:///path/to/file`` or ``postgresql://user@host/name``."""
    host: str = "127.0.0.1"
    port: int = Field(default=8787, ge=0, le=65535)
    public_url: str | None = None
    """Where buyers and rails reach this server; the address it listens on when left out."""
    master_key: SecretStr | None = None
    """32 bytes in base 64; read from ``master_key_file`` when left out."""
    master_key_file: Path = Path("var/master.key")
    """Made on the first start, readable by its owner only. Back it up apart from the database."""
    sandbox: bool = False
    """Whether the sandbox rail exists: anybody can then "pay" without money."""
    jobs: bool = True
    """Whether ``serve`` also runs the jobs; False where ``counterfoil worker`` runs beside it."""
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    quote_minutes: int = Field(default=15, ge=1, le=60 * 24 * 30)
    """How long a checkout's price holds."""
    claim_days: int = Field(default=30, ge=1, le=3650)
    """How long after a purchase its private link still shows the license key."""
    validation_log_days: int = Field(default=400, ge=1)
    """How long the log of validations is kept."""
    validations_per_minute: int = Field(default=600, ge=0)
    """For one client address, over all license routes; 0 = no limit."""
    heartbeats_per_hour: int = Field(default=60, ge=0)
    """For one machine; 0 = no limit."""
    session_days: int = Field(default=30, ge=1, le=400)
    """How long somebody stays signed in at the longest."""
    session_idle_hours: int = Field(default=24 * 7, ge=1)
    """How long somebody stays signed in without doing anything."""
    passkey_hours: int = Field(default=12, ge=1)
    """How long after a passkey was shown its session may do what staff may."""
    sign_ins_per_minute: int = Field(default=30, ge=0)
    """For one client address: passwords, codes and letters asked for; 0 = no limit."""
    mail_transport: Literal["mailbox", "smtp"] = "mailbox"
    """Where letters go: into a folder, to be looked at, or to a mail server."""
    mail_folder: Path = Path("var/mail")
    """The folder of ``mailbox``: two files a letter, ``.eml`` and ``.html``."""
    mail_from: str = "Shop <no-reply@localhost>"
    """Whom letters are from: an address, with a name or without."""
    smtp_host: str | None = None
    """The mail server; ``smtp`` needs one."""
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_username: str | None = None
    """Signs in to the mail server, with ``smtp_password``; nobody does when both are left out."""
    smtp_password: SecretStr | None = None
    smtp_tls: Literal["starttls", "implicit", "none"] = "starttls"
    """How the connection to the mail server is encrypted; ``none`` only to this machine itself."""
    oidc_providers: dict[str, OidcProvider] = {}
    """OpenID Connect providers to sign in with, by name; ``google`` needs no issuer and no label."""
    storage: dict[str, Any] = Field(default={}, validate_default=True)
    """``storage.schema_mapping.<table>.table_name``: what a table is called in the database."""
    webhooks_allow_loopback: bool = False
    """Whether webhooks may go to this machine itself, and there without encryption: for development."""
    webhooks_per_endpoint: int = Field(default=2, ge=1, le=20)
    """How many requests to one webhook endpoint may be under way at once, in each process."""
    webhook_timeout_seconds: float = Field(default=15.0, ge=0.1, le=30)
    """How long a webhook's receiver may take to answer."""
    webhook_log_days: int = Field(default=30, ge=1)
    """How long webhooks are kept that were taken; those that failed, 90 days at least."""
    archival_enabled: bool = False
    """Whether old payments are moved to the archive, where their references stay taken for ever."""
    archival_retention: str = "2160h"
    """How old a payment is then: hours (``2160h``) or days (``90d``)."""
    archival_interval: str = "24h"
    """How often that is looked at, in the same form."""
    trusted_proxies: list[str] = []
    """Networks (``10.0.0.0/8``) whose ``X-Forwarded-For`` is believed. Nobody else's is."""

    @model_validator(mode="after")
    def _need_an_address(self) -> Settings:
        if self.public_url is None and self.host in {"0.0.0.0", "::"}:  # noqa: S104 # compared, not bound
            raise ValueError("listening on every address needs COUNTERFOIL_PUBLIC_URL, the one to hand out")
        return self

    @field_validator("oidc_providers", mode="before")
    @classmethod
    def _fill_in_what_is_known(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for name in value:
            if not _PROVIDER_NAME.fullmatch(name) or name in _ADDRESS_SOURCES:
                raise ValueError("a provider's name has up to 40 lower-case letters, digits and hyphens")
        return {
            name: {**_BUILT_IN.get(name, {}), **given} if isinstance(given, dict) else given
            for name, given in value.items()
        }

    @field_validator("storage")
    @classmethod
    def _need_what_was_read(cls, value: dict[str, Any]) -> dict[str, Any]:
        if table_names.resolve(value) != table_names.NAMES:
            raise ValueError(
                f"names of tables are read when the program starts: from {table_names.FILE}, or one by one from "
                "COUNTERFOIL_STORAGE__SCHEMA_MAPPING__<TABLE>__TABLE_NAME"
            )
        return value

    @field_validator("archival_retention", "archival_interval")
    @classmethod
    def _need_a_span(cls, value: str) -> str:
        if not _SPAN.fullmatch(value) or not timedelta(hours=1) <= _span(value) <= timedelta(days=36_500):
            raise ValueError("must be hours (2160h) or days (90d), at least 1h")
        return value

    @field_validator("mail_from")
    @classmethod
    def _need_a_sender(cls, value: str) -> str:
        try:
            ((_, address),) = getaddresses([value])
            good = normalize_email("mail_from", address).isascii() and value.isprintable()
        except (ValueError, Invalid):
            good = False
        if not good:
            raise ValueError("must be one address, such as: Shop <no-reply@example.com>")
        return value

    @model_validator(mode="after")
    def _need_a_mail_server(self) -> Settings:
        if self.mail_transport == "smtp" and not self.smtp_host:
            raise ValueError("COUNTERFOIL_MAIL_TRANSPORT=smtp needs COUNTERFOIL_SMTP_HOST")
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("COUNTERFOIL_SMTP_USERNAME and COUNTERFOIL_SMTP_PASSWORD go together")
        if self.smtp_tls == "none" and self.smtp_host and not _is_this_machine(self.smtp_host):
            raise ValueError("COUNTERFOIL_SMTP_TLS=none is for a mail server on this machine only")
        return self

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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, and the environment over the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


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
