"""engine/accelerator.py: what `auto` becomes, and what is refused."""

from __future__ import annotations

import pytest

from engine.accelerator import Placement, choose_placement
from engine.errors import ConfigError

SUPPORTED = {
    "cpu": {"int8", "int8_float32", "float32"},
    "cuda": {"float16", "float32", "int8", "int8_float16"},
}
GONE = "no NVIDIA GPU can be seen"


def choose(device: str, compute_type: str, problem: str | None) -> Placement:
    return choose_placement(device, compute_type, problem, SUPPORTED.__getitem__)


@pytest.mark.parametrize(
    ("device", "compute_type", "problem", "expected"),
    [
        ("auto", "auto", None, Placement("cuda", "float16")),
        ("auto", "auto", GONE, Placement("cpu", "int8")),
        ("cuda", "auto", None, Placement("cuda", "float16")),
        ("cuda", "int8_float16", None, Placement("cuda", "int8_float16")),
        ("cpu", "auto", None, Placement("cpu", "int8")),
        ("cpu", "float32", GONE, Placement("cpu", "float32")),
    ],
)
def test_what_is_chosen(device: str, compute_type: str, problem: str | None, expected: Placement) -> None:
    assert choose(device, compute_type, problem) == expected


def test_a_gpu_without_half_precision_computes_in_single() -> None:
    assert choose_placement("auto", "auto", None, lambda _: {"float32"}) == Placement("cuda", "float32")


def test_cuda_asked_for_is_never_the_cpu() -> None:
    with pytest.raises(
        ConfigError, match=r"^WHISPER_DEVICE: 'cuda' is not usable here: no NVIDIA GPU.*legal: cpu, auto$"
    ):
        choose("cuda", "auto", GONE)


@pytest.mark.parametrize(("device", "problem"), [("cpu", None), ("auto", GONE)])
def test_an_unsupported_compute_type_names_the_legal_ones(device: str, problem: str | None) -> None:
    with pytest.raises(ConfigError, match=r"'float16' .* on cpu here; legal: auto, float32, int8, int8_float32$"):
        choose(device, "float16", problem)
