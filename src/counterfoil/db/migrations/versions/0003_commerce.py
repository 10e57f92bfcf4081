"""Commerce."""

import sqlalchemy as sa
from alembic.operations import BatchOperations

from counterfoil.db import revising as op
from counterfoil.db.schema import JSON, Timestamp

revision = "0003_commerce"
down_revision = "0002_accounts"
branch_labels = None
depends_on = None

# What a server of the version before writes into columns that it does not know.
_NONE = sa.text("0")
_EMPTY = sa.text("'[]'")
_NOTHING = sa.text("'{}'")


def upgrade() -> None:
    _add_tables()
    _change_catalog()
    _change_sales()


def _add_tables() -> None:  # as many as there are tables and indexes
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("claimed_by", sa.Text(), nullable=False),
        sa.Column("claimed_until", Timestamp(), nullable=False),
        sa.Column("effect_at", Timestamp(), nullable=True),
        sa.Column("answer_status", sa.BigInteger(), nullable=True),
        sa.Column("answer_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("expires_at", Timestamp(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("status IN ('in_progress', 'done')", name=op.f("ck_idempotency_keys_status")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_idempotency_keys_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_expired", "idempotency_keys", ["tenant_id", "expires_at"])
    op.create_table(
        "payment_references",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_payment_references_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "rail", "reference", name=op.f("pk_payment_references")),
    )
    op.create_table(
        "payments_archive",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("checkout_id", sa.Text(), nullable=True),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("payer", sa.Text(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("refund_reserved", sa.BigInteger(), nullable=False),
        sa.Column("refunded", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("details", JSON, nullable=False),
        sa.Column("occurred_at", Timestamp(), nullable=False),
        sa.Column("resolved_at", Timestamp(), nullable=True),
        sa.Column("resolution", sa.Text(), nullable=True),
        sa.Column("resolution_note", sa.Text(), nullable=True),
        sa.Column("archived_at", Timestamp(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_payments_archive_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_payments_archive")),
    )
    op.create_index(
        "ix_payments_archive_checkout",
        "payments_archive",
        ["tenant_id", "checkout_id"],
        sqlite_where=sa.text("checkout_id IS NOT NULL"),
        postgresql_where=sa.text("checkout_id IS NOT NULL"),
    )
    op.create_table(
        "webhook_endpoints",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("event_types", JSON, nullable=False),
        sa.Column("secret_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("old_secret_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("old_secret_until", Timestamp(), nullable=True),
        sa.Column("signing_key_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("first_failed_at", Timestamp(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("status IN ('enabled', 'disabled')", name=op.f("ck_webhook_endpoints_status")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_webhook_endpoints_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_webhook_endpoints")),
    )
    op.create_table(
        "webhook_sequences",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.CheckConstraint("last >= 1", name=op.f("ck_webhook_sequences_last")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_webhook_sequences_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "object_id", name=op.f("pk_webhook_sequences")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("object_kind", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("next_attempt_at", Timestamp(), nullable=False),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("claimed_until", Timestamp(), nullable=True),
        sa.Column("last_attempt_at", Timestamp(), nullable=True),
        sa.Column("last_status", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("completed_at", Timestamp(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint(
            "status IN ('pending', 'processing', 'success', 'failed')", name=op.f("ck_webhook_deliveries_status")
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_webhook_deliveries_attempts")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "endpoint_id"],
            ["webhook_endpoints.tenant_id", "webhook_endpoints.id"],
            name=op.f("fk_webhook_deliveries_tenant_id_endpoint_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_webhook_deliveries_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index(
        "ix_webhook_deliveries_claimed",
        "webhook_deliveries",
        ["tenant_id", "claimed_until"],
        sqlite_where=sa.text("status = 'processing'"),
        postgresql_where=sa.text("status = 'processing'"),
    )
    op.create_index(
        "ix_webhook_deliveries_completed",
        "webhook_deliveries",
        ["tenant_id", "completed_at"],
        sqlite_where=sa.text("completed_at IS NOT NULL"),
        postgresql_where=sa.text("completed_at IS NOT NULL"),
    )
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["tenant_id", "endpoint_id", "next_attempt_at", "id"],
        sqlite_where=sa.text("status = 'pending'"),
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index("ix_webhook_deliveries_endpoint", "webhook_deliveries", ["tenant_id", "endpoint_id", "id"])
    op.create_index("ix_webhook_deliveries_status", "webhook_deliveries", ["tenant_id", "status", "id"])
    op.create_index(
        "uq_webhook_deliveries_event", "webhook_deliveries", ["tenant_id", "endpoint_id", "event_id"], unique=True
    )
    op.create_table(
        "stock_items",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("price_id", sa.Text(), nullable=True),
        sa.Column("on_hand", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("policy = 'allow_backorder' OR reserved <= on_hand", name=op.f("ck_stock_items_oversold")),
        sa.CheckConstraint("policy IN ('deny', 'allow_backorder')", name=op.f("ck_stock_items_policy")),
        sa.CheckConstraint("reserved >= 0", name=op.f("ck_stock_items_reserved")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "price_id"], ["prices.tenant_id", "prices.id"], name=op.f("fk_stock_items_tenant_id_price_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "product_id"],
            ["products.tenant_id", "products.id"],
            name=op.f("fk_stock_items_tenant_id_product_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_stock_items_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_stock_items")),
    )
    op.create_index("ix_stock_items_product", "stock_items", ["tenant_id", "product_id", "id"])
    op.create_index(
        "uq_stock_items_price",
        "stock_items",
        ["tenant_id", "price_id"],
        unique=True,
        sqlite_where=sa.text("price_id IS NOT NULL"),
        postgresql_where=sa.text("price_id IS NOT NULL"),
    )
    op.create_index(
        "uq_stock_items_product",
        "stock_items",
        ["tenant_id", "product_id"],
        unique=True,
        sqlite_where=sa.text("price_id IS NULL"),
        postgresql_where=sa.text("price_id IS NULL"),
    )
    op.create_table(
        "discount_buyers",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("discount_id", sa.Text(), nullable=False),
        sa.Column("buyer", sa.Text(), nullable=False),
        sa.Column("times_used", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("times_used >= 0", name=op.f("ck_discount_buyers_times_used")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "discount_id"],
            ["discounts.tenant_id", "discounts.id"],
            name=op.f("fk_discount_buyers_tenant_id_discount_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_discount_buyers_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "discount_id", "buyer", name=op.f("pk_discount_buyers")),
    )
    op.create_table(
        "stock_reservations",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("stock_item_id", sa.Text(), nullable=False),
        sa.Column("checkout_id", sa.Text(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("status IN ('active', 'released', 'converted')", name=op.f("ck_stock_reservations_status")),
        sa.CheckConstraint("quantity >= 1", name=op.f("ck_stock_reservations_quantity")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "stock_item_id"],
            ["stock_items.tenant_id", "stock_items.id"],
            name=op.f("fk_stock_reservations_tenant_id_stock_item_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_stock_reservations_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_stock_reservations")),
    )
    op.create_index(
        "ix_stock_reservations_due",
        "stock_reservations",
        ["tenant_id", "expires_at"],
        sqlite_where=sa.text("status = 'active'"),
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_index("ix_stock_reservations_item", "stock_reservations", ["tenant_id", "stock_item_id", "id"])
    op.create_index(
        "uq_stock_reservations_checkout",
        "stock_reservations",
        ["tenant_id", "checkout_id", "stock_item_id"],
        unique=True,
    )
    op.create_table(
        "fulfillments",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("carrier", sa.Text(), nullable=False),
        sa.Column("tracking_number", sa.Text(), nullable=False),
        sa.Column("tracking_url", sa.Text(), nullable=True),
        sa.Column("shipped_at", Timestamp(), nullable=True),
        sa.Column("delivered_at", Timestamp(), nullable=True),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint(
            "status IN ('pending', 'shipped', 'delivered', 'canceled')", name=op.f("ck_fulfillments_status")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "order_id"],
            ["orders.tenant_id", "orders.id"],
            name=op.f("fk_fulfillments_tenant_id_order_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_fulfillments_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_fulfillments")),
    )
    op.create_index("ix_fulfillments_order", "fulfillments", ["tenant_id", "order_id", "id"])
    op.create_table(
        "order_history",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=False),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "order_id"],
            ["orders.tenant_id", "orders.id"],
            name=op.f("fk_order_history_tenant_id_order_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_order_history_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_order_history")),
    )
    op.create_index("ix_order_history_order", "order_history", ["tenant_id", "order_id", "id"])
    op.create_table(
        "refunds",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("grants_policy", sa.Text(), nullable=False),
        sa.Column("restock", JSON, nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("processed_by", sa.Text(), nullable=True),
        sa.Column("rail_reference", sa.Text(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("next_attempt_at", Timestamp(), nullable=True),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("claimed_until", Timestamp(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("expires_at", Timestamp(), nullable=True),
        sa.Column("processed_at", Timestamp(), nullable=True),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("(status = 'processed') = (processed_at IS NOT NULL)", name=op.f("ck_refunds_processed")),
        sa.CheckConstraint("grants_policy IN ('keep', 'suspend', 'revoke')", name=op.f("ck_refunds_grants_policy")),
        sa.CheckConstraint("kind IN ('refund', 'credit', 'chargeback')", name=op.f("ck_refunds_kind")),
        sa.CheckConstraint(
            "status IN ('pending', 'approved', 'denied', 'processing', 'processed', 'failed')",
            name=op.f("ck_refunds_status"),
        ),
        sa.CheckConstraint("type IN ('full', 'partial', 'tax', 'proration')", name=op.f("ck_refunds_type")),
        sa.CheckConstraint("amount >= 1", name=op.f("ck_refunds_amount")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "order_id"], ["orders.tenant_id", "orders.id"], name=op.f("fk_refunds_tenant_id_order_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "payment_id"],
            ["payments.tenant_id", "payments.id"],
            name=op.f("fk_refunds_tenant_id_payment_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_refunds_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_refunds")),
    )
    op.create_index(
        "ix_refunds_due",
        "refunds",
        ["tenant_id", "next_attempt_at"],
        sqlite_where=sa.text("status IN ('approved', 'processing')"),
        postgresql_where=sa.text("status IN ('approved', 'processing')"),
    )
    op.create_index(
        "ix_refunds_order",
        "refunds",
        ["tenant_id", "order_id", "id"],
        sqlite_where=sa.text("order_id IS NOT NULL"),
        postgresql_where=sa.text("order_id IS NOT NULL"),
    )
    op.create_index("ix_refunds_payment", "refunds", ["tenant_id", "payment_id", "id"])
    op.create_index("ix_refunds_status", "refunds", ["tenant_id", "status", "id"])
    op.create_table(
        "fulfillment_items",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("fulfillment_id", sa.Text(), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.CheckConstraint("quantity >= 1", name=op.f("ck_fulfillment_items_quantity")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "fulfillment_id"],
            ["fulfillments.tenant_id", "fulfillments.id"],
            name=op.f("fk_fulfillment_items_tenant_id_fulfillment_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_fulfillment_items_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "fulfillment_id", "line", name=op.f("pk_fulfillment_items")),
    )


def _change_catalog() -> None:
    with op.batch_alter_table("benefits") as table:
        _replace_check(table, "benefits", "kind", "kind IN ('license', 'goods')")
    with op.batch_alter_table("grants") as table:
        _replace_check(table, "grants", "kind", "kind IN ('license', 'goods')")
    with op.batch_alter_table("discounts") as table:
        table.add_column(sa.Column("price_ids", JSON, nullable=False, server_default=_EMPTY))
        table.add_column(sa.Column("rails", JSON, nullable=False, server_default=_EMPTY))
        table.add_column(sa.Column("stage", sa.Text(), nullable=False, server_default=sa.text("'checkout'")))
        table.add_column(sa.Column("auto_apply", sa.Boolean(), nullable=False, server_default=sa.text("false")))
        table.add_column(sa.Column("recurring", sa.Boolean(), nullable=False, server_default=sa.text("false")))
        table.add_column(sa.Column("max_periods", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("group_id", sa.Text(), nullable=True))
        table.add_column(sa.Column("per_customer_limit", sa.BigInteger(), nullable=True))
        _replace_check(
            table,
            "discounts",
            "kind",
            "kind IN ('percentage', 'flat', 'flat_per_seat', 'set_price', 'free')",
        )
        _replace_check(
            table, "discounts", "asset", "(kind IN ('flat', 'flat_per_seat', 'set_price')) = (asset IS NOT NULL)"
        )
        _add_check(table, "discounts", "stage", "stage IN ('catalog', 'checkout')")
        _add_check(
            table,
            "discounts",
            "limits",
            "(usage_limit IS NULL OR usage_limit >= 1) AND (per_customer_limit IS NULL OR per_customer_limit >= 1)",
        )
        _add_check(table, "discounts", "periods", "max_periods IS NULL OR (recurring AND max_periods >= 1)")
    _add_index("ix_discounts_auto", "discounts", ["tenant_id", "id"], "auto_apply AND status = 'active'")
    _add_index("ix_discounts_group", "discounts", ["tenant_id", "group_id", "id"], "group_id IS NOT NULL")
    op.add_column("discount_redemptions", sa.Column("buyer", sa.Text(), nullable=True))
    _add_index(
        "ix_discount_redemptions_reserved", "discount_redemptions", ["tenant_id", "checkout_id"], "status = 'reserved'"
    )


def _change_sales() -> None:
    with op.batch_alter_table("carts") as table:
        for name in ("rail", "code", "email", "paid_by"):
            table.add_column(sa.Column(name, sa.Text(), nullable=True))
        table.add_column(sa.Column("status", sa.Text(), nullable=False, server_default=sa.text("'open'")))
        table.add_column(sa.Column("paid_at", Timestamp(), nullable=True))
        _add_check(table, "carts", "status", "status IN ('open', 'paid')")
        _add_check(table, "carts", "paid", "(status = 'paid') = (paid_at IS NOT NULL)")
    _add_index("ix_carts_customer", "carts", ["tenant_id", "customer_id", "id"], "customer_id IS NOT NULL")
    op.add_column("cart_lines", sa.Column("metadata", JSON, nullable=False, server_default=_NOTHING))
    with op.batch_alter_table("checkouts") as table:
        table.add_column(sa.Column("shipping", JSON, nullable=True))
        _replace_check(
            table,
            "checkouts",
            "status",
            "status IN ('open', 'processing', 'settled', 'expired', 'canceled', 'failed')",
        )
    with op.batch_alter_table("payments") as table:
        table.add_column(sa.Column("refund_reserved", sa.BigInteger(), nullable=False, server_default=_NONE))
        table.add_column(sa.Column("refunded", sa.BigInteger(), nullable=False, server_default=_NONE))
        _add_check(
            table,
            "payments",
            "refunded",
            "refunded >= 0 AND refunded <= refund_reserved AND refund_reserved <= amount",
        )
    for index in ("uq_orders_checkout", "uq_orders_purchase", "ix_orders_email"):
        op.drop_index(index, "orders")
    with op.batch_alter_table("orders") as table:
        table.add_column(sa.Column("user_id", sa.Text(), nullable=True))
        table.add_column(sa.Column("refunded", sa.BigInteger(), nullable=False, server_default=_NONE))
        table.add_column(sa.Column("shipping", JSON, nullable=True))
        table.add_column(sa.Column("status_updated_at", Timestamp(), nullable=True))
        table.alter_column("checkout_id", existing_type=sa.Text(), nullable=True)
        # Compared byte by byte, so that addresses that begin alike are a range of the index.
        bytewise = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
        table.alter_column("email", existing_type=sa.Text(), type_=bytewise, existing_nullable=True)
        table.create_foreign_key(
            op.f("fk_orders_tenant_id_user_id"), op.name_of("users"), ["tenant_id", "user_id"], ["tenant_id", "id"]
        )
        statuses = (
            "'created', 'paid', 'processing', 'partially_fulfilled', 'fulfilled', 'shipped', 'delivered', "
            "'canceled', 'refunded'"
        )
        _replace_check(table, "orders", "status", f"status IN ({statuses})")
        _replace_check(table, "orders", "amount", "amount >= 0 AND refunded >= 0 AND refunded <= amount")
    _add_index("uq_orders_checkout", "orders", ["tenant_id", "checkout_id"], "checkout_id IS NOT NULL", unique=True)
    _add_index("ix_orders_email", "orders", ["tenant_id", "email", "id"], "email IS NOT NULL")
    _add_index("ix_orders_partially_refunded", "orders", ["tenant_id", "id"], "refunded > 0 AND refunded < amount")
    op.create_index("uq_orders_purchase", "orders", ["tenant_id", "purchase_reference", "source"], unique=True)
    op.create_index("ix_orders_status", "orders", ["tenant_id", "status", "id"])


def _replace_check(table: BatchOperations, name: str, word: str, condition: str) -> None:
    table.drop_constraint(op.f(f"ck_{name}_{word}"), type_="check")
    _add_check(table, name, word, condition)


def _add_check(table: BatchOperations, name: str, word: str, condition: str) -> None:
    table.create_check_constraint(op.f(f"ck_{name}_{word}"), sa.text(condition))


def _add_index(index: str, name: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    some = sa.text(where)
    op.create_index(index, name, columns, unique=unique, sqlite_where=some, postgresql_where=some)
