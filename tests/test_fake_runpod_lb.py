"""The fake's load balancer: keys, sizes, which worker gets a request, and what it answers itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.fakes.runpod.control_plane import ControlPlane

LIMIT_BYTES = 30_000_000
BODY: dict[str, Any] = {
    "name": "lb",
    "type": "LOAD_BALANCER",
    "image": "me/whisper:1",
    "ports": ["9090/http"],
    "env": {"PORT": "9090", "PORT_HEALTH": "9090"},
    "gpu": {"pools": ["AMPERE_24"], "count": 1},
    "workers": {"min": 2, "max": 2, "idleTimeout": 5},
    "scaling": {"type": "REQUEST_COUNT", "requestCount": 4},
}


class Worker(BaseHTTPRequestHandler):
    """Says which port it is, what was asked, and how much was sent."""

    def do_POST(self) -> None:
        n_bytes = len(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.server, HTTPServer)
        reply = f"{self.server.server_port} {self.path} {self.headers['Host']} {n_bytes}".encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def ports() -> Iterator[list[int]]:
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Worker) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield [server.server_port for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


def deploy(plane: ControlPlane) -> str:
    """An endpoint whose workers are up, but lead nowhere yet."""
    endpoint = plane.endpoints.create(BODY)
    plane.clock.advance(120)
    assert len(plane.endpoints.ready_workers(endpoint.id)) == 2
    return endpoint.id


def post(
    plane: ControlPlane, endpoint_id: str, data: bytes = b"", *, key: str | None = None, worker: str | None = None
) -> requests.Response:
    url = plane.environ()["RUNPOD_LB_TEMPLATE"].format(endpoint=endpoint_id)
    headers = {"Authorization": f"Bearer {plane.api_key}" if key is None else key}
    if worker is not None:
        headers["X-Runpod-Worker-Id"] = worker
    return requests.post(f"{url}/a%2Fb?q=1", data=data, headers=headers, timeout=10)


def test_requests_take_turns_or_go_where_they_ask(plane: ControlPlane, ports: list[int]) -> None:
    endpoint_id = deploy(plane)
    workers = plane.endpoints.ready_workers(endpoint_id)
    for each, local_port in zip(workers, ports, strict=True):
        each.address = f"127.0.0.1:{local_port}"
    by_id = {each.id: str(local_port) for each, local_port in zip(workers, ports, strict=True)}
    seen = set()
    for _ in range(4):
        answer = post(plane, endpoint_id, b"four")
        port, path, host, n_bytes = answer.text.split()
        assert (answer.status_code, path, host, n_bytes) == (
            201,
            "/a%2Fb?q=1",
            f"{endpoint_id}.api.runpod.ai",
            "4",
        )
        assert by_id[answer.headers["X-Runpod-Worker-Id"]] == port
        seen.add(port)
    assert seen == set(by_id.values())
    for wanted in (workers[0].id, f"strict {workers[0].id}", f"strict-resume {workers[0].id}"):
        answer = post(plane, endpoint_id, worker=wanted)
        assert answer.headers["X-Runpod-Worker-Id"] == workers[0].id
    assert post(plane, endpoint_id, worker="gone").status_code == 201
    assert post(plane, endpoint_id, worker="strict gone").status_code == 503
    assert plane.endpoints.get(endpoint_id).in_flight == 0


def test_what_the_balancer_answers_itself(plane: ControlPlane, ports: list[int]) -> None:
    endpoint_id = deploy(plane)
    assert post(plane, endpoint_id).status_code == 503
    for worker in plane.endpoints.ready_workers(endpoint_id):
        worker.address = "127.0.0.1:1"
    assert post(plane, endpoint_id).status_code == 502
    assert post(plane, "nowhere").status_code == 404
    queue = plane.endpoints.create(
        {**BODY, "name": "q", "type": "QUEUE", "scaling": {"type": "QUEUE_DELAY", "queueDelay": 1}}
    )
    assert post(plane, queue.id).status_code == 404
    for key in ("", "Bearer nobody", plane.api_key):
        assert post(plane, endpoint_id, key=key).status_code == 401


def test_sizes_at_the_limit_and_one_past_it(plane: ControlPlane, ports: list[int]) -> None:
    endpoint_id = deploy(plane)
    for worker, port in zip(plane.endpoints.ready_workers(endpoint_id), ports, strict=True):
        worker.address = f"127.0.0.1:{port}"
    assert post(plane, endpoint_id, b"x" * LIMIT_BYTES).text.split()[3] == str(LIMIT_BYTES)
    assert post(plane, endpoint_id, b"x" * (LIMIT_BYTES + 1)).status_code == 413


def test_an_upgrade_needs_the_key_too(plane: ControlPlane, ports: list[int]) -> None:
    endpoint_id = deploy(plane)
    url = plane.environ()["RUNPOD_LB_TEMPLATE"].format(endpoint=endpoint_id).replace("http", "ws", 1)
    for headers, status in (({}, 401), ({"Authorization": f"Bearer {plane.api_key}"}, 503)):
        with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=headers, proxy=None):
            pass
        assert refused.value.response.status_code == status
