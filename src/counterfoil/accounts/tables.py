"""Tenants and credentials."""

import sqlalchemy as sa

from counterfoil.db.schema import json, moment, one_of, table, text, unique

tenants = table(
    "tenants",
    text("name"),
    text("slug"),
    json("hosts"),
    json("settings"),
    text("status"),
    sa.Index("uq_tenants_slug", "slug", unique=True),
    one_of("status", "active", "suspended"),
    key=(),
)

api_keys = table(
    "api_keys",
    text("id"),
    text("name"),
    text("secret_hash"),
    json("scopes"),
    moment("expires_at", null=True),
    moment("last_used_at", null=True),
    moment("revoked_at", null=True),
    # A key arrives before its tenant is known, so this one look-up crosses tenants.
    sa.Index("ix_api_keys_secret_hash", "secret_hash"),
    unique("uq_api_keys_secret_hash", "secret_hash"),
)

one_time_tokens = table(
    "one_time_tokens",
    text("id"),
    text("purpose"),
    text("token_hash"),
    json("details"),
    moment("expires_at"),
    moment("used_at", null=True),
    unique("uq_one_time_tokens_token_hash", "token_hash"),
    updated=False,
)
