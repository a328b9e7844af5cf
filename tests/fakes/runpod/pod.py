"""One pod of the fake, its log, and the refusals of the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.runpod.boots import LogSource, PodStatus, Step
from tests.fakes.runpod.clock import iso_time
from tests.fakes.runpod.ledger import HOURS_A_MONTH, Rates

__all__ = ["ACTIONS_OF", "LogLine", "Pod", "PodRefusedError"]

ACTIONS_OF: Mapping[PodStatus, tuple[str, ...]] = {
    "PROVISIONING": ("stop", "terminate"),
    "STARTING": ("stop", "terminate"),
    "RUNNING": ("stop", "restart", "terminate"),
    "EXITED": ("start", "terminate"),
    "ERROR": ("start", "terminate"),
    "TERMINATED": (),
}
RUNNING_GB_MONTH_USD = 0.10
STOPPED_GB_MONTH_USD = 0.20


class PodRefusedError(Exception):
    """The API says no: an HTTP status, a text for people, and single failures of a body."""

    def __init__(self, status: int, detail: str, errors: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors


@dataclass(frozen=True)
class LogLine:
    """One line; `number` counts from 1 within its pod."""

    number: int
    at_s: float
    source: LogSource
    line: str

    @property
    def id(self) -> str:
        """What a connection resumes from."""
        return f"{iso_time(self.at_s)}/{self.number:012d}"


@dataclass
class Pod:
    """State of a pod; times are seconds since 1970 on the plane's clock, `price` and `rates` $/h."""

    id: str
    name: str
    image: str
    created_s: float
    cloud: str
    price: float
    env: dict[str, str] = field(default_factory=dict)
    ports: list[str] = field(default_factory=list)
    args: str = ""
    disk: int = 20
    mounts: dict[str, Any] = field(default_factory=dict)
    gpu_id: str | None = None
    gpu_count: int = 1
    cpu: dict[str, Any] | None = None
    data_center_id: str | None = None
    cuda_version: str | None = None
    registry: str | None = None
    locked: bool = False
    global_networking: bool = False
    is_spot: bool = False
    bid: float | None = None
    stop_at_s: float | None = None
    terminate_at_s: float | None = None
    shown_from_s: float = 0.0
    status: PodStatus = "PROVISIONING"
    started_s: float | None = None
    ended_s: float | None = None
    up_since_s: float | None = None
    gpu_util: int = 0
    memory_util: int = 0
    host: int = 0
    starts: int = 0
    steps: list[Step] = field(default_factory=list)
    lines: list[LogLine] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Gone for good."""
        return self.status == "TERMINATED"

    @property
    def is_rented(self) -> bool:
        """Occupies a machine."""
        return self.status not in ("EXITED", "TERMINATED")

    @property
    def actions(self) -> tuple[str, ...]:
        """What may be asked of it now."""
        return ACTIONS_OF[self.status]

    @property
    def cost(self) -> float:
        """$/h as the API shows it."""
        return self.price if self.is_rented else 0.0

    @property
    def volume_gb(self) -> int:
        """Size of the disk that outlives a stop."""
        return int((self.mounts.get("persistent") or {}).get("size", 0))

    @property
    def rates(self) -> Rates:
        """What it is billed for."""
        if self.is_over:
            return Rates()
        gb_month_usd = RUNNING_GB_MONTH_USD if self.is_rented else STOPPED_GB_MONTH_USD
        disk = self.volume_gb * gb_month_usd / HOURS_A_MONTH
        return Rates(disk=disk, cpu=self.cost) if self.cpu else Rates(disk=disk, gpu=self.cost)

    def log(self, at_s: float, source: LogSource, line: str) -> None:
        """Append a line."""
        self.lines.append(LogLine(len(self.lines) + 1, at_s, source, line))
