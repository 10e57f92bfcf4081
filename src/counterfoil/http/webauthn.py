"""The ceremonies of WebAuthn: what we ask of a browser, and what its answers prove.

Pure: nothing here touches the database. The library is imported when the first passkey is made or shown, so that
neither a start nor a server without passkeys pays for it.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from typing import Any
from urllib.parse import urlsplit

import msgspec

from counterfoil.accounts.passkeys import CHALLENGE_LASTS, NewPasskey, Shown
from counterfoil.accounts.types import Passkey
from counterfoil.kernel.errors import Conflict, Invalid, Unauthorized
from counterfoil.kernel.secrets import MasterKey, hmac_sha256, same

CHALLENGE_BYTES = 32
_MOST_CREDENTIAL_ID = 1023  # WebAuthn Level 3, section 4
_MOST_PUBLIC_KEY = 2000
_LEAST_RSA_BITS = 2048
_DEFAULT_PORTS = {"http": 80, "https": 443}


class RelyingParty(msgspec.Struct, frozen=True):
    """Us, as browsers and authenticators know us. A passkey works here only."""

    id: str
    """A host name."""
    origin: str
    base_url: str
    """Where the pages for passkeys are, without a slash at the end."""


def relying_party(base_url: str) -> RelyingParty:
    """Who we are to a browser that reaches us at this address.

    A loopback address becomes ``localhost``, for passkeys belong to names. Raises Conflict
    (``passkeys_unavailable``) where browsers offer none.
    """
    parts = urlsplit(base_url)
    host = _name_of(parts.hostname or "")
    local = host == "localhost" or host.endswith(".localhost")
    if not host or not (parts.scheme == "https" or local):
        raise Conflict(
            "Passkeys need a host name and https. Set COUNTERFOIL_PUBLIC_URL to such an address.",
            code="passkeys_unavailable",
        )
    port = "" if parts.port in {None, _DEFAULT_PORTS.get(parts.scheme)} else f":{parts.port}"
    origin = f"{parts.scheme}://{host}{port}"
    return RelyingParty(host, origin, f"{origin}{parts.path.rstrip('/')}")


def _name_of(host: str) -> str:
    """A host's name as browsers write it; empty where it has none."""
    try:
        return "localhost" if ipaddress.ip_address(host).is_loopback else ""
    except ValueError:
        pass
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return ""


def user_handle(master: MasterKey, tenant: str, user_id: str) -> bytes:
    """What an authenticator knows a user by: it tells nothing of them."""
    return bytes.fromhex(hmac_sha256(master.derive("passkey.user"), f"{tenant}:{user_id}".encode()))


def fake_credential_id(master: MasterKey, tenant: str, email: str) -> str:
    """A credential that is nobody's, always the same for an address: it looks as if there were somebody."""
    return to_text(bytes.fromhex(hmac_sha256(master.derive("passkey.nobody"), f"{tenant}:{email}".encode())))


def to_text(raw: bytes) -> str:
    """URL-safe base 64 without padding, as WebAuthn writes bytes in JSON."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _to_bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# -- what we ask --------------------------------------------------------------------------------------


class Named(msgspec.Struct, frozen=True):
    """Whom a passkey is for, as authenticators list it."""

    handle: bytes
    name: str
    display_name: str


def registration_options(
    party: RelyingParty, shop: str, user: Named, challenge: str, known: list[Passkey]
) -> dict[str, Any]:
    """PublicKeyCredentialCreationOptionsJSON: what ``navigator.credentials.create`` takes."""
    return {
        "rp": {"id": party.id, "name": shop},
        "user": {"id": to_text(user.handle), "name": user.name, "displayName": user.display_name or user.name},
        "challenge": challenge,
        "pubKeyCredParams": [{"type": "public-key", "alg": alg} for alg in _algorithms()],
        "timeout": _timeout(),
        "excludeCredentials": [
            {"type": "public-key", "id": one.credential_id, "transports": one.transports} for one in known
        ],
        "authenticatorSelection": {
            "residentKey": "preferred",
            "requireResidentKey": False,
            "userVerification": "required",
        },
        "attestation": "none",
    }


def request_options(party: RelyingParty, challenge: str, allowed: list[str]) -> dict[str, Any]:
    """PublicKeyCredentialRequestOptionsJSON: what ``navigator.credentials.get`` takes.

    ``allowed``: credentials; none lets the person choose among those their authenticators know for us.
    """
    return {
        "challenge": challenge,
        "rpId": party.id,
        "timeout": _timeout(),
        "allowCredentials": [{"type": "public-key", "id": one} for one in allowed],
        "userVerification": "required",
    }


def _timeout() -> int:
    return int(CHALLENGE_LASTS.total_seconds() * 1000)


def _algorithms() -> list[int]:
    return [-7, -8, -257]  # ES256, EdDSA, RS256 (IANA COSE Algorithms)


# -- what we are told ---------------------------------------------------------------------------------


class _ClientData(msgspec.Struct, rename="camel"):
    challenge: str
    cross_origin: bool | None = None
    top_origin: str | None = None


def challenge_of(credential: dict[str, Any]) -> str | None:
    """The challenge that a browser says it answers; None where it cannot be read.

    We show our pages in no frames, so an answer that was given in somebody's is none.
    """
    try:
        data = msgspec.json.decode(_to_bytes(credential["response"]["clientDataJSON"]), type=_ClientData)
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error, msgspec.MsgspecError):
        return None
    if data.cross_origin or data.top_origin is not None or not data.challenge.isascii():
        return None
    return data.challenge


def verify_registration(party: RelyingParty, credential: dict[str, Any]) -> tuple[str, NewPasskey]:
    """The challenge answered, and the passkey made. Raises Invalid (``bad_passkey``)."""
    from webauthn import verify_registration_response  # noqa: PLC0415 # see above
    from webauthn.helpers import parse_registration_credential_json  # noqa: PLC0415
    from webauthn.helpers.cose import COSEAlgorithmIdentifier  # noqa: PLC0415

    challenge = challenge_of(credential)
    if challenge is None:
        raise _bad_passkey()
    try:
        parsed = parse_registration_credential_json(credential)
        found = verify_registration_response(
            credential=parsed,
            expected_challenge=_to_bytes(challenge),
            expected_rp_id=party.id,
            expected_origin=party.origin,
            require_user_verification=True,
            supported_pub_key_algs=[COSEAlgorithmIdentifier(alg) for alg in _algorithms()],
        )
        usable = _is_usable(found.credential_public_key)
    except Exception as error:  # whatever the library makes of what strangers send
        raise _bad_passkey() from error
    if not usable or len(found.credential_id) > _MOST_CREDENTIAL_ID or parsed.raw_id != found.credential_id:
        raise _bad_passkey()
    return challenge, NewPasskey(
        credential_id=to_text(found.credential_id),
        public_key=found.credential_public_key,
        sign_count=found.sign_count,
        transports=sorted({one.value for one in parsed.response.transports or []}),
        aaguid=found.aaguid,
        backed_up=found.credential_backed_up,
    )


def _is_usable(public_key: bytes) -> bool:
    """Whether this is a key that we can verify with, and of a strength we take."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415
    from webauthn.helpers import decode_credential_public_key, decoded_public_key_to_cryptography  # noqa: PLC0415

    if len(public_key) > _MOST_PUBLIC_KEY:
        return False
    decoded = decode_credential_public_key(public_key)
    match decoded_public_key_to_cryptography(decoded), int(decoded.alg):
        case ec.EllipticCurvePublicKey() as key, -7:
            return isinstance(key.curve, ec.SECP256R1)
        case ed25519.Ed25519PublicKey(), -8:
            return True
        case rsa.RSAPublicKey() as key, -257:
            return key.key_size >= _LEAST_RSA_BITS
        case _:
            return False


def _bad_passkey() -> Invalid:
    return Invalid.field(
        "credential", "not a passkey made here, just now, by somebody who was verified", code="bad_passkey"
    )


def verify_assertion(
    party: RelyingParty, credential: dict[str, Any], passkey: Passkey, handle: bytes
) -> tuple[str, Shown]:
    """The challenge answered, and the passkey shown. ``handle`` is its owner's.

    Raises Unauthorized (``bad_credentials``). Whether the counter moved on is for the transaction to find out.
    """
    from webauthn import verify_authentication_response  # noqa: PLC0415 # see above
    from webauthn.helpers import parse_authentication_credential_json  # noqa: PLC0415

    challenge = challenge_of(credential)
    if challenge is None:
        raise bad_assertion()
    try:
        parsed = parse_authentication_credential_json(credential)
        found = verify_authentication_response(
            credential=parsed,
            expected_challenge=_to_bytes(challenge),
            expected_rp_id=party.id,
            expected_origin=party.origin,
            credential_public_key=passkey.public_key,
            credential_current_sign_count=0,
            require_user_verification=True,
        )
    except Exception as error:  # whatever the library makes of what strangers send
        raise bad_assertion() from error
    told = parsed.response.user_handle
    if to_text(found.credential_id) != passkey.credential_id or (told and not same(told, handle)):
        raise bad_assertion()
    return challenge, Shown(passkey, found.new_sign_count, found.credential_backed_up)


def bad_assertion() -> Unauthorized:
    """What is said of a passkey we do not know, a bad signature and everything else alike."""
    return Unauthorized("This passkey does not open an account here.", code="bad_credentials")
