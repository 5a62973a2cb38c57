"""Limits in front of the application: a bearer token, the size of a body, and the time to send it."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from marca_env.utils.errors import InputError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
OPEN_PATHS = ("/healthz", "/readyz")
"""Paths that need no token: load balancers ask them."""
_LEAST_TOKEN = 16


def read_token(path: str | Path) -> str:
    """Return the token in a file, one line.

    Raises:
        InputError: no such file, or fewer than 16 characters.
    """
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {path}: cannot be read ({type(error).__name__}); check the path") from None
    if len(token) < _LEAST_TOKEN or not token.isascii() or len(token.split()) != 1:
        raise InputError(
            f"--token-file {path}: a token is one word of at least {_LEAST_TOKEN} ASCII characters; make one with "
            "`openssl rand -hex 32`"
        )
    return token


class Limits:
    """ASGI middleware that refuses what is not allowed, too big or too slow.

    Args:
        app: the application.
        token: bearer token that every path but :data:`OPEN_PATHS` needs; ``None``: none.
        most_bytes: size of a body.
        seconds: time in which a client must send it.
    """

    def __init__(self, app: App, token: str | None, most_bytes: int, seconds: float) -> None:
        self.app, self.most_bytes, self.seconds = app, most_bytes, seconds
        self._expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self._expected is not None and scope["path"] not in OPEN_PATHS:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                await _refuse(send, 401, "send the header 'Authorization: Bearer TOKEN'")
                return
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip()
        if scope["method"] in ("POST", "PUT") and kind != b"application/json":  # web pages cannot send it elsewhere
            await _refuse(send, 415, "send the header 'Content-Type: application/json'")
            return
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.most_bytes:
            await _refuse(send, 413, f"the body has {int(length)} bytes; send at most {self.most_bytes}")
            return
        try:
            body = await asyncio.wait_for(self._body(receive), self.seconds)
        except TimeoutError:
            await _refuse(send, 408, f"the body did not come within {self.seconds:g} s")
            return
        if body is None:
            await _refuse(send, 413, f"the body has more than {self.most_bytes} bytes; send fewer requests at once")
            return
        pending = [body]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self.app(scope, replay, send)

    async def _body(self, receive: Receive) -> Message | None:
        """Return the whole body as one message; ``None`` if it is too big."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return message
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.most_bytes:
                return None
            if not message.get("more_body", False):
                return {"type": "http.request", "body": b"".join(parts), "more_body": False}


async def _refuse(send: Send, status: int, error: str) -> None:
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
