"""All three clients against the fake RunPod: one life of a pod each, faults, limits, and what is retired."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from builder.api.connect import connect, connect_graphql
from builder.api.control_plane import ControlPlane as Api
from builder.api.graphql import GraphQl
from builder.api.models import GpuRequest, PodSpec
from builder.api.retries import ATTEMPTS
from builder.errors import (
    AmbiguousError,
    AuthError,
    BadAnswerError,
    BalanceError,
    CapacityError,
    ConflictError,
    ForbiddenError,
    NotAvailableError,
    NotFoundError,
    RateLimitedError,
)
from builder.redact import Redactor
from builder.settings import read_settings
from tests.fakes.runpod.control_plane import ControlPlane

GPU = "NVIDIA GeForce RTX 4090"
SPEC = PodSpec(
    name="whisper-1",
    image="user/image:tag",
    gpu=GpuRequest(id=GPU, min_cuda_version="12.4"),
    cloud="SECURE",
    disk=20,
    ports=("9090/http",),
    env={"A": "b"},
    mounts={"persistent": {"size": 20, "path": "/workspace"}},
)


@pytest.fixture(scope="module")
def running() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def plane(running: ControlPlane) -> Iterator[ControlPlane]:
    running.reset()
    yield running
    running.assert_contract()
    running.assert_no_secret(running.api_key)


def client(plane: ControlPlane, notes: list[str] | None = None, **extra: str) -> Api:
    environ = plane.environ(**extra)
    note = (notes if notes is not None else []).append
    return connect(read_settings(environ, {}), plane.clock, Redactor(), note, environ)


def graphql(plane: ControlPlane) -> GraphQl:
    environ = plane.environ()
    notes: list[str] = []
    return connect_graphql(read_settings(environ, {}), plane.clock, Redactor(), notes.append, environ)


@pytest.mark.parametrize("version", ["2", "1"])
def test_the_life_of_a_pod(plane: ControlPlane, version: str) -> None:
    api = client(plane, RUNPOD_API_V1="1" if version == "1" else "0")
    api.check_key()
    made = api.create_pod(SPEC)
    assert made.status == ("PROVISIONING" if version == "2" else "RUNNING")
    plane.clock.advance(60)
    (seen,) = api.list_pods()
    assert seen == api.get_pod(made.id)
    assert (seen.name, seen.status, seen.volume_gb, seen.env) == ("whisper-1", "RUNNING", 20, {"A": "b"})
    assert seen.gpu is not None and seen.gpu.id == GPU
    assert seen.cloud == "SECURE" and seen.data_center_id and seen.cost > 0
    assert api.update_pod(made.id, {"env": {"A": "c"}}).env == {"A": "c"}
    plane.clock.advance(60)
    stopped = api.act(made.id, "stop")
    assert (stopped.status, stopped.cost) == ("EXITED", 0)
    assert api.act(made.id, "start").status in ("STARTING", "PROVISIONING", "RUNNING")
    api.delete_pod(made.id)
    api.delete_pod(made.id)
    assert [pod for pod in api.list_pods() if pod.status != "TERMINATED"] == []
    with pytest.raises(NotFoundError):
        api.get_pod("nosuchpod")
    plane.assert_no_leaks()


@pytest.mark.parametrize("version", ["2", "1"])
def test_the_account(plane: ControlPlane, version: str) -> None:
    api = client(plane, RUNPOD_API_V1="1" if version == "1" else "0")
    made = api.create_pod(SPEC)
    plane.clock.advance(3600)
    start = datetime.fromtimestamp(plane.clock.unix_s(), timezone.utc) - timedelta(hours=2)
    records = api.pod_billing(start=start, end=start + timedelta(hours=3), pod_id=made.id)
    assert records and all(record.pod_id == made.id for record in records)
    assert sum(record.total_amount for record in records) == pytest.approx(made.cost, rel=0.1)
    stored = api.create_registry("hub", "user", "pass-word-1")
    assert stored in api.registries()
    assert api.endpoints() == [] and isinstance(api.network_volumes(), list)
    api.delete_pod(made.id)


def test_the_catalog_and_the_log(plane: ControlPlane) -> None:
    api = client(plane)
    gpus = {gpu.id: gpu for gpu in api.gpu_types(cloud="SECURE", min_cuda="12.4")}
    assert gpus[GPU].memory == 24
    assert gpus[GPU].availability in ("NONE", "LOW", "MEDIUM", "HIGH")
    made = api.create_pod(SPEC)
    plane.clock.advance(60)
    plane.log_hold_s = 0.1
    events = list(api.logs(made.id, tail=50, idle_s=0.3))
    assert events and all(event.id and event.line for event in events)
    again = list(api.logs(made.id, last_event_id=events[0].id, idle_s=0.3))
    assert [event.line for event in again] == [event.line for event in events[1:]]
    api.delete_pod(made.id)


@pytest.mark.parametrize("fault", ["drop_after_commit", "half"])
def test_a_create_without_an_answer_is_ambiguous_and_sent_once(plane: ControlPlane, fault: str) -> None:
    getattr(plane.faults, fault)("POST /v2/pods")
    api = client(plane)
    with pytest.raises(AmbiguousError):
        api.create_pod(SPEC)
    (pod,) = api.list_pods()
    assert len(plane.requests("POST /v2/pods")) == 1
    api.delete_pod(pod.id)


def test_deletes_and_actions_survive_faults(plane: ControlPlane) -> None:
    api = client(plane)
    pod = api.create_pod(SPEC)
    plane.clock.advance(60)
    plane.faults.drop_after_commit("POST /v2/pods/{id}/action")
    assert api.act(pod.id, "stop").status == "EXITED"
    plane.faults.drop_before("POST /v2/pods/{id}/action")
    plane.faults.fail("POST /v2/pods/{id}/action", 503)
    assert api.act(pod.id, "start").status != "EXITED"
    plane.faults.drop_before("DELETE /v2/pods/{id}")
    plane.faults.fail("DELETE /v2/pods/{id}", 502, body="<html>bad gateway")
    plane.faults.drop_after_commit("DELETE /v2/pods/{id}")
    api.delete_pod(pod.id)
    plane.assert_no_leaks()


def test_limits_are_waited_out_or_told(plane: ControlPlane) -> None:
    notes: list[str] = []
    api = client(plane, notes)
    plane.limits.set(minute=2)
    for _ in range(5):
        api.list_pods()
    assert len(notes) == 2
    plane.limits.set(hour=1)
    with pytest.raises(RateLimitedError, match="asks to wait"):
        for _ in range(2):
            api.list_pods()


def test_refusals(plane: ControlPlane) -> None:
    with pytest.raises(AuthError) as refused:
        client(plane, RUNPOD_API_KEY="rpa_WRONGKEY0123456789").check_key()
    assert not isinstance(refused.value, ForbiddenError)
    with pytest.raises(ForbiddenError):
        client(plane, RUNPOD_API_KEY=plane.read_only_key).create_pod(SPEC)
    plane.faults.garbage("GET /v2/pods", times=ATTEMPTS)
    with pytest.raises(BadAnswerError, match="not JSON"):
        client(plane).list_pods()
    no_gpu = SPEC.model_copy(update={"gpu": GpuRequest(id=GPU, count=8), "cloud": "COMMUNITY"})
    plane.faults.fail(
        "POST /v2/pods",
        400,
        body={"title": "T", "status": 400, "detail": "There are no longer any instances available"},
    )
    with pytest.raises(CapacityError):
        client(plane).create_pod(no_gpu)
    plane.reset(balance=0.0)
    with pytest.raises(BalanceError):
        client(plane).create_pod(SPEC)


def test_a_locked_pod_is_not_deleted(plane: ControlPlane) -> None:
    api = client(plane)
    pod = api.create_pod(SPEC)
    plane.clock.advance(60)
    api.update_pod(pod.id, {"locked": True})
    with pytest.raises(ConflictError):
        api.act(pod.id, "stop")
    api.update_pod(pod.id, {"locked": False})
    api.delete_pod(pod.id)


def test_graphql(plane: ControlPlane) -> None:
    api, rest = graphql(plane), client(plane)
    assert api.balance().credit == 100
    price = api.spot_price(GPU, "SECURE", 1)
    assert price is not None
    spot = api.rent_spot(SPEC, price)
    assert api.balance().spend_per_h > 0
    plane.clock.advance(60)
    plane.interrupt_spot(spot)
    api.resume_spot(spot, price, 1)
    limited = api.deploy_with_limits(
        SPEC.model_copy(update={"name": "whisper-2"}), stop_after=None, terminate_after="2026-01-01T02:00:00Z"
    )
    rest.delete_pod(spot)
    plane.clock.advance(3 * 3600)
    assert limited not in [pod.id for pod in rest.list_pods() if pod.status != "TERMINATED"]
    api.create_secret("token", "secret-value-1")
    assert api.secrets() == ["token"]
    with pytest.raises(ConflictError):
        api.create_secret("token", "secret-value-1")
    api.delete_secret("token")
    assert api.secrets() == []
    plane.faults.drop_after_commit("POST /graphql")
    with pytest.raises(AmbiguousError):
        api.rent_spot(SPEC, price)
    for pod in rest.list_pods():
        rest.delete_pod(pod.id)
    plane.assert_no_leaks()


def test_what_is_retired_says_so(plane: ControlPlane) -> None:
    plane.retire_graphql()
    plane.retire_v1()
    with pytest.raises(NotAvailableError, match="GraphQL"):
        graphql(plane).balance()
    with pytest.raises(NotAvailableError, match="REST API v1"):
        client(plane, RUNPOD_API_V1="1").list_pods()
