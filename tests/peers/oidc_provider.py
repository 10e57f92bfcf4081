"""An OpenID Connect provider on loopback that does as it is told, right or wrong.

    with running_provider(now=clock.now) as peer:
        peer.person = {"sub": "1", "email": "ada@example.com", "email_verified": True}

It checks what a provider must check: the client's secret, the redirect address, PKCE, and that a code is used once.
Whoever comes to its authorization endpoint is ``person``, without being asked.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

CLIENT_ID, CLIENT_SECRET = "counterfoil at example", "s3cret: ü&%"
_ALGORITHMS: dict[str, Any] = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "PS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}


class Key:
    """A signing key."""

    def __init__(self, algorithm: str, kid: str | None) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.private: Any
        match algorithm:
            case "ES256":
                self.private = ec.generate_private_key(ec.SECP256R1())
            case "EdDSA":
                self.private = ed25519.Ed25519PrivateKey.generate()
            case _:
                self.private = rsa.generate_private_key(65537, 2048)

    @property
    def public(self) -> dict[str, Any]:
        jwk: dict[str, Any] = _ALGORITHMS[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        return {**jwk, **({"kid": self.kid} if self.kid else {}), "use": "sig", "alg": self.algorithm}

    def sign(self, claims: dict[str, Any], **headers: Any) -> str:
        kid = {"kid": self.kid} if self.kid else {}
        # Not jwt.encode: it refuses claims that are wrong on purpose.
        return jwt.PyJWS().encode(json.dumps(claims).encode(), self.private, self.algorithm, {**kid, **headers})


_FIRST_KEY = Key("RS256", "first")


class OidcPeer:
    """A running provider, and what can be told to it."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.url = ""
        self.person: dict[str, Any] = {"sub": "1"}
        self.key = _FIRST_KEY
        self.published: list[dict[str, Any]] = [self.key.public]
        self.claims: dict[str, Any] = {}
        """What is put over an ID token's claims; None takes one away."""
        self.make_token: Callable[[dict[str, Any]], str] | None = None
        """Makes the ID token of its claims, instead of ``key``."""
        self.discovery: dict[str, Any] = {}
        """What is put over the discovery document; None takes a field away."""
        self.answers: dict[str, tuple[int, bytes]] = {}
        """By path: what is answered instead, with which status."""
        self.silent: set[str] = set()
        """Paths that are not answered before the end."""
        self.asked: list[str] = []
        """Every path that was asked for."""
        self.codes: dict[str, dict[str, str]] = {}
        self.verifiers: list[str] = []
        """The secrets of PKCE that it was shown."""
        self.over = threading.Event()

    @property
    def settings(self) -> dict[str, Any]:
        return {"issuer": self.url, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "label": "The Peer"}

    def document(self) -> dict[str, Any]:
        made = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            **self.discovery,
        }
        return {name: value for name, value in made.items() if value is not None}

    def authorize(self, query: dict[str, str]) -> str:
        """Where the person's browser goes back to."""
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT_ID
        assert "openid" in query["scope"].split()
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.codes[code] = {**query, "person": json.dumps(self.person)}
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def redeem(self, authorization: str | None, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """The token endpoint's status and answer."""
        if authorization is None:
            who = form.get("client_id"), form.get("client_secret")
        else:
            name, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
            who = unquote_plus(name), unquote_plus(secret)
        by_form = "client_secret_basic" not in self.document().get(
            "token_endpoint_auth_methods_supported", ["client_secret_basic"]
        )
        if who != (CLIENT_ID, CLIENT_SECRET) or by_form != (authorization is None):
            return 401, {"error": "invalid_client"}
        self.verifiers.append(form["code_verifier"])
        asked = self.codes.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode()
        if (
            asked is None
            or form["grant_type"] != "authorization_code"
            or form["redirect_uri"] != asked["redirect_uri"]
            or challenge.rstrip("=") != asked["code_challenge"]
        ):
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": "unused", "token_type": "Bearer", "id_token": self.token(asked)}

    def token(self, asked: dict[str, str]) -> str:
        now = int(self.now().timestamp())
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **json.loads(asked["person"]),
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return self.make_token(claims) if self.make_token else self.key.sign(claims)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 200

    def __init__(self, peer: OidcPeer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.peer = peer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts, peer = urlsplit(self.path), self.server.peer
        match parts.path:
            case "/.well-known/openid-configuration":
                self._say(200, peer.document())
            case "/keys":
                self._say(200, {"keys": peer.published})
            case "/authorize":
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                self._send(302, b"", Location=peer.authorize(query))
            case _:
                self._say(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self._say(*self.server.peer.redeem(self.headers.get("Authorization"), form))

    def _say(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        path, peer = urlsplit(self.path).path, self.server.peer
        peer.asked.append(path)
        if path in peer.silent:
            peer.over.wait(60)
            self.close_connection = True
            return
        status, body = peer.answers.get(path, (status, body))
        with contextlib.suppress(ConnectionError):  # the other side has heard enough
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)


@contextlib.contextmanager
def running_provider(now: Callable[[], datetime]) -> Iterator[OidcPeer]:
    """A provider in a thread of its own, for as long as the block lasts."""
    peer = OidcPeer(now)
    server = _Server(peer)
    peer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        peer.over.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
