"""A machine to log in to: a real sshd on loopback, and stubs of docker, curl and nvidia-smi that note their calls.

Commands run in `rig.home`, as EC2's begin in the user's home; files of the first boot are below `rig.root`. sshd is
told where both are, so nothing of this machine is touched.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["DIGEST", "GPU", "HOST", "SshdRig", "need_sshd", "sshd_rig"]

SSHD = "/usr/sbin/sshd"
START_LIMIT_S = 20.0
HOST = "54.210.0.99"
"""A public address, as moto's are: never contacted, since the ssh configuration leads it to loopback."""
DIGEST = "sha256:" + "d" * 64
GPU = "Tesla T4, 15360 MiB"

COMMON = r"""#!{python} -IS
import json, os, pathlib, sys, time
folder = pathlib.Path({folder!r})
argv = sys.argv[1:]
behave = json.loads((folder / "behave.json").read_text())

def note(**more):
    call = dict(program=os.path.basename(sys.argv[0]), argv=argv, cwd=os.getcwd(), **more)
    with (folder / "calls.jsonl").open("a") as file:
        file.write(json.dumps(call) + "\n")

def finish(key, out=""):
    said = behave.get(key, {{}})
    if "sleep_s" in said:
        (folder / "sleeper").write_text(str(os.getpid()))
        time.sleep(said["sleep_s"])
    sys.stdout.write(said.get("out", out))
    sys.stdout.flush()
    sys.stderr.write(said.get("err", ""))
    sys.exit(said.get("code", 0))
"""
DOCKER = (
    COMMON
    + r"""
words = argv[2:] if argv[:1] == ["--config"] else argv
verb = words[0]
more = {{}}
if "--password-stdin" in words:
    more["stdin"] = sys.stdin.read()
    config = pathlib.Path(argv[1])
    more["config_mode"] = oct(config.stat().st_mode & 0o777)
    (config / "config.json").write_text("logged in")
if argv[:1] == ["--config"]:
    more["logged_in"] = (pathlib.Path(argv[1]) / "config.json").exists()
if "--env-file" in words:
    path = pathlib.Path(words[words.index("--env-file") + 1])
    more["env"] = path.read_text()
    more["env_mode"] = oct(path.stat().st_mode & 0o777)
note(verb=verb, **more)
if verb == "run" and "nvidia-smi" in words:
    finish("gpu", {gpu!r} + "\n")
if verb == "run" and "--rm" in words:
    result = {{"output": {{"device": "cuda", "transcription": "Hello, my name is Anna."}}}}
    finish("job", "INFO | Job result: " + repr(result) + "\n")
if words[:2] == ["image", "inspect"]:
    has_run = '"verb": "run"' in (folder / "calls.jsonl").read_text()
    key = "digests_after" if has_run and "digests_after" in behave else "digests"
    finish(key, json.dumps(["someone/whisper-runpod@{digest}"]) + "\n")
if words[:2] == ["container", "inspect"]:
    finish("state", "true 0\n")
if verb == "logs":
    finish("logs", "line one\nline two\n")
if verb == "rm" and (folder / "sleeper").exists():
    os.kill(int((folder / "sleeper").read_text()), 15)
    (folder / "sleeper").unlink()
finish(verb, "Downloaded\n" if verb == "pull" else "whisper\n")
"""
)
CURL = (
    COMMON
    + r"""
import urllib.error, urllib.request
note()
if "curl" in behave:
    finish("curl")
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
try:
    with opener.open(argv[-1], timeout=5) as answer:
        body, code = answer.read().decode(), answer.status
except urllib.error.HTTPError as error:
    body, code = error.read().decode(), error.code
except OSError as error:
    print("curl: (7) Failed to connect", file=sys.stderr)
    print("\n000")
    sys.exit(7)
print(body + "\n" + str(code))
"""
)
PLAIN = COMMON + "note()\nfinish(os.path.basename(sys.argv[0]))\n"


def need_sshd() -> None:
    """Skip the test where there is no sshd or ssh."""
    for program in (SSHD, "ssh", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (packages openssh-server, openssh-client)")


class SshdRig:
    """The machine: `home`, `root`, `calls`; `behave` scripts the stubs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home, self.root, self.bin = folder / "home", folder / "root", folder / "bin"
        self.user = getpass.getuser()
        self.key, self.other_key = folder / "a key" / "id", folder / "other"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        for each in (self.home, self.root / "var/lib/builder", self.root / "var/log", self.bin, self.key.parent):
            each.mkdir(parents=True)
        self._write_stubs()
        for path in (self.key, self.other_key, folder / "host", folder / "host2"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
        self.start_over()

    # The machine as a test wants it

    def start_over(self) -> None:
        """As after `ec2 launch`: nothing ready, nothing said."""
        for path in (*self.home.iterdir(), *self.root.rglob("*")):
            if path.is_file():
                path.unlink()
        (self.folder / "calls.jsonl").unlink(missing_ok=True)
        self.behave()
        self.authorize(self.key)

    def behave(self, **verbs: dict[str, Any]) -> None:
        """What stubs answer instead of the usual: `pull={"err": "...", "code": 1}`."""
        (self.folder / "behave.json").write_text(json.dumps(verbs))

    def ready(self) -> None:
        """The first-boot script is done."""
        (self.root / "var/lib/builder/ready").write_text("2026-01-01T00:00:00Z\n")

    def failed(self, text: str) -> None:
        """The first-boot script failed."""
        (self.root / "var/lib/builder/failed").write_text(text + "\n")

    def authorize(self, key: Path) -> None:
        """Let this key in, and no other."""
        shutil.copyfile(f"{key}.pub", self.folder / "authorized")

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What the stubs were asked, in order."""
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def verbs(self) -> list[str]:
        """Docker's verbs, in order."""
        return [call["verb"] for call in self.calls if call["program"] == "docker"]

    # sshd

    def start(self, host_key: str = "host") -> None:
        """Listen on loopback; the port stays the same over restarts."""
        with contextlib.suppress(OSError):
            Path("/run/sshd").mkdir(parents=True, exist_ok=True)
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        config = self.folder / "sshd_config"
        path = f"{self.bin}:{os.defpath}"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder / host_key}\nUsePAM no\nStrictModes no\n"
            f"PidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nAuthorizedKeysFile {self.folder / 'authorized'}\n"
            f"SetEnv PATH={path} BUILDER_ROOT={self.root}\nMaxStartups 100\nPrintMotd no\nPrintLastLog no\n"
            f'ForceCommand cd {self.home} && exec sh -c "${{SSH_ORIGINAL_COMMAND:-true}}"\n'
        )
        # A key exchange that costs little: a test makes many connections.
        cheap = "KexAlgorithms curve25519-sha256\n  GSSAPIAuthentication no"
        self.ssh_config.write_text(f"Host 54.* ec2-*\n  HostName 127.0.0.1\n  Port {self.port}\n  {cheap}\n")
        self._process = subprocess.Popen(
            [SSHD, "-D", "-f", str(config), "-E", str(self.folder / "sshd.log")],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        ends = time.monotonic() + START_LIMIT_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            log = self.folder / "sshd.log"
            assert self._process.poll() is None, log.read_text() if log.exists() else "sshd ended"
            assert time.monotonic() < ends
            time.sleep(0.02)

    def stop(self) -> None:
        """Refuse connections."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(10)
            self._process = None

    @property
    def ssh_config(self) -> Path:
        """For `--ssh-config`."""
        return self.folder / "ssh_config"

    def record(self, **changes: Any) -> dict[str, Any]:
        """What `ec2 launch` leaves in ec2.json."""
        return {
            "instance_id": "i-0123456789abcdef0",
            "name": "whisper-0101-abcdef",
            "instance_type": "g4dn.xlarge",
            "region": "us-east-2",
            "public_ip": HOST,
            "key_name": "whisper-0101-abcdef",
            "key_path": str(self.key),
            "known_hosts_path": str(self.folder / "a key" / "known hosts"),
            "ssh_user": self.user,
            "security_group_id": "sg-1",
            "created_at": "2026-01-01T00:00:00Z",
            "deadline": "2026-01-01T01:30:00Z",
            "is_spot": False,
            "price_per_h": 0.526,
            "auto_terminate_minutes": 90,
            **changes,
        }

    def _write_stubs(self) -> None:
        values = {"python": sys.executable, "folder": str(self.folder), "digest": DIGEST, "gpu": GPU}
        for name, script in (("docker", DOCKER), ("curl", CURL), ("nvidia-smi", PLAIN), ("say", PLAIN)):
            (self.bin / name).write_text(script.format(**values))
            (self.bin / name).chmod(0o755)


@contextmanager
def sshd_rig(folder: Path) -> Iterator[SshdRig]:
    """A running one."""
    need_sshd()
    made = SshdRig(folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()
