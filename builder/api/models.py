"""What RunPod's API takes and gives about pods, as far as the builder needs it: REST v2's names and meanings.

`builder.api.model_base` has what all models share, `builder.api.models_serverless` those of endpoints and jobs. Money
is in US dollars, disks in GB, `uptime_s` in seconds.

Source: RunPod REST API v2 (document version 2.0.0).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import AliasChoices, Field

from builder.api.model_base import AnswerModel, RequestModel

__all__ = [
    "AVAILABILITY",
    "BillingRecord",
    "Cloud",
    "DataCenterStock",
    "GpuRequest",
    "GpuType",
    "LogEvent",
    "NetworkVolume",
    "Pod",
    "PodAction",
    "PodSpec",
    "Registry",
    "Runtime",
]

Cloud = Literal["SECURE", "COMMUNITY"]
PodAction = Literal["start", "stop", "restart"]
AVAILABILITY = ("NONE", "LOW", "MEDIUM", "HIGH")
"""Ascending."""
MAX_VOLUME_GB = 1_000_000
"""A disk that is said to be larger is a mistake."""


class GpuRequest(RequestModel):
    """The GPU of a new pod; exactly one type, since the API searches no further."""

    id: str
    count: int = 1
    min_cuda_version: str | None = None


class PodSpec(RequestModel):
    """Body of a create (CreatePodRequest). `mounts` is `{"persistent": {...}}` or `{"network": [...]}`."""

    name: str
    image: str
    gpu: GpuRequest
    cloud: Cloud
    disk: int
    ports: tuple[str, ...]
    env: dict[str, str]
    mounts: dict[str, Any] | None = None
    data_center_ids: tuple[str, ...] | None = None
    registry: str | None = None


class GpuInPod(AnswerModel):
    """The GPU a pod has."""

    id: str
    count: int = 1


class GpuLoad(AnswerModel):
    """Percent."""

    util: int | None = None
    memory_util: int | None = None


class Runtime(AnswerModel):
    """Live figures of a running pod."""

    uptime_s: int | None = Field(default=None, validation_alias=AliasChoices("uptime", "uptime_s"))
    gpus: tuple[GpuLoad, ...] = ()


class Pod(AnswerModel):
    """A pod as the API shows it; `cost` is $/h now (0 when stopped).

    `status` is PROVISIONING, STARTING, RUNNING, EXITED, ERROR or TERMINATED; a new word must not blind whoever lists
    pods, so it is no closed set.
    """

    id: str
    name: str
    status: str
    actions: tuple[str, ...] = ()
    image: str = ""
    env: dict[str, str] = Field(default_factory=dict)
    ports: tuple[str, ...] = ()
    disk: int = 0
    mounts: dict[str, Any] | None = None
    gpu: GpuInPod | None = None
    cloud: str | None = None
    data_center_id: str | None = None
    cuda_version: str | None = None
    cost: float = 0.0
    locked: bool = False
    runtime: Runtime | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None

    @property
    def volume_gb(self) -> int:
        """Size of the disk that outlives a stop; 0 if there is none, or none that makes sense."""
        persistent = (self.mounts or {}).get("persistent")
        size = persistent.get("size") if isinstance(persistent, dict) else None
        return int(size) if isinstance(size, (int, float)) and 0 < size < MAX_VOLUME_GB else 0


class DataCenterStock(AnswerModel):
    """Stock of one GPU type in one data center."""

    id: str
    name: str = ""
    availability: str = "NONE"


class GpuPrice(AnswerModel):
    """$/h for one GPU; None or 0: not offered there."""

    secure: float | None = None
    community: float | None = None
    serverless: float | None = None


class GpuType(AnswerModel):
    """A row of the catalog; `memory` in GB; `availability` None if stock was not asked for."""

    id: str
    name: str
    pool: str | None = None
    memory: int
    secure: bool
    community: bool
    price: GpuPrice
    max_count: dict[str, int] = Field(default_factory=dict)
    availability: str | None = None
    data_centers: tuple[DataCenterStock, ...] = ()
    cuda_versions: tuple[dict[str, Any], ...] = ()


class LogEvent(AnswerModel):
    """One line of a pod's log; `id` is what a later connection resumes from."""

    id: str
    ts: str
    source: str
    line: str


class BillingRecord(AnswerModel):
    """What one pod cost in one span of time."""

    pod_id: str
    start_time: datetime
    end_time: datetime
    total_amount: float
    gpu_amount: float = 0.0
    disk_amount: float = 0.0


class NetworkVolume(AnswerModel):
    """Storage that is billed whether used or not; `size` in GB."""

    id: str
    name: str
    size: int
    data_center: str
    type: str = "STANDARD"


class Registry(AnswerModel):
    """A stored registry credential; its password never comes back."""

    id: str
    name: str
