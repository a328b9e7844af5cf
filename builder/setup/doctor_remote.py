"""What `doctor` finds at RunPod and AWS: by reading only."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from builder.errors import BuilderError, NetworkError, NotAvailableError
from builder.setup.doctor import Check

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["CHECKS", "MAX_SKEW_S", "skew_check"]

MAX_SKEW_S = 60.0
"""Deadlines are told to pods as times of day; a clock that is off by more than this makes them wrong."""
PROBE_LIMIT_S = 10.0
RESERVE_H = 2.0
"""Hours of present spending that the balance should last."""


def _key(run: Runtime) -> Iterator[Check]:
    run.api.check_key()
    yield Check("API key", "ok", "accepted")
    yield Check("API key", "skip", "whether it may change things shows only when something is changed")


def _rest(run: Runtime) -> Iterator[Check]:
    from builder.api.connect import checked_base, find_key
    from builder.api.http import get_once

    settings = run.settings
    if settings.use_v1:
        remedy = "take RUNPOD_API_V1 out of .env"
        yield Check("REST API", "warn", f"v1 at {settings.v1_base}, which RunPod retires", remedy)
    else:
        yield Check("REST API", "ok", f"v2 at {settings.api_base}")
    base = checked_base("RUNPOD_REST_V1_BASE", settings.v1_base)
    headers = {"Authorization": f"Bearer {find_key(settings, run.environ)}"}
    try:
        is_gone = get_once(f"{base}/pods", timeout_s=PROBE_LIMIT_S, headers=headers).status in (404, 410)
    except NetworkError:
        is_gone = True
    if is_gone and settings.use_v1:
        yield Check("REST v1", "fail", "does not answer", "take RUNPOD_API_V1 out of .env")
    else:
        yield Check("REST v1", "ok", "retired; not needed" if is_gone else "still answers; not needed")


def _clock(run: Runtime) -> Iterator[Check]:
    from builder.api.connect import checked_base, find_key
    from builder.api.http import Http

    settings = run.settings
    if settings.use_v1:
        yield Check("clock", "skip", "compared with REST v2 only")
        return
    base, key = checked_base("RUNPOD_API_BASE", settings.api_base), find_key(settings, run.environ)
    http = Http(base, key=key, clock=run.clock, redactor=run.redactor, note=run.console.note)
    reply = http.request("GET", "/registries", retry="any", what="the time")
    yield skew_check(reply.headers.get("date"), run.clock.unix_s())


def skew_check(date: str | None, now_s: float) -> Check:
    """Compare our clock with a Date header."""
    try:
        server_s = parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return Check("clock", "skip", "the API tells no time")
    off_s = now_s - server_s
    if abs(off_s) <= MAX_SKEW_S:
        return Check("clock", "ok", f"{abs(off_s):.0f} s from RunPod's")
    ahead = "ahead of" if off_s > 0 else "behind"
    return Check(
        "clock", "warn", f"{abs(off_s):.0f} s {ahead} RunPod's: deadlines of pods shift", "set the clock (NTP)"
    )


def _graphql(run: Runtime) -> Iterator[Check]:
    try:
        balance = run.graphql.balance()
    except NotAvailableError as error:
        yield Check("GraphQL", "warn", f"{error}: no balance, spot pods or secrets", error.hint)
        return
    yield Check("GraphQL", "ok", "answers")
    says = f"${balance.credit:.2f}, spending ${balance.spend_per_h:.3f}/h"
    remedy = "add credit in RunPod's console (Billing)"
    if balance.credit <= 0:
        yield Check("balance", "fail", says, remedy)
    elif (price_per_h := _cheapest(run)) is not None and balance.credit < price_per_h:
        says = f"{says}: not an hour of the cheapest GPU, ${price_per_h:.2f}/h; deploy refuses"
        yield Check("balance", "warn", says, remedy)
    elif balance.credit < balance.spend_per_h * RESERVE_H:
        yield Check("balance", "warn", f"{says}: less than {RESERVE_H:g} hours of it", remedy)
    else:
        yield Check("balance", "ok", says)


def _cheapest(run: Runtime) -> float | None:
    """$/h of the cheapest GPU that would do; None if none is in stock, or the catalog does not tell."""
    from builder.deploy.gpu_list import GpuQuery, list_gpus

    names = ",".join(run.settings.gpu_types) or None
    try:
        (best,) = list_gpus(run, GpuQuery(gpu=names, count=run.settings.gpu_count), is_pick=True).candidates
    except BuilderError:
        return None
    return best.price_per_h


def _aws(run: Runtime) -> Iterator[Check]:
    from builder.money.check_all import why_no_aws

    reason = why_no_aws(run)
    if reason is not None:
        yield Check("AWS", "skip", f"{reason}; only the ec2 verbs need it")
        return
    if shutil.which("ssh", path=run.environ.get("PATH")) is None:
        yield Check("AWS", "warn", "there is no ssh, which ec2 wait, run and logs need", "install OpenSSH's client")
    from builder.aws.session import Aws

    identity = Aws(run).call("GetCallerIdentity", service="sts")
    yield Check("AWS", "ok", f"account {identity.get('Account')}, region {run.settings.aws_region}")


def _tolerant(look: Callable[[Runtime], Iterator[Check]], name: str) -> Callable[[Runtime], Iterator[Check]]:
    """A look whose failure keeps nothing from working."""

    def looked(run: Runtime) -> Iterator[Check]:
        try:
            yield from look(run)
        except BuilderError as error:
            yield Check(name, "warn", str(error), error.hint)

    return looked


CHECKS: tuple[tuple[str, Callable[[Runtime], Iterator[Check]]], ...] = (
    ("API key", _key),
    ("REST API", _rest),
    ("clock", _tolerant(_clock, "clock")),
    ("GraphQL", _tolerant(_graphql, "GraphQL")),
    ("AWS", _tolerant(_aws, "AWS")),
)
