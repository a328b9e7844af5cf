"""handler.upload, and handler.results with it: results on their way out, against real servers on loopback."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from moto import mock_aws

from engine.errors import ResultNotJsonError, ResultTooLargeError, UploadError
from handler.attempts import MAX_ATTEMPTS
from handler.budget import posted_bytes
from handler.http_get import Pace
from handler.results import LEAST_UPLOAD_S, Delivery
from handler.s3 import S3Config, presigned_url
from handler.schema_types import JobRequest
from handler.sources import Source
from handler.upload import KEY_PREFIX, Uploader, new_key

SOURCES = (Source("url", "https://example.com/a", "audio"),)
AWS = S3Config("https://s3.eu-central-1.amazonaws.com", "results", "a", "CANARY")
OUTPUT: dict[str, Any] = {
    "segments": [{"id": 1, "text": " Hello.", "tokens": [1] * 3_000, "start": 0.0, "end": 1.0}],
    "transcription": "Hello.",
    "translation": None,
}


@dataclass
class Store:
    """Answers PUT requests with the given statuses, the last one again and again; keeps what it was sent."""

    statuses: Sequence[int] = (200,)
    reads_body: bool = True
    is_silent: bool = False
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            if self.is_silent:
                await reader.read()
                return
            if self.reads_body:
                length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                self.bodies.append(await reader.readexactly(length))
            status = self.statuses[min(len(self.heads), len(self.statuses)) - 1]
            location = "Location: http://127.0.0.1:1/\r\n" if 300 <= status < 400 else ""
            writer.write(f"HTTP/1.1 {status} X\r\n{location}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/put?sig=CANARY"


@asynccontextmanager
async def listening(store: Store) -> AsyncIterator[Store]:
    server = await asyncio.start_server(store.serve, "127.0.0.1", 0)
    store.port = server.sockets[0].getsockname()[1]
    try:
        yield store
    finally:
        server.close()
        await server.wait_closed()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(scenario(), 20)

    asyncio.run(main())


def uploader(**options: Any) -> Uploader:
    return Uploader(**{"allow_private": True, "retry_pause_s": 0.01, "pace": Pace(connect_s=1, head_s=1), **options})


def test_a_result_is_put_to_the_given_url() -> None:
    data = b'{"text": "' + b"x" * 3_000_000 + b'"}'

    async def scenario() -> None:
        async with listening(Store((201,))) as store:
            await uploader().put(store.url, data)
            assert store.bodies == [data]
            assert store.heads[0].startswith("PUT /put?sig=CANARY HTTP/1.1\r\nHost: 127.0.0.1:")
            assert "Content-Type: application/json\r\n" in store.heads[0]

    run(scenario)


def test_a_server_that_fails_is_tried_again_a_bounded_number_of_times() -> None:
    async def scenario() -> None:
        async with listening(Store((500, 429, 200))) as store:
            await uploader().put(store.url, b"{}")
            assert len(store.bodies) == 3
        async with listening(Store((503,))) as store:
            with pytest.raises(UploadError, match="HTTP status 503 from 127"):
                await uploader().put(store.url, b"{}")
            assert len(store.bodies) == MAX_ATTEMPTS

    run(scenario)


@pytest.mark.parametrize("status", [403, 404, 302, 307])
@pytest.mark.parametrize("reads_body", [True, False])
def test_a_refusal_and_a_redirect_end_it(status: int, reads_body: bool) -> None:
    async def scenario() -> None:
        async with listening(Store((status,), reads_body)) as store:
            with pytest.raises(UploadError) as caught:
                await uploader().put(store.url, b"x" * (10 if reads_body else 200))
            assert f"HTTP status {status} from 127.0.0.1" in str(caught.value)
            assert "CANARY" not in str(caught.value)
            assert len(store.heads) == 1

    run(scenario)


def test_a_silent_server_ends_at_the_deadline() -> None:
    async def scenario() -> None:
        async with listening(Store(is_silent=True)) as store:
            with pytest.raises(UploadError, match=r"within 0\.2 s"):
                await uploader(deadline_s=0.2).put(store.url, b"{}")

    run(scenario)


class Names:
    """A resolver with one answer."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(self, host: str) -> Sequence[str]:
        return self._addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/x?CANARY",
        "https://[::1]/x?CANARY",
        "https://169.254.169.254/latest?CANARY",
        "https://store.example/x?CANARY",
        "ftp://store.example/CANARY",
        "https://user:CANARY@store.example/",
    ],
)
def test_only_public_addresses_are_connected_to(url: str) -> None:
    async def scenario() -> None:
        with pytest.raises(UploadError) as caught:
            await Uploader(resolver=Names("93.184.216.34", "10.0.0.1")).put(url, b"{}")
        assert "CANARY" not in str(caught.value)

    run(scenario)


def test_a_jobs_store_gets_the_result_by_a_link() -> None:
    async def scenario() -> None:
        async with listening(Store()) as store:
            config = S3Config(f"http://127.0.0.1:{store.port}", "results", "id", "CANARY", is_trusted=False)
            link = await uploader().store(config, b"{}")
            assert store.bodies == [b"{}"]
            assert store.heads[0].startswith(f"PUT /results/{KEY_PREFIX}/")
            assert link.startswith(f"http://127.0.0.1:{store.port}/results/{KEY_PREFIX}/")
            assert "CANARY" not in link
            with pytest.raises(UploadError, match="not a public address"):
                await Uploader().store(config, b"{}")
            with pytest.raises(UploadError, match="no bucket"):
                await uploader().store(S3Config("https://x", None, "a", "b"), b"{}")

    run(scenario)


def test_keys_are_unguessable_and_different() -> None:
    assert len({new_key() for _ in range(100)}) == 100
    assert new_key().startswith(f"{KEY_PREFIX}/") and len(new_key()) == len(KEY_PREFIX) + 1 + 32 + 5


def delivery(max_bytes: int, store: S3Config | None = None) -> Delivery:
    return Delivery(uploader(), store, max_bytes)


def deliver(by: Delivery, output: dict[str, Any], **request: Any) -> dict[str, Any]:
    return asyncio.run(by.deliver(output, JobRequest(SOURCES, **request), None))


@pytest.fixture
def bucket() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("s3", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
        client.create_bucket(Bucket="results", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield client
        client.close()


def stored(bucket: Any) -> list[Any]:
    keys = [each["Key"] for each in bucket.list_objects_v2(Bucket="results").get("Contents", [])]
    return [json.loads(bucket.get_object(Bucket="results", Key=key)["Body"].read()) for key in keys]


def test_what_fits_is_answered_as_it_is() -> None:
    assert deliver(delivery(posted_bytes(OUTPUT)), OUTPUT) == OUTPUT
    assert deliver(delivery(100_000), {"x": float("nan"), "y": "\ud800"}) == {"x": None, "y": "?"}
    with pytest.raises(ResultNotJsonError):
        deliver(delivery(100_000), {"x": b""})


def test_what_does_not_fit_goes_into_the_store(bucket: Any) -> None:
    answer = deliver(delivery(2_000, AWS), OUTPUT)
    assert answer["result_url"].startswith("https://")
    assert (answer["transcription"], answer["counts"], answer["uploaded"]) == ("Hello.", {"segments": 1}, True)
    assert stored(bucket) == [OUTPUT]
    kept = deliver(delivery(2_000, AWS), OUTPUT, upload=False)
    assert kept["truncated"] is True and kept["segments"][0]["tokens"] == []
    assert len(stored(bucket)) == 1


def test_an_upload_that_is_asked_for_is_made_even_if_the_result_fits(bucket: Any) -> None:
    assert "result_url" in deliver(delivery(100_000, AWS), OUTPUT, upload=True)
    answer = asyncio.run(delivery(2_000).deliver(OUTPUT, JobRequest(SOURCES), AWS))
    assert "result_url" in answer, "the job brought its own store"
    assert stored(bucket) == [OUTPUT, OUTPUT]


def test_without_a_store_the_result_is_in_the_answer() -> None:
    answer = deliver(delivery(100_000), OUTPUT, upload=True)
    assert answer["segments"] == OUTPUT["segments"]
    assert len(answer["warnings"]) == 1 and "no store is configured" in answer["warnings"][0]
    assert deliver(delivery(2_000), OUTPUT)["truncated"] is True
    with pytest.raises(ResultTooLargeError):
        deliver(delivery(100), OUTPUT)


def test_an_upload_that_fails_loses_nothing(bucket: Any) -> None:
    nobody = S3Config(AWS.endpoint_url, "nobody", "a", "CANARY")
    answer = deliver(delivery(100_000, nobody), OUTPUT, upload=True)
    assert answer["segments"] == OUTPUT["segments"]
    assert answer["warnings"][0].endswith("the store did not take the result: HTTP 404 NoSuchBucket")


@asynccontextmanager
async def slow_store() -> AsyncIterator[tuple[S3Config, list[bytes], asyncio.Event, asyncio.Event]]:
    """A store that answers a PUT only once it is `released`; also the requests that it `heard` of, first lines."""
    lines: list[bytes] = []
    heard, released = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines.append(head.split(b"\r\n")[0])
        heard.set()
        if head.startswith(b"PUT"):
            await released.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        config = S3Config(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "results", "id", "CANARY")
        await asyncio.to_thread(presigned_url, config, "results", "key")  # loads the library
        yield config, lines, heard, released


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_what_nobody_waits_for_does_not_stay_in_the_operators_store(is_cancelled: bool) -> None:
    async def scenario() -> None:
        async with slow_store() as (config, lines, heard, released):
            deadline_s = 20.0 if is_cancelled else 0.3
            task = asyncio.create_task(uploader(deadline_s=deadline_s).store(config, b"{}"))
            await heard.wait()
            heard.clear()
            if is_cancelled:
                task.cancel()
            with pytest.raises(asyncio.CancelledError if is_cancelled else UploadError):
                await task
            released.set()
            await heard.wait()
            for thread in threading.enumerate():
                if thread.name == "take-back":
                    await asyncio.to_thread(thread.join, 10)
            (put, put_path, _), (delete, delete_path, _) = (line.split() for line in lines)
            assert (put, delete) == (b"PUT", b"DELETE")
            assert put_path == delete_path and put_path.startswith(f"/results/{KEY_PREFIX}/".encode())

    run(scenario)


def test_an_upload_gets_what_the_deadline_leaves_and_never_nothing() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Store(is_silent=True)) as store:
            request = JobRequest(SOURCES, upload_url=store.url)
            began_s = loop.time()
            answer = await delivery(100_000).deliver(OUTPUT, request, None, limit_s=0.0)
            assert LEAST_UPLOAD_S <= loop.time() - began_s < LEAST_UPLOAD_S + 2
            assert answer["segments"] == OUTPUT["segments"]
            assert answer["warnings"] == ["the result was not uploaded: the job's deadline left no time for it"]
        async with listening(Store()) as store:
            request = JobRequest(SOURCES, upload_url=store.url)
            assert (await delivery(100_000).deliver(OUTPUT, request, None, limit_s=0.0))["uploaded"] is True

    run(scenario)


def test_a_presigned_url_gets_the_result_and_is_not_repeated() -> None:
    async def scenario() -> None:
        async with listening(Store()) as store:
            answer = await delivery(100_000).deliver(OUTPUT, JobRequest(SOURCES, upload_url=store.url), None)
            assert [json.loads(body) for body in store.bodies] == [OUTPUT]
            assert answer["uploaded"] is True and "CANARY" not in json.dumps(answer)
        async with listening(Store((403,))) as store:
            answer = await delivery(100_000).deliver(OUTPUT, JobRequest(SOURCES, upload_url=store.url), None)
            assert answer["segments"] == OUTPUT["segments"]
            assert answer["warnings"][0].endswith("HTTP status 403 from 127.0.0.1")

    run(scenario)
