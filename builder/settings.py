"""The builder's one table of settings: variables of the environment and of `.env`, defaults, bounds, help.

Precedence: option of a verb, environment, `.env`, default. The seed project's variables keep their names and do what
they say. What concerns the server in the pod (WHISPER_*, MAX_*, LOG_*) is handed on to it, see `POD_VARIABLES`.

Pure: mappings in, settings or UsageError out. Files are the business of `builder.env_file`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from builder.errors import UsageError

__all__ = [
    "POD_VARIABLES",
    "ROWS",
    "Kind",
    "Row",
    "Settings",
    "check_proxy_template",
    "is_placeholder",
    "read_settings",
]

Kind = Literal["text", "secret", "integer", "number", "flag", "list", "choice"]


@dataclass(frozen=True)
class Row:
    """One setting: its variable, its field in `Settings`, and what is legal."""

    env: str
    field: str
    kind: Kind
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def is_secret(self) -> bool:
        """True if the value must never be shown."""
        return self.kind == "secret"

    @property
    def legal(self) -> str:
        """The legal values in words; empty if any text is."""
        if self.kind == "flag":
            return "1 or 0"
        if self.choices:
            return ", ".join(self.choices)
        return "" if self.low is None or self.high is None else f"{self.low:g} to {self.high:g}"


ROWS: tuple[Row, ...] = (
    Row("RUNPOD_API_KEY", "api_key", "secret", None, "RunPod's API key"),
    Row("RUNPOD_POD_NAME", "pod_name", "text", "whisper", "beginning of the names of pods"),
    Row("RUNPOD_GPU_TYPE", "gpu_types", "list", (), "GPUs in order of preference, by commas (default: the cheapest)"),
    Row("RUNPOD_GPU_COUNT", "gpu_count", "integer", 1, "GPUs of a pod; the server uses one", 1, 8),
    Row(
        "RUNPOD_CLOUD_TYPE",
        "cloud",
        "choice",
        "ANY",
        "SECURE: RunPod's data centers, COMMUNITY: hosts of others, ANY: both",
        choices=("SECURE", "COMMUNITY", "ANY"),
    ),
    Row("RUNPOD_INTERRUPTIBLE", "spot", "flag", False, "spot pods: cheaper, and may be taken away"),
    Row("RUNPOD_CONTAINER_DISK_GB", "disk_gb", "integer", 20, "container disk, gone with a stop", 5, 1000),
    Row("RUNPOD_VOLUME_GB", "volume_gb", "integer", 0, "disk at /workspace that outlives a stop; 0: none", 0, 4000),
    Row("RUNPOD_NETWORK_VOLUME_ID", "network_volume_id", "text", None, "network volume for /workspace instead"),
    Row("RUNPOD_DATA_CENTERS", "data_centers", "list", (), "data centers to choose from, by commas (default: any)"),
    Row("RUNPOD_REGISTRY_ID", "registry_id", "text", None, "RunPod's credential for a private image (see push)"),
    Row(
        "RUNPOD_IDLE_TIMEOUT",
        "idle_stop_s",
        "integer",
        0,
        "seconds without a client after which the pod stops itself; 0: never",
        0,
        86_400,
    ),
    Row("BUILDER_MAX_PRICE", "max_price", "number", None, "most dollars an hour that deploy accepts", 0.01, 100),
    Row(
        "BUILDER_MAX_MINUTES",
        "max_minutes",
        "integer",
        None,
        "minutes after which the pod stops itself (default: no limit)",
        1,
        44_640,
    ),
    Row(
        "DOCKER_HUB_USERNAME", "docker_username", "text", None, "account at Docker Hub, first part of the image's name"
    ),
    Row("DOCKER_PASSWORD", "docker_password", "secret", None, "its password or access token"),
    Row("DOCKER_IMAGE", "docker_image", "text", "whisper-runpod", "the image's name, with or without the account"),
    Row("DOCKER_TAG", "docker_tag", "text", None, "its tag (default: that of the last push)"),
    Row("DOCKER_REGISTRY", "docker_registry", "text", None, "registry host (default: Docker Hub)"),
    Row("WHISPER_AUTH_TOKEN", "auth_token", "secret", None, "secret that clients of the pod must show"),
    Row("WHISPER_MODEL", "model", "text", "small.en", "model in the pod"),
    Row("WHISPER_COMPUTE_TYPE", "compute_type", "text", "auto", "number format of its weights"),
    Row("WHISPERLIVE_PORT", "ws_port", "integer", 9090, "WebSocket port in the pod", 1, 65_535),
    Row("HEALTH_CHECK_PORT", "health_port", "integer", 9999, "health port in the pod", 1, 65_535),
    Row("RUNPOD_ENDPOINT_NAME", "endpoint_name", "text", "whisper", "beginning of the names of endpoints"),
    Row("RUNPOD_ENDPOINT_ID", "endpoint_id", "text", None, "endpoint that jobs go to (default: the one deployed last)"),
    Row("RUNPOD_GPU_POOLS", "gpu_pools", "list", (), "GPU pools of workers, by commas (default: those that do)"),
    Row("RUNPOD_WORKERS_MIN", "workers_min", "integer", 0, "workers that are always kept, and billed", 0, 100),
    Row("RUNPOD_WORKERS_MAX", "workers_max", "integer", 3, "most workers at a time", 0, 1000),
    Row("BUCKET_ENDPOINT_URL", "bucket_url", "text", None, "S3 storage for large files of transcribe"),
    Row("BUCKET_NAME", "bucket_name", "text", None, "its bucket"),
    Row("BUCKET_ACCESS_KEY_ID", "bucket_key_id", "secret", None, "its key"),
    Row("BUCKET_SECRET_ACCESS_KEY", "bucket_secret", "secret", None, "its key's secret"),
    Row("AWS_REGION", "aws_region", "text", "us-east-2", "region of EC2 machines (else AWS_DEFAULT_REGION)"),
    Row("AWS_PROFILE", "aws_profile", "text", None, "profile of ~/.aws to use"),
    Row("AWS_ACCESS_KEY_ID", "aws_key_id", "secret", None, "AWS key (default: what AWS's own tools would use)"),
    Row("AWS_SECRET_ACCESS_KEY", "aws_secret", "secret", None, "its secret"),
    Row("AWS_SESSION_TOKEN", "aws_token", "secret", None, "its session token, if it is a temporary one"),
    Row("EC2_INSTANCE_TYPE", "ec2_type", "text", "g4dn.xlarge", "EC2 machine to validate on"),
    Row("EC2_AMI_ID", "ec2_ami", "text", None, "its image (default: AWS's newest with NVIDIA driver and docker)"),
    Row("EC2_MAX_MINUTES", "ec2_max_minutes", "integer", 90, "minutes after which an EC2 machine ends", 10, 720),
    Row("RUNPOD_API_BASE", "api_base", "text", "https://api.runpod.io/v2", "REST API"),
    Row("RUNPOD_API_V1", "use_v1", "flag", False, "use REST v1, which RunPod retires, instead"),
    Row("RUNPOD_REST_V1_BASE", "v1_base", "text", "https://rest.runpod.io/v1", "REST API v1"),
    Row("RUNPOD_GRAPHQL_URL", "graphql_url", "text", "https://api.runpod.io/graphql", "GraphQL API"),
    Row(
        "RUNPOD_PROXY_TEMPLATE",
        "proxy_template",
        "text",
        "https://{pod}-{port}.proxy.runpod.net",
        "address of a pod's port",
    ),
    Row("RUNPOD_JOB_BASE", "job_base", "text", "https://api.runpod.ai/v2", "job API of endpoints"),
    Row(
        "RUNPOD_LB_TEMPLATE",
        "lb_template",
        "text",
        "https://{endpoint}.api.runpod.ai",
        "address of a load-balancing endpoint",
    ),
)
POD_VARIABLES = (
    "WHISPER_MODEL",
    "WHISPER_COMPUTE_TYPE",
    "WHISPER_LANGUAGE",
    "WHISPER_WINDOW_PAD_S",
    "WHISPERLIVE_PORT",
    "HEALTH_CHECK_PORT",
    "MAX_CLIENTS",
    "MAX_CONNECTION_TIME",
    "IDLE_TIMEOUT_S",
    "MAX_BACKLOG_S",
    "MAX_AUDIO_S",
    "MAX_UPLOAD_BYTES",
    "LOG_FORMAT",
    "LOG_LEVEL",
)
"""What the server in the pod gets from the user's settings, if they are set."""
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_MAX_SHOWN = 60


@dataclass(frozen=True)
class Settings:
    """Validated settings, one field per row of `ROWS`; `pod_environ` is what POD_VARIABLES are set to."""

    api_key: str | None
    pod_name: str
    gpu_types: tuple[str, ...]
    gpu_count: int
    cloud: Literal["SECURE", "COMMUNITY", "ANY"]
    spot: bool
    disk_gb: int
    volume_gb: int
    network_volume_id: str | None
    data_centers: tuple[str, ...]
    registry_id: str | None
    idle_stop_s: int
    max_price: float | None
    max_minutes: int | None
    docker_username: str | None
    docker_password: str | None
    docker_image: str
    docker_tag: str | None
    docker_registry: str | None
    auth_token: str | None
    model: str
    compute_type: str
    ws_port: int
    health_port: int
    endpoint_name: str
    endpoint_id: str | None
    gpu_pools: tuple[str, ...]
    workers_min: int
    workers_max: int
    bucket_url: str | None
    bucket_name: str | None
    bucket_key_id: str | None
    bucket_secret: str | None
    aws_region: str
    aws_profile: str | None
    aws_key_id: str | None
    aws_secret: str | None
    aws_token: str | None
    ec2_type: str
    ec2_ami: str | None
    ec2_max_minutes: int
    api_base: str
    use_v1: bool
    v1_base: str
    graphql_url: str
    proxy_template: str
    job_base: str
    lb_template: str
    pod_environ: Mapping[str, str]

    def secrets(self) -> list[str]:
        """The secret values that are set."""
        values = [getattr(self, row.field) for row in ROWS if row.is_secret]
        return [value for value in values if value]


def is_placeholder(value: str) -> bool:
    """True for what the seed project's templates leave behind: nothing, or `{{NAME}}`."""
    text = value.strip()
    return not text or (text.startswith("{{") and text.endswith("}}") and "RUNPOD_SECRET" not in text)


def read_settings(environ: Mapping[str, str], env_file: Mapping[str, str]) -> Settings:
    """Validate and complete; `environ` wins over `env_file`.

    Raises UsageError that names the variable, the value (unless secret) and the legal range.
    """
    given = {
        name: value for source in (env_file, environ) for name, value in source.items() if not is_placeholder(value)
    }
    # What AWS's own tools read.
    if "AWS_DEFAULT_REGION" in given:
        given.setdefault("AWS_REGION", given["AWS_DEFAULT_REGION"])
    values = {row.field: _value(row, given[row.env]) if row.env in given else row.default for row in ROWS}
    if "RUNPOD_PROXY_TEMPLATE" in given:
        check_proxy_template(values["proxy_template"])
    if "RUNPOD_LB_TEMPLATE" in given:
        check_lb_template(values["lb_template"])
    pod_environ = {name: given[name].strip() for name in POD_VARIABLES if name in given}
    return Settings(**values, pod_environ=pod_environ)


def check_proxy_template(template: str) -> None:
    """Raises UsageError unless `template` makes an address of a pod and a port that a token is safe to go to."""
    from builder.api.http import is_safe_for_keys

    url = template.replace("{pod}", "pod").replace("{port}", "1")
    if "{pod}" not in template or "{port}" not in template or not is_safe_for_keys(url):
        # It is not shown: one with a password in it is refused as well.
        raise UsageError(
            "RUNPOD_PROXY_TEMPLATE: legal: https://, or http:// of this machine, with {pod} and {port} in it, and "
            "without user, query and fragment: the pods' token goes there",
            hint="leave it unset to use RunPod's proxy",
        )


def check_lb_template(template: str) -> None:
    """Raises UsageError unless `template` makes an address of an endpoint that a key is safe to go to."""
    from builder.api.http import is_safe_for_keys

    if "{endpoint}" not in template or not is_safe_for_keys(template.replace("{endpoint}", "endpoint")):
        raise UsageError(
            "RUNPOD_LB_TEMPLATE: legal: https://, or http:// of this machine, with {endpoint} in it, and without "
            "user, query and fragment: the API key goes there",
            hint="leave it unset to use RunPod's",
        )


def _value(row: Row, text: str) -> Any:
    text = text.strip()
    if row.kind == "flag":
        if text.lower() not in _TRUE + _FALSE:
            raise _illegal(row, text)
        return text.lower() in _TRUE
    if row.kind == "list":
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if row.kind == "choice":
        if text.upper() not in row.choices:
            raise _illegal(row, text)
        return text.upper()
    if row.kind in ("integer", "number"):
        return _number(row, text)
    return text


def _number(row: Row, text: str) -> float | int:
    try:
        number = int(text) if row.kind == "integer" else float(text)
    except ValueError:
        raise _illegal(row, text) from None
    # Written so that NaN fails too.
    if row.low is not None and row.high is not None and not row.low <= number <= row.high:
        raise _illegal(row, text)
    return number


def _illegal(row: Row, text: str) -> UsageError:
    shown = text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
    legal = row.legal or {"integer": "a whole number", "number": "a number"}.get(row.kind, "text")
    return UsageError(f"{row.env}: {shown!r} is not allowed; legal: {legal}", hint="correct .env or the environment")
