"""What rails told us, and how to reach them."""

from counterfoil.db.schema import binary, index, json, moment, one_of, table, text, unique

inbox = table(
    "inbox",
    text("id"),
    text("rail"),
    text("event_id"),
    text("type"),
    text("reference", null=True),
    moment("occurred_at"),
    moment("applied_at"),
    unique("uq_inbox_event", "rail", "event_id"),
    index("ix_inbox_reference", "rail", "reference"),
    updated=False,
)

rail_settings = table(
    "rail_settings",
    text("id"),
    text("rail"),
    text("status"),
    json("public"),
    binary("sealed"),
    unique("uq_rail_settings_rail", "rail"),
    one_of("status", "active", "disconnected"),
)
