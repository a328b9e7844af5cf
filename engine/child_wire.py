"""What the serving process and the engine child say to each other.

Both ends are ours and of one version, on a socket pair that nobody else holds: pickled tuples
over `multiprocessing.connection.Connection`. Parent to child: one `ChildOptions`, then `Request`s.
Child to parent: `Reply`s, the first of them under START_ID once the model works (or does not).
The child answers in the order of the requests.

Knows no model, no process and no event loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from engine.errors import (
    AtCapacityError,
    ConfigError,
    EngineFailedError,
    EngineMemoryError,
    ModelUnavailableError,
    ServerError,
)

__all__ = [
    "GENERATION_BITS",
    "METHODS",
    "START_ID",
    "ChildOptions",
    "Reply",
    "Request",
    "error_from",
]

Request: TypeAlias = tuple[int, str, object]
"""(message id, method of the backend, its one argument); `transcribe` takes a list of WindowJob, `open_file`
(samples, options)."""

Reply: TypeAlias = tuple[int, bool, object]
"""(message id, True, result) or (message id, False, (error code, message))."""

START_ID = 0
"""The id of the reply that tells how loading went: a ModelInfo or an error."""

METHODS = frozenset({"transcribe", "open_file", "next_segments", "release"})
"""All that a request may name."""

GENERATION_BITS = 32
"""A handle is (number of the child << GENERATION_BITS) + counter, so that a handle of a dead child
is never mistaken for one of its successor; a child would need years to count 2^32 recordings."""


@dataclass(frozen=True)
class ChildOptions:
    """What a child needs to know before it loads the model.

    `cpu_threads` 0 lets it choose; `window_pad_s` None leaves the padding of live windows to the model.
    """

    model: str
    device: str = "auto"
    compute_type: str = "auto"
    cpu_threads: int = 0
    window_pad_s: float | None = None
    first_handle: int = 0
    log_level: str = "info"
    log_format: str = "text"


_REBUILT = {
    error.code: error
    for error in (AtCapacityError, ConfigError, EngineFailedError, EngineMemoryError, ModelUnavailableError)
}


def error_from(value: object) -> ServerError:
    """Rebuild the error of a failed reply; codes without a class of their own are EngineFailedError."""
    assert isinstance(value, tuple)
    code, message = value
    return _REBUILT.get(code, EngineFailedError)(str(message))
