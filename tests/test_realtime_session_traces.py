"""Golden traces, session and outbox together: what WhisperLive's clients get to read, message by message.

The peers below are models of those clients: they do with the messages what the real ones do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from realtime.events import Close
from realtime.outbox import Outbox
from realtime.protocol import Handshake, HandshakeRules, is_end_of_audio, parse_handshake
from realtime.session import Session, SessionLimits
from realtime.timers import STARVATION_S
from tests.fakes.driver import Drive, Plan, drive
from tests.fakes.engine import EnergyDetector, Habits, Hearing
from tests.fakes.tones import speak

TEXTS = {1: " Hello", 2: " world.", 3: " How", 4: " are", 5: " you?"}
RULES = HandshakeRules("small", ("en", "es"), lambda: "new")
PYTHON_FILE_CLIENT = {
    "uid": "u1", "language": None, "task": "transcribe", "model": "small", "use_vad": True,
    "send_last_n_segments": 10, "no_speech_thresh": 0.45, "clip_audio": False, "same_output_threshold": 10,
    "enable_translation": False, "target_language": "fr", "hotwords": None, "enable_diarization": False,
    "max_speakers": 10, "word_timestamps": False, "initial_prompt": None, "vad_parameters": None,
}  # fmt: skip
CHROME = {"uid": "u1", "language": None, "task": "transcribe", "model": "small", "use_vad": True}
CHUNK_BYTES = 16_384
"""4096 samples: what WhisperLive's Python client sends every 256 ms."""


def play(handshake: dict[str, Any], plan: Plan, *, tail_s: float = 0.1, limits: SessionLimits | None = None) -> Drive:
    """`Hello world. How are you?` in 2.5 s, by a client that opens with `handshake`."""
    audio, _ = speak([1, 2, 3, 4, 5], [0.1, 0.6, 0.1], lead_s=0.12, tail_s=tail_s)
    parsed = parse_handshake(json.dumps(handshake), RULES)
    hearing = Hearing(Habits(cost_s=0.05, text_of=TEXTS))
    return drive(audio.astype("<f4").tobytes(), plan, handshake=parsed, hearing=hearing, limits=limits)


def shown(body: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(entry["text"], entry["completed"]) for entry in body["segments"]]


FILE_TRACE: list[list[tuple[str, bool]]] = [
    [(" Hello", False)],
    [(" Hello world", False)],
    [(" Hello world.", False)],
    [(" Hello world.", True)],
    [(" Hello world.", True), (" How", False)],
    [(" Hello world.", True), (" How are", False)],
    [(" Hello world.", True), (" How are you", False)],
    [(" Hello world.", True), (" How are you?", False)],
    [(" Hello world.", True), (" How are you?", True)],
]
"""What the list of segments says, in order; steps that the pace skips may be missing, none may be added."""


def assert_is_trace(run: Drive) -> None:
    seen = [shown(message.body) for message in run.of_kind("segments")]
    assert seen[-2:] == FILE_TRACE[-2:]
    steps = iter(FILE_TRACE)
    assert all(any(step == expected for expected in steps) for step in seen), seen
    assert len(seen) >= 4


def test_the_python_file_client() -> None:
    """It stops sending, waits until 15 s have brought nothing new, writes its SRT file and leaves."""
    run = play(PYTHON_FILE_CLIENT, Plan((CHUNK_BYTES,), end_after_s=20.0))
    bodies = [message.body for message in run.sent]
    assert bodies[0] == {"uid": "u1", "language": "en", "language_prob": 0.97}
    assert all(set(body) == {"uid", "segments"} for body in bodies[1:])
    assert_is_trace(run)
    [first, second] = bodies[-1]["segments"]
    assert (first["start"], first["end"]) == ("0.130", "0.820")
    assert float(second["start"]) == pytest.approx(1.43, abs=0.01)
    assert float(second["end"]) == pytest.approx(2.52, abs=0.01)
    # All is said after the starvation limit; then 15 s and more of silence on the wire.
    last_chunk_s = run.now_s - 20.0
    assert run.sent[-1].at_s == pytest.approx(last_chunk_s + STARVATION_S, abs=0.1)
    assert run.close == Close(1000, "")


def test_the_streaming_client() -> None:
    """END_OF_AUDIO right after the last chunk: the last two messages still come, then the close."""
    run = play({**PYTHON_FILE_CLIENT, "language": "en"}, Plan((CHUNK_BYTES,)))
    assert "language" not in run.sent[0].body
    assert_is_trace(run)
    assert run.sent[-1].at_s - run.now_s == 0.0
    assert run.now_s < 3.0
    assert run.close == Close(1000, "")


@pytest.mark.parametrize("named", [False, True])
def test_chrome(named: bool) -> None:
    """Its second message is the language, whatever it is, if none was named; all others need segments."""
    language = "en" if named else None
    run = play({**CHROME, "language": language, "task": "transcribe"}, Plan((32_000,), end_after_s=None, stop_s=20.0))
    bodies = [message.body for message in run.sent]
    assert ("language" in bodies[0]) is not named
    assert all("segments" in body for body in bodies[not named :])


def test_chrome_with_a_warning_due() -> None:
    """What the server cannot do is told after the language and the first text, not between them."""
    run = play({**CHROME, "enable_diarization": True}, Plan((32_000,)))
    kinds = [next(key for key in ("language", "segments", "status") if key in message.body) for message in run.sent]
    assert kinds[:3] == ["language", "segments", "status"]
    assert kinds.count("status") == kinds.count("language") == 1


def test_the_seed_protocol() -> None:
    handshake = parse_handshake(json.dumps({**PYTHON_FILE_CLIENT, "protocol": "seed"}), RULES)
    audio, _ = speak([1, 2, 3, 4, 5], [0.1, 0.6, 0.1], lead_s=0.12)
    session = Session(handshake, SessionLimits(), EnergyDetector(), 80, 0.0)
    run = Drive(session, audio.astype("<f4").tobytes(), Hearing(Habits(text_of=TEXTS)), Plan())
    run._outbox = Outbox(handshake, result_key=True)
    run.run()
    last = run.sent[-1].body
    assert set(last) == {"uid", "segments", "result", "language"}
    assert last["language"] == "en"
    assert last["result"][0] == {"start": 0.13, "end": 0.82, "text": " Hello world.", "completed": True}
    assert [entry["text"] for entry in last["segments"]] == [entry["text"] for entry in last["result"]]


def test_overtime() -> None:
    run = play(PYTHON_FILE_CLIENT, Plan((CHUNK_BYTES,)), limits=SessionLimits(max_connection_time_s=2.55))
    assert run.sent[-1].body == {"uid": "u1", "message": "DISCONNECT"}
    assert shown(run.of_kind("segments")[-1].body)[-1][1]
    assert run.close is not None
    assert run.close.code == 4002


@pytest.mark.parametrize("frames", [(b"END_OF_AUDIO", b"END_OF_AUDIO"), ("END_OF_AUDIO",), (" END_OF_AUDIO\n",)])
def test_all_ways_to_end(frames: tuple[str | bytes, ...]) -> None:
    """Once in binary, twice (the HLS client), as text (the iOS app)."""
    assert all(is_end_of_audio(frame) for frame in frames)
    acts = [(2.6 + 0.001 * number, Session.end_of_audio) for number in range(len(frames))]
    run = play(PYTHON_FILE_CLIENT, Plan((CHUNK_BYTES,), end_after_s=None, acts=acts))
    assert_is_trace(run)
    assert run.close == Close(1000, "")


# Models of the clients


@dataclass
class PythonClient:
    """Records completed segments by time; its SRT writer adds the last provisional one if it differs."""

    recorded: list[dict[str, Any]] = field(default_factory=list)
    last_provisional: dict[str, Any] | None = None
    language: str | None = None

    def read(self, body: dict[str, Any]) -> None:
        if body["uid"] != "u1" or "status" in body:
            return
        if "language" in body:
            self.language = body["language"]
            return
        if "segments" not in body:
            return
        for entry in body["segments"]:
            follows = not self.recorded or float(entry["start"]) >= float(self.recorded[-1]["end"])
            if entry["completed"] and follows:
                self.recorded.append(entry)
        if not body["segments"][-1]["completed"]:
            self.last_provisional = body["segments"][-1]

    def srt_texts(self) -> list[str]:
        tail = self.last_provisional
        missing = tail is not None and (not self.recorded or tail["text"] != self.recorded[-1]["text"])
        return [entry["text"] for entry in [*self.recorded, *([tail] if tail and missing else [])]]


@dataclass
class IosClient:
    """Keys what it shows by the start: a completion with another start than its provisional shows twice."""

    rows: dict[str, str] = field(default_factory=dict)

    def read(self, body: dict[str, Any]) -> None:
        for entry in body.get("segments", ()):
            assert isinstance(entry["start"], str)
            assert isinstance(entry["end"], str)
            self.rows[entry["start"]] = entry["text"]


@pytest.mark.parametrize("send_last_n", [1, 2, 10])
@pytest.mark.parametrize("blocked_s", [(), ((1.0, 9.0),), ((3.0, 5.0), (6.0, 30.0))])
@pytest.mark.parametrize("cost_s", [0.0, 0.4])
def test_every_client_ends_up_with_the_same_text(
    send_last_n: int, blocked_s: tuple[tuple[float, float], ...], cost_s: float
) -> None:
    numbers = [6, 7, 2, 3, 4, 5, 8, 8, 9, 2, 10, 11, 12, 5, 8, 2, 8, 2, 20, 21, 22, 23]
    audio, _ = speak(numbers, [0.1, 0.1, 0.2, 0.8], tail_s=0.1)
    handshake = parse_handshake(json.dumps({**PYTHON_FILE_CLIENT, "send_last_n_segments": send_last_n}), RULES)
    plan = Plan((CHUNK_BYTES,), end_after_s=25.0, blocked_s=blocked_s)
    hearing = Hearing(Habits(cost_s=cost_s, text_of=TEXTS, jitter_s=0.02))
    run = drive(audio.astype("<f4").tobytes(), plan, handshake=handshake, hearing=hearing)
    python, ios = PythonClient(), IosClient()
    for message in run.sent:
        python.read(message.body)
        ios.read(message.body)
    texts = [segment.text for segment in run.completed]
    assert python.srt_texts() == texts
    assert python.language == "en"
    if len(blocked_s) == 0:
        # Unblocked, nothing is shown under a start that is not completed under it.
        assert "".join(ios.rows[start] for start in sorted(ios.rows, key=float)) == run.text
    spoken = "".join(TEXTS.get(number, f" {number}") for number in numbers)
    assert len(run.text.split()) == len(spoken.split())


def test_handshakes_of_old_clients_do() -> None:
    for handshake in (PYTHON_FILE_CLIENT, CHROME, {"uid": "u1"}, {**CHROME, "max_clients": 4}):
        parsed = parse_handshake(json.dumps(handshake), RULES)
        assert isinstance(parsed, Handshake)
        assert parsed.wants_language
        assert parsed.warnings == ()
