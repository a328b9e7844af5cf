"""engine.languages against faster-whisper's list, and the spellings that people use."""

from __future__ import annotations

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from engine.languages import LANGUAGES, language_code


def test_the_list_is_faster_whispers() -> None:
    assert tuple(LANGUAGES) == tuple(sorted(LANGUAGES))
    assert set(LANGUAGES) == set(_LANGUAGE_CODES)


def test_every_code_and_every_name_is_understood() -> None:
    for code, name in LANGUAGES.items():
        assert language_code(code) == language_code(name) == language_code(f" {name.upper()} ") == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("pt-BR", "pt"),
        ("zh_Hant_TW", "zh"),
        ("nb-NO", "no"),
        ("jv", "jw"),
        ("Castilian", "es"),
        ("mandarin", "zh"),
        ("yue", "yue"),
    ],
)
def test_regions_and_other_names(text: str, code: str) -> None:
    assert language_code(text) == code


@pytest.mark.parametrize("text", ["", "zz", "englisch", "e", "en glish", "x" * 100_000, "\ud800", "-"])
def test_others_have_no_code(text: str) -> None:
    assert language_code(text) is None
