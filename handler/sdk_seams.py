"""The places where the worker takes the SDK's functions over, and the proof that they are still there.

The SDK has no public way to change how it takes jobs and posts results. Its functions are replaced by name, so
a version that nobody has looked at stops the start, with a clear error, instead of losing results.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.errors import ConfigError

__all__ = ["KNOWN_VERSION", "SEAMS", "Sdk", "check_sdk"]

KNOWN_VERSION = "1.12"
"""The version whose loop, posts and signals the worker was written for."""


@dataclass(frozen=True)
class Sdk:
    """The SDK's modules, as `handler.worker` imported them."""

    version: str
    serverless: Any
    scale: Any
    job: Any
    http: Any
    logger: Any
    state: Any


SEAMS = {
    "scale.get_job": "(session, num_jobs)",
    "scale.get_stop_signals": "(session)",
    "scale.handle_job": "(session, config, job)",
    "scale.JobScaler.handle_shutdown": "(self, signum, frame)",
    "scale.JobScaler.current_occupancy": "(self)",
    "scale.JobScaler.set_scale": "(self)",
    "scale.JobScaler.get_jobs": "(self, session)",
    "scale.JobScaler.monitor_stop_signals": "(self, session)",
    "job._job_get_url": "(batch_size)",
    "job.send_result": "(session, job_data, job, is_stream)",
    "job.stream_result": "(session, job_data, job)",
    "job.handle_job": "(session, config, job)",
    "http._handle_result": "(session, job_data, job, url_template, log_message, is_stream)",
    "logger.RunPodLogger.log": "(self, message, message_level, job_id)",
    "state.JobsProgress.add": "(self, element)",
    "state.JobsProgress.remove": "(self, element)",
    "serverless.start": "(config)",
    "serverless.register_fitness_check": "(func)",
}
"""What is replaced or relied upon, by module, with its parameters."""


def check_sdk(sdk: Sdk) -> None:
    """Raise ConfigError unless the SDK is the known one."""
    known = sdk.version == KNOWN_VERSION or sdk.version.startswith(f"{KNOWN_VERSION}.")
    wrong = [name for name, parameters in SEAMS.items() if _parameters(sdk, name) != parameters]
    if known and not wrong:
        return
    detail = f"; {', '.join(wrong)} changed" if wrong else ""
    raise ConfigError(
        f"runpod {sdk.version} is installed, and the worker is made for {KNOWN_VERSION}.x{detail}: "
        f"pip install 'runpod~={KNOWN_VERSION}.0'"
    )


def _parameters(sdk: Sdk, name: str) -> str | None:
    found: Any = sdk
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"({', '.join(inspect.signature(found).parameters)})" if isinstance(found, Callable) else None  # type: ignore[arg-type]
