"""Pins: what weights have to prove before they are baked, and the tools that ask a hub and a registry.

Both are servers on loopback here.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tools.bake_models import MODEL_FILES, manifest

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILES = ("Dockerfile", "Dockerfile.slim")
REVISION = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = {"config.json": b"{}", "model.bin": b"weights", "tokenizer.json": b"{}", "vocabulary.txt": b"a\nb\n"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Server:
    """Answers GET with what `pages` has for a path, or else 404; notes what was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers["Authorization"]))
                known = outer.pages.get(f"{self.path} {self.headers['Authorization'] or ''}".strip())
                status, headers, body = known or outer.pages.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def add(self, path: str, body: bytes, status: int = 200, **headers: str) -> None:
        self.pages[path] = (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


@pytest.fixture
def loopback() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


@pytest.fixture
def hub(loopback: Server) -> Server:
    """A hub with one model, `me/tiny`, whose model.bin it keeps outside git."""
    siblings: list[dict[str, Any]] = [{"rfilename": name} for name in (*WEIGHTS, "README.md", "../evil.json")]
    siblings[1]["lfs"] = {"sha256": sha256(WEIGHTS["model.bin"]), "size": len(WEIGHTS["model.bin"])}
    answer = json.dumps({"sha": REVISION, "siblings": siblings}).encode()
    for revision in ("main", REVISION):
        loopback.add(f"/api/models/me/tiny/revision/{revision}?blobs=true", answer)
    for name, data in WEIGHTS.items():
        loopback.add(f"/me/tiny/resolve/{REVISION}/{name}", data)
    return loopback


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(each) for each in command], cwd=ROOT, capture_output=True, text=True, timeout=60)


def run_tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = run(sys.executable, "-m", f"tools.{name}", *arguments)
    assert "Traceback" not in done.stderr
    return done


def bake(models: str, to: Path, table: dict[str, Any], hub_url: str) -> subprocess.CompletedProcess[str]:
    path = to.parent / "models.json"
    path.write_text(json.dumps(table))
    # Not as a module: an image's build has this one file.
    tool = ROOT / "tools" / "bake_models.py"
    done = run(sys.executable, tool, "--models", models, "--to", to, "--table", path, "--root", ROOT, "--hub", hub_url)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1
    return done


# --- weights -----------------------------------------------------------------------------------------------------


def table_of(**changes: Any) -> dict[str, Any]:
    files = {name: sha256(data) for name, data in WEIGHTS.items()}
    return {"tiny": {"repo": "me/tiny", "revision": REVISION, "files": files} | changes}


def test_weights_are_baked_by_revision_and_checksum(tmp_path: Path, hub: Server) -> None:
    done = bake("tiny", tmp_path / "out", table_of(), hub.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "tiny").iterdir()} == WEIGHTS


def test_weights_named_by_their_manifest(tmp_path: Path, hub: Server) -> None:
    item = f"mine=me/tiny@{REVISION}:{manifest({name: sha256(data) for name, data in WEIGHTS.items()})}"
    assert bake(item, tmp_path / "out", {}, hub.url).returncode == 0
    assert {path.name for path in (tmp_path / "out" / "mine").iterdir()} == set(WEIGHTS)
    done = bake(item[:-1] + ("0" if item[-1] != "0" else "1"), tmp_path / "out", {}, hub.url)
    assert done.returncode == 1
    assert "manifest" in done.stderr
    assert not (tmp_path / "out" / "mine").exists()


@pytest.mark.parametrize(
    ("models", "changes", "text"),
    [
        ("tiny", {"revision": None}, "'tiny' has no revision; legal: a commit of 40 hex digits"),
        ("tiny", {"revision": "main"}, "'tiny' has 'main'; legal: a commit of 40 hex digits"),
        ("tiny", {"files": {}}, "'tiny' has no files with checksums"),
        ("tiny", {"files": {"model.bin": None}}, "model.bin has no checksum"),
        ("tiny", {"files": {"../x": "0" * 64}}, "'../x' is no file name"),
        ("tiny", {"files": {"config.json": "0" * 64}}, "lists no model.bin"),
        ("tiny", {"repo": "http://x"}, "legal: OWNER/REPOSITORY"),
        ("tiny,tiny", {}, "'tiny' is there twice"),
        (f"tiny/x=me/tiny@{REVISION}:{'0' * 64},tiny", {}, "'tiny/x' lies in the folder of another model"),
        ("huge", {}, "'huge' is unknown; legal: tiny"),
        ("../x=me/tiny@" + REVISION, {}, "is no model"),
        ("x=me/tiny", {}, "'x' has no revision"),
        ("x=me/tiny@" + REVISION, {}, "'x' has no checksum"),
    ],
)
def test_what_cannot_be_proven_is_not_baked(
    tmp_path: Path, hub: Server, models: str, changes: dict[str, Any], text: str
) -> None:
    done = bake(models, tmp_path / "out", table_of(**changes), hub.url)
    assert done.returncode == 2
    assert text in done.stderr
    assert hub.asked == []


def test_a_wrong_checksum_a_missing_file_and_a_cut_off_file_leave_nothing(tmp_path: Path, hub: Server) -> None:
    wrong = {name: sha256(data) for name, data in WEIGHTS.items()} | {"model.bin": "0" * 64}
    done = bake("tiny", tmp_path / "out", table_of(files=wrong), hub.url)
    assert done.returncode == 1
    assert f"tiny: model.bin has the SHA-256 {sha256(WEIGHTS['model.bin'])}, and {'0' * 64} is wanted" in done.stderr
    del hub.pages[f"/me/tiny/resolve/{REVISION}/model.bin"]
    done = bake("tiny", tmp_path / "out", table_of(), hub.url)
    assert done.returncode == 1
    assert "model.bin cannot be had: the hub answered 404" in done.stderr
    assert not list((tmp_path / "out").iterdir())


def test_the_table_of_models_bakes_the_demo_and_pretends_nothing(tmp_path: Path) -> None:
    table = json.loads((ROOT / "requirements" / "models.json").read_text())
    for name, entry in table.items():
        pinned = bool(entry.get("revision")) and bool(entry["files"])
        assert pinned or name == "demo" or (entry["revision"] is None and entry["files"] == {}), name
    assert bake("demo", tmp_path / "out", table, "http://127.0.0.1:9").returncode == 0
    baked = {path.name: path.read_bytes() for path in (tmp_path / "out" / "demo").iterdir()}
    source = ROOT / table["demo"]["folder"]
    assert baked == {path.name: path.read_bytes() for path in source.iterdir()}


def test_the_files_of_a_model_are_those_of_the_engine() -> None:
    from engine.hub import MODEL_FILES as engines

    assert engines == MODEL_FILES


# --- pins --------------------------------------------------------------------------------------------------------


def test_pin_models_fills_in_what_the_hub_says(tmp_path: Path, hub: Server) -> None:
    path = tmp_path / "requirements" / "models.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"tiny": {"repo": "me/tiny", "revision": None, "files": {}}}))
    done = run_tool("pin_models", "--table", path, "--hub", hub.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(path.read_text()) == table_of()
    # The large file's checksum is the hub's own: it was not fetched.
    assert not [asked for asked, _ in hub.asked if asked.endswith("model.bin")]
    done = run_tool("pin_models", "--hub", hub.url, "--item", "mine=me/tiny")
    assert bake(done.stdout.strip(), tmp_path / "out", {}, hub.url).returncode == 0


def test_pin_models_changes_nothing_without_a_hub(tmp_path: Path) -> None:
    path = tmp_path / "requirements" / "models.json"
    path.parent.mkdir()
    before = json.dumps({"tiny": {"repo": "me/tiny", "revision": None, "files": {}}})
    path.write_text(before)
    done = run_tool("pin_models", "--table", path, "--hub", "http://127.0.0.1:9", "--tries", "1")
    assert done.returncode == 1
    assert "tiny stays as it is: " in done.stderr
    assert path.read_text() == before
    assert run_tool("pin_models", "nobody", "--table", path).returncode == 2


def write_dockerfiles(folder: Path, image: str) -> None:
    for name in DOCKERFILES:
        (folder / name).write_text(f"# {name}\nARG BASE_IMAGE={image}\nFROM ${{BASE_IMAGE}}\n")


def test_pin_base_asks_the_registry_as_a_guest(tmp_path: Path, loopback: Server) -> None:
    image, body = f"127.0.0.1:{loopback.port}/library/python:3.12-slim", b'{"schemaVersion": 2}'
    write_dockerfiles(tmp_path, f"{image}@sha256:{'0' * 64}")
    path = "/v2/library/python/manifests/3.12-slim"
    loopback.add(path, b"", 401, WWW_Authenticate=f'Bearer realm="{loopback.url}/token",service="us",scope="pull"')
    loopback.add("/token?service=us&scope=pull", b'{"token": "guest"}')
    loopback.add(f"{path} Bearer guest", body, Docker_Content_Digest=f"sha256:{sha256(body)}")
    done = run_tool("pin_base", "--folder", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name in DOCKERFILES:
        assert f"\nARG BASE_IMAGE={image}@sha256:{sha256(body)}\nFROM" in (tmp_path / name).read_text()


@pytest.mark.parametrize(
    ("pages", "text"),
    [
        ({}, "answered 404"),
        ({"digest": "sha256:" + "0" * 64, "body": b"{}"}, "says sha256:000"),
        ({"body": b"<html>sign in</html>"}, "sent no manifest"),
    ],
)
def test_pin_base_changes_nothing_when_it_cannot_be_sure(
    tmp_path: Path, loopback: Server, pages: dict[str, Any], text: str
) -> None:
    write_dockerfiles(tmp_path, f"127.0.0.1:{loopback.port}/a/b:1")
    before = (tmp_path / "Dockerfile").read_text()
    if pages:
        headers = {"Docker_Content_Digest": pages["digest"]} if "digest" in pages else {}
        loopback.add("/v2/a/b/manifests/1", pages["body"], 200, **headers)
    done = run_tool("pin_base", "--folder", tmp_path)
    assert done.returncode == 1
    assert text in done.stderr
    assert "nothing was changed" in done.stderr
    assert (tmp_path / "Dockerfile").read_text() == before


def test_pin_base_without_a_registry_or_a_line(tmp_path: Path) -> None:
    write_dockerfiles(tmp_path, "127.0.0.1:9/a/b:1")
    assert "cannot be reached" in run_tool("pin_base", "--folder", tmp_path).stderr
    write_dockerfiles(tmp_path, "no/tag")
    assert run_tool("pin_base", "--folder", tmp_path).returncode == 2
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    assert run_tool("pin_base", "--folder", tmp_path).returncode == 2


@pytest.mark.parametrize("tool", ["pin_base", "pin_models", "bake_models"])
def test_tools_have_help(tool: str) -> None:
    done = run_tool(tool, "--help")
    assert done.returncode == 0
    assert "usage: " in done.stdout
