"""Random faults over launch and terminate at AWS: nothing is lost sight of, no machine is made twice, and once AWS is
well again one command ends everything.

`make chaos` runs more seeds (CHAOS_SEEDS, CHAOS_FIRST_SEED).
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.aws_rig import SECRET, AwsRig, aws_rig
from tests.builder_harness import Outcome
from tests.fakes.runpod.clock import PlaneClock
from tests.test_builder_chaos import EXIT_CODES, HIDDEN_S, ImpatientClock

SEEDS = int(os.environ.get("CHAOS_SEEDS", "30"))
FIRST_SEED = int(os.environ.get("CHAOS_FIRST_SEED", "0"))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsRig]:
    with aws_rig(tmp_path_factory.mktemp("chaos-ec2")) as made:
        yield made


def prepare(rig: AwsRig, seed: int) -> random.Random:
    """An empty account with this seed's troubles."""
    chance = random.Random(seed)
    rig.reset(ImpatientClock(chance.randrange(20) if chance.random() < 0.2 else None))
    shutil.rmtree(rig.cli.folder / "artifacts", ignore_errors=True)
    rig.seed_faults(chance, chance.choice((0.05, 0.15, 0.3, 0.5)))
    if chance.random() < 0.3:
        rig.hide_s = chance.uniform(1, HIDDEN_S)
    if chance.random() < 0.3:
        rig.hide_groups_s = chance.uniform(1, HIDDEN_S)
    if chance.random() < 0.2:
        # In the middle of a call, done or not.
        rig.interrupt_at = chance.randrange(20)
    return chance


def judge(rig: AwsRig, seed: int, outcome: Outcome) -> None:
    """A launch that is over: what is there is what it said, and a failure says what to do."""
    where = f"seed {seed}, exit {outcome.code}: {outcome.err[-2000:]}"
    assert outcome.code in EXIT_CODES, where
    assert "Traceback" not in outcome.err, where
    assert SECRET not in outcome.err + outcome.out, where
    machines = rig.instances
    assert len(machines) <= 1, where
    if outcome.code == 0:
        assert [each.id for each in machines] == [outcome.document["machine"]["instance_id"]], where
        assert (len(rig.groups), len(rig.keys)) == (1, 1), where
        return
    # In the message itself, not in the progress before it, and where the next command finds it.
    told = f"{outcome.problem['error']} {outcome.problem['hint']}"
    kept = f"{rig.state('ec2')} {rig.state('pending-ec2')}"
    left = [each.key_name for each in machines] + [each.name for each in rig.groups] + rig.keys
    assert outcome.problem["hint"] or not left, where
    assert all(name in told and name in kept for name in left), where
    if machines:
        assert "billed" in told and "ec2 terminate" in told, where


def end_all(rig: AwsRig, seed: int) -> None:
    """Once amid the faults, whatever comes of it; then with an AWS that is well again."""
    amid = rig.run("ec2", "terminate", "--all-mine", "--yes", "--json")
    assert amid.code in EXIT_CODES, f"seed {seed}: {amid.err}"
    assert amid.code == 0 or amid.problem["hint"], f"seed {seed}: {amid.err}"
    rig.calm()
    rig.clock = rig.cli.clock = PlaneClock(rig.clock.unix_s() + HIDDEN_S)
    ended = rig.run("ec2", "terminate", "--all-mine", "--yes", "--json")
    assert ended.code == 0, f"seed {seed}: {ended.err}"
    rig.assert_nothing_left()
    assert rig.state("ec2") is None
    if rig.state("pending-ec2") is not None:
        # Names in doubt are forgotten once a create must be over.
        rig.clock.advance(601)
        assert rig.run("ec2", "terminate", "--all-mine", "--yes", "--json").code == 0
        assert rig.state("pending-ec2") is None


def test_whatever_fails_at_aws_nothing_is_lost_sight_of(rig: AwsRig) -> None:
    codes: Counter[int] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        chance = prepare(rig, seed)
        spot = ["--spot"] if chance.random() < 0.15 else []
        outcome = rig.launch(*spot)
        codes[outcome.code] += 1
        judge(rig, seed, outcome)
        end_all(rig, seed)
    print(f"{SEEDS} seeds, exit codes: {dict(sorted(codes.items()))}")
    if SEEDS >= 30:
        assert {0, 9, 130} <= set(codes), f"the faults changed too little: {codes}"
