"""`.env`: every value comes back, and nothing else changes."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.env_file import MAX_ENV_BYTES, apply_changes, parse_env, read_env_file, shell_doubts, update_env_file
from builder.errors import UsageError

SEED = """\
# Seed project

RUNPOD_API_KEY=rpa_0123456789abcdef0123
RUNPOD_GPU_TYPE="RTX 3070"
export RUNPOD_IDLE_TIMEOUT=600  # seconds
RUNPOD_POD_ID=   # set by deploy
DOCKER_HUB_USERNAME={{DOCKER_HUB_USERNAME}}
UNKNOWN = 'kept # as it is'

ENV_VERSION=7
"""
NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,12}", fullmatch=True).filter(lambda name: name != "ENV_VERSION")
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


def test_values_are_read_as_the_shell_project_meant_them() -> None:
    assert parse_env(SEED) == {
        "RUNPOD_API_KEY": "rpa_0123456789abcdef0123",
        "RUNPOD_GPU_TYPE": "RTX 3070",
        "RUNPOD_IDLE_TIMEOUT": "600",
        "RUNPOD_POD_ID": "",
        "DOCKER_HUB_USERNAME": "{{DOCKER_HUB_USERNAME}}",
        "UNKNOWN": "kept # as it is",
        "ENV_VERSION": "7",
    }


def test_only_the_lines_of_changed_variables_change() -> None:
    changed = apply_changes(SEED, {"RUNPOD_IDLE_TIMEOUT": "60", "RUNPOD_POD_ID": "abc", "NEW": "two words"})
    expected = (
        SEED.replace("=600  #", "=60  #")
        .replace("POD_ID=   #", "POD_ID=abc #")
        .replace("ENV_VERSION=7\n", "ENV_VERSION=8\nNEW='two words'\n")
    )
    assert changed == expected


def test_removing_takes_the_line_and_leaves_the_rest() -> None:
    assert apply_changes(SEED, {"UNKNOWN": None, "ENV_VERSION": None}) == SEED.replace(
        "UNKNOWN = 'kept # as it is'\n", ""
    ).replace("ENV_VERSION=7\n", "")


def test_a_change_that_changes_nothing_keeps_the_text_and_the_version() -> None:
    assert apply_changes(SEED, {"RUNPOD_GPU_TYPE": "RTX 3070", "ABSENT": None}) == SEED


def test_of_equal_names_the_last_counts_and_is_changed() -> None:
    changed = apply_changes("A=1\nB=2\nA=3\n", {"A": "4"})
    assert changed == "A=1\nB=2\nA=4\nENV_VERSION=1\n"
    assert parse_env(apply_changes(changed, {"A": None})) == {"B": "2", "ENV_VERSION": "2"}


@pytest.mark.parametrize("text", ["A=1", "A=1\r\nB='x y'\r\n", "export A='1' # c\n", "\n\n  A = 1\n", ""])
def test_line_ends_and_missing_ones_survive(text: str) -> None:
    changed = apply_changes(text, {"A": "2", "C": "3"})
    assert {"A": "2", "C": "3"}.items() <= parse_env(changed).items()
    assert ("\r" in changed) == ("\r" in text)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=5), st.dictionaries(NAMES, VALUES, min_size=1, max_size=5))
def test_any_values_round_trip(first: dict[str, str], second: dict[str, str]) -> None:
    text = apply_changes("# head\n", first)
    changed = apply_changes(text, second)
    read = parse_env(changed)
    read.pop("ENV_VERSION", None)
    assert read == {**first, **second}
    assert changed.startswith("# head\n")


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o400])
def test_the_file_is_private_and_replaced_in_one_step(tmp_path: Path, mode: int) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    path.chmod(mode)
    inode = path.stat().st_ino
    update_env_file(path, {"A": "2"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_ino != inode
    assert read_env_file(path) == {"A": "2", "ENV_VERSION": "1"}
    assert [each.name for each in tmp_path.iterdir()] == [".env"]


def test_even_without_a_change_the_file_becomes_private(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    path.chmod(0o644)
    update_env_file(path, {"A": "1"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "A=1\n"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("A=1\n")
    (tmp_path / ".env").symlink_to(tmp_path / "real")
    update_env_file(tmp_path / ".env", {"A": "2"})
    assert (tmp_path / ".env").is_symlink()
    assert read_env_file(tmp_path / "real")["A"] == "2"


def test_no_file_is_no_variables_and_a_first_change_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".env"
    assert read_env_file(path) == {}
    update_env_file(path, {"A": "1"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"A=1\n\nB='open\n", "line 3 is not NAME=value"),
        (b"A=\xff\n", "not UTF-8"),
        (b"#" * (MAX_ENV_BYTES + 1), "larger than"),
    ],
)
def test_what_cannot_be_read_is_named_without_its_text(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / ".env"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=says) as caught:
        read_env_file(path)
    assert "B=" not in str(caught.value)
    with pytest.raises(UsageError):
        update_env_file(path, {"A": "2"})
    assert path.read_bytes() == data


def test_a_folder_is_no_env_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_env_file(tmp_path)


@pytest.mark.parametrize("changes", [{"1A": "x"}, {"A B": "x"}, {"A": "a\0b"}, {"A": "\ud800"}])
def test_illegal_names_and_values_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        apply_changes("", changes)


def shell_reads(folder: Path, text: str) -> str:
    """What a shell that sources `text` has in V."""
    (folder / "sourced.env").write_text(text, newline="")
    command = ["/bin/sh", "-c", '. ./sourced.env; printf %s "$V"']
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout


@pytest.mark.parametrize(
    "value",
    [
        "'; touch PWNED; #",
        "it's",
        "back\\slash x",
        "a$(touch PWNED)b",
        "it's $(touch PWNED) `touch PWNED` $HOME \\$HOME",
        "a\"b'c",
        "two\nlines",
        "'two\nlines",
        "x\\",
        "x\\'",
        "#a",
        "é €",
    ],
)
def test_a_shell_that_sources_the_file_reads_the_same_and_runs_nothing(tmp_path: Path, value: str) -> None:
    text = apply_changes("", {"V": value})
    assert parse_env(text)["V"] == value
    assert shell_reads(tmp_path, text) == value
    assert [each.name for each in tmp_path.iterdir()] == ["sourced.env"]


def test_escapes_in_double_quotes_are_those_of_a_shell(tmp_path: Path) -> None:
    text = r'V="pa\$w \` \" \\ \s"' + "\n"
    assert parse_env(text)["V"] == shell_reads(tmp_path, text) == 'pa$w ` " \\ \\s'
    assert shell_doubts(text) == {}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("V=name-$(date +%s)", "replaces"),
        ('V="${H:-x}"', "replaces"),
        ("V=`id`", "replaces"),
        ("V=a\\ b", "backslash"),
        (r'V="a\nb"', "backslash"),
        (r"V='a\\b'", "backslash"),
        ("V=RTX 3070", "no quotes"),
        ("V=a;b", "no quotes"),
        ("V=~/x", "no quotes"),
    ],
)
def test_what_a_shell_reads_otherwise_is_known(line: str, why: str) -> None:
    assert why in shell_doubts(f"A=1\n{line}\n")["V"]


@pytest.mark.parametrize("line", ["V=a#b", 'V="x y" # $c', "V='a$b`c'", 'V="costs 5$"', "V=", "export V=1", "V={{V}}"])
def test_what_a_shell_reads_alike_is_not_doubted(line: str) -> None:
    assert shell_doubts(line + "\n") == {}


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="no regular file"):
        read_env_file(tmp_path / "pipe")
