"""License keys: what existing clients read, byte for byte.

The peer is the unmodified client library from PyPI, ``keysat-licensing-client``.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keysat_licensing_client import LicensingError, Verifier, has_entitlement, parse_license_key
from keysat_licensing_client import PublicKey as ClientKey

from counterfoil.db.base import Database
from counterfoil.kernel.ids import from_uuid
from counterfoil.kernel.secrets import MasterKey
from counterfoil.kernel.signing import PrivateKey
from counterfoil.licensing import signing_keys
from counterfoil.licensing.keyring import BadLicenseSignature, Keyring
from counterfoil.licensing.keys import BadKey, ParsedKey, Payload, pack, parse, sign
from counterfoil.licensing.types import License, SigningKey

KEY = PrivateKey(bytes(range(32)))
CLIENT = Verifier(ClientKey.from_pem(KEY.public().to_pem()))

PRODUCT = uuid.UUID("11111111-2222-3333-4444-555555555555")
LICENSE = uuid.UUID("01563e3a-b5d3-d676-4c61-efb99302bd5b")
ISSUED = 1_767_323_045  # 2026-01-02T03:04:05Z
UNBOUND = bytes(32)

PLAIN = Payload(product_id=PRODUCT, license_id=LICENSE, issued_at=ISSUED)
RICH = Payload(
    product_id=PRODUCT,
    license_id=LICENSE,
    issued_at=ISSUED,
    expires_at=ISSUED + 86_400,
    is_trial=True,
    entitlements=("pro", "ünï-日本", ""),
)

# Each byte as the format says, by hand.
IDS_HEX = "11111111222233334444555555555555" + "01563e3ab5d3d6764c61efb99302bd5b"
PLAIN_HEX = "0200" + IDS_HEX + "00000000695735a5" + "00" * 8 + "00" * 32 + "00"
RICH_HEX = "0202" + IDS_HEX + "00000000695735a5" + "0000000069588725" + "00" * 32 + "0303" + b"pro".hex()
RICH_HEX += "0c" + "c3bc6ec3af2de697a5e69cac" + "00"  # "ünï-日本" and ""

entitlement = st.text(st.characters(exclude_categories=["Cs"]), max_size=80).filter(
    lambda text: len(text.encode()) <= 255
)
payloads = st.builds(
    Payload,
    product_id=st.uuids(),
    license_id=st.uuids(),
    issued_at=st.integers(0, 2**64 - 1),
    expires_at=st.one_of(st.just(0), st.integers(0, 2**64 - 1)),
    is_trial=st.booleans(),
    entitlements=st.lists(entitlement, max_size=8).map(tuple),
)


def b32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")


def key_over(signed: bytes, signature: bytes | None = None) -> str:
    """A key over any bytes, properly signed unless said otherwise."""
    return f"LIC1-{b32(signed)}-{b32(KEY.sign(signed) if signature is None else signature)}"


def verifies(text: str) -> bool:
    """Whether we take this text for one of our keys."""
    try:
        parsed = parse(text)
    except BadKey:
        return False
    return KEY.public().verify(parsed.signature, parsed.signed)


def client_verifies(text: str) -> bool:
    """Whether the client library does."""
    try:
        CLIENT.verify(text)
    except (LicensingError, UnicodeDecodeError):  # the second is how it refuses what is not UTF-8
        return False
    return True


# Known answers


def test_the_bytes_that_are_signed() -> None:
    assert pack(PLAIN).hex() == PLAIN_HEX
    assert pack(RICH).hex() == RICH_HEX


def test_the_text() -> None:
    text = sign(PLAIN, KEY)
    assert text == key_over(bytes.fromhex(PLAIN_HEX))
    assert len(text) == 242
    assert sign(RICH, KEY) == key_over(bytes.fromhex(RICH_HEX))
    assert sign(PLAIN, KEY) == text  # always the same
    assert sign(PLAIN, PrivateKey(bytes(32))) != text


def test_parse_gives_back_the_payload_and_the_bytes() -> None:
    for payload, signed in ((PLAIN, PLAIN_HEX), (RICH, RICH_HEX)):
        parsed = parse(sign(payload, KEY))
        assert parsed == ParsedKey(payload, bytes.fromhex(signed), KEY.sign(bytes.fromhex(signed)))


# Against the client library


@given(payloads)
def test_what_we_sign_the_client_verifies_and_reads(payload: Payload) -> None:
    text = sign(payload, KEY)
    found = CLIENT.verify(text)
    assert found.product_id == payload.product_id
    assert found.license_id == payload.license_id
    assert found.issued_at == payload.issued_at
    assert found.expires_at == payload.expires_at
    assert found.is_trial == payload.is_trial
    assert found.is_fingerprint_bound is False
    assert found.fingerprint_hash == UNBOUND
    assert found.entitlements == list(payload.entitlements)
    assert found.payload.version == 2
    assert all(has_entitlement(found.payload, name) for name in payload.entitlements)
    peer = parse_license_key(text)
    ours = parse(text)
    assert (peer.payload_bytes, peer.signature) == (ours.signed, ours.signature)
    assert ours.payload == payload


@pytest.mark.parametrize("number", [0, 1, 2, 127, 128, 254, 255])
def test_any_number_of_entitlements(number: int) -> None:
    names = tuple(f"feature-{index}" for index in range(number))
    text = sign(msgspec.structs.replace(PLAIN, entitlements=names), KEY)
    assert CLIENT.verify(text).entitlements == list(names)
    assert parse(text).payload.entitlements == names


def test_the_longest_key() -> None:
    names = tuple(chr(ord("a") + index % 26) * 255 for index in range(255))
    text = sign(msgspec.structs.replace(PLAIN, entitlements=names), KEY)
    assert len(text) == 5 + (83 + 255 * 256) * 8 // 5 + 1 + 1 + 103
    assert CLIENT.verify(text).entitlements == list(names)
    assert parse(text).payload.entitlements == names


def test_what_does_not_fit_is_not_signed() -> None:
    with pytest.raises(ValueError, match="at most 255 entitlements"):
        sign(msgspec.structs.replace(PLAIN, entitlements=("x",) * 256), KEY)
    with pytest.raises(ValueError, match="at most 255 bytes"):
        sign(msgspec.structs.replace(PLAIN, entitlements=("x" * 256,)), KEY)
    with pytest.raises(ValueError, match="at most 255 bytes"):
        sign(msgspec.structs.replace(PLAIN, entitlements=("é" * 128,)), KEY)
    assert client_verifies(sign(msgspec.structs.replace(PLAIN, entitlements=("é" * 127,)), KEY))


def test_the_order_and_case_of_entitlements_are_kept() -> None:
    names = ("b", "A", "a", "b")
    text = sign(msgspec.structs.replace(PLAIN, entitlements=names), KEY)
    assert CLIENT.verify(text).entitlements == list(names)
    assert has_entitlement(CLIENT.verify(text).payload, "A")
    assert not has_entitlement(CLIENT.verify(text).payload, "B")


def test_the_client_knows_when_a_key_expires() -> None:
    text = sign(RICH, KEY)
    assert CLIENT.verify_with_time(text, RICH.expires_at - 1).is_trial
    with pytest.raises(LicensingError) as expired:
        CLIENT.verify_with_time(text, RICH.expires_at)
    assert expired.value.kind == "expired"
    assert CLIENT.verify_with_time(sign(PLAIN, KEY), 2**63).expires_at == 0


def test_a_key_bound_to_a_fingerprint_is_read_as_such() -> None:
    digest = hashlib.sha256(b"machine").digest()
    bound = msgspec.structs.replace(PLAIN, is_bound=True, fingerprint_hash=digest)
    found = CLIENT.verify(sign(bound, KEY))
    assert found.is_fingerprint_bound
    assert found.fingerprint_hash == digest
    assert parse(sign(bound, KEY)).payload == bound


def test_flags_that_mean_nothing_yet_are_ignored() -> None:
    signed = bytearray(pack(RICH))
    signed[1] |= 0xFC
    text = key_over(bytes(signed))
    assert CLIENT.verify(text).is_trial
    assert parse(text).payload == RICH
    assert verifies(text)


def test_version_1_is_read() -> None:
    digest = hashlib.sha256(b"machine").digest()
    signed = bytes((1, 3)) + PRODUCT.bytes + LICENSE.bytes + ISSUED.to_bytes(8, "big") + digest
    text = key_over(signed)
    assert verifies(text)
    assert parse(text).signed == signed
    assert parse(text).payload == Payload(
        product_id=PRODUCT,
        license_id=LICENSE,
        issued_at=ISSUED,
        expires_at=0,
        is_trial=True,
        is_bound=True,
        fingerprint_hash=digest,
        entitlements=(),
    )
    assert CLIENT.verify(text).license_id == LICENSE


@pytest.mark.parametrize("length", [73, 75, 83])
def test_version_1_has_one_length(length: int) -> None:
    signed = (bytes((1, 0)) + PRODUCT.bytes + LICENSE.bytes + bytes(60))[:length]
    assert not verifies(key_over(signed))
    assert not client_verifies(key_over(signed))


# The forms a key may have


def test_the_body_may_be_in_lower_case_and_blanks_around_it_do_not_matter() -> None:
    text = sign(RICH, KEY)
    prefix, payload, signature = text.split("-")
    forms = [
        f"{prefix}-{payload.lower()}-{signature.lower()}",
        f"{prefix}-{payload.lower()}-{signature}",
        f"{prefix}-{payload.capitalize()}-{signature.title()}",
        f" \t{text}\r\n",
    ]
    for form in forms:
        assert parse(form) == parse(text)
        assert verifies(form)
        assert client_verifies(form)


@pytest.mark.parametrize(
    "prefix", ["lic1", "Lic1", "LIC2", "LIC", "LIC11", "", "\N{FULLWIDTH LATIN CAPITAL LETTER L}IC1"]
)
def test_another_prefix_is_refused(prefix: str) -> None:
    text = prefix + sign(PLAIN, KEY)[4:]
    with pytest.raises(BadKey, match="LIC1-<payload>-<signature>"):
        parse(text)
    assert not client_verifies(text)


def test_other_shapes_are_refused() -> None:
    text = sign(PLAIN, KEY)
    prefix, payload, signature = text.split("-")
    shapes = [
        "",
        "-",
        "--",
        "LIC1",
        "LIC1--",
        f"{prefix}-{payload}",
        f"{prefix}-{payload}-",
        f"{prefix}--{signature}",
        f"{prefix}-{payload}-{signature}-",
        f"{prefix}-{payload}-{signature}-{signature}",
        f"-{text}",
        f"{prefix}-{payload[:40]}-{payload[40:]}-{signature}",
        f"{prefix}-{payload[:40]} {payload[40:]}-{signature}",
        f"{prefix}-{payload}===-{signature}=",
        f"{prefix}-{signature}-{payload}",
        text.replace("-", "\N{EN DASH}"),
        "\0" + text,
        "A" * 110_001,
    ]
    for shape in shapes:
        assert not verifies(shape), shape
        assert not client_verifies(shape) or "=" in shape, shape


def test_letters_that_are_only_alike_are_refused() -> None:
    # str.upper() makes ASCII of these; a key has one spelling all the same.
    prefix, payload, signature = sign(RICH, KEY).split("-")
    for ascii_, other in (("S", "\N{LATIN SMALL LETTER LONG S}"), ("I", "\N{LATIN SMALL LETTER DOTLESS I}")):
        assert ascii_ in signature
        altered = f"{prefix}-{payload}-{signature.replace(ascii_, other, 1)}"
        with pytest.raises(BadKey):
            parse(altered)


# Tampering


@pytest.mark.parametrize("payload", [PLAIN, RICH], ids=["plain", "rich"])
def test_a_key_with_any_character_changed_is_refused(payload: Payload) -> None:
    text = sign(payload, KEY)
    assert verifies(text)
    assert client_verifies(text)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    for place, char in enumerate(text):
        others = {alphabet[(alphabet.find(char) + step) % 32] for step in (1, 2, 4, 8, 16, 31)} | {"0", "-", "="}
        for other in others - {char}:
            altered = text[:place] + other + text[place + 1 :]
            assert not verifies(altered), (place, other)


@given(payloads, st.data())
@settings(max_examples=50)
def test_a_key_with_any_bit_changed_is_refused(payload: Payload, data: st.DataObject) -> None:
    signed = pack(payload)
    signature = KEY.sign(signed)
    whole = bytearray(signed + signature)
    place = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[place // 8] ^= 1 << place % 8
    altered = key_over(bytes(whole[: len(signed)]), bytes(whole[len(signed) :]))
    assert not verifies(altered)
    assert not client_verifies(altered)


def test_a_key_that_was_cut_or_grew_is_refused() -> None:
    text = sign(RICH, KEY)
    assert not any(verifies(text[:length]) for length in range(len(text)))
    assert not any(verifies(text + char) for char in "A27=-a")


def test_what_follows_the_last_entitlement_is_refused() -> None:
    for payload in (PLAIN, RICH):
        for extra in (b"\0", b"\1", b"\0\0\0\0\0"):
            text = key_over(pack(payload) + extra)
            with pytest.raises(BadKey, match="follows the last entitlement"):
                parse(text)
            assert not client_verifies(text)


def test_a_payload_that_ends_early_is_refused() -> None:
    signed = pack(RICH)
    for length in range(len(signed)):
        text = key_over(signed[:length])
        with pytest.raises(BadKey):
            parse(text)
        assert not client_verifies(text)


def test_an_unknown_version_is_refused() -> None:
    for version in (0, 3, 255):
        text = key_over(bytes((version,)) + pack(PLAIN)[1:])
        with pytest.raises(BadKey, match="unknown version"):
            parse(text)
        assert not client_verifies(text)


def test_an_entitlement_that_is_not_utf_8_is_refused() -> None:
    text = key_over(pack(PLAIN)[:-1] + b"\x01\x02\xc3\x28")
    with pytest.raises(BadKey, match="not UTF-8"):
        parse(text)
    assert not client_verifies(text)


def test_a_key_is_written_one_way_only() -> None:
    # 83 bytes are 664 bits, 133 characters 665: the last bit is not used. Likewise the signature's last three.
    prefix, payload, signature = sign(PLAIN, KEY).split("-")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    spellings = [f"{prefix}-{payload[:-1]}{alphabet[alphabet.index(payload[-1]) + 1]}-{signature}"]
    spellings += [
        f"{prefix}-{payload}-{signature[:-1]}{alphabet[alphabet.index(signature[-1]) + bits]}" for bits in range(1, 8)
    ]
    for spelling in spellings:
        assert parse_license_key(spelling).payload_bytes == pack(PLAIN)  # others read the same bytes
        with pytest.raises(BadKey, match="not the one way"):
            parse(spelling)


def test_a_key_of_another_seller_does_not_verify() -> None:
    text = sign(RICH, PrivateKey(bytes(32)))
    assert parse(text).payload == RICH
    assert not verifies(text)
    assert not client_verifies(text)


# The keyring


def license_of(signing_key: SigningKey) -> License:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return License(
        id=from_uuid("lic", LICENSE),
        product_id=from_uuid("prd", PRODUCT),
        order_id=None,
        line=None,
        unit=None,
        customer_id=None,
        tier="default",
        status="active",
        issued_at=now,
        expires_at=None,
        grace_seconds=0,
        max_machines=1,
        machine_count=0,
        is_trial=False,
        entitlements=[],
        email=None,
        note=None,
        signing_key_id=signing_key.id,
        suspended_at=None,
        suspension_reason=None,
        revoked_at=None,
        revocation_reason=None,
        metadata={},
        created_at=now,
        updated_at=now,
    )


async def test_rotation_keeps_old_keys_verifying_and_retired_ones_stop(
    database: Database, tenant: str, master: MasterKey, signing_key: PrivateKey
) -> None:
    scope = database.scope(tenant)

    async def keyring() -> Keyring:
        return Keyring(tenant, await scope.read(signing_keys.everyone), master)

    first = await keyring()
    license_ = license_of(first.active)
    old = first.key_of(license_)
    assert old == sign(PLAIN, signing_key)
    assert first.license_id(old) == LICENSE

    fresh = PrivateKey(bytes(range(64, 96)))
    assert (await scope.run(signing_keys.rotate, master, fresh)).status == "active"
    rotated = await keyring()
    new = rotated.key_of(license_of(rotated.active))
    assert new == sign(PLAIN, fresh)
    assert rotated.license_id(old) == rotated.license_id(new) == LICENSE
    assert rotated.key_of(license_) == old  # a license keeps the key it was signed with
    assert not first.knows(rotated.active.id)
    assert rotated.knows(first.active.id)
    with pytest.raises(BadLicenseSignature):
        first.license_id(new)

    rows = await scope.read(signing_keys.everyone)
    assert [row.status for row in sorted(rows, key=lambda row: row.status)] == ["active", "verify_only"]
    retired = [msgspec.structs.replace(row, status="retired") if row.status == "verify_only" else row for row in rows]
    remaining = Keyring(tenant, retired, master)
    assert remaining.license_id(new) == LICENSE
    for _ in range(2):
        with pytest.raises(BadLicenseSignature):
            remaining.license_id(old)


async def test_a_tenant_has_one_active_key_and_the_first_stays_the_first(
    database: Database, tenant: str, master: MasterKey
) -> None:
    scope = database.scope(tenant)
    before = await scope.read(signing_keys.everyone)
    assert await scope.run(signing_keys.create_first, master, PrivateKey.generate()) is False
    assert await scope.read(signing_keys.everyone) == before
    assert [row.status for row in before] == ["active"]


async def test_a_sealed_signing_key_opens_only_where_it_belongs(
    database: Database, tenant: str, master: MasterKey, signing_key: PrivateKey
) -> None:
    (row,) = await database.scope(tenant).read(signing_keys.everyone)
    assert signing_key.to_raw() not in row.private_key_sealed
    assert master.open(row.private_key_sealed, signing_keys.context(tenant, row.id)) == signing_key.to_raw()
    with pytest.raises(Exception, match="signing_key/ten_other"):
        Keyring("ten_other", [row], master).key_of(license_of(row))


def test_a_keyring_refuses_what_is_no_key_of_its_own() -> None:
    row = SigningKey(
        id="sgk_1",
        algorithm="ed25519",
        public_key=KEY.public().to_raw(),
        private_key_sealed=b"",
        status="active",
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        updated_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    keyring = Keyring("ten_1", [row], MasterKey(bytes(32)))
    good = sign(RICH, KEY)
    assert keyring.license_id(good) == LICENSE
    assert keyring.license_id(good) == LICENSE  # remembered
    with pytest.raises(BadKey):
        keyring.license_id(good[:-1])
    with pytest.raises(BadKey):
        keyring.license_id("")
    with pytest.raises(BadLicenseSignature):
        keyring.license_id(sign(RICH, PrivateKey(bytes(32))))


def test_what_a_keyring_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("counterfoil.licensing.keyring._REMEMBERED", 3)
    row = SigningKey("sgk_1", "ed25519", KEY.public().to_raw(), b"", "active", datetime.now(UTC), datetime.now(UTC))
    keyring = Keyring("ten_1", [row], MasterKey(bytes(32)))
    texts = [sign(msgspec.structs.replace(PLAIN, issued_at=number), KEY) for number in range(10)]
    for text in texts:
        assert keyring.license_id(text) == LICENSE
    assert list(keyring._good) == texts[-3:]
    assert keyring.license_id(texts[0]) == LICENSE
