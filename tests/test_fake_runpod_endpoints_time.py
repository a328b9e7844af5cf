"""The fake's workers do the same whether somebody watches them every second or looks once at the end."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from tests.fakes.runpod.clock import PlaneClock
from tests.fakes.runpod.endpoints import EndpointStore, FakeEndpoint
from tests.fakes.runpod.pods import PodStore

SEEDS = range(25)


def created(store: EndpointStore, chance: random.Random) -> FakeEndpoint:
    at_least = chance.choice((0, 0, 1, 2))
    scaling: dict[str, Any] = {"type": "QUEUE_DELAY", "queueDelay": chance.choice((0.5, 4, 30))}
    if chance.random() < 0.3:
        scaling = {"type": "REQUEST_COUNT", "requestCount": chance.choice((1, 3))}
    body = {
        "name": "e",
        "type": "QUEUE",
        "image": "you/a:1",
        "gpu": {"pools": ["AMPERE_24"]},
        "scaling": scaling,
        "workers": {"min": at_least, "max": at_least + chance.choice((0, 1, 3))},
        "timeout": chance.choice((300_000, 15_000)),
    }
    return store.create(body)


def disturb(store: EndpointStore, endpoint: FakeEndpoint, chance: random.Random) -> None:
    """One thing that a user or the world does."""
    kind = chance.choice(("run", "run", "run", "image", "limits", "kill", "throttle", "free", "fail", "heal", "cancel"))
    queue = store.queue(endpoint.id)
    assert queue is not None
    if kind == "run":
        with queue.lock:
            queue.store.submit({"input": {}})
    elif kind == "image":
        store.update(endpoint.id, {"image": f"you/{chance.choice('abc')}:1"})
    elif kind == "limits":
        at_least = chance.choice((0, 1, 2))
        store.update(endpoint.id, {"workers": {"min": at_least, "max": at_least + chance.choice((0, 2))}})
    elif kind == "kill" and endpoint.workers:
        store.kill_worker(endpoint.id, chance.choice(endpoint.workers).id)
    elif kind in ("throttle", "free"):
        store.throttle(1 if kind == "throttle" else 0)
    elif kind == "fail":
        store.fail_boots("/c:")
    elif kind == "heal":
        store.heal_boots()
    elif kind == "cancel":
        with queue.lock:
            queue.store.purge()


def story(seed: int, step_s: float | None) -> list[Any]:
    """What came of it; the clock goes in steps, or in leaps from one disturbance to the next."""
    chance = random.Random(seed)
    pods = PodStore(PlaneClock(), seed=seed)
    store = EndpointStore(pods)
    store.job_s = chance.choice((1.0, 10.0, 45.0))
    endpoint = created(store, chance)
    ledger: list[Any] = []
    for _ in range(25):
        disturb(store, endpoint, chance)
        left_s = chance.choice((0.0, 1.0, 7.0, 60.0, 300.0))
        while step_s is not None and left_s > step_s:
            pods.clock.sleep(step_s)
            left_s -= step_s
            store.alive()
        pods.clock.sleep(left_s)
        states = [(each.id, each.status, each.version, each.is_draining) for each in store.get(endpoint.id).workers]
        draining = sum(each.is_draining or each.replaces is not None for each in endpoint.workers)
        assert len(states) - draining <= endpoint.workers_max
        if not pods.is_broke:
            assert len(states) >= endpoint.workers_min
        ledger.append((states, round(100 - pods.balance, 6)))
    store.throttle(0)
    store.heal_boots()
    store.update(endpoint.id, {"image": "you/a:2", "workers": {"min": 0, "max": 2}})
    pods.clock.sleep(5000)
    queue = store.queue(endpoint.id)
    assert queue is not None
    left = [job.id for job in queue.store.jobs.values() if not job.is_over]
    assert not left and not store.get(endpoint.id).workers
    store.delete(endpoint.id)
    assert pods.spend_per_h == 0
    return ledger


@pytest.mark.parametrize("seed", SEEDS)
def test_looking_changes_nothing(seed: int) -> None:
    assert story(seed, None) == story(seed, 1.0)


def test_many_threads_may_look_and_act() -> None:
    pods = PodStore(PlaneClock())
    store = EndpointStore(pods)
    endpoint = created(store, random.Random(1))
    store.update(endpoint.id, {"workers": {"min": 1, "max": 4}})
    failures: list[BaseException] = []

    def act(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(40):
                queue = store.queue(endpoint.id)
                assert queue is not None
                with queue.lock:
                    queue.store.submit({"input": {}})
                pods.clock.sleep(chance.random() * 5)
                store.worker_counts(endpoint.id)
                assert pods.balance < 1000
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=act, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures and not any(thread.is_alive() for thread in threads)
    pods.clock.sleep(1000)
    queue = store.queue(endpoint.id)
    assert queue is not None
    assert {job.status for job in queue.store.jobs.values()} == {"COMPLETED"}
