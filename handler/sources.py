"""Where a job's audio is: the value that `handler.schema` finds and `handler.fetch` opens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["PARALLEL_SOURCES", "Source"]

PARALLEL_SOURCES = 2
"""Recordings of one job in work at a time: one is fetched while the engine is busy with the other."""


@dataclass(frozen=True)
class Source:
    """One recording of a job.

    `value` is a URL, `s3://bucket/key`, or base64 (a data URI's header is gone already). `field` is the key of
    the input that it came from, for messages. `value` may be a signed URL or speech: it is not shown by repr.
    """

    kind: Literal["url", "base64", "s3"]
    value: str
    field: str

    def __repr__(self) -> str:
        return f"Source({self.kind}, {len(self.value)} characters, from {self.field})"
