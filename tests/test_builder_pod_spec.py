"""What a pod is asked to be: the create's body, its sha, and what differs from a pod that is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builder.api.models import Pod
from builder.deploy.gpus import Candidate
from builder.deploy.pod_spec import (
    PodOptions,
    check_token,
    drift,
    is_secret_name,
    make_spec,
    parse_extra,
    pod_env,
    secret_reference,
    spec_sha,
    without_secrets,
)
from builder.errors import UsageError

TOKEN = "t0ken-of-the-tests-1234"
ADA = Candidate("NVIDIA GeForce RTX 4090", "RTX 4090", 24, "COMMUNITY", 0.34, "HIGH", "12.0")
HOPPER = Candidate("NVIDIA H200", "H200", 141, "SECURE", 3.6, "LOW", "12.8")


def env(**changes: Any) -> dict[str, str]:
    values: dict[str, Any] = {"token": TOKEN, "extra": {}, "deadline": None, "idle_stop_min": 0}
    base = {"WHISPER_MODEL": "small.en", "WHISPERLIVE_PORT": "9090"}
    return pod_env(base, **(values | changes))


def options(**changes: Any) -> PodOptions:
    return PodOptions(**({"image": "you/whisper:1", "env": env()} | changes))


def body(candidate: Candidate = ADA, **changes: Any) -> dict[str, Any]:
    return make_spec(options(**changes), candidate, name="whisper-1124-abcdef", builder_id="b1").body()


def test_the_body_of_a_create() -> None:
    made = body(data_centers=("EU-RO-1",), registry_id="reg1", volume_gb=20)
    sha = made["env"].pop("BUILDER_SPEC_SHA")
    assert made == {
        "name": "whisper-1124-abcdef",
        "image": "you/whisper:1",
        "gpu": {"id": "NVIDIA GeForce RTX 4090", "count": 1, "minCudaVersion": "12.0"},
        "cloud": "COMMUNITY",
        "disk": 20,
        "ports": ["9090/http", "9999/http"],
        "env": {
            "WHISPER_MODE": "pod",
            "LOG_FORMAT": "json",
            "WHISPER_MODEL": "small.en",
            "WHISPERLIVE_PORT": "9090",
            "WHISPER_AUTH_TOKEN": TOKEN,
            "BUILDER_ID": "b1",
        },
        "mounts": {"persistent": {"size": 20, "path": "/workspace"}},
        "dataCenterIds": ["EU-RO-1"],
        "registry": "reg1",
    }
    assert len(sha) == 12


def test_what_is_not_asked_for_is_not_sent() -> None:
    made = body()
    assert not {"mounts", "dataCenterIds", "registry"} & made.keys()
    assert not {"POD_DEADLINE", "POD_IDLE_STOP_MIN", "WHISPER_NO_AUTH"} & made["env"].keys()


def test_a_network_volume_and_other_ports() -> None:
    made = body(network_volume_id="vol1", ws_port=8080, health_port=8081)
    assert made["mounts"] == {"network": [{"volumeId": "vol1", "path": "/workspace"}]}
    assert made["ports"] == ["8080/http", "8081/http"]


def test_each_architecture_gets_its_cuda_floor() -> None:
    assert body(HOPPER)["gpu"]["minCudaVersion"] == "12.8"


def test_the_guards_travel_in_the_environment() -> None:
    made = env(deadline="2026-11-24T12:00:00Z", idle_stop_min=10, extra={"LOG_FORMAT": "text", "HF_HOME": "/tmp"})
    assert made["POD_DEADLINE"] == "2026-11-24T12:00:00Z"
    assert made["POD_IDLE_STOP_MIN"] == "10"
    assert (made["LOG_FORMAT"], made["HF_HOME"]) == ("text", "/tmp")
    assert "WHISPER_AUTH_TOKEN" not in env(token=None)
    assert env(token=None)["WHISPER_NO_AUTH"] == "1"


def test_the_sha_tells_wishes_apart_and_nothing_else() -> None:
    def sha(candidate: Candidate = ADA, name: str = "a-1", builder_id: str = "b1", **changes: Any) -> str:
        spec = make_spec(options(**changes), candidate, name=name, builder_id=builder_id)
        assert spec.env["BUILDER_SPEC_SHA"] == spec_sha(spec)
        return spec_sha(spec)

    assert sha() == sha(HOPPER, name="a-2", builder_id="b2")
    assert sha() == sha(env=env(token="another-token-of-16-chars"))
    with_deadline = sha(env=env(deadline="2026-01-01T00:00:00Z"))
    assert with_deadline == sha(env=env(deadline="2026-01-02T00:00:00Z"))
    others = [
        sha(),
        with_deadline,
        sha(image="you/whisper:2"),
        sha(disk_gb=30),
        sha(volume_gb=10),
        sha(gpu_count=2),
        sha(env=env(extra={"A": "1"})),
        sha(env=env(token=None)),
    ]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"volume_gb": 5}, "legal: 0, or 10 GB and more"),
        ({"volume_gb": 20, "network_volume_id": "v"}, "exclude each other"),
        ({"ws_port": 9999}, "are both 9999"),
    ],
)
def test_impossible_pods_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        options(**changes)


@pytest.mark.parametrize("token", ["x" * 15, "x" * 513, "näive-token-of-16", "tab\there-is-not-fine"])
def test_a_token_that_the_server_would_refuse_is_not_shown(token: str) -> None:
    with pytest.raises(UsageError, match="16 to 512 printable ASCII") as caught:
        check_token(token)
    assert token not in str(caught.value)


def test_a_token_may_have_any_printable_characters() -> None:
    check_token("x" * 16)
    check_token("a b!~" * 4)


def test_extra_variables() -> None:
    assert parse_extra(("A=1", "B=x=y", "C=")) == {"A": "1", "B": "x=y", "C": ""}
    assert parse_extra(("A", "HF_TOKEN"), {"A": "2", "HF_TOKEN": "hf_x"}) == {"A": "2", "HF_TOKEN": "hf_x"}
    reference = secret_reference("hf")
    assert parse_extra((f"HF_TOKEN={reference}",)) == {"HF_TOKEN": reference}


@pytest.mark.parametrize("name", ["HF_TOKEN", "BUCKET_PASS", "DB_PWD", "GITHUB_PAT", "BUCKET_SECRET_ACCESS_KEY"])
def test_secrets_are_not_taken_from_the_command_line(name: str) -> None:
    with pytest.raises(UsageError, match="is secret") as caught:
        parse_extra((f"{name}=canary",), {name: "other"})
    assert "canary" not in str(caught.value)
    assert caught.value.hint.endswith(f"--set {name}")


@pytest.mark.parametrize(
    "item", ["A", "=1", "1A=2", "A B=1", "WHISPER_AUTH_TOKEN=abc", "RUNPOD_API_KEY=x", "BUILDER_ID=1", "POD_DEADLINE=x"]
)
def test_extra_variables_that_are_refused(item: str) -> None:
    with pytest.raises(UsageError, match="--set") as caught:
        parse_extra((item,))
    assert "abc" not in str(caught.value)


def test_secrets_by_reference() -> None:
    assert secret_reference("whisper_token") == "{{ RUNPOD_SECRET_whisper_token }}"
    with pytest.raises(UsageError, match="--secret"):
        secret_reference("a b }}")


def test_an_environment_that_may_be_shown() -> None:
    shown = without_secrets({"A": "1", "HF_TOKEN": "x", "WHISPER_AUTH_TOKEN": secret_reference("t")})
    assert shown == {"A": "1", "HF_TOKEN": "[hidden]", "WHISPER_AUTH_TOKEN": "{{ RUNPOD_SECRET_t }}"}


def test_names_of_secrets() -> None:
    assert all(map(is_secret_name, ("WHISPER_AUTH_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY")))
    assert not any(map(is_secret_name, ("WHISPER_MODEL", "KEYBOARD", "MAX_CLIENTS", "PWD", "SSH_ASKPASS", "BYPASS")))


# Drift


def pod(**changes: Any) -> Pod:
    spec = make_spec(options(), ADA, name="whisper-1", builder_id="b1")
    values = {
        "id": "pod1",
        "name": spec.name,
        "status": "RUNNING",
        "image": spec.image,
        "env": spec.env,
        "ports": spec.ports,
        "disk": spec.disk,
        "gpu": {"id": spec.gpu.id, "count": 1},
        "dataCenterId": "EU-RO-1",
    }
    return Pod.model_validate(values | changes)


def test_a_pod_as_asked_for_has_no_drift() -> None:
    assert drift(pod(), options()) == []
    assert drift(pod(env={**pod().env, "PUBLIC_KEY": "added by the platform"}), options()) == []


def test_drift_names_fields_and_no_values() -> None:
    wanted = replace(
        options(),
        image="you/whisper:2",
        disk_gb=50,
        volume_gb=20,
        gpu_count=2,
        data_centers=("US-KS-2",),
        env=env(token="another-token-of-16-chars", deadline="2026-01-01T00:00:00Z") | {"WHISPER_MODEL": "turbo"},
    )
    has = pod(env={**pod().env, "MAX_CLIENTS": "4"})
    assert drift(has, wanted) == [
        *("image", "disk", "volume", "gpu_count", "data_center", "env.MAX_CLIENTS", "env.POD_DEADLINE"),
        *("env.WHISPER_AUTH_TOKEN", "env.WHISPER_MODEL"),
    ]


def test_the_hour_of_a_deadline_is_no_drift() -> None:
    made = env(deadline="2026-01-01T00:00:00Z")
    has = pod(env={**made, "BUILDER_ID": "b0"})
    assert drift(has, options(env=env(deadline="2026-02-02T00:00:00Z"))) == []


def test_another_network_volume_is_drift() -> None:
    has = pod(mounts={"network": [{"volumeId": "vol1", "path": "/workspace"}]})
    assert drift(has, options(network_volume_id="vol1")) == []
    assert drift(has, options(network_volume_id="vol2")) == ["network_volume"]
