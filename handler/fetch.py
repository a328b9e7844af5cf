"""A job's audio, wherever it is, as a file that is gone when it is no longer needed.

Each recording gets a folder of its own that only this user can read; no name in it comes from outside. Knows how
to fetch, not what is in the file: that is the decoder's to find out in its own process. Invariants: at the end
of the context neither file nor connection is left, whatever ended it; what a process that was killed left is
removed by the next one; messages show no URL, key or speech.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import ssl
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.clock import Clock, MonotonicClock
from engine.errors import FetchError, StorageError
from handler.base64_audio import write_base64
from handler.download import FetchLimits, download_url
from handler.resolver import Resolver, SystemResolver, UnreachableError, run_abandonable
from handler.s3 import S3Config, download, presigned_url, split_s3_url
from handler.sniff import HEAD_BYTES, document_kind
from handler.sources import Source
from handler.timeouts import within

__all__ = ["FetchLimits", "Fetched", "Fetcher"]

_FOLDER_PREFIX = "whisper-audio-"
_FILE_NAME = "audio"
_FOLDER_ATTEMPTS = 5
"""A new folder is lost only to another worker that starts in the same microseconds."""
_LINK_LIFE_S = 3_600
"""How long a link to an object in a job's own store is valid: as long as the longest download may take."""


@dataclass(frozen=True)
class Fetched:
    """A recording on disk: `path` is valid within the context only; `took_s` are wall seconds."""

    path: Path
    n_bytes: int
    took_s: float


class Fetcher:
    """Fetches recordings; any number at the same time, in one event loop."""

    def __init__(
        self,
        limits: FetchLimits | None = None,
        *,
        folder: Path | None = None,
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`folder` is where recordings are kept meanwhile (None: the system's place for temporary files).

        Removes what killed workers of this user have left there.
        """
        self.limits = limits or FetchLimits()
        self._folder = folder
        self._resolver = resolver or SystemResolver()
        self._tls = tls
        self._clock = clock or MonotonicClock()
        _remove_orphans(folder or Path(tempfile.gettempdir()))

    @contextlib.asynccontextmanager
    async def open(self, source: Source, *, s3: S3Config | None = None) -> AsyncIterator[Fetched]:
        """Fetch a recording and keep it while the context lasts.

        Cancelling ends it at once. Raises BadInputError (base64, s3 address), FetchError (UnreachableError if a
        later try may do better), StorageError, ConfigError (no boto3).
        """
        began_s = self._clock.now_s()
        with contextlib.ExitStack() as stack:
            try:
                path = stack.enter_context(_own_folder(self._folder)) / _FILE_NAME
                n_bytes = await self._write(source, path, s3)
            except OSError as error:
                # What goes wrong on the network has a name of its own by now.
                raise StorageError(f"the recording cannot be kept on the worker's disk ({error.strerror})") from None
            yield Fetched(path, n_bytes, self._clock.now_s() - began_s)

    async def _write(self, source: Source, path: Path, s3: S3Config | None) -> int:
        if source.kind == "base64":
            with path.open("wb") as file:
                return await asyncio.to_thread(write_base64, source.value, file, source.field, self.limits.max_bytes)
        if source.kind == "s3":
            return await self._write_s3(source, path, s3)
        return await self._write_url(source.value, path)

    async def _write_url(self, url: str, path: Path) -> int:
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        with path.open("wb") as file:
            return await download_url(url, file, self.limits, self._resolver, self._tls)

    async def _write_s3(self, source: Source, path: Path, s3: S3Config | None) -> int:
        if s3 is None:
            raise FetchError(
                f"{source.field}: an s3:// address needs a store; give s3Config, or set BUCKET_ENDPOINT_URL"
            )
        bucket, key = split_s3_url(source.value, source.field)
        if not s3.is_trusted:
            # A stranger's store is reached as any URL of a stranger: by a link, at addresses that are checked.
            link = await run_abandonable(lambda: presigned_url(s3, bucket, key, life_s=_LINK_LIFE_S))
            return await self._write_url(link, path)
        n_bytes = await self._download(s3, bucket, key, path)
        with path.open("rb") as file:
            kind = document_kind(file.read(HEAD_BYTES))
        if kind is not None or n_bytes == 0:
            raise FetchError(f"{source.field}: the object is {kind or 'empty'}, not audio")
        return n_bytes

    async def _download(self, s3: S3Config, bucket: str, key: str, path: Path) -> int:
        """From the operator's store, in a thread that cannot be interrupted, but is told to stop and cleans up."""
        limits, stop = self.limits, threading.Event()

        def work() -> int:
            try:
                return download(s3, bucket, key, path, limits.max_bytes, limits.deadline_s, stop=stop)
            finally:
                if stop.is_set():
                    shutil.rmtree(path.parent, ignore_errors=True)  # whoever awaited this has gone, with the folder

        try:
            return await within(run_abandonable(work), limits.deadline_s)
        except asyncio.TimeoutError:
            raise UnreachableError(f"the store did not deliver within {limits.deadline_s:g} s") from None
        finally:
            stop.set()


@contextlib.contextmanager
def _own_folder(parent: Path | None) -> Iterator[Path]:
    """A new private folder, removed at the end. Raises OSError.

    Its lock tells that somebody uses it: the kernel gives that up however the process ends, whereas a process id
    in the name would come again, as the first in a container always does.
    """
    for _ in range(_FOLDER_ATTEMPTS):
        folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=parent))
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                stack.callback(os.close, _lock(folder))
                is_ours = folder.exists()
            except (BlockingIOError, FileNotFoundError):
                is_ours = False  # another worker has just looked for orphans
            except OSError:
                is_ours = True  # a file system without locks: nobody takes it for an orphan either
            if is_ours:
                yield folder
                return
    raise OSError(errno.EBUSY, "no folder of its own")


def _lock(folder: Path) -> int:
    """A descriptor that holds the lock of a folder, no link, while it is open.

    Raises OSError, as BlockingIOError if somebody else holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_orphans(parent: Path) -> None:
    """Remove this user's folders that no process holds any more; what cannot be removed is left."""
    for folder in parent.glob(f"{_FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            if folder.lstat().st_uid == os.getuid():
                stack.callback(os.close, _lock(folder))
                shutil.rmtree(folder, ignore_errors=True)
