"""Reads a job's input: any JSON in, a `JobRequest` within documented bounds out.

Tolerant: null and empty text are the default, numbers and flags may be texts, names may be spelt as other programs
spell them, and what is unknown is a warning. `python -m handler.schema` prints the JSON Schema, and with `--check` what
is wrong with the inputs it reads. Knows nothing of files, models or the platform. Invariants: whatever the input,
`parse_input` raises SttError or nothing; all faults are told at once; no message repeats a URL, audio, a hint or a
secret.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from engine.errors import BadInputError, SttError
from engine.recording_types import RecordingOptions, Task, VadOptions
from engine.types import SearchOptions
from handler.audio_fields import Audio, read_audio
from handler.fields import MAX_TEMPERATURES, W_TYPES, JobInput, VadInput, read_format
from handler.keys import MAX_WARNINGS, Keys, is_absent, mistyped, read_keys, unexpected
from handler.s3 import S3Config
from handler.schema_types import InputErrors, JobRequest, read_store
from handler.tolerance import brief

__all__ = ["MAX_CHECKED_BYTES", "InputErrors", "JobRequest", "checked", "json_schema", "parse_input", "table"]

_HIDDEN = ("audio", "audio_base64", "hotwords", "initial_prompt", "s3_config", "upload_url")
"""Fields whose values no message repeats."""
_FORMAT_FIELDS = ("transcription", "translation")
MAX_CHECKED_BYTES = 20_000_000
"""Largest list that `--check` reads."""
_MAX_MESSAGE_CHARS = 500

Problem = tuple[str, str, str]
"""Field, the value as shown, what is legal."""


def parse_input(raw: object, *, strict: bool, allow_private: bool = False) -> JobRequest:
    """Read a job's `input`.

    `strict`: keys that worker-faster_whisper does not know, and types that it does not take, are refused in its
    words. `allow_private` admits plain http, and stores within our own network, in `upload_url` and `s3Config`.
    Raises BadInputError if the input is no object, and InputErrors for whatever is wrong in it.
    """
    raw = _unwrap(raw)
    refused: list[str] = []
    if strict:
        wrong = mistyped(raw)
        refused = [*unexpected(raw), *wrong.values()]
        raw = {key: value for key, value in raw.items() if key in W_TYPES and key not in wrong}
    keys = read_keys(raw)
    vad_warnings = _relax(keys)
    problems: list[Problem] = []
    fields = _validated(keys, problems)
    audio, fault = _audio(keys)
    problems += audio.problems
    store, store_problem = _store(keys, allow_private=allow_private)
    if fields is not None:
        _cross_check(fields, problems, allow_private=allow_private)
    request = None if fields is None else _request(fields, audio, store)
    if store_problem is not None and (request is None or request.needs_store):
        problems.append(store_problem)
    if problems or refused:
        # Its validator comes before its look at the audio.
        raise _refusal(problems, refused, None if strict else fault)
    if fault is not None:
        raise InputErrors([fault], is_list=False)
    assert fields is not None and request is not None
    warnings = (*keys.warnings, *vad_warnings, *_spelling_warnings(keys, fields), *_idle_options(fields))
    if store_problem is not None:
        warnings = (*warnings, f"{store_problem[0]}: of no use, and ignored; legal: {store_problem[2]}")
    return replace(request, warnings=warnings, allow_private=allow_private, strict=strict)


def _unwrap(raw: object) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise BadInputError("input", _Shown(brief(raw)), "an object with `audio` or `audio_base64`")
    # A whole job where its input is meant: what one gets from pasting a test_input.json.
    inner = raw.get("input")
    if isinstance(inner, dict) and set(raw) <= {"id", "input"}:
        return {str(key): value for key, value in inner.items()}
    return {str(key): value for key, value in raw.items()}


def _relax(keys: Keys) -> list[str]:
    """Replace unknown formats, as worker-faster_whisper does, and drop unknown `vad_parameters`; tell both."""
    for name in _FORMAT_FIELDS:
        value = keys.options.get(name)
        if isinstance(value, str) and read_format(value) is None:
            keys.options[name] = JobInput.model_fields[name].default
            keys.warnings.append(f"{keys.named[name]}: {brief(value)} is no format; plain_text is used")
    given = keys.options.get("vad_parameters")
    if not isinstance(given, dict):
        return []
    older = {"onset": "threshold", "offset": "neg_threshold"}
    kept: dict[str, Any] = {}
    warnings = []
    for key, value in given.items():
        name = older.get(str(key), str(key))
        if name not in VadInput.model_fields:
            warnings.append(f"vad_parameters.{brief(str(key))}: unknown and ignored")
        elif not is_absent(value):
            kept[name] = value
    keys.options["vad_parameters"] = kept
    return warnings[:MAX_WARNINGS]


def _validated(keys: Keys, problems: list[Problem]) -> JobInput | None:
    try:
        return JobInput.model_validate(keys.options)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_context=False):
            path = [part for part in each["loc"] if isinstance(part, str)]
            name = path[0]
            field = JobInput.model_fields[name]
            where = keys.named.get(name, name)
            if name == "vad_parameters" and len(path) > 1:
                field, where = VadInput.model_fields[path[1]], f"{where}.{path[1]}"
            shown = "(hidden)" if name in _HIDDEN else brief(each["input"])
            problem = (where, shown, _legal(field))
            if problem not in problems:
                problems.append(problem)
    return None


def _audio(keys: Keys) -> tuple[Audio, str | None]:
    try:
        return read_audio(keys.audio), None
    except ValueError as error:
        return Audio((), False), str(error)


def _store(keys: Keys, *, allow_private: bool) -> tuple[S3Config | None, Problem | None]:
    try:
        return read_store(keys.options.get("s3_config"), allow_private=allow_private), None
    except BadInputError as error:
        return None, (error.field, "(hidden)", error.legal)


def _cross_check(fields: JobInput, problems: list[Problem], *, allow_private: bool) -> None:
    if fields.upload_url is not None and not allow_private and not fields.upload_url.lower().startswith("https:"):
        problems.append(("upload_url", "(hidden)", _legal(JobInput.model_fields["upload_url"])))
    vad = fields.vad_parameters
    if vad is not None and vad.neg_threshold is not None and vad.neg_threshold > vad.threshold:
        problems.append(("vad_parameters.neg_threshold", f"{vad.neg_threshold:g}", f"0 to threshold {vad.threshold:g}"))


class _Shown:
    """A value whose repr is already fit for a message."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _refusal(problems: list[Problem], refused: list[str], fault: str | None) -> InputErrors:
    errors = [BadInputError(where, _Shown(shown), legal) for where, shown, legal in problems]
    messages = [*refused, *(str(error) for error in errors[:MAX_WARNINGS])]
    if len(errors) > MAX_WARNINGS:
        messages.append(f"{len(errors) - MAX_WARNINGS} more faults")
    return InputErrors([*messages, fault] if fault else messages)


def _spelling_warnings(keys: Keys, fields: JobInput) -> list[str]:
    """One warning for each number or flag that came as text."""
    remarks = []
    for name, value in keys.options.items():
        read = getattr(fields, name)
        if isinstance(value, str) and isinstance(read, (int, float)):
            remarks.append(f"{keys.named[name]}: the text {brief(value)} was read as {brief(read)}")
    return remarks


def _idle_options(fields: JobInput) -> list[str]:
    """One warning for each option that has no effect without another."""
    remarks = []
    if fields.vad_parameters is not None and not fields.enable_vad:
        remarks.append("vad_parameters: no effect without enable_vad")
    if fields.max_line_count is not None and fields.max_line_width is None:
        remarks.append("max_line_count: no effect without max_line_width")
    if fields.languages and fields.language is not None:
        remarks.append("languages: no effect, because language is given")
    return remarks


def _request(fields: JobInput, audio: Audio, store: S3Config | None) -> JobRequest:
    tasks: tuple[Task, ...] = ("transcribe", "translate") if fields.translate else ("transcribe",)
    vad = fields.vad_parameters or VadInput()
    recording = RecordingOptions(
        mode=fields.mode,
        language=fields.language,
        languages=() if fields.language else fields.languages,
        tasks=tasks,
        search=_search(fields),
        prompt=fields.initial_prompt or "",
        hotwords=fields.hotwords or "",
        condition_on_previous_text=fields.condition_on_previous_text,
        word_timestamps=fields.word_timestamps,
        vad=VadOptions(**vad.model_dump()) if fields.enable_vad else None,
        clips=fields.clip_timestamps,
        batch_size=fields.batch_size,
    )
    return JobRequest(
        sources=audio.sources,
        is_list=audio.is_list,
        model=fields.model,
        recording=recording,
        transcription=fields.transcription,
        translation=fields.translation if fields.translate else None,
        output_formats=fields.output_formats,
        word_timestamps=fields.word_timestamps,
        max_line_width=fields.max_line_width,
        max_line_count=fields.max_line_count,
        deadline_s=fields.deadline_s,
        upload=fields.upload,
        upload_url=fields.upload_url,
        s3=store,
    )


def _search(fields: JobInput) -> SearchOptions:
    return SearchOptions(
        beam_size=fields.beam_size,
        best_of=fields.best_of,
        patience=fields.patience,
        length_penalty=fields.length_penalty,
        temperatures=_ladder(fields.temperature, fields.temperature_increment_on_fallback),
        compression_ratio_threshold=fields.compression_ratio_threshold,
        logprob_threshold=fields.logprob_threshold,
        no_speech_threshold=fields.no_speech_threshold,
        suppress_tokens=fields.suppress_tokens,
    )


def _ladder(temperatures: tuple[float, ...], increment: float) -> tuple[float, ...]:
    """The temperatures to try: a given list, or from the first up to 1 in steps of `increment` (0: no steps)."""
    if len(temperatures) > 1 or increment == 0:
        return temperatures
    rungs = (round(temperatures[0] + number * increment, 6) for number in range(MAX_TEMPERATURES))
    return tuple(rung for rung in rungs if rung <= 1)


def _legal(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and extra.get("legal"):
        return str(extra["legal"])
    low = next((rule.ge for rule in field.metadata if hasattr(rule, "ge")), None)
    high = next((rule.le for rule in field.metadata if hasattr(rule, "le")), None)
    if low is not None and high is not None:
        return f"{low} to {high}"
    choices = getattr(field.annotation, "__args__", ())
    words = [choice for choice in choices if isinstance(choice, str)]
    return ", ".join(words) if words else "true or false"


def _default(value: object) -> str:
    """A default as one would write it in JSON; empty if there is none."""
    if value is None or value == ():
        return ""
    if isinstance(value, tuple):
        return ",".join(f"{each:g}" for each in value)
    return f"{value:g}" if isinstance(value, float) else brief(value).strip("'")


def table() -> str:
    """The fields as a Markdown table, `vad_parameters` field by field."""
    lines = ["| field | default | legal | meaning |", "|---|---|---|---|"]
    nested = [(f"vad_parameters.{name}", field) for name, field in VadInput.model_fields.items()]
    for name, field in [*JobInput.model_fields.items(), *nested]:
        default = _default(field.default)
        shown = f"`{default}`" if default else ""
        legal = "a code, or a name" if name == "language" else _legal(field)
        lines.append(f"| `{name}` | {shown} | {legal} | {field.description} |")
    return "\n".join(lines) + "\n"


def json_schema() -> dict[str, Any]:
    """The input as JSON Schema, for forms and generated clients."""
    schema = _tidy(JobInput.model_json_schema())
    assert isinstance(schema, dict)
    schema["anyOf"] = [{"required": ["audio"]}, {"required": ["audio_base64"]}]
    schema["additionalProperties"] = True
    return schema


def _tidy(node: Any) -> Any:
    """Without what is ours alone, and with JSON Schema's names for bounds where pydantic leaves its own."""
    if isinstance(node, list):
        return [_tidy(each) for each in node]
    if not isinstance(node, dict):
        return "inf" if node == float("inf") else node
    names = {"ge": "minimum", "le": "maximum"}
    return {names.get(key, key): _tidy(value) for key, value in node.items() if key not in ("legal", "title")}


def checked(inputs: Sequence[object]) -> list[dict[str, list[str]]]:
    """The faults of each input, and what it would be warned of."""
    return [_checked(each) for each in inputs]


def _checked(raw: object) -> dict[str, list[str]]:
    problems: Sequence[str] = ()
    warnings: Sequence[str] = ()
    try:
        warnings = parse_input(raw, strict=False).warnings
    except InputErrors as error:
        problems = error.messages
    except SttError as error:
        problems = (str(error),)
    cut = [[each[:_MAX_MESSAGE_CHARS] for each in some] for some in (problems, warnings)]
    return {"problems": cut[0], "warnings": cut[1]}


def _check() -> int:
    raw = sys.stdin.buffer.read(MAX_CHECKED_BYTES + 1)
    fault = f"larger than {MAX_CHECKED_BYTES} bytes" if len(raw) > MAX_CHECKED_BYTES else ""
    try:
        inputs = None if fault else json.loads(raw)
    except (ValueError, RecursionError):
        inputs = None
    if not isinstance(inputs, list):
        sys.stderr.write(f"standard input: {fault or 'not a JSON list'}\n")
        return 2
    # A line for each message: whoever reads this may cut long ones.
    sys.stdout.write(json.dumps(checked(inputs), indent=1) + "\n")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m handler.schema`: print the JSON Schema.

    `--check`: read a JSON list of inputs from standard input and print a list of `{"problems", "warnings"}`, one for
    each. Returns the exit code, 2 for another argument or what is no such list.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--check"]:
        return _check()
    if arguments:
        sys.stderr.write("usage: python -m handler.schema [--check]\n")
        return 2
    sys.stdout.write(json.dumps(json_schema(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
