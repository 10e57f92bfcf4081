"""Letters on their way out."""

from counterfoil.db.schema import binary, index, integer, moment, one_of, table, text

emails = table(
    "emails",
    text("id"),
    text("recipient"),
    text("template"),
    binary("context_sealed"),
    text("status"),
    integer("attempts"),
    moment("next_attempt_at"),
    text("claimed_by", null=True),
    moment("claimed_until", null=True),
    text("error", null=True),
    moment("sent_at", null=True),
    index("ix_emails_due", "next_attempt_at", where="status = 'queued'"),
    index("ix_emails_claimed", "claimed_until", where="status = 'sending'"),
    index("ix_emails_status", "status", "id"),
    one_of("status", "queued", "sending", "sent", "failed", "unknown", "canceled"),
)
