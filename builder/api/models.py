"""What RunPod's API takes and gives, as far as the builder needs it: REST v2's names and meanings.

Answers ignore fields they do not know (the API moves ahead of its document) and raise pydantic's ValidationError
where one that is needed is missing; `builder.api.problems` makes a BadAnswerError of it. Requests forbid fields that
are not listed, because REST v2 does. Money is in US dollars, disks in GB, `uptime_s` in seconds.

Source: RunPod REST API v2 (document version 2.0.0).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

__all__ = [
    "AVAILABILITY",
    "BillingRecord",
    "Cloud",
    "DataCenterStock",
    "Endpoint",
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


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        """One null where the document allows none must not hide every other pod of a list."""
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class _Request(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    def body(self) -> dict[str, Any]:
        """JSON for the API, without fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class GpuRequest(_Request):
    """The GPU of a new pod; exactly one type, since the API searches no further."""

    id: str
    count: int = 1
    min_cuda_version: str | None = None


class PodSpec(_Request):
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


class GpuInPod(_Answer):
    """The GPU a pod has."""

    id: str
    count: int = 1


class GpuLoad(_Answer):
    """Percent."""

    util: int | None = None
    memory_util: int | None = None


class Runtime(_Answer):
    """Live figures of a running pod."""

    uptime_s: int | None = Field(default=None, validation_alias=AliasChoices("uptime", "uptime_s"))
    gpus: tuple[GpuLoad, ...] = ()


class Pod(_Answer):
    """A pod as the API shows it; `cost` is $/h now (0 when stopped).

    `status` is PROVISIONING, STARTING, RUNNING, EXITED, ERROR or TERMINATED; a new word must not blind whoever lists
    pods, so it is no closed set.
    """

    id: str
    name: str
    status: str
    actions: tuple[str, ...] = ()
    image: str = ""
    env: dict[str, str] = {}
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


class DataCenterStock(_Answer):
    """Stock of one GPU type in one data center."""

    id: str
    name: str = ""
    availability: str = "NONE"


class GpuPrice(_Answer):
    """$/h for one GPU; None or 0: not offered there."""

    secure: float | None = None
    community: float | None = None
    serverless: float | None = None


class GpuType(_Answer):
    """A row of the catalog; `memory` in GB; `availability` None if stock was not asked for."""

    id: str
    name: str
    pool: str | None = None
    memory: int
    secure: bool
    community: bool
    price: GpuPrice
    max_count: dict[str, int] = {}
    availability: str | None = None
    data_centers: tuple[DataCenterStock, ...] = ()
    cuda_versions: tuple[dict[str, Any], ...] = ()


class LogEvent(_Answer):
    """One line of a pod's log; `id` is what a later connection resumes from."""

    id: str
    ts: str
    source: str
    line: str


class BillingRecord(_Answer):
    """What one pod cost in one span of time."""

    pod_id: str
    start_time: datetime
    end_time: datetime
    total_amount: float
    gpu_amount: float = 0.0
    disk_amount: float = 0.0


class Endpoint(_Answer):
    """A serverless endpoint, as far as its standing cost needs it."""

    id: str
    name: str
    workers: dict[str, Any] = {}
    gpu: dict[str, Any] | None = None
    created_at: datetime | None = None


class NetworkVolume(_Answer):
    """Storage that is billed whether used or not; `size` in GB."""

    id: str
    name: str
    size: int
    data_center: str
    type: str = "STANDARD"


class Registry(_Answer):
    """A stored registry credential; its password never comes back."""

    id: str
    name: str
