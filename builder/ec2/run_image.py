"""`ec2 run`: runs an image on the machine's GPU as a pod and as a worker would, checks it, and records its digest.

Health is asked over SSH at the machine's loopback and the stream goes through a tunnel, so no port has to be open. An
image that does not find the GPU must not pass on the processor: WHISPER_DEVICE=cuda is set for the trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from builder.checks.checks import Check
from builder.deploy.pod_spec import check_token, parse_extra, pod_env
from builder.ec2.machine import Machine, read_machine, told_if_interrupted, with_address
from builder.ec2.remote_docker import RemoteDocker
from builder.ec2.remote_logs import CONTAINER, container_tail
from builder.ec2.ssh import connect_ssh
from builder.ec2.trial_checks import JOB_CONTAINER, check_handler, check_realtime
from builder.ec2.validated import record_validated
from builder.ec2.wait import raise_if_unprepared
from builder.errors import CheckFailedError, UsageError
from builder.redact import is_secret_name

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["DEFAULT_TIMEOUT_S", "Mode", "Trial", "run_image", "stop_container"]

Mode = Literal["realtime", "handler", "both"]
DEFAULT_TIMEOUT_S = 600.0
DEVICE = "WHISPER_DEVICE"
STOP_GRACE_S = 20


@dataclass(frozen=True)
class Trial:
    """What is asked for; `timeout_s`: until the server is ready, and for the worker's job."""

    image: str | None = None
    pull: bool = True
    mode: Mode = "both"
    timeout_s: float = DEFAULT_TIMEOUT_S
    no_auth: bool = False
    extra: tuple[str, ...] = ()
    config: Path | None = None


def run_image(run: Runtime, trial: Trial) -> dict[str, Any]:
    """Run and check it; returns the document for --json, after recording the digest.

    Raises CheckFailedError, after the container's last lines, if anything is not as it should be (then nothing is
    recorded), NotFoundError without a machine, SshError, and what docker there fails with.
    """
    from builder.deploy.prepare import chosen_image

    image = chosen_image(run, trial.image)
    env = trial_env(run, trial)
    machine = with_address(run, read_machine(run))
    with told_if_interrupted(run, machine):
        ssh = connect_ssh(run, machine, trial.config)
        raise_if_unprepared(ssh)
        run.console.note(machine.cost_line(run.clock.unix_s()))
        docker = RemoteDocker(run, ssh)
        if trial.pull:
            docker.pull(image)
        digest = docker.digest(image)
        checks = _try_image(run, docker, image, env, trial)
        if docker.digest(image) != digest:
            raise CheckFailedError(
                f"{image} on {machine.instance_id} became another image while it was tried; nothing is recorded",
                hint="again, and nothing else there meanwhile: python -m builder ec2 run",
            )
        return _record(run, machine, image, digest, checks)


def _try_image(run: Runtime, docker: RemoteDocker, image: str, env: Mapping[str, str], trial: Trial) -> list[Check]:
    """All checks of the mode. Raises CheckFailedError after the first part that fails."""
    checks: list[Check] = []
    docker.remove(CONTAINER, JOB_CONTAINER)
    if trial.mode != "realtime":
        # Before the server, which takes the GPU's memory and stays.
        checks += check_handler(run, docker, image, worker_env(env), trial.timeout_s)
        _raise_if_failed(run, docker, checks)
    if trial.mode != "handler":
        docker.start(CONTAINER, image, env, (run.settings.ws_port, run.settings.health_port))
        checks += check_realtime(run, docker, None if trial.no_auth else run.settings.auth_token, trial.timeout_s)
        _raise_if_failed(run, docker, checks)
    return checks


def trial_env(run: Runtime, trial: Trial) -> dict[str, str]:
    """The environment of a pod of these settings, on a GPU or not at all. Raises UsageError."""
    settings = run.settings
    extra = parse_extra(trial.extra, {**run.env_file, **run.environ})
    for name, value in extra.items():
        if name in trial.extra or is_secret_name(name):
            run.redactor.add(value)
    token = None if trial.no_auth else settings.auth_token
    if token is None and not trial.no_auth and trial.mode != "handler":
        raise UsageError(
            "no token: WHISPER_AUTH_TOKEN is not set",
            hint="make one: python -m builder setup; or: --no-auth",
        )
    if token is not None:
        check_token(token)
    base = {
        **settings.pod_environ,
        "WHISPER_MODEL": settings.model,
        "WHISPERLIVE_PORT": str(settings.ws_port),
        "HEALTH_CHECK_PORT": str(settings.health_port),
        DEVICE: "cuda",
    }
    env = pod_env(base, token=token, extra=extra, deadline=None, idle_stop_min=0)
    for name, value in env.items():
        if "\n" in value or "\r" in value:
            raise UsageError(f"{name}: a value of several lines cannot be given to a container here")
    return env


def worker_env(env: Mapping[str, str]) -> dict[str, str]:
    """The same for a worker, which listens nowhere and needs no token."""
    left_out = ("WHISPERLIVE_PORT", "HEALTH_CHECK_PORT", "WHISPER_AUTH_TOKEN", "WHISPER_NO_AUTH")
    return {**{name: value for name, value in env.items() if name not in left_out}, "WHISPER_MODE": "serverless"}


def stop_container(run: Runtime, config: Path | None = None) -> dict[str, Any]:
    """Stop and remove the container; the machine goes on. Raises NotFoundError without a machine, SshError."""
    machine = with_address(run, read_machine(run))
    docker = RemoteDocker(run, connect_ssh(run, machine, config))
    was_there = docker.remove(CONTAINER, JOB_CONTAINER, grace_s=STOP_GRACE_S)
    return {
        "instance_id": machine.instance_id,
        "removed": was_there,
        "price_per_h": machine.price_per_h,
        "deadline": machine.deadline,
        "still_billed": machine.cost_line(run.clock.unix_s()),
    }


def _raise_if_failed(run: Runtime, docker: RemoteDocker, checks: list[Check]) -> None:
    failed = [check for check in checks if not check.ok]
    if not failed:
        return
    # A worker's container is gone, and the check has its words.
    said = failed[0].figures.get("log")
    for line in container_tail(docker.ssh) if said is None else said:
        run.console.warn(f"container: {line}")
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    machine, now_s = docker.ssh.machine, run.clock.unix_s()
    billed = machine.cost_line(now_s) if machine.is_over_time(now_s) else "the machine is still billed"
    raise CheckFailedError(
        f"{failed[0].name}: {failed[0].detail}{more}; nothing is recorded as tried; {billed}",
        hint="see more: python -m builder ec2 logs; end the machine: python -m builder ec2 terminate",
    )


def _record(run: Runtime, machine: Machine, image: str, digest: str | None, checks: list[Check]) -> dict[str, Any]:
    names = [check.name for check in checks]
    if digest is None:
        run.console.warn(f"{image} has no digest: no registry has it, so it cannot be recorded as tried")
    else:
        record_validated(run, digest, image=image, instance_type=machine.instance_type, checks=names)
    return {
        "image": image,
        "digest": digest,
        "recorded": digest is not None,
        "instance_id": machine.instance_id,
        "instance_type": machine.instance_type,
        "checks": [check.document() for check in checks],
        "price_per_h": machine.price_per_h,
        "deadline": machine.deadline,
        "still_billed": machine.cost_line(run.clock.unix_s()),
    }
