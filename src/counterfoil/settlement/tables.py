"""What was given to whom, and what rails call our objects."""

from counterfoil.db.schema import index, integer, json, moment, one_of, reference, table, text, unique

grants = table(
    "grants",
    text("id"),
    text("kind"),
    text("customer_id", null=True),
    text("product_id"),
    text("order_id"),
    text("subscription_id", null=True),
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
    index("ix_grants_subscription", "subscription_id", "id", where="subscription_id IS NOT NULL"),
    one_of("kind", "license", "goods"),
    one_of("status", "active", "suspended", "revoked", "expired"),
)

rail_links = table(
    "rail_links",
    text("id"),
    text("rail"),
    text("kind"),
    text("object_id"),
    text("reference"),
    text("sync_status"),
    moment("last_synced_at", null=True),
    moment("last_event_at", null=True),
    text("last_event_id", null=True),
    moment("pending_since", null=True),
    json("raw", null=True),
    unique("uq_rail_links_object", "rail", "kind", "object_id"),
    unique("uq_rail_links_reference", "rail", "kind", "reference"),
    index("ix_rail_links_status", "rail", "sync_status", "id"),
    index("ix_rail_links_synced", "rail", "last_synced_at"),
    one_of("kind", "product", "price", "discount", "customer", "address", "business", "subscription"),
    one_of("sync_status", "pending", "synced", "different", "refused"),
)
