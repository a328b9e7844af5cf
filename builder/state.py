"""What the builder remembers between commands: `artifacts/` beside `.env`.

* `pod.json`: the pod that verbs without an id mean; the seed project's keys and more.
* `pending.json`: names of pods whose creation was begun and whose end is not known. Written before the request, so
  that a killed process leaves a trace of what it may have left running.
* `endpoint.json`, `ec2.json`: the endpoint and the EC2 machine that verbs without an id mean.
* `pending-endpoints.json`, `pending-templates.json`, `pending-ec2.json`: as `pending.json`, for these.
* `build.json`, `push.json`: the last image. `validated.json`: digests of images that ran on a GPU.
* `events.jsonl`: what was done, when and to what.

Files are replaced, never half written, and readable by their owner alone. No secret is ever handed to this module.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from builder.errors import BuilderError, DiskFullError

__all__ = ["Pending", "State", "iso_time", "write_private"]


Pending = Literal["pending", "pending-endpoints", "pending-templates", "pending-ec2"]
"""Documents of what may come to exist: pods, endpoints, templates, EC2 machines."""

LOCK_TRIES, LOCK_PAUSE_S = 200, 0.02
"""Four seconds in all; what is done under the lock takes milliseconds."""


def iso_time(unix_s: float) -> str:
    """`2026-01-31T12:00:00Z`."""
    return datetime.fromtimestamp(unix_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_private(path: Path, text: str) -> None:
    """Replace `path` in one step, mode 0600. Raises DiskFullError, BuilderError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        kind = DiskFullError if error.errno in (28, 122) else BuilderError
        raise kind(f"{path} cannot be written: {error.strerror}") from None


def _lock(descriptor: int) -> None:
    """Wait for the lock, and go on without it after LOCK_TRIES: whoever has it may have been stopped."""
    for _ in range(LOCK_TRIES):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)


class State:
    """The files under `folder` (usually `artifacts`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> dict[str, Any] | None:
        """The document `name`.json; None if there is none or it is damaged."""
        try:
            return self._load(name)
        except (OSError, ValueError, RecursionError):
            return None

    def is_damaged(self, name: str) -> bool:
        """True if `name`.json is there and cannot be read: it may tell of something that is paid for."""
        try:
            self._load(name)
        except (OSError, ValueError, RecursionError):
            return True
        return False

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        """Replace the document `name`.json."""
        write_private(self.folder / f"{name}.json", json.dumps(document, indent=2, default=str) + "\n")

    def remove(self, name: str) -> None:
        """Forget the document `name`.json."""
        # A file that cannot be removed, or is none, is as little a reason to stop as one that is not there.
        with suppress(OSError):
            (self.folder / f"{name}.json").unlink()

    def pending(self, kind: Pending = "pending") -> dict[str, str]:
        """Names of things whose creation was begun and not brought to an end, with the time it began."""
        return {str(name): str(began) for name, began in (self.read(kind) or {}).items()}

    def begin_pending(self, name: str, now_s: float, kind: Pending = "pending") -> None:
        """Remember that a thing of this name may come to exist."""
        with self._alone():
            self.write(kind, {**self.pending(kind), name: iso_time(now_s)})

    def end_pending(self, name: str, kind: Pending = "pending") -> None:
        """It exists and is recorded, or it is certain that it does not."""
        with self._alone():
            pending = self.pending(kind)
            if name not in pending:
                return
            left = {other: began for other, began in pending.items() if other != name}
            if left:
                self.write(kind, left)
            else:
                self.remove(kind)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of the processes in this folder, be the only one here: two deploys must not lose each other's names."""
        descriptor = None
        try:
            # Without a lock (a disk that is full, one of a network) it is still better to write than not to.
            with suppress(OSError):
                self.folder.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
                _lock(descriptor)
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def event(
        self, now_s: float, action: str, kind: str, resource_id: str, *, provider: str = "runpod", **details: Any
    ) -> None:
        """Append a line to `events.jsonl`; `kind` is pod, image, ..., `action` created, stopped, ..."""
        line = {
            "timestamp": iso_time(now_s),
            "type": kind,
            "provider": provider,
            "resource_id": resource_id,
            "action": action,
            "host": socket.gethostname(),
            "details": details,
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                file.write(json.dumps(line, default=str) + "\n")
        except OSError:
            # A diary must not stop what it tells of: a pod that cannot be written down must still be stopped.
            return

    def events(self) -> Iterator[dict[str, Any]]:
        """All events, oldest first; damaged lines are left out."""
        try:
            lines = (self.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event

    def _load(self, name: str) -> dict[str, Any] | None:
        """None if there is no such file. Raises OSError, ValueError, RecursionError."""
        try:
            document = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(document, dict):
            raise ValueError("no object")
        return document
