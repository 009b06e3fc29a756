"""How much one request, and all requests together, may ask for.

Every list and number has a maximum in the schema (`apps.py` uses the constants below), and the body is
weighed before it is read: a declared length above the limit is refused at once, an undeclared one is cut
off when it gets there, and a body that trickles in is given up. Reading happens here, once, so nothing
further in can be made to wait.

How many requests may wait for a model is limited where the waiting happens, in `models.py`.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inkstone.serve.errors import ApiError, busy

MAX_TEXTS = 256  # in one request
MAX_TEXT_CHARACTERS = 20_000  # in one text: about ten pages
MAX_CHARACTERS = 100_000  # in all texts of one request together
MAX_BODY_BYTES = 2 * 1024 * 1024  # 100,000 characters, each written as two \\uXXXX escapes, and room to spare
MAX_BEAM = 8
BODY_TIMEOUT_S = 30.0
MAX_OPEN_REQUESTS = 256  # read and not yet answered; bounds the memory that bodies take together


class Limits:
    """ASGI middleware: reads the body within the limits and hands it on in one piece."""

    def __init__(self, app: ASGIApp, *, body_timeout_s: float = BODY_TIMEOUT_S) -> None:
        self.app = app
        self.body_timeout_s = body_timeout_s
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse with 408, 413 or 503, or pass on."""
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        if self._open >= MAX_OPEN_REQUESTS:
            message = f"The server is answering {MAX_OPEN_REQUESTS} requests already. Try again shortly."
            refusal = busy(message, status=503, code="too_many_requests", retry_after_s=1)
            await refusal.response()(scope, receive, send)
            return
        self._open += 1
        try:
            body = await self._read(scope, receive)
            await self.app(scope, _replay(body, receive), send)
        except ApiError as error:  # from reading only: the application answers its own
            await error.response()(scope, receive, send)
        finally:
            self._open -= 1

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared[:20]) > MAX_BODY_BYTES:
            raise _too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(
                            400, "The connection ended before the body did.", code="incomplete_body"
                        )
                    body += message.get("body", b"")
                    if len(body) > MAX_BODY_BYTES:
                        raise _too_large()
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            late = f"The body did not arrive within {self.body_timeout_s:g} s."
            raise ApiError(408, late, code="body_timeout", headers={"Connection": "close"}) from None


def _too_large() -> ApiError:
    message = (
        f"The request is larger than {MAX_BODY_BYTES:,} bytes. Send at most {MAX_TEXTS} texts with"
        f" {MAX_CHARACTERS:,} characters together, and the rest in further requests."
    )
    return ApiError(413, message, code="request_too_large", headers={"Connection": "close"})


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body first, and then whatever comes (the disconnect)."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
