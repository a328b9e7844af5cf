"""handler.safe_json: what goes in comes out as JSON, or not at all."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ResultNotJsonError
from engine.types import Word
from handler.safe_json import MAX_DEPTH, MAX_SAFE_INTEGER, to_safe


class Level(IntEnum):
    ONE = 1


@dataclass(frozen=True)
class Inner:
    score: float


@pytest.mark.parametrize(
    ("value", "safe"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), None),
        (np.int64(-3), -3),
        (np.bool_(True), True),
        (np.arange(4, dtype=np.int16).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.array([1.0, np.inf], np.float16), [1.0, None]),
        (np.array(7), 7),
        ((1, (2,)), [1, [2]]),
        ("a\ud800b", "a?b"),
        ("\U0001f600", "\U0001f600"),
        ({"\udfff": 1, 2: "x"}, {"?": 1, "2": "x"}),
        (OrderedDict(a=[True, None]), {"a": [True, None]}),
        (Inner(math.inf), {"score": None}),
        (
            Word(" a", 0.0, 1.0, 0.5, (1,)),
            {"text": " a", "start_s": 0.0, "end_s": 1.0, "probability": 0.5, "tokens": [1]},
        ),
        (Level.ONE, 1),
        (MAX_SAFE_INTEGER, MAX_SAFE_INTEGER),
    ],
)
def test_what_has_one_meaning_is_converted(value: Any, safe: Any) -> None:
    result = to_safe({"value": value})
    assert result == {"value": safe}
    assert type(result["value"]) is type(safe)


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        Decimal("1.5"),
        datetime(2026, 1, 1),
        Path("x"),
        {1, 2},
        (each for each in "ab"),
        object(),
        Inner,
        1j,
        MAX_SAFE_INTEGER + 1,
        np.datetime64("2026-01-01"),
        np.array([object()]),
        np.longdouble(1),
        {(1, 2): 3},
        {True: 1},
    ],
)
def test_what_has_no_one_meaning_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(ResultNotJsonError, match=r"the result at \$\.segments\[1\]\.x is "):
        to_safe({"segments": [{}, {"x": value}]})


def test_depth_is_limited() -> None:
    value: Any = 0
    for _ in range(MAX_DEPTH):
        value = [value]
    to_safe(value)
    with pytest.raises(ResultNotJsonError, match=f"deeper than {MAX_DEPTH} levels"):
        to_safe([value])
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ResultNotJsonError, match="deeper"):
        to_safe(loop)
    loop.clear()


def test_a_long_place_is_cut() -> None:
    with pytest.raises(ResultNotJsonError) as caught:
        to_safe({"k" * 10_000: {"\ud800": b""}})
    assert len(str(caught.value)) < 150
    str(caught.value).encode("utf-8")


def test_the_copy_shares_nothing() -> None:
    value: dict[str, Any] = {"a": [{"b": 1}]}
    copy = to_safe(value)
    copy["a"][0]["b"] = 2
    copy["a"].append(3)
    assert value == {"a": [{"b": 1}]}


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.floats(width=32).map(np.float32)
)
values = st.recursive(
    leaves, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner, inner))
)


@given(values)
def test_any_value_is_json_or_refused(value: Any) -> None:
    try:
        safe = to_safe(value)
    except ResultNotJsonError as error:
        str(error).encode("utf-8")
    else:
        text = json.dumps(safe, allow_nan=False, ensure_ascii=False)
        assert json.loads(text.encode("utf-8")) == safe
