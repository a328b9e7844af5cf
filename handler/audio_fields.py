"""Finds a job's recordings in the many ways in which they are given.

Strings and objects in, `Source` values out; nothing is fetched or decoded. Invariants: at least one source and at
most MAX_SOURCES, or a problem; no message repeats a URL or audio.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import BadInputError
from handler.addresses import MAX_URL_CHARS
from handler.fields import MAX_SOURCES
from handler.keys import AUDIO_KEYS, is_absent
from handler.s3 import split_s3_url
from handler.sources import Source

__all__ = ["BOTH_GIVEN", "NONE_GIVEN", "Audio", "read_audio"]

NONE_GIVEN = "Must provide either audio or audio_base64"
"""worker-faster_whisper's words."""
BOTH_GIVEN = "Must provide either audio or audio_base64, not both"
"""worker-faster_whisper's words."""
MAX_DATA_HEADER_CHARS = 256
"""Longest header of a data URI: media type, codecs, `;base64`."""
MIN_BASE64_CHARS = 60
"""Shortest text without a scheme that is taken for audio: a WAV header alone has 44 bytes. Shorter ones are file
names."""
SAMPLE_CHARS = 4_096
"""How much of a text is looked at to tell base64 from other text."""
LEGAL = "an http(s) URL, s3://bucket/key, base64, a data URI with base64, or a list of these"

_BASE64 = re.compile(r"[A-Za-z0-9+/=_\-\s]+", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What no URL has; blanks and letters beyond ASCII are quoted where the URL is asked for."""


@dataclass(frozen=True)
class Audio:
    """What was found: sources, whether they came as a list, and what is wrong as (field, shown, legal)."""

    sources: tuple[Source, ...]
    is_list: bool
    problems: tuple[tuple[str, str, str], ...] = ()


def read_audio(given: Mapping[str, Any]) -> Audio:
    """Sources from the audio keys of an input (absent values are left out already).

    Raises ValueError with NONE_GIVEN, or with BOTH_GIVEN if there is more than one key.
    """
    if not given:
        raise ValueError(NONE_GIVEN)
    if len(given) > 1:
        named = sorted(given)
        raise ValueError(BOTH_GIVEN if named == ["audio", "audio_base64"] else f"{BOTH_GIVEN}: {', '.join(named)}")
    ((key, value),) = given.items()
    if not isinstance(value, list):
        return _collect([(key, value)], is_list=False)
    if len(value) > MAX_SOURCES:
        return Audio((), True, ((key, f"a list of {len(value)}", f"at most {MAX_SOURCES}"),))
    return _collect([(f"{key}[{number}]", item) for number, item in enumerate(value)], is_list=True)


def _collect(items: list[tuple[str, Any]], *, is_list: bool) -> Audio:
    sources: list[Source] = []
    problems: list[tuple[str, str, str]] = []
    for place, item in items:
        try:
            sources.append(_item(item, place))
        except ValueError:
            problems.append((place, _shown(item), LEGAL))
    return Audio(tuple(sources), is_list, tuple(problems))


def _item(value: Any, place: str) -> Source:
    if not isinstance(value, dict):
        return _source(value, place)
    held = [key for key in AUDIO_KEYS if not is_absent(value.get(key))]
    if len(held) != 1:
        raise ValueError("one audio key")
    return _source(value[held[0]], f"{place}.{held[0]}")


def _source(value: Any, place: str) -> Source:
    """One source; raises ValueError if the value is none."""
    if not isinstance(value, str):
        raise ValueError("no text")
    text = value.strip()
    scheme = _SCHEME.match(text[:40])
    if scheme is None:
        return _base64(text, place)
    name = scheme[0].lower()
    if name == "data:":
        header, comma, data = text[:MAX_DATA_HEADER_CHARS].partition(",")
        if not comma or not header.lower().endswith(";base64"):
            raise ValueError("no base64")
        return Source("base64", data + text[MAX_DATA_HEADER_CHARS:], place)
    if len(text) > MAX_URL_CHARS or _CONTROL.search(text):
        raise ValueError("no URL")
    if name in ("http:", "https:") and text[len(name) :].startswith("//") and len(text) > len(name) + 2:
        return Source("url", text, place)
    try:
        split_s3_url(text, place)
    except BadInputError:
        raise ValueError("no s3 URL") from None
    return Source("s3", text, place)


def _base64(text: str, place: str) -> Source:
    """Text without a scheme; whether it decodes is found out where it is decoded."""
    is_declared = place.rpartition(".")[2].partition("[")[0] == "audio_base64"
    if not text or not _BASE64.fullmatch(text[:SAMPLE_CHARS]) or (len(text) < MIN_BASE64_CHARS and not is_declared):
        raise ValueError("no base64")
    return Source("base64", text, place)


def _shown(value: object) -> str:
    """The kind of a value, never its content."""
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    if isinstance(value, dict):
        held = [key for key in AUDIO_KEYS if not is_absent(value.get(key))]
        return f"an object with {len(held)} audio keys" if len(held) != 1 else _shown(value[held[0]])
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"
