"""What was given to whom."""

from counterfoil.db.schema import index, integer, moment, one_of, reference, table, text, unique

grants = table(
    "grants",
    text("id"),
    text("kind"),
    text("customer_id", null=True),
    text("product_id"),
    text("order_id"),
    integer("line"),
    integer("unit"),
    text("object_id"),
    text("status"),
    moment("starts_at"),
    moment("ends_at", null=True),
    reference("product_id", "products"),
    reference("order_id", "orders"),
    reference("customer_id", "customers"),
    unique("uq_grants_order_line", "order_id", "line", "unit", "kind"),
    index("ix_grants_customer", "customer_id", "id", where="customer_id IS NOT NULL"),
    index("ix_grants_object", "object_id"),
    one_of("kind", "license", "goods"),
    one_of("status", "active", "suspended", "revoked", "expired"),
)
