"""engine/restarts.py: three restarts in five minutes, and not one more."""

from __future__ import annotations

from engine.restarts import MAX_RESTARTS, RESTART_WINDOW_S, RestartPolicy


def test_the_limit_and_one_past_it() -> None:
    policy = RestartPolicy()
    assert [policy.grant(second) for second in range(MAX_RESTARTS + 1)] == [True] * MAX_RESTARTS + [False]


def test_old_restarts_are_forgotten_when_the_window_is_over() -> None:
    policy = RestartPolicy()
    for second in (0.0, 100.0, 200.0):
        assert policy.grant(second)
    assert not policy.grant(RESTART_WINDOW_S - 0.001)
    assert policy.grant(RESTART_WINDOW_S)
    assert not policy.grant(RESTART_WINDOW_S + 99)
    assert policy.grant(RESTART_WINDOW_S + 100)


def test_restarts_far_apart_are_always_granted() -> None:
    policy = RestartPolicy()
    assert all(policy.grant(hour * 3_600.0) for hour in range(100))


def test_a_policy_of_none_grants_none() -> None:
    policy = RestartPolicy(max_restarts=0)
    assert not policy.grant(0.0)
    assert not policy.grant(10_000.0)
