"""An S3-compatible store: audio from `s3://bucket/key`, and results too large for the platform.

The only place that imports boto3, and only when a store is used. `download`, `upload_bytes` and `remove` block:
callers run them in a thread. Knows nothing of jobs. Invariants: secrets are never shown by repr or in errors;
every call ends in bounded time, a drip of single bytes included; a download never writes more than `max_bytes`;
no connection is made to a store that somebody other than the operator named: for those there are links
(`presigned_url`), to be used by code that checks addresses.
"""

from __future__ import annotations

import errno
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from engine.errors import BadInputError, ConfigError, FetchError, SttError, UploadError

if TYPE_CHECKING:
    from engine.settings_table import Settings

__all__ = ["LINK_LIFE_S", "S3Config", "download", "presigned_url", "remove", "split_s3_url", "upload_bytes"]

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 20.0
"""Silence on a connection that ends an attempt."""
MAX_ATTEMPTS = 3
"""Attempts per call, the first included; a broken download goes on where it stopped."""
RETRY_PAUSE_S = 0.2
"""Before the next attempt at a download; doubled each time."""
CHUNK_BYTES = 1 << 18
SEND_TIMEOUT_S = 60.0
"""For sending a whole result, some 50 MB for ten hours with words: 7 Mbit/s is enough."""
LINK_LIFE_S = 7 * 86_400
"""How long a link to an uploaded result lives: the longest that signature version 4 allows."""
MAX_URL_CHARS = 512
"""Longest endpoint URL; as BUCKET_ENDPOINT_URL."""
MAX_BUCKET_CHARS = 63
"""Longest name of a bucket, by S3's rules."""
MAX_KEY_CHARS = 1_024
"""Longest key of an object, by S3's rules (bytes there; no key of ours comes near)."""
MAX_SECRET_CHARS = 512
"""Longest id or secret; Amazon's have 20 and 40 characters."""
MAX_SHOWN_CHARS = 200
"""How much of an object's address an error repeats."""
DEFAULT_REGION = "us-east-1"
"""What stores without regions take in a signature."""

_AWS_HOST = re.compile(
    r"(?:(?P<bucket>.+)\.)?s3[.-](?:dualstack\.)?(?P<region>[a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com"
)
_REGION_HOSTS = (
    re.compile(r"s3\.([a-z0-9-]+)\.(?:backblazeb2|wasabisys)\.com"),
    re.compile(r"([a-z0-9-]+)\.digitaloceanspaces\.com"),
)
_RUNPOD_HOST = re.compile(r"s3api-([a-z0-9-]+)\.runpod\.io")
_ERROR_CODE = re.compile(r"[A-Za-z0-9]{1,64}")
_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,62}")


@dataclass(frozen=True)
class S3Config:
    """Where a store is and how to sign; secrets are hidden from repr.

    `bucket` takes uploads (None: there are none). `is_trusted` False: the endpoint came with a job, so it may be
    anybody's; only links are made for it.
    """

    endpoint_url: str
    bucket: str | None
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    is_trusted: bool = True

    @classmethod
    def from_settings(cls, settings: Settings) -> S3Config | None:
        """The operator's store; None if none is set. Raises ConfigError if it is set by halves."""
        key_id, secret = settings.bucket_access_key_id, settings.bucket_secret_access_key
        parts = {
            "BUCKET_ENDPOINT_URL": settings.bucket_endpoint_url,
            "BUCKET_ACCESS_KEY_ID": key_id,
            "BUCKET_SECRET_ACCESS_KEY": secret,
        }
        missing = [name for name, value in parts.items() if value is None]
        if len(missing) == len(parts):
            return None
        if settings.bucket_endpoint_url is None or key_id is None or secret is None:
            raise ConfigError(f"{', '.join(missing)}: not set, but the rest of the store is; set all three or none")
        try:
            url, bucket = _endpoint(settings.bucket_endpoint_url, ("http", "https"))
        except ValueError:
            legal = "http(s)://host, without user, query or fragment"
            raise ConfigError(f"BUCKET_ENDPOINT_URL: (hidden) is not allowed; legal: {legal}") from None
        return cls(url, settings.bucket_name or bucket, key_id.get_secret_value(), secret.get_secret_value())

    @classmethod
    def from_job(cls, raw: object, *, allow_private: bool = False) -> S3Config | None:
        """A job's `s3Config`: accessId, accessSecret, bucketName, endpointUrl. None if absent or empty.

        Raises BadInputError, which never shows a value. `allow_private` admits http, and trusts the endpoint.
        """
        if raw is None or raw == {}:
            return None
        if not isinstance(raw, Mapping):
            raise BadInputError(
                "s3Config", "(hidden)", "an object with accessId, accessSecret, bucketName, endpointUrl"
            )
        key_id = _text(raw, "accessId", MAX_SECRET_CHARS)
        secret = _text(raw, "accessSecret", MAX_SECRET_CHARS)
        given = _text(raw, "endpointUrl", MAX_URL_CHARS)
        try:
            url, bucket = _endpoint(given, ("http", "https") if allow_private else ("https",))
        except ValueError:
            raise BadInputError("s3Config.endpointUrl", "(hidden)", "https://host, without user or query") from None
        if raw.get("bucketName") is not None:
            bucket = _text(raw, "bucketName", MAX_BUCKET_CHARS)
            if not _BUCKET_NAME.fullmatch(bucket):
                raise BadInputError("s3Config.bucketName", "(hidden)", "3 to 63 letters, digits, dots, hyphens")
        return cls(url, bucket, key_id, secret, is_trusted=allow_private)

    @property
    def region(self) -> str:
        """The region that requests are signed for, read from the endpoint."""
        host = urlsplit(self.endpoint_url).hostname or ""
        if match := _AWS_HOST.fullmatch(host):
            return match["region"]
        if match := _RUNPOD_HOST.fullmatch(host):
            return match[1].upper()
        found = (pattern.fullmatch(host) for pattern in _REGION_HOSTS)
        return next((match[1] for match in found if match), DEFAULT_REGION)


def split_s3_url(url: str, field_name: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`; raises BadInputError."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme.lower() != "s3" or not _BUCKET_NAME.fullmatch(bucket) or not 1 <= len(key) <= MAX_KEY_CHARS:
        raise BadInputError(field_name, url, "s3://bucket/key")
    return bucket, key


def download(
    config: S3Config,
    bucket: str,
    key: str,
    path: Path,
    max_bytes: int,
    deadline_s: float,
    *,
    stop: threading.Event | None = None,
) -> int:
    """Write an object to `path` within `deadline_s` seconds from now; return its size in bytes.

    Blocks; `stop`, once set, ends it at the next bytes. `config` must be trusted. A download that breaks goes on
    where it stopped, if the object is still the same. Raises FetchError: not found, refused, larger than
    `max_bytes`, too slow; OSError if the disk is full.
    """
    _require_trust(config)
    stop = stop or threading.Event()
    end_s = time.monotonic() + deadline_s
    where = repr(f"s3://{bucket}/{key}"[:MAX_SHOWN_CHARS])
    pause_s = RETRY_PAUSE_S
    with _client(config) as client, path.open("wb") as file:
        tag = ""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            part = {"Range": f"bytes={file.tell()}-", "IfMatch": tag} if file.tell() and tag else {}
            try:
                answer = client.get_object(Bucket=bucket, Key=key, **part)
                tag = str(answer.get("ETag", ""))
                _receive(answer, file, max_bytes, end_s, stop, is_part=bool(part))
                return file.tell()
            except Exception as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                if not _is_passing(error) or attempt == MAX_ATTEMPTS or time.monotonic() + pause_s > end_s:
                    raise FetchError(f"{where}: {_reason(error)}") from None
            time.sleep(pause_s)
            pause_s *= 2
    raise AssertionError("the last attempt returns or raises")


def upload_bytes(
    config: S3Config, key: str, data: bytes, content_type: str, *, timeout_s: float = SEND_TIMEOUT_S
) -> str:
    """Store `data` under `key` in the configured bucket; return a link that lives LINK_LIFE_S seconds.

    Blocks, `timeout_s` per attempt at most. `config` must be trusted. Raises UploadError.
    """
    _require_trust(config)
    if config.bucket is None:
        raise UploadError("the store has no bucket: set BUCKET_NAME, or bucketName in s3Config")
    with _client(config, send_timeout_s=timeout_s, attempts=MAX_ATTEMPTS) as client:
        try:
            client.put_object(Bucket=config.bucket, Key=key, Body=data, ContentType=content_type)
        except Exception as error:
            raise UploadError(f"the store did not take the result: {_reason(error)}") from None
    return presigned_url(config, config.bucket, key)


def remove(config: S3Config, key: str) -> None:
    """Take what is under `key` out of the configured bucket; all is well if there is nothing.

    Blocks. `config` must be trusted. Raises UploadError.
    """
    _require_trust(config)
    with _client(config, attempts=MAX_ATTEMPTS) as client:
        try:
            client.delete_object(Bucket=config.bucket, Key=key)
        except Exception as error:
            raise UploadError(f"the store did not remove a result: {_reason(error)}") from None


def presigned_url(config: S3Config, bucket: str, key: str, *, method: str = "get", life_s: int = LINK_LIFE_S) -> str:
    """A link that gets or puts (`method`) one object for `life_s` seconds; signed here, nobody is asked."""
    with _client(config) as client:
        asked = {"Bucket": bucket, "Key": key}
        return str(client.generate_presigned_url(f"{method}_object", Params=asked, ExpiresIn=life_s))


class _BrokenError(Exception):
    """The connection ended before the object did."""


def _require_trust(config: S3Config) -> None:
    if not config.is_trusted:
        raise ConfigError("a store that came with a job is reached by links only (presigned_url)")


@contextmanager
def _client(config: S3Config, *, send_timeout_s: float = CONNECT_TIMEOUT_S, attempts: int = 1) -> Iterator[Any]:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise ConfigError(
            "a store is configured, but boto3 is not installed: pip install 'whisper-runpod[aws]'"
        ) from None
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=config.endpoint_url,
        region_name=config.region,
        aws_access_key_id=config.access_key_id,
        aws_secret_access_key=config.secret_access_key,
        config=Config(
            signature_version="s3v4",
            # urllib3 keeps the time for connecting as the limit for sending a body, which is one `sendall`.
            connect_timeout=send_timeout_s,
            read_timeout=READ_TIMEOUT_S,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            # Stores other than Amazon's refuse the checksums that newer SDKs add.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    with closing(client):
        yield client


def _receive(
    answer: Mapping[str, Any], file: BinaryIO, max_bytes: int, end_s: float, stop: threading.Event, *, is_part: bool
) -> None:
    """Append the body of an answer to `file`, or write it anew if it is the whole object."""
    if not is_part:
        file.seek(0)
        file.truncate()
    size = file.tell() + int(answer["ContentLength"])
    body = answer["Body"]
    # Only `read1` returns what has come; `read` waits for a full chunk, so a drip would outlive the deadline.
    read1 = body._raw_stream.read1
    with closing(body):
        if size > max_bytes:
            raise FetchError(f"{size} bytes are over the limit of {max_bytes}")
        while file.tell() < size:
            if time.monotonic() >= end_s:
                raise FetchError("the time for the download is over")
            if stop.is_set():
                raise FetchError("the download was stopped")
            chunk = read1(min(CHUNK_BYTES, size - file.tell()))
            if not chunk:
                raise _BrokenError
            file.write(chunk)


def _is_passing(error: Exception) -> bool:
    """True if another attempt may help: anything but an answer that says no."""
    status = _status(error)
    return not isinstance(error, SttError) and (status is None or status == 429 or status >= 500)


def _status(error: Exception) -> int | None:
    answer = getattr(error, "response", None)
    return answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None


def _reason(error: Exception) -> str:
    """Why a call failed, without anything that the store or a library put into its text."""
    if isinstance(error, SttError):
        return str(error)
    status = _status(error)
    if status is None:
        return f"the connection failed ({type(error).__name__.strip('_')})"
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
    return f"HTTP {status} {code}".strip() if _ERROR_CODE.fullmatch(code) else f"HTTP {status}"


def _endpoint(url: str, schemes: tuple[str, ...]) -> tuple[str, str | None]:
    """The endpoint, without a bucket that its host name begins with, and that bucket.

    Amazon's addresses are often given as `https://BUCKET.s3.REGION.amazonaws.com`. Raises ValueError.
    """
    parts = urlsplit(url.strip())
    _ = parts.port  # raises ValueError if it is none
    if parts.scheme not in schemes or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError
    match = _AWS_HOST.fullmatch(parts.hostname)
    if match is None or match["bucket"] is None:
        return url.strip().rstrip("/"), None
    return f"{parts.scheme}://{parts.hostname.removeprefix(match['bucket'] + '.')}", match["bucket"]


def _text(raw: Mapping[str, Any], key: str, most: int) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not 1 <= len(value) <= most or not value.isprintable():
        raise BadInputError(f"s3Config.{key}", "(hidden)", f"text of 1 to {most} characters")
    return value
