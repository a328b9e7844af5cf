"""Short hands for streams in virtual time: who the peer is, what it says, what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from engine.types import FloatArray, WindowResult, Word
from realtime.events import Close, Event
from realtime.protocol import Handshake
from realtime.session import Session, SessionLimits
from tests.fakes.driver import N_MELS, Drive, Plan, drive
from tests.fakes.engine import EnergyDetector, Habits, Hearing
from tests.fakes.tones import Spoken, speak

__all__ = ["BOTH", "GATED", "OPEN", "UNGATED", "S", "closed", "heard", "kinds", "new_session", "raw", "say", "talk"]

S = 16_000
"""Samples in a second."""
GATED = Handshake("u1", language="en", wants_language=False, use_vad=True)
UNGATED = replace(GATED, use_vad=False)
OPEN = replace(GATED, language=None, wants_language=True)
"""A peer that leaves the language open."""
BOTH = pytest.mark.parametrize("handshake", [GATED, UNGATED], ids=["gated", "ungated"])


def raw(samples: FloatArray) -> bytes:
    """As float32 on the wire."""
    return samples.astype("<f4").tobytes()


def talk(numbers: Sequence[int], *pauses_s: float, **options: float) -> tuple[bytes, list[Spoken]]:
    """Raw audio of spoken numbers, and where they are."""
    audio, spoken = speak(numbers, pauses_s or (0.1,), **options)
    return raw(audio), spoken


def say(
    numbers: Sequence[int],
    plan: Plan | None = None,
    *,
    handshake: Handshake = GATED,
    habits: Habits | None = None,
    limits: SessionLimits | None = None,
    pauses_s: tuple[float, ...] = (0.1,),
    **options: float,
) -> Drive:
    """Drive a session over spoken numbers to its end."""
    audio, _ = talk(numbers, *pauses_s, **options)
    return drive(audio, plan, handshake=handshake, hearing=Hearing(habits), limits=limits)


def new_session(handshake: Handshake = GATED, limits: SessionLimits | None = None) -> Session:
    """A session to be fed by hand."""
    return Session(handshake, limits or SessionLimits(), EnergyDetector(), N_MELS, 0.0, "s1")


def kinds(events: Sequence[Event]) -> list[str]:
    """The names of events."""
    return [type(event).__name__ for event in events]


def heard(*words: Word, **changes: Any) -> WindowResult:
    """What a flawless engine says."""
    return replace(WindowResult(tuple(words), "en", (), -0.2, 0.0, 1.0), **changes)


def closed(run: Drive) -> Close:
    """How the stream was closed; fails if it was not."""
    assert run.close is not None
    return run.close
