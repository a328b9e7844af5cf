"""handler.s3 against moto's store, and against a loopback server that behaves badly."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from moto import mock_aws
from pydantic import SecretStr

from engine.errors import BadInputError, ConfigError, FetchError, UploadError
from engine.settings_table import Settings
from handler.s3 import (
    LINK_LIFE_S,
    MAX_ATTEMPTS,
    MAX_KEY_CHARS,
    S3Config,
    download,
    presigned_url,
    remove,
    split_s3_url,
    upload_bytes,
)

CANARY = "CANARY-secret-key"
AWS = S3Config("https://s3.eu-central-1.amazonaws.com", "results", "AKIACANARY", CANARY)
DATA = bytes(range(256)) * 2_000


@pytest.fixture
def store() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("s3", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
        client.create_bucket(Bucket="results", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        client.put_object(Bucket="results", Key="dir/a b.wav", Body=DATA)
        yield client
        client.close()


def test_an_object_is_downloaded(store: Any, tmp_path: Path) -> None:
    path = tmp_path / "audio"
    assert download(AWS, "results", "dir/a b.wav", path, len(DATA), 10.0) == len(DATA)
    assert path.read_bytes() == DATA


def test_an_object_over_the_limit_is_refused_before_it_comes(store: Any, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=f"{len(DATA)} bytes are over the limit of {len(DATA) - 1}"):
        download(AWS, "results", "dir/a b.wav", tmp_path / "audio", len(DATA) - 1, 10.0)


@pytest.mark.parametrize(("bucket", "key"), [("results", "nothing"), ("nobody", "x")])
def test_a_missing_object_is_refused_at_once(store: Any, tmp_path: Path, bucket: str, key: str) -> None:
    began_s = time.monotonic()
    with pytest.raises(FetchError, match=rf"s3://{bucket}/{key}.*HTTP 404 NoSuch") as caught:
        download(AWS, bucket, key, tmp_path / "audio", 1_000, 10.0)
    assert time.monotonic() - began_s < 5
    assert CANARY not in str(caught.value)


def test_an_upload_gives_a_link(store: Any) -> None:
    link = upload_bytes(AWS, "whisper-results/x.json", b"{}", "application/json")
    found = store.get_object(Bucket="results", Key="whisper-results/x.json")
    assert (found["Body"].read(), found["ContentType"]) == (b"{}", "application/json")
    parts = urlsplit(link)
    assert parts.path.endswith("/whisper-results/x.json")
    assert parse_qs(parts.query)["X-Amz-Expires"] == [str(LINK_LIFE_S)]
    assert CANARY not in link


def test_an_upload_without_a_bucket_or_into_none_that_exists_fails(store: Any) -> None:
    with pytest.raises(UploadError, match="no bucket"):
        upload_bytes(S3Config(AWS.endpoint_url, None, "a", "b"), "k", b"", "text/plain")
    with pytest.raises(UploadError, match="HTTP 404 NoSuchBucket") as caught:
        upload_bytes(S3Config(AWS.endpoint_url, "nobody", "a", CANARY), "k", b"", "text/plain")
    assert CANARY not in str(caught.value)


def test_what_was_put_can_be_removed_and_more_than_once(store: Any) -> None:
    upload_bytes(AWS, "k", b"{}", "text/plain")
    remove(AWS, "k")
    remove(AWS, "k")
    assert "k" not in [each["Key"] for each in store.list_objects_v2(Bucket="results").get("Contents", [])]
    with pytest.raises(UploadError, match="HTTP 404 NoSuchBucket") as caught:
        remove(S3Config(AWS.endpoint_url, "nobody", "a", CANARY), "k")
    assert CANARY not in str(caught.value)


def test_a_store_that_came_with_a_job_is_reached_by_links_only(tmp_path: Path) -> None:
    config = S3Config("https://10.0.0.1", "results", "a", "b", is_trusted=False)
    with pytest.raises(ConfigError, match="links only"):
        download(config, "results", "k", tmp_path / "audio", 1, 1.0)
    with pytest.raises(ConfigError, match="links only"):
        upload_bytes(config, "k", b"", "text/plain")
    with pytest.raises(ConfigError, match="links only"):
        remove(config, "k")
    link = presigned_url(config, "results", "dir/a b", method="put", life_s=60)
    assert link.startswith("https://10.0.0.1/results/dir/a%20b?")
    assert parse_qs(urlsplit(link).query)["X-Amz-Expires"] == ["60"]


Behave = Callable[[socket.socket, bytes], None]


@contextmanager
def server(*behaviours: Behave) -> Iterator[tuple[S3Config, list[bytes]]]:
    """A TCP server: each connection gets the next behaviour (the last one again and again); requests are kept."""
    requests: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(10)
                request = b""
                while b"\r\n\r\n" not in request and (part := peer.recv(65_536)):
                    request += part
                if request:
                    requests.append(request)
                    with suppress(OSError):
                        behaviours[min(len(requests), len(behaviours)) - 1](peer, request)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield S3Config(f"http://127.0.0.1:{listener.getsockname()[1]}", "results", "a", CANARY), requests
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
        assert not thread.is_alive()


def head(status: str, length: int, *extra: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {length}", "Connection: close", *extra)
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def breaking(data: bytes) -> Behave:
    """Announces all of `data` and sends half."""
    return lambda peer, _: peer.sendall(head("200 OK", len(data), 'ETag: "t"') + data[: len(data) // 2])


def resuming(data: bytes) -> Behave:
    """Sends what was asked for with Range."""

    def behave(peer: socket.socket, request: bytes) -> None:
        first = int(request.lower().split(b"range: bytes=")[1].split(b"-")[0])
        peer.sendall(head("206 Partial Content", len(data) - first, 'ETag: "t"') + data[first:])

    return behave


def refusing(status: str) -> Behave:
    return lambda peer, _: peer.sendall(head(status, 0))


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "audio"
    with server(breaking(DATA), resuming(DATA)) as (config, requests):
        assert download(config, "results", "k", path, len(DATA), 10.0) == len(DATA)
    assert path.read_bytes() == DATA
    assert b'if-match: "t"' in requests[1].lower()


def test_a_store_that_fails_is_asked_again_a_bounded_number_of_times(tmp_path: Path) -> None:
    with server(refusing("503 Slow Down")) as (config, requests):
        with pytest.raises(FetchError, match="HTTP 503"):
            download(config, "results", "k", tmp_path / "audio", 100, 10.0)
        assert len(requests) == MAX_ATTEMPTS
    with server(refusing("403 Forbidden")) as (config, requests):
        with pytest.raises(FetchError, match="HTTP 403"):
            download(config, "results", "k", tmp_path / "audio", 100, 10.0)
        assert len(requests) == 1


def test_a_drip_ends_at_the_deadline(tmp_path: Path) -> None:
    def drip(peer: socket.socket, _: bytes) -> None:
        peer.sendall(head("200 OK", 1_000_000))
        for _number in range(100):
            peer.sendall(b"x")
            time.sleep(0.05)

    began_s = time.monotonic()
    with server(drip) as (config, _), pytest.raises(FetchError, match="time for the download is over"):
        download(config, "results", "k", tmp_path / "audio", 1_000_000, 0.5)
    assert time.monotonic() - began_s < 3


def test_an_upload_that_nobody_reads_ends(tmp_path: Path) -> None:
    stop = threading.Event()

    def stay(_peer: socket.socket, _request: bytes) -> None:
        stop.wait(10)

    with server(stay) as (config, _):
        began_s = time.monotonic()
        try:
            with pytest.raises(UploadError, match="connection failed") as caught:
                upload_bytes(config, "k", b"x" * 30_000_000, "text/plain", timeout_s=0.2)
        finally:
            stop.set()
    assert time.monotonic() - began_s < 9
    assert CANARY not in str(caught.value)


def settings(**values: Any) -> Settings:
    return Settings.model_construct(**{**Settings.model_construct().__dict__, **values})


FULL = {
    "bucket_endpoint_url": "https://s3.example.com/",
    "bucket_access_key_id": SecretStr("id"),
    "bucket_secret_access_key": SecretStr(CANARY),
}


def test_the_operators_store() -> None:
    assert S3Config.from_settings(settings()) is None
    config = S3Config.from_settings(settings(**FULL, bucket_name="results"))
    assert config == S3Config("https://s3.example.com", "results", "id", CANARY)
    assert CANARY not in repr(config)
    in_host = settings(**{**FULL, "bucket_endpoint_url": "https://my.results.s3.us-west-2.amazonaws.com"})
    found = S3Config.from_settings(in_host)
    assert found is not None and (found.bucket, found.region) == ("my.results", "us-west-2")
    assert found.endpoint_url == "https://s3.us-west-2.amazonaws.com"


@pytest.mark.parametrize("missing", sorted(FULL))
def test_a_store_set_by_halves_stops_the_start(missing: str) -> None:
    with pytest.raises(ConfigError, match=missing.upper()):
        S3Config.from_settings(settings(**{**FULL, missing: None}))


@pytest.mark.parametrize(
    "url", ["s3.example.com", "ftp://x", "https://", "https://u:CANARY@x", "https://x?CANARY", "https://x:y"]
)
def test_an_endpoint_must_be_one(url: str) -> None:
    with pytest.raises(ConfigError, match="BUCKET_ENDPOINT_URL") as caught:
        S3Config.from_settings(settings(**{**FULL, "bucket_endpoint_url": url}))
    assert "CANARY" not in str(caught.value)
    with pytest.raises(BadInputError, match="endpointUrl") as refused:
        S3Config.from_job({"accessId": "a", "accessSecret": "b", "endpointUrl": url})
    assert "CANARY" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("s3.eu-central-1.amazonaws.com", "eu-central-1"),
        ("s3-us-west-2.amazonaws.com", "us-west-2"),
        ("s3api-eur-is-1.runpod.io", "EUR-IS-1"),
        ("fra1.digitaloceanspaces.com", "fra1"),
        ("s3.us-west-004.backblazeb2.com", "us-west-004"),
        ("account.r2.cloudflarestorage.com", "us-east-1"),
    ],
)
def test_the_region_is_read_from_the_host(host: str, region: str) -> None:
    assert S3Config(f"https://{host}", None, "a", "b").region == region


JOB = {"accessId": "a", "accessSecret": CANARY, "bucketName": "results", "endpointUrl": "https://s3.example.com"}


def test_the_store_of_a_job() -> None:
    assert S3Config.from_job(None) is None and S3Config.from_job({}) is None
    assert S3Config.from_job(JOB) == S3Config("https://s3.example.com", "results", "a", CANARY, is_trusted=False)
    trusted = S3Config.from_job({**JOB, "endpointUrl": "http://minio:9000"}, allow_private=True)
    assert trusted is not None and trusted.is_trusted


@pytest.mark.parametrize(
    "raw",
    [
        "x",
        [1],
        {"accessId": "a"},
        {**JOB, "accessSecret": 5},
        {**JOB, "accessSecret": "x" * 513},
        {**JOB, "accessId": "a\nb"},
        {**JOB, "bucketName": "a/b"},
        {**JOB, "bucketName": "ab"},
        {**JOB, "endpointUrl": "http://s3.example.com"},
    ],
)
def test_a_store_of_a_job_that_is_none_is_refused_without_showing_it(raw: object) -> None:
    with pytest.raises(BadInputError, match="s3Config") as caught:
        S3Config.from_job(raw)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://abc/k", ("abc", "k")),
        ("S3://abc/dir/a b.mp3", ("abc", "dir/a b.mp3")),
        (f"s3://abc/{'k' * MAX_KEY_CHARS}", ("abc", "k" * MAX_KEY_CHARS)),
    ],
)
def test_addresses_of_objects(url: str, parts: tuple[str, str]) -> None:
    assert split_s3_url(url, "audio") == parts


@pytest.mark.parametrize(
    "url", ["s3://abc", "s3://abc/", "s3:///k", "s3://a/k", "https://abc/k", f"s3://abc/{'k' * 1_025}"]
)
def test_what_is_no_address_of_an_object(url: str) -> None:
    with pytest.raises(BadInputError, match=r"audio: .*s3://bucket/key"):
        split_s3_url(url, "audio")
