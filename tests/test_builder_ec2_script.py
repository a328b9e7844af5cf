"""The script that an EC2 machine runs first: run as it is, with stubs on PATH and its files below another root."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from builder.ec2 import user_data
from builder.errors import UsageError


def stub(folder: Path, name: str, does: str = "exit 0") -> None:
    program = folder / name
    program.write_text(f'#!/bin/bash\necho "{name} $*" >>"$BUILDER_ROOT/calls"\n{does}\n')
    program.chmod(0o755)


class MachineRoot:
    """A root folder with stubs of the programs that the script calls, and little else on PATH."""

    def __init__(self, folder: Path, *, is_prepared: bool = True) -> None:
        self.root, self.bin = folder / "root", folder / "bin"
        self.root.mkdir()
        self.bin.mkdir()
        for name in ("bash", "mkdir", "cat", "mv", "date", "sleep", "grep", "sed"):
            found = shutil.which(name)
            assert found is not None
            (self.bin / name).symlink_to(found)
        for name in ("shutdown", "systemctl", "usermod", "nvidia-smi", "poweroff"):
            stub(self.bin, name)
        if is_prepared:
            stub(self.bin, "docker", "echo '{\"nvidia\":{}}'")
            stub(self.bin, "nvidia-ctk")
        else:
            stub(self.bin, "apt-get", f'[ "$1" = update ] || {{ name="${{@: -1}}"; {install(self.bin)}; }}')
            stub(self.bin, "curl", "echo 'deb https://nvidia.github.io/stable'")
            stub(self.bin, "gpg", "cat >/dev/null")

    def run(self, minutes: int = 90) -> subprocess.CompletedProcess[str]:
        script = self.root / "user-data"
        script.write_text(user_data.render(minutes, "2026-01-31T12:00:00Z", "ubuntu"))
        environ = {"PATH": str(self.bin), "BUILDER_ROOT": str(self.root)}
        return subprocess.run(
            [str(self.bin / "bash"), str(script)], env=environ, capture_output=True, text=True, timeout=60, check=False
        )

    @property
    def calls(self) -> list[str]:
        return (self.root / "calls").read_text().splitlines()

    def said(self, name: str) -> str | None:
        path = self.root / "var/lib/builder" / name
        return path.read_text().strip() if path.exists() else None


def install(folder: Path) -> str:
    """What the stub of apt-get does: the package's program appears."""
    does = '[ "$name" = docker.io ] && program=docker || program=nvidia-ctk'
    write = f'printf \'#!/bin/bash\\necho "%s $*" >>"$BUILDER_ROOT/calls"\\n\' "$program" >"{folder}/$program"'
    return f'{does}; {write}; /bin/chmod +x "{folder}/$program"'


def test_the_script_schedules_its_end_first_and_says_that_it_is_ready(tmp_path: Path) -> None:
    machine = MachineRoot(tmp_path)
    done = machine.run(30)
    assert done.returncode == 0, done.stderr
    assert machine.calls[0] == "shutdown -h +30"
    assert "systemctl enable --now builder-end.timer" in machine.calls
    timer = (machine.root / "etc/systemd/system/builder-end.timer").read_text()
    assert "OnCalendar=2026-01-31 12:00:00 UTC\nOnBootSec=30min\nPersistent=true\n" in timer
    assert machine.said("ready")
    assert machine.said("failed") is None
    assert not any("apt-get" in each for each in machine.calls)
    assert "usermod -aG docker ubuntu" in machine.calls


def test_the_script_installs_what_is_absent(tmp_path: Path) -> None:
    machine = MachineRoot(tmp_path, is_prepared=False)
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert "apt-get install -q -y docker.io" in machine.calls
    assert "apt-get install -q -y nvidia-container-toolkit" in machine.calls
    assert "nvidia-ctk runtime configure --runtime=docker" in machine.calls
    assert machine.said("ready")
    listed = (machine.root / "etc/apt/sources.list.d/nvidia-container-toolkit.list").read_text()
    assert listed.startswith("deb [signed-by=")


@pytest.mark.parametrize(
    ("program", "does", "said"),
    [
        ("nvidia-smi", "exit 9", "looking for the NVIDIA driver: choose an image (--ami) that has it (exit 9)"),
        ("usermod", "exit 6", "letting ubuntu use docker (exit 6)"),
        ("docker", "exit 1", "making docker use nvidia-container-toolkit (exit 5)"),
    ],
)
def test_the_script_says_why_it_failed(tmp_path: Path, program: str, does: str, said: str) -> None:
    machine = MachineRoot(tmp_path)
    stub(machine.bin, program, does)
    stub(machine.bin, "nvidia-ctk", "exit 5")
    done = machine.run()
    assert done.returncode != 0
    assert machine.said("failed") == said
    assert machine.said("ready") is None
    assert machine.calls[0] == "shutdown -h +90"


def test_the_script_goes_on_without_systemd_timers_or_shutdown(tmp_path: Path) -> None:
    machine = MachineRoot(tmp_path)
    stub(machine.bin, "systemctl", '[ "$1" != daemon-reload ]')
    stub(machine.bin, "shutdown", "exit 1")
    # So that the stand-in for the shutdown does not outlive the test.
    (machine.bin / "sleep").unlink()
    stub(machine.bin, "sleep")
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert "no timer" in done.stderr
    until_s = time.monotonic() + 20
    while "poweroff -f" not in machine.calls and time.monotonic() < until_s:
        time.sleep(0.02)
    assert "sleep 5400" in machine.calls
    assert "poweroff -f" in machine.calls


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_script_passes_shellcheck(tmp_path: Path) -> None:
    script = tmp_path / "user-data.sh"
    script.write_text(user_data.render(90, "2026-01-31T12:00:00Z"))
    checked = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("minutes", [4, 721])
def test_the_script_is_not_made_for_other_limits(minutes: int) -> None:
    with pytest.raises(UsageError, match="legal: 5 to 720"):
        user_data.render(minutes, "2026-01-31T12:00:00Z")
