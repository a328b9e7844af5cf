"""What a session asks its skin to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from engine.types import WindowJob
from realtime.messages import Segment

__all__ = [
    "Cancel",
    "Close",
    "Decode",
    "Event",
    "Message",
    "SendDisconnect",
    "SendLanguage",
    "SendSegments",
    "SendWarning",
]


@dataclass(frozen=True)
class Decode:
    """Submit `job`; hand its outcome to `Session.result` under `job_id`."""

    job_id: int
    job: WindowJob


@dataclass(frozen=True)
class Cancel:
    """The outcome of this job is no longer wanted."""

    job_id: int


@dataclass(frozen=True)
class SendSegments:
    """Newly completed segments and the provisional one, if any."""

    completed: tuple[Segment, ...]
    provisional: Segment | None


@dataclass(frozen=True)
class SendLanguage:
    """The detected language; precedes all text where the peer named none."""

    language: str
    probability: float


@dataclass(frozen=True)
class SendWarning:
    """A text for the peer's eyes."""

    text: str


@dataclass(frozen=True)
class SendDisconnect:
    """The session limit is over."""


@dataclass(frozen=True)
class Close:
    """Close the socket once all messages before this event are sent."""

    code: int
    reason: str


Message: TypeAlias = SendSegments | SendLanguage | SendWarning | SendDisconnect
Event: TypeAlias = Decode | Cancel | Message | Close
