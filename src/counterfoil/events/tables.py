"""The record."""

from counterfoil.db.schema import check, index, integer, json, reference, table, text, unique

events = table(
    "events",
    text("id"),
    text("type"),
    text("object_kind"),
    text("object_id"),
    text("customer_id", null=True),
    text("actor_kind"),
    text("actor_id", null=True),
    integer("amount", null=True),
    text("asset", null=True),
    text("source", null=True),
    text("address", null=True),
    text("user_agent", null=True),
    json("details"),
    index("ix_events_object", "object_id", "id"),
    index("ix_events_type", "type", "id"),
    index("ix_events_customer", "customer_id", "id", where="customer_id IS NOT NULL"),
    index("ix_events_actor", "actor_id", "id", where="actor_id IS NOT NULL"),
    updated=False,
)

event_seals = table(
    "event_seals",
    text("id"),
    integer("seq"),
    text("digest"),
    text("hash"),
    text("signature", null=True),
    text("signing_key_id", null=True),
    reference("id", "events"),
    unique("uq_event_seals_seq", "seq"),
    check("seq", "seq >= 1"),
    check("signed", "(signature IS NULL) = (signing_key_id IS NULL)"),
    updated=False,
)
