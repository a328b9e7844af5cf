"""engine/cores.py: quotas of containers."""

from __future__ import annotations

import os

import pytest

from engine.cores import quota_cores, usable_cores


@pytest.mark.parametrize(
    ("line", "cores"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("0 100000\n", 1),
        ("100000 0\n", None),
        ("", None),
        ("nonsense\n", None),
        ("-1 -1\n", None),
    ],
)
def test_cpu_max_lines(line: str, cores: int | None) -> None:
    assert quota_cores(line) == cores


def test_no_more_cores_than_the_machine_has() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
