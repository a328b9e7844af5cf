"""build and push against a stub of the docker client, and against a real engine where there is one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.child import MAX_LINE_CHARS, Finished, run_child
from builder.clock import SystemClock
from builder.env_file import read_env_file
from builder.errors import (
    AuthError,
    BuilderError,
    DiskFullError,
    DockerError,
    NetworkError,
    RateLimitedError,
    UsageError,
)
from builder.image.docker import Docker
from builder.image.docker_errors import docker_error
from builder.image.reference import compose, parse_reference, repository, sha_tag
from builder.settings import read_settings
from tests.builder_harness import Cli
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.stub_docker import DIGEST, IMAGE_ID, StubDocker

PASSWORD = "dckr_pat_canary-0123456789"
KEY = "rpa_CANARY0123456789ABCDEF0123456789"


@pytest.fixture
def docker(tmp_path: Path) -> StubDocker:
    return StubDocker(tmp_path / "stub")


@pytest.fixture
def cli(tmp_path: Path, docker: StubDocker) -> Cli:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\n")
    environ = {**docker.environ, "DOCKER_HUB_USERNAME": "someone", "DOCKER_PASSWORD": PASSWORD, "RUNPOD_API_KEY": KEY}
    return Cli(environ, folder, SystemClock())


def git(folder: Path, *arguments: str) -> str:
    identity = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environ = {"PATH": os.defpath, "HOME": str(folder), **identity}
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, env=environ
    ).stdout


def test_a_build_is_named_by_its_commit_tried_and_recorded(cli: Cli, docker: StubDocker) -> None:
    git(cli.folder, "init", "-q")
    git(cli.folder, "add", "Dockerfile")
    git(cli.folder, "commit", "-q", "-m", "x")
    commit = git(cli.folder, "rev-parse", "HEAD").strip()
    outcome = cli.run("build", "--no-cache", "--json")
    assert outcome.code == 0, outcome.err
    image = f"someone/whisper-runpod:{commit[:7]}"
    document = outcome.document
    assert document["image"] == image
    assert (document["digest"], document["size_bytes"], document["git_sha"]) == (IMAGE_ID, 3_400_000_000, commit)
    assert json.loads((cli.folder / "artifacts" / "build.json").read_text())["tag"] == commit[:7]
    build = next(call["argv"] for call in docker.calls if call["verb"] == "build")
    assert build[build.index("--platform") + 1] == "linux/amd64"
    assert "--no-cache" in build
    assert build[build.index("--tag") + 1] == image
    assert "#2 exporting" in outcome.err
    trial = next(call["argv"] for call in docker.calls if call["verb"] == "run")
    assert "--rm" in trial and image in trial and "handler.worker" in trial[-1]


def test_changes_since_the_commit_show_in_the_tag(cli: Cli) -> None:
    git(cli.folder, "init", "-q")
    git(cli.folder, "add", "Dockerfile")
    git(cli.folder, "commit", "-q", "-m", "x")
    (cli.folder / "Dockerfile").write_text("FROM scratch\n# changed\n")
    outcome = cli.run("build", "--dry-run", "--json")
    assert outcome.document["images"][0].endswith("-dirty")
    assert "nobody can build this image again" in outcome.err


def test_a_dry_run_asks_docker_for_nothing(cli: Cli, docker: StubDocker) -> None:
    (cli.folder / "Dockerfile.slim").write_text("FROM scratch\n")
    cli.environ["DOCKER_TAG"] = "latest"
    outcome = cli.run("build", "--slim", "--tag", "v1", "--dry-run", "--json")
    assert outcome.code == 0
    assert outcome.document["images"] == ["someone/whisper-runpod:v1", "someone/whisper-runpod:latest"]
    assert str(cli.folder / "Dockerfile.slim") in outcome.document["would"][0]
    assert docker.calls == []
    assert not (cli.folder / "artifacts").exists()


def test_push_logs_in_by_stdin_in_a_folder_of_its_own(cli: Cli, docker: StubDocker) -> None:
    home = Path(docker.environ["HOME"])
    (home / ".docker" / "cli-plugins").mkdir(parents=True)
    (home / ".docker" / "config.json").write_text('{"auths": {"x": {"auth": "c2VjcmV0"}}, "currentContext": "mine"}')
    before = sorted(home.rglob("*"))
    assert cli.run("build", "--tag", "v1", "--push", "--json").code == 0
    login, push = (next(call for call in docker.calls if call["verb"] == verb) for verb in ("login", "push"))
    assert login["argv"] == ["login", "--username", "someone", "--password-stdin"]
    assert login["stdin_chars"] == len(PASSWORD) + 1
    assert push["logged_in"] and push["config"] == login["config"]
    assert not Path(push["config"]).exists()
    assert sorted(home.rglob("*")) == sorted([*before, docker.folder / "calls.jsonl"])
    pushed = json.loads((cli.folder / "artifacts" / "push.json").read_text())
    assert (pushed["image"], pushed["digest"]) == ("someone/whisper-runpod:v1", DIGEST)


def test_no_secret_reaches_the_client_the_output_or_the_artifacts(cli: Cli, docker: StubDocker) -> None:
    docker.fail(push=f"unauthorized: bad password {PASSWORD}")
    outcomes = [cli.run("build", "--tag", "v1"), cli.run("push"), cli.run("push", "--json")]
    everything = docker.log + "".join(outcome.out + outcome.err for outcome in outcomes)
    everything += "".join(path.read_text() for path in (cli.folder / "artifacts").iterdir())
    assert PASSWORD not in everything
    assert KEY not in everything
    assert outcomes[1].code == 4


def test_push_without_a_password_uses_the_clients_own_login(cli: Cli, docker: StubDocker) -> None:
    del cli.environ["DOCKER_PASSWORD"]
    cli.run("build", "--tag", "v1")
    outcome = cli.run("push")
    assert outcome.code == 0
    assert "login" not in docker.verbs
    assert "own login" in outcome.err


def test_push_to_another_registry_names_the_image_anew(cli: Cli, docker: StubDocker) -> None:
    cli.run("build", "--tag", "v1")
    outcome = cli.run("push", "--registry", "ghcr.io", "--json")
    assert outcome.document["image"] == "ghcr.io/someone/whisper-runpod:v1"
    assert ["tag", "someone/whisper-runpod:v1", "ghcr.io/someone/whisper-runpod:v1"] in [
        call["argv"] for call in docker.calls
    ]
    login = next(call["argv"] for call in docker.calls if call["verb"] == "login")
    assert login[-1] == "ghcr.io"


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


def test_a_credential_is_stored_at_runpod_once_even_if_the_answer_is_lost(cli: Cli, plane: ControlPlane) -> None:
    cli = Cli({**cli.environ, **plane.environ()}, cli.folder, plane.clock)
    cli.run("build", "--tag", "v1")
    plane.faults.drop_after_commit("createRegistry")
    first = cli.run("push", "--save-credential", "--json")
    assert first.code == 0, first.err
    second = cli.run("push", "--save-credential", "--json")
    assert second.document["registry_id"] == first.document["registry_id"]
    assert len(plane.mutations()) == 1
    assert read_env_file(cli.folder / ".env")["RUNPOD_REGISTRY_ID"] == first.document["registry_id"]
    assert PASSWORD not in first.out + first.err + second.out + second.err
    plane.assert_contract()


def test_a_credential_that_was_not_stored_is_an_error(cli: Cli, plane: ControlPlane) -> None:
    cli = Cli({**cli.environ, **plane.environ()}, cli.folder, plane.clock)
    cli.run("build", "--tag", "v1")
    plane.faults.drop_before("createRegistry")
    assert cli.run("push", "--save-credential", "--json").problem["code"] == "answer_lost"
    assert not (cli.folder / ".env").exists()


def test_what_is_missing_is_named(cli: Cli, docker: StubDocker) -> None:
    assert cli.run("push", "--json").problem["code"] == "not_found"
    assert "--tag" in cli.run("build", "--json").problem["hint"]
    missing = cli.run("build", "--slim", "--tag", "x", "--json")
    assert (missing.code, missing.problem["code"]) == (3, "not_found")
    assert "Dockerfile.slim" in missing.problem["error"]
    assert cli.run("build", "--platform", "linux/arm64").code == 2
    cli.run("build", "--tag", "x")
    del cli.environ["DOCKER_HUB_USERNAME"]
    assert "DOCKER_HUB_USERNAME" in cli.run("push", "--json").problem["error"]
    cli.environ["PATH"] = str(cli.folder)
    absent = cli.run("build", "--tag", "x", "--json")
    assert absent.problem["error"] == "docker is not installed"
    assert absent.problem["hint"]


@pytest.mark.parametrize(
    ("verb", "says", "code", "exit_code"),
    [
        (
            "version",
            "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
            "docker_error",
            1,
        ),
        ("build", "write /var/lib/docker/tmp/x: no space left on device", "no_space", 1),
        ("build", "toomanyrequests: You have reached your pull rate limit.", "rate_limited", 8),
        ("build", "ERROR: failed to solve: process did not complete", "docker_error", 1),
        ("run", "ModuleNotFoundError: No module named 'handler'", "docker_error", 1),
    ],
)
def test_failures_of_a_build_have_their_codes(
    cli: Cli, docker: StubDocker, verb: str, says: str, code: str, exit_code: int
) -> None:
    docker.fail(**{verb: says})
    outcome = cli.run("build", "--tag", "x", "--json")
    assert (outcome.problem["code"], outcome.code) == (code, exit_code)
    assert outcome.problem["hint"]
    assert not (cli.folder / "artifacts" / "build.json").exists()


@pytest.mark.parametrize(
    ("says", "kind"),
    [
        ("denied: requested access to the resource is denied", AuthError),
        ("Error response from daemon: Get https://x/v2/: unauthorized: incorrect username or password", AuthError),
        ("dial tcp: lookup registry-1.docker.io: no such host", NetworkError),
        ("net/http: TLS handshake timeout", NetworkError),
        ("toomanyrequests: slow down", RateLimitedError),
        ("permission denied while trying to connect to the Docker daemon socket", DockerError),
        ("write: no space left on device", DiskFullError),
        ("whatever", DockerError),
        ("", DockerError),
    ],
)
def test_words_of_the_client_become_errors(says: str, kind: type[BuilderError]) -> None:
    error = docker_error("push", Finished(1, (says,) if says else ()))
    assert type(error) is kind
    assert error.hint


def test_only_the_end_of_a_build_says_why_it_failed() -> None:
    noise = ["access denied", *["fine"] * 40, "exit code: 1"]
    assert type(docker_error("build", Finished(1, tuple(noise)))) is DockerError


def test_an_image_for_another_processor_is_refused(cli: Cli, tmp_path: Path) -> None:
    cli.environ |= StubDocker(tmp_path / "arm", architecture="arm64").environ
    outcome = cli.run("build", "--tag", "x", "--json")
    assert "arm64" in outcome.problem["error"]


def test_a_full_disk_is_noticed_before_the_build(cli: Cli, docker: StubDocker) -> None:
    from builder.image.build import build_image, plan_build
    from builder.runtime import Runtime, World

    run = Runtime(World(cli.environ, cli.folder), quiet=True)
    with pytest.raises(DiskFullError, match=rf"{docker.folder}.* 1e\+09 GB"):
        build_image(run, plan_build(run, tag="x"), min_free_gb=1e9)
    assert "build" not in docker.verbs


def test_references_are_taken_apart_and_checked() -> None:
    reference = parse_reference(f"localhost:5000/a/b_c:v1@{DIGEST}")
    assert (reference.registry, reference.path, reference.tag, reference.digest) == (
        "localhost:5000",
        "a/b_c",
        "v1",
        DIGEST,
    )
    assert parse_reference("user/name").registry is None
    for wrong in ("", "A/b", "a:b:c", "a/b:", "a//b", "a@sha256:1", "a b", "-a", "a/b:" + "x" * 129, "x" * 300):
        with pytest.raises(UsageError):
            parse_reference(wrong)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "whisper-runpod"),
        ({"DOCKER_HUB_USERNAME": "Me"}, "me/whisper-runpod"),
        ({"DOCKER_HUB_USERNAME": "me", "DOCKER_IMAGE": "team/x"}, "team/x"),
        ({"DOCKER_HUB_USERNAME": "me", "DOCKER_REGISTRY": "ghcr.io"}, "ghcr.io/me/whisper-runpod"),
        ({"DOCKER_HUB_USERNAME": "me", "DOCKER_REGISTRY": "docker.io"}, "me/whisper-runpod"),
        ({"DOCKER_IMAGE": "quay.io/a/b:c"}, "quay.io/a/b"),
    ],
)
def test_the_repository_follows_the_settings(given: dict[str, str], expected: str) -> None:
    assert repository(read_settings({}, given)) == expected


def test_the_image_is_the_tag_that_is_set_else_the_last_pushed() -> None:
    settings = read_settings({}, {"DOCKER_HUB_USERNAME": "me"})
    assert compose(settings) is None
    assert compose(settings, {"image": "me/x:1"}) == "me/x:1"
    assert compose(read_settings({}, {"DOCKER_IMAGE": "me/y", "DOCKER_TAG": "2"}), {"image": "me/x:1"}) == "me/y:2"
    assert sha_tag("0123456789", dirty=True, slim=True) == "0123456-dirty-slim"


def test_a_child_is_ended_when_its_time_is_up() -> None:
    began = time.monotonic()
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    done = run_child([sys.executable, "-c", script], environ=os.environ, limit_s=0.3)
    assert done.timed_out
    assert time.monotonic() - began < 5


def test_a_child_is_ended_with_us() -> None:
    seen: list[str] = []

    def interrupt(line: str) -> None:
        seen.append(line)
        raise KeyboardInterrupt

    script = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run_child([sys.executable, "-c", script], environ=os.environ, limit_s=30, say=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(seen[0]), 0)


def test_long_and_strange_output_is_cut_not_kept() -> None:
    script = f"import sys; sys.stdout.buffer.write(b'x' * {3 * MAX_LINE_CHARS} + bytes([255]) + b'\\n' * 9)"
    seen: list[str] = []
    done = run_child([sys.executable, "-c", script], environ=os.environ, limit_s=30, say=seen.append)
    assert len(seen) == 1 and len(seen[0]) == MAX_LINE_CHARS and seen[0].endswith("(cut)")
    assert done.code == 0


def test_lines_are_cleaned_before_they_are_cut() -> None:
    script = f"print('x' * {MAX_LINE_CHARS - 30} + {PASSWORD!r})"
    done = run_child(
        [sys.executable, "-c", script],
        environ=os.environ,
        limit_s=30,
        clean=lambda line: line.replace(PASSWORD, "?"),
    )
    assert done.text.endswith("xx?")


def test_the_words_of_the_registry_are_cleaned_before_they_are_cut(cli: Cli, docker: StubDocker) -> None:
    cli.run("build", "--tag", "v1")
    docker.fail(push="denied: " + "y" * 275 + PASSWORD)
    outcome = cli.run("push", "--json")
    assert outcome.code == 4
    assert PASSWORD[:8] not in outcome.out + outcome.err


SLOW_DOCKER = """#!/bin/sh
case "$1" in
login) cat > /dev/null; echo secret > "$DOCKER_CONFIG/config.json" ;;
push) echo $$ > "$HOME/pushing"; exec sleep 60 ;;
esac
"""


def test_sigterm_ends_a_push_and_takes_its_login_away(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(SLOW_DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "build.json").write_text('{"image": "you/x:1", "images": ["you/x:1"], "tag": "1"}')
    (tmp_path / "tmp").mkdir()
    environ = {"PATH": f"{tmp_path / 'bin'}:{os.defpath}", "HOME": str(tmp_path), "TMPDIR": str(tmp_path / "tmp")}
    environ |= {"DOCKER_HUB_USERNAME": "you", "DOCKER_PASSWORD": PASSWORD, "DOCKER_IMAGE": "you/x"}
    environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    command = [sys.executable, "-m", "builder", "push"]
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as push:
        try:
            pid = _number_in(tmp_path / "pushing")
            assert list((tmp_path / "tmp").iterdir())
            push.send_signal(signal.SIGTERM)
            said = push.communicate(timeout=20)[0]
        finally:
            push.kill()
    assert push.returncode == 130, said
    assert list((tmp_path / "tmp").iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def _number_in(path: Path) -> int:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if path.exists() and path.read_text().endswith("\n"):
            return int(path.read_text())
        time.sleep(0.02)
    raise AssertionError(f"{path} was not written")


def engine_environ() -> dict[str, str] | None:
    """Where a real engine answers; None where none does."""
    if shutil.which("docker") is None:
        return None
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if host.startswith("unix://") and not Path(host.removeprefix("unix://")).exists():
        return None
    return dict(os.environ)


@pytest.mark.skipif(engine_environ() is None, reason="no docker engine's socket on this machine")
def test_a_real_engine_builds_and_shows_an_image(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    docker = Docker(engine_environ() or {}, lambda line: None)
    image = f"builder-test:{os.getpid()}"
    command = Docker.build_command(tmp_path, tmp_path / "Dockerfile", [image], "linux/amd64", False, {}, {})
    docker.build(command)
    try:
        assert docker.inspect(image).architecture == "amd64"
    finally:
        subprocess.run(["docker", "image", "rm", image], check=False, capture_output=True)


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker client on this machine")
def test_the_real_client_without_an_engine_says_so(tmp_path: Path) -> None:
    environ = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    docker = Docker(environ, lambda line: None)
    assert docker.client_version()[0].isdigit()
    with pytest.raises(DockerError, match="no docker engine answers"):
        docker.versions()
