"""The answer to one HTTP request: one document, or a stream of server-sent events.

Knows no request and no transcript. Invariants: an answer begins once and ends once; an error that comes after
the head of a stream becomes an event in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.types import Send

from engine.errors import SttError
from realtime.audio_errors import error_body, error_headers, error_status

__all__ = ["Reply"]

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    # nginx and its kin would collect events until their buffer is full.
    "X-Accel-Buffering": "no",
}


class Reply:
    """Sends at most one answer."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_begun = False
        self._is_ended = False

    async def document(
        self, body: str, content_type: str, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """The whole answer."""
        data = body.encode()
        length = {"Content-Type": content_type, "Content-Length": str(len(data))}
        self._is_ended = True  # also if it is cancelled between head and body: no event may follow then
        await self._begin(status, {**length, **(headers or {})})
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def event(self, data: Mapping[str, Any]) -> None:
        """One event; the first one begins the stream."""
        await self._stream(f"data: {json.dumps(data, ensure_ascii=False, allow_nan=False)}\n\n")

    async def keep_alive(self) -> None:
        """A comment, which clients skip and proxies take for life."""
        await self._stream(": keep-alive\n\n")

    async def end(self) -> None:
        """No more events."""
        self._is_ended = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: SttError) -> None:
        """Tell an error, in whichever way is left."""
        if self._is_ended:
            return
        body = error_body(error)
        if not self._is_begun:
            text = json.dumps(body, ensure_ascii=False)
            await self.document(text, "application/json", error_status(error), error_headers(error))
            return
        await self.event(body)
        await self.end()

    async def _stream(self, text: str) -> None:
        if not self._is_begun:
            await self._begin(200, STREAM_HEADERS)
        await self._send({"type": "http.response.body", "body": text.encode(), "more_body": True})

    async def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self._is_begun = True
        pairs = {"Cache-Control": "no-store", **headers}.items()
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
