"""Random faults over deploy and terminate: nothing paid for is lost sight of, and every failure says what to do.

`make chaos` runs 2,000 seeds; the suite a hundred. Each seed gives faults of all kinds on all routes, pods that fail
to start, lists that show new pods late, GPUs out of stock, and now and then a user who presses Ctrl-C.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator

import pytest

from builder import errors
from builder.errors import BuilderError
from tests.builder_harness import Outcome
from tests.builder_pods import TOKEN, Bench, pod_bench
from tests.fakes.runpod.clock import PlaneClock

SEEDS = int(os.environ.get("CHAOS_SEEDS", "100"))
FIRST_SEED = int(os.environ.get("CHAOS_FIRST_SEED", "0"))
EXIT_CODES = {0} | {
    each.exit_code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, BuilderError)
}
HIDDEN_S = 15.0
"""Longer than the builder looks for a pod whose creation was not answered."""
GPUS = ("NVIDIA GeForce RTX 4090", "NVIDIA L4", "NVIDIA RTX A5000")


class ImpatientClock(PlaneClock):
    """A clock whose user presses Ctrl-C in the n-th wait; None: never."""

    def __init__(self, waits: int | None) -> None:
        super().__init__()
        self._waits_left = waits

    def sleep(self, seconds: float) -> None:
        if self._waits_left is not None:
            self._waits_left -= 1
            if self._waits_left < 0:
                self._waits_left = None
                raise KeyboardInterrupt
        super().sleep(seconds)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pod_bench(tmp_path_factory.mktemp("chaos")) as made:
        made.plane.log_hold_s = 0.0
        yield made


def prepare(bench: Bench, seed: int) -> random.Random:
    """A fresh plane with this seed's troubles."""
    chance = random.Random(seed)
    clock = ImpatientClock(chance.randrange(30) if chance.random() < 0.25 else None)
    bench.plane.reset(seed, clock=clock)
    bench.cli.clock = clock
    shutil.rmtree(bench.cli.folder / "artifacts", ignore_errors=True)
    bench.plane.faults.seed(chance, chance.choice((0.05, 0.15, 0.3, 0.5)))
    if chance.random() < 0.3:
        bench.plane.faults.hide_new_pods(chance.uniform(1, HIDDEN_S))
    for gpu in GPUS:
        if chance.random() < 0.3:
            bench.plane.pods.set_stock(gpu, "NONE")
    return chance


def deploy(bench: Bench, chance: random.Random) -> Outcome:
    image = "you/missing:abc1234" if chance.random() < 0.15 else "you/whisper:abc1234"
    spot = ["--spot"] if chance.random() < 0.15 else []
    gpus = ",".join(chance.sample(GPUS, chance.randint(1, 3)))
    return bench.cli.run(
        "deploy", "--yes", "--json", "--image", image, "--gpu", gpus, "--timeout", "120", "--max-minutes", "60", *spot
    )


def known_to_the_user(bench: Bench, outcome: Outcome) -> str:
    """Where a user finds what may still run."""
    recorded = bench.recorded or {}
    pending = bench.cli.folder / "artifacts" / "pending.json"
    return outcome.err + str(recorded.get("pod_id")) + (pending.read_text() if pending.exists() else "")


def judge(bench: Bench, seed: int, outcome: Outcome) -> None:
    """A deploy that is over: what runs is what it said, and a failure says what to do."""
    where = f"seed {seed}, exit {outcome.code}: {outcome.err[-2000:]}"
    assert outcome.code in EXIT_CODES, where
    assert "Traceback" not in outcome.err, where
    alive = bench.plane.pods.alive()
    if outcome.code == 0:
        assert [pod.id for pod in alive] == [outcome.document["pod"]["pod_id"]], where
        return
    assert outcome.problem["hint"] or not alive, where
    known = known_to_the_user(bench, outcome)
    assert all(pod.id in known or pod.name in known for pod in alive), where


def end_all(bench: Bench, seed: int) -> None:
    """Once amid the faults, whatever comes of it; then with an API that is well again."""
    amid = bench.cli.run("terminate", "--all-mine", "--yes", "--json")
    assert amid.code in EXIT_CODES, f"seed {seed}: {amid.err}"
    assert amid.code == 0 or amid.problem["hint"], f"seed {seed}: {amid.err}"
    bench.plane.faults.calm()
    bench.clock.advance(HIDDEN_S)
    ended = bench.cli.run("terminate", "--all-mine", "--yes", "--json")
    assert ended.code == 0, f"seed {seed}: {ended.err}"
    bench.plane.assert_no_leaks()
    bench.plane.assert_no_secret(TOKEN)


def test_whatever_fails_nothing_paid_for_is_lost_sight_of(bench: Bench) -> None:
    codes: Counter[int] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        outcome = deploy(bench, prepare(bench, seed))
        codes[outcome.code] += 1
        judge(bench, seed, outcome)
        end_all(bench, seed)
    print(f"{SEEDS} seeds, exit codes: {dict(sorted(codes.items()))}")
    assert {0, 1, 5, 130} <= set(codes), f"the faults changed too little: {codes}"
