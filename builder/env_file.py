"""Reads and changes `.env` files: values as python-dotenv sees them, nothing lost of what people wrote around them.

Reading takes `export `, quotes, ` # comments` behind values and values of several lines; it expands no `$NAME`, but
knows the escapes of a shell in double quotes. What is written means the same to a shell, which may source the file.
Changing replaces only the lines of the variables that change: comments, order, unknown variables and the exact text
of all other lines stay. The file is replaced in one step and readable by its owner alone.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import UsageError
from builder.state import write_private

if TYPE_CHECKING:
    from dotenv.parser import Binding

__all__ = [
    "MAX_ENV_BYTES",
    "VERSION_KEY",
    "apply_changes",
    "parse_env",
    "read_env_file",
    "shell_doubts",
    "update_env_file",
]

MAX_ENV_BYTES = 1_000_000
"""A larger file is no `.env`."""
VERSION_KEY = "ENV_VERSION"
"""Counts the changes of a file."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
"""Values that mean the same to dotenv and to a shell without quotes."""
_HEAD = re.compile(r"(\s*(?:export[^\S\r\n]+)?)[^=\s#]+[^\S\r\n]*(=[^\S\r\n]*)?")
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_ESCAPED = re.compile(r"""\\([\\"$`'abfnrtv])""")
_CONTROL = dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))
_EXPANDED = re.compile(r"`|\$[\w{(@*#?$!-]")
_COMMENT = re.compile(r"[^\S\r\n]+#[^\r\n]*")
_LINE_END = re.compile(r"(?:\r\n|\n|\r)?\Z")


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of `path`; {} if there is no such file. Raises UsageError if it cannot be read or understood."""
    return parse_env(_read(path) or "", str(path))


def update_env_file(path: Path, changes: Mapping[str, str | None]) -> None:
    """Set variables, or remove those that are None; creates the file if need be, and makes it 0600 in any case.

    ENV_VERSION goes up by one if anything changes. Raises UsageError for a file that cannot be understood or a value
    that a `.env` cannot hold, DiskFullError, BuilderError.
    """
    # Through a link to what it points at: replacing the link itself would cut it.
    target = path.resolve()
    text = _read(target)
    changed = apply_changes(text or "", changes, str(path))
    if text is None or changed != text:
        write_private(target, changed)
    elif target.stat().st_mode & 0o077:
        target.chmod(0o600)


def parse_env(text: str, name: str = ".env") -> dict[str, str]:
    """The variables in `text`; the last of equal names wins. Raises UsageError that names a line, never its text."""
    return {each.key: _value(each) for each in _bindings(text, name) if each.key and each.value is not None}


def shell_doubts(text: str, name: str = ".env") -> dict[str, str]:
    """Variables in `text` to which a shell would give another value than `parse_env`, and why. Raises UsageError."""
    doubts = {each.key: _doubt(each) for each in _bindings(text, name) if each.key and each.value is not None}
    return {key: doubt for key, doubt in doubts.items() if doubt is not None}


def apply_changes(text: str, changes: Mapping[str, str | None], name: str = ".env") -> str:
    """`text` with `changes` made and ENV_VERSION counted up; `text` itself if nothing changes. Raises UsageError."""
    for key, value in changes.items():
        _check(key, value)
    before = parse_env(text, name)
    # A variable without a value ("export NAME") is none, as far as reading goes.
    wanted = {key: value for key, value in changes.items() if before.get(key) != value}
    if not wanted:
        return text
    if VERSION_KEY not in changes:
        wanted[VERSION_KEY] = _next_version(before.get(VERSION_KEY))
    changed = _rewrite(text, wanted, name)
    expected = {key: value for key, value in {**before, **wanted}.items() if value is not None}
    if parse_env(changed, name) != expected:
        raise UsageError(f"a value for {', '.join(wanted)} cannot be written to {name}", hint="avoid \\ at its end")
    return changed


def _rewrite(text: str, wanted: Mapping[str, str | None], name: str) -> str:
    bindings = list(_bindings(text, name))
    last = {each.key: position for position, each in enumerate(bindings) if each.key}
    lines = []
    for position, each in enumerate(bindings):
        if each.key is None or each.key not in wanted:
            lines.append(each.original.string)
            continue
        value = wanted[each.key]
        if value is None:
            # Blank lines before it belong to the file, not to the variable.
            lines.append(each.original.string[: len(each.original.string) - len(each.original.string.lstrip())])
        elif last[each.key] == position:
            lines.append(_with_value(each.original.string, each.key, value))
        else:
            lines.append(each.original.string)
    added = [f"{key}={_quote(value)}" for key, value in wanted.items() if value is not None and key not in last]
    return _append("".join(lines), added, "\r\n" if "\r\n" in text else "\n")


def _append(text: str, lines: Iterable[str], line_end: str) -> str:
    added = "".join(line + line_end for line in lines)
    if added and text and not text.endswith(("\n", "\r")):
        return text + line_end + added
    return text + added


def _with_value(original: str, key: str, value: str) -> str:
    """A binding's text with another value: what stands before and behind stays."""
    head = _HEAD.match(original)
    prefix = head.group(1) if head else ""
    rest = _written(original)
    end = _LINE_END.search(original)
    quoted = _QUOTED.match(rest)
    behind = rest[quoted.end() :] if quoted else rest
    if not quoted and behind.startswith("#") and head and head.group(2) != "=":
        behind = " " + behind
    comment = _COMMENT.search(behind)
    return f"{prefix}{key}={_quote(value)}{comment.group() if comment else ''}{end.group() if end else ''}"


def _quote(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    if "'" not in value and "\\" not in value:
        return f"'{value}'"
    # In single quotes a shell knows no escapes, and dotenv does.
    escaped = re.sub(r'[\\"$`]', r"\\\g<0>", value)
    return f'"{escaped}"'


def _check(key: str, value: str | None) -> None:
    if not _NAME.fullmatch(key):
        raise UsageError(f"{key[:60]!r} is no name of a variable; legal: letters, digits and _, no digit first")
    if value is None:
        return
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UsageError(f"{key}: the value holds a character that a .env cannot hold")


def _next_version(text: str | None) -> str:
    return str(int(text) + 1) if text and text.isascii() and text.isdigit() and len(text) < 10 else "1"


def _bindings(text: str, name: str) -> list[Binding]:
    from dotenv.parser import parse_stream

    bindings = list(parse_stream(io.StringIO(text, newline="")))
    for each in bindings:
        if each.error:
            blank = each.original.string[: len(each.original.string) - len(each.original.string.lstrip())]
            line = each.original.line + len(re.findall(r"\r\n|\n|\r", blank))
            raise UsageError(f"{name}: line {line} is not NAME=value", hint="correct or remove that line")
    return bindings


def _value(binding: Binding) -> str:
    value = binding.value or ""
    written = _written(binding.original.string)
    quoted = _QUOTED.match(written) if written.startswith('"') else None
    if quoted:
        return _ESCAPED.sub(lambda found: _CONTROL.get(found[1], found[1]), quoted.group()[1:-1])
    if value.startswith("#"):
        head = _HEAD.match(binding.original.string)
        # `NAME=  # words`: older versions of dotenv take the comment for the value.
        if head and head.group(2) and head.group(2) != "=":
            return ""
    return value


def _written(original: str) -> str:
    """What stands behind the equal sign of a binding's text; empty without one."""
    head = _HEAD.match(original)
    return original[head.end() :] if head and head.group(2) else ""


def _doubt(binding: Binding) -> str | None:
    quoted = _QUOTED.match(_written(binding.original.string))
    text = quoted.group()[1:-1] if quoted else _value(binding)
    if quoted and quoted.group().startswith("'"):
        return "in single quotes a shell keeps the backslash; check it" if re.search(r"\\[\\']", text) else None
    if quoted:
        text = re.sub(r'\\[\\"$`]', "", text)
    if _EXPANDED.search(text):
        return "a shell replaces what $ or ` begins, and here it is taken as it is; check it"
    if re.search(r"\\['abfnrtv\r\n]" if quoted else r"\\", text):
        return "a shell reads the backslash otherwise; check it"
    if not quoted and re.search(r"""[\s'";&|<>()]|^~""", text):
        return "a shell takes other things than a value from it, which has no quotes; check it"
    return None


def _read(path: Path) -> str | None:
    try:
        # Nobody may ever write into a pipe: opening and reading it must not wait.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{path} cannot be read: it is no regular file", hint="name another by --env-file")
            data = file.read(MAX_ENV_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="check its owner and mode") from None
    if len(data) > MAX_ENV_BYTES:
        raise UsageError(f"{path} is larger than {MAX_ENV_BYTES} bytes: no .env", hint="name another by --env-file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from None
