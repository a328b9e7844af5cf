"""realtime.client.options: the command line becomes a plan, or one clear refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import BadInputError, SttError
from realtime.client.errors import SourceError, UsageError
from realtime.client.messages import ClientOptions
from realtime.client.options import MAX_CHUNK_MS, MAX_TOKEN_CHARS, MIN_CHUNK_MS, Plan, make_parser, make_plan


@pytest.fixture
def wav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a.wav, b.wav and other/a.wav, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    for name in ("a.wav", "b.wav", "other/a.wav"):
        (tmp_path / name).write_bytes(b"RIFF")
    return tmp_path


def plan(line: str, **environ: str) -> Plan:
    return make_plan(make_parser().parse_intermixed_args(line.split()), environ)


def test_defaults(wav: Path) -> None:
    assert plan("a.wav") == Plan(
        url="ws://127.0.0.1:9090",
        options=ClientOptions(),
        files=(Path("a.wav"),),
        is_fast=False,
        chunk_ms=100,
        display="auto",
        format_name="txt",
        documents=(),
    )


@pytest.mark.parametrize(
    ("line", "url"),
    [
        ("ws://host:1 a.wav", "ws://host:1"),
        ("a.wav wss://pod-9090.proxy.runpod.net", "wss://pod-9090.proxy.runpod.net"),
        ("https://host/path?x=1#frag a.wav", "wss://host/path?x=1"),
        ("http://host a.wav", "ws://host"),
        ("--host h --port 7 a.wav", "ws://h:7"),
        ("-s h -p 7 --use_ssl a.wav", "wss://h:7"),
        ("--server h a.wav", "ws://h:9090"),
        ("--use-ssl a.wav", "wss://127.0.0.1:9090"),
        ("--host ::1 a.wav", "ws://[::1]:9090"),
    ],
)
def test_server(wav: Path, line: str, url: str) -> None:
    assert plan(line).url == url


def test_speech_options(wav: Path) -> None:
    line = "a.wav -l es -t -m turbo --prompt Anna --hotwords Bob --word-timestamps --no-vad"
    assert plan(line).options == ClientOptions("es", "translate", "turbo", False, "Anna", "Bob", True)
    assert plan("a.wav --lang de --task translate --use_vad").options == ClientOptions("de", "translate")


def test_sources(wav: Path) -> None:
    assert plan("--fast a.wav --quiet -f b.wav other/a.wav").files == (
        Path("a.wav"),
        Path("b.wav"),
        Path("other/a.wav"),
    )
    assert plan("--mic").files == ()
    assert plan("--mic --json").display == "json"
    assert plan("a.wav -q -a").display == "quiet"


@pytest.mark.parametrize(
    ("line", "format_name", "documents"),
    [
        ("a.wav -o out.srt", "srt", ["out.srt"]),
        ("a.wav --output_file out.VTT", "vtt", ["out.VTT"]),
        ("a.wav -o notes.md", "txt", ["notes.md"]),
        ("a.wav -o out.srt --format json", "json", ["out.srt"]),
        ("a.wav --format srt", "srt", ["-"]),
        ("a.wav --output -", "txt", ["-"]),
        ("--mic --output-dir other", "txt", ["other/microphone.txt"]),
        ("a.wav b.wav --output-dir other --format vtt", "vtt", ["other/a.vtt", "other/b.vtt"]),
    ],
)
def test_documents(wav: Path, line: str, format_name: str, documents: list[str]) -> None:
    made = plan(line)
    assert (made.format_name, made.documents) == (format_name, tuple(map(Path, documents)))
    assert made.writes_stdout is (documents == ["-"])


def test_files_that_differ_in_extension_only_keep_it(wav: Path) -> None:
    (wav / "a.mp3").write_bytes(b"x")
    assert plan("a.wav a.mp3 --output-dir .").documents == (Path("a.wav.txt"), Path("a.mp3.txt"))


@pytest.mark.parametrize(
    ("line", "error", "text"),
    [
        ("", UsageError, "give files to transcribe, or --mic"),
        ("a.wav --mic", UsageError, "either files or --mic"),
        ("nowhere.wav", SourceError, "nowhere.wav: no such file"),
        ("other", SourceError, "other: no such file"),
        ("ws://a ws://b a.wav", UsageError, "one server"),
        ("ws://a --port 1 a.wav", UsageError, "one server"),
        ("ws:// a.wav", UsageError, "names no host"),
        ("ws://a:99999 a.wav", UsageError, "cannot be read"),
        ("--port 0 a.wav", BadInputError, "--port: 0"),
        ("--port 65536 a.wav", BadInputError, "1 to 65535"),
        ("--host a/b a.wav", BadInputError, "--host"),
        ("--json --quiet a.wav", UsageError, "either --json or --quiet"),
        ("a.wav -o x --output-dir other", UsageError, "either --output or --output-dir"),
        ("a.wav -o nowhere/x.srt", BadInputError, "existing directory"),
        ("a.wav -o other", BadInputError, "--output"),
        ("a.wav --output-dir nowhere", BadInputError, "existing directory"),
        ("a.wav b.wav -o x.srt", UsageError, "--output-dir"),
        ("a.wav b.wav --format srt", UsageError, "--output-dir"),
        ("a.wav other/a.wav --output-dir .", UsageError, "same name"),
        ("a.wav --json --format srt", UsageError, "--json needs standard output"),
        ("a.wav --token-file nowhere", BadInputError, "No such file"),
    ],
)
def test_refusals(wav: Path, line: str, error: type[SttError], text: str) -> None:
    with pytest.raises(error) as caught:
        plan(line)
    assert text in str(caught.value)


@pytest.mark.parametrize("url", ["ws://me:CANARY@host", "ws://host/?token=CANARY", "wss://host/x?a=1&API_KEY=CANARY"])
def test_a_secret_in_the_url_is_refused_and_not_shown(wav: Path, url: str) -> None:
    with pytest.raises(UsageError, match="holds a secret") as caught:
        plan(f"{url} a.wav")
    assert "CANARY" not in str(caught.value)


def test_chunks_at_their_limits(wav: Path) -> None:
    assert plan(f"a.wav --chunk-ms {MIN_CHUNK_MS}").chunk_ms == MIN_CHUNK_MS
    assert plan(f"a.wav --chunk-ms {MAX_CHUNK_MS}").chunk_ms == MAX_CHUNK_MS
    for value in (MIN_CHUNK_MS - 1, MAX_CHUNK_MS + 1):
        with pytest.raises(BadInputError, match=f"{MIN_CHUNK_MS} to {MAX_CHUNK_MS}"):
            plan(f"a.wav --chunk-ms {value}")


def test_token(wav: Path) -> None:
    (wav / "token").write_text("from-file \nsecond line\n")
    assert plan("a.wav", WHISPER_AUTH_TOKEN=" from-env ").options.token == "from-env"
    assert plan("a.wav --token-file token", WHISPER_AUTH_TOKEN="from-env").options.token == "from-file"
    assert plan("a.wav", WHISPER_AUTH_TOKEN="").options.token is None
    assert "from-env" not in repr(plan("a.wav", WHISPER_AUTH_TOKEN="from-env"))


def test_token_at_its_limits(wav: Path) -> None:
    assert plan("a.wav", WHISPER_AUTH_TOKEN="x" * MAX_TOKEN_CHARS).options.token == "x" * MAX_TOKEN_CHARS
    for secret in ("x" * (MAX_TOKEN_CHARS + 1), "CANARY\tx", "CANARY-é", "CANARY\r\nX: y"):
        with pytest.raises(BadInputError, match="printable ASCII") as caught:
            plan("a.wav", WHISPER_AUTH_TOKEN=secret)
        assert "CANARY" not in str(caught.value)
    (wav / "token").write_text("\n")
    with pytest.raises(BadInputError, match="token-file"):
        plan("a.wav --token-file token")
    (wav / "token").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInputError, match="not UTF-8"):
        plan("a.wav --token-file token")


def test_speed(wav: Path) -> None:
    assert plan("a.wav").speed == 1.0
    assert plan("a.wav --speed 2").speed == 2.0
    for value in ("0.09", "100.1", "nan"):
        with pytest.raises(BadInputError, match="--speed"):
            plan(f"a.wav --speed {value}")
    for line in ("a.wav --speed 2 --fast", "--mic --speed 2"):
        with pytest.raises(UsageError, match="--speed"):
            plan(line)
