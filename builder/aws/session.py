"""The only module of the builder that talks to AWS: clients, one call with its retries, and its errors in our words.

Credentials are those of the settings (the environment, then `.env`), else what AWS's own tools would find. Retries
are ours, not botocore's: they follow the run's clock, are few, and never repeat what could be made twice.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from builder.errors import (
    AmbiguousError,
    AuthError,
    AwsError,
    BuilderError,
    CapacityError,
    ConflictError,
    ForbiddenError,
    NetworkError,
    NotAvailableError,
    NotFoundError,
    RateLimitedError,
    ServerFaultError,
    UsageError,
)

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["Aws", "client", "s3"]

CONNECT_S, READ_S = 5, 30
SEND_S = 120
"""Of a part of 8 MB, beside others, over a slow line."""
TRIES = 4
"""Of a call that may be repeated."""
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 8.0
MAX_MESSAGE_CHARS = 400
INSTALL = "pip install 'whisper-runpod[aws]'"
LOGIN = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (environment or .env), or AWS_PROFILE, or log in: aws sso login"
)
_CREDENTIALS = {
    *("AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch"),
    *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidAccessKeyId", "MissingAuthenticationToken"),
    *("IncompleteSignature", "OptInRequired", "InvalidSignatureException"),
}
_FORBIDDEN = {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "Blocked", "PendingVerification"}
_CAPACITY = {
    "InsufficientInstanceCapacity": "no machine of this type is free",
    "InsufficientCapacity": "no machine of this type is free",
    "InsufficientHostCapacity": "no machine of this type is free",
    "Unsupported": "this type is not offered in the zone that AWS chose",
    "SpotMaxPriceTooLow": "the spot price is above --max-price",
    "VcpuLimitExceeded": "the account's quota of vCPUs for this family is too small",
    "InstanceLimitExceeded": "the account's quota of machines is used up",
    "MaxSpotInstanceCountExceeded": "the account's quota of spot machines is used up",
}
_QUOTA = {"VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded"}
_SLOW_DOWN = {"RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException", "SlowDown"}
_NO_NETWORK = {"VPCIdNotSpecified", "DefaultVpcDoesNotExist", "MissingInput"}
_NOT_FOUND = {"ParameterNotFound", "InvalidKeyPair.NotFound", "InvalidGroup.NotFound"}
_CONFLICT = {"DependencyViolation", "IncorrectInstanceState", "IncorrectState", "OperationNotPermitted"}
_USAGE = {"InvalidInstanceType", "InvalidParameterValue", "InvalidAMIID.Malformed", "InvalidParameterCombination"}
_REGION_HOSTS = (
    re.compile(r"s3[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com"),
    re.compile(r"s3\.([a-z0-9-]+)\.(?:backblazeb2|wasabisys)\.com"),
    re.compile(r"([a-z0-9-]+)\.digitaloceanspaces\.com"),
    re.compile(r"s3api-([a-z0-9-]+)\.runpod\.io"),
)
"""Addresses of storage that tell its region."""
_METADATA = ("iam-role", "container-role")
"""Providers of credentials that ask addresses of the machine this runs on."""


def client(run: Runtime, service: str, region: str | None = None) -> Any:
    """A boto3 client for `service`; its calls raise botocore's errors, and are never repeated by botocore.

    Raises NotAvailableError without boto3, AuthError for a profile that does not exist, UsageError for a bad region.
    """
    settings = run.settings
    try:
        from boto3.session import Session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session as CoreSession
    except ImportError:
        raise NotAvailableError("boto3, which talks to AWS, is not installed", hint=INSTALL) from None
    core = CoreSession()
    core.register_component("data_loader", _loader())
    for name, variable in (
        ("config_file", "AWS_CONFIG_FILE"),
        ("credentials_file", "AWS_SHARED_CREDENTIALS_FILE"),
        ("ca_bundle", "AWS_CA_BUNDLE"),
    ):
        if run.environ.get(variable):
            core.set_config_variable(name, run.environ[variable])
    try:
        # A key that is set wins over a profile, as it does with AWS's own tools.
        if settings.aws_key_id and settings.aws_secret:
            core.set_credentials(settings.aws_key_id, settings.aws_secret, settings.aws_token)
        else:
            if settings.aws_profile:
                core.set_config_variable("profile", settings.aws_profile)
            if run.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
                for provider in _METADATA:
                    core.get_component("credential_provider").remove(provider)
        return Session(botocore_session=core).client(
            service,
            region_name=region or settings.aws_region,
            endpoint_url=_endpoint(run.environ, service),
            config=Config(
                connect_timeout=CONNECT_S,
                read_timeout=READ_S,
                retries={"total_max_attempts": 1},
                user_agent_extra="whisper-runpod-builder",
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise _local(error, run) from None


def s3(run: Runtime) -> Any:
    """A boto3 client for the storage of `BUCKET_*`, Amazon's or another's; its calls raise botocore's errors.

    No credentials but those of `BUCKET_*` ever reach it. Raises NotAvailableError without boto3, UsageError for an
    address that is none.
    """
    settings = run.settings
    try:
        from boto3.session import Session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session as CoreSession
    except ImportError:
        raise NotAvailableError("boto3, which talks to storage, is not installed", hint=INSTALL) from None
    core = CoreSession()
    core.register_component("data_loader", _loader())
    core.set_credentials(settings.bucket_key_id, settings.bucket_secret)
    # Stores other than Amazon's refuse the checksums that newer versions add.
    for name in ("request_checksum_calculation", "response_checksum_validation"):
        core.set_config_variable(name, "when_required")
    try:
        url, region = _store(settings.bucket_url or "", settings.bucket_name or "")
        return Session(botocore_session=core).client(
            "s3",
            region_name=region,
            endpoint_url=url,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                # urllib3 keeps the time for connecting as the limit for sending a body.
                connect_timeout=SEND_S,
                read_timeout=READ_S,
                retries={"total_max_attempts": TRIES, "mode": "standard"},
                user_agent_extra="whisper-runpod-builder",
            ),
        )
    except (BotoCoreError, ValueError):
        # Not what the library says: it quotes the address.
        raise UsageError(
            "BUCKET_ENDPOINT_URL: (hidden) is not allowed; legal: http(s)://host", hint="correct BUCKET_ENDPOINT_URL"
        ) from None


def _store(address: str, bucket: str) -> tuple[str, str]:
    """A store's address without the bucket, and the region that requests to it are signed for. Raises ValueError."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("no address of a store")
    host = host.removeprefix(f"{bucket.lower()}.")
    if parts.path.strip("/") not in ("", bucket):
        raise ValueError("no address of a store")
    region = next((match[1] for pattern in _REGION_HOSTS if (match := pattern.fullmatch(host))), "us-east-1")
    where = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{where}{port}", region.upper() if host.endswith(".runpod.io") else region


class Aws:
    """Calls to AWS in one region, by the names of its API operations; clients are made when first needed."""

    def __init__(self, run: Runtime, region: str | None = None) -> None:
        self._run = run
        self.region = region or run.settings.aws_region
        self._clients: dict[str, Any] = {}

    def call(self, operation: str, *, service: str = "ec2", again: bool | None = None, **params: Any) -> dict[str, Any]:
        """One call of `operation` (like `DescribeInstances`), repeated a few times if it may be.

        `again`: whether it may be repeated after an answer was lost (default: only what reads). What AWS asks to slow
        down for is always repeated: it was not done. Raises AuthError, ForbiddenError, CapacityError, NotFoundError,
        RateLimitedError, ConflictError, UsageError, AwsError, NetworkError, ServerFaultError; AmbiguousError if
        something that changes things was sent and no answer came.
        """
        is_read = operation.startswith(("Describe", "Get", "List"))
        may_repeat = is_read if again is None else again
        for failures in range(1, TRIES + 1):
            error: BuilderError
            try:
                return self._once(operation, service, is_read, params)
            except RateLimitedError as failure:
                error = failure
            except (NetworkError, ServerFaultError) as failure:
                is_unsent = isinstance(failure, NetworkError) and not isinstance(failure, AmbiguousError)
                if not may_repeat and not is_unsent:
                    raise
                error = failure
            if failures == TRIES:
                raise error
            self._pause(failures, error)
        raise AssertionError("the last try returns or raises")  # pragma: no cover

    def pages(self, operation: str, key: str, *, service: str = "ec2", **params: Any) -> Iterator[dict[str, Any]]:
        """The entries `key` of every page of a list. Raises as `call`."""
        token: dict[str, Any] = {}
        while True:
            page = self.call(operation, service=service, **params, **token)
            yield from page.get(key, [])
            if not page.get("NextToken"):
                return
            token = {"NextToken": page["NextToken"]}

    def _pause(self, failures: int, error: BuilderError) -> None:
        pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** (failures - 1)) * random.SystemRandom().uniform(0.75, 1.25)
        self._run.console.note(f"{error}; trying again in {pause_s:.1f} s")
        self._run.clock.sleep(pause_s)

    def _once(self, operation: str, service: str, is_read: bool, params: Mapping[str, Any]) -> dict[str, Any]:
        if service not in self._clients:
            self._clients[service] = client(self._run, service, self.region)
        made = self._clients[service]
        from botocore import exceptions, xform_name
        from botocore.parsers import ResponseParserError

        what = f"AWS {operation}"
        try:
            answer: dict[str, Any] = getattr(made, xform_name(operation))(**params)
        except exceptions.ClientError as error:
            raise self._refused(_Refusal.of(error), what) from None
        except exceptions.ConnectionError:
            raise NetworkError(f"{what}: no connection", hint="check the network, and AWS_REGION") from None
        except (exceptions.HTTPClientError, ResponseParserError, OSError) as error:
            lost = NetworkError if is_read else AmbiguousError
            raise lost(
                f"{what}: no answer ({type(error).__name__})", hint="check the network, then try again"
            ) from None
        except (exceptions.BotoCoreError, ValueError) as error:
            raise _local(error, self._run, what) from None
        return answer

    def _refused(self, refusal: _Refusal, what: str) -> BuilderError:
        text = self._run.redactor.clean(f"{what}: {refusal.message} ({refusal.code})")
        return refusal.error(" ".join(text.split())[:MAX_MESSAGE_CHARS])


@dataclass(frozen=True)
class _Refusal:
    """What AWS said no with."""

    code: str
    message: str
    status: int | None
    request_id: str | None

    @classmethod
    def of(cls, error: Any) -> _Refusal:
        """Out of botocore's ClientError."""
        said = error.response.get("Error", {})
        meta = error.response.get("ResponseMetadata", {})
        message = str(said.get("Message") or "no reason given")
        # It is long, and tells only those who may decode it.
        message = message.split("Encoded authorization failure message")[0]
        return cls(str(said.get("Code") or "Unknown"), message, meta.get("HTTPStatusCode"), meta.get("RequestId"))

    def error(self, text: str) -> BuilderError:
        """The error of ours that says it."""
        kind, hint = self._kind()
        if kind is CapacityError:
            text = f"{_CAPACITY[self.code]}: {text}"
        return kind(text, hint=hint, status=self.status, request_id=self.request_id)

    def _kind(self) -> tuple[type[BuilderError], str]:
        code = self.code
        if code in _CREDENTIALS:
            why = "these AWS credentials are refused, or have expired, or the account has not enabled this region"
            return AuthError, f"{why}: {LOGIN}"
        if code in _FORBIDDEN:
            return ForbiddenError, "allow this user or role the operation (IAM), or use another AWS_PROFILE"
        if code in _CAPACITY:
            if code in _QUOTA:
                return CapacityError, "ask AWS for more (Service Quotas, EC2), or name another --type or --region"
            return CapacityError, "try another --type or --region, or without --spot"
        if code in _NO_NETWORK:
            return AwsError, "this region has no default network: aws ec2 create-default-vpc, or name another --region"
        if code in _SLOW_DOWN:
            return RateLimitedError, "try again in a minute"
        if code in _NOT_FOUND or code.endswith((".NotFound", "NotFoundException")):
            return NotFoundError, "list what is there: python -m builder check-all"
        if code in _CONFLICT:
            return ConflictError, "try again in a minute"
        if code in _USAGE or code.endswith(".Malformed"):
            return UsageError, "correct the option or setting that it names"
        if self.status is not None and self.status >= 500:
            return ServerFaultError, "check https://health.aws.amazon.com, then try again"
        return AwsError, "see what the code means in the EC2 API's list of error codes"


@functools.cache
def _loader() -> Any:
    """What reads the descriptions of AWS's APIs: large files, once for all clients."""
    from botocore.session import Session as CoreSession

    return CoreSession().get_component("data_loader")


def _endpoint(environ: Mapping[str, str], service: str) -> str | None:
    """The address that AWS's own variables name instead of the usual one."""
    if environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    return environ.get(f"AWS_ENDPOINT_URL_{service.upper()}") or environ.get("AWS_ENDPOINT_URL") or None


def _local(error: Exception, run: Runtime, what: str = "AWS") -> BuilderError:
    """What botocore found wrong before anything was sent."""
    name = type(error).__name__
    text = " ".join(run.redactor.clean(f"{what}: {error}").split())[:MAX_MESSAGE_CHARS]
    if "Credential" in name or "Token" in name or "SSO" in name or "Profile" in name:
        return AuthError(text, hint=LOGIN)
    if "Region" in name or isinstance(error, ValueError):
        return UsageError(text, hint="correct AWS_REGION or AWS_ENDPOINT_URL")
    return AwsError(text, hint="see the message: nothing was sent to AWS")
