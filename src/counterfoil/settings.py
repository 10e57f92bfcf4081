"""Settings: from the environment (``COUNTERFOIL_...``), else ``counterfoil.toml``, else the defaults here."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


class Settings(BaseSettings):
    """How this installation runs. Every field is an environment variable with the prefix ``COUNTERFOIL_``."""

    model_config = SettingsConfigDict(env_prefix="COUNTERFOIL_", toml_file="counterfoil.toml", extra="forbid")

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
    trusted_proxies: list[str] = []
    """Networks (``10.0.0.0/8``) whose ``X-Forwarded-For`` is believed. Nobody else's is."""

    @model_validator(mode="after")
    def _need_an_address(self) -> Settings:
        if self.public_url is None and self.host in {"0.0.0.0", "::"}:  # noqa: S104 # compared, not bound
            raise ValueError("listening on every address needs COUNTERFOIL_PUBLIC_URL, the one to hand out")
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
