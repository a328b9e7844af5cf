"""What a caller of worker-faster_whisper sees, case by case: the whole worker under the real SDK, over HTTP.

One worker serves all cases: `base` and `turbo` are the demo model's directory. Audio by URL comes from a server on
loopback, which the worker is allowed to ask for once; it is also the store of `s3://` audio, and takes results.
"""

from __future__ import annotations

import base64
import http.server
import io
import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import runpod

from engine.models import DEMO_MODEL_DIR
from engine.types import FloatArray
from tests.fakes.demo_audio import plain_words
from tests.fakes.media import encoded, muxed, tricks
from tests.fakes.runpod import Job, LocalWorker, QueuePlane, worker_environ

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "engine" / "demo_model" / "samples"
LIMIT_S = 30.0
HELLO = "Hello, my name is Anna."
W_KEYS = {"segments", "detected_language", "transcription", "translation", "device", "model"}
SEGMENT_KEYS = {
    "id",
    "seek",
    "start",
    "end",
    "text",
    "tokens",
    "temperature",
    "avg_logprob",
    "compression_ratio",
    "no_speech_prob",
}


LONG_S = 600.0
"""A recording that takes this machine well over a second."""


def inline(name: str) -> str:
    return as_base64((SAMPLES / name).read_bytes())


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spoken(name: str) -> FloatArray:
    """A sample's audio, mono 16 kHz."""
    return (np.frombuffer((SAMPLES / name).read_bytes()[44:], dtype=np.int16) / 32_768).astype(np.float32)


def video(speech: FloatArray) -> bytes:
    """An MP4 with a moving picture and speech."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        pictures, sound = out.add_stream("mpeg4", rate=5), out.add_stream("aac", rate=16_000, layout="mono")
        assert isinstance(pictures, av.VideoStream) and isinstance(sound, av.AudioStream)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        for number in range(len(speech) * 5 // 16_000):
            picture = np.full((64, 64, 3), number * 10 % 256, dtype=np.uint8)
            out.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(pictures.encode(None))
        frame = av.AudioFrame.from_ndarray(speech[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return file.getvalue()


@dataclass
class Site:
    """The worker's world: a queue, and a server that has audio."""

    plane: QueuePlane
    worker: LocalWorker
    audio_url: str
    uploads: dict[str, bytes]

    def do(self, **job_input: Any) -> Job:
        return self.plane.wait(self.plane.submit(job_input), LIMIT_S)

    def output(self, **job_input: Any) -> dict[str, Any]:
        job = self.do(**job_input)
        assert (job.status, job.error) == ("COMPLETED", None)
        assert isinstance(job.output, dict)
        return job.output

    def error(self, **job_input: Any) -> tuple[str, str]:
        """The message and its code."""
        job = self.do(**job_input)
        assert job.status == "FAILED" and isinstance(job.output, dict)
        text = json.dumps([job.error, job.output])
        assert "Traceback" not in text and ".py" not in text
        return str(job.error), job.output["error_code"]


class _Server(http.server.ThreadingHTTPServer):
    """Serves files of a folder, and keeps what is put to it, by path."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), lambda *args: _Files(*args, directory=str(folder)))
        self.uploads: dict[str, bytes] = {}


class _Files(http.server.SimpleHTTPRequestHandler):
    def do_PUT(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.uploads[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Server]:
    """The samples, once more as objects of the bucket "recordings", and a recording that takes long."""
    folder = tmp_path_factory.mktemp("files")
    shutil.copytree(SAMPLES, folder, dirs_exist_ok=True)
    shutil.copytree(SAMPLES, folder / "recordings")
    shutil.copy(SAMPLES / "hello_en.wav", folder / "my file ü.wav")
    speech = spoken("meeting_en.wav")
    (folder / "a_minute.wav").write_bytes(encoded(np.tile(speech, 6), 16_000))
    (folder / "long.wav").write_bytes(encoded(np.tile(speech, round(LONG_S * 16_000 / len(speech))), 16_000))
    with _Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def worker_of(plane: QueuePlane, **extra: str) -> LocalWorker:
    environ = {
        **worker_environ(plane),
        "WHISPER_MODELS": f"base={DEMO_MODEL_DIR},turbo={DEMO_MODEL_DIR}",
        "ALLOW_PRIVATE_DOWNLOAD_URLS": "1",
        "MAX_LOADED_MODELS": "2",
        **extra,
    }
    return LocalWorker((sys.executable, "-m", "handler"), environ)


@pytest.fixture(scope="module")
def site(files: _Server) -> Iterator[Site]:
    with QueuePlane() as plane, worker_of(plane) as worker:
        yield Site(plane, worker, f"http://127.0.0.1:{files.server_port}", files.uploads)
        assert "Anna" not in worker.log() and inline("hello_en.wav")[:100] not in worker.log()


@pytest.fixture(scope="module")
def strict(files: _Server) -> Iterator[Site]:
    with QueuePlane() as plane, worker_of(plane, STRICT_COMPAT="1", MAX_RESULT_BYTES="10000") as worker:
        yield Site(plane, worker, f"http://127.0.0.1:{files.server_port}", files.uploads)


def test_c1_a_url_alone(site: Site) -> None:
    output = site.output(audio=f"{site.audio_url}/hello_en.wav")
    assert set(output) >= W_KEYS and "word_timestamps" not in output
    assert (output["model"], output["translation"], output["detected_language"]) == ("base", None, "en")
    assert output["transcription"] == HELLO
    [segment] = output["segments"]
    assert set(segment) == SEGMENT_KEYS and segment["text"] == f" {HELLO}"
    assert 0 < segment["start"] < segment["end"] < 3 and all(isinstance(token, int) for token in segment["tokens"])


def test_c1_in_strict_mode_exactly_its_keys(strict: Site) -> None:
    output = strict.output(audio=f"{strict.audio_url}/hello_en.wav")
    assert set(output) == W_KEYS and output["transcription"] == HELLO
    with_words = strict.output(audio_base64=inline("hello_en.wav"), word_timestamps=True)
    assert set(with_words) == W_KEYS | {"word_timestamps"} and set(with_words["segments"][0]) == SEGMENT_KEYS


def test_c2_base64_and_another_model_with_words(site: Site) -> None:
    output = site.output(audio_base64=inline("hello_en.wav"), model="turbo", word_timestamps=True)
    assert output["model"] == "turbo"
    assert "".join(word["word"] for word in output["word_timestamps"]).strip() == HELLO
    assert all(set(word) == {"word", "start", "end"} for word in output["word_timestamps"])
    assert all(word["start"] < word["end"] for word in output["word_timestamps"])


def test_c3_its_own_test_input(site: Site) -> None:
    output = site.output(
        audio=f"{site.audio_url}/hello_en.wav",
        model="turbo",
        transcription="plain text",
        translate=False,
        language="en",
        temperature=0,
        best_of=5,
        beam_size=5,
        suppress_tokens="-1",
        condition_on_previous_text=False,
        temperature_increment_on_fallback=0.2,
        compression_ratio_threshold=2.4,
        logprob_threshold=-1,
        no_speech_threshold=0.6,
    )
    assert output["transcription"] == HELLO


def test_c4_two_kinds_of_audio(site: Site) -> None:
    message, code = site.error(audio=f"{site.audio_url}/hello_en.wav", audio_base64=inline("hello_en.wav"))
    assert message == "Must provide either audio or audio_base64, not both" and code == "bad_input"


def test_c5_no_audio(site: Site) -> None:
    assert site.error(model="base") == ("Must provide either audio or audio_base64", "bad_input")


def test_c6_an_unknown_field(site: Site, strict: Site) -> None:
    output = site.output(audio=f"{site.audio_url}/hello_en.wav", foo=1)
    assert output["transcription"] == HELLO and "foo" in output["warnings"][0]
    message, code = strict.error(audio=f"{strict.audio_url}/hello_en.wav", foo=1)
    assert "foo" in message and "unexpected" in message.lower() and code == "bad_input"


def test_c7_the_other_formats(site: Site) -> None:
    hello = inline("hello_en.wav")
    srt = site.output(audio_base64=hello, transcription="srt")["transcription"]
    assert re.fullmatch(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\nHello, my name is Anna\.\n\n", srt)
    vtt = site.output(audio_base64=hello, transcription="vtt")["transcription"]
    assert re.fullmatch(r"WEBVTT\n\n00:00:0\d\.\d{3} --> 00:00:0\d\.\d{3}\nHello, my name is Anna\.\n", vtt)
    assert site.output(audio_base64=hello, transcription="formatted_text")["transcription"] == HELLO
    several = site.output(audio_base64=hello, output_formats=["srt", "vtt", "tsv", "lrc", "verbose_json"])["outputs"]
    assert several["srt"] == srt and several["vtt"] == vtt and several["tsv"].startswith("start\tend\ttext\n")
    assert json.loads(several["verbose_json"])["text"] == HELLO and HELLO in several["lrc"]


def test_c8_numbers_as_text(site: Site, strict: Site) -> None:
    output = site.output(audio_base64=inline("hello_en.wav"), beam_size="5", temperature="0.0")
    assert output["transcription"] == HELLO and any("beam_size" in warning for warning in output["warnings"])
    job = strict.do(audio_base64=inline("hello_en.wav"), beam_size="5", foo=1)
    assert job.error == [
        "Unexpected input. foo is not a valid input option.",
        "beam_size should be <class 'int'> type, not <class 'str'>.",
    ]
    assert isinstance(job.output, dict) and job.output["error_code"] == "bad_input"


def test_c9_a_translation_beside_it(site: Site) -> None:
    output = site.output(audio_base64=inline("hello_en.wav"), translate=True, translation="srt")
    assert output["transcription"] == HELLO
    # The demo model was never taught to translate: that it is a document of its own is what can be seen here.
    assert isinstance(output["translation"], str) and (output["translation"] == "" or "-->" in output["translation"])


def test_c10_a_model_that_is_not_on_the_list(site: Site) -> None:
    assert site.error(audio_base64=inline("hello_en.wav"), model="nope") == (
        "model: 'nope' is not allowed; legal: base, turbo",
        "bad_input",
    )


def test_c11_no_fallback(site: Site) -> None:
    output = site.output(audio_base64=inline("hello_en.wav"), temperature_increment_on_fallback=0)
    assert output["transcription"] == HELLO


def test_c12_a_dead_url(site: Site) -> None:
    message, code = site.error(audio=f"{site.audio_url}/absent.wav?signature=secret")
    assert code == "audio_fetch_failed" and "404" in message and "secret" not in message


def test_c12_an_address_that_is_not_public(strict: Site) -> None:
    """Allowed here are loopback and private networks; the metadata service of clouds never is."""
    message, code = strict.error(audio="http://[64:ff9b::a9fe:a9fe]:1/latest/meta-data")
    assert code == "audio_fetch_failed", message


def odd_audio() -> dict[str, bytes]:
    samples = spoken("hello_en.wav")
    wide: FloatArray = np.repeat(samples[:, None], 6, axis=1) * np.float32(0.5)
    return {
        "8 kHz mono": encoded(samples[::2], 8_000),
        "5.1": encoded(wide, 16_000),
        "24 bits": encoded(samples, 16_000, subtype="PCM_24"),
        "webm": muxed(samples, "webm", "libopus", 48_000),
        "video": video(samples),
        "silence": encoded(np.zeros(32_000, dtype=np.float32), 16_000),
    }


@pytest.mark.parametrize("name", ["8 kHz mono", "5.1", "24 bits", "webm", "video"])
def test_c13_odd_audio(site: Site, name: str) -> None:
    data = as_base64(odd_audio()[name])
    assert len(plain_words(site.output(audio_base64=data)["transcription"])) >= 4


@pytest.mark.parametrize("data", [b"", b"just some text, and no audio at all" * 20])
def test_c13_no_audio(site: Site, data: bytes) -> None:
    _message, code = site.error(audio_base64=as_base64(data))
    assert code in ("bad_audio", "bad_input")


def test_c13_and_c14_silence_has_no_segments_and_is_json(site: Site) -> None:
    output = site.output(audio_base64=as_base64(odd_audio()["silence"]), word_timestamps=True)
    assert (output["segments"], output["transcription"], output["word_timestamps"]) == ([], "", [])


def test_c15_a_language_that_is_none(site: Site) -> None:
    message, code = site.error(audio_base64=inline("hello_en.wav"), language="zz")
    assert code == "bad_input" and "zz" in message and "es" in message


def test_a_list_has_results_and_errors_item_by_item(site: Site) -> None:
    audio = [f"{site.audio_url}/hello_en.wav", f"{site.audio_url}/absent.wav", f"{site.audio_url}/hola_es.wav"]
    results = site.output(audio=audio)["results"]
    assert results[0]["transcription"] == HELLO
    assert results[1]["error_code"] == "audio_fetch_failed"
    assert results[2]["detected_language"] == "es"


def test_a_result_that_is_too_large_is_shrunk_and_its_text_is_whole(strict: Site, site: Site) -> None:
    asked = {"audio": f"{site.audio_url}/a_minute.wav", "word_timestamps": True}
    whole, small = site.output(**asked), strict.output(**asked)
    assert small["transcription"] == whole["transcription"] and len(json.dumps(small)) <= 10_000
    assert set(small) == W_KEYS | {"word_timestamps"} and all(set(each) <= SEGMENT_KEYS for each in small["segments"])
    assert "tokens: left out to fit" in strict.worker.log()


def test_audio_in_a_store_of_the_job(site: Site) -> None:
    store = {"accessId": "a", "accessSecret": "CANARY", "bucketName": "other", "endpointUrl": site.audio_url}
    output = site.output(audio="s3://recordings/hello_en.wav", s3Config=store)
    assert (output["transcription"], output["warnings"]) == (HELLO, [])
    message, code = site.error(audio="s3://recordings/absent.wav", s3Config=store)
    assert code == "audio_fetch_failed" and "404" in message
    assert "CANARY" not in message + site.worker.log()


def test_a_result_is_put_where_the_job_says(site: Site) -> None:
    answer = site.output(audio_base64=inline("hello_en.wav"), upload_url=f"{site.audio_url}/result.json?sig=CANARY")
    put = json.loads(site.uploads["/result.json?sig=CANARY"])
    assert put["transcription"] == HELLO and put["segments"][0]["text"] == f" {HELLO}"
    assert (answer["uploaded"], answer["transcription"], answer["segments"]) == (True, HELLO, [])
    assert "CANARY" not in json.dumps(answer) + site.worker.log()


def test_one_stretch_after_the_other(site: Site) -> None:
    fast, accurate = (site.output(audio_base64=inline("meeting_en.wav"), mode=mode) for mode in ("fast", "accurate"))
    assert (fast["mode"], accurate["mode"]) == ("fast", "accurate")
    assert plain_words(accurate["transcription"]) == plain_words(fast["transcription"]) != []
    starts = [segment["start"] for segment in accurate["segments"]]
    assert starts == sorted(starts)


def test_a_url_with_blanks(site: Site) -> None:
    assert site.output(audio=f"{site.audio_url}/my file ü.wav")["transcription"] == HELLO


def test_a_store_of_no_use_is_no_failure_of_a_job_that_needs_none(site: Site) -> None:
    output = site.output(audio_base64=inline("hello_en.wav"), s3Config={"accessId": "a"})
    assert output["transcription"] == HELLO and "s3Config" in output["warnings"][0]


def test_a_poisoned_job_leaves_the_next_one_as_the_one_before(site: Site) -> None:
    def words() -> list[Any]:
        output = site.output(audio_base64=inline("numbers_en.wav"), word_timestamps=True)
        assert output["transcription"]
        return [output["transcription"], output["segments"], output["word_timestamps"]]

    before = words()
    speech = (SAMPLES / "hello_en.wav").read_bytes()
    for poison in (tricks(1)["mp4 external data"], speech[:40] + b"\xff" * 64):
        site.do(audio_base64=as_base64(poison))
        assert words() == before


def cpu_s(pid: int) -> float:
    """Processor seconds that a process, its children and theirs have taken, those that ended included."""
    try:
        ticks = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return ticks / os.sysconf("SC_CLK_TCK") + sum(map(cpu_s, children))


def is_idle(pid: int) -> bool:
    before_s = cpu_s(pid)
    time.sleep(0.2)
    return cpu_s(pid) - before_s < 0.05


def test_a_cancelled_job_stops_working(site: Site) -> None:
    hello = {"audio_base64": inline("hello_en.wav")}
    assert site.output(**hello)["transcription"] == HELLO
    pid = site.worker.process.pid
    idle_s = cpu_s(pid)
    job_id = site.plane.submit({"audio": f"{site.audio_url}/long.wav", "mode": "accurate", "beam_size": 10})
    site.plane.wait_until(lambda: cpu_s(pid) > idle_s + 0.5, "half a second of work done", LIMIT_S)
    site.plane.cancel(job_id)
    assert site.output(**hello)["transcription"] == HELLO
    site.plane.wait_until(lambda: is_idle(pid), "idle (the cancelled job goes on)", 3.0)
    assert site.plane.job(job_id).status == "CANCELLED" and site.plane.job(job_id).results == []


def test_a_deadline_that_is_too_short(site: Site) -> None:
    began_s = time.monotonic()
    message, code = site.error(audio=f"{site.audio_url}/long.wav", mode="accurate", beam_size=10, deadline_s=1)
    assert code == "deadline" and "1 s" in message
    assert time.monotonic() - began_s < 5


def test_the_readmes_example_with_the_sdks_own_client(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runpod, "endpoint_url_base", site.plane.base_url)
    monkeypatch.setattr(runpod, "api_key", None)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = readme.split("<!-- example: runpod -->\n```python\n")[1].split("```")[0]
    for name, value in (
        ("ENDPOINT_ID", site.plane.endpoint),
        ("RUNPOD_API_KEY", site.plane.api_key),
        ("https://example.org/talk.mp3", f"{site.audio_url}/hello_en.wav"),
    ):
        assert name in code
        code = code.replace(name, value)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == f"{HELLO}\n"
