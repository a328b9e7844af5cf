"""The first-boot script of an EC2 machine: run by bash among stubs, and looked over by shellcheck."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from builder.ec2.user_data import FAILED_FILE, MAX_MINUTES, MIN_MINUTES, READY_FILE, render
from builder.errors import UsageError

ROOT = Path(__file__).parent.parent
DEADLINE = "2026-01-31T12:00:00Z"
TOOLS = ("bash", "sh", "cat", "date", "grep", "mkdir", "mv", "sed", "chmod", "rm")
STUBS = ("shutdown", "poweroff", "systemctl", "nvidia-smi", "docker", "nvidia-ctk", "usermod", "apt-get", "curl", "gpg",
         "sleep")  # fmt: skip
STUB = """#!/bin/sh
echo "$(basename "$0") $*" >>"$STUBS_LOG"
case " $STUBS_FAIL " in *" $(basename "$0") "*) echo "$(basename "$0") does not work" >&2; exit 7;; esac
"""
BASENAME = '#!/bin/sh\necho "${1##*/}"\n'


class Machine:
    """A new machine: nothing but the tools of any, and stubs that note how they were called."""

    def __init__(self, folder: Path, *without: str) -> None:
        self.folder, self.bin, self.root = folder, folder / "bin", folder / "root"
        self.bin.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.bin / tool).symlink_to(found)
        self.add("basename", BASENAME)
        for name in STUBS:
            if name not in without:
                self.add(name)
        # It reads its input, or who writes it would be ended by the closed pipe.
        self.add("gpg", STUB + "cat >/dev/null\n")
        if "docker" not in without:
            self.add("docker", STUB + 'echo \'{"nvidia": {}, "runc": {}}\'\n')

    def add(self, name: str, text: str = STUB) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def boot(self, *failing: str, minutes: int = 90, login: str = "ubuntu") -> subprocess.CompletedProcess[str]:
        script = self.folder / "user-data"
        script.write_text(render(minutes, DEADLINE, login))
        environ = {
            "PATH": str(self.bin),
            "BUILDER_ROOT": str(self.root),
            "STUBS_LOG": str(self.folder / "calls"),
            "STUBS_FAIL": " ".join(failing),
        }
        command = [str(self.bin / "bash"), str(script)]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def text(self, path: str) -> str | None:
        found = Path(f"{self.root}{path}")
        return found.read_text() if found.exists() else None


def test_a_machine_that_has_everything_becomes_ready_after_planning_its_end(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    done = machine.boot(login="admin")
    assert done.returncode == 0, done.stderr
    assert machine.calls[0] == "shutdown -h +90"
    assert machine.calls[-1] == "usermod -aG docker admin"
    assert not any(call.startswith(("apt-get", "curl")) for call in machine.calls)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n", machine.text(READY_FILE) or "")
    assert machine.text(FAILED_FILE) is None
    timer = machine.text("/etc/systemd/system/builder-end.timer") or ""
    # Also after a reboot, and if it was off at that moment.
    assert "OnCalendar=2026-01-31 12:00:00 UTC\nOnBootSec=90min\nPersistent=true\n" in timer
    assert "WantedBy=timers.target" in timer and "systemctl enable --now builder-end.timer" in machine.calls


def test_a_machine_without_docker_and_toolkit_gets_them(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "docker", "nvidia-ctk")
    runtimes = tmp_path / "runtimes"
    runtimes.write_text('{"runc": {}}\n')
    docker = STUB + f"cat {runtimes}\n"
    (tmp_path / "docker.new").write_text(docker)
    (tmp_path / "ctk.new").write_text(STUB + f"echo '{{\"nvidia\": {{}}}}' >{runtimes}\n")
    install = (
        f'case "$*" in *docker.io*) cat {tmp_path}/docker.new >{machine.bin}/docker; chmod 755 {machine.bin}/docker;;\n'
        f"*toolkit*) cat {tmp_path}/ctk.new >{machine.bin}/nvidia-ctk; chmod 755 {machine.bin}/nvidia-ctk;; esac\n"
    )
    machine.add("apt-get", STUB + install)
    machine.add("curl", STUB + 'echo "deb https://nvidia.github.io/libnvidia-container/stable/deb/amd64 /"\n')
    done = machine.boot()
    assert done.returncode == 0, done.stderr
    assert machine.text(READY_FILE) is not None
    order = [call.split()[0] + (" install" if "install" in call else "") for call in machine.calls]
    assert order[0] == "shutdown" and order.count("apt-get install") == 2
    assert "nvidia-ctk runtime configure --runtime=docker" in machine.calls
    assert "systemctl restart docker" in machine.calls
    sources = machine.text("/etc/apt/sources.list.d/nvidia-container-toolkit.list") or ""
    assert sources.startswith("deb [signed-by=") and "https://nvidia.github.io" in sources


@pytest.mark.parametrize(
    ("without", "failing", "words"),
    [
        ((), "nvidia-smi", "NVIDIA driver"),
        (("docker",), "apt-get", "installing docker"),
        (("nvidia-ctk",), "curl", "installing nvidia-container-toolkit"),
        (("nvidia-ctk",), "gpg", "installing nvidia-container-toolkit"),
        ((), "usermod", "letting ubuntu use docker"),
        ((), "docker nvidia-ctk", "making docker use nvidia-container-toolkit"),
    ],
)
def test_what_fails_is_said_in_one_line_and_the_machine_still_ends(
    tmp_path: Path, without: tuple[str, ...], failing: str, words: str
) -> None:
    machine = Machine(tmp_path, *without)
    done = machine.boot(failing)
    assert done.returncode != 0
    said = machine.text(FAILED_FILE) or ""
    assert words in said and "exit 7" in said and said.count("\n") == 1
    assert machine.text(READY_FILE) is None
    assert machine.calls[0] == "shutdown -h +90"


def test_where_shutdown_cannot_be_planned_a_timer_of_its_own_ends_the_machine(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    done = machine.boot("shutdown", minutes=MIN_MINUTES)
    assert done.returncode == 0, done.stderr
    # The stub of sleep returns at once.
    ends = time.monotonic() + 20
    while "poweroff -f" not in machine.calls:
        assert time.monotonic() < ends, machine.calls
        time.sleep(0.05)
    assert f"sleep {MIN_MINUTES * 60}" in machine.calls
    assert machine.text(READY_FILE) is not None


def test_without_systemd_timers_the_planned_shutdown_stays(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add("systemctl", STUB + 'case "$*" in *builder-end*) exit 1;; esac\n')
    done = machine.boot()
    assert done.returncode == 0
    assert "only the scheduled shutdown" in done.stderr
    assert machine.calls[0] == "shutdown -h +90"


@pytest.mark.parametrize("minutes", [MIN_MINUTES, MAX_MINUTES])
def test_the_longest_and_shortest_life_are_written_out(minutes: int) -> None:
    assert f"\nminutes={minutes}\n" in render(minutes, DEADLINE)


@pytest.mark.parametrize("minutes", [MIN_MINUTES - 1, MAX_MINUTES + 1, 0, -1])
def test_other_lives_are_refused(minutes: int) -> None:
    with pytest.raises(UsageError, match=f"legal: {MIN_MINUTES} to {MAX_MINUTES}"):
        render(minutes, DEADLINE)


def test_a_hostile_login_stays_a_word(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    done = machine.boot(login="x; touch $BUILDER_ROOT/gone")
    assert done.returncode == 0
    assert machine.calls[-1] == "usermod -aG docker x; touch $BUILDER_ROOT/gone"
    assert not (machine.root / "gone").exists()


@pytest.mark.parametrize("login", ["ubuntu", "admin user"])
def test_shellcheck_finds_nothing_in_the_script(tmp_path: Path, login: str) -> None:
    script = tmp_path / "user-data.sh"
    script.write_text(render(90, DEADLINE, login))
    shellcheck(script)


def test_shellcheck_finds_nothing_in_the_checks_of_a_change() -> None:
    shellcheck(ROOT / ".ci" / "run")


def shellcheck(path: Path) -> None:
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, timeout=60, env={"PATH": os.defpath})
    assert done.returncode == 0, done.stdout
