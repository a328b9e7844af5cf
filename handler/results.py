"""Hands a result over: as it is, shrunk, or uploaded with a short answer in its place.

Invariants: what is returned is JSON and within the limit; a result that could not be uploaded is not lost while
it, or its text, fits into the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import UploadError
from handler.budget import encoded, posted_bytes, shrink, summary
from handler.s3 import S3Config
from handler.safe_json import to_safe
from handler.schema_types import JobRequest
from handler.timeouts import within
from handler.upload import Uploader

__all__ = ["LEAST_UPLOAD_S", "Delivery"]

LEAST_UPLOAD_S = 0.5
"""What an upload gets even if the deadline has passed: half of the margin that the shortest limit leaves."""


@dataclass(frozen=True)
class Delivery:
    """How results leave this worker; `store` is the operator's, if there is one."""

    uploader: Uploader
    store: S3Config | None
    max_bytes: int

    async def deliver(
        self, output: Mapping[str, Any], request: JobRequest, store: S3Config | None, *, limit_s: float | None = None
    ) -> dict[str, Any]:
        """The answer for `output`, which may be uploaded meanwhile; `store` is the job's own.

        `limit_s` is the time for an upload, but never less than LEAST_UPLOAD_S; None: the uploader's own limits.

        A result goes to `upload_url` if the job gave one; into a store if the job asked for that, or if it is too
        large for the platform. Raises ResultNotJsonError, ResultTooLargeError, and UploadError if nothing is left.
        """
        target = store or self.store
        if target is not None and target.bucket is None:
            target = None
        # In a thread: the text of ten hours takes a second, and other jobs share this loop.
        result, is_too_large = await asyncio.to_thread(self._measured, output)
        is_wanted = request.upload or (is_too_large and target is not None and request.upload is None)
        if request.upload_url is None and not is_wanted:
            return await asyncio.to_thread(shrink, result, self.max_bytes, strict=request.strict)
        try:
            data = await asyncio.to_thread(encoded, result)
            link = await self._upload_in_time(data, request, target, limit_s)
        except UploadError as error:
            warned = _warned(result, f"the result was not uploaded: {error}")
            return await asyncio.to_thread(shrink, warned, self.max_bytes, strict=request.strict)
        return await asyncio.to_thread(lambda: summary(result, self.max_bytes, link=link, strict=request.strict))

    def _measured(self, output: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        result: dict[str, Any] = to_safe(output)
        return result, posted_bytes(result) > self.max_bytes

    async def _upload_in_time(
        self, data: bytes, request: JobRequest, target: S3Config | None, limit_s: float | None
    ) -> str | None:
        work = self._upload(data, request, target)
        if limit_s is None:
            return await work
        try:
            return await within(work, max(limit_s, LEAST_UPLOAD_S))
        except asyncio.TimeoutError:
            raise UploadError("the job's deadline left no time for it") from None

    async def _upload(self, data: bytes, request: JobRequest, target: S3Config | None) -> str | None:
        if request.upload_url is not None:
            await self.uploader.put(request.upload_url, data)
            return None
        if target is None:
            raise UploadError("no store is configured; set BUCKET_ENDPOINT_URL, or give upload_url")
        return await self.uploader.store(target, data)


def _warned(result: Mapping[str, Any], warning: str) -> dict[str, Any]:
    return {**result, "warnings": [*result.get("warnings", []), warning]}
