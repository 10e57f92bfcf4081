"""Where news goes, and what is on its way."""

from counterfoil.db.schema import (
    binary,
    check,
    index,
    integer,
    json,
    moment,
    one_of,
    optional_binary,
    reference,
    table,
    text,
    unique,
)

webhook_endpoints = table(
    "webhook_endpoints",
    text("id"),
    text("url"),
    text("description"),
    json("event_types"),
    binary("secret_sealed"),
    optional_binary("old_secret_sealed"),
    moment("old_secret_until", null=True),
    binary("signing_key_sealed"),
    text("public_key"),
    text("status"),
    text("disabled_reason", null=True),
    moment("first_failed_at", null=True),
    one_of("status", "enabled", "disabled"),
)

webhook_deliveries = table(
    "webhook_deliveries",
    text("id"),
    text("endpoint_id"),
    text("event_id"),
    text("event_type"),
    text("object_kind"),
    text("object_id"),
    integer("sequence"),
    text("payload"),
    text("status"),
    integer("attempts"),
    moment("next_attempt_at"),
    text("claimed_by", null=True),
    moment("claimed_until", null=True),
    moment("last_attempt_at", null=True),
    integer("last_status", null=True),
    text("last_error", null=True),
    moment("completed_at", null=True),
    reference("endpoint_id", "webhook_endpoints"),
    unique("uq_webhook_deliveries_event", "endpoint_id", "event_id"),
    index("ix_webhook_deliveries_due", "endpoint_id", "next_attempt_at", "id", where="status = 'pending'"),
    index("ix_webhook_deliveries_endpoint", "endpoint_id", "id"),
    index("ix_webhook_deliveries_claimed", "claimed_until", where="status = 'processing'"),
    index("ix_webhook_deliveries_status", "status", "id"),
    index("ix_webhook_deliveries_completed", "completed_at", where="completed_at IS NOT NULL"),
    one_of("status", "pending", "processing", "success", "failed"),
    check("attempts", "attempts >= 0"),
)

# How much was told about each object. Receivers put news in order by it.
webhook_sequences = table(
    "webhook_sequences",
    text("object_id"),
    integer("last"),
    check("last", "last >= 1"),
    key=("object_id",),
    updated=False,
)
