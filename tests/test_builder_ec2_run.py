"""`ec2 run` against a real sshd on loopback, stubs of docker and curl, and a real server behind the tunnel."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builder_harness import Cli
from tests.ec2_answers import AWS_SECRET, IMAGE, TOKEN, Ec2, ec2_cli, ec2_verb, state, write
from tests.serving import Server, running_server
from tests.sshd_rig import DIGEST, SshdRig, sshd_rig

PASSWORD = "dckr_pat_canary-0123456789"


@pytest.fixture(scope="module")
def shared_ec2() -> Iterator[Ec2]:
    made = Ec2()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshdRig]:
    with sshd_rig(tmp_path_factory.mktemp("machine")) as made:
        yield made


@pytest.fixture
def ec2(shared_ec2: Ec2) -> Ec2:
    shared_ec2.start_over()
    return shared_ec2


@pytest.fixture
def rig(shared_rig: SshdRig) -> Iterator[SshdRig]:
    shared_rig.start_over()
    yield shared_rig
    Path(shared_rig.record()["known_hosts_path"]).unlink(missing_ok=True)


@pytest.fixture
def cli(tmp_path: Path, rig: SshdRig, ec2: Ec2) -> Cli:
    return ec2_cli(tmp_path, rig, ec2)


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    """What the container would be: on the machine's loopback, and with the token."""
    with running_server("--max-clients", "4", WHISPER_AUTH_TOKEN=TOKEN) as server:
        yield server


def at(cli: Cli, server: Server) -> None:
    cli.environ |= {"WHISPERLIVE_PORT": str(server.port), "HEALTH_CHECK_PORT": str(server.health_port)}


def test_run_tries_both_modes_records_the_digest_and_shows_no_secret(cli: Cli, rig: SshdRig, served: Server) -> None:
    at(cli, served)
    cli.environ |= {"DOCKER_HUB_USERNAME": "someone", "DOCKER_PASSWORD": PASSWORD}
    rig.ready()
    outcome = ec2_verb(cli, rig, "run", IMAGE, "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.document
    assert (document["digest"], document["recorded"]) == (DIGEST, True)
    names = [check["name"] for check in document["checks"]]
    assert names == ["job", "/health", "/ready", "speech", "without the secret", "with a wrong secret"]
    recorded = state(cli, "validated")["digests"][DIGEST]
    assert recorded == {"image": IMAGE, "at": "2026-01-01T00:00:00Z", "instance_type": "g4dn.xlarge", "checks": names}
    assert rig.verbs == ["login", "pull", "image", "rm", "run", "run", "image"]
    login, pull = [call for call in rig.calls if call.get("verb") in ("login", "pull")]
    assert (login["stdin"], login["config_mode"], pull["logged_in"]) == (f"{PASSWORD}\n", "0o700", True)
    job, start = (call for call in rig.calls if call.get("verb") == "run")
    ports = (cli.environ["WHISPERLIVE_PORT"], cli.environ["HEALTH_CHECK_PORT"])
    published = [part for port in ports for part in ("--publish", f"{port}:{port}")]
    assert start["argv"][:2] == ["run", "--env-file"] and start["argv"][2].startswith(".builder/")
    assert start["argv"][3:] == ["--detach", "--name", "whisper", "--gpus", "all", *published, IMAGE]
    assert job["argv"][-3:-1] == [IMAGE, "--test_input"] and json.loads(job["argv"][-1])["input"]["audio_base64"]
    pod = dict(line.split("=", 1) for line in start["env"].splitlines())
    assert (pod["WHISPER_MODE"], pod["WHISPER_AUTH_TOKEN"], pod["WHISPER_DEVICE"]) == ("pod", TOKEN, "cuda")
    worker = dict(line.split("=", 1) for line in job["env"].splitlines())
    assert worker["WHISPER_MODE"] == "serverless" and "WHISPER_AUTH_TOKEN" not in worker
    assert (start["env_mode"], job["env_mode"]) == ("0o600", "0o600")
    assert "$0.53/h" in document["still_billed"]
    assert list((rig.home / ".builder").iterdir()) == []
    files = [path.read_text() for path in (cli.folder / "artifacts").iterdir()]
    seen = json.dumps([call["argv"] for call in rig.calls]) + outcome.out + outcome.err + "".join(files)
    for secret in (TOKEN, PASSWORD, AWS_SECRET, cli.environ["RUNPOD_API_KEY"]):
        assert secret not in seen


def test_people_see_the_checks_the_digest_and_what_is_still_billed(cli: Cli, rig: SshdRig) -> None:
    rig.ready()
    outcome = ec2_verb(cli, rig, "run", IMAGE, "--mode", "handler")
    assert outcome.code == 0, outcome.err
    assert "Hello, my name is Anna." in outcome.out and DIGEST in outcome.out and "$0.53/h" in outcome.out


def test_the_password_of_one_registry_is_not_shown_to_another(cli: Cli, rig: SshdRig) -> None:
    cli.environ |= {"DOCKER_HUB_USERNAME": "someone", "DOCKER_PASSWORD": PASSWORD}
    rig.ready()
    rig.behave(digests={"out": f'["ghcr.io/someone/whisper@{DIGEST}"]\n'})
    assert ec2_verb(cli, rig, "run", "ghcr.io/someone/whisper:v1", "--mode", "handler", "--json").code == 0
    assert "login" not in rig.verbs
    cli.environ["DOCKER_REGISTRY"] = "ghcr.io"
    assert ec2_verb(cli, rig, "run", "ghcr.io/someone/whisper:v1", "--mode", "handler", "--json").code == 0
    login = next(call for call in rig.calls if call.get("verb") == "login")
    assert login["argv"][-1] == "ghcr.io"


def test_a_refused_login_leaves_nothing_behind(cli: Cli, rig: SshdRig) -> None:
    cli.environ |= {"DOCKER_HUB_USERNAME": "someone", "DOCKER_PASSWORD": PASSWORD}
    rig.ready()
    rig.behave(login={"err": f"unauthorized: incorrect username or password {PASSWORD}\n", "code": 1})
    outcome = ec2_verb(cli, rig, "run", IMAGE, "--json")
    assert outcome.code == 4
    assert PASSWORD not in outcome.err
    assert list((rig.home / ".builder").iterdir()) == []
    assert state(cli, "validated") is None


def test_a_container_that_ends_fails_at_once_with_its_last_lines(cli: Cli, rig: SshdRig) -> None:
    rig.ready()
    rig.behave(
        curl={"err": "curl: (7) Failed to connect\n", "out": "\n000\n", "code": 7},
        state={"out": "false 2\n"},
        logs={"err": "error: CUDA driver version is insufficient\n"},
    )
    outcome = ec2_verb(cli, rig, "run", IMAGE, "--mode", "realtime", "--json")
    assert (outcome.code, outcome.problem["code"]) == (1, "check_failed")
    assert "/health: the container ended with exit code 2" in outcome.problem["error"]
    assert "still billed" in outcome.problem["error"]
    assert "CUDA driver version is insufficient" in outcome.err
    assert cli.clock.monotonic_s() == 0
    assert state(cli, "validated") is None


def test_a_server_that_is_never_ready_fails_after_the_time_that_is_given(cli: Cli, rig: SshdRig) -> None:
    rig.ready()
    rig.behave(curl={"out": '{"status": "loading"}\n503\n'})
    outcome = ec2_verb(cli, rig, "run", IMAGE, "--mode", "realtime", "--timeout", "4", "--json")
    assert outcome.code == 1
    assert 'HTTP 503: {"status": "loading"} after 4s' in outcome.problem["error"]
    assert cli.clock.monotonic_s() == 4.0
    assert state(cli, "validated") is None


def test_a_machine_whose_time_is_up_meanwhile_is_said(cli: Cli, rig: SshdRig) -> None:
    rig.ready()
    rig.behave(curl={"out": '{"status": "loading"}\n503\n'})
    write(cli, "ec2", rig.record(deadline="2026-01-01T00:00:03Z"))
    outcome = ec2_verb(cli, rig, "run", IMAGE, "--mode", "realtime", "--timeout", "4", "--json")
    assert outcome.code == 1
    assert "was to end by itself at 2026-01-01T00:00:03Z" in outcome.problem["error"]
    assert "ec2 status" in outcome.problem["error"]


def test_a_server_that_hears_nothing_is_not_recorded(cli: Cli, rig: SshdRig) -> None:
    """Healthy by its own word, and no stream behind it."""
    rig.ready()
    rig.behave(curl={"out": '{"status": "healthy"}\n200\n'})
    closed = [str(free_port()), str(free_port())]
    cli.environ |= {"WHISPERLIVE_PORT": closed[0], "HEALTH_CHECK_PORT": closed[1]}
    outcome = ec2_verb(cli, rig, "run", IMAGE, "--mode", "realtime", "--json")
    assert (outcome.code, outcome.problem["code"]) == (1, "check_failed")
    assert outcome.problem["error"].startswith("speech: ")
    assert state(cli, "validated") is None


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"err": "RuntimeError: no kernel image\n", "code": 1}, "exit code 1: RuntimeError: no kernel image"),
        ({"out": "{'output': {'transcription': '', 'device': 'cuda'}}\n"}, "no text came"),
        ({"out": "{'output': {'transcription': 'Hello.', 'device': 'cpu'}}\n"}, "ran on cpu, not on the GPU"),
        ({"out": "nothing of the kind\n"}, "no text came"),
    ],
)
def test_a_worker_that_fails_is_not_recorded(cli: Cli, rig: SshdRig, job: dict[str, Any], said: str) -> None:
    rig.ready()
    rig.behave(job=job)
    outcome = ec2_verb(cli, rig, "run", IMAGE, "--json")
    assert (outcome.code, outcome.problem["code"]) == (1, "check_failed")
    assert said in outcome.problem["error"]
    assert state(cli, "validated") is None
    # The server is not even tried.
    assert rig.verbs.count("run") == 1


def test_a_worker_that_hangs_is_ended_there(cli: Cli, rig: SshdRig) -> None:
    rig.ready()
    rig.behave(job={"sleep_s": 30})
    outcome = ec2_verb(cli, rig, "run", IMAGE, "--mode", "handler", "--timeout", "3", "--json")
    assert outcome.problem["code"] == "check_failed" and "job: not done in 3s" in outcome.problem["error"]
    assert rig.calls[-1]["argv"] == ["rm", "--force", "whisper-job"]
    assert state(cli, "validated") is None
    # With its container the script there ends, and takes what it kept in a file with it.
    ends = time.monotonic() + 20
    while list((rig.home / ".builder").iterdir()):
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_an_image_of_no_registry_passes_and_cannot_be_recorded(cli: Cli, rig: SshdRig) -> None:
    rig.ready()
    rig.behave(digests={"out": "[]\n"})
    outcome = ec2_verb(cli, rig, "run", IMAGE, "--mode", "handler", "--no-pull", "--json")
    assert outcome.code == 0 and not outcome.document["recorded"]
    assert "cannot be recorded" in outcome.err
    assert "pull" not in rig.verbs
    assert state(cli, "validated") is None


def test_an_image_that_changes_while_it_is_tried_is_not_recorded(cli: Cli, rig: SshdRig) -> None:
    rig.ready()
    rig.behave(digests_after={"out": f'["someone/whisper-runpod@sha256:{"e" * 64}"]\n'})
    outcome = ec2_verb(cli, rig, "run", IMAGE, "--mode", "handler", "--json")
    assert (outcome.code, outcome.problem["code"]) == (1, "check_failed")
    assert "became another image" in outcome.problem["error"]
    assert state(cli, "validated") is None


@pytest.mark.parametrize(
    ("behaviour", "code", "said"),
    [
        ({"pull": {"err": "manifest unknown: denied: requested access\n", "code": 1}}, 4, "registry refuses"),
        ({"pull": {"err": "write /x: no space left on device\n", "code": 1}}, 1, "no space left"),
        ({"digests": {"err": "Error: No such image: x\n", "code": 1}}, 3, "there is no image"),
        ({"digests": {"out": "no JSON\n"}}, 1, "no list of digests"),
        ({"rm": {"err": "permission denied while trying to connect to the Docker daemon\n", "code": 1}}, 1, "refuses"),
        ({"run": {"err": "port is already allocated\n", "code": 125}}, 1, "port is already allocated"),
    ],
)
def test_what_docker_complains_of_is_told(cli: Cli, rig: SshdRig, behaviour: Any, code: int, said: str) -> None:
    rig.ready()
    rig.behave(**behaviour)
    outcome = ec2_verb(cli, rig, "run", IMAGE, "--mode", "realtime", "--json")
    assert outcome.code == code
    assert said in outcome.problem["error"]
    assert state(cli, "validated") is None
    assert not [path for path in rig.home.rglob("*") if path.is_file()]


def test_run_wants_a_machine_that_is_prepared_an_image_and_a_token(cli: Cli, rig: SshdRig) -> None:
    outcome = ec2_verb(cli, rig, "run", IMAGE, "--json")
    assert outcome.problem["code"] == "ssh_error" and "ec2 wait" in outcome.problem["hint"]
    assert ec2_verb(cli, rig, "run").code == 2
    assert ec2_verb(cli, rig, "run", "NOT AN IMAGE").code == 2
    assert ec2_verb(cli, rig, "run", IMAGE, "--set", "A_TOKEN=x").code == 2
    assert ec2_verb(cli, rig, "run", IMAGE, "--set", "A=1\nB=2").code == 2
    del cli.environ["WHISPER_AUTH_TOKEN"]
    outcome = ec2_verb(cli, rig, "run", IMAGE)
    assert outcome.code == 2 and "--no-auth" in outcome.err
    assert rig.verbs == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
