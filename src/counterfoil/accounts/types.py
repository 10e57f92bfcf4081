"""Tenants, people, customers and credentials outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

DEFAULT_TENANT = "ten_00000000000000000000000000"
"""The tenant every installation starts with."""

UserRole = Literal["owner", "member"]
UserStatus = Literal["active", "disabled"]
EmailType = Literal["marketing", "product_updates", "payment_receipts"]
SessionMethod = Literal["password", "passkey", "recovery_code", "oidc", "link"]
CustomerKind = Literal["person", "organization"]
CustomerStatus = Literal["active", "archived"]
InvitationStatus = Literal["pending", "accepted", "revoked"]


class Tenant(msgspec.Struct, frozen=True):
    """One seller on this installation."""

    name: str
    slug: str
    hosts: list[str]
    settings: dict[str, Any]
    status: Literal["active", "suspended"]
    created_at: datetime
    updated_at: datetime


# -- people -------------------------------------------------------------------------------------------


class User(msgspec.Struct, frozen=True):
    """A human who can sign in. ``role`` is the system role: an owner may do everything in the tenant."""

    id: str
    username: str | None
    first_name: str
    last_name: str
    avatar_url: str | None
    password_hash: str | None
    """Argon2id; None for who signs in otherwise."""
    role: UserRole
    status: UserStatus
    deleted_at: datetime | None
    created_at: datetime
    updated_at: datetime


class UserEmail(msgspec.Struct, frozen=True):
    """An address of a user, in lower case. Several users may claim one; only one can have verified it."""

    id: str
    user_id: str
    email: str
    is_primary: bool
    verified_at: datetime | None
    via: str
    """How it came: ``email:password``, ``invitation``, ``enrollment``, or a provider's name."""
    created_at: datetime
    updated_at: datetime


class EmailPreference(msgspec.Struct, frozen=True):
    """Whether a user wants mail of one type; a missing row means yes."""

    id: str
    user_id: str
    email_type: EmailType
    subscribed: bool
    created_at: datetime
    updated_at: datetime


class Session(msgspec.Struct, frozen=True):
    """A signed-in browser. The token itself is in its cookie and never stored."""

    id: str
    user_id: str
    token_hash: str
    method: SessionMethod
    address: str | None
    user_agent: str | None
    passkey_at: datetime | None
    """When a passkey was last shown in it."""
    last_seen_at: datetime
    """To a few minutes."""
    expires_at: datetime
    """At the latest, however busy it is."""
    revoked_at: datetime | None
    created_at: datetime


class Passkey(msgspec.Struct, frozen=True):
    """A WebAuthn credential of a user."""

    id: str
    user_id: str
    credential_id: str
    """In URL-safe base 64 without padding."""
    public_key: bytes
    """COSE."""
    sign_count: int
    name: str
    transports: list[str]
    aaguid: str
    backed_up: bool
    last_used_at: datetime | None
    created_at: datetime


class ProviderIdentity(msgspec.Struct, frozen=True):
    """A user as an OpenID Connect provider knows them."""

    id: str
    user_id: str
    provider: str
    subject: str
    email: str | None
    created_at: datetime


# -- customers ----------------------------------------------------------------------------------------


class Customer(msgspec.Struct, frozen=True):
    """Whoever buys: a person or an organization. Level 1 is an MSP, 2 an end customer, 3 a department."""

    id: str
    kind: CustomerKind
    parent_id: str | None
    level: int
    path: str
    """The ids from the top to this one, each with a slash behind it."""
    name: str
    slug: str | None
    email: str | None
    logo_url: str | None
    locale: str
    time_zone: str
    status: CustomerStatus
    owner_user_id: str | None
    is_default: bool
    """Whether it is the one its owner's purchases go to."""
    marketing_consent: bool
    internal_notes: str
    """For staff only."""
    import_meta: dict[str, Any] | None
    metadata: dict[str, Any]
    deleted_at: datetime | None
    created_at: datetime
    updated_at: datetime


class Address(msgspec.Struct, frozen=True):
    """Where a customer is; ``country_code`` is ISO 3166-1 alpha-2."""

    id: str
    customer_id: str
    description: str
    first_line: str
    second_line: str
    city: str
    region: str
    country_code: str
    zip_code: str
    status: CustomerStatus
    created_at: datetime
    updated_at: datetime


class Business(msgspec.Struct, frozen=True):
    """A customer as a company: what an invoice must say."""

    id: str
    customer_id: str
    name: str
    company_number: str | None
    tax_identifier: str | None
    """The VAT number, say."""
    contacts: list[dict[str, Any]]
    """Each with ``name`` and ``email``."""
    status: CustomerStatus
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


# -- who may do what ----------------------------------------------------------------------------------


class Role(msgspec.Struct, frozen=True):
    """A named set of permissions. The built-in ones cannot be changed."""

    id: str
    name: str
    permissions: list[str]
    description: str
    built_in: bool
    created_at: datetime
    updated_at: datetime


class RoleAssignment(msgspec.Struct, frozen=True):
    """A role a user has at a customer and all below it, or, without one, in the tenant itself: staff."""

    id: str
    user_id: str
    customer_id: str | None
    role_id: str
    granted_by: str | None
    """Who granted it: a user's or a key's id, or None for the system."""
    created_at: datetime


class Invitation(msgspec.Struct, frozen=True):
    """A member to be. The token went by e-mail and only its hash is kept."""

    id: str
    customer_id: str
    email: str
    role_id: str
    token_hash: str
    status: InvitationStatus
    credit_limit: int
    """Of the customer's credits; -1 = no limit."""
    invited_by: str | None
    accepted_by: str | None
    expires_at: datetime
    created_at: datetime
    updated_at: datetime


# -- credentials --------------------------------------------------------------------------------------


class ApiKey(msgspec.Struct, frozen=True):
    """A program's credential. The secret itself is shown once and never stored."""

    id: str
    name: str
    secret_hash: str
    role: str | None
    """The named set its scopes came from, if one."""
    scopes: list[str]
    customer_id: str | None
    """The customer it is limited to, with all below; None = the whole tenant."""
    expires_at: datetime | None
    last_used_at: datetime | None
    """To a few minutes."""
    revoked_at: datetime | None
    created_at: datetime
    updated_at: datetime


class OneTimeToken(msgspec.Struct, frozen=True):
    """A secret good for one purpose, once, for a while."""

    id: str
    purpose: str
    token_hash: str
    user_id: str | None
    details: dict[str, Any]
    expires_at: datetime
    used_at: datetime | None
    created_at: datetime


class Nonce(msgspec.Struct, frozen=True):
    """Permission for one admin action, once, within five minutes, for whoever asked for it."""

    id: str
    purpose: str
    nonce_hash: str
    issued_to: str
    expires_at: datetime
    consumed_at: datetime | None
    created_at: datetime
