"""Random faults over an endpoint's life: nothing paid for is lost sight of, and every failure says what to do.

`make chaos` runs 2,000 seeds; the suite sixty. Each seed deploys, often deploys again with another image, scales, and
deletes, with faults of all kinds on all routes, lists that lag behind, workers that never come or fail, and now and
then a user who presses Ctrl-C.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builder_harness import Outcome
from tests.builder_pods import Bench, pod_bench
from tests.fakes.runpod.endpoints import FakeEndpoint, FakeTemplate
from tests.test_builder_chaos import EXIT_CODES, HIDDEN_S, ImpatientClock

SEEDS = int(os.environ.get("CHAOS_SEEDS", "60"))
FIRST_SEED = int(os.environ.get("CHAOS_FIRST_SEED", "0"))
IMAGES = ("you/whisper:abc1234", "you/whisper:def5678", "you/missing:abc1234")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pod_bench(tmp_path_factory.mktemp("chaos")) as made:
        made.plane.log_hold_s = 0.0
        yield made


class Killer:
    """Ends a deploy as kill -9 does, at its n-th wait: after that nothing reaches RunPod or the disk any more."""

    def __init__(self, bench: Bench, waits: int) -> None:
        self._bench, self._left = bench, waits
        self._files: dict[Path, bytes] | None = None

    @property
    def has_struck(self) -> bool:
        return self._files is not None

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            artifacts = self._bench.cli.folder / "artifacts"
            self._files = {path: path.read_bytes() for path in artifacts.glob("*.json")}
            self._bench.plane.faults.drop_before("*", times=100_000)
            raise KeyboardInterrupt

    def bury(self, chance: random.Random, rate: float) -> None:
        """What its cleaning up wrote is undone, and RunPod is as it was."""
        if self._files is not None:
            shutil.rmtree(self._bench.cli.folder / "artifacts", ignore_errors=True)
            for path, data in self._files.items():
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
            self._bench.plane.faults.calm()
            self._bench.plane.faults.seed(chance, rate)


class MortalClock(ImpatientClock):
    """Asks `killer` before each wait, if there is one."""

    killer: Killer | None = None

    def sleep(self, seconds: float) -> None:
        if self.killer is not None:
            self.killer()
        super().sleep(seconds)


def prepare(bench: Bench, seed: int) -> tuple[random.Random, float]:
    """A fresh plane with this seed's troubles, and the share of requests that meet one."""
    chance = random.Random(seed)
    rate = chance.choice((0.05, 0.15, 0.3, 0.5))
    clock = MortalClock(chance.randrange(40) if chance.random() < 0.25 else None)
    bench.plane.reset(seed, clock=clock)
    bench.cli.clock = clock
    shutil.rmtree(bench.cli.folder / "artifacts", ignore_errors=True)
    bench.plane.faults.seed(chance, rate)
    bench.plane.endpoints.fail_boots("missing")
    if chance.random() < 0.3:
        bench.plane.faults.hide_new_pods(chance.uniform(1, HIDDEN_S))
    if chance.random() < 0.2:
        bench.plane.endpoints.throttle(3)
    return chance, rate


def deploy(bench: Bench, chance: random.Random, rate: float) -> Outcome | None:
    """None if it was killed."""
    clock = bench.cli.clock
    assert isinstance(clock, MortalClock)
    clock.killer = killer = Killer(bench, chance.randrange(1, 20)) if chance.random() < 0.15 else None
    outcome = send_deploy(bench, chance)
    clock.killer = None
    if killer is None or not killer.has_struck:
        return outcome
    killer.bury(chance, rate)
    return None


def send_deploy(bench: Bench, chance: random.Random) -> Outcome:
    image = chance.choices(IMAGES, (6, 3, 2))[0]
    kind = "lb" if chance.random() < 0.15 else "endpoint"
    wait = ["--no-wait"] if kind == "lb" or chance.random() < 0.2 else ["--timeout", "120"]
    return bench.cli.run("deploy", kind, "--yes", "--json", "--image", image, "--workers-max", "2", *wait)


def written_down(bench: Bench) -> str:
    """What the next command knows, whatever became of this one's output."""
    folder = bench.cli.folder / "artifacts"
    paths = [folder / f"{name}.json" for name in ("endpoint", "pending-endpoints", "pending-templates")]
    return "".join(path.read_text() for path in paths if path.exists())


def pending(bench: Bench) -> set[str]:
    """Names of what a deploy left in doubt."""
    files = [bench.cli.folder / "artifacts" / f"pending-{kind}.json" for kind in ("endpoints", "templates")]
    return {name for path in files if path.exists() for name in json.loads(path.read_text())}


def judge(bench: Bench, seed: int, outcome: Outcome | None) -> None:
    """A deploy that is over: what is there is what it said, and a failure says what to do."""
    where = f"seed {seed}, killed" if outcome is None else f"seed {seed}, exit {outcome.code}: {outcome.err[-2000:]}"
    endpoints, templates = bench.plane.endpoints.alive(), list(bench.plane.endpoints.templates.values())
    known = written_down(bench)
    made: list[FakeEndpoint | FakeTemplate] = [*endpoints, *templates]
    lost = [each for each in made if each.id not in known and each.name not in known]
    assert not lost, f"{where}\nlost: {lost}"
    if outcome is None:
        return
    assert outcome.code in EXIT_CODES, where
    assert "Traceback" not in outcome.err, where
    if outcome.code == 0:
        # Beside it there is only what an earlier deploy failed to end, and said so.
        earlier = pending(bench) - {outcome.document["endpoint"]["name"]}
        assert len([each for each in endpoints if each.name not in earlier]) == 1, where
        assert len([each for each in templates if each.name not in earlier]) <= 1, where
    else:
        assert outcome.problem["hint"] or not endpoints, where


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
        chance, rate = prepare(bench, seed)
        for _ in range(chance.randint(1, 2)):
            outcome = deploy(bench, chance, rate)
            codes[-9 if outcome is None else outcome.code] += 1
            judge(bench, seed, outcome)
        scale(bench, seed, chance)
        end_all(bench, seed)
    print(f"{SEEDS} seeds, exit codes: {dict(sorted(codes.items()))}")
    assert {0, 1} <= set(codes), f"the faults changed too little: {codes}"
