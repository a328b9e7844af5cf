"""From a file, standard input or an option to one job in an endpoint's queue.

A job is paid for, so it is sent once; where the answer is lost, that is said. Secrets in it (keys of S3 storage) are
hidden from all that is shown from then on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from builder.api.jobs import MAX_RUN_BYTES
from builder.errors import AmbiguousError, NotFoundError, ServerFaultError, UsageError
from builder.redact import is_secret_name

if TYPE_CHECKING:
    from builder.api.models_serverless import Job
    from builder.redact import Redactor
    from builder.runtime import Runtime

__all__ = [
    "MAX_POLICY_S",
    "MIN_EXECUTION_S",
    "MIN_TTL_S",
    "JobOptions",
    "hide_secrets",
    "job_body",
    "read_input",
    "run_once",
]

MAX_POLICY_S = 7 * 86_400
MIN_TTL_S, MIN_EXECUTION_S = 10, 5
BODY_NAMES = ("input", "webhook", "policy", "s3Config")
POLICY_MS = {"ttl": (MIN_TTL_S * 1000, MAX_POLICY_S * 1000), "executionTimeout": (5_000, MAX_POLICY_S * 1000)}
OPEN_S3_NAMES = ("bucketName", "endpointUrl")
"""What of an s3Config may be shown."""
MAX_FILE_CHARS = 2 * MAX_RUN_BYTES
"""Of the text: blanks in it are not sent."""


@dataclass(frozen=True)
class JobOptions:
    """What goes beside the input; None: the platform's own (24 h to live, the endpoint's time to run)."""

    ttl_s: int | None = None
    execution_timeout_s: int | None = None
    webhook: str | None = None
    low_priority: bool = False


def read_input(run: Runtime, source: str | None, inline: str | None) -> dict[str, Any]:
    """The document that is meant: `inline` JSON, a file, or standard input (`-`). Raises UsageError, NotFoundError."""
    if (source is None) == (inline is None):
        raise UsageError("give the job once: a FILE, - for standard input, or --input JSON")
    if inline is not None:
        return _parsed("--input", inline)
    if source == "-":
        return _parsed("standard input", _limited("standard input", run.console.read_input(MAX_FILE_CHARS + 1)))
    assert source is not None
    path = Path(source) if Path(source).is_absolute() else run.folder / source
    try:
        # Some editors begin a file with a mark of its encoding.
        with path.open(encoding="utf-8-sig") as file:
            return _parsed(source, _limited(source, file.read(MAX_FILE_CHARS + 1)))
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {source}", hint="") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UsageError(f"{source} cannot be read: {reason}", hint="") from None


def job_body(document: Mapping[str, Any], options: JobOptions) -> dict[str, Any]:
    """What `run` sends: `document` is a whole body (`{"input": {...}, ...}`) or an input; options win over it.

    Raises UsageError that names what is wrong and what is legal. Pure.
    """
    body: dict[str, Any] = dict(document) if "input" in document else {"input": dict(document)}
    unknown = sorted(set(body) - set(BODY_NAMES))
    if unknown:
        raise UsageError(f'{unknown[0][:60]!r} beside "input" is not allowed; legal: {", ".join(BODY_NAMES)}', hint="")
    if not isinstance(body["input"], Mapping) or not body["input"]:
        raise UsageError('"input" must be an object that is not empty', hint='like {"input": {"audio": "https://..."}}')
    policy = _policy(body.pop("policy", None), options)
    webhook = options.webhook if options.webhook is not None else body.pop("webhook", None)
    body.pop("webhook", None)
    if webhook is not None:
        body["webhook"] = _checked_webhook(webhook)
    return body | ({"policy": policy} if policy else {})


def hide_secrets(redactor: Redactor, value: Any, *, is_answer: bool = False) -> None:
    """Hide what `value` holds under names of secrets, and all of an s3Config in it but its bucket and address.

    `is_answer`: it is a worker's, which may repeat its s3Config, and whose other words, tokens say, are what was asked
    for.
    """
    # A list of what is left to look at: a job may be nested deeper than calls can be.
    left: list[tuple[Any, bool]] = [(value, False)]
    while left:
        here, in_s3 = left.pop()
        if isinstance(here, Mapping):
            for name, each in here.items():
                is_secret = (in_s3 and name not in OPEN_S3_NAMES) or (not is_answer and _is_secret(str(name)))
                if is_secret and isinstance(each, str):
                    redactor.add(each)
                else:
                    left.append((each, in_s3 or str(name).lower() == "s3config"))
        elif isinstance(here, (list, tuple)):
            left += [(each, in_s3) for each in here]


def _is_secret(name: str) -> bool:
    # A webhook's address is often its password, too.
    return is_secret_name(name) or name == "webhook"


def run_once(run: Runtime, endpoint_id: str, body: Mapping[str, Any]) -> Job:
    """Submit a job, once, and write its id into the diary.

    Raises UsageError if it is too large, NotFoundError if there is no such endpoint, or none with a queue,
    AmbiguousError if the answer is lost, or is an error of the server: it may run.
    """
    hide_secrets(run.redactor, body)
    try:
        job = run.jobs.run(endpoint_id, body)
    except (AmbiguousError, ServerFaultError) as error:
        raise AmbiguousError(
            f"{error}; the job may be queued all the same, and run and cost, and its id is not known",
            hint=f"see whether one more waits or runs: python -m builder endpoint status {endpoint_id}; sent again, "
            "the work may be done, and paid for, twice",
            status=error.status,
            request_id=error.request_id,
        ) from None
    except NotFoundError as error:
        raise NotFoundError(
            f"endpoint {endpoint_id} takes no jobs: it does not exist, or has no queue ({error})",
            hint="see: python -m builder endpoint list",
            status=error.status,
            request_id=error.request_id,
        ) from None
    run.state.event(run.clock.unix_s(), "submitted", "job", job.id, endpoint=endpoint_id)
    return job


def _limited(what: str, text: str) -> str:
    if len(text) > MAX_FILE_CHARS:
        raise UsageError(
            f"{what} holds more than {MAX_FILE_CHARS:,} characters; legal: a job of up to {MAX_RUN_BYTES:,} bytes",
            hint="give the audio by address, or let it be uploaded: python -m builder transcribe FILE",
        )
    return text


def _parsed(what: str, text: str) -> dict[str, Any]:
    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    try:
        document = json.loads(text, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise UsageError(
            f"{what} is no JSON: {reason[:100]}", hint='like {"input": {"audio": "https://..."}}'
        ) from None
    if not isinstance(document, dict):
        raise UsageError(f"{what} must hold a JSON object", hint='like {"input": {"audio": "https://..."}}')
    return document


def _policy(given: Any, options: JobOptions) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise UsageError('"policy" must be an object', hint="")
    policy = dict(given or {})
    if options.ttl_s is not None:
        policy["ttl"] = options.ttl_s * 1000
    if options.execution_timeout_s is not None:
        policy["executionTimeout"] = options.execution_timeout_s * 1000
    if options.low_priority:
        policy["lowPriority"] = True
    for name, value in policy.items():
        if name in POLICY_MS:
            low, high = POLICY_MS[name]
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                legal = f"{low:,} to {high:,} (milliseconds)"
                raise UsageError(f"policy.{name}: {str(value)[:60]!r} is not allowed; legal: {legal}", hint="")
        elif name != "lowPriority":
            names = ", ".join((*POLICY_MS, "lowPriority"))
            raise UsageError(f"policy.{name[:60]} is not allowed; legal: {names}", hint="")
        elif not isinstance(value, bool):
            raise UsageError("policy.lowPriority is not allowed to be that; legal: true or false", hint="")
    ttl, execution = policy.get("ttl"), policy.get("executionTimeout")
    if ttl is not None and execution is not None and execution > ttl:
        raise UsageError(
            f"policy.executionTimeout: {execution / 1000:g} s is not allowed; legal: up to ttl, which is "
            f"{ttl / 1000:g} s: a job past it vanishes, running or not",
            hint="raise --ttl, or lower --execution-timeout",
        )
    return policy


def _checked_webhook(webhook: Any) -> str:
    """The address that RunPod calls at the end. It is not shown: it may hold a token."""
    try:
        parts = urlsplit(webhook) if isinstance(webhook, str) else None
        is_fine = parts is not None and parts.scheme in ("https", "http") and bool(parts.hostname)
    except ValueError:
        is_fine = False
    if not is_fine or any(char.isspace() for char in str(webhook)):
        raise UsageError("--webhook: legal: an address like https://HOST/PATH", hint="")
    return str(webhook)
