"""What /status tells to those who may know: places, load, the engine, samples, limits. Numbers, no text of peers.

Pure: everything is an argument.
"""

from __future__ import annotations

from typing import Any

from engine.service import EngineStats
from engine.settings import Settings
from realtime.admission import Admission
from realtime.load import Load

__all__ = ["engine_details", "limit_details", "serving_details", "session_details"]


def session_details(admission: Admission) -> dict[str, Any]:
    """Places taken, the operator's limit (None: auto), how many streams are let in at present and why."""
    capacity = admission.capacity
    return {
        "active": admission.n_active,
        "max": admission.max_clients,
        "capacity": capacity.streams,
        "limited_by": capacity.limited_by,
    }


def serving_details(load: Load, feature_threads: int) -> dict[str, Any]:
    """The serving process: its threads, the share of the last seconds in which its parts were busy, how late it is."""
    return {
        "feature_threads": feature_threads,
        "busy_share": {name: round(share, 3) for name, share in load.shares.items()},
        "late_s": round(load.late_s, 3),
    }


def engine_details(
    state: str, model: str, stats: EngineStats, now_s: float, window_pad_s: float | None
) -> dict[str, Any]:
    """The engine: what runs, how busy it is, what waits; to what live windows are padded (None: loading)."""
    last_s = stats.last_success_s
    return {
        "state": state,
        "model": model,
        "window_pad_s": window_pad_s,
        "restarts": stats.restarts,
        "busy_share": round(stats.busy_share, 3),
        "partial_interval_s": round(stats.partial_interval_s, 3),
        "max_streams": stats.max_streams,
        "last_decode_seconds_ago": None if last_s is None else round(now_s - last_s, 1),
        "waiting": {job.name.lower(): counts.waiting for job, counts in stats.classes.items()},
    }


def limit_details(settings: Settings) -> dict[str, Any]:
    """What the operator allows one stream."""
    return {
        "max_connection_time_s": settings.max_connection_time_s,
        "idle_timeout_s": settings.idle_timeout_s,
        "max_backlog_s": settings.max_backlog_s,
    }
