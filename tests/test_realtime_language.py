"""When the language of a stream counts as known."""

from __future__ import annotations

import pytest

from engine.types import WindowResult
from realtime.language import LanguageLock


def heard(probability: float, language: str = "en") -> WindowResult:
    return WindowResult((), language, ((language, probability), ("xx", 1 - probability)), -0.2, 0.0, 1.0)


@pytest.mark.parametrize(
    ("probability", "window_s", "final", "decides"),
    [
        (0.85, 1.0, False, True),
        (0.849, 1.0, False, False),
        (0.85, 0.999, False, False),
        (0.5, 3.0, False, True),
        (0.499, 3.0, False, False),
        (0.5, 2.999, False, False),
        (0.1, 0.1, True, True),
    ],
)
def test_the_decision(probability: float, window_s: float, final: bool, decides: bool) -> None:
    lock = LanguageLock(None)
    found = lock.observe(heard(probability), window_s, has_words=True, final=final)
    assert found == (("en", probability) if decides else None)
    assert lock.code == ("en" if decides else None)


def test_no_words_decide_nothing() -> None:
    lock = LanguageLock(None)
    assert lock.observe(heard(1.0), 28.0, has_words=False, final=True) is None
    assert lock.code is None


def test_it_decides_once() -> None:
    lock = LanguageLock(None)
    assert lock.observe(heard(0.9, "es"), 2.0, has_words=True, final=False) == ("es", 0.9)
    assert lock.observe(heard(0.9, "en"), 2.0, has_words=True, final=True) is None
    assert lock.code == "es"


def test_what_the_peer_says_stands() -> None:
    lock = LanguageLock("de")
    assert lock.observe(heard(1.0), 28.0, has_words=True, final=True) is None
    assert lock.code == "de"


def test_a_result_without_probabilities_is_not_sure() -> None:
    lock = LanguageLock(None)
    bare = WindowResult((), "en", (), -0.2, 0.0, 1.0)
    assert lock.observe(bare, 28.0, has_words=True, final=False) is None
    assert lock.observe(bare, 28.0, has_words=True, final=True) == ("en", 0.0)
