"""A real server, told to stop its pod: it asks the platform, serves on, and drains when the platform ends it."""

from __future__ import annotations

import json

from tests.fakes.stop_api import stop_api
from tests.serving import running_server

KEY = "rpa_canary7canary7canary7"


def test_an_idle_server_stops_its_pod() -> None:
    with stop_api() as api:
        environ = api.environ(KEY)
        with running_server(
            "--idle-stop", "0.05", "--host", "127.0.0.1", "--model", "demo", ready=True, **environ
        ) as server:
            told = json.loads(server.get("/status")[1])
            assert told["self_stop"]["idle_limit_min"] == 0.05 and told["self_stop"]["deadline"] is None
            assert told["engine"]["window_pad_s"] == 0.0, "the demo model needs no more than a tail"
            server.wait_until(lambda: api.asked, "asked", 6.0)
            assert api.paths == ["/v2/pods/pod1/action"]
            assert server.get("/ready")[0] == 200, "it serves until the platform ends it"
            assert server.terminate() == 0
            assert "stopping this pod: nobody used it for 0.05 min" in server.log()
            assert KEY not in server.log()


def test_outside_a_pod_a_past_deadline_ends_the_server() -> None:
    with running_server("--deadline", "2026-01-31T12:00:00Z", ready=False) as server:
        assert server.process.wait(10) == 0
        assert "this server ends: its deadline, 2026-01-31T12:00:00Z, has come" in server.log()
