"""The errors of the command line: each with a stable code, an exit code, and a hint that says what to do.

    BuilderError                      1   error
    ├── UsageError                    2   usage_error        the command line or a setting is wrong
    ├── NotFoundError                 3   not_found          no such pod, image, file
    ├── AuthError                     4   unauthorized       no key, or one that is refused
    │   └── ForbiddenError            4   forbidden          the key may not do this
    ├── CapacityError                 5   no_capacity        no GPU of those asked for is free
    ├── BudgetError                   6   over_budget        a price or time guard refused
    ├── WaitTimeoutError              7   wait_timeout       not ready in time; the pod is kept
    ├── RateLimitedError              8   rate_limited       asked to slow down for longer than we wait
    ├── NetworkError                  9   network_error      no answer
    │   └── AmbiguousError            9   answer_lost        sent, and no answer: it may have happened
    ├── BalanceError                 10   no_balance         the account has no credit
    ├── InterruptError              130   interrupted        Ctrl-C or SIGTERM; the message says what is left
    ├── BadRequestError               1   bad_request        the API rejects what we sent
    ├── ConflictError                 1   conflict           not possible in the present state
    ├── ServerFaultError              1   server_error       the API fails, again and again
    ├── BadAnswerError                1   bad_answer         the API answers what its document does not allow
    ├── NotAvailableError             1   not_available      this API does not have it, or no longer
    ├── PodFailedError                1   pod_failed         the pod will never get ready; the message says why
    ├── CheckFailedError              1   check_failed       a test of a pod failed
    ├── EndpointFailedError           1   endpoint_failed    the endpoint will never serve this; the message says why
    ├── JobFailedError                1   job_failed         a job failed, or was cancelled, or ran out of time
    ├── NotValidatedError             1   not_validated      the image was never tried on a GPU, and was to be
    ├── AwsError                      1   aws_error          AWS refuses or fails
    ├── SshError                      1   ssh_error          the machine cannot be reached, or its command fails
    ├── DockerError                   1   docker_error       the docker client is absent or fails
    └── DiskFullError                 1   no_space           the local disk is full

Exit codes are stable; the README has the table. Messages are one line and never hold a secret.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AmbiguousError",
    "AuthError",
    "AwsError",
    "BadAnswerError",
    "BadRequestError",
    "BalanceError",
    "BudgetError",
    "BuilderError",
    "CapacityError",
    "CheckFailedError",
    "ConflictError",
    "DiskFullError",
    "DockerError",
    "EndpointFailedError",
    "ForbiddenError",
    "InterruptError",
    "JobFailedError",
    "NetworkError",
    "NotAvailableError",
    "NotFoundError",
    "NotValidatedError",
    "PodFailedError",
    "RateLimitedError",
    "ServerFaultError",
    "SshError",
    "UsageError",
    "WaitTimeoutError",
]


class BuilderError(Exception):
    """Root: `str(error)` is one line for the user, `hint` what to do about it.

    `status` is the HTTP status and `request_id` the API's name for the request, where there was one.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(
        self, message: str, *, hint: str | None = None, status: int | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.hint = self.default_hint if hint is None else hint
        self.status = status
        self.request_id = request_id


class UsageError(BuilderError):
    """The command line, or a setting, is wrong."""

    code = "usage_error"
    exit_code = 2
    default_hint = "see --help"


class NotFoundError(BuilderError):
    """No such pod, image, file or recorded state."""

    code = "not_found"
    exit_code = 3
    default_hint = "list what is there: python -m builder check-all"


class AuthError(BuilderError):
    """No API key, or one that RunPod refuses (HTTP 401)."""

    code = "unauthorized"
    exit_code = 4
    default_hint = "make a key in RunPod's console (Settings, API Keys), then run: python -m builder setup"


class ForbiddenError(AuthError):
    """The key is valid, but may not do this (HTTP 403)."""

    code = "forbidden"
    default_hint = "use a key with write access to pods, or one without restrictions"


class CapacityError(BuilderError):
    """No machine is free for what was asked for."""

    code = "no_capacity"
    exit_code = 5
    default_hint = "see what is in stock: python -m builder gpus --pick; then name more GPUs or another cloud"


class BudgetError(BuilderError):
    """A guard on price or time refused, before anything was paid for."""

    code = "over_budget"
    exit_code = 6
    default_hint = "raise --max-price or --max-minutes, or choose a cheaper GPU"


class WaitTimeoutError(BuilderError):
    """Not ready in time; the pod is kept, and billed."""

    code = "wait_timeout"
    exit_code = 7
    default_hint = "wait on: python -m builder wait; end it: python -m builder terminate"


class RateLimitedError(BuilderError):
    """The API asks to slow down for longer than a command waits (HTTP 429)."""

    code = "rate_limited"
    exit_code = 8
    default_hint = "try again later"


class NetworkError(BuilderError):
    """No connection, or none that lasted."""

    code = "network_error"
    exit_code = 9
    default_hint = "check the network and https://uptime.runpod.io, then try again"


class AmbiguousError(NetworkError):
    """A request that changes something was sent and no answer came: it may have happened."""

    code = "answer_lost"
    default_hint = "look for it before you try again: python -m builder check-all"


class BalanceError(BuilderError):
    """The account's credit does not suffice (HTTP 402)."""

    code = "no_balance"
    exit_code = 10
    default_hint = "add credit in RunPod's console (Billing)"


class InterruptError(BuilderError):
    """Ctrl-C or SIGTERM; the message says what was cleaned up and what is left."""

    code = "interrupted"
    exit_code = 130
    default_hint = "see what runs and what it costs: python -m builder check-all"


class BadRequestError(BuilderError):
    """The API rejects what we sent (HTTP 400, 422)."""

    code = "bad_request"
    default_hint = "if nothing in your settings explains it, compare the API: python -m builder spec diff"


class ConflictError(BuilderError):
    """Not possible in the present state (HTTP 409): a locked pod, an action out of turn."""

    code = "conflict"
    default_hint = "see the pod's state: python -m builder status"


class ServerFaultError(BuilderError):
    """The API fails, again and again (HTTP 5xx)."""

    code = "server_error"
    default_hint = "check https://uptime.runpod.io, then try again"


class BadAnswerError(BuilderError):
    """The API answers what its document does not allow: no JSON, or a field missing."""

    code = "bad_answer"
    default_hint = "compare the API with what this version knows: python -m builder spec diff"


class NotAvailableError(BuilderError):
    """This API does not have it, or no longer."""

    code = "not_available"


class PodFailedError(BuilderError):
    """The pod will never get ready; the message holds the cause, the hint the remedy."""

    code = "pod_failed"


class CheckFailedError(BuilderError):
    """A test of a pod failed."""

    code = "check_failed"
    default_hint = "see what the pod says: python -m builder logs"


class EndpointFailedError(BuilderError):
    """The endpoint, or its new release, will never serve; the message holds the cause, the hint the remedy."""

    code = "endpoint_failed"


class JobFailedError(BuilderError):
    """A job did not complete; the message holds the worker's words."""

    code = "job_failed"


class NotValidatedError(BuilderError):
    """The image was to have been tried on a GPU before it is paid for at RunPod, and was not."""

    code = "not_validated"
    default_hint = "try it first: python -m builder ec2 launch, ec2 wait, ec2 run"


class AwsError(BuilderError):
    """AWS refuses or fails; what has an error of its own here raises that one."""

    code = "aws_error"


class SshError(BuilderError):
    """The machine cannot be reached by SSH, or what runs there fails."""

    code = "ssh_error"


class DockerError(BuilderError):
    """The docker client is absent, has no engine, or fails."""

    code = "docker_error"


class DiskFullError(BuilderError):
    """The local disk is full."""

    code = "no_space"
    default_hint = "free some space (docker system prune removes unused images), then run the same command again"
