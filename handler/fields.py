"""A job's input as one table: `JobInput` is the source of defaults, bounds, JSON Schema and documentation.

The first fields are worker-faster_whisper's, with its names, defaults and meanings; where it has a bug, the help
says what is different here. Knows nothing of how audio is given (`handler.audio_fields`) or of other spellings of
keys (`handler.keys`). Invariant: whatever validates is within the bounds given here, audio and store excepted.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from engine.languages import LANGUAGES, language_code
from handler.addresses import MAX_URL_CHARS
from handler.tolerance import fold, items, to_flag, to_integer, to_number, to_optional_number, to_text

__all__ = ["FORMATS", "MAX_SOURCES", "W_NULLABLE", "W_TYPES", "JobInput", "VadInput", "read_format"]

MAX_SOURCES = 100
"""Recordings in one job; more belong into more jobs, which other workers can take."""
MAX_PROMPT_CHARS = 10_000
"""Longest `initial_prompt`; Whisper looks at the last 223 tokens, about 1,000 characters."""
MAX_HOTWORDS_CHARS = 2_000
"""Longest `hotwords`; Whisper takes 223 tokens of them."""
MAX_TEMPERATURES = 21
"""Steps of the temperature ladder: 0 to 1 in steps of 0.05. Each may cost one more decode of a window."""
MIN_INCREMENT = 0.05
"""Smallest step of the ladder, so that it has MAX_TEMPERATURES at most."""
MAX_SUPPRESSED = 1_000
"""Suppressed tokens; Whisper's own list has about 90."""
MAX_TOKEN = 60_000
"""Largest token id; Whisper's vocabularies end below 51,900."""
MAX_CLIPS = 1_000
"""Clips of a recording; one a second for a quarter of an hour."""
MAX_TIME_S = 172_800.0
"""Largest time: 48 h, the largest MAX_AUDIO_S."""
_INFINITE = ("inf", "infinity", "+inf")

FORMATS = ("plain_text", "formatted_text", "srt", "vtt", "json", "verbose_json", "tsv", "lrc", "txt")
"""Formats of a text: the first four are worker-faster_whisper's."""
_FORMAT_SPELLINGS = {"text": "plain_text", "plain": "plain_text", "formatted": "formatted_text", "webvtt": "vtt"}


def read_format(text: str) -> str | None:
    """The format that is meant, or None."""
    name = fold(text[:40])
    name = _FORMAT_SPELLINGS.get(name, name)
    return name if name in FORMATS else None


def _format(value: object) -> str:
    name = read_format(value) if isinstance(value, str) else None
    if name is None:
        raise ValueError("no format")
    return name


def _formats(value: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_format(part) for part in items(value, len(FORMATS))))


def _folded(value: object) -> object:
    return fold(value) if isinstance(value, str) else value


def _language(value: object) -> str | None:
    if isinstance(value, str) and fold(value[:40]) in ("auto", "detect", "none", "null"):
        return None
    code = language_code(value) if isinstance(value, str) else None
    if code is None:
        raise ValueError("no language")
    return code


def _languages(value: object) -> tuple[str, ...]:
    codes = (_language(part) for part in items(value, len(LANGUAGES)))
    return tuple(dict.fromkeys(code for code in codes if code is not None))


def _temperature(value: object) -> tuple[float, ...]:
    temperatures = tuple(to_number(part) for part in items(value, MAX_TEMPERATURES))
    if not temperatures or not all(0 <= each <= 1 for each in temperatures):
        raise ValueError("out of range")
    return temperatures


def _increment(value: object) -> float:
    number = to_optional_number(value) or 0.0
    if number != 0 and number < MIN_INCREMENT:
        raise ValueError("too small")
    return number


def _tokens(value: object) -> tuple[int, ...]:
    tokens = tuple(dict.fromkeys(to_integer(part) for part in items(value, MAX_SUPPRESSED)))
    if not all(-1 <= token <= MAX_TOKEN for token in tokens):
        raise ValueError("out of range")
    return tokens


def _hotwords(value: object) -> str:
    if isinstance(value, str):
        return to_text(value)
    return ", ".join(to_text(part) for part in items(value, MAX_HOTWORDS_CHARS))


def _seconds_or_endless(value: object) -> float:
    if isinstance(value, str) and fold(value[:40]) in _INFINITE:
        return float("inf")
    return float("inf") if value == float("inf") else to_number(value)


def _clips(value: object) -> tuple[tuple[float, float], ...]:
    """Clips from faster-whisper's forms: a flat list, its text, or pairs; a last open end is the recording's."""
    if isinstance(value, (list, tuple)) and value and not isinstance(value[0], (int, float, str)):
        pairs = [_pair(part) for part in items(value, MAX_CLIPS)]
    else:
        times = [to_number(part) for part in items(value, 2 * MAX_CLIPS)]
        ends = [*times[1::2], float("inf")]
        pairs = list(zip(times[::2], ends, strict=False))
    edges = [time for pair in pairs for time in pair]
    if not all(0 <= start < end for start, end in pairs) or edges != sorted(edges):
        raise ValueError("not ascending")
    if any(MAX_TIME_S < time < float("inf") for time in edges) or any(start > MAX_TIME_S for start, _ in pairs):
        raise ValueError("too late")
    return () if pairs == [(0.0, float("inf"))] else tuple(pairs)


def _pair(value: object) -> tuple[float, float]:
    if isinstance(value, dict):
        value = [value.get("start"), value.get("end")]
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError("no pair")
    start, end = value
    return to_number(start), float("inf") if end is None else _seconds_or_endless(end)


AUDIO = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": ["string", "object"]}, "maxItems": MAX_SOURCES}]}
)
Number = Annotated[float, BeforeValidator(to_number)]
Whole = Annotated[int, BeforeValidator(to_integer)]
Flag = Annotated[bool, BeforeValidator(to_flag)]
Check = Annotated[float | None, BeforeValidator(to_optional_number)]
Text = Annotated[str, BeforeValidator(to_text)]
Format = Annotated[str, BeforeValidator(_format), WithJsonSchema({"type": "string", "enum": list(FORMATS)})]


def _list_of(kind: str) -> WithJsonSchema:
    """Schema of a list that may be written as a text with commas too."""
    return WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": kind}}, {"type": "string"}]})


def _field(default: Any, help_text: str, legal: str = "", **constraints: Any) -> Any:
    """A row of the table; `legal` is for what pydantic's constraints do not say."""
    return Field(default, description=help_text, json_schema_extra={"legal": legal}, **constraints)


class VadInput(BaseModel):
    """`vad_parameters`: faster-whisper's names, meanings and defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: Number = _field(0.5, "probability above which a moment counts as speech", ge=0, le=1)
    neg_threshold: Number | None = _field(
        None, "probability below which speech ends (default: threshold - 0.15)", ge=0, le=1
    )
    min_speech_duration_ms: Whole = _field(0, "shorter speech is left out", ge=0, le=60_000)
    max_speech_duration_s: Annotated[float, BeforeValidator(_seconds_or_endless)] = _field(
        float("inf"), "longer speech is cut", '1 to infinity (`"inf"`)', ge=1
    )
    min_silence_duration_ms: Whole = _field(2_000, "shorter pauses do not end speech", ge=0, le=60_000)
    speech_pad_ms: Whole = _field(400, "kept on each side of speech", ge=0, le=10_000)


class JobInput(BaseModel):
    """The options of a job; null, empty text and absence mean the default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    audio: Annotated[Any, AUDIO] = _field(
        None,
        "URL, `s3://bucket/key`, base64 or data URI; or a list of them or of objects with one audio key each. "
        "Also as `audio_url`, `audio_file`, `file`, `url`. worker-faster_whisper takes one URL",
        f"one source, or up to {MAX_SOURCES}",
    )
    audio_base64: Annotated[Any, AUDIO] = _field(
        None, "base64, with or without a data URI's header; either this or `audio`", "as `audio`"
    )
    model: Annotated[str | None, BeforeValidator(to_text)] = _field(
        None,
        "one of the worker's models (default: the worker's own; `base` in worker-faster_whisper)",
        "text of 1 to 512 characters",
        min_length=1,
        max_length=512,
    )
    transcription: Format = _field(
        "plain_text",
        "format of `transcription`; an unknown one is read as plain_text, with a warning. "
        "vtt begins with `WEBVTT` here",
        ", ".join(FORMATS),
    )
    translate: Flag = _field(
        False, "translate into English too; language, hints, search and speech detection count for both here"
    )
    translation: Format = _field("plain_text", "format of `translation`", ", ".join(FORMATS))
    language: Annotated[str | None, BeforeValidator(_language)] = _field(
        None, "code or English name (default: detect)", f"auto or one of {', '.join(LANGUAGES)}"
    )
    temperature: Annotated[
        tuple[float, ...],
        BeforeValidator(_temperature),
        WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}]}),
    ] = _field((0.0,), "first temperature; a list is the whole ladder", f"0 to 1, or up to {MAX_TEMPERATURES} of them")
    best_of: Whole = _field(5, "candidates at temperatures above 0", ge=1, le=20)
    beam_size: Whole = _field(5, "beams at temperature 0", ge=1, le=20)
    patience: Number = _field(1.0, "how long beams are searched on, as a factor", ge=0.5, le=4)
    length_penalty: Number = _field(
        0.0, "exponent of the length in scores; 0 as in worker-faster_whisper (faster-whisper: 1)", ge=-2, le=2
    )
    suppress_tokens: Annotated[tuple[int, ...], BeforeValidator(_tokens), _list_of("integer")] = _field(
        (-1,),
        "token ids never written, by commas or as a list; -1: the model's own list. worker-faster_whisper ignores it",
        f"up to {MAX_SUPPRESSED} whole numbers from -1 to {MAX_TOKEN}",
    )
    initial_prompt: Text | None = _field(
        None,
        "text before the first word",
        f"text of at most {MAX_PROMPT_CHARS} characters",
        max_length=MAX_PROMPT_CHARS,
    )
    condition_on_previous_text: Flag = _field(
        True, "give each window the text before it (`mode` accurate only: fast decodes windows side by side)"
    )
    temperature_increment_on_fallback: Annotated[float, BeforeValidator(_increment)] = _field(
        0.2,
        "step of the temperature ladder up to 1; 0 or null: no fallback (fails in worker-faster_whisper)",
        f"0, or {MIN_INCREMENT} to 1",
        ge=0,
        le=1,
    )
    compression_ratio_threshold: Check = _field(
        2.4, "text that compresses better counts as a loop; false: no check", ge=0, le=100
    )
    logprob_threshold: Check = _field(
        -1.0, "text with a mean log probability below is tried again; false: no check", ge=-100, le=0
    )
    no_speech_threshold: Check = _field(
        0.6, "probability of no speech above which a doubtful text is dropped; false: no check", ge=0, le=1
    )
    enable_vad: Flag = _field(False, "leave out what is no speech before decoding")
    word_timestamps: Flag = _field(False, "times of each word, in `word_timestamps` and in `words` of each segment")

    mode: Annotated[Literal["fast", "accurate"], BeforeValidator(_folded)] = _field(
        "fast", "fast: stretches between pauses side by side; accurate: one after the other, as faster-whisper does"
    )
    languages: Annotated[tuple[str, ...], BeforeValidator(_languages), _list_of("string")] = _field(
        (), "codes or names among which the language is detected (default: all)", "a list of languages, as `language`"
    )
    hotwords: Annotated[str | None, BeforeValidator(_hotwords), _list_of("string")] = _field(
        None,
        "words to listen for, as text or as a list",
        f"at most {MAX_HOTWORDS_CHARS} characters",
        max_length=MAX_HOTWORDS_CHARS,
    )
    batch_size: Whole | None = _field(
        None,
        "windows of a recording in the engine at once; above 32 as 32 (default: what suits the device)",
        ge=1,
        le=256,
    )
    vad_parameters: VadInput | None = _field(None, "how speech is found; counts with `enable_vad`", "an object")
    clip_timestamps: Annotated[tuple[tuple[float, float], ...], BeforeValidator(_clips), _list_of("number")] = _field(
        (),
        "parts to transcribe, in seconds: `start,end,start,end,...`, as text, list or pairs; "
        "without the last end: to the end of the recording",
        f"ascending times from 0 to {MAX_TIME_S:g}, at most {MAX_CLIPS} parts",
    )
    output_formats: Annotated[tuple[str, ...], BeforeValidator(_formats), _list_of("string")] = _field(
        (), "further formats of the text, in `outputs`", ", ".join(FORMATS)
    )
    max_line_width: Whole | None = _field(None, "characters of a subtitle's line (srt, vtt)", ge=10, le=500)
    max_line_count: Whole | None = _field(
        None, "lines of a subtitle; longer ones are split (with `max_line_width`)", ge=1, le=20
    )
    deadline_s: Number | None = _field(
        None, "seconds from the job's start after which it is given up", ge=1, le=7 * 86_400
    )
    upload: Flag | None = _field(None, "put the result into the store and return a link to it")
    upload_url: Annotated[str | None, BeforeValidator(to_text)] = _field(
        None,
        "presigned URL to which the result is put as JSON",
        f"https URL of at most {MAX_URL_CHARS} characters",
        max_length=MAX_URL_CHARS,
        pattern=r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s/]+\S*$",
    )
    s3_config: Annotated[Any, WithJsonSchema({"type": "object"})] = _field(
        None,
        "store of `s3://` audio, as RunPod's `s3Config` (default: the worker's own); one of no use fails only a job "
        "that needs it",
        "an object with accessId, accessSecret, endpointUrl and bucketName",
    )


W_TYPES: dict[str, type] = {
    **dict.fromkeys(("audio", "audio_base64", "model", "transcription", "translation", "language"), str),
    **dict.fromkeys(("suppress_tokens", "initial_prompt"), str),
    **dict.fromkeys(("best_of", "beam_size"), int),
    **dict.fromkeys(("temperature", "patience", "length_penalty", "temperature_increment_on_fallback"), float),
    **dict.fromkeys(("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"), float),
    **dict.fromkeys(("translate", "condition_on_previous_text", "enable_vad", "word_timestamps"), bool),
}
"""The keys that worker-faster_whisper knows, and the type that it asks for."""
W_NULLABLE = ("audio", "audio_base64", "language", "initial_prompt")
"""Those that may be null there."""
