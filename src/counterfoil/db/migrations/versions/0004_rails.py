"""Rails that keep copies, subscriptions, invoices and disputes."""

import sqlalchemy as sa
from alembic.operations import BatchOperations

from counterfoil.db import revising as op
from counterfoil.db.schema import JSON, Timestamp

revision = "0004_rails"
down_revision = "0003_commerce"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _add_rails()
    _add_subscriptions()
    _add_sales()
    _change_tables()
    _fill_order_discounts()


def _add_rails() -> None:
    op.create_table(
        "outbox",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("payload", JSON, nullable=True),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("pending_since", Timestamp(), nullable=False),
        sa.Column("next_attempt_at", Timestamp(), nullable=True),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("claimed_until", Timestamp(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("done_at", Timestamp(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint(
            "(status IN ('owed', 'in_doubt')) = (next_attempt_at IS NOT NULL)", name=op.f("ck_outbox_open")
        ),
        sa.CheckConstraint("status IN ('owed', 'in_doubt', 'refused', 'done')", name=op.f("ck_outbox_status")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_outbox_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_outbox")),
    )
    op.create_index(
        "ix_outbox_due",
        "outbox",
        ["tenant_id", "rail", "rank", "next_attempt_at"],
        sqlite_where=sa.text("next_attempt_at IS NOT NULL"),
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.create_index("ix_outbox_object", "outbox", ["tenant_id", "kind", "object_id", "id"])
    op.create_index("ix_outbox_status", "outbox", ["tenant_id", "rail", "status", "id"])
    op.create_index(
        "uq_outbox_push",
        "outbox",
        ["tenant_id", "rail", "kind", "object_id"],
        unique=True,
        sqlite_where=sa.text("action = 'push'"),
        postgresql_where=sa.text("action = 'push'"),
    )
    op.create_table(
        "rail_links",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("sync_status", sa.Text(), nullable=False),
        sa.Column("last_synced_at", Timestamp(), nullable=True),
        sa.Column("last_event_at", Timestamp(), nullable=True),
        sa.Column("last_event_id", sa.Text(), nullable=True),
        sa.Column("pending_since", Timestamp(), nullable=True),
        sa.Column("raw", JSON, nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('product', 'price', 'discount', 'customer', 'address', 'business', 'subscription')",
            name=op.f("ck_rail_links_kind"),
        ),
        sa.CheckConstraint(
            "sync_status IN ('pending', 'synced', 'different', 'refused')", name=op.f("ck_rail_links_sync_status")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_rail_links_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_rail_links")),
    )
    op.create_index("ix_rail_links_status", "rail_links", ["tenant_id", "rail", "sync_status", "id"])
    op.create_index("ix_rail_links_synced", "rail_links", ["tenant_id", "rail", "last_synced_at"])
    op.create_index("uq_rail_links_object", "rail_links", ["tenant_id", "rail", "kind", "object_id"], unique=True)
    op.create_index("uq_rail_links_reference", "rail_links", ["tenant_id", "rail", "kind", "reference"], unique=True)


def _add_subscriptions() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("address_id", sa.Text(), nullable=True),
        sa.Column("business_id", sa.Text(), nullable=True),
        sa.Column("vault_l0", sa.Text(), nullable=True),
        sa.Column("wallet", sa.Text(), nullable=True),
        sa.Column("checkout_id", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("customer_reference", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("collection_mode", sa.Text(), nullable=False),
        sa.Column("billing_interval", sa.Text(), nullable=True),
        sa.Column("interval_count", sa.BigInteger(), nullable=True),
        sa.Column("anchor_at", Timestamp(), nullable=True),
        sa.Column("current_period_start", Timestamp(), nullable=True),
        sa.Column("current_period_end", Timestamp(), nullable=True),
        sa.Column("paid_until", Timestamp(), nullable=True),
        sa.Column("trial_end", Timestamp(), nullable=True),
        sa.Column("started_at", Timestamp(), nullable=True),
        sa.Column("first_billed_at", Timestamp(), nullable=True),
        sa.Column("next_billed_at", Timestamp(), nullable=True),
        sa.Column("paused_at", Timestamp(), nullable=True),
        sa.Column("canceled_at", Timestamp(), nullable=True),
        sa.Column("ends_at", Timestamp(), nullable=True),
        sa.Column("cancel_at_period_end", sa.Boolean(), nullable=False),
        sa.Column("scheduled_change", JSON, nullable=True),
        sa.Column("discount_id", sa.Text(), nullable=True),
        sa.Column("billing_details", JSON, nullable=True),
        sa.Column("heard_at", Timestamp(), nullable=True),
        sa.Column("heard", sa.Text(), nullable=True),
        sa.Column("checked_at", Timestamp(), nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("collection_mode IN ('automatic', 'manual')", name=op.f("ck_subscriptions_collection_mode")),
        sa.CheckConstraint(
            "status IN ('incomplete', 'trialing', 'active', 'past_due', 'unpaid', 'paused', 'canceled')",
            name=op.f("ck_subscriptions_status"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "address_id"],
            ["addresses.tenant_id", "addresses.id"],
            name=op.f("fk_subscriptions_tenant_id_address_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "business_id"],
            ["businesses.tenant_id", "businesses.id"],
            name=op.f("fk_subscriptions_tenant_id_business_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "checkout_id"],
            ["checkouts.tenant_id", "checkouts.id"],
            name=op.f("fk_subscriptions_tenant_id_checkout_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customers.tenant_id", "customers.id"],
            name=op.f("fk_subscriptions_tenant_id_customer_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "discount_id"],
            ["discounts.tenant_id", "discounts.id"],
            name=op.f("fk_subscriptions_tenant_id_discount_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "user_id"], ["users.tenant_id", "users.id"], name=op.f("fk_subscriptions_tenant_id_user_id")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_subscriptions_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_subscriptions")),
    )
    op.create_index(
        "ix_subscriptions_checked",
        "subscriptions",
        ["tenant_id", "rail", "checked_at"],
        sqlite_where=sa.text("status <> 'canceled'"),
        postgresql_where=sa.text("status <> 'canceled'"),
    )
    op.create_index(
        "ix_subscriptions_customer",
        "subscriptions",
        ["tenant_id", "customer_id", "id"],
        sqlite_where=sa.text("customer_id IS NOT NULL"),
        postgresql_where=sa.text("customer_id IS NOT NULL"),
    )
    op.create_index(
        "ix_subscriptions_discount",
        "subscriptions",
        ["tenant_id", "discount_id", "id"],
        sqlite_where=sa.text("discount_id IS NOT NULL"),
        postgresql_where=sa.text("discount_id IS NOT NULL"),
    )
    op.create_index(
        "ix_subscriptions_email",
        "subscriptions",
        ["tenant_id", "email", "id"],
        sqlite_where=sa.text("email IS NOT NULL"),
        postgresql_where=sa.text("email IS NOT NULL"),
    )
    op.create_index("ix_subscriptions_status", "subscriptions", ["tenant_id", "status", "id"])
    op.create_index(
        "ix_subscriptions_vault",
        "subscriptions",
        ["tenant_id", "vault_l0"],
        sqlite_where=sa.text("vault_l0 IS NOT NULL"),
        postgresql_where=sa.text("vault_l0 IS NOT NULL"),
    )
    op.create_index(
        "uq_subscriptions_checkout",
        "subscriptions",
        ["tenant_id", "checkout_id"],
        unique=True,
        sqlite_where=sa.text("checkout_id IS NOT NULL"),
        postgresql_where=sa.text("checkout_id IS NOT NULL"),
    )


def _add_sales() -> None:  # and the tables that refer to invoices
    op.create_table(
        "disputes",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("payment_reference", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=True),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("grants_policy", sa.Text(), nullable=False),
        sa.Column("evidence_due_at", Timestamp(), nullable=True),
        sa.Column("opened_at", Timestamp(), nullable=False),
        sa.Column("closed_at", Timestamp(), nullable=True),
        sa.Column("occurred_at", Timestamp(), nullable=False),
        sa.Column("details", JSON, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("(status IN ('won', 'lost')) = (closed_at IS NOT NULL)", name=op.f("ck_disputes_closed")),
        sa.CheckConstraint("grants_policy IN ('keep', 'suspend', 'revoke')", name=op.f("ck_disputes_grants_policy")),
        sa.CheckConstraint(
            "status IN ('warning', 'needs_response', 'under_review', 'won', 'lost')", name=op.f("ck_disputes_status")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customers.tenant_id", "customers.id"],
            name=op.f("fk_disputes_tenant_id_customer_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "order_id"], ["orders.tenant_id", "orders.id"], name=op.f("fk_disputes_tenant_id_order_id")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_disputes_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_disputes")),
    )
    op.create_index(
        "ix_disputes_order",
        "disputes",
        ["tenant_id", "order_id", "id"],
        sqlite_where=sa.text("order_id IS NOT NULL"),
        postgresql_where=sa.text("order_id IS NOT NULL"),
    )
    op.create_index(
        "ix_disputes_payment",
        "disputes",
        ["tenant_id", "payment_id", "id"],
        sqlite_where=sa.text("payment_id IS NOT NULL"),
        postgresql_where=sa.text("payment_id IS NOT NULL"),
    )
    op.create_index("ix_disputes_status", "disputes", ["tenant_id", "status", "id"])
    op.create_index("uq_disputes_reference", "disputes", ["tenant_id", "rail", "reference"], unique=True)
    op.create_table(
        "invoices",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=True),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.Column("checkout_id", sa.Text(), nullable=True),
        sa.Column("payment_id", sa.Text(), nullable=True),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("tax", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("billing_reason", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("period_start", Timestamp(), nullable=True),
        sa.Column("period_end", Timestamp(), nullable=True),
        sa.Column("pdf_url", sa.Text(), nullable=True),
        sa.Column("receipt_url", sa.Text(), nullable=True),
        sa.Column("hosted_url", sa.Text(), nullable=True),
        sa.Column("paid_at", Timestamp(), nullable=True),
        sa.Column("occurred_at", Timestamp(), nullable=False),
        sa.Column("details", JSON, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint(
            "status IN ('draft', 'open', 'paid', 'uncollectible', 'void')", name=op.f("ck_invoices_status")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "checkout_id"],
            ["checkouts.tenant_id", "checkouts.id"],
            name=op.f("fk_invoices_tenant_id_checkout_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customers.tenant_id", "customers.id"],
            name=op.f("fk_invoices_tenant_id_customer_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "order_id"], ["orders.tenant_id", "orders.id"], name=op.f("fk_invoices_tenant_id_order_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "subscription_id"],
            ["subscriptions.tenant_id", "subscriptions.id"],
            name=op.f("fk_invoices_tenant_id_subscription_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_invoices_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_invoices")),
    )
    op.create_index(
        "ix_invoices_customer",
        "invoices",
        ["tenant_id", "customer_id", "id"],
        sqlite_where=sa.text("customer_id IS NOT NULL"),
        postgresql_where=sa.text("customer_id IS NOT NULL"),
    )
    op.create_index(
        "ix_invoices_payment",
        "invoices",
        ["tenant_id", "payment_id"],
        sqlite_where=sa.text("payment_id IS NOT NULL"),
        postgresql_where=sa.text("payment_id IS NOT NULL"),
    )
    op.create_index("ix_invoices_status", "invoices", ["tenant_id", "status", "id"])
    op.create_index(
        "ix_invoices_subscription",
        "invoices",
        ["tenant_id", "subscription_id", "id"],
        sqlite_where=sa.text("subscription_id IS NOT NULL"),
        postgresql_where=sa.text("subscription_id IS NOT NULL"),
    )
    op.create_index("uq_invoices_reference", "invoices", ["tenant_id", "rail", "reference"], unique=True)
    op.create_table(
        "order_discounts",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("discount_id", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_order_discounts_amount")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "discount_id"],
            ["discounts.tenant_id", "discounts.id"],
            name=op.f("fk_order_discounts_tenant_id_discount_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "order_id"],
            ["orders.tenant_id", "orders.id"],
            name=op.f("fk_order_discounts_tenant_id_order_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_order_discounts_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "order_id", "discount_id", name=op.f("pk_order_discounts")),
    )
    op.create_index("ix_order_discounts_discount", "order_discounts", ["tenant_id", "discount_id", "order_id"])
    op.create_table(
        "subscription_items",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("price_id", sa.Text(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("recurring", sa.Boolean(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("trial_starts_at", Timestamp(), nullable=True),
        sa.Column("trial_ends_at", Timestamp(), nullable=True),
        sa.Column("previously_billed_at", Timestamp(), nullable=True),
        sa.Column("next_billed_at", Timestamp(), nullable=True),
        sa.Column("price_snapshot", JSON, nullable=True),
        sa.Column("product_snapshot", JSON, nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("status IN ('active', 'inactive', 'trialing')", name=op.f("ck_subscription_items_status")),
        sa.CheckConstraint("quantity >= 1", name=op.f("ck_subscription_items_quantity")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "price_id"],
            ["prices.tenant_id", "prices.id"],
            name=op.f("fk_subscription_items_tenant_id_price_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "product_id"],
            ["products.tenant_id", "products.id"],
            name=op.f("fk_subscription_items_tenant_id_product_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "subscription_id"],
            ["subscriptions.tenant_id", "subscriptions.id"],
            name=op.f("fk_subscription_items_tenant_id_subscription_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_subscription_items_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_subscription_items")),
    )
    op.create_index(
        "uq_subscription_items_price", "subscription_items", ["tenant_id", "subscription_id", "price_id"], unique=True
    )
    op.create_table(
        "subscription_periods",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("period_start", Timestamp(), nullable=False),
        sa.Column("period_end", Timestamp(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("invoice_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("status IN ('paid', 'refunded')", name=op.f("ck_subscription_periods_status")),
        sa.CheckConstraint("period_end > period_start", name=op.f("ck_subscription_periods_period")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "invoice_id"],
            ["invoices.tenant_id", "invoices.id"],
            name=op.f("fk_subscription_periods_tenant_id_invoice_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "order_id"],
            ["orders.tenant_id", "orders.id"],
            name=op.f("fk_subscription_periods_tenant_id_order_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "subscription_id"],
            ["subscriptions.tenant_id", "subscriptions.id"],
            name=op.f("fk_subscription_periods_tenant_id_subscription_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_subscription_periods_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "subscription_id", "period_start", name=op.f("pk_subscription_periods")),
    )


def _change_tables() -> None:
    op.add_column("rail_settings", sa.Column("caught_up_at", Timestamp(), nullable=True))
    op.add_column("rail_settings", sa.Column("compared_until", Timestamp(), nullable=True))
    op.add_column("cart_lines", sa.Column("recurring", JSON, nullable=True))
    op.add_column("grants", sa.Column("subscription_id", sa.Text(), nullable=True))
    _add_index(
        "ix_grants_subscription", "grants", ["tenant_id", "subscription_id", "id"], "subscription_id IS NOT NULL"
    )
    op.add_column("orders", sa.Column("subscription_id", sa.Text(), nullable=True))
    _add_index(
        "ix_orders_subscription", "orders", ["tenant_id", "subscription_id", "id"], "subscription_id IS NOT NULL"
    )
    with op.batch_alter_table("products") as table:
        table.add_column(sa.Column("type", sa.Text(), server_default=sa.text("'standard'"), nullable=False))
        _add_check(table, "products", "type", "type IN ('standard', 'custom')")
    with op.batch_alter_table("prices") as table:
        for name, default in (
            ("billing_scheme", "'per_unit'"),
            ("usage_type", "'licensed'"),
            ("tax_mode", "'account_setting'"),
        ):
            table.add_column(sa.Column(name, sa.Text(), server_default=sa.text(default), nullable=False))
        _add_check(table, "prices", "billing_scheme", "billing_scheme IN ('per_unit', 'tiered')")
        _add_check(table, "prices", "usage_type", "usage_type IN ('licensed', 'metered')")
        _add_check(table, "prices", "tax_mode", "tax_mode IN ('account_setting', 'external', 'internal')")
    with op.batch_alter_table("inbox") as table:
        table.add_column(sa.Column("status", sa.Text(), server_default=sa.text("'applied'"), nullable=False))
        table.add_column(sa.Column("body", sa.Text(), nullable=True))
        table.add_column(sa.Column("error", sa.Text(), nullable=True))
        table.add_column(sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
        table.add_column(sa.Column("next_attempt_at", Timestamp(), nullable=True))
        table.alter_column("applied_at", existing_type=Timestamp(), nullable=True)
        _add_check(table, "inbox", "status", "status IN ('applied', 'waiting', 'unknown', 'set_aside')")
        _add_check(table, "inbox", "applied", "(status = 'applied') = (applied_at IS NOT NULL)")
        _add_check(table, "inbox", "kept", "status = 'applied' OR body IS NOT NULL")
    _add_index("ix_inbox_due", "inbox", ["tenant_id", "next_attempt_at"], "next_attempt_at IS NOT NULL")
    _add_index("ix_inbox_status", "inbox", ["tenant_id", "status", "id"], "status <> 'applied'")


def _fill_order_discounts() -> None:
    """What discounts took off earlier orders is known from their uses."""
    uses, orders, into = (op.name_of(name) for name in ("discount_redemptions", "orders", "order_discounts"))
    op.execute(
        f"INSERT INTO {into} (tenant_id, order_id, discount_id, amount, asset, created_at) "  # noqa: S608 # our own names
        "SELECT o.tenant_id, o.id, u.discount_id, u.amount, u.asset, o.created_at "
        f"FROM {uses} AS u JOIN {orders} AS o ON o.tenant_id = u.tenant_id AND o.checkout_id = u.checkout_id "
        "WHERE u.status = 'redeemed'"
    )


def _add_check(table: BatchOperations, name: str, word: str, condition: str) -> None:
    table.create_check_constraint(op.f(f"ck_{name}_{word}"), sa.text(condition))


def _add_index(index: str, name: str, columns: list[str], where: str) -> None:
    some = sa.text(where)
    op.create_index(index, name, columns, sqlite_where=some, postgresql_where=some)
