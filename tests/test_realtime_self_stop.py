"""The pod that stops itself: when, how it asks, and what it does when nobody listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from realtime.__main__ import main
from realtime.pod_api import PodApi, PodApiError
from realtime.self_stop import FAREWELL_S, LOADING_EXTRA_S, Activity, Retries, SelfStop, StopRule, stop_if_overdue
from tests.fakes.clock import ManualClock
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.stop_api import StopApi, stop_api

KEY = "rpa_canary7canary7canary7"
NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
NOON_S = NOON.timestamp()


@pytest.fixture
def api() -> Iterator[StopApi]:
    with stop_api() as server:
        yield server


# The rule


def test_idle_for_the_limit_and_not_before() -> None:
    rule = StopRule.make(10.0, None)
    assert rule.reason(Activity(599.9, is_loading=False), NOON_S) is None
    assert rule.reason(Activity(600.0, is_loading=False), NOON_S) == "nobody used it for 10 min"


def test_loading_gets_half_an_hour_more() -> None:
    rule = StopRule.make(10.0, None)
    assert rule.reason(Activity(600.0 + LOADING_EXTRA_S - 0.1, is_loading=True), NOON_S) is None
    reason = rule.reason(Activity(600.0 + LOADING_EXTRA_S, is_loading=True), NOON_S)
    assert reason == "the model was not loaded within 40 min"


def test_the_deadline_counts_with_clients_too() -> None:
    rule = StopRule.make(None, NOON)
    assert rule.reason(Activity(9e9, is_loading=False), NOON_S - 0.1) is None
    assert rule.reason(Activity(0.0, is_loading=True), NOON_S) == "its deadline, 2026-01-31T12:00:00Z, has come"


def test_without_limits_never() -> None:
    rule = StopRule.make(None, None)
    assert not rule.is_set
    assert rule.reason(Activity(9e9, is_loading=False), 9e9) is None


def test_retries_double_up_to_a_quarter_of_an_hour() -> None:
    retries, now_s, waits_s = Retries(), 0.0, []
    for _ in range(7):
        assert retries.may_try(now_s)
        waits_s.append(retries.refused(now_s))
        assert not retries.may_try(now_s + waits_s[-1] - 0.1)
        now_s += waits_s[-1]
    assert waits_s == [60, 120, 240, 480, 900, 900, 900]


# Watching, in virtual time


class Platform:
    """A stop API that refuses `refusals` times; remembers when it was asked."""

    def __init__(self, clock: ManualClock, refusals: int, key: str | None = KEY) -> None:
        self.key = key
        self.asked_s: list[float] = []
        self._clock = clock
        self._refusals = refusals

    async def stop(self) -> str:
        self.asked_s.append(self._clock.now_s())
        if len(self.asked_s) <= self._refusals:
            raise PodApiError("REST: HTTP 403; GraphQL: HTTP 403")
        return "REST"


class EndError(Exception):
    """The test has seen enough."""


def watch(rule: StopRule, platform: Platform | None, clock: ManualClock, used_until_s: float, end_s: float) -> bool:
    """Watch from 0 to `end_s`, the last client leaving at `used_until_s`; True if the process is to end."""

    async def sleep(seconds: float) -> None:
        if clock.now_s() >= end_s:
            raise EndError
        clock.advance(seconds)

    def activity() -> Activity:
        return Activity(max(0.0, clock.now_s() - used_until_s), is_loading=False)

    stop = SelfStop(rule, platform, clock, activity, unix_s=lambda: NOON_S + clock.now_s(), sleep=sleep)
    try:
        asyncio.run(stop.watch())
    except EndError:
        return False
    return True


def test_a_refusing_platform_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock(0.0)
    platform = Platform(clock, refusals=3)
    assert not watch(StopRule(600.0, None), platform, clock, used_until_s=100.0, end_s=1_200.0)
    assert platform.asked_s == [700.0, 760.0, 880.0, 1_120.0]
    levels = [record.levelname for record in caplog.records if record.levelno >= logging.WARNING]
    assert levels == ["WARNING", "ERROR"] * 3 + ["WARNING"]
    assert "runs on and is billed: REST: HTTP 403; GraphQL: HTTP 403; trying again in 60 s" in caplog.text


def test_a_stop_that_does_not_come_is_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock(0.0)
    platform = Platform(clock, refusals=0)
    watch(StopRule(60.0, None), platform, clock, used_until_s=0.0, end_s=60.0 + FAREWELL_S)
    assert platform.asked_s == [60.0, 60.0 + FAREWELL_S]
    assert "and it still runs" in caplog.text


def test_a_deadline_that_is_past_counts_at_once() -> None:
    clock = ManualClock(0.0)
    platform = Platform(clock, refusals=0)
    watch(StopRule(None, NOON_S - 1), platform, clock, used_until_s=9e9, end_s=5.0)
    assert platform.asked_s == [0.0]


def test_outside_a_pod_the_process_ends_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock(0.0)
    assert watch(StopRule(60.0, None), None, clock, used_until_s=30.0, end_s=1_000.0)
    assert clock.now_s() == 90.0
    first, last = caplog.messages
    assert first.startswith("this is no RunPod pod")
    assert last == "this server ends: nobody used it for 1 min"


def test_a_pod_without_a_key_says_so_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock(0.0)
    watch(StopRule(600.0, None), Platform(clock, 9, key=None), clock, used_until_s=0.0, end_s=1.0)
    assert caplog.records[0].levelname == "ERROR" and "cannot stop itself" in caplog.messages[0]


def test_status() -> None:
    clock = ManualClock(0.0)
    stop = SelfStop(StopRule(600.0, NOON_S), None, clock, lambda: Activity(30.0, False), unix_s=lambda: NOON_S)
    assert stop.details() == {
        "self_stop": {"idle_limit_min": 10.0, "idle_s": 30.0, "deadline": "2026-01-31T12:00:00Z"},
        "last_activity": "2026-01-31T11:59:30Z",
    }


# The calls


def pod(api: StopApi) -> PodApi:
    made = PodApi.from_environ(api.environ(KEY))
    assert made is not None
    return made


def refusal_of(made: PodApi) -> str:
    with pytest.raises(PodApiError) as caught:
        asyncio.run(made.stop())
    assert KEY not in f"{caught.value!r} {made!r}"
    return str(caught.value)


def test_rest_is_asked_first(api: StopApi) -> None:
    assert asyncio.run(pod(api).stop()) == "REST"
    [(path, body, headers)] = api.asked
    assert (path, body) == ("/v2/pods/pod1/action", {"action": "stop"})
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert not headers["User-Agent"].startswith("Python")


def test_graphql_is_asked_where_rest_refuses(api: StopApi) -> None:
    api.rest = (403, '{"title": "Forbidden", "detail": "the key may not do this"}')
    assert asyncio.run(pod(api).stop()) == "GraphQL"
    path, body, _ = api.asked[-1]
    assert path == "/graphql" and body["variables"] == {"id": "pod1"} and "podStop" in body["query"]


def test_a_page_is_no_yes(api: StopApi) -> None:
    api.rest = (200, "<html>Just a moment...</html>")
    assert asyncio.run(pod(api).stop()) == "GraphQL"


def overdue(api: StopApi, deadline: str) -> list[str]:
    """Where a server that does not start asks for its pod's end."""
    asyncio.run(stop_if_overdue({**api.environ(KEY), "POD_DEADLINE": deadline}))
    return api.paths


@pytest.mark.parametrize("deadline", ["", "soon", "2999-01-01T00:00:00Z"])
def test_a_server_that_does_not_start_leaves_its_pod_before_the_deadline(api: StopApi, deadline: str) -> None:
    assert overdue(api, deadline) == []


def test_a_server_that_does_not_start_stops_its_pod_after_the_deadline(
    api: StopApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert overdue(api, "2020-01-01T00:00:00Z") == ["/v2/pods/pod1/action"]
    # The program itself: a setting that stops the start.
    for name, value in {**api.environ(KEY), "POD_DEADLINE": "2020-01-01T00:00:00Z", "MAX_CLIENTS": "many"}.items():
        monkeypatch.setenv(name, value)
    assert main([]) == 2
    assert len(api.asked) == 2
    # Outside a pod there is nothing to stop.
    asyncio.run(stop_if_overdue({"POD_DEADLINE": "2020-01-01T00:00:00Z"}))
    assert len(api.asked) == 2


def test_an_answer_that_never_ends_is_a_refusal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent(Platform):
        async def stop(self) -> str:
            await super().stop()
            await asyncio.Event().wait()
            raise AssertionError("nobody answers")

    monkeypatch.setattr("realtime.self_stop.ANSWER_LIMIT_S", 0.01)
    clock = ManualClock(0.0)
    platform = Silent(clock, refusals=0)
    watch(StopRule(None, NOON_S - 1), platform, clock, used_until_s=9e9, end_s=65.0)
    assert platform.asked_s == [0.0, 60.0]
    assert "no answer within" in caplog.text


@pytest.mark.parametrize(
    ("graphql", "said"),
    [
        ((200, '{"errors": [{"message": "not allowed"}], "data": null}'), "HTTP 200 (not allowed)"),
        ((200, '{"data": {"podStop": null}}'), "HTTP 200"),
        ((410, "<html>gone</html>"), "HTTP 410"),
    ],
)
def test_both_refuse(api: StopApi, graphql: tuple[int, str], said: str) -> None:
    api.rest, api.graphql = (409, '{"detail": "not now"}'), graphql
    assert refusal_of(pod(api)) == f"REST: HTTP 409 (not now); GraphQL: {said}"


def test_redirects_are_not_followed(api: StopApi) -> None:
    api.rest = api.graphql = (307, "")
    api.location = f"{api.address}/elsewhere"
    assert refusal_of(pod(api)) == "REST: HTTP 307; GraphQL: HTTP 307"
    assert api.paths == ["/v2/pods/pod1/action", "/graphql"]


def test_nobody_there() -> None:
    made = PodApi("pod1", KEY, "http://127.0.0.1:9/v2", "http://127.0.0.1:9/graphql")
    assert "no answer (ConnectionRefusedError" in refusal_of(made)


def test_the_key_is_not_sent_in_the_clear(api: StopApi) -> None:
    made = replace(pod(api), rest_base="http://api.example.org/v2", graphql_url="ftp://api.example.org")
    assert refusal_of(made) == "REST: the key is sent to https:// alone; GraphQL: the key is sent to https:// alone"


@pytest.mark.parametrize("key", [None, "two\nlines"])
def test_keys_that_cannot_be_sent(api: StopApi, key: str | None) -> None:
    assert "RUNPOD_API_KEY" in refusal_of(replace(pod(api), key=key))
    assert api.asked == []


def test_a_strange_pod_id_stays_one_part_of_the_address(api: StopApi) -> None:
    asyncio.run(replace(pod(api), pod_id="a/../b").stop())
    assert api.paths == ["/v2/pods/a%2F..%2Fb/action"]


def test_no_pod_without_an_id() -> None:
    assert PodApi.from_environ({"RUNPOD_API_KEY": KEY}) is None
    assert PodApi.from_environ({"RUNPOD_POD_ID": "p"}) == PodApi("p", None)


# Against the fake RunPod


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as started:
        yield started


def rented(plane: ControlPlane) -> str:
    """The id of a pod that runs."""
    gpu = {"id": "NVIDIA GeForce RTX 4090", "count": 1}
    made = plane.pods.create({"name": "p", "image": "i", "gpu": gpu, "cloud": "SECURE"})
    plane.clock.advance(60)
    assert plane.pods.get(made.id).status == "RUNNING"
    return made.id


def test_a_pods_own_key_stops_that_pod_alone(plane: ControlPlane) -> None:
    mine, other = rented(plane), rented(plane)
    plane.clock.advance(60)
    environ = plane.environ(RUNPOD_API_KEY=plane.pod_key(mine), RUNPOD_POD_ID=mine)
    made = PodApi.from_environ(environ)
    assert made is not None
    assert asyncio.run(made.stop()) == "REST"
    assert plane.pods.get(mine).status == "EXITED"
    with pytest.raises(PodApiError, match="HTTP 403"):
        asyncio.run(replace(made, pod_id=other).stop())
    assert plane.pods.get(other).status == "RUNNING"
    plane.assert_contract()


def test_graphql_understands_the_mutation(plane: ControlPlane) -> None:
    pod_id = rented(plane)
    made = PodApi(pod_id, plane.api_key, f"{plane.url}/nowhere", f"{plane.url}/graphql")
    assert asyncio.run(made.stop()) == "GraphQL"
    assert plane.pods.get(pod_id).status == "EXITED"
    plane.retire_graphql()
    with pytest.raises(PodApiError, match=r"REST: HTTP 404.*; GraphQL: HTTP 410"):
        asyncio.run(made.stop())
