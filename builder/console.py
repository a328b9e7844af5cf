"""What the user sees: results on stdout, everything else on stderr, nothing secret on either.

`--json` prints one JSON document on stdout; tables and sentences are for people. Notes and progress go to stderr: a
spinner on a terminal, lines elsewhere. `NO_COLOR`, `TERM=dumb` and pipes switch colours off. Knows no verb.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

from builder.errors import BuilderError, InterruptError, UsageError
from builder.redact import Redactor

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

__all__ = ["Console", "Task", "as_json", "printable"]

PIPE_COLUMNS = 160
"""Width of tables where no terminal tells: wide enough that nothing is cut."""

MAX_DEPTH = 200
"""Of documents that are shown: a worker's output may be anything."""


class Task:
    """Something that takes a while; `update` says how far it is."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last = ""

    def update(self, text: str) -> None:
        """Say where it is now; the same text again is silent."""
        if text != self._last:
            self._last = text
            self._say(text)


def printable(text: str) -> str:
    """`text` with whatever could move a cursor, set a clipboard or turn text round written as an escape.

    Names, log lines and reasons come from other machines. Line ends and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text
    )


def encodable(text: str, stream: TextIO) -> str:
    """`text` with what the stream's encoding does not have written as an escape."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def as_json(document: Mapping[str, Any], redactor: Redactor, *, indent: int | None = None) -> str:
    """JSON of `document`, secrets taken out of its values (never out of the finished text: that could break it)."""
    text = json.dumps(_cleaned(document, redactor), indent=indent, ensure_ascii=False, default=str)
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def _cleaned(value: Any, redactor: Redactor, depth: int = 0) -> Any:
    if depth > MAX_DEPTH and isinstance(value, (Mapping, list, tuple)):
        return "... (nested too deeply to be shown)"
    if isinstance(value, Mapping):
        return {str(name): _cleaned(each, redactor, depth + 1) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(each, redactor, depth + 1) for each in value]
    return value if isinstance(value, (int, float)) or value is None else redactor.clean(str(value))


class _Forgiving:
    """A stream to which writing never fails: what tells of a clean-up must not stop it where a terminal was closed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(encodable(text, self._stream))
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Console:
    """The one place that writes to the user."""

    def __init__(
        self,
        redactor: Redactor,
        *,
        as_json: bool = False,
        quiet: bool = False,
        stdin: TextIO | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._redactor = redactor
        self._stdin = stdin or sys.stdin
        self._stdout = stdout or sys.stdout
        self._stderr = cast("TextIO", _Forgiving(stderr or sys.stderr))

    # Results

    def result(self, document: Mapping[str, Any], show: Callable[[], None] | None = None) -> None:
        """The verb's outcome: `document` with --json, else what `show` prints by `line` and `table`."""
        if self.as_json:
            self._to_stdout(as_json(document, self._redactor, indent=2))
        elif show is not None:
            show()

    def json_line(self, document: Mapping[str, Any]) -> None:
        """One of many documents, a line each."""
        self._to_stdout(as_json(document, self._redactor))

    def line(self, text: str = "") -> None:
        """A line of the result, for people."""
        self._to_stdout(self._shown(text))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
        """A table of the result. Columns whose name ends in `>` are aligned to the right."""
        from rich.table import Table
        from rich.text import Text

        shown_title = None if title is None else Text(self._shown(title))
        table = Table(title=shown_title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column in columns:
            # Cut nothing: ids and addresses are there to be copied.
            table.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(self._shown(_cell(value))) for value in row))
        self._rich(self._stdout).print(table)

    # Everything else

    def note(self, text: str) -> None:
        """Something worth knowing, unless --quiet."""
        if not self.quiet:
            self._to_stderr(text)

    def warn(self, text: str) -> None:
        """Something the user should act on."""
        self._to_stderr(f"warning: {text}")

    def error(self, error: BuilderError) -> None:
        """What stopped the verb: a line, and a hint; with --json an object."""
        if self.as_json:
            document = {"error": str(error), "code": error.code, "hint": error.hint or None}
            document |= {"status": error.status, "request_id": error.request_id}  # type: ignore[dict-item]
            self._stderr.write(as_json(document, self._redactor) + "\n")
            self._stderr.flush()
            return
        where = f" (request {error.request_id})" if error.request_id else ""
        self._to_stderr(f"error: {error}{where}")
        if error.hint:
            self._to_stderr(f"  {error.hint}")

    @contextmanager
    def task(self, title: str) -> Iterator[Task]:
        """Progress of one piece of work, on stderr; silent with --quiet."""
        if self.quiet:
            yield Task(lambda text: None)
        elif self._stderr.isatty():
            from rich.text import Text

            # Not plain strings, which rich would read as markup: names of others go in here.
            with self._rich(self._stderr).status(Text(self._shown(title))) as status:
                yield Task(lambda text: status.update(Text(self._shown(f"{title}: {text}"))))
        else:
            yield Task(lambda text: self._to_stderr(f"{title}: {text}"))

    def confirm(self, question: str, *, yes: bool) -> None:
        """Go on only if the user agrees. Raises UsageError if nobody can be asked, or on a no."""
        if yes:
            return
        if not self._stdin.isatty():
            raise UsageError(f"{question} Nobody can be asked here", hint="add --yes")
        answer = self.ask(f"{question} [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            raise UsageError("not confirmed, nothing was done", hint="")

    def ask(self, prompt: str, *, secret: bool = False) -> str:
        """One line from the user; `secret` lines are not echoed. Raises InterruptError at the end of input."""
        if secret and self._stdin is sys.stdin and self._stdin.isatty():
            from getpass import getpass

            try:
                return getpass(prompt)
            except EOFError:
                raise InterruptError("no more answers came, nothing was done", hint="") from None
        self._stderr.write(self._shown(prompt))
        self._stderr.flush()
        line = self._stdin.readline()
        if not line:
            # Ctrl-D: whoever presses it wants to leave, not to accept.
            raise InterruptError("no more answers came, nothing was done", hint="")
        return line.rstrip("\n")

    def read_input(self, max_chars: int) -> str:
        """What standard input holds, at most `max_chars` of it."""
        return self._stdin.read(max_chars)

    @property
    def shows_to_terminal(self) -> bool:
        """True if results go to a screen, not into a pipe or a file."""
        return self._stdout.isatty()

    @property
    def is_interactive(self) -> bool:
        """True if somebody can be asked."""
        return self._stdin.isatty()

    def _shown(self, text: str) -> str:
        return printable(self._redactor.clean(text))

    def _to_stdout(self, text: str) -> None:
        self._stdout.write(encodable(text, self._stdout) + "\n")
        self._stdout.flush()

    def _to_stderr(self, text: str) -> None:
        self._stderr.write(self._shown(text) + "\n")
        self._stderr.flush()

    def _rich(self, stream: TextIO) -> RichConsole:
        from rich.console import Console as RichConsole

        is_terminal = stream.isatty()
        return RichConsole(
            file=stream, highlight=False, soft_wrap=not is_terminal, width=None if is_terminal else PIPE_COLUMNS
        )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.4f}"
    return str(value)
