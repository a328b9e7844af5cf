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
from handler.upload import Uploader

__all__ = ["Delivery"]


@dataclass(frozen=True)
class Delivery:
    """How results leave this worker; `store` is the operator's, if there is one."""

    uploader: Uploader
    store: S3Config | None
    max_bytes: int

    async def deliver(self, output: Mapping[str, Any], request: JobRequest, store: S3Config | None) -> dict[str, Any]:
        """The answer for `output`, which may be uploaded meanwhile; `store` is the job's own.

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
            return await asyncio.to_thread(shrink, result, self.max_bytes)
        try:
            link = await self._upload(await asyncio.to_thread(encoded, result), request, target)
        except UploadError as error:
            warned = _warned(result, f"the result was not uploaded: {error}")
            return await asyncio.to_thread(shrink, warned, self.max_bytes)
        return await asyncio.to_thread(lambda: summary(result, self.max_bytes, link=link))

    def _measured(self, output: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        result: dict[str, Any] = to_safe(output)
        return result, posted_bytes(result) > self.max_bytes

    async def _upload(self, data: bytes, request: JobRequest, target: S3Config | None) -> str | None:
        if request.upload_url is not None:
            await self.uploader.put(request.upload_url, data)
            return None
        if target is None:
            raise UploadError("no store is configured; set BUCKET_ENDPOINT_URL, or give upload_url")
        return await self.uploader.store(target, data)


def _warned(result: Mapping[str, Any], warning: str) -> dict[str, Any]:
    return {**result, "warnings": [*result.get("warnings", []), warning]}
