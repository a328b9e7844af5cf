"""What `status` shows, once or again and again, and where `logs` gets its lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from builder.errors import NetworkError, NotFoundError, RateLimitedError, ServerFaultError
from builder.pods.log_follow import LogQuery, follow
from builder.pods.operate import UP
from builder.pods.pods import account_document, recorded, report

if TYPE_CHECKING:
    from builder.api.models import LogEvent
    from builder.runtime import Runtime

__all__ = ["pod_lines", "pod_status", "watch_status"]

REFRESH_S = 5.0
BALANCE_EVERY = 12
"""Refreshes between two looks at the balance: it is told by the minute."""
MAX_FAULTS = 10


def pod_status(run: Runtime, pod_id: str) -> dict[str, Any]:
    """The pod and the account. Raises NotFoundError that says so if the pod is gone."""
    return {**_report(run, pod_id), **account_document(run)}


def watch_status(run: Runtime, pod_id: str, show: Callable[[Mapping[str, Any]], None]) -> None:
    """`show` the document every REFRESH_S seconds until Ctrl-C, which is its normal end.

    Raises NotFoundError once the pod is gone; errors that pass are noted, up to MAX_FAULTS in a row.
    """
    faults, looks = 0, 0
    account: dict[str, Any] = {}
    try:
        while True:
            try:
                document = _report(run, pod_id)
                if looks % BALANCE_EVERY == 0:
                    account = account_document(run)
                looks, faults = looks + 1, 0
                show({**document, **account})
            except (NetworkError, RateLimitedError, ServerFaultError) as error:
                faults += 1
                if faults >= MAX_FAULTS:
                    raise
                run.console.note(f"{error}; looking again")
            run.clock.sleep(REFRESH_S)
    except KeyboardInterrupt:
        return


def pod_lines(run: Runtime, pod_id: str, query: LogQuery, *, is_endless: bool) -> Iterator[LogEvent]:
    """The log lines that `query` asks for; `is_endless`: as long as the pod runs.

    Raises NotFoundError, NotAvailableError (REST v1 has no logs), NetworkError if it breaks again and again.
    """

    def connect(query: LogQuery, resume_id: str | None, idle_s: float) -> Iterator[LogEvent]:
        is_fresh = resume_id is None
        return run.api.logs(
            pod_id,
            source=query.source,
            tail=query.tail if is_fresh and query.since is None else None,
            since=query.since if is_fresh else None,
            last_event_id=resume_id,
            idle_s=idle_s,
        )

    def still_runs() -> bool:
        try:
            status = run.api.get_pod(pod_id).status
        except NotFoundError:
            status = "TERMINATED"
        if status not in UP:
            run.console.note(f"pod {pod_id} is {status}: its log ends here")
        return status in UP

    return follow(connect, query, clock=run.clock, is_endless=is_endless, still_runs=still_runs, note=run.console.note)


def _report(run: Runtime, pod_id: str) -> dict[str, Any]:
    try:
        pod = run.api.get_pod(pod_id)
    except NotFoundError:
        if recorded(run, pod_id) is None:
            raise NotFoundError(f"there is no pod {pod_id}") from None
        raise NotFoundError(
            f"pod {pod_id}, deployed from here, is gone: terminated, by you or by RunPod; it costs nothing any more",
            hint=f"forget it: python -m builder terminate {pod_id}; or deploy another: python -m builder deploy",
        ) from None
    return report(run, pod)
