"""What a deploy that failed leaves behind: nothing, or a message that names it, its price and the command to end it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.deploy.create import DOUBTFUL, LOOKS_S, delete_surely, find_pod, sweep
from builder.errors import BuilderError, ConflictError, InterruptError

if TYPE_CHECKING:
    from builder.api.models import Pod, PodSpec
    from builder.runtime import Runtime

__all__ = ["Attempt", "clean_up", "end_command", "end_doubles", "with_fate"]


YOUNG_S = 60.0
"""A pod that was made so short a time ago may not show yet: what does not find it has not ended it."""


@dataclass
class Attempt:
    """One deploy's traces. `previous` is pod.json as it was before; `n_unknown` requests may each have made a pod that
    was not seen yet."""

    name: str
    builder_id: str
    previous: Mapping[str, Any] | None
    pod: Pod | None = None
    has_sent: bool = False
    n_unknown: int = 0
    has_recorded: bool = False

    @property
    def is_doubtful(self) -> bool:
        """True if there may be a pod that nobody has seen."""
        return self.n_unknown > 0

    def watching(self, send: Callable[[PodSpec], Pod]) -> Callable[[PodSpec], Pod]:
        """`send`, noticing that something was sent and whether it is known what came of it."""

        def watched(spec: PodSpec) -> Pod:
            self.has_sent = True
            # Until an answer says what came of it: an interrupt leaves it so.
            self.n_unknown += 1
            try:
                self.pod = send(spec)
            except BuilderError as error:
                if not isinstance(error, DOUBTFUL):
                    self.n_unknown -= 1
                raise
            self.n_unknown -= 1
            return self.pod

        return watched

    def keep(self, pod: Pod) -> Pod:
        """The deploy's pod; one that was found, and not answered, is what became of a request in doubt."""
        if self.pod is None or self.pod.id != pod.id:
            self.n_unknown -= 1
        self.pod = pod
        return pod


def end_command(pod_id: str) -> str:
    """What ends a pod."""
    return f"python -m builder terminate {pod_id} --yes"


def clean_up(run: Runtime, attempt: Attempt, error: BaseException, *, keep: bool) -> BuilderError | None:
    """End what `attempt` made, and give the error to raise; None: raise the one there is (it is no BuilderError)."""
    is_interrupt = isinstance(error, KeyboardInterrupt)
    if not attempt.has_sent:
        return InterruptError("interrupted before anything was created") if is_interrupt else _as_ours(error)
    if keep:
        fate, hint = _kept(attempt)
    else:
        fate, hint = _end_all(run, attempt, is_patient=attempt.is_doubtful or is_interrupt)
    return with_fate(run, error, fate, hint)


def with_fate(run: Runtime, error: BaseException, fate: str, hint: str) -> BuilderError | None:
    """The error to raise once it is known what became of what was made; None: raise `error` itself, after a warning."""
    if isinstance(error, BuilderError):
        return type(error)(
            f"{error}; {fate}", hint=hint or error.hint, status=error.status, request_id=error.request_id
        )
    if isinstance(error, KeyboardInterrupt):
        return InterruptError(f"interrupted; {fate}", hint=hint)
    run.console.warn(f"{fate}. {hint}".strip())
    return None


def end_doubles(run: Runtime, attempt: Attempt) -> BuilderError | None:
    """End what a create in doubt made beside the pod that is kept; the error to end with if that cannot be done.

    What may show even later is warned of, and its name stays in pending.json.
    """
    if not attempt.is_doubtful or attempt.pod is None:
        return None
    try:
        swept = sweep(run, attempt.name, attempt.builder_id, keep=attempt.pod.id, is_patient=True)
    except BuilderError as error:
        _remember(run, attempt)
        message = f"pod {attempt.pod.id} is fine, but whether {attempt.name} exists twice is not known: {error}"
        return type(error)(message, hint="look for it: python -m builder check-all")
    attempt.n_unknown -= len(swept.ended)
    if not swept.left:
        _settle_double(run, attempt)
        return None
    _remember(run, attempt)
    commands = "; ".join(end_command(each) for each in swept.left)
    return ConflictError(
        f"pod {attempt.pod.id} is fine, but a double, {', '.join(swept.left)}, could not be ended and is billed: "
        + "; ".join(swept.left.values()),
        hint=f"end it: {commands}",
    )


def _settle_double(run: Runtime, attempt: Attempt) -> None:
    if attempt.is_doubtful:
        run.console.warn(
            f"whether {attempt.name} exists twice is not certain: a double may show late, and is billed. "
            "Look again in a minute: python -m builder check-all"
        )
        return
    # The name may stay if it must: it only makes the next deploy look.
    with suppress(BuilderError):
        run.state.end_pending(attempt.name)


def _as_ours(error: BaseException) -> BuilderError | None:
    return error if isinstance(error, BuilderError) else None


def _kept(attempt: Attempt) -> tuple[str, str]:
    if attempt.pod is None:
        return f"a pod named {attempt.name} may exist (--keep)", "look for it: python -m builder check-all"
    pod = attempt.pod
    return f"pod {pod.id} is kept (--keep) at ${pod.cost:.2f}/h", f"end it: {end_command(pod.id)}"


def _end_all(run: Runtime, attempt: Attempt, *, is_patient: bool) -> tuple[str, str]:
    """What became of the pods, and what the user has to do."""
    ended: dict[str, None] = {}
    left: dict[str, str] = {} if attempt.pod is None else {attempt.pod.id: ""}
    problem = ""
    try:
        _end_made(run, attempt, ended, left, is_patient=is_patient)
    except KeyboardInterrupt:
        problem = "interrupted again"
    except Exception as failure:
        # Whatever it is, it must not hide what may be left.
        problem = str(failure) or type(failure).__name__
    if left or problem:
        return _left(run, attempt, left, "; ".join(filter(None, (*left.values(), problem))))
    with suppress(BuilderError):
        # A disk that is full must not hide what became of the pods.
        _restore(run, attempt)
        if not attempt.is_doubtful:
            run.state.end_pending(attempt.name)
    fate = f"ended {', '.join(ended)}" if ended else "no pod was seen" if attempt.is_doubtful else "no pod was made"
    if not attempt.is_doubtful:
        return f"{fate}, nothing is left", ""
    _remember(run, attempt)
    return (
        f"{fate}, but a pod named {attempt.name} may show late, and is billed then",
        "look again in a minute: python -m builder check-all",
    )


def _end_made(
    run: Runtime, attempt: Attempt, ended: dict[str, None], left: dict[str, str], *, is_patient: bool
) -> None:
    """End what this deploy made, into `ended` and `left` (with the reason). Raises what listing raises."""
    pod = attempt.pod
    if pod is not None:
        # By its id: a list may not show it yet.
        try:
            if not _shows(run, pod):
                attempt.n_unknown += 1
            delete_surely(run, pod.id)
            ended[pod.id] = None
            left.pop(pod.id, None)
        except BuilderError as error:
            left[pod.id] = str(error)
    swept = sweep(run, attempt.name, attempt.builder_id, is_patient=is_patient)
    for each in swept.ended:
        if pod is None or each != pod.id:
            attempt.n_unknown -= 1
        ended[each] = None
        left.pop(each, None)
    left.update(swept.left)


def _shows(run: Runtime, pod: Pod) -> bool:
    """False if the pod is young and the API does not show it in ten seconds: then its end proves nothing."""
    if pod.created_at is not None and run.clock.unix_s() - pod.created_at.timestamp() > YOUNG_S:
        return True
    for pause_s in (0.0, *LOOKS_S):
        if pause_s:
            run.clock.sleep(pause_s)
        if find_pod(run, pod.id) is not None:
            return True
    return False


def _left(run: Runtime, attempt: Attempt, left: Mapping[str, str], problem: str) -> tuple[str, str]:
    _remember(run, attempt)
    if not left:
        return (
            f"it is not certain that no pod named {attempt.name} exists ({problem})",
            "look for it: python -m builder check-all",
        )
    cost = f" at ${attempt.pod.cost:.2f}/h" if attempt.pod is not None and attempt.pod.cost else ""
    ids = list(left)
    commands = "; ".join(end_command(each) for each in ids)
    return f"pod {', '.join(ids)} could not be ended and is billed{cost} ({problem})", f"end it: {commands}"


def _remember(run: Runtime, attempt: Attempt) -> None:
    """Again in pending.json: what may be left must not be forgotten."""
    with suppress(BuilderError):
        # The message names it all the same.
        run.state.begin_pending(attempt.name, run.clock.unix_s())


def _restore(run: Runtime, attempt: Attempt) -> None:
    """pod.json as it was before this deploy wrote it; what another deploy wrote since is left."""
    recorded = (run.state.read("pod") or {}).get("pod_id")
    if not attempt.has_recorded or attempt.pod is None or recorded != attempt.pod.id:
        return
    if attempt.previous is None:
        run.state.remove("pod")
    else:
        run.state.write("pod", attempt.previous)
