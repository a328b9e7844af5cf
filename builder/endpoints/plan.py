"""What a deploy of an endpoint would do and cost, before anything is paid for: pools, guards, worst case, warnings.

Pure. Prices in $/h and $, list prices for one worker: the dearest GPU of the pools. A worker is billed while it is
there, with a job or idle; with no worker there, nothing is billed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.deploy.gpus import has_cuda
from builder.deploy.plan import DISK_RESERVE_GB, USABLE_DISK, Warned
from builder.deploy.throughput import weights_gb
from builder.errors import BudgetError

if TYPE_CHECKING:
    from builder.endpoints.pools import Choice
    from builder.endpoints.spec import Change, EndpointOptions

__all__ = ["EndpointFacts", "EndpointPlan", "check_total", "endpoint_warnings"]

HOURS_A_DAY = 24
_WORKERS_OF_CREDIT = ((900.0, 60), (700.0, 50), (500.0, 40), (300.0, 30), (200.0, 20), (100.0, 10), (0.0, 5))
"""Most workers of an account by its credit in $, as RunPod documents it."""
_BYTES_PER_GB = 1e9


@dataclass(frozen=True)
class EndpointFacts:
    """What the warnings are computed from, beyond the endpoint's options."""

    model: str
    memory_needed_gb: int | None
    image_bytes: int | None = None
    unused: tuple[str, ...] = ()
    credit: float | None = None


@dataclass(frozen=True)
class EndpointPlan:
    """The whole of it. `endpoint_id` names the endpoint that is changed, in `changes`; None: a new one is made."""

    name: str
    model: str
    options: EndpointOptions
    choice: Choice
    warnings: tuple[Warned, ...]
    credit: float | None = None
    max_price: float | None = None
    max_total: float | None = None
    endpoint_id: str | None = None
    changes: tuple[Change, ...] = ()

    @property
    def price_per_worker_h(self) -> float | None:
        """$/h of one worker; None if no price is known."""
        return self.choice.price_per_h

    def per_h(self, workers: int) -> float | None:
        """$/h of so many workers."""
        return None if self.price_per_worker_h is None else round(self.price_per_worker_h * workers, 4)

    def document(self) -> dict[str, Any]:
        """As --json shows it."""
        options, scale = self.options, self.options.scale
        at_min, at_max = self.per_h(scale.min), self.per_h(scale.max)
        return {
            "kind": options.kind,
            "name": self.name,
            "image": options.image,
            "model": self.model,
            "pools": [pool.document() for pool in self.choice.pools],
            "min_cuda": options.gpu.min_cuda_version,
            "workers": {"min": scale.min, "max": scale.max, "idle_timeout_s": scale.idle_s},
            "scaling": {"queue_delay_s": scale.queue_delay_s, "requests_per_worker": scale.requests_per_worker},
            "flashboot": options.flashboot,
            "job_timeout_s": scale.job_timeout_s,
            "disk_gb": options.disk_gb,
            "data_centers": list(options.data_centers),
            "cost": {
                "price_per_worker_h": self.price_per_worker_h,
                "at_min_per_h": at_min,
                "at_min_per_day": _a_day(at_min),
                "at_max_per_h": at_max,
                "at_max_per_day": _a_day(at_max),
            },
            "limits": {"max_price_per_worker_h": self.max_price, "max_total_per_h": self.max_total},
            "credit": self.credit,
            "endpoint_id": self.endpoint_id,
            "drift": [change.document() for change in self.changes],
            "warnings": [{"code": each.code, "text": each.text} for each in self.warnings],
        }


def check_total(price_per_worker_h: float | None, workers_max: int, max_total: float | None) -> None:
    """Raises BudgetError if all workers together cost more than `max_total` $/h, or nobody knows what they cost."""
    if max_total is None:
        return
    if price_per_worker_h is None:
        raise BudgetError(f"no price is known, and --max-total is ${max_total:g}/h", hint="leave --max-total out")
    total = round(price_per_worker_h * workers_max, 4)
    if total > max_total:
        raise BudgetError(
            f"{workers_max} workers cost ${total:.2f}/h; --max-total is ${max_total:g}/h",
            hint="lower --workers-max, raise --max-total, or choose a cheaper pool",
        )


def endpoint_warnings(options: EndpointOptions, choice: Choice, facts: EndpointFacts) -> tuple[Warned, ...]:
    """All that a careful friend would say about this plan."""
    return (
        *_about_workers(options, choice, facts),
        *_about_the_image(options, facts),
        *_about_gpus(choice, facts),
        *_about_env(options, facts),
    )


def _about_workers(options: EndpointOptions, choice: Choice, facts: EndpointFacts) -> Iterable[Warned]:
    low, high, price = options.scale.min, options.scale.max, choice.price_per_h
    if low and price is not None:
        yield Warned(
            "idle_cost", f"{low} worker(s) always there: ${price * low * HOURS_A_DAY:.2f} a day without any job"
        )
    if not low and options.kind == "lb":
        yield Warned(
            "lb_scales_to_zero",
            "no worker is kept, and open sockets that are quiet do not count for scaling: live sessions may be cut",
        )
    elif not low:
        yield Warned("cold_start", "no worker is kept: the first job waits until one has started and loaded the model")
    if not options.flashboot:
        yield Warned("flashboot_off", "FlashBoot is off: every worker starts from nothing")
    if facts.credit is None:
        return
    allowed = next((workers for credit, workers in _WORKERS_OF_CREDIT if facts.credit >= credit), 0)
    if high > allowed:
        yield Warned(
            "worker_limit",
            f"with a credit of ${facts.credit:.2f} RunPod gives an account {allowed} workers; {high} are asked for",
        )
    if price is not None and facts.credit < price * high:
        lasts_min = facts.credit / (price * high) * 60
        yield Warned("credit", f"the credit of ${facts.credit:.2f} lasts {lasts_min:.0f} min with all {high} workers")


def _about_the_image(options: EndpointOptions, facts: EndpointFacts) -> Iterable[Warned]:
    name, _, digest = options.image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if not digest and tag in ("", "latest"):
        shown = "tag latest" if tag else "no tag"
        yield Warned("floating_tag", f"the image has {shown}: workers may run different versions of it")
    needed_gb = (facts.image_bytes or 0) / _BYTES_PER_GB + (weights_gb(facts.model) or 0.0) + DISK_RESERVE_GB
    if needed_gb > options.disk_gb * USABLE_DISK:
        yield Warned("small_disk", f"image and model take about {needed_gb:.0f} GB, the disk has {options.disk_gb} GB")


def _about_gpus(choice: Choice, facts: EndpointFacts) -> Iterable[Warned]:
    gpus = [gpu for pool in choice.pools for gpu in pool.gpus]
    needed = facts.memory_needed_gb
    small = sorted({gpu.name for gpu in gpus if needed and gpu.memory_gb < needed})
    if small:
        yield Warned(
            "small_memory", f"{facts.model} wants about {needed} GB of GPU memory: {', '.join(small)} has less"
        )
    floor = choice.min_cuda
    known = [gpu for gpu in gpus if gpu.cuda_versions]
    if floor is not None and known and not any(has_cuda(gpu.cuda_versions, floor) for gpu in known):
        yield Warned("cuda_floor", f"no host of {', '.join(choice.names)} has the CUDA {floor} that it needs")
    gone = [pool.name for pool in choice.pools if not pool.is_in_stock]
    if gone:
        yield Warned("out_of_stock", f"out of stock now: {', '.join(gone)}")


def _about_env(options: EndpointOptions, facts: EndpointFacts) -> Iterable[Warned]:
    if options.kind == "lb" and "WHISPER_AUTH_TOKEN" in options.env:
        yield Warned(
            "token_behind_lb",
            "the load balancer takes the Authorization header for the RunPod key: the token must be shown elsewhere",
        )
    if facts.unused:
        yield Warned("unused", f"not used: {', '.join(facts.unused)} (to hand one to the workers: --set NAME=VALUE)")


def _a_day(per_h: float | None) -> float | None:
    return None if per_h is None else round(per_h * HOURS_A_DAY, 2)
