"""The hash chain over the record: what is hashed, what is signed, and how both are checked; pure.

========= ==================================================================================================
event     its columns as one JSON object: keys sorted, no blanks, NULLs left out, the time in UTC with six
          digits of a second (:mod:`counterfoil.events.exact` makes it)
digest    SHA-256 of ``counterfoil/event/1``, a line feed, and the event
hash      SHA-256 of the hash before and the digest, 32 bytes each; before the first link stands the SHA-256 of
          ``counterfoil/audit/1``, a line feed, and the tenant's id
signature Ed25519 over ``counterfoil/audit/1``, the tenant's id, the place and the hash in hexadecimal, with
          line feeds between them; on the last link of each run of the job at least
========= ==================================================================================================

Digests, hashes and signatures are written in lower-case hexadecimal. Programs of others read exactly this, so
it may not change.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Literal

import msgspec

from counterfoil.kernel.signing import PublicKey

_EVENT = b"counterfoil/event/1\n"
_AUDIT = "counterfoil/audit/1\n"
_SIGNATURE = re.compile(r"[0-9a-f]{128}")

Problem = Literal[
    "event_missing",
    "event_changed",
    "seal_missing",
    "seal_changed",
    "out_of_order",
    "unknown_key",
    "bad_signature",
    "unsigned_end",
    "retired_key",
    "head_differs",
    "truncated",
    "never_sealed",
    "unreadable",
]
_Found = tuple[Problem, str]


class Head(msgspec.Struct, frozen=True):
    """A link somebody wrote down elsewhere: its place and its hash."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read ``SEQ:HASH``. Raises ValueError."""
        if not re.fullmatch(r"[1-9][0-9]{0,17}:[0-9a-f]{64}", text):
            raise ValueError("not SEQ:HASH, as the head of the chain is printed")
        seq, _, hash_ = text.partition(":")
        return cls(int(seq), hash_)


class Link(msgspec.Struct, frozen=True):
    """A seal and the event it seals, as found."""

    seq: int | None
    """None when the seal itself cannot be read."""
    event_id: str | None
    digest: str
    hash: str
    signature: str | None
    signing_key_id: str | None
    event: bytes | None
    """What the digest is of; None when there is no such event, empty when it cannot be read."""


class Fault(msgspec.Struct, frozen=True):
    """What is wrong, and where."""

    seq: int | None
    """The place in the chain; None for an event that is not in it."""
    event_id: str | None
    problem: Problem
    detail: str


class Report(msgspec.Struct, frozen=True):
    """What an audit found."""

    good: int
    """Links from the first on that fit."""
    signed: int
    """The last of them that a signature vouches for; what comes before it is vouched for, too."""
    head: Head | None
    """The last good link."""
    fault: Fault | None
    """The first thing that is wrong; None when nothing is."""


def first_hash(tenant: str) -> bytes:
    """What the first link of a tenant's chain hangs on."""
    return hashlib.sha256((_AUDIT + tenant).encode()).digest()


def digest_of(event: bytes) -> bytes:
    """The digest of an event in its canonical form."""
    return hashlib.sha256(_EVENT + event).digest()


def hash_after(before: bytes, digest: bytes) -> bytes:
    """The hash of the link that follows one with the hash ``before``."""
    return hashlib.sha256(before + digest).digest()


def message(tenant: str, seq: int, hash_: bytes) -> bytes:
    """What is signed. No license can be read into it: those begin with another byte."""
    return f"{_AUDIT}{tenant}\n{seq}\n{hash_.hex()}".encode()


class Chain:
    """Follows a chain from its first link, and stops at the first one that does not fit."""

    def __init__(
        self,
        tenant: str,
        keys: Mapping[str, PublicKey] | Collection[PublicKey],
        *,
        retired: Collection[str] = (),
        kept: Head | None = None,
    ) -> None:
        """``keys`` by id; or, where ids prove nothing, any of several. ``retired`` ones sign no end of a chain."""
        self._tenant = tenant
        self._keys = keys
        self._retired = retired
        self._kept = kept
        self._hash = first_hash(tenant)
        self._last: Link | None = None
        self._signed = 0
        self.good = 0

    def report(self, fault: Fault | None) -> Report:
        """How far it was good."""
        return Report(self.good, self._signed, Head(self.good, self._hash.hex()) if self.good else None, fault)

    def follow(self, link: Link) -> Fault | None:
        """Take one more link; what is wrong with it, if anything."""
        seq = self.good + 1
        digest = digest_of(link.event or b"")
        hash_ = hash_after(self._hash, digest)
        found = (
            self._misplaced(link, seq)
            or _misfit(link, digest.hex(), hash_.hex())
            or self._rewritten(link)
            or self._missigned(link, hash_)
        )
        if found is not None:
            problem, detail = found
            return Fault(seq, None if problem == "seal_missing" else link.event_id, problem, detail)
        if link.signature is not None:
            self._signed = seq
        self._hash, self._last, self.good = hash_, link, seq
        return None

    def finish(self) -> Fault | None:
        """Say that there are no more links; what is wrong with the end, if anything."""
        last = self._last
        if last is not None and self._signed != self.good:
            return Fault(self.good, last.event_id, "unsigned_end", "the last link of the chain is not signed")
        if last is not None and last.signing_key_id in self._retired:
            why = f"the chain ends with a signature by {last.signing_key_id}, a key that is retired"
            return Fault(self.good, last.event_id, "retired_key", why)
        if self._kept is not None and self._kept.seq > self.good:
            why = f"the chain ends at {self.good}, before link {self._kept.seq}, which you kept"
            return Fault(self.good + 1, None, "truncated", why)
        return None

    def _misplaced(self, link: Link, seq: int) -> _Found | None:
        if link.seq == seq:
            return None
        if link.seq is None:
            return "seal_changed", "the seal cannot be read"
        if link.seq < seq:
            return "out_of_order", f"here stands link {link.seq}"
        return "seal_missing", f"the seal is gone, and perhaps its event: the next one is number {link.seq}"

    def _rewritten(self, link: Link) -> _Found | None:
        if self._kept is None or self._kept.seq != link.seq or self._kept.hash == link.hash:
            return None
        return "head_differs", "this is not the link you kept: the chain was rewritten up to here"

    def _missigned(self, link: Link, hash_: bytes) -> _Found | None:
        if link.signature is None and link.signing_key_id is None:
            return None
        if isinstance(self._keys, Mapping):
            verifiers = [key for key_id, key in self._keys.items() if key_id == link.signing_key_id]
        else:
            verifiers = list(self._keys)
        if not verifiers:
            return "unknown_key", f"signed by {link.signing_key_id}, which is no key of this seller"
        if not _is_signed(link.signature, message(self._tenant, self.good + 1, hash_), verifiers):
            since = f"something from link {self._signed + 1} to here was rewritten"
            return "bad_signature", f"the signature does not fit: {since}"
        return None


def _misfit(link: Link, digest: str, hash_: str) -> _Found | None:
    if link.event is None:
        return "event_missing", "its event is gone, or bears another id now"
    if digest != link.digest:
        if hash_ == link.hash:
            return "seal_changed", "the event is as it was; the digest in its seal was changed"
        return "event_changed", "the event is not the one that was sealed here"
    if hash_ != link.hash:
        why = "the link does not hang on the one before: rows were reordered, or the chain was rewritten here"
        return "out_of_order", why
    return None


def _is_signed(signature: str | None, text: bytes, keys: list[PublicKey]) -> bool:
    if signature is None or not _SIGNATURE.fullmatch(signature):
        return False
    return any(key.verify(bytes.fromhex(signature), text) for key in keys)
