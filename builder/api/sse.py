"""Server-sent events: bytes to lines, lines to events. Pure; nothing grows beyond its named limit.

Source: the event stream format of the HTML standard; of its fields RunPod uses `id` and `data`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["MAX_EVENT_CHARS", "MAX_LINE_BYTES", "Event", "events", "lines"]

MAX_LINE_BYTES = 65_536
"""The rest of a longer line is dropped: programs print anything, and one line must not fill the memory."""
MAX_EVENT_CHARS = 262_144
"""Data lines beyond it are dropped."""


@dataclass(frozen=True)
class Event:
    """One event; `id` is the last one the stream named, empty if none."""

    id: str
    data: str


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines, ended by LF, CR or CRLF, of bytes that come in any pieces; an unfinished last line is dropped."""
    kept = bytearray()
    last_was_cr = False
    for chunk in chunks:
        if last_was_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            last_was_cr = False
        if not chunk:
            continue
        last_was_cr = chunk.endswith(b"\r")
        pieces = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for piece in pieces[:-1]:
            yield _text(kept, piece)
            kept.clear()
        kept += pieces[-1][: MAX_LINE_BYTES - len(kept)]


def events(source: Iterable[str]) -> Iterator[Event]:
    """Events of lines; comments and fields we do not use are skipped, and so is an event the stream breaks off."""
    last_id = ""
    data: list[str] = []
    room = MAX_EVENT_CHARS
    for line in source:
        if not line:
            if data:
                yield Event(last_id, "\n".join(data))
            data, room = [], MAX_EVENT_CHARS
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data" and len(value) < room:
            data.append(value)
            room -= len(value) + 1
        elif name == "id" and "\0" not in value:
            last_id = value


def _text(kept: bytearray, piece: bytes) -> str:
    return (bytes(kept) + piece[: MAX_LINE_BYTES - len(kept)]).decode("utf-8", errors="replace")
