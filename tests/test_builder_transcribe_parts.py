from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from builder.api.models import GpuPrice, GpuType
from builder.api.models_serverless import Endpoint
from builder.deploy.throughput import price_per_audio_hour, speed
from builder.errors import BudgetError, ConflictError, JobFailedError, NotFoundError, UsageError
from builder.transcribe.inputs import Source, find_sources, secrets_of, shown_url
from builder.transcribe.ledger import Ledger, Ledgers, Part, WorkerTime, key_of
from builder.transcribe.merge import Answer, Segment, Transcript, Word, merge
from builder.transcribe.plan import (
    Estimate,
    Wishes,
    check_budget,
    choose_way,
    estimate,
    file_room_bytes,
    job_options,
    policy,
)
from builder.transcribe.report import cost_of
from builder.transcribe.write import check_targets, render, target_bases, write_all
from handler.schema import parse_input

# Inputs


def touch(path: Path, content: bytes = b"sound") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(sources: list[Source]) -> list[str]:
    return [each.shown for each in sources]


def test_a_folder_gives_its_media_alone(tmp_path: Path) -> None:
    for name in ("b.mp3", "a.WAV", "a.srt", "a.json", "notes.txt", ".hidden.mp3", "sub/c.ogg", ".git/d.mp3"):
        touch(tmp_path / "talks" / name)
    touch(tmp_path / "talks" / "empty.mp3", b"")
    left_out: list[str] = []
    assert names(find_sources(["talks"], tmp_path, warn=left_out.append)) == ["talks/a.WAV", "talks/b.mp3"]
    assert [each.rpartition("/")[2] for each in left_out] == ["empty.mp3: is empty, and left out"]
    assert names(find_sources(["talks/"], tmp_path, recursive=True)) == [
        "talks/a.WAV",
        "talks/b.mp3",
        "talks/sub/c.ogg",
    ]
    source = find_sources(["talks"], tmp_path, recursive=True)[-1]
    assert (source.under, source.suffix, source.home) == (PurePosixPath("sub/c"), ".ogg", tmp_path / "talks" / "sub")


def test_links_that_go_round_end(tmp_path: Path) -> None:
    touch(tmp_path / "talks" / "a.mp3")
    (tmp_path / "talks" / "again").symlink_to(tmp_path / "talks", target_is_directory=True)
    (tmp_path / "talks" / "gone.mp3").symlink_to(tmp_path / "nowhere.mp3")
    assert names(find_sources(["talks"], tmp_path, recursive=True)) == ["talks/a.mp3"]


def test_a_file_comes_once_and_may_have_any_name(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp3")
    touch(tmp_path / "dictation.dss")
    found = find_sources(["a.mp3", ".", str(tmp_path / "a.mp3"), "dictation.dss"], tmp_path)
    assert names(found) == ["a.mp3", "dictation.dss"]
    (odd,) = find_sources([str(touch(tmp_path / "a\nb\x1b[2J\udcff.wav"))], tmp_path)
    assert "\n" not in odd.shown
    assert odd.shown.isprintable()
    assert str(odd.under) == "a\nb\x1b[2J\udcff"
    assert len(odd.mark) == 12


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ([], UsageError),
        (["no.mp3"], NotFoundError),
        (["empty"], NotFoundError),
        ([""], UsageError),
        (["a.srt"], UsageError),
        (["none.mp3"], UsageError),
        (["ftp://host/a.mp3"], UsageError),
        (["s3://bucket/a.mp3"], UsageError),
        (["https:///a.mp3"], UsageError),
        (["https://host/a b.mp3"], UsageError),
        (["https://host/" + "a" * 8_192], UsageError),
        (["https://[::1/a.mp3"], UsageError),
        (["/dev/null"], UsageError),
    ],
)
def test_what_is_no_recording(tmp_path: Path, given: list[str], kind: type[Exception]) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "a.srt")
    touch(tmp_path / "none.mp3", b"")
    with pytest.raises(kind):
        find_sources(given, tmp_path)


def test_urls_are_shown_without_what_they_hide(tmp_path: Path) -> None:
    url = "https://host.org:8443/a/My%20talk.mp3?X-Amz-Signature=0123456789abcdef0123&x=1#part"
    (source,) = find_sources([url], tmp_path)
    assert source.shown == "https://host.org:8443/a/My%20talk.mp3" == shown_url(url)
    assert (source.under, source.suffix, source.home) == (PurePosixPath("My talk"), ".mp3", tmp_path)
    assert secrets_of(url) == ["X-Amz-Signature=0123456789abcdef0123&x=1", "0123456789abcdef0123"]
    with_user = url.replace("https://", "https://user:pass-word@")
    assert secrets_of(with_user)[0] == "user:pass-word"
    with pytest.raises(UsageError, match="a user") as refused:
        find_sources([with_user], tmp_path)
    assert "pass-word" not in str(refused.value)
    (bare,) = find_sources(["https://host.org/"], tmp_path)
    assert bare.under == PurePosixPath("recording")
    (sly,) = find_sources(["https://host.org/a/..%2F..%2Fetc%2Fpasswd.mp3"], tmp_path)
    assert "/" not in str(sly.under)


# Plan


def options(*extra: str, **more: Any) -> dict[str, Any]:
    return job_options(Wishes(extra=extra, **more))


def test_options_of_jobs() -> None:
    assert options() == {}
    assert options("beam_size=3", "initial_prompt=Dr. No", "enable-vad=true", language="de", words=True) == {
        "beam_size": 3,
        "initial_prompt": "Dr. No",
        "enable_vad": True,
        "language": "de",
        "word_timestamps": True,
    }
    assert options("model=tiny", model="base")["model"] == "base"
    assert options(task="translate") == {"translate": True, "translation": "verbose_json"}
    assert options("beam_size=NaN") == {"beam_size": "NaN"}


@pytest.mark.parametrize(
    "text",
    ["x", "=1", "a b=1", "audio=x", "audio_base64=x", "s3_config={}", "s3=1", "upload_url=x", "transcription=srt"],
)
def test_options_that_are_not_the_users(text: str) -> None:
    with pytest.raises(UsageError):
        options(text)


def test_a_full_job_fits_into_the_job_api() -> None:
    given = options("initial_prompt=" + "ü" * 9_000)
    room = file_room_bytes(given, 10_000_000)
    body = {"input": {**given, "audio_base64": "A" * (-(-room // 3) * 4)}, "policy": policy(3600, 100)}
    assert 9_990_000 < len(json.dumps(body)) <= 10_000_000
    assert file_room_bytes({}, 10_000_000) > 7_490_000
    with pytest.raises(UsageError):
        file_room_bytes({"initial_prompt": "x" * 9_900_000}, 10_000_000)


def test_the_worker_understands_the_jobs() -> None:
    sound = "UklGR" + "A" * 80
    given = options("beam_size=3", "enable_vad=true", "hotwords=Zug", language="de", words=True, task="translate")
    request = parse_input({**given, "audio_base64": sound}, strict=False)
    assert request.warnings == ()
    assert (request.translation, request.word_timestamps) == ("verbose_json", True)
    assert parse_input({"audio": "https://host.org/a.mp3"}, strict=True).warnings == ()


@pytest.mark.parametrize(
    ("n_bytes", "duration_s", "has_store", "way"),
    [
        (7_000_000, 600, False, "inline"),
        (7_000_001, 600, False, "pieces"),
        (7_000_001, 600, True, "upload"),
        (1 << 30, 600, True, "upload"),
        ((1 << 30) + 1, 600, True, "pieces"),
        (7_000_001, 4 * 3600, True, "upload"),
        (7_000_001, 4 * 3600 + 1, True, "pieces"),
        (1_000, 4 * 3600 + 1, False, "pieces"),
    ],
)
def test_how_a_file_goes(n_bytes: int, duration_s: float, has_store: bool, way: str) -> None:
    assert choose_way(n_bytes, duration_s, room_bytes=7_000_000, has_store=has_store) == way


def test_the_time_that_a_job_has() -> None:
    assert policy(3600, 100) == {"executionTimeout": 700_000, "ttl": 3_600_000}
    assert policy(3600, None) == {"executionTimeout": 3_600_000, "ttl": 3_600_000}
    assert policy(300, 100) == {"executionTimeout": 300_000, "ttl": 300_000}
    assert policy(1e9, 1e9)["ttl"] == 7 * 86_400_000
    assert policy(1, 1) == {"executionTimeout": 10_000, "ttl": 10_000}


def gpu(gpu_id: str, price: float | None, pool: str = "P") -> GpuType:
    return GpuType(
        id=gpu_id, name=gpu_id, pool=pool, memory=24, secure=True, community=False, price=GpuPrice(serverless=price)
    )


CARD, OTHER = "NVIDIA GeForce RTX 4090", "NVIDIA L4"


def endpoint(*pools: str, count: int = 1) -> Endpoint:
    return Endpoint(id="e1", name="e", gpu={"pools": list(pools), "count": count})


def test_the_estimate_is_for_the_dearest_gpu_of_the_pools() -> None:
    catalog = [gpu(CARD, 1.1), gpu(OTHER, 0.7), gpu("NVIDIA H200", 5.0, "Q"), gpu("unheard of", 9.0)]
    each = {name: price_per_audio_hour(price, speed(name, "small")) for name, price in ((CARD, 1.1), (OTHER, 0.7))}
    dearest = max(price for price in each.values() if price is not None)
    found = estimate([1800.0, 1800.0], endpoint("P"), catalog, "small")
    assert found.dollars == pytest.approx(dearest)
    assert found.gpu in (CARD, OTHER)
    doubled = estimate([3600.0], endpoint("P", count=2), catalog, "small").dollars
    assert doubled == pytest.approx(2 * dearest)
    assert estimate([3600.0], endpoint("P"), catalog, None).dollars is None
    assert estimate([3600.0], endpoint("none"), catalog, "small").dollars is None
    assert estimate([3600.0, None], endpoint("P"), catalog, "small").dollars is None
    assert estimate([], endpoint("none"), [], None).dollars == 0.0
    assert "estimate" in found.document()["basis"]


def test_the_budget_at_its_limit() -> None:
    guess = Estimate(3600.0, 0, CARD, 0.5)
    check_budget(guess, None)
    check_budget(guess, 0.5)
    with pytest.raises(BudgetError):
        check_budget(guess, 0.4999)
    check_budget(Estimate(0.0, 0, None, None), 0.0)
    for unknown in (Estimate(10.0, 0, None, None), Estimate(0.0, 1, CARD, 0.5)):
        check_budget(unknown, None)
        with pytest.raises(BudgetError):
            check_budget(unknown, 100.0)


@pytest.mark.parametrize(
    "more", [{"formats": ("srt", "doc")}, {"formats": ()}, {"task": "sing"}, {"max_cost": float("nan")}]
)
def test_wishes_there_are_not(more: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Wishes(**more).check()


# Merge


def output(*segments: tuple[float, float, str], **more: Any) -> dict[str, Any]:
    listed = [
        {
            "start": start,
            "end": end,
            "text": f" {text}",
            "words": [{"word": f" {word}", "start": start, "end": end, "probability": 0.5} for word in text.split()],
        }
        for start, end, text in segments
    ]
    return {"segments": listed, "detected_language": "en", "duration": 10.0, "warnings": [], **more}


def test_pieces_become_one_transcript_in_order() -> None:
    found = merge(
        [
            Answer(10.0, 19.5, output((0.5, 2.0, "three four"), (9.0, 12.0, "five"))),
            Answer(0.0, 10.0, output((1.0, 2.0, "one"), (8.0, 10.3, "two"), model="m", warnings=["w", "w"])),
        ]
    )
    assert found.text == "one two three four five"
    assert [(each.start_s, each.end_s) for each in found.segments] == [(1, 2), (8, 10), (10.5, 12), (19, 19.5)]
    words = [word for each in found.segments for word in each.words]
    assert "".join(word.text for word in words) == " one two three four five"
    assert [word.start_s for word in words] == sorted(word.start_s for word in words)
    assert (found.duration_s, found.model, found.warnings) == (19.5, "m", ("w",))


def test_the_language_is_that_of_most_speech() -> None:
    german = output((0, 9, "ja"), detected_language="de")
    english = output((0, 1, "no"), detected_language="en")
    assert merge([Answer(0, 10, english), Answer(10, 20, german), Answer(20, 30, english)]).language == "de"
    assert merge([Answer(0, None, output())]).language == "en"
    assert merge([Answer(0, None, {"segments": []})]).language is None


def test_a_translation_comes_with_its_times() -> None:
    inner = {"segments": [{"id": 0, "start": 1.0, "end": 2.0, "text": "hello"}]}
    german = output((1, 2, "hallo"), detected_language="de", translation=json.dumps(inner))
    found = merge([Answer(5.0, 10.0, german)], "translate")
    assert (found.text, found.language, found.segments[0].start_s) == ("hello", "en", 6.0)


@pytest.mark.parametrize(
    ("given", "task"),
    [
        ({}, "transcribe"),
        ({"segments": 12, "uploaded": True}, "transcribe"),
        ({"segments": None, "truncated": True}, "transcribe"),
        (output(), "translate"),
        (output(translation="no json"), "translate"),
        (output(translation="[1]"), "translate"),
        (output(translation='{"segments": 3}'), "translate"),
        (output(translation="[" * 100_000), "translate"),
    ],
)
def test_an_answer_without_segments_is_no_transcript(given: dict[str, Any], task: str) -> None:
    with pytest.raises(JobFailedError):
        merge([Answer(0.0, 1.0, given)], task)


def test_odd_times_stay_within_the_piece() -> None:
    segments = [
        {"start": None, "end": "x", "text": "a"},
        {"start": -3, "end": float("nan"), "text": "b"},
        {"start": 99, "end": 98, "text": "c", "words": [None, {"word": "c"}]},
        "nonsense",
        {"start": True, "end": 2},
    ]
    found = merge([Answer(100.0, 105.0, {"segments": segments})])
    assert [(each.start_s, each.end_s) for each in found.segments] == [(100, 100), (100, 100), (105, 105), (100, 102)]
    assert len(found.segments[2].words) == 1


# Ledger


def ledgers(folder: Path, warnings: list[str] | None = None) -> Ledgers:
    return Ledgers(folder, (warnings if warnings is not None else []).append)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    kept = ledgers(tmp_path)
    ledger = Ledger("k1", "a.mp3", "e1", "pieces", 12.5)
    ledger.parts = [
        Part(0, 0.0, 6.0, "0001.flac", "done", "j-1", 5.0, 2, 1, True, None, [WorkerTime("w", CARD, 1200)]),
        Part(1, 6.0, 12.5, "0002.flac", "submitting"),
    ]
    kept.save(ledger)
    kept.put_result(ledger, ledger.parts[0], {"segments": []})
    assert kept.load("k1", "a.mp3", "e1") == ledger
    assert kept.result(ledger, ledger.parts[0]) == {"segments": []}
    assert kept.result(ledger, ledger.parts[1]) is None
    for path in (tmp_path / "k1.json", tmp_path / "k1" / "0000.result.json"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert (ledger.is_complete, ledger.left_s) == (False, 6.5)
    assert Ledger("k", "a", "e", "inline", 9.0).left_s == 9.0
    assert Ledger("k", "a", "e", "url").left_s is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        "[" * 100_000,
        json.dumps({"version": 2, "key": "k1", "way": None, "parts": [], "duration_s": None, "object_key": None}),
        json.dumps({"version": 1, "key": "k2", "way": None, "parts": [], "duration_s": None, "object_key": None}),
        json.dumps({"version": 1, "key": "k1", "way": "fax", "parts": [], "duration_s": None, "object_key": None}),
        json.dumps({"version": 1, "key": "k1", "way": "url", "parts": [{}], "duration_s": None, "object_key": None}),
        json.dumps(
            {
                "version": 1,
                "key": "k1",
                "way": "pieces",
                "parts": [{"index": 0, "file": "../../x", "times": []}],
                "duration_s": 1,
                "object_key": None,
            }
        ),
        json.dumps(
            {
                "version": 1,
                "key": "k1",
                "way": "url",
                "parts": [{"index": 0, "state": "submitted", "times": []}],
                "duration_s": 1,
                "object_key": None,
            }
        ),
    ],
)
def test_a_damaged_ledger_is_set_aside_and_told(tmp_path: Path, text: str) -> None:
    warnings: list[str] = []
    (tmp_path / "k1.json").write_text(text, encoding="utf-8")
    found = ledgers(tmp_path, warnings).load("k1", "a.mp3", "e1")
    assert found == Ledger("k1", "a.mp3", "e1")
    assert (tmp_path / "k1.json.damaged").read_text(encoding="utf-8") == text
    assert len(warnings) == 1
    assert "twice" in warnings[0]


def test_the_key_tells_recordings_and_options_apart() -> None:
    keys = {
        key_of(["file", "/a", 1, 2], "e1", {}),
        key_of(["file", "/a", 1, 3], "e1", {}),
        key_of(["file", "/a", 1, 2], "e2", {}),
        key_of(["file", "/a", 1, 2], "e1", {"language": "de"}),
        key_of(["url", "https://h/a?sig=1"], "e1", {}),
        key_of(["url", "https://h/a?sig=2"], "e1", {}),
    }
    assert len(keys) == 6
    assert key_of(["file", "/a", 1, 2], "e1", {"a": 1, "b": 2}) == key_of(["file", "/a", 1, 2], "e1", {"b": 2, "a": 1})


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with ledgers(tmp_path).locked(), pytest.raises(ConflictError), ledgers(tmp_path).locked():
        raise AssertionError
    with ledgers(tmp_path).locked():
        pass


# Write


def source(path: str, under: str) -> Source:
    absolute = Path(path)
    return Source(path, absolute.parent, PurePosixPath(under), absolute.suffix, path=absolute)


def test_where_transcripts_go(tmp_path: Path) -> None:
    three = [source("/r/a.mp3", "a"), source("/r/sub/b.mp3", "sub/b"), source("/r/a.wav", "a")]
    assert [str(each) for each in target_bases(three, None)] == ["/r/a.mp3", "/r/sub/b", "/r/a.wav"]
    assert target_bases(three, tmp_path) == [tmp_path / "a.mp3", tmp_path / "sub" / "b", tmp_path / "a.wav"]
    # Upper and lower case are one on some disks.
    assert (
        len({str(each).lower() for each in target_bases([source("/r/A.mp3", "A"), source("/r/a.mp3", "a")], None)}) == 2
    )
    # One that gives way must not meet a third.
    chain = [source("/r/a.mp3", "a"), source("/r/a.wav", "a"), source("/r/a.mp3.wav", "a.mp3")]
    assert len(set(target_bases(chain, None))) == 3
    long = [source(f"/r/{'ü' * 125}.wav", "ü" * 125), source(f"/r/{'n' * 250}.wav", "n" * 250)]
    shown = [base.name for base in target_bases(long, None)]
    assert shown == ["ü" * 125, "n" * 250]
    (cut,) = target_bases([source(f"/r/{'ü' * 126}.wav", "ü" * 126)], None)
    assert len(cut.name.encode()) <= 250
    assert cut.name.startswith("ü" * 118)
    same = [source("/r/a.mp3", "a"), source("/q/a.mp3", "a")]
    bases = target_bases(same, tmp_path)
    assert len(set(bases)) == 2
    assert bases == target_bases(same, tmp_path)


def talk() -> Transcript:
    words = (Word(" Hello", 0.5, 1.0, 0.9), Word(" <world>", 1.0, 1.5, 0.8))
    segments = (Segment(0.5, 1.5, " Hello <world>", words), Segment(61.0, 62.25, "Bye --> bye"))
    return Transcript(segments, "en", 70.0, "transcribe")


def test_the_documents() -> None:
    assert render(talk(), "srt") == (
        "1\n00:00:00,500 --> 00:00:01,500\nHello <world>\n\n2\n00:01:01,000 --> 00:01:02,250\nBye -> bye\n"
    )
    assert render(talk(), "vtt").startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.500\nHello &lt;world&gt;\n")
    assert render(talk(), "txt") == "Hello <world>\nBye --> bye\n"
    document = json.loads(render(talk(), "json"))
    assert (document["language"], document["duration"], len(document["segments"])) == ("en", 70.0, 2)
    assert [each["word"] for each in document["words"]] == ["Hello", "<world>"]


def test_only_own_files_are_replaced(tmp_path: Path) -> None:
    base = tmp_path / "out" / "a"
    kept = ledgers(tmp_path / "kept")

    def write(*formats: str, force: bool = False) -> list[str]:
        return write_all(base, "m", formats, talk(), kept.written(), kept.add_written, force=force)

    assert write("srt", "txt") == [f"{base}.srt", f"{base}.txt"]
    check_targets([base], ["m"], ("srt", "txt"), kept.written())
    # Another recording's transcript is not in the way by chance.
    with pytest.raises(UsageError):
        check_targets([base], ["n"], ("srt", "txt"), kept.written())
    assert write("srt", "txt") == [f"{base}.srt", f"{base}.txt"]
    Path(f"{base}.srt").write_text("mended by hand", encoding="utf-8")
    with pytest.raises(UsageError, match=r"a\.srt"):
        write("txt", "srt")
    assert Path(f"{base}.srt").read_text(encoding="utf-8") == "mended by hand"
    write("srt", "txt", force=True)
    assert sorted(each.name for each in base.parent.iterdir()) == ["a.srt", "a.txt"]
    # Killed before the new one was written: what stands there is still ours.
    kept.add_written("m", {f"{base}.srt": "0" * 64})
    write("srt")


def test_a_link_to_nowhere_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "a.srt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        check_targets([tmp_path / "a"], ["m"], ("srt",), {})


# Cost


def test_what_jobs_cost() -> None:
    prices = {CARD: 3.6, OTHER: 0.36}
    assert cost_of([WorkerTime("w", CARD, 1000), WorkerTime("v", OTHER, 1000)], prices).dollars == pytest.approx(0.0011)
    unknown = cost_of([WorkerTime("w", None, 1000)], prices)
    assert unknown.dollars == pytest.approx(0.001)
    assert unknown.is_bound
    assert cost_of([WorkerTime("w", CARD, 1000)], {}).dollars is None
    assert cost_of([], {}).dollars == 0.0
