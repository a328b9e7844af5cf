"""Whole, cut and garbled model directories."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from engine.model_files import MAX_VARIABLES, find_problem
from engine.models import DEMO_MODEL_DIR
from tests.fakes.model_dirs import make_model, weights


def test_shipped_model_is_whole_to_the_last_byte(tmp_path: Path) -> None:
    assert find_problem(DEMO_MODEL_DIR) is None
    for path in DEMO_MODEL_DIR.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "model.bin").unlink()
    data = (DEMO_MODEL_DIR / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(data[:-1])
    assert str(find_problem(tmp_path)) == f"model.bin is cut off: {len(data) - 1} of at least {len(data)} bytes"


def test_weights_are_cut_off_anywhere(tmp_path: Path) -> None:
    make_model(tmp_path)
    data = weights()
    for size in range(len(data)):
        (tmp_path / "model.bin").write_bytes(data[:size])
        problem = find_problem(tmp_path)
        assert problem is not None and problem.file == "model.bin" and not problem.is_missing, size
    (tmp_path / "model.bin").write_bytes(data)
    assert find_problem(tmp_path) is None


@pytest.mark.parametrize(("variables", "is_whole"), [(MAX_VARIABLES, True), (MAX_VARIABLES + 1, False)])
def test_number_of_variables(tmp_path: Path, variables: int, is_whole: bool) -> None:
    make_model(tmp_path)
    (tmp_path / "model.bin").write_bytes(weights(variables, data_bytes=4))
    assert (find_problem(tmp_path) is None) is is_whole


def test_unknown_layout_is_taken_on_trust(tmp_path: Path) -> None:
    make_model(tmp_path)
    (tmp_path / "model.bin").write_bytes(struct.pack("<I", 7) + b"who knows")
    assert find_problem(tmp_path) is None


@pytest.mark.parametrize("name", ["model.bin", "tokenizer.json", "vocabulary.json"])
def test_missing_files(tmp_path: Path, name: str) -> None:
    problem = find_problem(make_model(tmp_path, without=(name,)))
    assert problem is not None and problem.is_missing
    assert str(problem) == f"{name} is missing"


def test_optional_files_and_the_other_vocabulary(tmp_path: Path) -> None:
    make_model(tmp_path, without=("config.json", "preprocessor_config.json", "vocabulary.json"))
    (tmp_path / "vocabulary.txt").write_text("<s>\n", encoding="utf-8")
    assert find_problem(tmp_path) is None
    (tmp_path / "vocabulary.txt").write_bytes(b"")
    assert str(find_problem(tmp_path)) == "vocabulary.txt is empty"


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("data", [b"", b'{"a": 1', b"\xff"])
def test_text_files_are_read(tmp_path: Path, name: str, data: bytes) -> None:
    make_model(tmp_path)
    (tmp_path / name).write_bytes(data)
    assert str(find_problem(tmp_path)) == f"{name} is damaged (no JSON)"


def test_link_to_nowhere_is_a_missing_file(tmp_path: Path) -> None:
    """What is left of a cache whose blobs were cleaned up."""
    make_model(tmp_path, without=("model.bin",))
    (tmp_path / "model.bin").symlink_to(tmp_path / "blobs" / "gone")
    problem = find_problem(tmp_path)
    assert problem is not None and problem.is_missing
