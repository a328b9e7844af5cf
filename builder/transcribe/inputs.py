"""What is to be transcribed: files, folders and URLs of the command line -> a list of sources.

Looks at names and sizes, never into files. Invariants: a file comes once, however often it was named; hidden files
and folders, and what is no media by its name, are left out of folders; a folder that links to itself ends.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from builder.console import printable
from builder.errors import NotFoundError, UsageError

__all__ = ["MAX_INPUTS", "MEDIA", "OUTPUTS", "Source", "find_sources", "secrets_of", "shown_url"]

_AUDIO = ("aac", "aif", "aiff", "amr", "au", "caf", "flac", "m4a", "m4b", "mka", "mp2", "mp3", "oga", "ogg", "opus")
_OTHER_AUDIO = ("wav", "wave", "weba", "wma")
_VIDEO = ("3gp", "avi", "flv", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv")
MEDIA = frozenset(f".{name}" for name in (*_AUDIO, *_OTHER_AUDIO, *_VIDEO))
"""What a folder's files are recognised by."""
OUTPUTS = frozenset((".srt", ".vtt", ".txt", ".json"))
"""What is written, and never read."""
MAX_INPUTS = 5_000
MAX_URL_CHARS = 8_192
MARK_CHARS = 12
_NO_NAME = "recording"


@dataclass(frozen=True)
class Source:
    """One recording: a file or a URL.

    `shown` names it for people, without secrets. `home` is the folder beside which transcripts belong; `under` is its
    place below a folder that was named, for `--out`, without a suffix; `suffix` is the rest of its name.
    """

    shown: str
    home: Path
    under: PurePosixPath
    suffix: str
    path: Path | None = None
    url: str | None = None
    n_bytes: int = 0
    modified_ns: int = 0

    @property
    def mark(self) -> str:
        """Tells it from other files and URLs, and does not change with what is in it."""
        place = self.url or str(self.path)
        return hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:MARK_CHARS]

    @property
    def identity(self) -> list[object]:
        """What a remembered result depends on."""
        if self.path is None:
            return ["url", self.url]
        return ["file", str(self.path), self.n_bytes, self.modified_ns]


def find_sources(
    given: Sequence[str], base: Path, *, recursive: bool = False, warn: Callable[[str], None] = lambda text: None
) -> list[Source]:
    """The recordings that `given` names, folders' files by name; relative paths start at `base`.

    `warn` hears of a folder's media files that are empty, and left out.
    Raises NotFoundError for what is not there or a folder without media, UsageError for what is no recording.
    """
    if not given:
        raise UsageError("FILE|URL|DIR is missing", hint="python -m builder transcribe talk.mp3")
    found: dict[str, Source] = {}
    for text in given:
        for source in _sources(text, base, recursive=recursive, warn=warn):
            found.setdefault(source.url or str(source.path), source)
            if len(found) > MAX_INPUTS:
                raise UsageError(f"{text}: more than {MAX_INPUTS:,} recordings at once", hint="name fewer at a time")
    return list(found.values())


def shown_url(url: str) -> str:
    """A URL without user, password, query and fragment, which may hold keys."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def secrets_of(url: str) -> list[str]:
    """The parts of a URL that must not be shown."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    values = [pair.partition("=")[2] for pair in parts.query.split("&")]
    # Short values are no keys, and would blot out innocent text.
    return [each for each in (user, parts.query, *(value for value in values if len(value) >= 16)) if each]


def _sources(text: str, base: Path, *, recursive: bool, warn: Callable[[str], None]) -> Iterator[Source]:
    if not text.strip():
        # A variable that is not set must not stand for the whole folder.
        raise UsageError("FILE|URL|DIR: one is empty", hint="name a file, a folder or a URL")
    if "://" in text[:16]:
        yield _of_url(text, base)
        return
    path = base / Path(text).expanduser()
    try:
        info = path.stat()
    except OSError as error:
        raise NotFoundError(f"{text}: {error.strerror}", hint="name a file, a folder or a URL") from None
    if not stat.S_ISDIR(info.st_mode):
        yield _of_file(path, PurePosixPath(path.name), text)
        return
    files = list(_walk(path, recursive=recursive, warn=warn))
    if not files:
        more = "" if recursive else "; folders in it are looked into with --recursive"
        raise NotFoundError(f"{text}: no recording is in this folder{more}", hint="name the files one by one")
    for file in files:
        under = PurePosixPath(file.relative_to(path).as_posix())
        yield _of_file(file, under, str(PurePosixPath(text) / under))


def _of_url(text: str, base: Path) -> Source:
    try:
        parts = urlsplit(text)
        is_web = parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_web = False
    if not is_web or len(text) > MAX_URL_CHARS or not text.isprintable() or " " in text:
        scheme = text.partition("://")[0]
        raise UsageError(
            f"URL: {scheme}://... of {len(text)} characters is not allowed; legal: http or https, up to "
            f"{MAX_URL_CHARS} characters, no blanks"
        )
    if "@" in parts.netloc:
        raise UsageError("URL: it has a user in it, which workers refuse; legal: https://host/path", hint="")
    # What a server calls it may hold anything a file's name must not.
    name = "".join(char if char.isalnum() or char in "-_. " else "_" for char in unquote(parts.path.rpartition("/")[2]))
    name = name.lstrip(".")[:120] or _NO_NAME
    stem, dot, suffix = name.rpartition(".")
    under = PurePosixPath(stem if stem else name)
    return Source(shown_url(text), base, under, dot + suffix if stem else "", url=text)


def _of_file(path: Path, under: PurePosixPath, shown: str) -> Source:
    try:
        info = path.stat()
    except OSError as error:
        raise NotFoundError(f"{shown}: {error.strerror}", hint="") from None
    if not stat.S_ISREG(info.st_mode):
        raise UsageError(f"{shown}: is no regular file", hint="name a recording")
    if path.suffix.lower() in OUTPUTS:
        raise UsageError(f"{shown}: is a transcript by its name, no recording", hint="name a recording")
    if info.st_size == 0:
        raise UsageError(f"{shown}: is empty", hint="name a recording")
    # Of a link its own place: transcripts belong beside it.
    absolute = path.parent.resolve() / path.name
    return Source(
        # One line, whatever the name.
        printable(shown.replace("\n", "\\n").replace("\t", "\\t")),
        absolute.parent,
        under.with_suffix("") if path.suffix else under,
        path.suffix,
        path=absolute,
        n_bytes=info.st_size,
        modified_ns=info.st_mtime_ns,
    )


def _walk(folder: Path, *, recursive: bool, warn: Callable[[str], None]) -> Iterator[Path]:
    """Media files by name, those of a folder before those of folders in it."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            info = here.stat()
            entries = sorted(here.iterdir(), key=lambda each: each.name)
        except OSError as error:
            raise NotFoundError(f"{here}: {error.strerror}", hint="") from None
        if (info.st_dev, info.st_ino) in seen:
            continue
        seen.add((info.st_dev, info.st_ino))
        visible = [each for each in entries if not each.name.startswith(".")]
        yield from (each for each in visible if _is_media(each, warn))
        if recursive:
            waiting += reversed([each for each in visible if each.is_dir()])


def _is_media(path: Path, warn: Callable[[str], None]) -> bool:
    """By its name; what is empty (a download that has not begun) is none."""
    if path.suffix.lower() not in MEDIA:
        return False
    try:
        is_empty = path.is_file() and path.stat().st_size == 0
        if is_empty:
            warn(f"{path}: is empty, and left out")
        return path.is_file() and not is_empty
    except OSError as error:
        warn(f"{path}: {error.strerror}; it is left out")
        return False
