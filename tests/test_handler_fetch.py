"""Fetching over real sockets: who is connected to, how much is taken, how long it may last, what is left behind."""

from __future__ import annotations

import asyncio
import gzip
import resource
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import BadInputError, FetchError, StorageError
from engine.settings import load_settings
from handler.addresses import parse_url, redirected
from handler.fetch import Fetcher, FetchLimits
from handler.http_get import MAX_HEAD_BYTES, MAX_TRIED_ADDRESSES, Pace
from handler.resolver import Resolver, SystemResolver, UnreachableError, checked_addresses, run_abandonable
from handler.s3 import S3Config, presigned_url
from handler.sources import Source
from tests.fakes.files_server import (
    FakeResolver,
    FilesServer,
    Reply,
    Visit,
    answer,
    chunked,
    make_certificate,
    serving_files,
)
from tests.fakes.media import HELLO
from tests.test_handler_addresses import REFUSED_URLS

LOCAL = FakeResolver(["127.0.0.1"])
AUDIO = b"RIFF" + bytes(range(256)) * 40
LIMITS = FetchLimits(max_bytes=1 << 20, deadline_s=10.0, allow_private=True)
HASTY = replace(LIMITS, pace=Pace(head_s=0.3, slow_start_s=0.3))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where recordings are kept; nothing may be left there."""
    place = tmp_path / "recordings"
    place.mkdir()
    yield place
    assert is_empty(place)


def is_empty(folder: Path) -> bool:
    return list(folder.iterdir()) == []


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handler.download.RETRY_PAUSE_S", 0.01)


def fetcher(folder: Path, limits: FetchLimits = LIMITS, resolver: Resolver = LOCAL) -> Fetcher:
    return Fetcher(limits, folder=folder, resolver=resolver, tls=ssl.create_default_context())


async def fetched(using: Fetcher, url: str) -> bytes:
    async with using.open(Source("url", url, "audio")) as found:
        data = found.path.read_bytes()
        assert found.n_bytes == len(data)
        assert found.took_s >= 0
    return data


async def refusal(using: Fetcher, url: str) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await fetched(using, url)
    assert "?" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


def scenario(
    replies: dict[str, Reply], act: Callable[[FilesServer], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> None:
    """Run `act` with a file server; whatever the loop complains about fails the test."""
    complaints: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        async with serving_files(replies, tls) as server:
            await asyncio.wait_for(act(server), 20.0)

    asyncio.run(main())
    assert complaints == []


def test_file_arrives_and_is_gone_afterwards(folder: Path) -> None:
    async def act(server: FilesServer) -> None:
        async with fetcher(folder).open(Source("url", server.url("/a b.wav?signature=x"), "audio")) as found:
            assert found.path.read_bytes() == AUDIO
            assert found.n_bytes == len(AUDIO)
            assert 0 < found.took_s < 5
            assert found.path.parent.parent == folder
            assert found.path.parent.stat().st_mode & 0o777 == 0o700
        assert not found.path.parent.exists()
        request = server.visits[0].request.decode()
        assert request.startswith("GET /a%20b.wav?signature=x HTTP/1.1\r\n")
        assert f"\r\nHost: files.example:{server.port}\r\n" in request
        assert "\r\nAccept-Encoding: identity\r\n" in request
        assert "\r\nUser-Agent: whisper-runpod" in request
        assert "Cookie" not in request
        assert "Authorization" not in request

    scenario({"/a%20b.wav": answer(AUDIO)}, act)


def test_default_place_is_private_and_is_cleaned() -> None:
    async def act(server: FilesServer) -> None:
        async with Fetcher(LIMITS, resolver=LOCAL).open(Source("url", server.url(), "audio")) as found:
            assert found.path.parent.parent == Path(tempfile.gettempdir())
            assert found.path.parent.stat().st_mode & 0o777 == 0o700
        assert not found.path.parent.exists()

    scenario({"/a.wav": answer(AUDIO)}, act)


def test_proxies_of_the_environment_are_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def act(server: FilesServer) -> None:
        assert await fetched(fetcher(folder), server.url()) == AUDIO

    scenario({"/a.wav": answer(AUDIO)}, act)


def test_refused_urls_reach_nobody(folder: Path) -> None:
    async def act(server: FilesServer) -> None:
        public_only = fetcher(folder, replace(LIMITS, allow_private=False))
        for url in REFUSED_URLS:
            await refusal(public_only, url.replace("127.0.0.1/", f"127.0.0.1:{server.port}/"))
        for host in ("127.0.0.1", "localhost", "localhost.", "[::ffff:127.0.0.1]", "127.1", "2130706433"):
            system = fetcher(folder, replace(LIMITS, allow_private=False), SystemResolver())
            await refusal(system, server.url(host=host))
        assert server.connections == 0

    scenario({"/a.wav": answer(AUDIO)}, act)


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["93.184.216.34", "127.0.0.1"],
        ["2606:4700::1111", "::ffff:127.0.0.1"],
        ["2002:7f00:1::"],
        ["fe80::1%lo"],
        ["64:ff9b::7f00:1"],
    ],
)
def test_a_name_with_any_address_that_is_not_public_is_refused(folder: Path, answers: list[str]) -> None:
    async def act(server: FilesServer) -> None:
        public_only = fetcher(folder, replace(LIMITS, allow_private=False), FakeResolver(answers))
        error = await refusal(public_only, server.url())
        assert str(error) == "the host files.example has an address that is not public"
        assert server.connections == 0

    scenario({"/a.wav": answer(AUDIO)}, act)


def test_connection_goes_to_the_address_that_was_checked(folder: Path) -> None:
    """A name that turns from here to elsewhere after the check: asked once, and the first answer is used."""

    async def act(server: FilesServer) -> None:
        flipping = FakeResolver(["127.0.0.1"], ["203.0.113.1"])
        assert await fetched(fetcher(folder, resolver=flipping), server.url()) == AUDIO
        assert flipping.asked == ["files.example"]

    scenario({"/a.wav": answer(AUDIO)}, act)


def test_each_hop_is_looked_up_and_checked_again(folder: Path) -> None:
    """With the address of the second hop inside: the first hop is public only in the resolver's words."""

    async def act(server: FilesServer) -> None:
        moving = FakeResolver(["127.0.0.1"], ["10.0.0.1"])
        target = parse_url(server.url())
        assert [str(found) for found in await checked_addresses(moving, target, allow_private=True)] == ["127.0.0.1"]
        with pytest.raises(FetchError, match="not public"):
            await checked_addresses(moving, target)
        hops = FakeResolver(["127.0.0.1"])
        assert await fetched(fetcher(folder, resolver=hops), server.url("/1")) == AUDIO
        assert hops.asked == ["files.example", "other.example", "files.example"]

    async def to_other(visit: Visit) -> None:
        port = visit.request.split(b"files.example:")[1].split(b"\r\n")[0].decode()
        await visit.send(answer(b"", "302 Found", f"Location: http://other.example:{port}/2"))

    async def back(visit: Visit) -> None:
        port = visit.request.split(b"other.example:")[1].split(b"\r\n")[0].decode()
        await visit.send(answer(b"", "307 Temporary Redirect", f"Location: http://files.example:{port}/a.wav"))

    scenario({"/1": to_other, "/2": back, "/a.wav": answer(AUDIO)}, act)


def to(location: str, status: str = "302 Found") -> bytes:
    return answer(b"moved", status, f"Location: {location}")


@pytest.mark.parametrize(
    ("first", "others", "expected"),
    [
        (to("/a.wav", "301 Moved"), {}, None),
        (to("a.wav", "308 Permanent Redirect"), {}, None),
        (to("/2"), {"/2": to("/3", "303 See Other"), "/3": to("/a.wav")}, None),
        (to("/2"), {"/2": to("/3"), "/3": to("/4"), "/4": to("/a.wav")}, "more than 3 redirects"),
        (to("/1"), {}, "more than 3 redirects"),
        (to("file:///etc/passwd"), {}, "scheme"),
        (to("gopher://127.0.0.1/"), {}, "scheme"),
        (to("http://127.1/"), {}, "number"),
        (to("http://user:pw@files.example/"), {}, "user"),
        (to("http://files.example:25/"), {}, "port 25"),
        (answer(b"", "302 Found"), {}, "HTTP status 302"),
        (answer(b"", "304 Not Modified"), {}, "HTTP status 304"),
    ],
)
def test_redirect_chains(folder: Path, first: bytes, others: dict[str, Reply], expected: str | None) -> None:
    async def act(server: FilesServer) -> None:
        if expected is None:
            assert await fetched(fetcher(folder), server.url("/1")) == AUDIO
        else:
            assert expected in str(await refusal(fetcher(folder), server.url("/1?secret")))
            assert "/a.wav" not in server.paths

    scenario({"/1": first, **others, "/a.wav": answer(AUDIO)}, act)


def test_redirects_to_the_inside_are_refused(folder: Path) -> None:
    """The first hop is let through by its name's address; the literal one behind it must not be."""

    async def act(server: FilesServer) -> None:
        target = parse_url("https://files.example/a")
        for inside in ("127.0.0.1", "169.254.169.254", "[::1]", "[fd00:ec2::254]", "10.0.0.1", "[2002:a9fe:a9fe::]"):
            with pytest.raises(FetchError, match="is not a public address"):
                redirected(target, f"https://{inside}:{server.port}/")
        assert server.connections == 0

    scenario({}, act)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (answer(b"", "204 No Content"), "answered without content (HTTP status 204)"),
        (answer(b"", "205 Reset Content"), "answered without content (HTTP status 205)"),
        (answer(b""), "answered without content (HTTP status 200)"),
        (answer(b"no", "404 Not Found"), "HTTP status 404 from files.example"),
        (answer(b"no", "403 Forbidden"), "HTTP status 403 from files.example"),
        (answer(AUDIO, "206 Partial Content"), "HTTP status 206 from files.example"),
        (answer(b"no", "503 Busy"), "HTTP status 503 from files.example (3 attempts)"),
        (answer(b"no", "429 Slow down"), "HTTP status 429 from files.example (3 attempts)"),
        (answer(b"<!DOCTYPE html><html><body>Sign in"), "what files.example answers is a web page, not audio"),
        (answer(b"\n <HTML>" + bytes(900)), "what files.example answers is a web page, not audio"),
        (answer(b'\xef\xbb\xbf{"error": "no such file"}'), "what files.example answers is a JSON document, not audio"),
        (answer(b"<?xml version='1.0'?><Error/>"), "what files.example answers is an XML document, not audio"),
        (answer(AUDIO, "200 OK", "Content-Encoding: br"), "content coding that was not asked for; legal: none, gzip"),
        (answer(AUDIO, "200 OK", "Content-Encoding: gzip"), "said to be gzip, and is not"),
        (answer(gzip.compress(AUDIO)[:-9], "200 OK", "Content-Encoding: gzip"), "the compressed file breaks off"),
        (b"", "closed the connection without an answer (3 attempts)"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "files.example"),
        (answer(AUDIO, length=len(AUDIO) + 1), "closed the connection before the end of the file (3 attempts)"),
        (answer(chunked(AUDIO, end=b""), "200 OK", "Transfer-Encoding: chunked", length=-1), "before the end"),
        (answer(b"zz\r\n", "200 OK", "Transfer-Encoding: chunked", length=-1), "does not answer in HTTP"),
        (answer(AUDIO, "200 OK", "Content-Length: 1", length=2), "does not answer in HTTP"),
        (answer(AUDIO, length=(1 << 20) + 1), "is over the limit of 1048576 bytes"),
        (answer(AUDIO, length=1 << 70), "files.example"),
    ],
)
def test_answers_that_are_no_file(folder: Path, reply: bytes, message: str) -> None:
    async def act(server: FilesServer) -> None:
        error = await refusal(fetcher(folder), server.url("/a.wav?secret"))
        assert message in str(error)
        assert error.retryable == isinstance(error, UnreachableError)
        assert server.connections == (3 if "(3 attempts)" in str(error) else 1)

    scenario({"/a.wav": reply}, act)


@pytest.mark.parametrize(
    "reply",
    [
        answer(AUDIO),
        answer(AUDIO + b"and more than was announced", length=len(AUDIO)),
        answer(AUDIO, length=-1),
        b"HTTP/1.0 200 OK\r\n\r\n" + AUDIO,
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 0\r\n\r\n" + answer(AUDIO),
        answer(chunked(AUDIO[:7], AUDIO[7:]), "200 OK", "Transfer-Encoding: chunked", length=-1),
        answer(AUDIO, "200 OK", "Content-Encoding: identity", "Content-Type: text/html"),
        answer(gzip.compress(AUDIO), "200 OK", "Content-Encoding: gzip"),
        answer(AUDIO, "200 OK", "Set-Cookie: a=b"),
    ],
    ids=["plain", "too long", "to the end", "http 1.0", "early hints", "chunked", "identity", "gzip", "cookie"],
)
def test_answers_that_are_files(folder: Path, reply: bytes) -> None:
    async def act(server: FilesServer) -> None:
        assert await fetched(fetcher(folder), server.url()) == AUDIO
        assert server.connections == 1

    scenario({"/a.wav": reply}, act)


@pytest.mark.parametrize("framing", ["length", "chunked", "to the end", "gzip"])
def test_byte_cap_at_the_limit_and_one_past(folder: Path, framing: str) -> None:
    body = HELLO.read_bytes()
    replies = {
        "length": answer(body),
        "chunked": answer(chunked(body[:9_999], body[9_999:]), "200 OK", "Transfer-Encoding: chunked", length=-1),
        "to the end": answer(body, length=-1),
        "gzip": answer(gzip.compress(body, 1), "200 OK", "Content-Encoding: gzip"),
    }

    async def act(server: FilesServer) -> None:
        assert await fetched(fetcher(folder, replace(LIMITS, max_bytes=len(body))), server.url()) == body
        short = replace(LIMITS, max_bytes=len(body) - 1)
        assert f"is over the limit of {len(body) - 1} bytes" in str(await refusal(fetcher(folder, short), server.url()))

    scenario({"/a.wav": replies[framing]}, act)


def test_gzip_bomb_costs_little_memory(folder: Path) -> None:
    """100 MiB in 100 kB: refused at the cap, in pieces."""
    packed = gzip.compress(b"\0" * (100 << 20), 1)
    assert len(packed) < 1 << 20

    async def act(server: FilesServer) -> None:
        using = fetcher(folder, replace(LIMITS, max_bytes=32 << 20))
        tracemalloc.start()
        try:
            assert "over the limit of 33554432 bytes" in str(await refusal(using, server.url()))
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()

    scenario({"/a.wav": answer(packed, "200 OK", "Content-Encoding: gzip")}, act)


def test_head_limit(folder: Path) -> None:
    def reply(size: int) -> bytes:
        plain = answer(AUDIO, "200 OK", "X: ")
        return plain.replace(b"X: ", b"X: " + b"x" * (size - (len(plain) - len(AUDIO))))

    trailers = answer(b"4\r\nRIFF\r\n0\r\n" + b"x" * (1 << 20), "200 OK", "Transfer-Encoding: chunked", length=-1)

    async def act(server: FilesServer) -> None:
        assert await fetched(fetcher(folder), server.url("/fits")) == AUDIO
        for path in ("/past", "/endless", "/trailers"):
            error = await refusal(fetcher(folder), server.url(path))
            assert f"over the limit of {MAX_HEAD_BYTES} bytes" in str(error)

    endless = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 99_999
    sizes = {"/fits": reply(MAX_HEAD_BYTES), "/past": reply(MAX_HEAD_BYTES + 1)}
    scenario({**sizes, "/endless": endless, "/trailers": trailers}, act)


@pytest.mark.parametrize("where", ["head", "body", "nothing"])
def test_drip_ends_in_time(folder: Path, where: str) -> None:
    """A byte each 20 ms for ever: the head's time, the rate, or the whole time ends it."""

    async def reply(visit: Visit) -> None:
        if where == "body":
            await visit.send(answer(AUDIO[:512], length=1_000_000))
        if where == "nothing":
            await asyncio.sleep(10.0)
        await visit.drip(b"HTTP/1.1 200 OK\r\nX: " if where == "head" else b"x", 0.02)

    expected = {
        "head": "did not answer in 0.3 s",
        "body": "sends less than 50 kB/s",
        "nothing": "did not answer in 0.3 s",
    }[where]

    async def act(server: FilesServer) -> None:
        began = time.monotonic()
        assert expected in str(await refusal(fetcher(folder, HASTY), server.url()))
        assert time.monotonic() - began < 3.0  # three attempts at most
        assert server.connections == (1 if where == "body" else 3)

    scenario({"/a.wav": reply}, act)


def test_whole_time_is_limited_whatever_the_rate(folder: Path) -> None:
    async def reply(visit: Visit) -> None:
        await visit.send(answer(b"", length=1 << 20))
        await visit.drip(b"x", 0.005)

    async def act(server: FilesServer) -> None:
        patient = replace(LIMITS, deadline_s=0.5, pace=Pace(min_bytes_per_s=1.0))
        began = time.monotonic()
        error = await refusal(fetcher(folder, patient), server.url())
        assert str(error) == "files.example did not deliver within 0.5 s"
        assert error.retryable
        assert time.monotonic() - began < 2.0

    scenario({"/a.wav": reply}, act)


def test_rate_counts_from_the_head_and_a_late_answer_is_fine(folder: Path) -> None:
    async def reply(visit: Visit) -> None:
        await asyncio.sleep(0.4)
        await visit.send(answer(AUDIO[:5_000], length=len(AUDIO)))
        await asyncio.sleep(0.3)
        await visit.send(AUDIO[5_000:])

    async def act(server: FilesServer) -> None:
        late = replace(LIMITS, pace=Pace(head_s=5.0, slow_start_s=0.6))
        assert await fetched(fetcher(folder, late), server.url()) == AUDIO

    scenario({"/a.wav": reply}, act)


def test_failures_are_tried_again_from_the_start(folder: Path) -> None:
    async def act(server: FilesServer) -> None:
        failures = [answer(b"x", "500 Oh"), answer(AUDIO, length=99_999)]

        async def reply(visit: Visit) -> None:
            await visit.send(failures.pop() if failures else answer(AUDIO[::-1]))

        server.replies["/a.wav"] = reply
        looked_up = FakeResolver(["127.0.0.1"])
        assert await fetched(fetcher(folder, resolver=looked_up), server.url()) == AUDIO[::-1]
        assert server.connections == 3
        assert len(looked_up.asked) == 3

    scenario({}, act)


def test_nobody_there(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def act(_server: FilesServer) -> None:
        error = await refusal(fetcher(folder), f"http://files.example:{port}/a?secret")
        assert str(error) == f"no connection to files.example, port {port} (3 attempts)"
        assert error.retryable

    scenario({}, act)


def test_other_addresses_of_the_name_are_tried_but_not_all(folder: Path) -> None:
    async def act(server: FilesServer) -> None:
        dead = [f"127.0.0.{number}" for number in range(2, MAX_TRIED_ADDRESSES + 1)]
        last = FakeResolver([*dead, "127.0.0.1"])
        assert await fetched(fetcher(folder, resolver=last), server.url()) == AUDIO
        past = FakeResolver(["127.0.0.99", *dead, "127.0.0.1"])
        assert "no connection to files.example" in str(await refusal(fetcher(folder, resolver=past), server.url()))

    scenario({"/a.wav": answer(AUDIO)}, act)


def test_connecting_has_its_own_limit(folder: Path) -> None:
    """A server that takes the connection and then says nothing to TLS."""

    async def act(server: FilesServer) -> None:
        hasty = replace(LIMITS, pace=Pace(connect_s=0.1))
        began = time.monotonic()
        error = await refusal(fetcher(folder, hasty), server.url(scheme="https"))
        assert str(error) == f"no connection to files.example, port {server.port} (3 attempts)"
        assert 0.3 <= time.monotonic() - began < 3.0

    scenario({"/a.wav": answer(AUDIO)}, act)


@pytest.mark.parametrize(
    ("result", "attempts"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no"), 1),
        (socket.gaierror(socket.EAI_AGAIN, "later"), 3),
        (OSError("x"), 3),
        ([], 1),
        (["no address"], 3),
    ],
)
def test_name_that_cannot_be_found(folder: Path, result: OSError | list[str], attempts: int) -> None:
    async def act(server: FilesServer) -> None:
        failing = FakeResolver(result)
        assert "the host files.example cannot be found" in str(
            await refusal(fetcher(folder, resolver=failing), server.url())
        )
        assert len(failing.asked) == attempts

    scenario({}, act)


def test_system_resolver_finds_this_machine() -> None:
    assert "127.0.0.1" in asyncio.run(SystemResolver().resolve("localhost"))
    with pytest.raises(UnicodeError):
        asyncio.run(SystemResolver().resolve("a..b"))


def test_whoever_abandons_a_thread_does_not_wait_for_it() -> None:
    release = threading.Event()

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(run_abandonable(lambda: release.wait(5.0)), 0.05)

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 1.0
    release.set()


@pytest.mark.parametrize("moment", ["look-up", "head", "body", "kept"])
def test_cancelling_ends_it_at_once_and_leaves_nothing(folder: Path, moment: str) -> None:
    reached, closed = asyncio.Event(), asyncio.Event()

    class Hanging:
        async def resolve(self, host: str) -> list[str]:
            reached.set()
            await run_abandonable(lambda: time.sleep(1.5))
            return [host]

    async def reply(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\n" if moment == "head" else answer(AUDIO, length=1 << 20))
        reached.set()
        await visit.drip(b"X", 0.01)
        closed.set()

    async def keep(using: Fetcher, url: str) -> None:
        async with using.open(Source("url", url, "audio")):
            reached.set()
            await asyncio.sleep(10.0)

    async def act(server: FilesServer) -> None:
        server.replies["/a.wav"] = answer(AUDIO) if moment == "kept" else reply
        using = fetcher(folder, LIMITS, Hanging() if moment == "look-up" else LOCAL)
        task = asyncio.create_task(keep(using, server.url()))
        await reached.wait()
        assert not is_empty(folder)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 1.0
        assert is_empty(folder)
        if moment in ("head", "body"):
            await asyncio.wait_for(closed.wait(), 5.0)

    scenario({}, act)


KEEPS = """
import asyncio, base64, sys
from pathlib import Path
from handler.fetch import Fetcher
from handler.sources import Source

async def main():
    async with Fetcher(folder=Path(sys.argv[1])).open(Source("base64", base64.b64encode(b"x" * 99).decode(), "audio")):
        print(flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_what_a_killed_worker_left_is_removed_by_the_next_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / "whisper-audio-link").symlink_to(outside)
    (folder / "whisper-audio-file").write_bytes(b"")
    (folder / "other").mkdir()
    strangers = {folder / "whisper-audio-link", folder / "whisper-audio-file", folder / "other"}
    worker = subprocess.Popen([sys.executable, "-c", KEEPS, str(folder)], stdout=subprocess.PIPE)
    try:
        assert worker.stdout is not None and worker.stdout.readline() == b"\n"
        (kept,) = set(folder.iterdir()) - strangers
        fetcher(folder)
        assert kept.is_dir(), "its worker lives"
    finally:
        worker.kill()
        worker.communicate()
    assert kept.is_dir()
    fetcher(folder)
    assert set(folder.iterdir()) == strangers
    assert outside.is_dir()
    (folder / "whisper-audio-link").unlink()
    (folder / "whisper-audio-file").unlink()
    (folder / "other").rmdir()


def test_a_folder_taken_for_an_orphan_too_early_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker looks for orphans between the making of a folder and its lock."""
    make, made = tempfile.mkdtemp, []

    def make_and_look(*args: str, **options: str) -> str:
        made.append(make(*args, **options))
        if len(made) == 1:
            fetcher(folder)
        return made[-1]

    async def act(server: FilesServer) -> None:
        monkeypatch.setattr(tempfile, "mkdtemp", make_and_look)
        assert await fetched(fetcher(folder), server.url()) == AUDIO
        assert len(made) == 2

    scenario({"/a.wav": answer(AUDIO)}, act)


def test_an_error_of_whoever_uses_the_file_removes_it(folder: Path) -> None:
    async def act(server: FilesServer) -> None:
        with pytest.raises(OSError, match="mine"):
            async with fetcher(folder).open(Source("url", server.url(), "audio")):
                raise OSError("mine")

    scenario({"/a.wav": answer(AUDIO)}, act)


def test_full_disk(folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    async def act(server: FilesServer) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
        try:
            with pytest.raises(StorageError, match="cannot be kept on the worker's disk") as caught:
                await fetched(fetcher(folder), server.url())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.retryable
        assert caught.value.code == "no_space"

    try:
        scenario({"/a.wav": answer(AUDIO * 20)}, act)
    finally:
        signal.signal(signal.SIGXFSZ, before)


def test_no_folder(folder: Path) -> None:
    async def act(server: FilesServer) -> None:
        with pytest.raises(StorageError, match="No such file or directory"):
            await fetched(fetcher(folder / "absent"), server.url())
        assert server.connections == 0

    scenario({}, act)


def test_tls_checks_the_name_although_the_connection_goes_to_an_address(folder: Path, tmp_path: Path) -> None:
    server_tls, client_tls = make_certificate(tmp_path, "files.example")
    names: list[str | None] = []
    server_tls.sni_callback = lambda _socket, name, _context: names.append(name)

    async def act(server: FilesServer) -> None:
        using = Fetcher(LIMITS, folder=folder, resolver=LOCAL, tls=client_tls)
        assert await fetched(using, server.url(scheme="https")) == AUDIO
        error = await refusal(using, server.url(scheme="https", host="other.example"))
        assert str(error) == "the certificate of other.example is not valid"
        assert names == ["files.example", "other.example"]
        stranger = await refusal(fetcher(folder), server.url(scheme="https"))
        assert str(stranger) == "the certificate of files.example is not valid"
        strict = Fetcher(replace(LIMITS, max_bytes=100), folder=folder, resolver=LOCAL, tls=client_tls)
        assert "over the limit of 100" in str(await refusal(strict, server.url(scheme="https")))

    scenario({"/a.wav": answer(AUDIO)}, act, server_tls)


def test_many_at_the_same_time_do_not_mix(folder: Path) -> None:
    async def act(server: FilesServer) -> None:
        using = fetcher(folder)
        paths = [f"/{number}" for number in range(16)]
        server.replies.update({path: answer(AUDIO + path.encode()) for path in paths})
        found = await asyncio.gather(*(fetched(using, server.url(path)) for path in paths))
        assert found == [AUDIO + path.encode() for path in paths]

    scenario({}, act)


@pytest.mark.parametrize("value", ["s3://bucket", "s3://../key", "s3:///etc/passwd", "http://x/y"])
def test_s3_addresses_that_are_none(folder: Path, value: str) -> None:
    store = S3Config("https://store.example", None, "id", "secret")

    async def main() -> None:
        async with fetcher(folder).open(Source("s3", value, "audio"), s3=store):
            pass

    with pytest.raises(BadInputError, match="s3://bucket/key"):
        asyncio.run(main())


def test_s3_without_a_store(folder: Path) -> None:
    async def main() -> None:
        async with fetcher(folder).open(Source("s3", "s3://bucket/key", "audio")):
            pass

    with pytest.raises(FetchError, match="audio: an s3:// address needs a store"):
        asyncio.run(main())


def stored(server: FilesServer, *, is_trusted: bool) -> S3Config:
    host = "127.0.0.1" if is_trusted else "files.example"
    return S3Config(server.url("", host), None, "key-id", "key-secret", is_trusted=is_trusted)


OBJECT = Source("s3", "s3://bucket/folder/a.wav", "audio")


@pytest.mark.parametrize("is_trusted", [True, False])
def test_s3_object(folder: Path, is_trusted: bool) -> None:
    async def act(server: FilesServer) -> None:
        async with fetcher(folder).open(OBJECT, s3=stored(server, is_trusted=is_trusted)) as found:
            assert found.path.read_bytes() == AUDIO
            assert found.n_bytes == len(AUDIO)
        if not is_trusted:
            public_only = fetcher(folder, replace(LIMITS, allow_private=False))
            with pytest.raises(FetchError, match="has an address that is not public"):
                async with public_only.open(OBJECT, s3=stored(server, is_trusted=False)):
                    pass
        assert server.connections == 1

    reply = answer(AUDIO, "200 OK", 'ETag: "x"')
    scenario({"/bucket/folder/a.wav": reply, "/folder/a.wav": reply}, act)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", "200 OK", "the object is empty"),
        (b"<html>", "200 OK", "the object is a web page"),
        (b"", "404 Not Found", "HTTP 404"),
        (AUDIO * 200, "200 OK", "over the limit of 1048576"),
    ],
)
def test_s3_objects_that_are_no_audio(folder: Path, body: bytes, status: str, message: str) -> None:
    async def act(server: FilesServer) -> None:
        with pytest.raises(FetchError, match=message):
            async with fetcher(folder).open(OBJECT, s3=stored(server, is_trusted=True)):
                pass

    scenario({"/bucket/folder/a.wav": answer(body, status)}, act)


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_s3_that_drips_ends_at_its_deadline_or_when_cancelled(folder: Path, is_cancelled: bool) -> None:
    async def reply(visit: Visit) -> None:
        asked.set()
        await visit.send(answer(AUDIO, length=1 << 20))
        await visit.drip(b"x", 0.01)
        closed.set()

    asked, closed = asyncio.Event(), asyncio.Event()

    async def keep(using: Fetcher, store: S3Config) -> None:
        async with using.open(OBJECT, s3=store):
            pass

    async def act(server: FilesServer) -> None:
        limits = replace(LIMITS, deadline_s=60.0 if is_cancelled else 2.0)
        store = stored(server, is_trusted=True)
        presigned_url(store, "bucket", "key")  # loads the library, which may take longer than the deadline
        task = asyncio.create_task(keep(fetcher(folder, limits), store))
        began = time.monotonic()
        if is_cancelled:
            await asked.wait()
            task.cancel()
        with pytest.raises(asyncio.CancelledError if is_cancelled else FetchError):
            await task
        assert time.monotonic() - began < 6.0
        assert is_empty(folder)
        await asyncio.wait_for(closed.wait(), 5.0)

    scenario({"/bucket/folder/a.wav": reply}, act)


def test_limits_come_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FetchLimits.from_settings(load_settings({}, env_file=None)) == FetchLimits()
    chosen = {"MAX_DOWNLOAD_BYTES": "5000", "DOWNLOAD_TIMEOUT_S": "7", "ALLOW_PRIVATE_DOWNLOAD_URLS": "1"}
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    assert FetchLimits.from_settings(load_settings({}, env_file=None)) == FetchLimits(5_000, 7.0, True)
