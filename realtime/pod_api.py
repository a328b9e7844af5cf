"""Asks RunPod to stop the pod this process runs in: REST first, GraphQL where REST refuses.

The platform gives a pod its id and a key that is good for this pod alone (RUNPOD_POD_ID, RUNPOD_API_KEY). The key
travels in the Authorization header, encrypted or within this machine, to the two addresses alone: redirects are
not followed. It is in no message. Whether RunPod takes the pod's own key depends on the account; where neither
interface does, somebody outside has to stop the pod.

Sources: RunPod REST API v2, podAction; RunPod GraphQL, podStop.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from engine.errors import ServerError

__all__ = ["PodApi", "PodApiError"]

REST_BASE = "https://api.runpod.io/v2"
GRAPHQL_URL = "https://api.runpod.io/graphql"
STOP = "mutation($id:String!){podStop(input:{podId:$id}){id desiredStatus}}"
TIMEOUT_S = 10.0
"""Silence of the API after which it counts as unreachable."""
MAX_ANSWER_BYTES = 65_536
MAX_SHOWN_CHARS = 200
USER_AGENT = "whisper-runpod (self-stop)"
"""Of its own: the addresses refuse the library's usual one."""


class PodApiError(ServerError):
    """The API did not stop the pod; the message says what each interface answered."""

    code = "pod_api"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@dataclass(frozen=True)
class PodApi:
    """The pod's id, its key (None: the platform gave none) and where to ask."""

    pod_id: str
    key: str | None = field(repr=False)
    rest_base: str = REST_BASE
    graphql_url: str = GRAPHQL_URL

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> PodApi | None:
        """The pod that `environ` tells of; None outside a pod."""
        pod_id = environ.get("RUNPOD_POD_ID", "").strip()
        if not pod_id:
            return None
        return cls(
            pod_id,
            environ.get("RUNPOD_API_KEY", "").strip() or None,
            environ.get("RUNPOD_API_BASE", "").strip().rstrip("/") or REST_BASE,
            environ.get("RUNPOD_GRAPHQL_URL", "").strip() or GRAPHQL_URL,
        )

    async def stop(self) -> str:
        """Ask once; returns the interface that agreed, "REST" or "GraphQL". Raises PodApiError.

        The event loop goes on meanwhile. Cancelling leaves a request on its way to itself.
        """
        return await _in_thread(self._stop)

    def _stop(self) -> str:
        if self.key is None:
            raise PodApiError("RUNPOD_API_KEY is not set")
        if not self.key.isascii() or not self.key.isprintable():
            raise PodApiError("RUNPOD_API_KEY is no printable ASCII")
        refusals = []
        for name, ask in (("REST", self._ask_rest), ("GraphQL", self._ask_graphql)):
            refusal = ask()
            if refusal is None:
                return name
            refusals.append(f"{name}: {refusal}")
        raise PodApiError("; ".join(refusals))

    def _ask_rest(self) -> str | None:
        """Why not; None: the pod stops."""
        url = f"{self.rest_base}/pods/{quote(self.pod_id, safe='')}/action"
        status, body = self._post(url, {"action": "stop"})
        # A page with status 200 is somebody else's answer.
        is_done = status == 204 or (200 <= status < 300 and bool(_json(body)))
        return None if is_done else _refusal(status, body)

    def _ask_graphql(self) -> str | None:
        """Why not; None: the pod stops. GraphQL refuses with status 200, too."""
        status, body = self._post(self.graphql_url, {"query": STOP, "variables": {"id": self.pod_id}})
        answer = _json(body)
        data = answer.get("data")
        is_done = status == 200 and not answer.get("errors") and isinstance(data, dict) and bool(data.get("podStop"))
        return None if is_done else _refusal(status, body)

    def _post(self, url: str, document: Mapping[str, Any]) -> tuple[int, bytes]:
        """Status and body; status 0 and the reason if there was no answer."""
        if not _may_carry_key(url):
            return 0, b"the key is sent to https:// alone"
        headers = {
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": USER_AGENT,
        }
        body = json.dumps(document).encode()
        request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - looked at above
        # No proxy of the environment either: a pod reaches the API directly.
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=TIMEOUT_S) as response:
                return response.status, response.read(MAX_ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            return 0, f"no answer ({type(reason).__name__}: {reason})".encode()


def _may_carry_key(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    try:
        return parts.scheme == "http" and ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _json(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _refusal(status: int, body: bytes) -> str:
    """`HTTP 403 (no access)`: what the answer says about itself, shortened."""
    answer = _json(body)
    errors = answer.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    said = first.get("message") or answer.get("detail") or answer.get("title") or answer.get("error") or ""
    if status == 0:
        return body.decode(errors="replace")[:MAX_SHOWN_CHARS]
    text = " ".join(str(said).split())[:MAX_SHOWN_CHARS]
    return f"HTTP {status} ({text})" if text else f"HTTP {status}"


async def _in_thread(function: Callable[[], str]) -> str:
    """The result of a blocking call, made in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()

    def settle(result: str | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result or "")
        else:
            future.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as raised:  # an edge: it is raised where the result is awaited
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            return  # the loop has ended; nobody waits

    threading.Thread(target=work, name="pod-api", daemon=True).start()
    return await future
