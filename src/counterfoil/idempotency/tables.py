"""Requests that were sent with an Idempotency-Key, and what they were answered."""

from counterfoil.db.schema import index, integer, moment, one_of, optional_binary, table, text

idempotency_keys = table(
    "idempotency_keys",
    text("id"),
    text("request_hash"),
    text("status"),
    text("claimed_by"),
    moment("claimed_until"),
    moment("effect_at", null=True),
    integer("answer_status", null=True),
    optional_binary("answer_sealed"),
    moment("expires_at"),
    index("ix_idempotency_keys_expired", "expires_at"),
    one_of("status", "in_progress", "done"),
)
