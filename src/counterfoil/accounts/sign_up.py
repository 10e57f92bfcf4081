"""Signing up. Until the link in the letter is used there is nothing but a token: no user, and no password.

So nobody can prepare an account for an address that is not theirs, and the answer never tells whether there is one.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

import msgspec

from counterfoil.accounts import assignments, customers, one_time_tokens, roles, users
from counterfoil.accounts.customers import NewCustomer
from counterfoil.accounts.permissions import OWNER
from counterfoil.accounts.types import Customer, CustomerKind, User
from counterfoil.db.tx import Tx
from counterfoil.kernel.secrets import MasterKey
from counterfoil.kernel.text import check_line, normalize_email
from counterfoil.mail import outgoing

LASTS = timedelta(hours=24)
VIA = "email:password"
_PURPOSE = "sign_up"
_NOBODYS = "sign_up.nobody"


class NewSignUp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who wants an account."""

    email: str
    first_name: str
    last_name: str = ""
    """Some people have one name only."""
    organization: str | None = None
    """Whom they buy for, if not for themselves."""


class SignedUp(NamedTuple):
    """Somebody who has just got an account, and the customer they buy for."""

    user: User
    customer: Customer


def check(form: NewSignUp) -> NewSignUp:
    """The form as we keep it. Raises Invalid."""
    organization = check_line("organization", form.organization or "", most=200)
    return NewSignUp(
        email=normalize_email("email", form.email),
        first_name=check_line("first_name", form.first_name, most=users.MOST_NAME, least=1),
        last_name=check_line("last_name", form.last_name, most=users.MOST_NAME),
        organization=organization or None,
    )


def start(tx: Tx, master: MasterKey, form: NewSignUp, *, token: str, base: str) -> None:
    """Send whoever signs up a link, or, to an address that has an account, the way into that.

    ``form`` is checked, ``token`` the link's secret, ``base`` where the tenant's pages are.
    """
    if users.by_email(tx, form.email) is not None:
        # Written as for a stranger, so that it takes as long; nobody gets to know this token.
        one_time_tokens.create(tx, _NOBODYS, token, lasts=LASTS, details={})
        context = {"link": f"{base}/sign-in", "reset_link": f"{base}/forgot"}
        outgoing.queue(tx, master, form.email, "already_registered", context)
        return
    one_time_tokens.create(tx, _PURPOSE, token, lasts=LASTS, details=msgspec.to_builtins(form))
    link = f"{base}/sign-up/finish?token={token}"
    context = {"link": link, "first_name": form.first_name, "expires": "in one day"}
    outgoing.queue(tx, master, form.email, "verify_sign_up", context)


def read(tx: Tx, token: str) -> NewSignUp:
    """What a link was sent for, without using it. Raises Invalid (``bad_token``)."""
    found = one_time_tokens.look(tx, _PURPOSE, token)
    if found is None:
        raise one_time_tokens.bad_token()
    return msgspec.convert(found[0], NewSignUp)


def finish(tx: Tx, token: str, password_hash: str) -> SignedUp:
    """Use a link up: make the user, their first customer, and them its owner.

    Raises Invalid (``bad_token``); Conflict (``email_taken``) when the address got an account meanwhile.
    """
    details = one_time_tokens.spend(tx, _PURPOSE, token)
    if details is None:
        raise one_time_tokens.bad_token()
    form = msgspec.convert(details, NewSignUp)
    user = users.create(
        tx,
        email=form.email,
        first_name=form.first_name,
        last_name=form.last_name,
        via=VIA,
        password_hash=password_hash,
    )
    name = form.organization or f"{form.first_name} {form.last_name}".strip()
    kind: CustomerKind = "organization" if form.organization else "person"
    return SignedUp(user, first_customer(tx, user, kind=kind, name=name, email=form.email))


def first_customer(tx: Tx, user: User, *, kind: CustomerKind, name: str, email: str) -> Customer:
    """Make the customer that a new user buys for, and them its owner."""
    new = NewCustomer(kind=kind, name=name[:200], email=email)
    customer = customers.create(tx, new, owner_user_id=user.id, is_default=True)
    assignments.grant(tx, user.id, roles.by_name(tx, OWNER).id, customer.id)
    return customer
