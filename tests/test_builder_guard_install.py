"""The guard runs by itself: its line in a crontab, by a crontab command that is a real program."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from builder.errors import UsageError
from builder.money.guard_install import add_line, cron_line, find_line, remove_line, systemd_units
from tests.builder_harness import Cli
from tests.fakes.runpod.clock import PlaneClock

OTHERS = "MAILTO=me\n\n# backup\n0 3 * * * backup  # builder-guard: not ours\n"
PROGRAM = """#!{python}
import pathlib, sys
file = pathlib.Path({file!r})
if sys.argv[1] == "-l":
    if not file.exists():
        sys.exit("no crontab for user")
    data = file.read_bytes()
    if data == b"denied":
        sys.exit("you are not allowed to use this program")
    sys.stdout.buffer.write(data)
else:
    file.write_bytes(sys.stdin.buffer.read())
"""


class Machine:
    """A checkout and a crontab; `file` is what the crontab command keeps."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "a folder 100%"
        self.checkout.mkdir()
        (self.checkout / ".env").write_text("RUNPOD_API_KEY=rpa_SECRETSECRETSECRET\n")
        self.file = folder / "crontab.txt"
        self.bin = folder / "bin"
        self.bin.mkdir()
        program = self.bin / "crontab"
        program.write_text(PROGRAM.format(python=sys.executable, file=str(self.file)))
        program.chmod(stat.S_IRWXU)
        self.cli = Cli({"PATH": str(self.bin)}, self.checkout, PlaneClock())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_install_prints_and_changes_nothing(machine: Machine) -> None:
    outcome = machine.cli.run("guard", "install", "--kill", "--max-hours", "4")
    assert outcome.code == 0, outcome.err
    assert "*/5 * * * * cd " in outcome.out and "--kill --max-hours 4" in outcome.out
    assert "OnUnitActiveSec=5min" in outcome.out
    assert not machine.file.exists()
    assert "SECRET" not in outcome.out + outcome.err


def test_cron_adds_one_line_and_leaves_the_others_alone(machine: Machine) -> None:
    machine.file.write_text(OTHERS)
    for every in ("5", "10", "10"):
        outcome = machine.cli.run("guard", "install", "--kill", "--cron", "--every", every)
        assert outcome.code == 0, outcome.err
    text = machine.file.read_text()
    assert text.startswith(OTHERS) and len(text.splitlines()) == len(OTHERS.splitlines()) + 1
    assert text.splitlines()[-1].startswith("*/10 ") and "SECRET" not in text
    status = machine.cli.run("guard", "status", "--json").document
    assert status["cron"] == text.splitlines()[-1] and status["last_run"] is None
    assert machine.cli.run("guard", "remove").code == 0
    assert machine.file.read_text() == OTHERS
    assert "had no such line" in machine.cli.run("guard", "remove").out


def test_the_line_is_one_that_a_shell_runs(machine: Machine) -> None:
    """Also from a folder with spaces and a percent sign, which cron takes for the end of the line."""
    line = machine.cli.run("guard", "install", "--json").document["cron"]
    command = line.split(" ", 5)[5].replace("\\%", "%")
    assert "%" not in line.replace("\\%", "")
    (machine.checkout / "artifacts").mkdir()
    root = Path(__file__).parent.parent
    environ = {"PYTHONPATH": str(root), "PATH": os.environ["PATH"], "RUNPOD_API_BASE": "http://127.0.0.1:9/v2"}
    done = subprocess.run(["/bin/sh", "-c", command.replace("--once", "--help")], env=environ, timeout=60, check=False)
    log = (machine.checkout / "artifacts" / "guard.log").read_text()
    assert done.returncode == 0, log
    assert "--protect-min" in log


def test_a_crontab_that_cannot_be_read_is_not_overwritten(machine: Machine) -> None:
    machine.file.write_text("denied")
    outcome = machine.cli.run("guard", "install", "--cron")
    assert outcome.code == 1 and "not allowed to use" in outcome.err
    assert machine.file.read_text() == "denied"


def test_without_a_crontab_command_the_text_to_paste_is_shown(machine: Machine) -> None:
    (machine.bin / "crontab").unlink()
    outcome = machine.cli.run("guard", "install", "--cron")
    assert outcome.code == 1 and "no crontab command" in outcome.err and "*/5 * * * * cd" in outcome.err
    assert machine.cli.run("guard", "status", "--json").document["has_crontab"] is False


def test_a_key_that_the_guard_would_not_find_is_warned_of(machine: Machine) -> None:
    (machine.checkout / ".env").unlink()
    assert "has no RUNPOD_API_KEY" in machine.cli.run("guard", "install").err


@pytest.mark.parametrize(
    "options", [["--every", "60"], ["--terminate"], ["--once", "--every", "5"], ["--max-hours", "0"]]
)
def test_wrong_options_are_named(machine: Machine, options: list[str]) -> None:
    action = "run" if "--once" in options else "install"
    assert machine.cli.run("guard", action, *options).code == 2


def test_each_folder_has_its_own_line() -> None:
    one, two = Path("/one"), Path("/two")
    lines = [cron_line(each, each / ".env", each / "log", 1, []) for each in (one, two)]
    text = add_line(add_line("", lines[0], one), lines[1], two)
    assert [find_line(text, one), find_line(text, two)] == lines
    assert remove_line(text, one) == lines[1] + "\n"
    with pytest.raises(UsageError):
        cron_line(Path("/a\nb"), one, one, 5, [])


def test_other_lines_stay_as_they_are_byte_by_byte(machine: Machine) -> None:
    others = "0 1 * * * echo a\fb\x85\u2028 é\r\n0 2 * * * x".encode() + b" \xff"
    machine.file.write_bytes(others)
    assert machine.cli.run("guard", "install", "--cron").code == 0
    written = machine.file.read_bytes()
    assert written.startswith(others + b"\n*/5 ") and written.count(b"\n") == 3
    assert machine.cli.run("guard", "remove").code == 0
    assert machine.file.read_bytes() == others + b"\n"


def test_words_of_the_unit_are_quoted_as_systemd_reads_them() -> None:
    env_path = Path('/home/u/my "x" \\dir 5%/.env')
    unit = systemd_units(Path("/one"), env_path, 5, [])["builder-guard.service"]
    assert '"--env-file" "/home/u/my \\"x\\" \\\\dir 5%%/.env"' in unit
