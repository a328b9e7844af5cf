"""What /status shows of places, load and engine."""

from __future__ import annotations

import json

from engine.service import ClassStats, EngineStats
from engine.settings import load_settings
from engine.types import JobClass
from realtime.admission import MAX_AUTO_STREAMS, Admission
from realtime.load import Load
from realtime.status import engine_details, limit_details, serving_details, session_details

STATS = EngineStats(
    is_ready=True,
    restarts=2,
    open_files=0,
    last_success_s=100.0,
    classes={job_class: ClassStats(int(job_class), 0, 0, 0, 0.0) for job_class in JobClass},
    busy_share=0.123456,
    partial_interval_s=0.34567,
    max_streams=23,
    batches=7,
    coalesced=1,
)


def test_places_with_and_without_a_number() -> None:
    auto = Admission(None, None)
    assert session_details(auto) == {
        "active": 0,
        "max": None,
        "capacity": MAX_AUTO_STREAMS,
        "limited_by": "places",
    }
    measured = Admission(40, None, lambda: 23)
    measured.enter(0.0)
    assert session_details(measured) == {
        "active": 1,
        "max": 40,
        "capacity": 23,
        "limited_by": "the engine",
    }


def test_the_serving_process() -> None:
    load = Load({"loop": lambda: 0.0, "features": lambda: 0.0}, 0.0)
    load.timer_fired(1_000.0, 0.0126)
    shares = {"loop": 0.0, "features": 0.0}
    assert serving_details(load, 2) == {"feature_threads": 2, "busy_share": shares, "late_s": 0.013}


def test_the_engine() -> None:
    shown = engine_details("ready", "demo", STATS, 101.26, 30.0)
    assert shown == {
        "state": "ready",
        "model": "demo",
        "window_pad_s": 30.0,
        "restarts": 2,
        "busy_share": 0.123,
        "partial_interval_s": 0.346,
        "max_streams": 23,
        "last_decode_seconds_ago": 1.3,
        "waiting": {"final": 0, "partial": 1, "file": 2},
    }
    assert json.loads(json.dumps(shown)) == shown


def test_the_limits_of_a_stream() -> None:
    settings = load_settings({"idle_timeout_s": "30"}, env_file=None)
    assert limit_details(settings) == {
        "max_connection_time_s": settings.max_connection_time_s,
        "idle_timeout_s": 30.0,
        "max_backlog_s": settings.max_backlog_s,
    }
