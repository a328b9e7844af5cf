"""Random faults over an endpoint's life: nothing paid for is lost sight of, and every failure says what to do.

`make chaos` runs 2,000 seeds; the suite sixty. Each seed deploys, often deploys again with another image, scales, and
deletes, with faults of all kinds on all routes, lists that lag behind, workers that never come or fail, and now and
then a user who presses Ctrl-C.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.builder_harness import Outcome
from tests.builder_pods import Bench, pod_bench
from tests.test_builder_chaos import EXIT_CODES, HIDDEN_S, ImpatientClock

SEEDS = int(os.environ.get("CHAOS_SEEDS", "60"))
FIRST_SEED = int(os.environ.get("CHAOS_FIRST_SEED", "0"))
IMAGES = ("you/whisper:abc1234", "you/whisper:def5678", "you/missing:abc1234")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pod_bench(tmp_path_factory.mktemp("chaos")) as made:
        made.plane.log_hold_s = 0.0
        yield made


def prepare(bench: Bench, seed: int) -> random.Random:
    """A fresh plane with this seed's troubles."""
    chance = random.Random(seed)
    clock = ImpatientClock(chance.randrange(40) if chance.random() < 0.25 else None)
    bench.plane.reset(seed, clock=clock)
    bench.cli.clock = clock
    shutil.rmtree(bench.cli.folder / "artifacts", ignore_errors=True)
    bench.plane.faults.seed(chance, chance.choice((0.05, 0.15, 0.3, 0.5)))
    bench.plane.endpoints.fail_boots("missing")
    if chance.random() < 0.3:
        bench.plane.faults.hide_new_pods(chance.uniform(1, HIDDEN_S))
    if chance.random() < 0.2:
        bench.plane.endpoints.throttle(3)
    return chance


def deploy(bench: Bench, chance: random.Random) -> Outcome:
    image = chance.choices(IMAGES, (6, 3, 2))[0]
    kind = "lb" if chance.random() < 0.15 else "endpoint"
    wait = ["--no-wait"] if kind == "lb" or chance.random() < 0.2 else ["--timeout", "120"]
    return bench.cli.run("deploy", kind, "--yes", "--json", "--image", image, "--workers-max", "2", *wait)


def known_to_the_user(bench: Bench, outcome: Outcome) -> str:
    """Where a user finds what there may be."""
    kept = [outcome.out, outcome.err]
    for name in ("endpoint", "pending-endpoints", "pending-templates"):
        path = bench.cli.folder / "artifacts" / f"{name}.json"
        kept.append(path.read_text() if path.exists() else "")
    return "".join(kept)


def judge(bench: Bench, seed: int, outcome: Outcome) -> None:
    """A deploy that is over: what is there is what it said, and a failure says what to do."""
    where = f"seed {seed}, exit {outcome.code}: {outcome.err[-2000:]}"
    assert outcome.code in EXIT_CODES, where
    assert "Traceback" not in outcome.err, where
    endpoints, templates = bench.plane.endpoints.alive(), list(bench.plane.endpoints.templates.values())
    if outcome.code == 0:
        assert len(endpoints) == 1, where
        assert len(templates) <= 1, where
    else:
        assert outcome.problem["hint"] or not endpoints, where
    known = known_to_the_user(bench, outcome)
    lost = [each for each in (*endpoints, *templates) if each.id not in known and each.name not in known]
    assert not lost, f"{where}\nlost: {lost}"


def scale(bench: Bench, seed: int, chance: random.Random) -> None:
    if chance.random() < 0.5:
        scaled = bench.cli.run("endpoint", "scale", "--min", "1", "--max", "2", "--yes", "--json")
        assert scaled.code in EXIT_CODES, f"seed {seed}: {scaled.err}"


def end_all(bench: Bench, seed: int) -> None:
    """Once amid the faults, whatever comes of it; then with an API that is well again."""
    amid = bench.cli.run("endpoint", "delete", "--all-mine", "--yes", "--json")
    assert amid.code in EXIT_CODES, f"seed {seed}: {amid.err}"
    assert amid.code == 0 or amid.problem["hint"], f"seed {seed}: {amid.err}"
    bench.plane.faults.calm()
    bench.clock.advance(HIDDEN_S)
    ended = bench.cli.run("endpoint", "delete", "--all-mine", "--yes", "--json")
    assert ended.code == 0, f"seed {seed}: {ended.err}"
    bench.plane.assert_no_leaks()


def test_whatever_fails_nothing_of_an_endpoint_is_lost_sight_of(bench: Bench) -> None:
    codes: Counter[int] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        chance = prepare(bench, seed)
        for _ in range(chance.randint(1, 2)):
            outcome = deploy(bench, chance)
            codes[outcome.code] += 1
            judge(bench, seed, outcome)
        scale(bench, seed, chance)
        end_all(bench, seed)
    print(f"{SEEDS} seeds, exit codes: {dict(sorted(codes.items()))}")
    assert {0, 1} <= set(codes), f"the faults changed too little: {codes}"
