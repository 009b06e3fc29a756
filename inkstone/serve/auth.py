"""Who may come in: deny by default, decided before anything else looks at the request.

`Gate` is the outermost layer that decides. It lets through the exact routes of `PUBLIC_ROUTES` and requests
that carry a known key, and nothing else: a route added tomorrow, or one that does not exist, needs a key
today. Matching by path prefix is how other servers left side doors open (vLLM's /invocations), so there is
none here.

On loopback no key is needed by default, and then the danger is the user's own browser: a page on the
internet may aim requests at 127.0.0.1 (CSRF) or make its own name point there (DNS rebinding,
CVE-2024-28224). So the Host must be a loopback name, and an Origin, when there is one, must be the server
itself. No CORS header is ever sent.

Keys are kept as sha256 only (they are long and random, so a slow hash would add nothing) and compared in
constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from inkstone.ground.errors import ConfigError
from inkstone.serve.errors import ApiError

KEY_VARIABLE = "INKSTONE_API_KEY"
MIN_KEY_CHARACTERS = 16
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")

# What anybody may see: the page (it asks for the key) and whether the server is up. Nothing of the models.
PUBLIC_ROUTES = frozenset(
    {
        ("GET", "/"),
        ("GET", "/favicon.svg"),
        ("GET", "/assets/workbench.js"),
        ("GET", "/assets/workbench.css"),
        ("GET", "/health"),
    }
)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that open the server, hashed. Empty: no key is asked for."""

    digests: frozenset[bytes] = field(default=frozenset(), repr=False)

    @classmethod
    def of(cls, keys: Iterable[str], *, where: str = "the key") -> Keys:
        """Hash the keys; a key too short to be safe, or not sendable in a header, is refused."""
        digests = set()
        for number, key in enumerate(keys, start=1):
            if re.fullmatch("sha256:[0-9a-f]{64}", key):
                digests.add(bytes.fromhex(key.removeprefix("sha256:")))
                continue
            if not re.fullmatch(r"[!-~]+", key) or len(key) < MIN_KEY_CHARACTERS:
                raise ConfigError(
                    f"{where}: key number {number} is not usable. A key has at least {MIN_KEY_CHARACTERS}"
                    " visible ASCII characters. Make one:"
                    ' python -c "import secrets; print(secrets.token_urlsafe(32))"'
                )
            digests.add(_digest(key))
        return cls(frozenset(digests))

    @classmethod
    def configured(cls, file: Path | None, environment: Mapping[str, str]) -> Keys:
        """The keys of INKSTONE_API_KEY and of a file: one a line, plain or `sha256:<hex>`, # comments."""
        found: set[bytes] = set()
        if file is not None:
            try:
                lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
                raise ConfigError(f"the key file {file} cannot be read: {reason}.") from error
            keys = [line for line in lines if line and not line.startswith("#")]
            if not keys:
                raise ConfigError(f"the key file {file} holds no key. Write one key a line.")
            found |= cls.of(keys, where=str(file)).digests
        if KEY_VARIABLE in environment:
            found |= cls.of([environment[KEY_VARIABLE]], where=KEY_VARIABLE).digests
        return cls(frozenset(found))

    def __bool__(self) -> bool:
        return bool(self.digests)

    def open_for(self, key: str) -> bool:
        """Whether this key is one of ours; takes the same time for every wrong key."""
        came, known = _digest(key), False
        for digest in self.digests:
            known |= hmac.compare_digest(came, digest)
        return known


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def is_loopback(host: str) -> bool:
    """Whether an address or name reaches this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Gate:
    """ASGI middleware: the right Host, no foreign Origin, and a key where keys are on."""

    def __init__(self, app: ASGIApp, *, keys: Keys, hosts: tuple[str, ...] | None) -> None:
        """hosts: the host names that requests may be addressed to; None: any (then a key protects)."""
        self.app, self.keys, self.hosts = app, keys, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 400, 401 or 403, or pass on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket: none is served
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not _netloc(hosts[0]):
            return ApiError(400, "The request needs one valid Host header.", code="invalid_host")
        host = hosts[0]
        if self.hosts is not None and _name(host) not in self.hosts:
            message = (
                "This server answers to loopback names only (http://127.0.0.1, http://localhost)."
                " To serve other machines: inkstone serve --host 0.0.0.0 with an API key."
            )
            return ApiError(403, message, code="host_not_allowed", type="permission_error")
        origins = headers.getlist("origin")
        if any(_origin_netloc(origin) != host.lower() for origin in origins):
            message = "Requests from pages of other sites are refused."
            return ApiError(403, message, code="origin_not_allowed", type="permission_error")
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if not self.keys or (method, scope["path"]) in PUBLIC_ROUTES:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.keys.open_for(key.strip()):
            return None
        message = "The API key is not known. Check it, or ask whoever runs this server."
        if not key:
            message = "An API key is needed: send the header Authorization: Bearer <key>."
        code = "invalid_api_key" if key else "missing_api_key"
        challenge = {"WWW-Authenticate": 'Bearer realm="inkstone"'}
        return ApiError(401, message, code=code, type="authentication_error", headers=challenge)


def _netloc(host: str) -> bool:
    return re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?", host) is not None


def _name(host: str) -> str:
    return re.sub(r":\d+$", "", host).strip("[]").lower()


def _origin_netloc(origin: str) -> str:
    """host:port of an Origin header; "" for `null` and for what cannot be read."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
