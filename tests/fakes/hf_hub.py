"""A Hugging Face hub on loopback: one repository, served to the real huggingface_hub client."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["COMMIT", "serve_hub"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    repo_id = ""
    files: dict[str, bytes] = {}  # noqa: RUF012 - replaced in a subclass per server
    status = 200

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Keep stderr for the client."""

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        if self.status != 200:
            self._send(self.status, b"{}", with_body=with_body)
        elif path.startswith(f"/api/models/{self.repo_id}/tree/"):
            tree = [
                {"type": "file", "path": each, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for each, data in self.files.items()
            ]
            self._send(200, json.dumps(tree).encode(), with_body=with_body)
        elif path.startswith(f"/api/models/{self.repo_id}"):
            info = {"id": self.repo_id, "sha": COMMIT, "siblings": [{"rfilename": each} for each in self.files]}
            self._send(200, json.dumps(info).encode(), with_body=with_body)
        elif path.startswith(f"/{self.repo_id}/resolve/") and name in self.files:
            self._send(200, self.files[name], with_body=with_body)
        else:
            self._send(404, b"{}", with_body=with_body, headers={"X-Error-Code": "RepoNotFound"})

    def _send(self, status: int, data: bytes, *, with_body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(data)


@contextmanager
def serve_hub(repo_id: str, directory: Path, status: int = 200) -> Iterator[str]:
    """Serve the files of a directory as a repository; yields the endpoint's address.

    With another `status` every request is answered with it.
    """
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    handler = type("Handler", (_Handler,), {"repo_id": repo_id, "files": files, "status": status})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
