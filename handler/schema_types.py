"""A job's input after it was read, and the refusal of one with several faults."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import BadInputError, ClientError
from engine.recording_types import RecordingOptions
from handler.keys import is_absent
from handler.s3 import S3Config
from handler.sources import Source

__all__ = ["InputErrors", "JobRequest", "read_store"]

_log = logging.getLogger(__name__)


def read_store(raw: object, *, allow_private: bool) -> S3Config | None:
    """A job's `s3Config`; one whose members are all empty is none, as forms send it. Raises BadInputError."""
    if isinstance(raw, Mapping) and all(is_absent(value) for value in raw.values()):
        return None
    return None if is_absent(raw) else S3Config.from_job(raw, allow_private=allow_private)


class InputErrors(ClientError):
    """What is wrong with an input, all of it; `messages` is worker-faster_whisper's list of errors.

    `is_list` False: worker-faster_whisper answers with a text, and not with a list of one.
    """

    code = "bad_input"

    def __init__(self, messages: Sequence[str], *, is_list: bool = True) -> None:
        super().__init__("; ".join(messages))
        self.messages = tuple(messages)
        self.is_list = is_list


@dataclass(frozen=True)
class JobRequest:
    """What a job asks for; every value is within its documented bounds.

    `transcription`, `translation` and `output_formats` are of `handler.fields.FORMATS`; `translation` None: not
    asked for. `model` None: the worker's own. `upload` None: as the size of the result demands. `upload_url` is a
    signed URL and the hints in `recording` may be private: repr shows neither. `allow_private`: addresses of our own
    network are allowed to the job. `strict`: the answer has worker-faster_whisper's keys alone.
    """

    sources: tuple[Source, ...]
    is_list: bool = False
    model: str | None = None
    recording: RecordingOptions = field(default_factory=RecordingOptions, repr=False)
    transcription: str = "plain_text"
    translation: str | None = None
    output_formats: tuple[str, ...] = ()
    word_timestamps: bool = False
    max_line_width: int | None = None
    max_line_count: int | None = None
    deadline_s: float | None = None
    upload: bool | None = None
    upload_url: str | None = field(default=None, repr=False)
    s3: S3Config | None = None
    allow_private: bool = False
    strict: bool = False
    warnings: tuple[str, ...] = ()

    def s3_for(self, job: Mapping[str, Any]) -> S3Config | None:
        """The store of this request: its own, else the one beside the input in `job` (RunPod's `s3Config`).

        None: the worker's. Raises BadInputError if the one in `job` is needed and cannot be used; if it is not
        needed, that is logged.
        """
        if self.s3 is not None:
            return self.s3
        try:
            return read_store(job.get("s3Config"), allow_private=self.allow_private)
        except BadInputError as error:
            if self.needs_store:
                raise
            _log.warning("s3Config beside the input is ignored: %s must be %s", error.field, error.legal)
            return None

    @property
    def needs_store(self) -> bool:
        """True if this request cannot be served without a store."""
        return bool(self.upload) or any(source.kind == "s3" for source in self.sources)
