"""A job's input after it was read, and the refusal of one with several faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import ClientError
from engine.recording_types import RecordingOptions
from handler.s3 import S3Config
from handler.sources import Source

__all__ = ["InputErrors", "JobRequest"]


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
    network are allowed to the job.
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
    warnings: tuple[str, ...] = ()

    def s3_for(self, job: Mapping[str, Any]) -> S3Config | None:
        """The store of this request: its own, else the one beside the input in `job` (RunPod's `s3Config`).

        None: the worker's. Raises BadInputError.
        """
        return self.s3 or S3Config.from_job(job.get("s3Config"), allow_private=self.allow_private)
