"""RunPod's two ways to stop a pod, on loopback: answers as scripted, remembers what was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["StopApi", "stop_api"]

AGREED = (200, '{"id": "pod1", "status": "EXITED"}')


@dataclass
class StopApi:
    """`rest` and `graphql`: status and body of each answer from now on; `asked`: path, body, headers."""

    port: int
    rest: tuple[int, str] = AGREED
    graphql: tuple[int, str] = (200, '{"data": {"podStop": {"id": "pod1", "desiredStatus": "EXITED"}}}')
    location: str = ""
    asked: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]

    def environ(self, key: str) -> dict[str, str]:
        """What the platform, and a test, put into a pod."""
        return {
            "RUNPOD_POD_ID": "pod1",
            "RUNPOD_API_KEY": key,
            "RUNPOD_API_BASE": f"{self.address}/v2",
            "RUNPOD_GRAPHQL_URL": f"{self.address}/graphql",
        }


@contextmanager
def stop_api() -> Iterator[StopApi]:
    """The server, until the context is left."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            api.asked.append((self.path, body, dict(self.headers)))
            status, text = api.graphql if self.path == "/graphql" else api.rest
            self.send_response(status)
            if api.location:
                self.send_header("Location", api.location)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api = StopApi(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
