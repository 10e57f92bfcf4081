"""Tenants, the people and programs that act for them, and their customers."""

import sqlalchemy as sa

from counterfoil.db.schema import (
    binary,
    boolean,
    check,
    index,
    integer,
    json,
    moment,
    one_of,
    path,
    reference,
    table,
    text,
    unique,
)

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

# -- people -------------------------------------------------------------------------------------------

users = table(
    "users",
    text("id"),
    text("username", null=True),
    text("first_name"),
    text("last_name"),
    text("avatar_url", null=True),
    text("password_hash", null=True),
    text("role"),
    text("status"),
    moment("deleted_at", null=True),
    unique("uq_users_username", "username", where="username IS NOT NULL"),
    one_of("role", "owner", "member"),
    one_of("status", "active", "disabled"),
)

user_emails = table(
    "user_emails",
    text("id"),
    text("user_id"),
    text("email"),
    boolean("is_primary"),
    moment("verified_at", null=True),
    text("via"),
    reference("user_id", "users"),
    unique("uq_user_emails_user", "user_id", "email"),
    unique("uq_user_emails_primary", "user_id", where="is_primary"),
    # Anybody may claim an address; only one user may have proved it.
    unique("uq_user_emails_verified", "email", where="verified_at IS NOT NULL"),
    check("primary_verified", "verified_at IS NOT NULL OR NOT is_primary"),
)

email_preferences = table(
    "email_preferences",
    text("id"),
    text("user_id"),
    text("email_type"),
    boolean("subscribed"),
    reference("user_id", "users"),
    unique("uq_email_preferences_user", "user_id", "email_type"),
    one_of("email_type", "marketing", "product_updates", "payment_receipts"),
)

sessions = table(
    "sessions",
    text("id"),
    text("user_id"),
    text("token_hash"),
    text("method"),
    text("address", null=True),
    text("user_agent", null=True),
    moment("passkey_at", null=True),
    moment("last_seen_at"),
    moment("expires_at"),
    moment("revoked_at", null=True),
    reference("user_id", "users"),
    unique("uq_sessions_token_hash", "token_hash"),
    index("ix_sessions_user", "user_id", "id"),
    one_of("method", "password", "passkey", "recovery_code", "oidc", "link"),
    updated=False,
)

passkeys = table(
    "passkeys",
    text("id"),
    text("user_id"),
    text("credential_id"),
    binary("public_key"),
    integer("sign_count"),
    text("name"),
    json("transports"),
    text("aaguid"),
    boolean("backed_up"),
    moment("last_used_at", null=True),
    reference("user_id", "users"),
    unique("uq_passkeys_credential", "credential_id"),
    index("ix_passkeys_user", "user_id", "id"),
    check("sign_count", "sign_count >= 0"),
    updated=False,
)

identities = table(
    "identities",
    text("id"),
    text("user_id"),
    text("provider"),
    text("subject"),
    text("email", null=True),
    reference("user_id", "users"),
    unique("uq_identities_subject", "provider", "subject"),
    index("ix_identities_user", "user_id", "id"),
    updated=False,
)

# -- customers ----------------------------------------------------------------------------------------

customers = table(
    "customers",
    text("id"),
    text("kind"),
    text("parent_id", null=True),
    integer("level"),
    path("path"),
    text("name"),
    text("slug", null=True),
    text("email", null=True),
    text("logo_url", null=True),
    text("locale"),
    text("time_zone"),
    text("status"),
    text("owner_user_id", null=True),
    boolean("is_default"),
    boolean("marketing_consent"),
    text("internal_notes"),
    json("import_meta", null=True),
    json("metadata"),
    moment("deleted_at", null=True),
    reference("parent_id", "customers"),
    reference("owner_user_id", "users"),
    unique("uq_customers_slug", "slug", where="slug IS NOT NULL"),
    unique("uq_customers_path", "path"),
    unique("uq_customers_default", "owner_user_id", where="is_default"),
    index("ix_customers_parent", "parent_id", "id", where="parent_id IS NOT NULL"),
    index("ix_customers_email", "email", "id", where="email IS NOT NULL"),
    one_of("kind", "person", "organization"),
    one_of("status", "active", "archived"),
    check("level", "level BETWEEN 1 AND 3 AND (level < 3 OR parent_id IS NOT NULL)"),
    check("parent", "parent_id IS NULL OR parent_id <> id"),
)

addresses = table(
    "addresses",
    text("id"),
    text("customer_id"),
    text("description"),
    text("first_line"),
    text("second_line"),
    text("city"),
    text("region"),
    text("country_code"),
    text("zip_code"),
    text("status"),
    reference("customer_id", "customers"),
    index("ix_addresses_customer", "customer_id", "id"),
    one_of("status", "active", "archived"),
)

businesses = table(
    "businesses",
    text("id"),
    text("customer_id"),
    text("name"),
    text("company_number", null=True),
    text("tax_identifier", null=True),
    json("contacts"),
    text("status"),
    json("metadata"),
    reference("customer_id", "customers"),
    index("ix_businesses_customer", "customer_id", "id"),
    one_of("status", "active", "archived"),
)

# -- who may do what ----------------------------------------------------------------------------------

roles = table(
    "roles",
    text("id"),
    text("name"),
    json("permissions"),
    text("description"),
    boolean("built_in"),
    unique("uq_roles_name", "name"),
)

role_assignments = table(
    "role_assignments",
    text("id"),
    text("user_id"),
    text("customer_id", null=True),
    text("role_id"),
    text("granted_by", null=True),
    reference("user_id", "users"),
    reference("customer_id", "customers"),
    reference("role_id", "roles"),
    unique("uq_role_assignments_member", "user_id", "customer_id", "role_id", where="customer_id IS NOT NULL"),
    unique("uq_role_assignments_staff", "user_id", "role_id", where="customer_id IS NULL"),
    # Both partial indexes above leave something out; a permission check asks for both kinds at once.
    index("ix_role_assignments_user", "user_id", "customer_id"),
    index("ix_role_assignments_customer", "customer_id", "id"),
    index("ix_role_assignments_role", "role_id"),
    updated=False,
)

invitations = table(
    "invitations",
    text("id"),
    text("customer_id"),
    text("email"),
    text("role_id"),
    text("token_hash"),
    text("status"),
    integer("credit_limit"),
    text("invited_by", null=True),
    text("accepted_by", null=True),
    moment("expires_at"),
    reference("customer_id", "customers"),
    reference("role_id", "roles"),
    reference("accepted_by", "users"),
    unique("uq_invitations_token_hash", "token_hash"),
    unique("uq_invitations_pending", "customer_id", "email", where="status = 'pending'"),
    index("ix_invitations_customer", "customer_id", "id"),
    one_of("status", "pending", "accepted", "revoked"),
    check("credit_limit", "credit_limit >= -1"),
)

# -- credentials --------------------------------------------------------------------------------------

api_keys = table(
    "api_keys",
    text("id"),
    text("name"),
    text("secret_hash"),
    text("role", null=True),
    json("scopes"),
    text("customer_id", null=True),
    moment("expires_at", null=True),
    moment("last_used_at", null=True),
    moment("revoked_at", null=True),
    reference("customer_id", "customers"),
    # A key arrives before its tenant is known, so this one look-up crosses tenants.
    sa.Index("ix_api_keys_secret_hash", "secret_hash"),
    unique("uq_api_keys_secret_hash", "secret_hash"),
    index("ix_api_keys_customer", "customer_id", "id", where="customer_id IS NOT NULL"),
)

one_time_tokens = table(
    "one_time_tokens",
    text("id"),
    text("purpose"),
    text("token_hash"),
    text("user_id", null=True),
    json("details"),
    moment("expires_at"),
    moment("used_at", null=True),
    reference("user_id", "users"),
    unique("uq_one_time_tokens_token_hash", "token_hash"),
    index("ix_one_time_tokens_user", "user_id", "purpose", where="user_id IS NOT NULL"),
    updated=False,
)

nonces = table(
    "nonces",
    text("id"),
    text("purpose"),
    text("nonce_hash"),
    text("issued_to"),
    moment("expires_at"),
    moment("consumed_at", null=True),
    unique("uq_nonces_nonce_hash", "nonce_hash"),
    index("ix_nonces_expires", "expires_at"),
    updated=False,
)
