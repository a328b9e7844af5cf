"""Makes a result fit into what the platform takes.

The platform answers a body over its limit with an error, and the job is lost. Results of JSON values in and out,
nothing is changed in place. Invariants: sizes are those of the body as the SDK posts it; whatever is left out is
named in `warnings`, and `truncated` is true, or, with `strict`, it is named in the log, and no key is added; the
text is never cut: it is there as a whole, or it is in an uploaded result, or there is ResultTooLargeError.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from engine.errors import ResultTooLargeError

__all__ = ["encoded", "posted_bytes", "shrink", "summary"]

_STATISTICS = ("seek", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob")

Result = dict[str, Any]

_log = logging.getLogger(__name__)


def encoded(result: Mapping[str, Any]) -> bytes:
    """A result as a document of its own."""
    return json.dumps(result, ensure_ascii=False, allow_nan=False).encode("utf-8")


def posted_bytes(result: Mapping[str, Any]) -> int:
    """Bytes of the body in which RunPod's SDK posts this result (`ensure_ascii=False`, within `output`)."""
    return len(encoded({"output": result}))


def shrink(result: Mapping[str, Any], max_bytes: int, *, strict: bool = False) -> Result:
    """The result, without as much as must go to fit into `max_bytes`.

    In this order: tokens, `outputs`, words within segments, `word_timestamps`, statistics of segments, segments;
    then the transcription becomes plain text, and the translation goes. A result {"results": [...]} is shrunk item
    by item, all alike. Raises ResultTooLargeError if the plain text alone does not fit. `strict`: warnings of the
    result go into the log, and those of this function too.
    """
    if strict:
        for warning in result.get("warnings", ()):
            _log.warning("%s", warning)
        result = _without(result, ("warnings",))
    size = posted_bytes(result)
    if size <= max_bytes:
        return dict(result)
    too_large = f"left out to fit {size} bytes into {max_bytes}"
    plain = [_plain_text(item) for item in _items(result)]
    for name, step in _STEPS:
        parts = _items(result)
        shrunk = [item if _is_error(item) else step(item, text) for item, text in zip(parts, plain, strict=True)]
        if not strict:
            shrunk = [_noted(*pair, f"{name}: {too_large}") for pair in zip(parts, shrunk, strict=True)]
        elif shrunk != parts:
            _log.warning("%s: %s", name, too_large)
        result = _with_items(result, shrunk)
        if posted_bytes(result) <= max_bytes:
            return dict(result)
    raise ResultTooLargeError(
        f"the text alone has {posted_bytes(result)} bytes, and MAX_RESULT_BYTES is {max_bytes}; "
        "set BUCKET_ENDPOINT_URL and its keys, or give upload_url"
    )


def summary(result: Mapping[str, Any], max_bytes: int, *, link: str | None, strict: bool = False) -> Result:
    """What is answered when the whole result was put elsewhere: `result_url`, counts, and the text if it fits.

    `link` None: the caller knows where it is. The text is as asked for, or plain, or, if neither fits, null.
    `strict`: the result, shrunk without new keys; the link only if the text does not fit, which would be lost.
    """
    if strict:
        with contextlib.suppress(ResultTooLargeError):
            return shrink(result, max_bytes, strict=True)
    items = _items(result)
    facts = {"uploaded": True, "result_bytes": len(encoded(result))} | ({"result_url": link} if link else {})
    short = [item if _is_error(item) else _counted(item) for item in items]
    plain = [_plain_text(item) for item in items]
    answer = _with_items(result, short) | facts
    if posted_bytes(answer) > max_bytes:
        plainer = [
            _noted(item, _plain(item, text), "transcription: plain text here")
            for item, text in zip(short, plain, strict=True)
        ]
        answer = _with_items(result, plainer) | facts
    if posted_bytes(answer) > max_bytes:
        bare = [
            _noted(item, item | {"transcription": None, "translation": None}, "text: in the uploaded result only")
            for item in short
        ]
        answer = _with_items(result, bare) | facts
    return answer


def _items(result: Mapping[str, Any]) -> list[Result]:
    """The results of single recordings: those of a list, or the result itself."""
    listed = result.get("results")
    return listed if isinstance(listed, list) else [dict(result)]


def _with_items(result: Mapping[str, Any], items: list[Result]) -> Result:
    return {**result, "results": items} if isinstance(result.get("results"), list) else items[0]


def _is_error(item: Mapping[str, Any]) -> bool:
    return "error" in item


def _noted(before: Result, after: Result, note: str) -> Result:
    """`after`, with a note if it differs."""
    if _is_error(before) or after == before:
        return before
    return after | {"warnings": [*after.get("warnings", []), note], "truncated": True}


def _plain_text(item: Mapping[str, Any]) -> str:
    """The text of all segments, as the format plain_text has it."""
    texts = (str(segment.get("text", "")).strip() for segment in item.get("segments") or [])
    return " ".join(text for text in texts if text)


def _counted(item: Result) -> Result:
    segments = item.get("segments") or []
    words = item.get("word_timestamps")
    counts = {"segments": len(segments)} | ({"words": len(words)} if words is not None else {})
    kept = {key: value for key, value in item.items() if key not in ("segments", "word_timestamps", "outputs")}
    return kept | {"segments": [], "counts": counts}


def _tokens(item: Result, _text: str) -> Result:
    segments = item.get("segments") or []
    return item | {"segments": [segment | {"tokens": []} for segment in segments]}


def _outputs(item: Result, _text: str) -> Result:
    return {key: value for key, value in item.items() if key != "outputs"}


def _words(item: Result, _text: str) -> Result:
    return item | {"segments": [_without(segment, ("words",)) for segment in item.get("segments") or []]}


def _word_timestamps(item: Result, _text: str) -> Result:
    return item | {"word_timestamps": []} if item.get("word_timestamps") else item


def _statistics(item: Result, _text: str) -> Result:
    return item | {"segments": [_without(segment, _STATISTICS) for segment in item.get("segments") or []]}


def _segments(item: Result, _text: str) -> Result:
    return item | {"segments": []}


def _plain(item: Result, text: str) -> Result:
    given = item.get("transcription")
    is_shorter = isinstance(given, str) and 0 < len(text) < len(given)
    return item | {"transcription": text} if is_shorter else item


def _translation(item: Result, _text: str) -> Result:
    return item | {"translation": None}


def _without(segment: Mapping[str, Any], keys: tuple[str, ...]) -> Result:
    return {key: value for key, value in segment.items() if key not in keys}


_STEPS: tuple[tuple[str, Callable[[Result, str], Result]], ...] = (
    ("tokens", _tokens),
    ("outputs", _outputs),
    ("words in segments", _words),
    ("word_timestamps", _word_timestamps),
    ("statistics of segments", _statistics),
    ("segments", _segments),
    ("format of transcription (it is plain text)", _plain),
    ("translation", _translation),
)
"""What goes, in this order; each is given the plain text too."""
