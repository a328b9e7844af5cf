"""handler.budget: results of any size fit, and nothing goes without a word about it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ResultTooLargeError
from handler.budget import encoded, posted_bytes, shrink, summary

ORDER = (
    "tokens",
    "outputs",
    "words in segments",
    "word_timestamps",
    "statistics of segments",
    "segments",
    "format of transcription (it is plain text)",
    "translation",
)


def result(n_segments: int = 20, text: str = " Größe 語") -> dict[str, Any]:
    segments = [
        {
            "id": number + 1,
            "seek": 0,
            "start": float(number),
            "end": number + 1.0,
            "text": text,
            "tokens": list(range(20)),
            "temperature": 0.0,
            "avg_logprob": -0.123456,
            "compression_ratio": 1.2,
            "no_speech_prob": 0.01,
            "words": [{"word": text, "start": 0.0, "end": 1.0, "probability": 0.9}] * 2,
        }
        for number in range(n_segments)
    ]
    return {
        "segments": segments,
        "detected_language": "de",
        "transcription": "1\n00:00:00,000 --> 00:00:01,000\n".join([text.strip()] * n_segments),
        "translation": "size " * n_segments,
        "device": "cpu",
        "model": "base",
        "word_timestamps": [{"word": text, "start": 0.0, "end": 1.0}] * n_segments * 2,
        "warnings": ["before"],
        "outputs": {"srt": "x" * 40 * n_segments},
    }


def plain(text: str, n_segments: int = 20) -> str:
    return " ".join([text.strip()] * n_segments)


def test_the_size_is_that_of_the_body_as_the_sdk_posts_it() -> None:
    whole = result()
    assert posted_bytes(whole) == len(json.dumps({"output": whole}, ensure_ascii=False).encode("utf-8"))
    assert json.loads(encoded(whole)) == whole


def test_what_fits_is_left_alone() -> None:
    whole = result()
    size = posted_bytes(whole)
    assert shrink(whole, size) == whole
    assert shrink(whole, size - 1)["truncated"] is True


def gone(small: dict[str, Any]) -> list[str]:
    notes = small.get("warnings", [])
    return [note.partition(": left out to fit")[0] for note in notes if "left out to fit" in note]


def test_parts_go_in_order_each_with_a_warning() -> None:
    whole = result()
    before = copy.deepcopy(whole)
    seen: list[list[str]] = []
    limit = posted_bytes(whole)
    while True:
        try:
            small = shrink(whole, limit)
        except ResultTooLargeError:
            break
        assert posted_bytes(small) <= limit
        if gone(small) not in seen:
            seen.append(gone(small))
        limit = posted_bytes(small) - 1
    assert seen == [list(ORDER[:count]) for count in range(len(ORDER) + 1)]
    assert whole == before, "nothing is changed in place"


def limit_for(whole: dict[str, Any], count: int) -> int:
    """The limit at which exactly the first `count` parts go."""
    limit = posted_bytes(whole)
    while len(gone(small := shrink(whole, limit))) < count:
        limit = posted_bytes(small) - 1
    return limit


def test_the_text_outlives_all_else() -> None:
    whole = result()
    no_tokens = shrink(whole, limit_for(whole, 1))
    assert {len(segment["tokens"]) for segment in no_tokens["segments"]} == {0}
    assert no_tokens["outputs"] == whole["outputs"]
    no_statistics = shrink(whole, limit_for(whole, 5))
    assert set(no_statistics["segments"][0]) == {"id", "start", "end", "text", "tokens"}
    no_segments = shrink(whole, limit_for(whole, 6))
    assert no_segments["segments"] == [] and no_segments["transcription"] == whole["transcription"]
    no_format = shrink(whole, limit_for(whole, 7))
    assert no_format["transcription"] == plain(" Größe 語")
    assert no_format["translation"] == whole["translation"]
    last = shrink(whole, limit_for(whole, 8))
    assert (last["transcription"], last["translation"]) == (plain(" Größe 語"), None)
    assert last["warnings"][0] == "before"


def w_like(whole: dict[str, Any]) -> dict[str, Any]:
    """A result as it is in strict mode."""
    return {key: value for key, value in whole.items() if key not in ("warnings", "outputs")}


def test_strict_results_shrink_without_new_keys_and_the_log_names_what_went(caplog: pytest.LogCaptureFixture) -> None:
    whole = w_like(result())
    size = posted_bytes(whole)
    assert shrink(whole, size, strict=True) == whole and caplog.text == ""
    small = shrink(whole, size - 1, strict=True)
    assert small == whole | {"segments": [each | {"tokens": []} for each in whole["segments"]]}
    assert f"tokens: left out to fit {size} bytes into {size - 1}" in caplog.text
    least = shrink(whole, posted_bytes(whole) // 10, strict=True)
    assert set(least) == set(whole) and least["segments"] == []
    assert "語" not in caplog.text and "outputs" not in caplog.text
    with pytest.raises(ResultTooLargeError):
        shrink(whole, 100, strict=True)


def test_a_strict_results_warnings_go_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    warned = w_like(result()) | {"warnings": ["the result was not uploaded: gone"]}
    assert shrink(warned, 1_000_000, strict=True) == w_like(result())
    assert "the result was not uploaded: gone" in caplog.text


def test_a_strict_summary_has_new_keys_only_if_words_would_be_lost() -> None:
    whole = w_like(result())
    assert summary(whole, posted_bytes(whole) - 1, link="u", strict=True) == shrink(
        whole, posted_bytes(whole) - 1, strict=True
    )
    bare = summary(whole, 100, link="u", strict=True)
    assert bare["result_url"] == "u" and bare["transcription"] is None


def test_text_that_does_not_fit_is_an_error_and_never_cut() -> None:
    whole = result()
    least = posted_bytes(shrink(whole, limit_for(whole, 8)))
    with pytest.raises(ResultTooLargeError, match=f"MAX_RESULT_BYTES is {least - 1}.*upload_url"):
        shrink(whole, least - 1)


def test_results_of_a_list_shrink_alike_and_errors_stay() -> None:
    error = {"error": "bad audio", "error_code": "bad_audio", "retryable": False}
    whole = {"results": [result(), error, result(3)]}
    small = shrink(whole, posted_bytes(whole) - 1)
    assert small["results"][1] == error
    for item in (small["results"][0], small["results"][2]):
        assert gone(item) == ["tokens"] and item["truncated"] is True
    assert "warnings" not in small


def test_ten_hours_fit_into_the_platforms_limit() -> None:
    whole = result(18_000, " A sentence of about sixty letters, as people say them, you know.")
    small = shrink(whole, 8_000_000)
    assert posted_bytes(small) <= 8_000_000
    assert len(small["segments"]) == 18_000
    assert small["segments"][5]["text"] == whole["segments"][5]["text"]


def test_a_summary_has_the_link_counts_and_the_text() -> None:
    whole = result()
    answer = summary(whole, 10_000, link="https://store/x")
    assert answer["result_url"] == "https://store/x"
    assert answer["result_bytes"] == len(encoded(whole))
    assert answer["counts"] == {"segments": 20, "words": 40}
    assert answer["segments"] == [] and answer["transcription"] == whole["transcription"]
    assert "word_timestamps" not in answer and "outputs" not in answer
    assert "result_url" not in summary(whole, 10_000, link=None)


def test_a_summary_gives_plain_text_or_null_if_there_is_no_room() -> None:
    whole = result()
    first = summary(whole, 10_000, link=None)
    second = summary(whole, posted_bytes(first) - 1, link=None)
    assert second["transcription"] == plain(" Größe 語")
    third = summary(whole, posted_bytes(second) - 1, link=None)
    assert third["transcription"] is None and third["translation"] is None
    assert third["warnings"][-1] == "text: in the uploaded result only"
    listed = summary({"results": [whole, {"error": "x"}]}, 10_000, link="u")
    assert listed["results"][1] == {"error": "x"} and listed["results"][0]["counts"]["segments"] == 20


@settings(max_examples=60)
@given(st.lists(st.text(max_size=20), max_size=8), st.integers(50, 4_000), st.booleans())
def test_any_result_fits_or_is_refused_and_keeps_its_words(texts: list[str], limit: int, is_list: bool) -> None:
    item = result(0) | {
        "segments": [{"text": text.encode("utf-8", "replace").decode(), "tokens": [1] * 9} for text in texts],
        "transcription": " ".join(" ".join(texts).encode("utf-8", "replace").decode().split()),
    }
    whole: dict[str, Any] = {"results": [item]} if is_list else item
    try:
        small = shrink(whole, limit)
    except ResultTooLargeError:
        return
    assert posted_bytes(small) <= limit
    kept = small["results"][0] if is_list else small
    assert kept["transcription"].split() == item["transcription"].split()
    assert kept == item or kept["truncated"] is True
