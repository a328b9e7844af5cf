"""Large recordings go through S3 storage: uploaded once, read by a link that is valid for a day, then removed.

Its keys (BUCKET_*) reach its client alone. Links are made anew for each job, kept nowhere and hidden from all output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from builder.errors import AwsError, BuilderError
from builder.transcribe.inputs import secrets_of
from builder.transcribe.plan import LINK_VALID_S

if TYPE_CHECKING:
    from builder.runtime import Runtime
    from builder.settings import Settings

__all__ = ["FOLDER", "Store", "has_store", "s3_client"]

FOLDER = "whisper-transcribe"
"""Beginning of the names of objects: what is left behind is found, or ended by a rule of the bucket."""
_LIBRARIES = ("boto3", "botocore", "s3transfer", "urllib3")


def has_store(settings: Settings) -> bool:
    """True if everything that storage needs is set."""
    return all((settings.bucket_url, settings.bucket_name, settings.bucket_key_id, settings.bucket_secret))


def s3_client(run: Runtime) -> Any:
    """A client for the storage of BUCKET_*. Raises NotAvailableError without boto3, UsageError."""
    from builder.aws.session import s3

    return s3(run)


class Store:
    """The bucket. `client` is boto3's for S3, or one like it; None: made when first needed."""

    def __init__(self, run: Runtime, client: Any = None) -> None:
        self._run = run
        self._made = client

    def put(self, path: Path, key: str) -> None:
        """Upload a file. Raises AwsError, or what making the client raises."""
        with self._told("upload"):
            self._client.upload_file(str(path), self._run.settings.bucket_name, key)

    def link(self, key: str) -> str:
        """An address from which the object can be read for LINK_VALID_S; it is a secret."""
        with self._told("make a link"):
            params = {"Bucket": self._run.settings.bucket_name, "Key": key}
            url = str(self._client.generate_presigned_url("get_object", Params=params, ExpiresIn=LINK_VALID_S))
        for secret in secrets_of(url):
            self._run.redactor.add(secret)
        return url

    def remove(self, key: str) -> None:
        """Remove the object; one that is gone already is fine."""
        with self._told("remove"):
            self._client.delete_object(Bucket=self._run.settings.bucket_name, Key=key)

    @property
    def _client(self) -> Any:
        if self._made is None:
            self._made = s3_client(self._run)
        return self._made

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Errors of the library in our words, without what they may quote."""
        try:
            yield
        except BuilderError:
            raise
        except Exception as error:
            if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _LIBRARIES:
                raise
            said = getattr(error, "response", None)
            code = said.get("Error", {}).get("Code") if isinstance(said, dict) else None
            host = urlsplit(self._run.settings.bucket_url or "").hostname
            raise AwsError(
                f"storage at {host}: cannot {what}: {code or type(error).__name__}",
                hint="check BUCKET_*; without BUCKET_ENDPOINT_URL large recordings go in pieces",
            ) from None
