"""Whether a license is good, for many askers at once.

This is the busiest path of the house. Concurrent questions share a transaction: one read of the
licenses, one of the machines, one insert into the log, which is durable before anyone is answered.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.catalog.tables import products
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import CounterfoilError
from counterfoil.kernel.ids import first_id
from counterfoil.licensing import machines as machine_ops
from counterfoil.licensing.machines import Device
from counterfoil.licensing.tables import licenses, machines, validation_log
from counterfoil.licensing.types import License, Machine, ValidationEntry

_LICENSES = (
    sa.select(*columns(licenses), products.c.slug)
    .join(products, sa.and_(products.c.tenant_id == licenses.c.tenant_id, products.c.id == licenses.c.product_id))
    .where(mine(licenses), any_of(licenses.c.id, "ids"))
)
_MACHINES = sa.select(*columns(machines)).where(
    mine(machines),
    any_of(machines.c.license_id, "license_ids"),
    any_of(machines.c.fingerprint_hash, "fingerprints"),
    machines.c.deactivated_at.is_(None),
)
_TIDY = sa.delete(validation_log).where(mine(validation_log), validation_log.c.id < sa.bindparam("before"))


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Is this license good, here? ``refused`` is set when the key itself already answered."""

    license_id: str | None
    refused: str | None = None
    product_slug: str | None = None
    device: Device | None = None
    address: str | None = None
    user_agent: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Good (``reason`` None) or why not, with the license as it is in the database now."""

    reason: str | None
    license: License | None = None
    product_slug: str | None = None
    machine_id: str | None = None
    grace_until: datetime | None = None
    """Set while the license has expired and its grace has not."""


def validate_many(tx: Tx, questions: list[Question]) -> list[Answer | CounterfoilError]:
    """Answer each question, activating the machine where its license has room, and log every answer."""
    ids = sorted({question.license_id for question in questions if question.license_id})
    found: dict[str, tuple[License, str]] = {}
    if ids:
        for *fields, slug in tx.all(_LICENSES, {"ids": ids}):
            license_ = License(*fields)
            found[license_.id] = (license_, slug)
    known = _machines_of(tx, questions, found)
    answers: dict[int, Answer] = {}
    # Activations lock their license, and locks are taken in the order of ids.
    for place, question in sorted(enumerate(questions), key=lambda pair: pair[1].license_id or ""):
        answers[place] = _answer(tx, question, found, known)
    in_order = [answers[place] for place in range(len(questions))]
    seen = {answer.machine_id for answer in in_order}
    machine_ops.beat(tx, [machine for machine in known.values() if machine.id in seen])
    tx.insert(validation_log, *[_entry(tx, *pair) for pair in zip(questions, in_order, strict=True)])
    return list(in_order)


def _machines_of(tx: Tx, questions: list[Question], found: dict[str, Any]) -> dict[tuple[str, str], Machine]:
    asked = {
        (question.license_id, question.device.fingerprint_hash)
        for question in questions
        if question.license_id in found and question.device is not None
    }
    if not asked:
        return {}
    rows = tx.all(
        _MACHINES,
        {
            "license_ids": sorted({license_id for license_id, _ in asked if license_id}),
            "fingerprints": sorted({fingerprint for _, fingerprint in asked}),
        },
    )
    active = [Machine(*row) for row in rows]
    return {(machine.license_id, machine.fingerprint_hash): machine for machine in active}


def _answer(
    tx: Tx,
    question: Question,
    found: dict[str, tuple[License, str]],
    known: dict[tuple[str, str], Machine],
) -> Answer:
    if question.refused is not None or question.license_id is None:
        return Answer(reason=question.refused)
    if question.license_id not in found:
        return Answer(reason="not_found")
    license_, slug = found[question.license_id]
    reason = _reason(license_, slug, question, tx.now)
    if reason is not None:
        return Answer(reason=reason, license=license_, product_slug=slug)
    machine_id = None
    if question.device is not None:
        machine = known.get((license_.id, question.device.fingerprint_hash))
        if machine is not None:
            machine_id = machine.id
        else:
            activation = machine_ops.activate(tx, license_.id, question.device)
            if activation.refusal is not None:
                one_seat = activation.refusal == "too_many_machines" and license_.max_machines == 1
                reason = "fingerprint_mismatch" if one_seat else activation.refusal
                return Answer(reason=reason, license=license_, product_slug=slug)
            machine_id = activation.machine_id
    in_grace = license_.expires_at is not None and tx.now >= license_.expires_at
    return Answer(
        reason=None,
        license=license_,
        product_slug=slug,
        machine_id=machine_id,
        grace_until=machine_ops.ends_at(license_) if in_grace else None,
    )


def _reason(license_: License, slug: str, question: Question, now: datetime) -> str | None:
    """The first thing wrong, in the order existing clients expect."""
    if license_.status != "active":
        return license_.status
    if question.product_slug is not None and question.product_slug != slug:
        return "product_mismatch"
    return machine_ops.usable(license_, now)


def _entry(tx: Tx, question: Question, answer: Answer) -> ValidationEntry:
    return ValidationEntry(
        id=tx.new_id("val"),
        license_id=answer.license.id if answer.license else None,
        product_id=answer.license.product_id if answer.license else None,
        machine_id=answer.machine_id,
        fingerprint_hash=question.device.fingerprint_hash if question.device else None,
        result=answer.reason or "ok",
        address=question.address,
        user_agent=question.user_agent,
        created_at=tx.now,
    )


def tidy(tx: Tx, *, keep: timedelta) -> int:
    """Forget log lines older than ``keep``; how many."""
    return tx.execute(_TIDY, {"before": first_id("val", tx.now - keep)})
