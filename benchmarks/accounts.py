"""Who may do what, measured: 10,000 customers in a tree of three levels, 20,000 users, 100,000 assignments."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import msgspec

from benchmarks.seed import settings_for
from counterfoil.accounts import api_keys, roles, sessions
from counterfoil.accounts.access import decide
from counterfoil.accounts.tables import customers, role_assignments, users
from counterfoil.accounts.tables import sessions as sessions_table
from counterfoil.accounts.types import DEFAULT_TENANT, Customer, RoleAssignment, Session, User
from counterfoil.db.tx import Tx
from counterfoil.house import open_house
from counterfoil.kernel.secrets import fingerprint

MSPS, CUSTOMERS_EACH, DEPARTMENTS_EACH = 100, 33, 2
USERS, ASSIGNMENTS_EACH = 20_000, 5
CHECKS = 2_000
_ROWS_AT_ONCE = 2_000


class Crowd(msgspec.Struct, frozen=True):
    """What to measure with."""

    key: str
    """The secret of an API key that may do everything."""
    checks: list[tuple[str, str]]
    """Session tokens, and a customer each may read."""
    milliseconds: list[float]
    """How long each permission check took by itself, sorted."""


def _customer(tx: Tx, name: str, parent: Customer | None, level: int) -> Customer:
    made = tx.new_id("cus")
    return Customer(
        id=made,
        kind="organization",
        parent_id=parent.id if parent else None,
        level=level,
        path=(parent.path if parent else "") + made + "/",
        name=name,
        slug=None,
        email=None,
        logo_url=None,
        locale="en",
        time_zone="UTC",
        status="active",
        owner_user_id=None,
        is_default=False,
        marketing_consent=False,
        internal_notes="",
        import_meta=None,
        metadata={},
        deleted_at=None,
        created_at=tx.now,
        updated_at=tx.now,
    )


def _tree(tx: Tx) -> list[Customer]:
    """As rows: the operations would write their events beside them."""
    made = []
    for number in range(MSPS):
        msp = _customer(tx, f"MSP {number}", None, 1)
        made.append(msp)
        for below in range(CUSTOMERS_EACH):
            customer = _customer(tx, f"Customer {number}.{below}", msp, 2)
            made.append(customer)
            made += [_customer(tx, f"Department {one}", customer, 3) for one in range(DEPARTMENTS_EACH)]
    for level in (1, 2, 3):  # parents first
        tx.insert(customers, *[one for one in made if one.level == level])
    return made


def _people(tx: Tx, tree: list[Customer], first: int, count: int, chance: random.Random) -> list[tuple[str, str]]:
    """Users with roles and a session each; the tokens, and a customer that each may read."""
    owner = roles.by_name(tx, "Owner")
    made, signed_in, granted, checks = [], [], [], []
    for number in range(first, first + count):
        user = User(
            id=tx.new_id("usr"),
            username=None,
            first_name=f"User {number}",
            last_name="",
            avatar_url=None,
            password_hash=None,
            role="member",
            status="active",
            deleted_at=None,
            created_at=tx.now,
            updated_at=tx.now,
        )
        token = f"bench-session-{number}"
        made.append(user)
        signed_in.append(
            Session(
                id=tx.new_id("ses"),
                user_id=user.id,
                token_hash=fingerprint(token),
                method="password",
                address=None,
                user_agent=None,
                passkey_at=None,
                last_seen_at=tx.now,
                expires_at=tx.now.replace(year=tx.now.year + 1),
                revoked_at=None,
                created_at=tx.now,
            )
        )
        places = chance.sample(tree, ASSIGNMENTS_EACH)
        granted += [
            RoleAssignment(
                id=tx.new_id("ras"),
                user_id=user.id,
                customer_id=place.id,
                role_id=owner.id,
                granted_by=None,
                created_at=tx.now,
            )
            for place in places
        ]
        checks.append((token, places[0].id))
    tx.insert(users, *made)
    tx.insert(sessions_table, *signed_in)
    tx.insert(role_assignments, *granted)
    return checks


async def _prepare(url: str, folder: Path) -> Crowd:
    chance = random.Random(20260102)
    async with open_house(settings_for(url, folder)) as house:
        scope = house.scope(DEFAULT_TENANT)
        tree = await scope.run(_tree)
        checks: list[tuple[str, str]] = []
        for first in range(0, USERS, _ROWS_AT_ONCE):
            checks += await scope.run(_people, tree, first, _ROWS_AT_ONCE, chance)
        secret = api_keys.new_secret()
        await scope.run(api_keys.create, "bench", ["*"], secret=secret)
        taken = []
        for token, customer in chance.sample(checks, CHECKS):
            began = time.perf_counter()
            identity = await scope.read(sessions.identify, token, customer, house.session_lasts)
            assert identity is not None
            decide(identity, "customers:read")
            taken.append((time.perf_counter() - began) * 1000)
    return Crowd(secret, checks, sorted(taken))


def prepare(url: str, folder: Path) -> Crowd:
    """Seed the tree and its people, and measure the permission checks alone."""
    return asyncio.run(_prepare(url, folder))
