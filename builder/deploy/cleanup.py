"""What a deploy that failed leaves behind: nothing, or a message that names it, its price and the command to end it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.deploy.create import DOUBTFUL, delete_surely, sweep
from builder.errors import BuilderError, ConflictError, InterruptError

if TYPE_CHECKING:
    from builder.api.models import Pod, PodSpec
    from builder.runtime import Runtime

__all__ = ["Attempt", "clean_up", "end_command", "end_doubles"]


@dataclass
class Attempt:
    """One deploy's traces. `previous` is pod.json as it was before."""

    name: str
    builder_id: str
    previous: Mapping[str, Any] | None
    pod: Pod | None = None
    has_sent: bool = False
    is_doubtful: bool = False
    has_recorded: bool = False

    def watching(self, send: Callable[[PodSpec], Pod]) -> Callable[[PodSpec], Pod]:
        """`send`, noticing that something was sent and whether it is known what came of it."""

        def watched(spec: PodSpec) -> Pod:
            self.has_sent = True
            try:
                return send(spec)
            except DOUBTFUL:
                self.is_doubtful = True
                raise

        return watched


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
    if isinstance(error, BuilderError):
        return type(error)(
            f"{error}; {fate}", hint=hint or error.hint, status=error.status, request_id=error.request_id
        )
    if is_interrupt:
        return InterruptError(f"interrupted; {fate}", hint=hint)
    run.console.warn(f"{fate}. {hint}".strip())
    return None


def end_doubles(run: Runtime, attempt: Attempt, *, is_patient: bool) -> BuilderError | None:
    """End what a create in doubt made beside the pod that is kept; the error to end with if that cannot be done."""
    if not attempt.is_doubtful or attempt.pod is None:
        return None
    try:
        swept = sweep(run, attempt.name, attempt.builder_id, keep=attempt.pod.id, is_patient=is_patient)
    except BuilderError as error:
        _remember(run, attempt)
        message = f"pod {attempt.pod.id} is fine, but whether {attempt.name} exists twice is not known: {error}"
        return type(error)(message, hint="look for it: python -m builder check-all")
    if not swept.left:
        return None
    _remember(run, attempt)
    commands = "; ".join(end_command(each) for each in swept.left)
    return ConflictError(
        f"pod {attempt.pod.id} is fine, but a double, {', '.join(swept.left)}, could not be ended and is billed: "
        + "; ".join(swept.left.values()),
        hint=f"end it: {commands}",
    )


def _as_ours(error: BaseException) -> BuilderError | None:
    return error if isinstance(error, BuilderError) else None


def _kept(attempt: Attempt) -> tuple[str, str]:
    if attempt.pod is None:
        return f"a pod named {attempt.name} may exist (--keep)", "look for it: python -m builder check-all"
    pod = attempt.pod
    return f"pod {pod.id} is kept (--keep) at ${pod.cost:.2f}/h", f"end it: {end_command(pod.id)}"


def _end_all(run: Runtime, attempt: Attempt, *, is_patient: bool) -> tuple[str, str]:
    """What became of the pods, and what the user has to do."""
    pod, ended = attempt.pod, []
    try:
        if pod is not None:
            # By its id: a list may not show it yet.
            delete_surely(run, pod.id)
            ended.append(pod.id)
        swept = sweep(run, attempt.name, attempt.builder_id, is_patient=is_patient)
        ended += [each for each in swept.ended if each not in ended]
        left = dict(swept.left)
        problem = "; ".join(left.values())
    except KeyboardInterrupt:
        left, problem = _unknown(pod, ended), "interrupted again"
    except BuilderError as failure:
        left, problem = _unknown(pod, ended), str(failure)
    if left or problem:
        return _left(run, attempt, left, problem)
    with suppress(BuilderError):
        # A disk that is full must not hide what became of the pods.
        run.state.end_pending(attempt.name)
        _restore(run, attempt)
    return (f"ended {', '.join(ended)}, nothing is left" if ended else "no pod was made, nothing is left"), ""


def _unknown(pod: Pod | None, ended: list[str]) -> dict[str, str]:
    return {} if pod is None or pod.id in ended else {pod.id: ""}


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
    """pod.json as it was before this deploy wrote it."""
    if not attempt.has_recorded:
        return
    if attempt.previous is None:
        run.state.remove("pod")
    else:
        run.state.write("pod", attempt.previous)
