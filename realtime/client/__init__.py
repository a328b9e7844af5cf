"""The reference client: a Python API, and `python -m realtime.client` for files and microphones."""

from __future__ import annotations

from realtime.client.api import LiveClient
from realtime.client.errors import ConnectError, RefusedError, ServerFullError, StreamBrokenError
from realtime.client.messages import (
    ClientOptions,
    Closed,
    Disconnect,
    ErrorReply,
    Event,
    Language,
    Ready,
    Segment,
    ServerWarning,
    Update,
    Wait,
)
from realtime.client.transcript import Transcript

__all__ = [
    "ClientOptions",
    "Closed",
    "ConnectError",
    "Disconnect",
    "ErrorReply",
    "Event",
    "Language",
    "LiveClient",
    "Ready",
    "RefusedError",
    "Segment",
    "ServerFullError",
    "ServerWarning",
    "StreamBrokenError",
    "Transcript",
    "Update",
    "Wait",
]
