"""How each recording goes to the endpoint, what a job looks like, and what all of it may cost. Pure.

way      when                                                             what the job holds
url      a URL was given                                                  the URL
inline   the file fits into a job as it is, and is no longer than 4 h     the file, base64
upload   storage is configured, the worker would fetch and decode it      a link, valid for a day
pieces   all else                                                         FLAC of a piece that was cut in a pause

A job's body may have 10 MB (RunPod's job API), of which base64 leaves three quarters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from builder.deploy.throughput import LABEL, price_per_audio_hour, speed
from builder.errors import BudgetError, UsageError

if TYPE_CHECKING:
    from builder.api.models import GpuType
    from builder.api.models_serverless import Endpoint

__all__ = [
    "FORMATS",
    "LINK_VALID_S",
    "Estimate",
    "Way",
    "Wishes",
    "check_budget",
    "choose_way",
    "estimate",
    "file_room_bytes",
    "job_options",
    "policy",
]

Way = Literal["url", "inline", "upload", "pieces"]
FORMATS = ("srt", "vtt", "json", "txt")
TASKS = ("transcribe", "translate")
MAX_WORKER_AUDIO_S = 4 * 3600.0
"""What a worker takes unless MAX_AUDIO_S says more; longer recordings go in pieces."""
MAX_WORKER_BYTES = 1 << 30
"""What a worker fetches unless MAX_DOWNLOAD_BYTES says more."""
LINK_VALID_S = 86_400
SLACK_BYTES = 1_024
"""For what else a body holds: quotes, names, the policy."""
MIN_PIECE_BYTES = 100_000
START_S = 600.0
"""Part of a job's time for what comes before the recording is decoded: loading a model, or downloading it."""
LEAST_POLICY_S, MOST_POLICY_S = 10.0, 7 * 86_400.0
_TAKEN = ("audio", "file", "url", "s3", "upload", "output_format", "transcription", "translat", "clip", "task")
"""Beginnings of options that `--set` must not touch: they are chosen here, or hold secrets."""


@dataclass(frozen=True)
class Wishes:
    """The options of `transcribe`."""

    formats: tuple[str, ...] = ("srt",)
    model: str | None = None
    language: str | None = None
    task: str = "transcribe"
    words: bool = False
    extra: tuple[str, ...] = ()
    recursive: bool = False
    out: str | None = None
    force: bool = False
    again: bool = False
    endpoint: str | None = None
    jobs: int | None = None
    per_worker: int = 2
    max_cost: float | None = None
    timeout_s: float = 3600.0
    yes: bool = False
    dry_run: bool = False
    cancel_on_interrupt: bool = False

    def check(self) -> None:
        """Raises UsageError for a format or task there is not."""
        for name in self.formats:
            if name not in FORMATS:
                raise UsageError(f"--format: {name!r} is not allowed; legal: {', '.join(FORMATS)}, by commas")
        if not self.formats:
            raise UsageError(f"--format: nothing is given; legal: {', '.join(FORMATS)}, by commas")
        if self.task not in TASKS:
            raise UsageError(f"--task: {self.task!r} is not allowed; legal: {', '.join(TASKS)}")
        if self.max_cost is not None and not 0 <= self.max_cost < math.inf:
            raise UsageError(f"--max-cost: {self.max_cost:g} is not allowed; legal: 0 or more dollars")


def job_options(wishes: Wishes) -> dict[str, Any]:
    """A job's `input` without its audio. Raises UsageError for a bad `--set`."""
    options: dict[str, Any] = {}
    for text in wishes.extra:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise UsageError(f"--set: {text.partition('=')[0][:60]!r} is not allowed; legal: KEY=VALUE")
        if name.lower().startswith(_TAKEN):
            raise UsageError(f"--set: {name} cannot be set here", hint="see --format, --task and --words")
        options[name] = _value(value)
    chosen = {"model": wishes.model, "language": wishes.language, "word_timestamps": wishes.words or None}
    options |= {name: value for name, value in chosen.items() if value is not None}
    if wishes.task == "translate":
        # Its text alone tells no times; this document does.
        options |= {"translate": True, "translation": "verbose_json"}
    return options


def file_room_bytes(options: Mapping[str, Any], max_run_bytes: int) -> int:
    """Largest file that fits into a job with these options. Raises UsageError if they leave no room."""
    room = (max_run_bytes - SLACK_BYTES - len(json.dumps(options))) // 4 * 3
    if room < MIN_PIECE_BYTES:
        raise UsageError("--set: the options alone nearly fill a job", hint="shorten them")
    return room


def choose_way(n_bytes: int, duration_s: float, *, room_bytes: int, has_store: bool) -> Way:
    """How a file is sent."""
    if duration_s > MAX_WORKER_AUDIO_S:
        return "pieces"
    if n_bytes <= room_bytes:
        return "inline"
    return "upload" if has_store and n_bytes <= MAX_WORKER_BYTES else "pieces"


def policy(timeout_s: float, duration_s: float | None) -> dict[str, int]:
    """A job's time: `ttl` from its submission on, `executionTimeout` once a worker has it, in ms.

    A job whose id was lost can neither wait nor run for longer than this.
    """
    ttl_s = min(max(timeout_s, LEAST_POLICY_S), MOST_POLICY_S)
    run_s = ttl_s if duration_s is None else min(ttl_s, START_S + duration_s)
    return {"executionTimeout": round(run_s * 1000), "ttl": round(ttl_s * 1000)}


@dataclass(frozen=True)
class Estimate:
    """What is still to be paid. None: not known, because the price, the model's speed or a length is not."""

    audio_s: float
    n_unknown: int
    gpu: str | None
    price_per_audio_h: float | None

    @property
    def dollars(self) -> float | None:
        """The whole, without cold starts."""
        if self.audio_s == 0 and not self.n_unknown:
            return 0.0
        if self.price_per_audio_h is None or self.n_unknown:
            return None
        return self.audio_s / 3600 * self.price_per_audio_h

    @property
    def not_known(self) -> str | None:
        """Why there are no dollars."""
        if self.dollars is not None:
            return None
        return "a URL's length is not known" if self.n_unknown else "the price or the model's speed is not known"

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "audio_s": round(self.audio_s, 1),
            "unknown_lengths": self.n_unknown,
            "gpu": self.gpu,
            "price_per_audio_hour": self.price_per_audio_h,
            "dollars": self.dollars,
            "not_known": self.not_known,
            "basis": f"{LABEL}, for the dearest GPU of the endpoint's pools, busy all the time; without cold starts",
        }


def pool_gpus(endpoint: Endpoint, catalog: Iterable[GpuType]) -> list[GpuType]:
    """The GPUs with a price that the endpoint's workers may get."""
    pools = (endpoint.gpu or {}).get("pools") or []
    return [each for each in catalog if each.pool in pools and each.price.serverless]


def estimate(
    lengths_s: Sequence[float | None], endpoint: Endpoint, catalog: Iterable[GpuType], model: str | None
) -> Estimate:
    """What recordings of these lengths cost on the GPU of the endpoint's pools where an hour of them costs most."""
    count = int((endpoint.gpu or {}).get("count") or 1)
    prices = []
    for gpu in pool_gpus(endpoint, catalog):
        rate = None if model is None or gpu.price.serverless is None else speed(gpu.id, model)
        price = price_per_audio_hour((gpu.price.serverless or 0.0) * count, rate)
        if price is not None:
            prices.append((price, gpu.name))
    price, name = max(prices, default=(None, None))
    known = [length_s for length_s in lengths_s if length_s is not None]
    return Estimate(sum(known), len(lengths_s) - len(known), name, price)


def check_budget(found: Estimate, max_cost: float | None) -> None:
    """Raises BudgetError if the estimate is above `max_cost`, or if there is none to compare."""
    if max_cost is None:
        return
    if found.dollars is None:
        raise BudgetError(f"--max-cost: the cost cannot be estimated: {found.not_known}", hint="leave --max-cost out")
    if found.dollars > max_cost:
        raise BudgetError(
            f"--max-cost: about ${found.dollars:.4f} ({LABEL}) is above ${max_cost:.4f}",
            hint="raise --max-cost, or transcribe fewer recordings",
        )


def _value(text: str) -> Any:
    """JSON where it is JSON, else the text."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value
