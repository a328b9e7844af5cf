"""Looks at every pod and at EC2, decides by `builder.money.guard_rules`, and ends what has run long enough, if told to.

What was seen is kept in `artifacts/guard.json`, so that a run every few minutes knows since when a pod idles. A guard
that sees nothing must not look like one that has nothing to do: what cannot be read raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from builder.errors import (
    BadAnswerError,
    BuilderError,
    NetworkError,
    NotFoundError,
    RateLimitedError,
    ServerFaultError,
)
from builder.money.guard_ec2 import Overdue, end_overdue
from builder.money.guard_rules import Decision, Limits, Since, decide, remember, unjudged
from builder.money.guard_view import observe
from builder.money.orphans import ODD
from builder.state import iso_time

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["Ending", "Outcome", "Round", "guard_forever", "guard_once", "show_round"]

Ending = Literal["none", "stop", "terminate"]
"""What happens to pods that are to be ended: nothing (a dry run), a stop, or the end for good."""
BACKOFF_MIN_S = 30.0
Done = Literal["stopped", "terminated"]
_DONE: dict[Ending, Done] = {"stop": "stopped", "terminate": "terminated"}
FAULTS_THAT_PASS = (NetworkError, RateLimitedError, ServerFaultError, BadAnswerError)


@dataclass(frozen=True)
class Outcome:
    """A decision, and what came of it: `done` None if nothing was tried, `problem` why it failed."""

    decision: Decision
    done: Done | None = None
    problem: str | None = None

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {**self.decision.document(), "done": self.done, "problem": self.problem}


@dataclass(frozen=True)
class Round:
    """One look at all pods."""

    at_s: float
    ending: Ending
    outcomes: tuple[Outcome, ...]
    machines: tuple[Overdue, ...] = ()

    @property
    def n_due(self) -> int:
        """Pods and EC2 machines that are to be ended, and are not ended yet."""
        pods = sum(each.decision.verdict == "kill" and each.done is None for each in self.outcomes)
        return pods + sum(not each.is_ended and each.problem is None for each in self.machines)

    @property
    def problems(self) -> list[str]:
        """What could not be judged or ended, and why."""
        pods = [f"{each.decision.pod_id}: {each.problem}" for each in self.outcomes if each.problem]
        return pods + [each.text for each in self.machines if each.problem]

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "at": iso_time(self.at_s),
            "dry_run": self.ending == "none",
            "due": self.n_due,
            "pods": [each.document() for each in self.outcomes],
            "ec2": [each.document() for each in self.machines],
        }


def guard_once(run: Runtime, limits: Limits, ending: Ending) -> Round:
    """Look once and act. A pod that was ended is not running any more, and so never ended twice.

    Raises BuilderError if the pods cannot be listed, after EC2 machines were looked at all the same; a pod that cannot
    be judged or ended is in the Round's `problems`, and keeps no other from its end.
    """
    try:
        observations, odd = observe(run, limits)
    except BuilderError:
        for machine in end_overdue(run, ends=ending != "none"):
            run.console.warn(machine.text)
        raise
    now_s = run.clock.unix_s()
    since = remember(_read_memory(run), observations, now_s)
    outcomes = [Outcome(decision, problem=decision.reason) for decision in odd]
    for pod in observations:
        try:
            decision = decide(pod, since[pod.pod_id], limits, now_s)
        except ODD as error:
            decision = unjudged(pod.pod_id, pod.name, pod.cost_per_hour, error)
            outcomes.append(Outcome(decision, problem=decision.reason))
            continue
        is_due = decision.verdict == "kill" and ending != "none"
        outcomes.append(_end(run, decision, ending) if is_due else Outcome(decision))
    _write_memory(run, since, ending, now_s)
    return Round(now_s, ending, tuple(outcomes), end_overdue(run, ends=ending != "none"))


def guard_forever(run: Runtime, limits: Limits, ending: Ending, every_s: float) -> None:
    """Look every `every_s` seconds and show each round, until interrupted; faults that pass are waited out.

    Raises BuilderError for what does not pass, such as a key that is refused.
    """
    n_faults = 0
    while True:
        try:
            show_round(run, guard_once(run, limits, ending))
            n_faults, wait_s = 0, every_s
        except FAULTS_THAT_PASS as error:
            wait_s = min(BACKOFF_MIN_S * 2**n_faults, every_s)
            n_faults += 1
            run.console.warn(f"the pods cannot be seen ({error}); nothing is guarded now, again in {wait_s:.0f} s")
        run.clock.sleep(wait_s)


def show_round(run: Runtime, seen: Round) -> None:
    """Print a round."""
    run.console.result(seen.document(), lambda: _show(run, seen))


def _show(run: Runtime, seen: Round) -> None:
    rows = [
        (o.decision.pod_id, o.decision.name, o.decision.cost_per_hour, _what(o), o.decision.rule, o.decision.reason)
        for o in seen.outcomes
    ]
    if rows:
        run.console.table(("pod", "name", "$/h>", "guard", "rule", "why"), rows)
    else:
        run.console.line("No pods.")
    for machine in seen.machines:
        run.console.line(machine.text)
    if seen.n_due and seen.ending == "none":
        verb = "is" if seen.n_due == 1 else "are"
        run.console.line(f"{seen.n_due} {verb} due and left running: this was a dry run. To end: add --kill")


def _what(outcome: Outcome) -> str:
    if outcome.problem:
        return "failed"
    if outcome.done:
        return outcome.done
    return {"kill": "due", "warn": "warning", "keep": "keeps"}[outcome.decision.verdict]


def _read_memory(run: Runtime) -> dict[str, Since]:
    document = run.state.read("guard") or {}
    pods = document.get("pods")
    found = {str(i): Since.of(each) for i, each in pods.items()} if isinstance(pods, Mapping) else {}
    return {i: since for i, since in found.items() if since is not None}


def _write_memory(run: Runtime, since: Mapping[str, Since], ending: Ending, now_s: float) -> None:
    """After the acting, and never instead of it: a full disk must not keep a pod alive."""
    pods = {pod_id: each.document() for pod_id, each in since.items()}
    try:
        run.state.write("guard", {"last_run": iso_time(now_s), "ending": ending, "pods": pods})
    except BuilderError as error:
        run.console.warn(f"{error}: since when pods idle is not remembered")


def _end(run: Runtime, decision: Decision, ending: Ending) -> Outcome:
    """End a pod, see that it has ended, and write down why."""
    from builder.deploy.create import delete_surely
    from builder.pods.operate import stop_pod
    from builder.pods.pods import forget

    pod_id, done = decision.pod_id, _DONE[ending]
    try:
        if ending == "terminate":
            delete_surely(run, pod_id)
            forget(run, pod_id)
        else:
            stop_pod(run, pod_id)
    except NotFoundError:
        done = "terminated"
    except ODD as error:
        return Outcome(decision, problem=str(error))
    run.state.event(run.clock.unix_s(), "guarded", "pod", pod_id, done=done, rule=decision.rule, reason=decision.reason)
    return Outcome(decision, done=done)
