"""First tables."""

import sqlalchemy as sa

from counterfoil.db import revising as op
from counterfoil.db.schema import JSON, Timestamp

revision = "0001_first_tables"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:  # noqa: PLR0915 # as many as there are tables and indexes
    op.create_table(
        "tenants",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("hosts", JSON, nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("status IN ('active', 'suspended')", name=op.f("ck_tenants_status")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_tenants")),
    )
    op.create_index("uq_tenants_slug", "tenants", ["slug"], unique=True)
    op.create_table(
        "api_keys",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("scopes", JSON, nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=True),
        sa.Column("last_used_at", Timestamp(), nullable=True),
        sa.Column("revoked_at", Timestamp(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_api_keys_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_api_keys")),
    )
    op.create_index("ix_api_keys_secret_hash", "api_keys", ["secret_hash"])
    op.create_index("uq_api_keys_secret_hash", "api_keys", ["tenant_id", "secret_hash"], unique=True)
    op.create_table(
        "carts",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("subtotal", sa.BigInteger(), nullable=False),
        sa.Column("discount_total", sa.BigInteger(), nullable=False),
        sa.Column("tax_total", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("country", sa.Text(), nullable=True),
        sa.Column("expires_at", Timestamp(), nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.CheckConstraint("total = subtotal - discount_total + tax_total AND total >= 0", name=op.f("ck_carts_total")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_carts_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_carts")),
    )
    op.create_table(
        "discounts",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=True),
        sa.Column("product_ids", JSON, nullable=False),
        sa.Column("tiers", JSON, nullable=False),
        sa.Column("usage_limit", sa.BigInteger(), nullable=True),
        sa.Column("times_used", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", Timestamp(), nullable=True),
        sa.Column("expires_at", Timestamp(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("(kind IN ('flat', 'set_price')) = (asset IS NOT NULL)", name=op.f("ck_discounts_asset")),
        sa.CheckConstraint(
            "amount >= 0 AND (kind <> 'percentage' OR amount <= 10000)", name=op.f("ck_discounts_amount")
        ),
        sa.CheckConstraint("kind IN ('percentage', 'flat', 'set_price', 'free')", name=op.f("ck_discounts_kind")),
        sa.CheckConstraint("status IN ('active', 'archived')", name=op.f("ck_discounts_status")),
        sa.CheckConstraint(
            "times_used >= 0 AND (usage_limit IS NULL OR times_used <= usage_limit)",
            name=op.f("ck_discounts_times_used"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_discounts_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_discounts")),
    )
    op.create_index(
        "uq_discounts_code",
        "discounts",
        ["tenant_id", "code"],
        unique=True,
        sqlite_where=sa.text("code IS NOT NULL"),
        postgresql_where=sa.text("code IS NOT NULL"),
    )
    op.create_table(
        "events",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("object_kind", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=True),
        sa.Column("asset", sa.Text(), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.Column("details", JSON, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_events_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_object", "events", ["tenant_id", "object_id", "id"])
    op.create_index("ix_events_type", "events", ["tenant_id", "type", "id"])
    op.create_table(
        "inbox",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("occurred_at", Timestamp(), nullable=False),
        sa.Column("applied_at", Timestamp(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_inbox_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_inbox")),
    )
    op.create_index("ix_inbox_reference", "inbox", ["tenant_id", "rail", "reference"])
    op.create_index("uq_inbox_event", "inbox", ["tenant_id", "rail", "event_id"], unique=True)
    op.create_table(
        "jobs",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("due_at", Timestamp(), nullable=False),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("claimed_until", Timestamp(), nullable=True),
        sa.Column("finished_at", Timestamp(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_jobs_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_jobs")),
    )
    op.create_table(
        "one_time_tokens",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("details", JSON, nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=False),
        sa.Column("used_at", Timestamp(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_one_time_tokens_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_one_time_tokens")),
    )
    op.create_index("uq_one_time_tokens_token_hash", "one_time_tokens", ["tenant_id", "token_hash"], unique=True)
    op.create_table(
        "products",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("image_url", sa.Text(), nullable=True),
        sa.Column("tax_category", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("status IN ('active', 'archived')", name=op.f("ck_products_status")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_products_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_products")),
    )
    op.create_index("ix_products_status", "products", ["tenant_id", "status", "id"])
    op.create_index("uq_products_slug", "products", ["tenant_id", "slug"], unique=True)
    op.create_table(
        "rail_settings",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("public", JSON, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("status IN ('active', 'disconnected')", name=op.f("ck_rail_settings_status")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_rail_settings_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_rail_settings")),
    )
    op.create_index("uq_rail_settings_rail", "rail_settings", ["tenant_id", "rail"], unique=True)
    op.create_table(
        "signing_keys",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("private_key_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("algorithm IN ('ed25519')", name=op.f("ck_signing_keys_algorithm")),
        sa.CheckConstraint("status IN ('active', 'verify_only', 'retired')", name=op.f("ck_signing_keys_status")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_signing_keys_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_signing_keys")),
    )
    op.create_index(
        "uq_signing_keys_active",
        "signing_keys",
        ["tenant_id"],
        unique=True,
        sqlite_where=sa.text("status = 'active'"),
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_table(
        "validation_log",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("license_id", sa.Text(), nullable=True),
        sa.Column("product_id", sa.Text(), nullable=True),
        sa.Column("machine_id", sa.Text(), nullable=True),
        sa.Column("fingerprint_hash", sa.Text(), nullable=True),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_validation_log_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_validation_log")),
    )
    op.create_index(
        "ix_validation_log_license",
        "validation_log",
        ["tenant_id", "license_id", "id"],
        sqlite_where=sa.text("license_id IS NOT NULL"),
        postgresql_where=sa.text("license_id IS NOT NULL"),
    )
    op.create_table(
        "benefits",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("kind IN ('license')", name=op.f("ck_benefits_kind")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "product_id"],
            ["products.tenant_id", "products.id"],
            name=op.f("fk_benefits_tenant_id_product_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_benefits_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_benefits")),
    )
    op.create_index("uq_benefits_product", "benefits", ["tenant_id", "product_id", "tier", "kind"], unique=True)
    op.create_table(
        "checkouts",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("cart_id", sa.Text(), nullable=False),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("rail_reference", sa.Text(), nullable=True),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("paid", sa.BigInteger(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("return_url", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_hash", sa.Text(), nullable=True),
        sa.Column("rail_final", sa.Boolean(), nullable=False),
        sa.Column("checked_at", Timestamp(), nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=False),
        sa.Column("settled_at", Timestamp(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("(status = 'settled') = (settled_at IS NOT NULL)", name=op.f("ck_checkouts_settled")),
        sa.CheckConstraint(
            "status IN ('open', 'processing', 'settled', 'expired', 'failed')", name=op.f("ck_checkouts_status")
        ),
        sa.CheckConstraint("amount >= 0 AND paid >= 0", name=op.f("ck_checkouts_amount")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "cart_id"], ["carts.tenant_id", "carts.id"], name=op.f("fk_checkouts_tenant_id_cart_id")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_checkouts_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_checkouts")),
    )
    op.create_index(
        "ix_checkouts_due",
        "checkouts",
        ["tenant_id", "expires_at"],
        sqlite_where=sa.text("status = 'open'"),
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_index("ix_checkouts_status", "checkouts", ["tenant_id", "status", "id"])
    op.create_index(
        "ix_checkouts_unsettled",
        "checkouts",
        ["tenant_id", "rail", "checked_at"],
        sqlite_where=sa.text("NOT rail_final"),
        postgresql_where=sa.text("NOT rail_final"),
    )
    op.create_index(
        "uq_checkouts_idempotency_key",
        "checkouts",
        ["tenant_id", "idempotency_key"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "uq_checkouts_rail_reference",
        "checkouts",
        ["tenant_id", "rail", "rail_reference"],
        unique=True,
        sqlite_where=sa.text("rail_reference IS NOT NULL"),
        postgresql_where=sa.text("rail_reference IS NOT NULL"),
    )
    op.create_table(
        "discount_redemptions",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("discount_id", sa.Text(), nullable=False),
        sa.Column("checkout_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint(
            "status IN ('reserved', 'redeemed', 'released')", name=op.f("ck_discount_redemptions_status")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "discount_id"],
            ["discounts.tenant_id", "discounts.id"],
            name=op.f("fk_discount_redemptions_tenant_id_discount_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_discount_redemptions_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_discount_redemptions")),
    )
    op.create_index("ix_discount_redemptions_discount", "discount_redemptions", ["tenant_id", "discount_id", "id"])
    op.create_index(
        "uq_discount_redemptions_checkout",
        "discount_redemptions",
        ["tenant_id", "checkout_id", "discount_id"],
        unique=True,
    )
    op.create_table(
        "prices",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("unit_amount", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("interval", sa.Text(), nullable=True),
        sa.Column("interval_count", sa.BigInteger(), nullable=True),
        sa.Column("trial_days", sa.BigInteger(), nullable=False),
        sa.Column("country_overrides", JSON, nullable=False),
        sa.Column("quantity_min", sa.BigInteger(), nullable=False),
        sa.Column("quantity_max", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("locked_at", Timestamp(), nullable=True),
        sa.Column("replaces", sa.Text(), nullable=True),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint(
            "(type = 'one_time' AND interval IS NULL AND interval_count IS NULL) OR "
            "(type = 'recurring' AND interval IN ('day', 'week', 'month', 'year') AND interval_count >= 1)",
            name=op.f("ck_prices_interval"),
        ),
        sa.CheckConstraint("status IN ('active', 'archived')", name=op.f("ck_prices_status")),
        sa.CheckConstraint("type IN ('one_time', 'recurring')", name=op.f("ck_prices_type")),
        sa.CheckConstraint("quantity_min >= 1 AND quantity_max >= quantity_min", name=op.f("ck_prices_quantity")),
        sa.CheckConstraint("unit_amount >= 0", name=op.f("ck_prices_unit_amount")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "product_id"],
            ["products.tenant_id", "products.id"],
            name=op.f("fk_prices_tenant_id_product_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_prices_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_prices")),
    )
    op.create_index("ix_prices_product", "prices", ["tenant_id", "product_id", "status", "id"])
    op.create_table(
        "cart_lines",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("cart_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("price_id", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("unit_amount", sa.BigInteger(), nullable=False),
        sa.Column("subtotal", sa.BigInteger(), nullable=False),
        sa.Column("discount_total", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("discounts", JSON, nullable=False),
        sa.Column("benefits", JSON, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.CheckConstraint("quantity >= 1", name=op.f("ck_cart_lines_quantity")),
        sa.CheckConstraint(
            "subtotal = unit_amount * quantity AND total = subtotal - discount_total AND total >= 0",
            name=op.f("ck_cart_lines_total"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "cart_id"], ["carts.tenant_id", "carts.id"], name=op.f("fk_cart_lines_tenant_id_cart_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "price_id"], ["prices.tenant_id", "prices.id"], name=op.f("fk_cart_lines_tenant_id_price_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "product_id"],
            ["products.tenant_id", "products.id"],
            name=op.f("fk_cart_lines_tenant_id_product_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_cart_lines_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_cart_lines")),
    )
    op.create_index("uq_cart_lines_position", "cart_lines", ["tenant_id", "cart_id", "position"], unique=True)
    op.create_table(
        "orders",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("purchase_reference", sa.Text(), nullable=False),
        sa.Column("checkout_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("items", JSON, nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("discount_total", sa.BigInteger(), nullable=False),
        sa.Column("tax_total", sa.BigInteger(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("status IN ('paid')", name=op.f("ck_orders_status")),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_orders_amount")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "checkout_id"],
            ["checkouts.tenant_id", "checkouts.id"],
            name=op.f("fk_orders_tenant_id_checkout_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_orders_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_orders")),
    )
    op.create_index(
        "ix_orders_email",
        "orders",
        ["tenant_id", "email", "id"],
        sqlite_where=sa.text("email IS NOT NULL"),
        postgresql_where=sa.text("email IS NOT NULL"),
    )
    op.create_index("uq_orders_checkout", "orders", ["tenant_id", "checkout_id"], unique=True)
    op.create_index("uq_orders_purchase", "orders", ["tenant_id", "source", "purchase_reference"], unique=True)
    op.create_table(
        "payments",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("checkout_id", sa.Text(), nullable=True),
        sa.Column("payer", sa.Text(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("details", JSON, nullable=False),
        sa.Column("occurred_at", Timestamp(), nullable=False),
        sa.Column("resolved_at", Timestamp(), nullable=True),
        sa.Column("resolution", sa.Text(), nullable=True),
        sa.Column("resolution_note", sa.Text(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("resolution IN ('accepted', 'dismissed')", name=op.f("ck_payments_resolution")),
        sa.CheckConstraint(
            "status IN ('settled', 'underpaid', 'overpaid', 'late', 'unmatched')", name=op.f("ck_payments_status")
        ),
        sa.CheckConstraint("(resolution IS NULL) = (resolved_at IS NULL)", name=op.f("ck_payments_resolved")),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_payments_amount")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "checkout_id"],
            ["checkouts.tenant_id", "checkouts.id"],
            name=op.f("fk_payments_tenant_id_checkout_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_payments_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_payments")),
    )
    op.create_index(
        "ix_payments_attention",
        "payments",
        ["tenant_id", "id"],
        sqlite_where=sa.text("resolved_at IS NULL AND status <> 'settled'"),
        postgresql_where=sa.text("resolved_at IS NULL AND status <> 'settled'"),
    )
    op.create_index("ix_payments_checkout", "payments", ["tenant_id", "checkout_id"])
    op.create_index("uq_payments_reference", "payments", ["tenant_id", "rail", "reference"], unique=True)
    op.create_table(
        "grants",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("unit", sa.BigInteger(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("starts_at", Timestamp(), nullable=False),
        sa.Column("ends_at", Timestamp(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("kind IN ('license')", name=op.f("ck_grants_kind")),
        sa.CheckConstraint("status IN ('active', 'suspended', 'revoked', 'expired')", name=op.f("ck_grants_status")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "order_id"], ["orders.tenant_id", "orders.id"], name=op.f("fk_grants_tenant_id_order_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "product_id"],
            ["products.tenant_id", "products.id"],
            name=op.f("fk_grants_tenant_id_product_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_grants_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_grants")),
    )
    op.create_index("ix_grants_object", "grants", ["tenant_id", "object_id"])
    op.create_index("uq_grants_order_line", "grants", ["tenant_id", "order_id", "line", "unit", "kind"], unique=True)
    op.create_table(
        "licenses",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("line", sa.BigInteger(), nullable=True),
        sa.Column("unit", sa.BigInteger(), nullable=True),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("issued_at", Timestamp(), nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=True),
        sa.Column("grace_seconds", sa.BigInteger(), nullable=False),
        sa.Column("max_machines", sa.BigInteger(), nullable=False),
        sa.Column("machine_count", sa.BigInteger(), nullable=False),
        sa.Column("is_trial", sa.Boolean(), nullable=False),
        sa.Column("entitlements", JSON, nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("signing_key_id", sa.Text(), nullable=False),
        sa.Column("suspended_at", Timestamp(), nullable=True),
        sa.Column("suspension_reason", sa.Text(), nullable=True),
        sa.Column("revoked_at", Timestamp(), nullable=True),
        sa.Column("revocation_reason", sa.Text(), nullable=True),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("status IN ('active', 'suspended', 'revoked')", name=op.f("ck_licenses_status")),
        sa.CheckConstraint(
            "machine_count >= 0 AND (max_machines = 0 OR machine_count <= max_machines)",
            name=op.f("ck_licenses_machine_cap"),
        ),
        sa.CheckConstraint("max_machines >= 0 AND grace_seconds >= 0", name=op.f("ck_licenses_limits")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "order_id"], ["orders.tenant_id", "orders.id"], name=op.f("fk_licenses_tenant_id_order_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "product_id"],
            ["products.tenant_id", "products.id"],
            name=op.f("fk_licenses_tenant_id_product_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "signing_key_id"],
            ["signing_keys.tenant_id", "signing_keys.id"],
            name=op.f("fk_licenses_tenant_id_signing_key_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_licenses_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_licenses")),
    )
    op.create_index(
        "ix_licenses_email",
        "licenses",
        ["tenant_id", "email", "id"],
        sqlite_where=sa.text("email IS NOT NULL"),
        postgresql_where=sa.text("email IS NOT NULL"),
    )
    op.create_index("ix_licenses_product", "licenses", ["tenant_id", "product_id", "id"])
    op.create_index(
        "uq_licenses_order_line",
        "licenses",
        ["tenant_id", "order_id", "line", "unit"],
        unique=True,
        sqlite_where=sa.text("order_id IS NOT NULL"),
        postgresql_where=sa.text("order_id IS NOT NULL"),
    )
    op.create_table(
        "machines",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("license_id", sa.Text(), nullable=False),
        sa.Column("fingerprint_hash", sa.Text(), nullable=False),
        sa.Column("hostname", sa.Text(), nullable=True),
        sa.Column("platform", sa.Text(), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("last_heartbeat_at", Timestamp(), nullable=False),
        sa.Column("deactivated_at", Timestamp(), nullable=True),
        sa.Column("deactivation_reason", sa.Text(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "license_id"],
            ["licenses.tenant_id", "licenses.id"],
            name=op.f("fk_machines_tenant_id_license_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_machines_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_machines")),
    )
    op.create_index("ix_machines_license", "machines", ["tenant_id", "license_id", "id"])
    op.create_index(
        "uq_machines_active",
        "machines",
        ["tenant_id", "license_id", "fingerprint_hash"],
        unique=True,
        sqlite_where=sa.text("deactivated_at IS NULL"),
        postgresql_where=sa.text("deactivated_at IS NULL"),
    )
