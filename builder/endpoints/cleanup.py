"""What a deploy of a new endpoint that failed leaves behind: nothing, or a message that names it and its price."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from builder.deploy.cleanup import with_fate
from builder.deploy.create import LOOKS_S
from builder.endpoints.create import Attempt, sweep
from builder.endpoints.ending import delete_surely, remove_template
from builder.endpoints.look import find_endpoint
from builder.errors import BuilderError, ConflictError, InterruptError

if TYPE_CHECKING:
    from builder.endpoints.create import Part
    from builder.runtime import Runtime

__all__ = ["clean_up", "end_command", "end_doubles", "settle"]

LOOK_AGAIN = "look again in a minute: python -m builder check-all"


def end_command(endpoint_id: str) -> str:
    """What ends an endpoint."""
    return f"python -m builder endpoint delete {endpoint_id} --yes"


def clean_up(run: Runtime, attempt: Attempt, error: BaseException, *, keep: bool) -> BuilderError | None:
    """End what `attempt` made, and give the error to raise; None: raise the one there is (it is no BuilderError)."""
    is_interrupt = isinstance(error, KeyboardInterrupt)
    if not attempt.has_sent:
        if is_interrupt:
            return InterruptError("interrupted before anything was created")
        return error if isinstance(error, BuilderError) else None
    if keep:
        fate, hint = _kept(attempt)
    else:
        fate, hint = _end_all(run, attempt, is_patient=attempt.is_doubtful or is_interrupt)
    return with_fate(run, error, fate, hint)


def end_doubles(run: Runtime, attempt: Attempt) -> BuilderError | None:
    """End what creates in doubt made beside the endpoint that is kept; the error to end with if that cannot be done.

    What may show even later is warned of, and its name stays pending.
    """
    endpoint = attempt.endpoint.made
    if endpoint is None or not attempt.is_doubtful:
        settle(run, attempt)
        return None
    try:
        swept = sweep(run, attempt, keeps_made=True, is_patient=True)
    except BuilderError as error:
        return type(error)(
            f"endpoint {endpoint.id} is fine, but whether {attempt.name} exists twice is not known: {error}",
            hint="look for it: python -m builder check-all",
        )
    if swept.left:
        return ConflictError(
            f"endpoint {endpoint.id} is fine, but a double, {', '.join(swept.left)}, could not be ended: "
            + "; ".join(swept.left.values()),
            hint="see what it costs and what ends it: python -m builder check-all",
        )
    _count(attempt, swept.ended)
    if attempt.is_doubtful:
        run.console.warn(f"whether {attempt.name} exists twice is not certain: a double may show late; {LOOK_AGAIN}")
    settle(run, attempt)
    return None


def settle(run: Runtime, attempt: Attempt) -> None:
    """Forget the names of which it is certain what became of them."""
    for part in attempt.parts:
        if not part.n_unknown:
            # A name may stay if it must: it only makes the next deploy look.
            with suppress(BuilderError):
                run.state.end_pending(attempt.name, part.pending)


def _kept(attempt: Attempt) -> tuple[str, str]:
    endpoint, template = attempt.endpoint.made, attempt.template.made
    if endpoint is not None:
        return f"endpoint {endpoint.id} is kept (--keep)", f"end it: {end_command(endpoint.id)}"
    made = f"template {template.id} is kept" if template is not None else f"{attempt.name} may exist"
    return f"{made} (--keep)", "look for it: python -m builder check-all"


def _end_all(run: Runtime, attempt: Attempt, *, is_patient: bool) -> tuple[str, str]:
    """What became of it all, and what the user has to do."""
    ended: dict[str, None] = {}
    left: dict[str, str] = {}
    problem = ""
    try:
        _end_made(run, attempt, ended, left, is_patient=is_patient)
    except KeyboardInterrupt:
        problem = "interrupted again"
    except Exception as failure:
        # Whatever it is, it must not hide what may be left.
        problem = str(failure) or type(failure).__name__
    if left or problem:
        return _left(run, attempt, ended, left, problem)
    with suppress(BuilderError):
        # A disk that is full must not hide what became of them.
        _restore(run, attempt)
    settle(run, attempt)
    fate = f"ended {', '.join(ended)}" if ended else "nothing was seen" if attempt.is_doubtful else "nothing was made"
    if attempt.is_doubtful:
        _remember(run, attempt, [part for part in attempt.parts if part.n_unknown])
        return f"{fate}, but what is named {attempt.name} may show late, and may be billed then", LOOK_AGAIN
    return f"{fate}, nothing is left", ""


def _end_made(
    run: Runtime, attempt: Attempt, ended: dict[str, None], left: dict[str, str], *, is_patient: bool
) -> None:
    """End what this deploy made, into `ended` and `left` (with the reason). Raises what listing raises."""
    endpoint, template = attempt.endpoint.made, attempt.template.made
    is_unseen = False
    if endpoint is not None:
        what = f"endpoint {endpoint.id}"
        left[what] = "not ended yet"
        # By its id: a list may not show it yet. What does not show at all is not proved to be gone by its end.
        is_unseen = not _shows(run, endpoint.id)
        attempt.endpoint.n_unknown += is_unseen
        _ending(ended, left, what, lambda: delete_surely(run, endpoint.id))
    if template is not None:
        what = f"template {template.id}"
        _ending(ended, left, what, lambda: remove_template(run, template.id))
    swept = sweep(run, attempt, is_patient=is_patient or is_unseen)
    _count(attempt, [what for what in swept.ended if is_unseen or what not in ended])
    ended.update(dict.fromkeys(swept.ended))
    for what in swept.ended:
        left.pop(what, None)
    left.update(swept.left)


def _shows(run: Runtime, endpoint_id: str) -> bool:
    """False if the API does not show the endpoint in ten seconds."""
    for pause_s in (0.0, *LOOKS_S):
        if pause_s:
            run.clock.sleep(pause_s)
        try:
            if find_endpoint(run, endpoint_id) is not None:
                return True
        except BuilderError:
            continue
    return False


def _count(attempt: Attempt, ended: Iterable[str]) -> None:
    """What was found is no longer unknown."""
    for what in ended:
        for part in attempt.parts:
            if what.startswith(part.word) and part.n_unknown:
                part.n_unknown -= 1


def _ending(ended: dict[str, None], left: dict[str, str], what: str, end: Callable[[], None]) -> None:
    try:
        end()
        ended[what] = None
        left.pop(what, None)
    except BuilderError as error:
        left[what] = str(error)


def _remember(run: Runtime, attempt: Attempt, parts: Iterable[Part[Any]]) -> None:
    for part in parts:
        with suppress(BuilderError):
            # The message names it all the same.
            run.state.begin_pending(attempt.name, run.clock.unix_s(), part.pending)


def _left(
    run: Runtime, attempt: Attempt, ended: dict[str, None], left: dict[str, str], problem: str
) -> tuple[str, str]:
    _remember(run, attempt, attempt.parts)
    gone = f"ended {', '.join(ended)}; " if ended else ""
    why = "; ".join(filter(None, (*left.values(), problem)))
    if not left:
        return (
            f"{gone}it is not certain that nothing named {attempt.name} exists ({why})",
            "look for it: python -m builder check-all",
        )
    endpoint = attempt.endpoint.made
    is_billed = endpoint is not None and f"endpoint {endpoint.id}" in left
    bill = " and may be billed" if is_billed else ""
    hint = f"end it: {end_command(endpoint.id)}" if endpoint is not None and is_billed else LOOK_AGAIN
    return f"{gone}{', '.join(left)} could not be ended{bill} ({why})", hint


def _restore(run: Runtime, attempt: Attempt) -> None:
    """endpoint.json as it was before this deploy wrote it; what another deploy wrote since is left."""
    recorded = (run.state.read("endpoint") or {}).get("endpoint_id")
    if not attempt.has_recorded or attempt.endpoint.made is None or recorded != attempt.endpoint.made.id:
        return
    if attempt.previous is None:
        run.state.remove("endpoint")
    else:
        run.state.write("endpoint", attempt.previous)
