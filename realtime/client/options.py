"""The command line of the client: arguments and environment to one frozen plan.

Pure but for reading the token file and looking at the paths named. Invariants: a plan is complete and
consistent, or an error tells which option is wrong; the token comes from a file or the
environment, and a URL that carries a secret is refused without being printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

from engine.errors import BadInputError
from engine.formats import FORMATS
from realtime.client.errors import UsageError
from realtime.client.messages import ClientOptions
from realtime.client.sources import check_file

__all__ = ["DEFAULT_URL", "TOKEN_VARIABLE", "Plan", "make_parser", "make_plan", "read_token"]

DEFAULT_URL = "ws://127.0.0.1:9090"
DEFAULT_PORT = 9090
TOKEN_VARIABLE = "WHISPER_AUTH_TOKEN"  # noqa: S105 - the name of a variable
MAX_TOKEN_CHARS = 512
"""The server's own limit for its secret."""
MIN_CHUNK_MS, MAX_CHUNK_MS = 10, 1_000
"""Smaller chunks are mostly headers; bigger ones hold words back."""
MIN_SPEED, MAX_SPEED = 0.1, 100.0
SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
SECRET_KEYS = ("token", "key", "api_key", "apikey", "access_token", "auth")

EXAMPLES = """examples:
  %(prog)s talk.mp3                              captions on the screen
  %(prog)s --fast talk.mp3 --output talk.srt     subtitles as fast as the server can
  %(prog)s wss://POD-9090.proxy.runpod.net --mic --token-file token.txt
  %(prog)s *.wav --output-dir out --format vtt   one file each
  %(prog)s talk.wav --json | jq .                every update as a line of JSON

exit codes: 0 all audio transcribed, 1 the stream broke, 2 wrong usage or unreadable file,
3 cannot connect, 4 unauthorized, 5 server full, 130 interrupted (after the last words)"""


@dataclass(frozen=True)
class Plan:
    """What one run does. `documents` has one path per source, "-" for standard output, or is empty."""

    url: str
    options: ClientOptions
    files: tuple[Path, ...]
    is_fast: bool
    chunk_ms: int
    display: str
    format_name: str
    documents: tuple[Path, ...]
    speed: float = 1.0
    """Seconds of a file sent per second."""

    @property
    def writes_stdout(self) -> bool:
        """True if standard output belongs to a document."""
        return Path("-") in self.documents


def make_parser() -> argparse.ArgumentParser:
    """All options; spellings of WhisperLive's run_client.py are accepted beside our own."""
    parser = argparse.ArgumentParser(
        prog="python -m realtime.client",
        usage="%(prog)s [URL] FILE... | --mic  [options]",
        description=f"Transcribe audio files or a microphone on a live server (default {DEFAULT_URL}).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("targets", nargs="*", metavar="[URL] FILE", help="server address (ws:// or wss://) and media files")
    add("-f", "--files", nargs="+", default=[], metavar="FILE", help="more files")
    add("--mic", action="store_true", help="transcribe the microphone until Ctrl-C")
    _add_server(parser.add_argument_group("server"))
    _add_speech(parser.add_argument_group("speech"))
    _add_output(parser.add_argument_group("output"))
    return parser


def _add_server(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-s", "--host", "--server", metavar="HOST", help="instead of a URL: host name")
    add("-p", "--port", type=int, metavar="PORT", help=f"instead of a URL: port (default {DEFAULT_PORT})")
    add("--use_ssl", "--use-ssl", action="store_true", help="instead of a URL: use wss://")
    add("--token-file", type=Path, metavar="FILE", help=f"file with the secret (default: {TOKEN_VARIABLE}, .env too)")


def _add_speech(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-l", "--language", "--lang", metavar="CODE", help="language spoken (default: detect)")
    add("--task", choices=("transcribe", "translate"), default="transcribe", help="translate gives English text")
    add("-t", "--translate", action="store_const", const="translate", dest="task", help="same as --task translate")
    add("-m", "--model", help="model to ask for (default: the server's own)")
    add("--prompt", "--initial-prompt", help="text that sets names and style")
    add("--hotwords", help="words to expect")
    add("--word-timestamps", action="store_true", help="ask for the time of each word (in --json, --format json)")
    add("--use-vad", "--use_vad", action="store_true", default=True, dest="use_vad", help="skip silence (default)")
    add("--no-vad", action="store_false", dest="use_vad", help="decode silence too")


def _add_output(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--fast", action="store_true", help="send as fast as the server reads, not at the speed of speech")
    add("--speed", type=float, default=1.0, metavar="X", help="send X times as fast as speech (default %(default)g)")
    add("--chunk-ms", type=int, default=100, metavar="MS", help="audio per message (default %(default)s)")
    add("-o", "--output", "--output_file", metavar="FILE", help="write the transcript; - is standard output")
    add("--output-dir", type=Path, metavar="DIR", help="write one transcript per file")
    add("--format", choices=tuple(FORMATS), help="default: by the name of FILE, else txt")
    add("--json", action="store_true", help="print every update as one line of JSON")
    add("-q", "--quiet", action="store_true", help="print errors only")
    # Never plays audio, so muting it is granted.
    add("-a", "--mute_audio_playback", action="store_true", help=argparse.SUPPRESS)


def make_plan(args: argparse.Namespace, environ: Mapping[str, str]) -> Plan:
    """Check the options against each other and against the file system.

    Raises UsageError, BadInputError, or SourceError for a file that cannot be read.
    """
    urls = [target for target in args.targets if urlsplit(target).scheme in SCHEMES and "://" in target]
    files = tuple(Path(name) for name in [*(t for t in args.targets if t not in urls), *args.files])
    url = _url(urls, args)
    if bool(files) == args.mic:
        raise UsageError("give either files or --mic" if files else "give files to transcribe, or --mic; see --help")
    if not MIN_CHUNK_MS <= args.chunk_ms <= MAX_CHUNK_MS:
        raise BadInputError("--chunk-ms", args.chunk_ms, f"{MIN_CHUNK_MS} to {MAX_CHUNK_MS}")
    if not MIN_SPEED <= args.speed <= MAX_SPEED:
        raise BadInputError("--speed", args.speed, f"{MIN_SPEED:g} to {MAX_SPEED:g}")
    if args.speed != 1.0 and (args.fast or args.mic):
        raise UsageError("--speed is for files, and goes without --fast")
    if args.json and args.quiet:
        raise UsageError("give either --json or --quiet")
    for path in files:
        check_file(path)
    format_name, documents = _documents(args, files)
    return Plan(
        url=url,
        options=ClientOptions(
            language=args.language,
            task=args.task,
            model=args.model,
            use_vad=args.use_vad,
            prompt=args.prompt,
            hotwords=args.hotwords,
            word_timestamps=args.word_timestamps,
            token=read_token(args.token_file, environ),
        ),
        files=files,
        is_fast=args.fast,
        chunk_ms=args.chunk_ms,
        display="json" if args.json else "quiet" if args.quiet else "auto",
        format_name=format_name,
        documents=documents,
        speed=args.speed,
    )


def _url(urls: Sequence[str], args: argparse.Namespace) -> str:
    parts_given = args.host is not None or args.port is not None or args.use_ssl
    if len(urls) > 1 or (urls and parts_given):
        raise UsageError("give one server: a URL, or --host, --port and --use_ssl")
    if not urls:
        return _url_of_parts(args.host, args.port, args.use_ssl)
    url = urls[0]
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"the URL cannot be read ({error}); it looks like ws://HOST:PORT") from None
    if not host:
        raise UsageError("the URL names no host; it looks like ws://HOST:PORT")
    secrets = [key for key in parse_qs(parts.query) if key.lower() in SECRET_KEYS]
    if parts.username is not None or secrets:
        raise UsageError(f"the URL holds a secret; URLs end up in logs, so use --token-file or {TOKEN_VARIABLE}")
    return urlunsplit(parts._replace(scheme=SCHEMES[parts.scheme], fragment=""))


def _url_of_parts(host: str | None, port: int | None, use_ssl: bool) -> str:
    name = host or "127.0.0.1"
    if not name.isascii() or not name.isprintable() or set(name) & set("/@?# "):
        raise BadInputError("--host", name, "a host name or address")
    if port is not None and not 1 <= port <= 65_535:
        raise BadInputError("--port", port, "1 to 65535")
    shown = f"[{name}]" if ":" in name and not name.startswith("[") else name
    return f"{'wss' if use_ssl else 'ws'}://{shown}:{port or DEFAULT_PORT}"


def read_token(path: Path | None, environ: Mapping[str, str]) -> str | None:
    """The secret in the first line of `path`, else that of TOKEN_VARIABLE, else None.

    Raises BadInputError, without the secret, for one that cannot be sent in a header.
    """
    source = TOKEN_VARIABLE if path is None else f"--token-file {path}"
    if path is None:
        token = environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return None
    else:
        try:
            with path.open(encoding="utf-8") as file:
                token = file.readline(MAX_TOKEN_CHARS + 2).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise BadInputError("--token-file", str(path), f"a readable file ({reason})") from None
    if not 1 <= len(token) <= MAX_TOKEN_CHARS or not token.isascii() or not token.isprintable():
        raise BadInputError(source, "(hidden)", f"1 to {MAX_TOKEN_CHARS} printable ASCII characters")
    return token


def _documents(args: argparse.Namespace, files: Sequence[Path]) -> tuple[str, tuple[Path, ...]]:
    if args.output is not None and args.output_dir is not None:
        raise UsageError("give either --output or --output-dir")
    if args.output_dir is not None:
        if not args.output_dir.is_dir():
            raise BadInputError("--output-dir", str(args.output_dir), "an existing directory")
        return args.format or "txt", _names(args.output_dir, files, args.format or "txt")
    if args.output is None and args.format is None:
        return "txt", ()
    output = Path(args.output or "-")
    if len(files) > 1:
        raise UsageError("several files need --output-dir")
    if output == Path("-"):
        if args.json:
            raise UsageError("--json needs standard output for itself: give --output FILE")
    elif output.is_dir() or not output.absolute().parent.is_dir():
        raise BadInputError("--output", str(output), "a file in an existing directory")
    extension = output.suffix.lower().lstrip(".")
    return args.format or (extension if extension in FORMATS else "txt"), (output,)


def _names(directory: Path, files: Sequence[Path], extension: str) -> tuple[Path, ...]:
    stems = [path.stem for path in files] or ["microphone"]
    if len(set(stems)) < len(stems):
        stems = [path.name for path in files]
    if len(set(stems)) < len(stems):
        raise UsageError("--output-dir: two of the files have the same name")
    return tuple(directory / f"{stem}.{extension}" for stem in stems)
