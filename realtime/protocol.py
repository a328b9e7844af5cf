"""The handshake: the first frame of every stream, as collabora/WhisperLive defines it and more.

Every key has a type, a range and a default. Missing keys and nulls mean the default; unknown keys
are ignored, and named in a warning only if they look like a known key misspelt. Keys of WhisperLive
that need no action here (`max_clients`, `clip_audio`, ...) are accepted without a word. What
the server cannot do although the client asks for it becomes a warning, never a refusal: the words
matter more.

Knows nothing of sockets, models or sessions; `HandshakeRules` says what the server offers.
Invariant: `parse_handshake` returns a Handshake within range or raises one of three ClientErrors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from engine.errors import BadHandshakeError, BadInputError, BadJsonError
from realtime.audioformat import FORMATS, MAX_RATE_HZ, MIN_RATE_HZ, AudioFormat, format_named
from realtime.fields import choice, flag, integer, misspelt, number, shown, text
from realtime.jsonguard import load_object
from realtime.messages import CLOSE_CODES, CloseCode, Message, Segment, SegmentWord, encode

__all__ = [
    "CLOSE_CODES",
    "IGNORED_KEYS",
    "READ_KEYS",
    "TASKS",
    "CloseCode",
    "Handshake",
    "HandshakeRules",
    "Message",
    "Segment",
    "SegmentWord",
    "VadParameters",
    "encode",
    "is_end_of_audio",
    "parse_handshake",
    "peek_uid",
]

_T = TypeVar("_T")
_D = TypeVar("_D")

END_OF_AUDIO = "END_OF_AUDIO"

MAX_UID_CHARS = 256
"""Clients send UUIDs of 36; the uid is echoed in every message, so it must stay short."""
MAX_PROMPT_CHARS = 1_000
"""Whisper reads at most 224 tokens of prompt; more text would be cut without a word."""
MAX_HOTWORDS_CHARS = 1_000
"""Hotwords share the prompt's room."""
MAX_MODEL_CHARS = 512
"""Longer than any hub id or path that a client could name."""
MAX_LANGUAGE_CHARS = 32
"""Codes have two or three letters; region and script (`zh-Hant-TW`) are cut off."""
MAX_LANGUAGES = 128
"""Whisper knows 100."""
MAX_LAST_SEGMENTS = 100
"""Completed segments repeated in every message: beyond this, messages outgrow the audio."""
MAX_VAD_MS = 60_000
"""Two of Whisper's windows; longer silences, paddings or minima would never take effect."""
MIN_SPEECH_S = 0.1
MAX_SPEECH_S = 86_400
"""A day; faster-whisper's own default is infinity, which JSON cannot say."""

DEFAULT_LAST_SEGMENTS = 10
DEFAULT_NO_SPEECH = 0.45
"""These two are WhisperLive's defaults."""
TASKS = ("transcribe", "translate")
PROTOCOLS = ("whisperlive", "seed")
TELEPHONY_RATE_HZ = 8_000
"""What mu-law and A-law mean if no rate is given (ITU-T G.711)."""
DEFAULT_RATE_HZ = 16_000

READ_KEYS = (
    "uid", "language", "languages", "task", "model", "use_vad", "initial_prompt", "hotwords", "vad_parameters",
    "send_last_n_segments", "no_speech_thresh", "word_timestamps", "audio_format", "sample_rate_hz", "sample_rate",
    "protocol", "enable_diarization", "enable_translation",
)  # fmt: skip
IGNORED_KEYS = (
    "max_clients", "max_connection_time", "same_output_threshold", "clip_audio", "hf_token", "target_language",
    "diarization_threshold", "max_speakers", "known_speakers",
)  # fmt: skip
"""Sent by official clients, old ones included; nothing here depends on them."""
_VAD_KEYS = (
    "threshold", "neg_threshold", "min_speech_duration_ms", "max_speech_duration_s", "min_silence_duration_ms",
    "speech_pad_ms", "onset", "offset",
)  # fmt: skip


@dataclass(frozen=True)
class VadParameters:
    """Wishes about voice activity detection; None leaves the server's default."""

    threshold: float | None = None
    neg_threshold: float | None = None
    min_speech_duration_ms: int | None = None
    max_speech_duration_s: float | None = None
    min_silence_duration_ms: int | None = None
    speech_pad_ms: int | None = None


@dataclass(frozen=True)
class Handshake:
    """What one client asks for, complete and within range.

    `language` None asks for detection among `languages` (empty: all of the model). `wants_language`
    is true if the client has left the language open: it is owed one `language` message before the
    first segments, even where the server knows the language already.
    """

    uid: str
    language: str | None = None
    wants_language: bool = True
    languages: tuple[str, ...] = ()
    task: str = "transcribe"
    model: str | None = None
    use_vad: bool = False
    initial_prompt: str = ""
    hotwords: str = ""
    vad: VadParameters = field(default_factory=VadParameters)
    send_last_n_segments: int = DEFAULT_LAST_SEGMENTS
    no_speech_thresh: float = DEFAULT_NO_SPEECH
    word_timestamps: bool = False
    audio_format: AudioFormat = "float32"
    sample_rate_hz: int = DEFAULT_RATE_HZ
    seed_protocol: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class HandshakeRules:
    """What the server offers; `new_uid` makes a uid for a client that sends none."""

    model: str
    languages: tuple[str, ...]
    new_uid: Callable[[], str]
    default_language: str | None = None
    tasks: tuple[str, ...] = TASKS


def parse_handshake(frame: str | bytes, rules: HandshakeRules) -> Handshake:
    """Read the first frame of a stream, text or binary.

    Raises BadHandshakeError if it is no JSON object, BadJsonError if it is JSON that no honest
    peer sends (see `realtime.jsonguard`), BadInputError if a known key has a wrong type or range.
    """
    raw = load_object(frame)
    warnings: list[str] = []
    named, language = _language(raw, rules, warnings)
    audio_format = _audio_format(raw)
    uid = text(raw, "uid", MAX_UID_CHARS, least=1)
    return Handshake(
        uid=rules.new_uid() if uid is None else uid,
        language=language,
        wants_language=not named,
        languages=_languages(raw, rules, warnings),
        task=_task(raw, rules, warnings),
        model=_model(raw, rules, warnings),
        use_vad=flag(raw, "use_vad"),
        initial_prompt=text(raw, "initial_prompt", MAX_PROMPT_CHARS) or "",
        hotwords=_hotwords(raw),
        vad=_vad(raw, warnings),
        send_last_n_segments=_or(integer(raw, "send_last_n_segments", 1, MAX_LAST_SEGMENTS), DEFAULT_LAST_SEGMENTS),
        no_speech_thresh=_or(number(raw, "no_speech_thresh", 0, 1), DEFAULT_NO_SPEECH),
        word_timestamps=flag(raw, "word_timestamps"),
        audio_format=audio_format,
        sample_rate_hz=_sample_rate_hz(raw, audio_format),
        seed_protocol=choice(raw, "protocol", PROTOCOLS) == "seed",
        warnings=tuple(warnings + _unsupported(raw) + misspelt(raw, (*READ_KEYS, *IGNORED_KEYS))),
    )


def peek_uid(frame: str | bytes) -> str:
    """The uid of a handshake that was refused, or "" if none can be read.

    WhisperLive's Python client drops messages with another uid, the ERROR that explains the
    refusal included.
    """
    try:
        return text(load_object(frame), "uid", MAX_UID_CHARS) or ""
    except (BadHandshakeError, BadJsonError, BadInputError):
        return ""


def is_end_of_audio(frame: str | bytes) -> bool:
    """True for the message that ends a stream.

    Binary and exact from most clients; text, perhaps with blanks around it, from the iOS app.
    """
    if isinstance(frame, str):
        return frame.strip() == END_OF_AUDIO
    return frame == END_OF_AUDIO.encode()


def _language(raw: Mapping[str, Any], rules: HandshakeRules, warnings: list[str]) -> tuple[bool, str | None]:
    """(The client has named a language, the language to use or None for detection)."""
    only = rules.languages[0] if len(rules.languages) == 1 else None
    given = _code(text(raw, "language", MAX_LANGUAGE_CHARS) or "")
    if not given:
        default = rules.default_language if rules.default_language in rules.languages else None
        return False, only or default
    if given in rules.languages:
        return True, given
    instead = f"'{only}' is used" if only else "it is detected instead"
    warnings.append(f"language: model {rules.model} does not know {shown(given)}; {instead}")
    return True, only


def _languages(raw: Mapping[str, Any], rules: HandshakeRules, warnings: list[str]) -> tuple[str, ...]:
    value = raw.get("languages")
    if value is None:
        return ()
    legal = f"a list of at most {MAX_LANGUAGES} language codes of 1 to {MAX_LANGUAGE_CHARS} characters"
    if not isinstance(value, list) or len(value) > MAX_LANGUAGES:
        raise BadInputError("languages", value, legal)
    codes: dict[str, None] = {}
    for item in value:
        if not isinstance(item, str) or not 1 <= len(item) <= MAX_LANGUAGE_CHARS:
            raise BadInputError("languages", item, legal)
        codes[_code(item)] = None
    unknown = [code for code in codes if code not in rules.languages]
    if unknown:
        warnings.append(f"languages: model {rules.model} does not know {shown(', '.join(unknown))}")
    return tuple(code for code in codes if code in rules.languages)


def _code(text: str) -> str:
    """`en` of `en`, `EN-us`, `en_US`; nothing of blanks and of `auto`."""
    code = text.strip().lower().replace("_", "-").partition("-")[0]
    return "" if code == "auto" else code


def _task(raw: Mapping[str, Any], rules: HandshakeRules, warnings: list[str]) -> str:
    task = choice(raw, "task", TASKS)
    if task in rules.tasks:
        return task
    warnings.append(f"task: model {rules.model} does not {task}; it does {rules.tasks[0]}")
    return rules.tasks[0]


def _model(raw: Mapping[str, Any], rules: HandshakeRules, warnings: list[str]) -> str | None:
    model = text(raw, "model", MAX_MODEL_CHARS)
    if model is not None and model != rules.model:
        warnings.append(f"model: {shown(model)} is not offered; {rules.model} is used")
    return model


def _hotwords(raw: Mapping[str, Any]) -> str:
    value = raw.get("hotwords")
    if isinstance(value, list):
        if not all(isinstance(item, str) for item in value):
            raise BadInputError("hotwords", value, "text or a list of texts")
        value = ", ".join(value)
    return text({"hotwords": value}, "hotwords", MAX_HOTWORDS_CHARS) or ""


def _audio_format(raw: Mapping[str, Any]) -> AudioFormat:
    value = raw.get("audio_format")
    if value is None:
        return "float32"
    name = format_named(value) if isinstance(value, str) else None
    if name is None:
        raise BadInputError("audio_format", value, ", ".join(FORMATS))
    return name


def _sample_rate_hz(raw: Mapping[str, Any], audio_format: AudioFormat) -> int:
    default = TELEPHONY_RATE_HZ if audio_format in ("mulaw", "alaw") else DEFAULT_RATE_HZ
    other = integer(raw, "sample_rate", MIN_RATE_HZ, MAX_RATE_HZ)
    return _or(integer(raw, "sample_rate_hz", MIN_RATE_HZ, MAX_RATE_HZ), _or(other, default))


def _vad(raw: Mapping[str, Any], warnings: list[str]) -> VadParameters:
    given = raw.get("vad_parameters")
    if given is None:
        return VadParameters()
    if not isinstance(given, dict):
        raise BadInputError("vad_parameters", given, "an object")
    warnings += misspelt(given, _VAD_KEYS, "vad_parameters.")
    vad = {f"vad_parameters.{key}": value for key, value in given.items()}
    onset = number(vad, "vad_parameters.onset", 0, 1)
    offset = number(vad, "vad_parameters.offset", 0, 1)
    return VadParameters(
        threshold=_or(number(vad, "vad_parameters.threshold", 0, 1), onset),
        neg_threshold=_or(number(vad, "vad_parameters.neg_threshold", 0, 1), offset),
        min_speech_duration_ms=integer(vad, "vad_parameters.min_speech_duration_ms", 0, MAX_VAD_MS),
        max_speech_duration_s=number(vad, "vad_parameters.max_speech_duration_s", MIN_SPEECH_S, MAX_SPEECH_S),
        min_silence_duration_ms=integer(vad, "vad_parameters.min_silence_duration_ms", 0, MAX_VAD_MS),
        speech_pad_ms=integer(vad, "vad_parameters.speech_pad_ms", 0, MAX_VAD_MS),
    )


def _or(value: _T | None, default: _D) -> _T | _D:
    return default if value is None else value


def _unsupported(raw: Mapping[str, Any]) -> list[str]:
    wishes = ("enable_diarization", "enable_translation")
    return [f"{key}: not supported yet" for key in wishes if flag(raw, key)]
