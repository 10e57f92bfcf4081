"""When each job runs next, and who runs it now."""

from counterfoil.db.schema import moment, table, text

jobs = table(
    "jobs",
    text("id"),
    moment("due_at"),
    text("claimed_by", null=True),
    moment("claimed_until", null=True),
    moment("finished_at", null=True),
    text("error", null=True),
)
