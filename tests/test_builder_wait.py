"""Waiting for a pod over real HTTP: it climbs, fails fast with the cause, or times out with the pod kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import UsageError
from builder.instants import duration_text, unix_s_of
from builder.pods.addresses import health_url, port_url, ws_url
from tests.builder_pods import TOKEN, Bench, pod_bench
from tests.fakes.runpod.boots import BootKind
from tests.serving import Server, running_server


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pod_bench(tmp_path) as made:
        yield made
        made.plane.assert_contract()
        made.plane.assert_no_secret(TOKEN)


def test_it_waits_until_the_model_is_loaded_and_tells_every_rung(bench: Bench) -> None:
    pod = bench.add_pod()
    bench.health.ready_after = 2
    outcome = bench.cli.run("wait", "--json")
    document = outcome.document
    assert outcome.code == 0, outcome.err
    assert document["pod_id"] == pod.id and document["until"] == "ready"
    assert list(document["rungs"]) == ["placed", "image", "running", "proxy", "ready"]
    assert 13 <= document["rungs"]["running"] <= document["rungs"]["ready"] == document["elapsed_s"] < 30
    assert document["ws_url"].startswith("ws://") and document["health_url"].endswith("/9999/health")
    for rung in document["rungs"]:
        assert f"{rung} after" in outcome.err


def test_it_asks_for_no_more_than_it_was_told_to_wait_for(bench: Bench) -> None:
    bench.add_pod()
    bench.health.ready_after = 1_000
    running = bench.cli.run("wait", "--until", "running", "--json")
    health = bench.cli.run("wait", "--until", "health", "--json")
    assert (running.code, health.code) == (0, 0)
    assert list(health.document["rungs"])[-1] == "proxy"
    assert "/ready" not in bench.health.asked


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("missing", "there is no such image"),
        ("private", "the registry refuses the image"),
        ("pull_limit", "the registry limits anonymous downloads"),
        ("disk_full", "the disk is full"),
        ("cuda", "driver is too old"),
        ("exits", "a CUDA library is missing"),
        ("crash_loop", "a CUDA library is missing"),
    ],
)
def test_a_pod_that_will_never_serve_is_told_at_once_and_why(bench: Bench, kind: BootKind, cause: str) -> None:
    bench.health.is_up = False
    bench.plane.pods.script_boot(kind)
    pod = bench.add_pod()
    began_s = bench.clock.unix_s()
    outcome = bench.cli.run("wait", "--json")
    assert outcome.code == 1 and outcome.problem["code"] == "pod_failed"
    assert cause in outcome.problem["error"] and pod.id in outcome.problem["error"]
    assert outcome.problem["hint"]
    # The failure shows within 17 s of its creation; a look and its jitter later it is told.
    assert bench.clock.unix_s() - began_s < 25


def test_it_fails_on_the_same_look_that_shows_the_line(bench: Bench) -> None:
    bench.plane.pods.script_boot("stuck")
    pod = bench.add_pod()
    bench.clock.advance(5)
    bench.plane.pods.log(pod.id, "system", "pull access denied for you/whisper")
    outcome = bench.cli.run("wait", "--json")
    assert outcome.code == 1 and "refuses the image" in outcome.problem["error"]
    assert len(bench.plane.requests("GET /v2/pods/{id}")) == 1


def test_what_the_log_said_before_the_present_start_does_not_count(bench: Bench) -> None:
    pod = bench.add_running()
    bench.plane.pods.log(pod.id, "container", "OSError: [Errno 28] No space left on device")
    bench.plane.pods.act(pod.id, "stop")
    bench.clock.advance(60)
    outcome = bench.cli.run("start", "--wait", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["wait"]["until"] == "ready" and outcome.document["status"] == "RUNNING"


def test_a_timeout_keeps_the_pod_and_says_what_is_missing(bench: Bench) -> None:
    bench.health.ready_after = 1_000
    pod = bench.add_pod()
    outcome = bench.cli.run("wait", "--timeout", "60", "--json")
    assert outcome.code == 7 and outcome.problem["code"] == "wait_timeout"
    for part in (pod.id, "1m00s", "ready is missing", "loading", "kept", "$"):
        assert part in outcome.problem["error"]
    assert bench.plane.pods.get(pod.id).status == "RUNNING" and bench.plane.mutations() == []


def test_nobody_listening_for_three_minutes_is_a_failure_with_a_hint(bench: Bench) -> None:
    bench.health.is_up = False
    bench.add_pod()
    outcome = bench.cli.run("wait", "--json")
    assert outcome.code == 1 and "9999" in outcome.problem["error"]
    assert "HEALTH_CHECK_PORT" in outcome.problem["hint"]


def test_a_port_that_is_not_declared_is_told_as_soon_as_it_runs(bench: Bench) -> None:
    bench.add_pod(ports=["9090/http"])
    outcome = bench.cli.run("wait", "--json")
    assert outcome.code == 1 and "does not declare port 9999/http" in outcome.problem["error"]


def test_the_ports_are_those_the_pod_was_deployed_with(bench: Bench) -> None:
    bench.add_pod(ports=["9091/http", "9999/http"], env={"WHISPERLIVE_PORT": "9091"})
    assert bench.cli.run("wait", "--json").document["ws_url"].endswith("/9091")


def test_running_is_enough_for_a_pod_that_serves_something_else(bench: Bench) -> None:
    bench.add_pod(ports=["8888/http"], image="somebody/notebook:1")
    assert bench.cli.run("wait", "--until", "running", "--json").code == 0


def test_ctrl_c_says_that_the_pod_is_kept(bench: Bench) -> None:
    pod = bench.add_pod()

    def impatient(seconds: float) -> None:
        raise KeyboardInterrupt

    bench.clock.sleep = impatient  # type: ignore[method-assign]
    outcome = bench.cli.run("wait", "--json")
    assert outcome.code == 130 and f"pod {pod.id} is kept" in outcome.problem["error"]


def test_a_pod_that_vanishes_in_between_fails_and_an_unknown_one_is_not_found(bench: Bench) -> None:
    bench.plane.pods.script_boot("unplaced")
    pod = bench.add_pod()
    bench.plane.faults.fail("GET /v2/pods/{id}/logs", status=404, times=50)
    pod.terminate_at_s = bench.clock.unix_s() + 10
    outcome = bench.cli.run("wait", "--json")
    assert outcome.code == 1 and "gone" in outcome.problem["error"]
    unknown = bench.cli.run("wait", "nosuchpod", "--json")
    assert unknown.code == 3 and unknown.problem["code"] == "not_found"


def test_without_any_pod_it_says_how_to_get_one(bench: Bench) -> None:
    outcome = bench.cli.run("wait", "--json")
    assert outcome.code == 3 and "deploy" in outcome.problem["hint"]


def test_faults_of_the_api_that_pass_do_not_end_a_wait(bench: Bench) -> None:
    bench.add_pod()
    bench.plane.faults.fail("GET /v2/pods/{id}", status=503, times=6)
    bench.plane.faults.reset("GET /v2/pods/{id}/logs", times=3)
    bench.plane.faults.cut_logs(0, times=3)
    outcome = bench.cli.run("wait", "--json", "--timeout", "900")
    assert outcome.code == 0, outcome.err


def test_a_refused_key_ends_it(bench: Bench) -> None:
    bench.add_pod()
    bench.plane.faults.expire_key(after=2)
    assert bench.cli.run("wait", "--json").code == 4


def test_after_a_restart_the_old_container_does_not_count(bench: Bench) -> None:
    bench.add_running()
    outcome = bench.cli.run("restart", "--wait", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["wait"]["elapsed_s"] >= 4


def test_over_rest_v1_which_tells_no_uptime_and_no_logs(bench: Bench) -> None:
    bench.cli.environ["RUNPOD_API_V1"] = "1"
    bench.add_pod()
    outcome = bench.cli.run("wait", "--json")
    assert outcome.code == 0, outcome.err
    logs = bench.cli.run("logs", "--json")
    assert logs.code == 1 and logs.problem["code"] == "not_available"
    assert bench.cli.run("status", "--json").document["ready"] is True


def test_it_speaks_to_a_real_server(bench: Bench, server: Server) -> None:
    pod = bench.add_running()
    bench.plane.proxy.register(pod.id, 9090, server.port)
    bench.plane.proxy.register(pod.id, 9999, server.health_port)
    outcome = bench.cli.run("wait", "--until", "speaks", "--json")
    assert outcome.code == 0, outcome.err
    assert list(outcome.document["rungs"])[-1] == "speaks" and outcome.document["transcript"]
    assert outcome.document["first_text_s"] > 0


def test_it_speaks_with_the_secret_to_our_pod_alone(bench: Bench) -> None:
    pod = bench.add_running()
    bench.cli.environ["WHISPER_AUTH_TOKEN"] = TOKEN
    env = bench.plane.pods.get(pod.id).env
    del env["WHISPER_AUTH_TOKEN"]
    with running_server(ready=True, WHISPER_AUTH_TOKEN=TOKEN) as guarded:
        bench.plane.proxy.register(pod.id, 9090, guarded.port)
        bench.plane.proxy.register(pod.id, 9999, guarded.health_port)
        assert bench.cli.run("wait", "--until", "speaks").code == 0
        del env["BUILDER_ID"]
        assert bench.cli.run("wait", "--until", "speaks").code == 1


def test_a_ready_pod_that_does_not_transcribe_fails(bench: Bench) -> None:
    bench.add_running()
    outcome = bench.cli.run("wait", "--until", "speaks", "--json")
    assert outcome.code == 1 and "does not transcribe" in outcome.problem["error"]


def test_the_balance_is_told_as_long_as_graphql_is_there(bench: Bench) -> None:
    bench.add_running()
    document = bench.cli.run("status", "--json").document
    assert 99 < document["balance"] <= 100 and document["spend_per_hour"] > 0
    bench.plane.retire_graphql()
    assert bench.cli.run("status", "--json").document["balance"] is None


def test_status_tells_state_money_limits_and_streams(bench: Bench) -> None:
    deadline = "2030-01-01T00:00:00Z"
    pod = bench.add_running(env={"POD_DEADLINE": deadline, "POD_IDLE_STOP_MIN": "10"})
    document = bench.cli.run("status", "--json").document
    assert document["pod_id"] == pod.id and document["status"] == "RUNNING" and document["ready"] is True
    assert document["uptime_s"] == 60 and document["age_s"] == 73
    assert document["cost_per_hour"] == pod.price
    assert document["cost_since_start"] == pytest.approx(pod.price / 60, abs=2e-3)
    assert document["deadline"] == deadline and document["idle_stop_min"] == 10
    assert (document["active_streams"], document["max_streams"]) == (2, 4)
    assert document["storage_per_month_stopped"] == 4.0
    shown = bench.cli.run("status").out
    for part in (pod.id, "RUNNING, up 1m00s", "ready, 2 streams of 4", "10 idle minutes", document["ws_url"]):
        assert part in shown
    assert TOKEN not in shown


def test_status_of_a_stopped_pod_tells_what_its_disk_costs(bench: Bench) -> None:
    bench.add_stopped()
    document = bench.cli.run("status", "--json").document
    assert document["status"] == "EXITED" and document["ready"] is None and document["cost_per_hour"] == 0
    assert "disk $4.00 a month" in bench.cli.run("status").out


def test_status_of_a_pod_that_is_gone_says_so(bench: Bench) -> None:
    bench.add_running()
    bench.plane.pods.delete(next(iter(bench.plane.pods.pods)))
    outcome = bench.cli.run("status", "--json")
    assert outcome.code == 3 and "is gone" in outcome.problem["error"]


def test_watching_in_a_pipe_is_a_line_of_json_each_until_ctrl_c(bench: Bench) -> None:
    bench.add_running()

    sleep, left = bench.clock.sleep, [2]

    def impatient(seconds: float) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        sleep(seconds)

    bench.clock.sleep = impatient  # type: ignore[method-assign]
    outcome = bench.cli.run("status", "--watch")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert outcome.code == 0 and [line["uptime_s"] for line in lines] == [60, 65, 70]


def test_addresses_follow_the_template() -> None:
    template = "https://{pod}-{port}.proxy.runpod.net"
    assert port_url(template, "abc", 9090) == "https://abc-9090.proxy.runpod.net"
    assert ws_url(template, "abc", 9090) == "wss://abc-9090.proxy.runpod.net"
    assert health_url(template, "abc", 9999, "/ready") == "https://abc-9999.proxy.runpod.net/ready"
    for pod_id in ("a/../b", ""):
        with pytest.raises(UsageError):
            port_url(template, pod_id, 1)


@pytest.mark.parametrize(
    "template",
    [
        "https://x",
        "{pod}{port}",
        "http://pods.example/{pod}/{port}",
        "https://me:pass-word@x/{pod}/{port}",
        "https://x/#{pod}{port}",
        "https://x/?{pod}{port}",
        "https://[{pod}]-{port}",
        "ftp://x/{pod}/{port}",
    ],
)
def test_a_template_that_is_unsafe_for_the_token_is_refused_before_anything_happens(
    bench: Bench, template: str
) -> None:
    bench.add_running()
    bench.cli.environ["RUNPOD_PROXY_TEMPLATE"] = template
    for words in (("status",), ("guard",), ("test", "health"), ("deploy", "--yes")):
        outcome = bench.cli.run(*words, "--json")
        assert outcome.code == 2 and "RUNPOD_PROXY_TEMPLATE" in outcome.problem["error"], words
        assert "pass-word" not in outcome.err
    assert bench.health.asked == [] and bench.plane.mutations() == []
    with pytest.raises(UsageError, match="RUNPOD_PROXY_TEMPLATE"):
        port_url(template, "abc", 1)


def test_status_shows_our_secret_to_our_pod_alone(bench: Bench) -> None:
    pod = bench.add_running(env={"WHISPER_AUTH_TOKEN": ""})
    bench.cli.environ["WHISPER_AUTH_TOKEN"] = TOKEN
    assert bench.cli.run("status", "--json").document["active_streams"] == 2
    del bench.plane.pods.get(pod.id).env["BUILDER_ID"]
    assert bench.cli.run("status", "--json").document["active_streams"] is None
    bench.plane.pods.get(pod.id).env["WHISPER_AUTH_TOKEN"] = TOKEN
    bench.cli.environ["WHISPER_AUTH_TOKEN"] = "another-secret-0123456789"
    assert bench.cli.run("status", "--json").document["active_streams"] == 2


def test_an_instant_that_no_calendar_has_is_not_told(bench: Bench) -> None:
    pod = bench.add_running()
    seen = bench.plane.pods.get(pod.id)
    seen.env["POD_IDLE_STOP_MIN"] = "9" * 5000
    seen.env["POD_DEADLINE"] = "9999-12-31T23:59:59.9999999Z"
    outcome = bench.cli.run("status", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["deadline"] is outcome.document["idle_stop_min"] is None


def test_instants_and_durations_read_and_written() -> None:
    assert unix_s_of("2026-01-01T00:00:00.123456789Z") == pytest.approx(1767225600.1234567)
    assert unix_s_of("2026-01-01 01:00+01:00") == 1767225600
    assert unix_s_of("2026-13-01T00:00:00Z") is unix_s_of("soon") is unix_s_of(None) is None
    assert unix_s_of("9999-12-31T23:59:59-23:00") is unix_s_of("0001-01-01T00:00:00+14:00") is None
    assert [duration_text(each) for each in (-1, 42, 185, 7_620, 273_600)] == ["0s", "42s", "3m05s", "2h07m", "3d04h"]
