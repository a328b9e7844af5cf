"""Bills as REST v2 shows them: the ledger's spans, cut at the boundaries of hours, days, weeks, months or years."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from tests.fakes.runpod.clock import iso_time, parse_time
from tests.fakes.runpod.ledger import Ledger, Span
from tests.fakes.runpod.pod import PodRefusedError

__all__ = ["all_billing", "pod_billing", "serverless_billing"]

BUCKETS = ("hour", "day", "week", "month", "year")
DEFAULT_DAYS = 30
MAX_BUCKETS = 10_000
OTHERS = (
    "serverlessFeeAmount",
    *("storageStandardAmount", "storageHighPerformanceAmount", "endpointAmount"),
    *("clusterGpuAmount", "clusterDiskAmount", "clusterNetworkingAmount"),
)
Window = tuple[datetime, datetime, str]


def pod_billing(ledger: Ledger, query: Mapping[str, str], now_s: float) -> dict[str, Any]:
    """What pods cost: one record per pod and bucket in which it cost anything. Raises PodRefusedError."""
    start, end, bucket = _window(query, now_s)
    pod_id = query.get("podId")
    records = _records(list(ledger.spans(now_s, pod_id, "pod")), (start, end, bucket), "podId")
    totals = _sum(records)
    return {
        "records": records,
        "metadata": {
            "query": {**_range(start, end), "bucketSize": bucket, "podId": pod_id},
            "recordCount": len(records),
            "uniquePodCount": len({record["podId"] for record in records}),
            "totals": totals,
        },
    }


def serverless_billing(ledger: Ledger, query: Mapping[str, str], now_s: float) -> dict[str, Any]:
    """What endpoints' workers cost: one record per endpoint and bucket. Raises PodRefusedError."""
    start, end, bucket = _window(query, now_s)
    endpoint_id = query.get("serverlessId")
    spans = list(ledger.spans(now_s, endpoint_id, "serverless"))
    records = [{**each, "feeAmount": 0.0} for each in _records(spans, (start, end, bucket), "serverlessId")]
    return {
        "records": records,
        "metadata": {
            "query": {**_range(start, end), "bucketSize": bucket, "serverlessId": endpoint_id},
            "recordCount": len(records),
            "uniqueServerlessCount": len({record["serverlessId"] for record in records}),
            "totals": {**_sum(records), "feeAmount": 0.0},
        },
    }


def all_billing(ledger: Ledger, query: Mapping[str, str], now_s: float) -> dict[str, Any]:
    """What everything cost, per bucket; here only pods and workers cost anything. Raises PodRefusedError."""
    start, end, bucket = _window(query, now_s)
    spans = list(ledger.spans(now_s))
    records = []
    for since, until in _buckets(start, end, bucket):
        records.append({**_range(since, until), **_all_within(spans, since, until)})
    totals = _all_within(spans, start, end)
    return {
        "records": records,
        "metadata": {
            "query": {**_range(start, end), "bucketSize": bucket},
            "recordCount": len(records),
            "totals": totals,
        },
    }


def _records(spans: list[Span], window: Window, id_name: str) -> list[dict[str, Any]]:
    return [
        {**_range(since, until), id_name: name, **amounts}
        for since, until in _buckets(*window)
        for name, amounts in _pods_within(spans, since, until).items()
    ]


def _all_within(spans: list[Span], since: datetime, until: datetime) -> dict[str, float]:
    amounts: dict[str, float] = {"totalAmount": 0.0, **dict.fromkeys(OTHERS, 0.0)}
    for payer in ("pod", "serverless"):
        of_payer = [span for span in spans if span.payer == payer]
        part = _sum(list(_pods_within(of_payer, since, until).values()))
        amounts["totalAmount"] += part["totalAmount"]
        for name in ("Gpu", "Cpu", "Disk"):
            amounts[f"{payer}{name}Amount"] = part[f"{name.lower()}Amount"]
    return amounts


def _pods_within(spans: list[Span], since: datetime, until: datetime) -> dict[str, dict[str, float]]:
    pods: dict[str, dict[str, float]] = {}
    for span in spans:
        hours = span.hours_within(since.timestamp(), until.timestamp())
        if hours > 0:
            rates = span.rates
            amounts = {
                "totalAmount": rates.total * hours,
                "gpuAmount": rates.gpu * hours,
                "cpuAmount": rates.cpu * hours,
                "diskAmount": rates.disk * hours,
            }
            pods[span.pod_id] = _sum([pods.get(span.pod_id, {}), amounts])
    return pods


def _sum(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = ("totalAmount", "gpuAmount", "cpuAmount", "diskAmount")
    return {name: float(sum(row.get(name, 0.0) for row in rows)) for name in names}


def _range(since: datetime, until: datetime) -> dict[str, str]:
    return {"startTime": iso_time(since.timestamp()), "endTime": iso_time(until.timestamp())}


def _window(query: Mapping[str, str], now_s: float) -> Window:
    bucket = query.get("bucketSize", "day")
    if bucket not in BUCKETS:
        raise PodRefusedError(422, "invalid query", (f"bucketSize: must be one of {', '.join(BUCKETS)}",))
    now = datetime.fromtimestamp(now_s, timezone.utc)
    if "lastN" in query:
        if "startTime" in query or "endTime" in query:
            raise PodRefusedError(400, "lastN and startTime/endTime are mutually exclusive")
        return *_last(query["lastN"], bucket, now), bucket
    start = _time(query, "startTime", now - timedelta(days=DEFAULT_DAYS))
    end = _time(query, "endTime", now)
    if end < start:
        raise PodRefusedError(400, "endTime is before startTime")
    last = _floor(end, bucket)
    return _floor(start, bucket), end if end == last else _next(last, bucket), bucket


def _last(text: str, bucket: str, now: datetime) -> tuple[datetime, datetime]:
    if not text.isdigit() or not 1 <= int(text) <= MAX_BUCKETS:
        raise PodRefusedError(422, "invalid query", ("lastN: must be an integer of at least 1",))
    start = _floor(now, bucket)
    end = _next(start, bucket)
    for _ in range(int(text) - 1):
        start = _floor(start - timedelta(seconds=1), bucket)
    return start, end


def _time(query: Mapping[str, str], name: str, default: datetime) -> datetime:
    if name not in query:
        return default
    try:
        return datetime.fromtimestamp(parse_time(query[name]), timezone.utc)
    except ValueError:
        raise PodRefusedError(422, "invalid query", (f"{name}: must be an RFC 3339 time",)) from None


def _buckets(start: datetime, end: datetime, bucket: str) -> Iterator[tuple[datetime, datetime]]:
    while start < end:
        until = _next(start, bucket)
        yield start, until
        start = until


def _floor(moment: datetime, bucket: str) -> datetime:
    hour = moment.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    floors = {
        "hour": hour,
        "day": day,
        "week": day - timedelta(days=day.weekday()),
        "month": day.replace(day=1),
        "year": day.replace(month=1, day=1),
    }
    return floors[bucket]


def _next(start: datetime, bucket: str) -> datetime:
    if bucket == "year":
        return start.replace(year=start.year + 1)
    if bucket == "month":
        return _floor(start + timedelta(days=32), "month")
    return start + {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}[bucket]
