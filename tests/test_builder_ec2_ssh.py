"""`ec2 wait`, `logs`, `stop` and `ssh` against a real sshd on loopback, and an EC2 that says what it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.child import Finished
from builder.ec2.machine import read_machine
from builder.ec2.ssh import Ssh, connect_ssh, ssh_error
from builder.errors import SshError
from builder.runtime import Runtime, World
from tests.builder_harness import Cli
from tests.ec2_answers import AWS_SECRET, IMAGE, TOKEN, Ec2, ec2_cli, ec2_verb, state, write
from tests.fakes.runpod.clock import PlaneClock
from tests.serving import ROOT
from tests.sshd_rig import GPU, HOST, SshdRig, sshd_rig


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


def way(cli: Cli, rig: SshdRig) -> Ssh:
    run = Runtime(World(cli.environ, cli.folder, clock=cli.clock))
    return connect_ssh(run, read_machine(run), rig.ssh_config)


# wait


def test_wait_climbs_to_the_gpu(cli: Cli, rig: SshdRig, ec2: Ec2) -> None:
    rig.ready()
    ec2.states = ["pending", "pending", "running"]
    outcome = ec2_verb(cli, rig, "wait", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["gpu"] == GPU
    assert list(outcome.document["rungs"]) == ["running", "ssh", "prepared", "gpu"]
    assert outcome.document["rungs"]["running"] == 10.0
    assert "AWS says pending" in outcome.err
    trial = rig.calls[-1]["argv"]
    assert trial[:5] == ["run", "--rm", "--gpus", "all", "ubuntu:24.04"] and "nvidia-smi" in trial


def test_wait_asks_aws_for_an_address_and_records_it(cli: Cli, rig: SshdRig, ec2: Ec2) -> None:
    write(cli, "ec2", rig.record(public_ip=None))
    rig.ready()
    assert ec2_verb(cli, rig, "wait").code == 0
    assert state(cli, "ec2")["public_ip"] == HOST


def test_wait_shows_price_and_end_to_people(cli: Cli, rig: SshdRig) -> None:
    rig.ready()
    outcome = ec2_verb(cli, rig, "wait")
    assert GPU in outcome.out and "$0.53/h" in outcome.out and "ec2 terminate" in outcome.out


@pytest.mark.parametrize("word", ["terminated", "shutting-down", "stopped", "stopping"])
def test_wait_ends_at_once_when_the_machine_is_gone(cli: Cli, rig: SshdRig, ec2: Ec2, word: str) -> None:
    ec2.states, ec2.reason = ["pending", word], "Server.SpotInstanceTermination: taken away"
    outcome = ec2_verb(cli, rig, "wait", "--json")
    assert (outcome.code, outcome.problem["code"]) == (1, "aws_error")
    assert word in outcome.problem["error"] and "SpotInstanceTermination" in outcome.problem["error"]
    assert cli.clock.monotonic_s() == 5.0


def test_a_machine_lost_while_ssh_is_waited_for_ends_the_wait(cli: Cli, rig: SshdRig, ec2: Ec2) -> None:
    rig.authorize(rig.other_key)
    ec2.states = ["running", "running", "terminated"]
    outcome = ec2_verb(cli, rig, "wait", "--json")
    assert "terminated" in outcome.problem["error"]


def test_a_failed_first_boot_ends_the_wait_with_its_words(cli: Cli, rig: SshdRig) -> None:
    rig.failed("installing docker (exit 100)")
    outcome = ec2_verb(cli, rig, "wait", "--json")
    assert (outcome.code, outcome.problem["code"]) == (1, "ssh_error")
    assert "installing docker (exit 100)" in outcome.problem["error"] and "$0.53/h" in outcome.problem["error"]
    assert "--boot" in outcome.problem["hint"]
    assert cli.clock.monotonic_s() == 0


@pytest.mark.parametrize(
    ("rung", "arrange"),
    [
        ("running", lambda rig, ec2: setattr(ec2, "states", ["pending"])),
        ("ssh", lambda rig, ec2: rig.authorize(rig.other_key)),
        ("prepared", lambda rig, ec2: None),
        (
            "gpu",
            lambda rig, ec2: (rig.ready(), rig.behave(gpu={"err": "no device driver\n", "code": 125})),
        ),
    ],
)
def test_a_wait_that_is_too_long_keeps_the_machine_and_names_its_price(
    cli: Cli, rig: SshdRig, ec2: Ec2, rung: str, arrange: Callable[[SshdRig, Ec2], Any]
) -> None:
    arrange(rig, ec2)
    outcome = ec2_verb(cli, rig, "wait", "--timeout", "11", "--json")
    assert (outcome.code, outcome.problem["code"]) == (7, "wait_timeout")
    assert f"{rung} is missing" in outcome.problem["error"] and "kept and billed, $0.53/h" in outcome.problem["error"]
    assert "ec2 terminate" in outcome.problem["hint"]
    assert cli.clock.monotonic_s() == 11.0
    assert state(cli, "ec2") == rig.record()
    if rung == "gpu":
        assert "no device driver" in outcome.problem["error"]


def test_without_ssh_there_it_waits_on_and_says_why(cli: Cli, rig: SshdRig) -> None:
    rig.stop()
    try:
        outcome = ec2_verb(cli, rig, "wait", "--timeout", "6", "--json")
    finally:
        rig.start()
    assert outcome.code == 7
    assert "nothing listens" in outcome.problem["error"]


def test_expired_aws_credentials_are_no_end_where_the_address_is_known(cli: Cli, rig: SshdRig, ec2: Ec2) -> None:
    ec2.error = (400, "ExpiredToken")
    rig.ready()
    outcome = ec2_verb(cli, rig, "wait", "--json")
    assert outcome.code == 0
    assert "warning: AWS does not tell" in outcome.err


def test_expired_aws_credentials_are_said_where_only_aws_knows(cli: Cli, rig: SshdRig, ec2: Ec2) -> None:
    write(cli, "ec2", rig.record(public_ip=None))
    ec2.error = (400, "ExpiredToken")
    assert ec2_verb(cli, rig, "wait", "--json").code == 4
    assert ec2_verb(cli, rig, "stop", "--json").code == 4


def test_a_machine_that_aws_forgot_ends_the_wait_only_when_it_is_old(cli: Cli, rig: SshdRig, ec2: Ec2) -> None:
    ec2.error = (400, "InvalidInstanceID.NotFound")
    write(cli, "ec2", rig.record(created_at="2025-12-31T23:59:30Z"))
    outcome = ec2_verb(cli, rig, "wait", "--json")
    assert outcome.code == 1 and "no EC2 machine" in outcome.problem["error"]
    # Created 30 s before the clock began; AWS may take 120 s.
    assert cli.clock.monotonic_s() == 90.0


def test_a_changed_host_key_is_refused(cli: Cli, rig: SshdRig) -> None:
    rig.ready()
    assert ec2_verb(cli, rig, "wait").code == 0
    rig.stop()
    rig.start("host2")
    try:
        for verb in ("wait", "stop", "logs"):
            outcome = ec2_verb(cli, rig, verb, "--json")
            assert (outcome.code, outcome.problem["code"]) == (1, "ssh_error")
            assert "host key" in outcome.problem["error"] and "known hosts" in outcome.problem["hint"]
    finally:
        rig.stop()
        rig.start()


@pytest.mark.parametrize("verb", ["wait", "run", "logs", "stop", "ssh"])
def test_without_a_machine_nothing_is_tried(cli: Cli, rig: SshdRig, ec2: Ec2, verb: str) -> None:
    (cli.folder / "artifacts" / "ec2.json").unlink()
    outcome = ec2_verb(cli, rig, verb, "--json", *{"run": [IMAGE], "ssh": ["true"]}.get(verb, []))
    assert (outcome.code, outcome.problem["code"]) == (3, "not_found")
    assert "ec2 launch" in outcome.problem["hint"]
    assert not ec2.asked and not rig.calls


@pytest.mark.parametrize(
    "changes", [{"ssh_user": "-oProxyCommand=x"}, {"public_ip": "-oProxyCommand=x"}, {"region": ...}]
)
def test_a_record_that_would_be_an_option_of_ssh_is_refused(cli: Cli, rig: SshdRig, changes: dict[str, Any]) -> None:
    record = {**rig.record(), **changes}
    write(cli, "ec2", {name: value for name, value in record.items() if value is not ...})
    outcome = ec2_verb(cli, rig, "wait", "--json")
    assert (outcome.code, outcome.problem["code"]) == (1, "conflict")


@pytest.mark.parametrize("timeout", ["0.9", "86401", "x"])
def test_illegal_timeouts_are_wrong_usage(cli: Cli, rig: SshdRig, timeout: str) -> None:
    assert ec2_verb(cli, rig, "wait", "--timeout", timeout).code == 2
    assert ec2_verb(cli, rig, "run", "--timeout", timeout).code == 2


# logs, stop, ssh


def test_logs_come_as_lines_and_as_json(cli: Cli, rig: SshdRig) -> None:
    assert ec2_verb(cli, rig, "logs", "--tail", "5").out.splitlines() == ["line one", "line two"]
    assert rig.calls[-1]["argv"] == ["logs", "--tail", "5", "whisper"]
    lines = ec2_verb(cli, rig, "logs", "--follow", "--json").out.splitlines()
    assert [json.loads(line)["line"] for line in lines] == ["line one", "line two"]
    assert "--follow" in rig.calls[-1]["argv"]


def test_logs_hide_what_is_secret(cli: Cli, rig: SshdRig) -> None:
    rig.behave(logs={"out": f"token is {TOKEN}\n\x1b[2Jcleared\n"})
    outcome = ec2_verb(cli, rig, "logs")
    assert outcome.out.splitlines() == ["token is [hidden]", "\\x1b[2Jcleared"]


def test_logs_without_a_container_say_so(cli: Cli, rig: SshdRig) -> None:
    rig.behave(state={"err": "Error response from daemon: No such container: whisper\n", "code": 1})
    outcome = ec2_verb(cli, rig, "logs", "--json")
    assert (outcome.code, outcome.out) == (3, "") and "ec2 run" in outcome.problem["hint"]
    rig.behave(logs={"out": "No such container, says the app\n"})
    assert ec2_verb(cli, rig, "logs").out == "No such container, says the app\n"


def test_logs_of_the_boot_come_by_ssh_or_from_the_console(cli: Cli, rig: SshdRig, ec2: Ec2) -> None:
    (rig.root / "var/log/cloud-init-output.log").write_text("first\nsecond\nthird\n")
    assert ec2_verb(cli, rig, "logs", "--boot", "--tail", "2").out.splitlines() == ["second", "third"]
    rig.authorize(rig.other_key)
    ec2.console = "booting\nkernel panic\n"
    outcome = ec2_verb(cli, rig, "logs", "--boot", "--tail", "1")
    assert outcome.out.splitlines() == ["kernel panic"] and "refuses our key" in outcome.err
    ec2.console = ""
    assert ec2_verb(cli, rig, "logs", "--boot").code == 1
    assert ec2_verb(cli, rig, "logs", "--boot", "--follow").code == 2


def test_stop_removes_the_container_and_says_what_is_still_billed(cli: Cli, rig: SshdRig) -> None:
    outcome = ec2_verb(cli, rig, "stop")
    assert outcome.code == 0
    assert [call["argv"][0] for call in rig.calls] == ["stop", "rm"]
    assert "$0.53/h" in outcome.out and "in 1h30m" in outcome.out and "ec2 terminate" in outcome.out
    gone = {"err": "Error: No such container: whisper\nError: No such container: whisper-job\n", "code": 1}
    rig.behave(stop=gone, rm=gone)
    outcome = ec2_verb(cli, rig, "stop", "--json")
    assert outcome.code == 0 and outcome.document["removed"] is False


@pytest.mark.parametrize(
    "words",
    [["a b"], ["$(touch gone)", "`id`"], ["'", '"', "\\"], ["*", "~", ";", "|", "&"], ["--", "-x"], ["é\n"], [""]],
)
def test_hostile_words_arrive_as_they_are(cli: Cli, rig: SshdRig, words: list[str]) -> None:
    outcome = ec2_verb(cli, rig, "ssh", "--json", "--", "say", *words)
    assert outcome.code == 0, outcome.err
    assert rig.calls[-1]["argv"] == words
    assert not (rig.home / "gone").exists()


def test_ssh_gives_the_exit_code_of_its_command(cli: Cli, rig: SshdRig) -> None:
    rig.behave(say={"out": "well\n", "code": 7})
    outcome = ec2_verb(cli, rig, "ssh", "--json", "--", "say")
    assert (outcome.code, outcome.document["exit_code"], outcome.document["lines"]) == (7, 7, ["well"])
    assert ec2_verb(cli, rig, "ssh", "--json").code == 2


def test_ssh_becomes_the_client(cli: Cli, rig: SshdRig) -> None:
    # A process of its own has the real time.
    write(cli, "ec2", rig.record(deadline="2099-01-01T00:00:00Z"))
    rig.behave(say={"out": "well\n", "code": 7})
    command = [sys.executable, "-m", "builder", "ec2", "ssh", "--ssh-config", str(rig.ssh_config), "--", "say", "a  b"]
    done = subprocess.run(
        command,
        cwd=cli.folder,
        env={**cli.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (7, "well\n"), done.stderr
    assert "$0.53/h" in done.stderr
    assert rig.calls[-1]["argv"] == ["a  b"]


def test_the_printed_command_works_in_a_shell(cli: Cli, rig: SshdRig) -> None:
    line = ec2_verb(cli, rig, "ssh", "--print", "--", "say", "it's", "$HOME").out
    assert "StrictHostKeyChecking=accept-new" in line and "BatchMode=yes" in line and f"-l {rig.user}" in line
    subprocess.run(["sh", "-c", line], check=True, env={"PATH": os.environ["PATH"]}, timeout=60)
    assert rig.calls[-1]["argv"] == ["it's", "$HOME"]


# The way there


def test_the_wrong_key_is_told_from_no_answer(cli: Cli, rig: SshdRig) -> None:
    write(cli, "ec2", rig.record(key_path=str(rig.other_key)))
    with pytest.raises(SshError, match="refuses our key") as caught:
        way(cli, rig).run(("true",))
    assert str(rig.other_key) in caught.value.hint


def test_the_last_minutes_of_a_machine_are_told(cli: Cli, rig: SshdRig) -> None:
    said = "System is going down. Unprivileged users are not permitted to log in anymore."
    error = ssh_error(way(cli, rig).machine, Finished(255, (said, "Connection closed by 54.210.0.99 port 22")))
    assert "its time is nearly up" in str(error) and "--max-minutes" in error.hint


def test_a_machine_past_its_deadline_is_not_said_to_run(cli: Cli, rig: SshdRig) -> None:
    write(cli, "ec2", rig.record(deadline="2026-01-01T00:00:00Z"))
    cli.clock.sleep(1)
    rig.authorize(rig.other_key)
    outcome = ec2_verb(cli, rig, "run", IMAGE, "--mode", "handler", "--json")
    assert outcome.problem["code"] == "ssh_error" and "--max-minutes" in outcome.problem["hint"]
    assert "refuses our key" in outcome.problem["error"] and "was to end by itself" in outcome.problem["error"]


def test_a_key_or_client_or_configuration_that_is_not_there_is_said(cli: Cli, rig: SshdRig) -> None:
    outcome = cli.run("ec2", "stop", "--ssh-config", "nowhere")
    assert outcome.code == 2 and "no such file" in outcome.err
    write(cli, "ec2", rig.record(key_path="nowhere"))
    with pytest.raises(SshError, match="nobody gets into"):
        way(cli, rig)
    write(cli, "ec2", rig.record())
    cli.environ["PATH"] = str(cli.folder)
    with pytest.raises(SshError, match="no ssh client") as caught:
        way(cli, rig)
    assert "openssh-client" in caught.value.hint


def test_a_command_that_hangs_is_ended(cli: Cli, rig: SshdRig) -> None:
    with pytest.raises(SshError, match="not done in 1 s"):
        way(cli, rig).run(("sleep", "30"), limit_s=1.0)


def test_the_client_gets_none_of_our_secrets(cli: Cli, rig: SshdRig) -> None:
    values = way(cli, rig).environ.values()
    assert not {TOKEN, AWS_SECRET, cli.environ["RUNPOD_API_KEY"]} & set(values)


def test_a_forward_that_cannot_be_is_an_error(cli: Cli, rig: SshdRig) -> None:
    rig.authorize(rig.other_key)
    with pytest.raises(SshError, match="refuses our key"), way(cli, rig).forward(9):
        raise AssertionError("there is no way")


def test_an_interrupt_says_what_is_still_billed(cli: Cli, rig: SshdRig) -> None:
    class Impatient(PlaneClock):
        def sleep(self, seconds: float) -> None:
            raise KeyboardInterrupt

    cli.clock = Impatient()
    outcome = ec2_verb(cli, rig, "wait", "--json")
    assert outcome.code == 130
    assert "is billed, $0.53/h" in outcome.problem["error"] and "ec2 terminate" in outcome.problem["error"]
