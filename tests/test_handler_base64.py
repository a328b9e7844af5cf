"""Base64 as people send it: what is taken, what is refused, and that nothing of it is shown."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadInputError
from handler import base64_audio
from handler.audio_fields import MAX_DATA_HEADER_CHARS, read_audio
from handler.base64_audio import write_base64
from handler.fetch import Fetcher, FetchLimits
from handler.sources import Source

DATA = bytes(range(256)) * 3 + b"\xfb\xff\xfe?>~~"  # its base64 has + and /, and padding
PLAIN = base64.b64encode(DATA).decode()
URL_SAFE = base64.urlsafe_b64encode(DATA).decode()


def decoded(value: str, max_bytes: int = 1 << 20) -> bytes:
    file = io.BytesIO()
    n_bytes = write_base64(value, file, "audio_base64", max_bytes)
    assert n_bytes == len(file.getvalue())
    return file.getvalue()


@pytest.mark.parametrize(
    "value",
    [
        PLAIN,
        URL_SAFE,
        PLAIN.rstrip("="),
        URL_SAFE.rstrip("="),
        "\n".join(textwrap.wrap(PLAIN, 76)) + "\n",
        "\r\n".join(textwrap.wrap(PLAIN, 64)),
        f"  {PLAIN}\t",
        " ".join(PLAIN),
        f"data:audio/wav;base64,{PLAIN}",
        f"DATA:audio/webm;codecs=opus;BASE64,{URL_SAFE}",
        f"data:;base64,{PLAIN.rstrip('=')}\n",
        f"\n data:audio/mpeg;base64,\n{PLAIN}",
    ],
)
def test_twelve_forms_that_are_taken(value: str) -> None:
    """As jobs are read: the header of a data: URI goes before anything is decoded."""
    assert "+" in PLAIN
    assert "/" in PLAIN
    assert PLAIN.endswith("=")
    (source,) = read_audio({"audio_base64": value}).sources
    assert source.kind == "base64"
    assert decoded(source.value) == DATA


@pytest.mark.parametrize(
    "value",
    [
        "",
        "   \n",
        "====",
        "A",
        "AAAAA",
        "AAA==",
        "AA===",
        "AA=A",
        "AA==AAAA",
        "=AAA",
        "AAAA\0",
        "AAAA*",
        "AAAA%2B",
        "ＡＡＡＡ",
        "AAAA\u00a0AAAA",
        "\ud800AAA",
        "data:audio/wav;base64",
        "data:audio/wav;base64,",
        "data:audio/wav,RIFF",
        f"data:audio/wav;base64,{PLAIN}",
        "https://example.org/speech.wav",
        PLAIN + "!",
        PLAIN + PLAIN,
    ],
)
def test_what_is_no_base64_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(BadInputError) as caught:
        decoded(value)
    message = str(caught.value)
    assert message.startswith("audio_base64: '(hidden)' is not allowed; legal: base64")
    assert caught.value.__cause__ is None


def test_header_limit() -> None:
    header = "data:{};base64,"
    fits = header.format("x" * (MAX_DATA_HEADER_CHARS - len(header) + 2))
    assert len(fits) == MAX_DATA_HEADER_CHARS
    (source,) = read_audio({"audio": fits + PLAIN}).sources
    assert decoded(source.value) == DATA
    longer = read_audio({"audio": "data:x" + fits.removeprefix("data:") + PLAIN})
    assert longer.sources == () and len(longer.problems) == 1


@pytest.mark.parametrize("value", [PLAIN, PLAIN.rstrip("="), " \n".join(PLAIN), URL_SAFE])
def test_size_is_known_before_anything_is_decoded(value: str) -> None:
    assert decoded(value, len(DATA)) == DATA
    file = io.BytesIO()
    with pytest.raises(BadInputError, match=f"at most {len(DATA) - 1} bytes of audio; these are {len(DATA)}"):
        write_base64(value, file, "audio", len(DATA) - 1)
    assert file.getvalue() == b""


@given(st.binary(min_size=1, max_size=200), st.integers(1, 17), st.booleans(), st.integers(0, 5))
def test_any_bytes_survive_any_cut(data: bytes, slice_chars: int, is_padded: bool, every: int) -> None:
    """With slices so small that each boundary falls everywhere."""
    text = base64.b64encode(data).decode()
    text = text if is_padded else text.rstrip("=")
    if every:
        text = "\r\n".join(textwrap.wrap(text, every)) + "\n \n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base64_audio, "_SLICE_CHARS", slice_chars)
        assert decoded(text) == data


@given(st.text(max_size=60))
def test_any_text_is_bytes_or_bad_input(text: str) -> None:
    with contextlib.suppress(BadInputError):
        assert len(decoded(text)) > 0


@given(st.integers(0, len(PLAIN) - 1), st.characters())
def test_one_wrong_character_anywhere_is_never_passed_over(at: int, wrong: str) -> None:
    legal = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_ \t\r\n="
    if wrong in legal:
        return
    with pytest.raises(BadInputError):
        decoded(PLAIN[:at] + wrong + PLAIN[at + 1 :])


def test_through_the_fetcher(tmp_path: Path) -> None:
    async def main() -> None:
        fetcher = Fetcher(FetchLimits(max_bytes=len(DATA)), folder=tmp_path)
        async with fetcher.open(Source("base64", URL_SAFE, "audio_base64")) as found:
            assert found.path.read_bytes() == DATA
            assert found.n_bytes == len(DATA)
        for value in (PLAIN + "!", PLAIN + "AAAA"):
            with pytest.raises(BadInputError, match="audio_base64"):
                async with fetcher.open(Source("base64", value, "audio_base64")):
                    pass

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []
