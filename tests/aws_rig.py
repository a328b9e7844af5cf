"""AWS inside the test's process: moto in strict mode, a log of the calls, and faults before or after they take effect.

boto3 is the real one; requests end where they would go to the network. What moto lacks and AWS does is added here:
RunInstances with a token that was used makes no second machine, and new machines can show late.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from builder.runtime import Runtime
from tests.builder_harness import Cli, Outcome
from tests.fakes.runpod.clock import PlaneClock

REGION = "us-east-2"
IMAGE_ID = "ami-0123456789abcdef0"
OLD_IMAGE_ID = "ami-0fedcba9876543210"
SECRET = "canary-aws-secret-0123456789"
IMAGES = [
    {
        "ami_id": IMAGE_ID,
        "name": "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) 20251101",
        "creation_date": "2025-11-01T00:00:00.000Z",
    },
    {
        "ami_id": OLD_IMAGE_ID,
        "name": "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) 20250101",
        "creation_date": "2025-01-01T00:00:00.000Z",
    },
    {"ami_id": "ami-0aaaaaaaaaaaaaaaa", "name": "al2023-ami-2023", "creation_date": "2025-12-01T00:00:00.000Z"},
]
STRICT = {
    "MOTO_ENABLE_AMI_VALIDATION": "true",
    "MOTO_ENABLE_KEYPAIR_VALIDATION": "true",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
}


def _strict() -> None:
    """moto reads these when it is imported."""
    path = Path(tempfile.gettempdir()) / f"builder-amis-{os.getuid()}.json"
    common = {
        "owner_id": "898082745236",
        "public": True,
        "virtualization_type": "hvm",
        "architecture": "x86_64",
        "state": "available",
        "platform": None,
        "image_type": "machine",
        "hypervisor": "xen",
        "root_device_name": "/dev/sda1",
        "root_device_type": "ebs",
        "description": "for tests",
        "sriov": "simple",
        "image_location": "amazon/test",
    }
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps([{**common, **each} for each in IMAGES]))
    part.replace(path)
    os.environ.update({"MOTO_AMIS_PATH": str(path), **STRICT})


_strict()

import botocore.handlers  # noqa: E402
from botocore.awsrequest import AWSResponse  # noqa: E402
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError  # noqa: E402
from moto import mock_aws  # noqa: E402
from moto.core.botocore_stubber import MockRawResponse  # noqa: E402
from moto.core.models import botocore_stubber  # noqa: E402
from moto.ec2.models import ec2_backends  # noqa: E402

__all__ = ["IMAGE_ID", "REGION", "SECRET", "AwsRig", "Call", "Fault", "KilledError", "aws_rig"]

ACCOUNT = "123456789012"
CREATES = ("CreateKeyPair", "CreateSecurityGroup", "RunInstances")


class KilledError(BaseException):
    """Stands for kill -9: nothing that runs after it reaches AWS."""


@dataclass(frozen=True)
class Call:
    """One request that reached AWS: whether it took effect, and its form fields."""

    operation: str
    params: Mapping[str, str]
    took_effect: bool


@dataclass(frozen=True)
class Fault:
    """`kind`: refused, reset (nothing arrives), lost, late (done, and no answer), broken (done, HTTP 500), down (HTTP
    503, not done), or an error code of AWS that is answered instead."""

    kind: str


@dataclass
class AwsRig:
    """The account. `faults`: operation (or `*`) to what goes wrong next, in order; `seed_faults` chooses by chance.

    `interrupt_at`: Ctrl-C in the n-th call from now, done or not; `kill_at`: the process is killed right after this
    operation took effect, and `restore` brings back the files as they were then. `hide_s`, `hide_groups_s`: so long
    lists deny a new machine, or a new group and key pair.
    """

    cli: Cli
    clock: PlaneClock
    calls: list[Call] = field(default_factory=list)
    faults: dict[str, list[Fault | None]] = field(default_factory=dict)
    timers: list[list[str]] = field(default_factory=list)
    hide_s: float = 0.0
    hide_groups_s: float = 0.0
    interrupt_at: int | None = None
    kill_at: str | None = None
    _is_killed: bool = False
    _chance: random.Random | None = None
    _share: float = 0.0
    _tokens: dict[str, tuple[int, Any, bytes]] = field(default_factory=dict)
    _made_s: dict[str, float] = field(default_factory=dict)

    # What tests ask

    @property
    def ec2(self) -> Any:
        """moto's own books of the region."""
        return ec2_backends[ACCOUNT][REGION]

    @property
    def instances(self) -> list[Any]:
        """Machines that are not terminated."""
        found = [each for reservation in self.ec2.all_reservations() for each in reservation.instances]
        return [each for each in found if each.state != "terminated"]

    @property
    def groups(self) -> list[Any]:
        """Security groups but the default one."""
        return [each for each in self.ec2.describe_security_groups() if each.name != "default"]

    @property
    def keys(self) -> list[str]:
        """Names of key pairs."""
        return sorted(self.ec2.key_pairs)

    @property
    def volumes(self) -> list[str]:
        """Ids of volumes."""
        return sorted(self.ec2.volumes)

    def assert_nothing_left(self) -> None:
        """No machine, group, key pair, volume; no private key in the folder."""
        left = {
            "instances": [each.id for each in self.instances],
            "groups": [each.name for each in self.groups],
            "keys": self.keys,
            "volumes": self.volumes,
            "files": sorted(str(each) for each in (self.cli.folder / "artifacts" / "ec2").glob("*.pem")),
        }
        assert not any(left.values()), left

    def operations(self, *, only_changes: bool = True) -> list[str]:
        """Operations that took effect, in order."""
        done = [each.operation for each in self.calls if each.took_effect]
        return [each for each in done if not (only_changes and each.startswith(("Describe", "Get", "List")))]

    def run(self, *argv: str, answers: str | None = None) -> Outcome:
        """One command."""
        return self.cli.run(*argv, answers=answers)

    def launch(self, *options: str) -> Outcome:
        """`ec2 launch`, open to one documentation address."""
        return self.run("ec2", "launch", "--yes", "--json", "--allow-cidr", "203.0.113.7", *options)

    def state(self, name: str) -> Any:
        """A document of the state folder; None if there is none."""
        path = self.cli.folder / "artifacts" / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    # What tests make happen

    def fail(self, operation: str, *kinds: str | None) -> None:
        """The next calls of `operation` fail so; None: that one is fine."""
        self.faults.setdefault(operation, []).extend(None if kind is None else Fault(kind) for kind in kinds)

    def seed_faults(self, chance: random.Random, share: float) -> None:
        """From now on this share of all calls fails, in every way."""
        self._chance, self._share = chance, share

    def calm(self) -> None:
        """No more faults, nothing hidden, nobody impatient."""
        self.faults.clear()
        self._chance, self.hide_s, self.hide_groups_s, self.interrupt_at = None, 0.0, 0.0, None

    def restore(self) -> None:
        """After a kill: the files as they were, and a new process that may call AWS."""
        shutil.rmtree(self.cli.folder / "artifacts")
        (self.cli.folder / "at-the-kill").rename(self.cli.folder / "artifacts")
        self._is_killed, self.kill_at = False, None

    def reset(self, clock: PlaneClock) -> None:
        """An empty account."""
        from moto.backends import get_backend

        for service in ("ec2", "sts", "ssm"):
            get_backend(service).reset()
        self.calm()
        self.calls.clear()
        self.timers.clear()
        self._tokens.clear()
        self._made_s.clear()
        self.clock = self.cli.clock = clock

    # How it works: what boto3 is about to send comes here.

    def __call__(self, event_name: str, request: Any, **_: Any) -> Any:
        """botocore's `before-send`: the answer, or an exception as from the network."""
        if not botocore_stubber.enabled:
            return None
        if self._is_killed:
            raise KilledError
        operation = event_name.rsplit(".", 1)[1]
        body = request.body.decode() if isinstance(request.body, bytes) else str(request.body or "")
        params = {} if body.startswith("{") else {key: value[0] for key, value in parse_qs(body).items()}
        if self.interrupt_at is not None:
            self.interrupt_at -= 1
        fault = self._next_fault(operation)
        if (fault is not None and fault.kind in ("refused", "reset", "down")) or self._is_code(fault):
            self.calls.append(Call(operation, params, False))
            self._interrupt()
            return self._not_done(request, fault)
        status, headers, answer = self._done(operation, params, request)
        self.calls.append(Call(operation, params, status < 400))
        self._interrupt()
        if operation == self.kill_at:
            self._is_killed = True
            shutil.copytree(self.cli.folder / "artifacts", self.cli.folder / "at-the-kill")
            raise KilledError
        if fault is not None:
            if fault.kind == "broken":
                return self._error(request, 500, "InternalError")
            if fault.kind == "late":
                raise ReadTimeoutError(endpoint_url=request.url)
            raise ConnectionClosedError(endpoint_url=request.url)
        return AWSResponse(request.url, status, headers, MockRawResponse(answer))

    def _interrupt(self) -> None:
        if self.interrupt_at is not None and self.interrupt_at < 0:
            self.interrupt_at = None
            raise KeyboardInterrupt

    def _next_fault(self, operation: str) -> Fault | None:
        for key in (operation, "*"):
            if self.faults.get(key):
                return self.faults[key].pop(0)
        if self._chance is None or self._chance.random() >= self._share:
            return None
        kinds = ["refused", "reset", "lost", "late", "broken", "down", "RequestLimitExceeded"]
        if operation == "RunInstances":
            kinds += ["InsufficientInstanceCapacity", "VcpuLimitExceeded"]
        if operation == "DeleteSecurityGroup":
            kinds += ["DependencyViolation"]
        return Fault(self._chance.choice(kinds))

    @staticmethod
    def _is_code(fault: Fault | None) -> bool:
        return fault is not None and fault.kind[0].isupper()

    def _not_done(self, request: Any, fault: Fault | None) -> Any:
        assert fault is not None
        if fault.kind == "refused":
            raise EndpointConnectionError(endpoint_url=request.url)
        if fault.kind == "reset":
            raise ConnectionClosedError(endpoint_url=request.url)
        if fault.kind == "down":
            return self._error(request, 503, "Unavailable")
        slow = fault.kind in ("RequestLimitExceeded", "InsufficientInstanceCapacity")
        return self._error(request, 503 if slow else 400, fault.kind)

    def _error(self, request: Any, status: int, code: str) -> Any:
        if ".ssm." in f".{request.url}" or "ssm." in request.url:
            body = json.dumps({"__type": code, "message": f"{code} for a test"})
        elif "sts." in request.url:
            body = (
                "<ErrorResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><Error><Type>Sender</Type>"
                f"<Code>{code}</Code><Message>{code} for a test</Message></Error><RequestId>r-1</RequestId>"
                "</ErrorResponse>"
            )
        else:
            body = (
                f"<Response><Errors><Error><Code>{code}</Code><Message>{code} for a test</Message></Error></Errors>"
                "<RequestID>r-1</RequestID></Response>"
            )
        return AWSResponse(request.url, status, {}, MockRawResponse(body))

    def _done(self, operation: str, params: Mapping[str, str], request: Any) -> tuple[int, Any, bytes]:
        if operation == "RunInstances" and params.get("ClientToken") in self._tokens:
            return self._tokens[params["ClientToken"]]
        hidden = self._hidden()
        if hidden and operation in ("DescribeInstances", "TerminateInstances"):
            named = {value for key, value in params.items() if key.startswith("InstanceId.")}
            if named & hidden:
                error = self._error(request, 400, "InvalidInstanceID.NotFound")
                return 400, {}, error.content
            if not named and operation == "DescribeInstances":
                return 200, {}, _NO_INSTANCES
        denied = self._denied(operation, params, request)
        if denied is not None:
            return denied
        status, headers, answer = botocore_stubber.process_request(request) or (404, {}, b"")
        answer = answer.encode() if isinstance(answer, str) else answer
        if operation == "RunInstances" and status < 400:
            self._tokens[params["ClientToken"]] = (status, headers, answer)
            for each in self.instances:
                self._made_s.setdefault(each.id, self.clock.unix_s())
        if operation in ("CreateSecurityGroup", "CreateKeyPair") and status < 400:
            self._made_s[operation] = self.clock.unix_s()
        return status, headers, answer

    def _denied(self, operation: str, params: Mapping[str, str], request: Any) -> tuple[int, Any, bytes] | None:
        """How AWS denies a group or key pair that it does not show yet; None if it shows all."""
        shown = {"DescribeKeyPairs": "CreateKeyPair"}.get(operation, "CreateSecurityGroup")
        if self.clock.unix_s() - self._made_s.get(shown, -self.hide_groups_s) >= self.hide_groups_s:
            return None
        if operation in ("DescribeKeyPairs", "DescribeSecurityGroups"):
            return 200, {}, f"<{operation}Response><requestId>r-1</requestId></{operation}Response>".encode()
        if operation in ("AuthorizeSecurityGroupIngress", "DeleteSecurityGroup", "RunInstances"):
            return 400, {}, self._error(request, 400, "InvalidGroup.NotFound").content
        return None

    def _hidden(self) -> set[str]:
        if not self.hide_s:
            return set()
        now_s = self.clock.unix_s()
        return {each for each, made_s in self._made_s.items() if now_s - made_s < self.hide_s}


_AWS_SETTINGS = ("aws_region", "aws_profile", "aws_key_id", "aws_secret", "aws_token")

_NO_INSTANCES = (
    b'<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r-1</requestId>'
    b"<reservationSet/></DescribeInstancesResponse>"
)


@contextmanager
def aws_rig(folder: Path, clock: PlaneClock | None = None, **environ: str) -> Iterator[AwsRig]:
    """An empty account, and a folder whose settings have keys for it."""
    from builder.aws import session
    from builder.ec2 import kill_timer

    make_client = session.client

    clock = clock or PlaneClock()
    given = {
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(folder),
        "PATH": os.environ.get("PATH", ""),
    }
    rig = AwsRig(Cli({**given, **environ}, folder, clock), clock)
    clients: dict[tuple[Any, ...], Any] = {}

    def client_once(run: Runtime, service: str, region: str | None = None) -> Any:
        """Making a client takes longer than all its calls; one of the same settings is the same."""
        if "boto3.session" in sys.modules and sys.modules["boto3.session"] is None:
            return make_client(run, service, region)
        variables = tuple(sorted(each for each in run.environ.items() if each[0].startswith("AWS_")))
        key = (service, region, variables, tuple(getattr(run.settings, name) for name in _AWS_SETTINGS))
        if key not in clients:
            clients[key] = make_client(run, service, region)
        return clients[key]

    def note_timer(argv: Sequence[str], environ: Mapping[str, str], folder: Path, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch(mode=0o600)
        rig.timers.append(list(argv))

    handlers = botocore.handlers.BUILTIN_HANDLERS
    place = next(index for index, each in enumerate(handlers) if each[1] is botocore_stubber)
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        # A real one would outlive the test and look for a real AWS.
        patch.setattr(kill_timer, "spawn", note_timer)
        patch.setattr(session, "client", client_once)
        # In moto's place: it calls moto itself, or not.
        before, handlers[place] = handlers[place], ("before-send", rig)
        try:
            yield rig
        finally:
            handlers[place] = before
