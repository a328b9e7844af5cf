"""The Hugging Face hub, as `engine.models.Hub`; runs in the engine child only.

Apart from `engine.whisper` and its helpers this is the only import of faster_whisper, for its table
of names, and the only one of huggingface_hub. Logs names and percentages; never a token or an address.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
from pathlib import Path
from typing import Any

from engine.models import HubError

__all__ = ["MODEL_FILES", "HuggingFaceHub", "progress_bar"]

_log = logging.getLogger(__name__)

MODEL_FILES = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")
"""What faster-whisper itself fetches of a repository."""
LOG_STEP_PERCENT = 10
MIN_LOGGED_BYTES = 10 << 20
"""The total grows as the sizes of files become known; below this only the small files are."""


class HuggingFaceHub:
    """Names from faster-whisper's own table, files through huggingface_hub."""

    def known_names(self) -> tuple[str, ...]:
        """Short names of models, such as `small.en`."""
        return tuple(_table())

    def repo_id(self, name: str) -> str | None:
        """`owner/name` of a short name; None if it is not known."""
        return _table().get(name)

    def cached(self, repo_id: str, cache_dir: Path) -> Path | None:
        """The snapshot that `main` names in a cache, or else the newest one; no network.

        The layout is documented (Hugging Face, "Understand caching"). RunPod's host cache pins a
        commit and need not have a `main`.
        """
        repository = cache_dir / f"models--{repo_id.replace('/', '--')}"
        try:
            main = repository / "snapshots" / (repository / "refs" / "main").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            main = None
        if main is not None and main.is_dir():
            return main
        try:
            snapshots = [path for path in (repository / "snapshots").iterdir() if path.is_dir()]
            return max(snapshots, key=lambda path: path.stat().st_mtime, default=None)
        except OSError:
            return None

    def download(self, repo_id: str, cache_dir: Path) -> Path:
        """Fetch a repository, or what is missing of it; raises HubError."""
        import huggingface_hub

        _log.info("downloading %s into %s", repo_id, cache_dir)
        bar = None if sys.stderr is not None and sys.stderr.isatty() else progress_bar(repo_id, _log)
        try:
            found = huggingface_hub.snapshot_download(
                repo_id, cache_dir=cache_dir, allow_patterns=list(MODEL_FILES), tqdm_class=bar
            )
        except Exception as error:
            # The edge of three libraries (hub, HTTP, Xet); told to whoever asked for the model.
            raise HubError(_reason(error)) from error
        return Path(found)


def _table() -> dict[str, str]:
    import faster_whisper.utils

    table: dict[str, str] = faster_whisper.utils._MODELS
    return table


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "its owner wants a licence to be accepted; do so, and set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub has no such model, or it is private (then set HF_TOKEN)"
    for each in (error, error.__cause__):
        status = getattr(getattr(each, "response", None), "status_code", None)
        if status is not None:
            return f"the hub answers with HTTP status {status}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "the hub cannot be reached"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def progress_bar(name: str, log: logging.Logger) -> Any:
    """A tqdm class that, instead of drawing, logs a line every LOG_STEP_PERCENT of the bytes."""
    from tqdm.auto import tqdm

    class LoggingBar(tqdm):  # type: ignore[misc]
        reached_percent = 0
        monitor_interval = 0  # no thread that redraws

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            quiet = {"file": io.StringIO(), "disable": False, "mininterval": 0, "miniters": 1}
            super().__init__(*args, **{**kwargs, **quiet})

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            if self.unit == "B" and (self.total or 0) >= MIN_LOGGED_BYTES:
                percent = int(100 * min(self.n, self.total) / self.total)
                percent -= percent % LOG_STEP_PERCENT
                if percent > LoggingBar.reached_percent:
                    LoggingBar.reached_percent = percent
                    log.info("%s: %d %% of %.0f MB", name, percent, self.total / 1e6)
            return True

    # tqdm's own lock is one between processes, and would start a helper process for it.
    LoggingBar.set_lock(threading.RLock())
    return LoggingBar
