"""What a deploy would do and cost, before anything is paid for: candidates, guards, worst case, warnings.

Pure. Prices in $/h and $, disks in GB, times in minutes. RunPod bills a volume while the pod is stopped, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.deploy.gpus import Candidate, has_cuda
from builder.deploy.pod_spec import TOKEN, is_secret_name
from builder.deploy.throughput import LABEL, weights_gb
from builder.errors import BalanceError, BudgetError, CapacityError
from builder.money.prices import storage_rate
from builder.settings import POD_VARIABLES, ROWS

if TYPE_CHECKING:
    from builder.deploy.gpus import Wanted
    from builder.deploy.pod_spec import PodOptions

__all__ = [
    "Facts",
    "Limits",
    "Plan",
    "Warned",
    "affordable",
    "check_balance",
    "check_price",
    "unused_names",
    "warnings_of",
]

PRICE_SLACK = 0.005
"""$/h by which a pod may be billed above --max-price: rounding."""
MIN_BALANCE_H = 1.0
"""RunPod wants credit for an hour before it deploys."""
USABLE_DISK = 0.9
"""RunPod's checks want a tenth of the disk free."""
DISK_RESERVE_GB = 1.0
"""Logs, uploads on their way, compiled kernels."""
_BYTES_PER_GB = 1e9
_OUR_PREFIXES = ("RUNPOD_", "DOCKER_", "BUILDER_", "WHISPER", "HEALTH_CHECK_", "POD_")
_WRITTEN = (
    *("RUNPOD_POD_ID", "RUNPOD_POD_IP", "RUNPOD_WS_PORT", "RUNPOD_HEALTH_PORT"),
    *("DEPLOYMENT_ID", "DEPLOYMENT_TIMESTAMP", "ENV_VERSION"),
)
"""Notes that deploys leave in `.env`; no settings."""


@dataclass(frozen=True)
class Limits:
    """What stops the pod, or the deploy: minutes and $/h; None: nothing."""

    max_price: float | None = None
    max_minutes: int | None = None
    idle_stop_min: int = 0
    terminate_after_min: int | None = None
    deadline: str | None = None

    @property
    def minutes(self) -> int | None:
        """When it ends at the latest."""
        given = [each for each in (self.max_minutes, self.terminate_after_min) if each is not None]
        return min(given, default=None)


@dataclass(frozen=True)
class Warned:
    """Something to think about before saying yes."""

    code: str
    text: str


@dataclass(frozen=True)
class Facts:
    """What the warnings are computed from, beyond the pod's options."""

    model: str
    memory_needed_gb: int | None
    image_bytes: int | None = None
    is_secret_stored: bool = False
    is_spot: bool = False
    unused: tuple[str, ...] = ()
    credit: float | None = None


@dataclass(frozen=True)
class Plan:
    """The whole of it; `credit` in $ is None if nobody told."""

    name: str
    image: str
    model: str
    candidates: tuple[Candidate, ...]
    limits: Limits
    warnings: tuple[Warned, ...]
    volume_gb: int = 0
    needs_token: bool = True
    is_spot: bool = False
    credit: float | None = None

    @property
    def dearest_per_h(self) -> float | None:
        """The price of the dearest candidate; None if no price is known."""
        return max((each.price_per_h for each in self.candidates if each.price_per_h is not None), default=None)

    @property
    def worst_case(self) -> float | None:
        """The most it can cost until it ends by itself, in $; None if nothing ends it, or no price is known."""
        if self.dearest_per_h is None or self.limits.minutes is None:
            return None
        return self.dearest_per_h * self.limits.minutes / 60

    def volume_per_h(self, state: str) -> float:
        """What the disk at /workspace costs, `running` or `stopped`."""
        return storage_rate(disk_gb=0, volume_gb=self.volume_gb, is_running=state == "running")

    def document(self) -> dict[str, Any]:
        """As --json shows it."""
        return {
            "name": self.name,
            "image": self.image,
            "model": self.model,
            "is_spot": self.is_spot,
            "candidates": [each.document() for each in self.candidates],
            "price_per_audio_h": LABEL,
            "limits": {
                "max_price_per_h": self.limits.max_price,
                "max_minutes": self.limits.max_minutes,
                "deadline": self.limits.deadline,
                "idle_stop_min": self.limits.idle_stop_min or None,
                "terminate_after_min": self.limits.terminate_after_min,
            },
            "worst_case": {"price_per_h": self.dearest_per_h, "total": self.worst_case},
            "volume": {
                "gb": self.volume_gb,
                "running_per_h": self.volume_per_h("running"),
                "stopped_per_h": self.volume_per_h("stopped"),
            },
            "credit": self.credit,
            "needs_token": self.needs_token,
            "warnings": [{"code": each.code, "text": each.text} for each in self.warnings],
        }


def affordable(candidates: Sequence[Candidate], max_price: float | None, wanted: Wanted) -> tuple[Candidate, ...]:
    """Those within the price guard. Raises CapacityError if there were none at all, BudgetError if all cost more."""
    if not candidates:
        place = f" in {', '.join(wanted.data_centers)}" if wanted.data_centers else ""
        what = ", ".join(wanted.gpu_names) or f"GPU with {wanted.min_memory_gb} GB"
        raise CapacityError(f"no {what} is offered by {' or '.join(wanted.clouds)}{place}")
    if max_price is None:
        return tuple(candidates)
    kept = tuple(each for each in candidates if each.price_per_h is not None and each.price_per_h <= max_price)
    if kept:
        return kept
    prices = [(each.price_per_h, each.label) for each in candidates if each.price_per_h is not None]
    if not prices:
        raise BudgetError(
            f"no price is known, and --max-price is ${max_price:g}/h",
            hint="this API has no catalog; leave --max-price out, or use REST v2",
        )
    price, label = min(prices)
    raise BudgetError(f"the cheapest candidate, {label}, costs ${price:.2f}/h; --max-price is ${max_price:g}/h")


def check_price(cost_per_h: float, max_price: float | None, what: str) -> None:
    """Raises BudgetError if RunPod bills more than was to be paid for `what`."""
    if max_price is not None and cost_per_h > max_price + PRICE_SLACK:
        raise BudgetError(f"RunPod bills ${cost_per_h:.2f}/h for {what}; --max-price is ${max_price:g}/h")


def check_balance(credit: float, dearest_per_h: float | None) -> None:
    """Raises BalanceError if the credit does not last an hour."""
    if dearest_per_h is not None and credit < dearest_per_h * MIN_BALANCE_H:
        raise BalanceError(
            f"the credit of ${credit:.2f} does not last an hour at ${dearest_per_h:.2f}/h, which RunPod asks for"
        )


def unused_names(env_file: Mapping[str, str]) -> tuple[str, ...]:
    """Variables of `.env` that look like settings and that no pod gets and no verb reads."""
    known = {row.env for row in ROWS} | set(POD_VARIABLES) | set(_WRITTEN)
    return tuple(sorted(name for name in env_file if name.startswith(_OUR_PREFIXES) and name not in known))


def warnings_of(
    options: PodOptions, candidates: Sequence[Candidate], limits: Limits, facts: Facts
) -> tuple[Warned, ...]:
    """All that a careful friend would say about this plan."""
    found = [
        *_about_secrets(options, candidates, facts),
        *_about_the_image(options, facts),
        *_about_gpus(options, candidates, facts),
    ]
    if limits.minutes is None and not limits.idle_stop_min:
        found.append(
            Warned(
                "never_stops", "nothing stops this pod by itself: add --idle-stop, --max-minutes or --terminate-after"
            )
        )
    found += _about_credit(candidates, limits, facts)
    if facts.is_spot:
        found.append(Warned("spot", "a spot pod may be taken away at any moment"))
    if facts.unused:
        found.append(
            Warned("unused", f"not used: {', '.join(facts.unused)} (to hand one to the pod: --set NAME=VALUE)")
        )
    return tuple(found)


def _about_credit(candidates: Sequence[Candidate], limits: Limits, facts: Facts) -> Iterable[Warned]:
    dearest = max((each.price_per_h or 0.0 for each in candidates), default=0.0)
    if facts.credit is None or limits.minutes is None or facts.credit >= dearest * limits.minutes / 60:
        return
    lasts_min = facts.credit / dearest * 60
    yield Warned("credit", f"the credit of ${facts.credit:.2f} lasts {lasts_min:.0f} of {limits.minutes} min at worst")


def _about_secrets(options: PodOptions, candidates: Iterable[Candidate], facts: Facts) -> Iterable[Warned]:
    if TOKEN not in options.env:
        yield Warned("no_auth", "no token: whoever learns the pod's address can use it at your cost")
    secret = sorted(
        name for name in options.env if is_secret_name(name) and not (name == TOKEN and facts.is_secret_stored)
    )
    if secret and any(each.cloud == "COMMUNITY" for each in candidates):
        yield Warned(
            "community_secret",
            f"a COMMUNITY host is somebody else's machine and could read {', '.join(secret)}: use a token of its own, "
            "or --cloud secure",
        )


def _about_the_image(options: PodOptions, facts: Facts) -> Iterable[Warned]:
    name, _, digest = options.image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if not digest and tag in ("", "latest"):
        shown = "tag latest" if tag else "no tag"
        yield Warned("floating_tag", f"the image has {shown}: hosts may run different versions of it")
    model_gb = 0.0 if options.volume_gb or options.network_volume_id else weights_gb(facts.model) or 0.0
    needed_gb = (facts.image_bytes or 0) / _BYTES_PER_GB + model_gb + DISK_RESERVE_GB
    if needed_gb > options.disk_gb * USABLE_DISK:
        yield Warned("small_disk", f"image and model take about {needed_gb:.0f} GB, the disk has {options.disk_gb} GB")


def _about_gpus(options: PodOptions, candidates: Sequence[Candidate], facts: Facts) -> Iterable[Warned]:
    needed = facts.memory_needed_gb
    small = sorted({each.name for each in candidates if needed and 0 < each.memory_gb < needed})
    if small:
        yield Warned(
            "small_memory", f"{facts.model} wants about {needed} GB of GPU memory: {', '.join(small)} has less"
        )
    old = sorted({c.label for c in candidates if c.cuda_versions and not has_cuda(c.cuda_versions, c.min_cuda)})
    if old:
        floors = sorted({each.min_cuda for each in candidates if each.label in old})
        yield Warned("cuda_floor", f"no host of {', '.join(old)} has the CUDA {' or '.join(floors)} that it needs")
    gone = sorted({each.label for each in candidates if not each.is_in_stock})
    if gone:
        yield Warned("out_of_stock", f"out of stock, tried last: {', '.join(gone)}")
    if options.gpu_count > 1:
        yield Warned("gpu_count", f"{options.gpu_count} GPUs are billed, and the server uses one")
