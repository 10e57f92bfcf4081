"""The record."""

from counterfoil.db.schema import index, integer, json, table, text

events = table(
    "events",
    text("id"),
    text("type"),
    text("object_kind"),
    text("object_id"),
    text("actor_kind"),
    text("actor_id", null=True),
    integer("amount", null=True),
    text("asset", null=True),
    text("address", null=True),
    text("user_agent", null=True),
    json("details"),
    index("ix_events_object", "object_id", "id"),
    index("ix_events_type", "type", "id"),
    updated=False,
)
