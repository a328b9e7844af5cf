"""Every way to show the secret, every way to fail, and what a failed guess costs."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from realtime.auth import MAX_CANDIDATES, Authenticator, Gate
from realtime.peers import FAILURE_WINDOW_S, MAX_FAILURES, FailureLimiter, peer_address, peer_key
from tests.fakes.loopback import listening, run

TOKEN = "s3cret/with+odd=chars"
PLAIN = "plain-Secret_123"


class HandClock:
    def __init__(self) -> None:
        self.time_s = 0.0

    def now_s(self) -> float:
        return self.time_s


def scope(
    path: str = "/",
    query: str = "",
    headers: dict[str, str] | None = None,
    subprotocols: list[str] | None = None,
    client: str | None = "192.0.2.1",
) -> Scope:
    from urllib.parse import unquote

    return {
        "type": "websocket",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "subprotocols": subprotocols or [],
        "client": (client, 1) if client else None,
    }


def token64(token: str) -> str:
    return "token64." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


def shown(token: str) -> list[dict[str, Any]]:
    return [
        {"headers": {"Authorization": f"Bearer {token}"}},
        {"headers": {"authorization": f"bearer   {token} "}},
        {"query": f"token={quote(token, safe='')}"},
        {"query": f"a=b&token={quote_plus(token)}&c"},
        {"query": "token=wrong-one&token=" + quote(token, safe="")},
        {"path": f"/t/{quote(token, safe='')}/v1/listen"},
        {"path": f"/t/{quote(token, safe='')}"},
        {"subprotocols": ["bearer", token]},
        {"subprotocols": [token, "bearer"]},
        {"subprotocols": [f"token.{token}"]},
        {"subprotocols": [token64(token)]},
        {"subprotocols": ["bearer", token64(token)]},
        {"subprotocols": [token]},
    ]


@pytest.mark.parametrize("where", range(len(shown(TOKEN))))
@pytest.mark.parametrize("token", [TOKEN, PLAIN])
def test_the_secret_is_found_wherever_a_client_can_show_it(where: int, token: str) -> None:
    result = Authenticator(token).check(scope(**shown(token)[where]))
    assert result.ok and result.presented


@pytest.mark.parametrize("where", range(len(shown(TOKEN))))
@pytest.mark.parametrize("wrong", ["wrong", TOKEN + "x", TOKEN[:-1], TOKEN.upper(), "ü" * 8, "\x00"])
def test_a_wrong_secret_is_refused_everywhere(where: int, wrong: str) -> None:
    result = Authenticator(TOKEN).check(scope(**shown(wrong)[where]))
    assert not result.ok and result.presented


def test_an_unencoded_plus_in_the_query_is_taken_literally_too() -> None:
    assert Authenticator("a+b+c+d+e").check(scope(query="token=a+b+c+d+e")).ok


def test_showing_nothing_is_not_showing_something_wrong() -> None:
    result = Authenticator(TOKEN).check(scope("/x", "tokens=1", {"Authorization": "Basic eDp5"}, ["bearer"]))
    assert (result.ok, result.presented) == (False, False)


def test_without_a_secret_everybody_may_pass() -> None:
    authenticator = Authenticator(None)
    assert not authenticator.required
    assert authenticator.check(scope()).ok
    assert authenticator.check(scope(subprotocols=["bearer", "anything"])).subprotocol == "bearer"


@pytest.mark.parametrize(
    ("offered", "echo"),
    [
        (["bearer", PLAIN], "bearer"),
        ([PLAIN, "bearer"], "bearer"),
        (["realtime", f"token.{PLAIN}"], "realtime"),
        ([f"token.{PLAIN}"], f"token.{PLAIN}"),
        ([PLAIN], PLAIN),
        (["chat"], None),
        ([], None),
    ],
)
def test_the_echoed_subprotocol_is_the_secret_only_if_nothing_else_was_offered(
    offered: list[str], echo: str | None
) -> None:
    assert Authenticator(PLAIN).check(scope(subprotocols=offered)).subprotocol == echo


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("/t/abc/v1/listen", "/v1/listen"),
        ("/t/abc/", "/"),
        ("/t/abc", "/"),
        ("/t/a%2Fb/c%20d", "/c d"),
        ("/t/", "/t/"),
        ("/tabc/x", "/tabc/x"),
        ("/", "/"),
    ],
)
def test_the_token_segment_is_taken_out_of_the_path(path: str, rest: str) -> None:
    assert Authenticator(TOKEN).check(scope(path)).path == rest


@given(
    path=st.binary(max_size=60),
    query=st.binary(max_size=60),
    header=st.binary(max_size=60),
    offered=st.lists(st.text(max_size=30), max_size=40),
)
def test_no_input_raises_or_passes(path: bytes, query: bytes, header: bytes, offered: list[str]) -> None:
    result = Authenticator("0123456789abcdef").check(
        {
            "type": "websocket",
            "path": "/",
            "raw_path": b"/t/" + path,
            "query_string": b"token=" + query,
            "headers": [(b"authorization", b"Bearer " + header)],
            "subprotocols": offered,
        }
    )
    assert not result.ok and result.path.startswith("/")


def test_candidates_are_bounded() -> None:
    wrong = "&".join(["token=x"] * (MAX_CANDIDATES - 1))
    assert Authenticator(PLAIN).check(scope(query=f"{wrong}&token={PLAIN}")).ok
    assert not Authenticator(PLAIN).check(scope(query=f"{wrong}&token=y&token={PLAIN}")).ok


def gate(**options: Any) -> tuple[Gate, HandClock]:
    clock = HandClock()
    return Gate(Authenticator(PLAIN), clock=clock, **options), clock


def attempt(secret: str | None, client: str = "192.0.2.1", **headers: str) -> Scope:
    query = "" if secret is None else f"token={secret}"
    return scope(query=query, client=client, headers={name.replace("_", "-"): text for name, text in headers.items()})


def test_the_tenth_failure_is_401_and_what_follows_is_429_until_the_window_has_passed() -> None:
    guard, clock = gate()
    for number in range(MAX_FAILURES):
        clock.time_s = float(number)
        assert guard.admit(attempt("wrong")).status == 401
    limited = guard.admit(attempt("wrong"))
    assert limited.status == 429 and limited.headers == {"Retry-After": "51"}
    assert guard.admit(attempt("wrong", client="192.0.2.2")).status == 401
    clock.time_s = FAILURE_WINDOW_S - 0.001
    assert guard.admit(attempt("wrong")).status == 429
    clock.time_s = FAILURE_WINDOW_S
    assert guard.admit(attempt("wrong")).status == 401


def test_a_guesser_behind_the_same_proxy_does_not_lock_others_out() -> None:
    guard, _clock = gate()
    for _ in range(MAX_FAILURES + 5):
        guard.admit(attempt("wrong"))
    assert guard.admit(attempt("wrong")).status == 429
    assert guard.admit(attempt(PLAIN)).ok


def test_requests_without_a_secret_are_refused_but_never_limited() -> None:
    guard, _clock = gate()
    for _ in range(5 * MAX_FAILURES):
        refused = guard.admit(attempt(None))
        assert refused.status == 401 and refused.headers == {"WWW-Authenticate": "Bearer"}
    assert guard.admit(attempt(PLAIN)).ok


def test_ten_thousand_guesses_from_one_address_get_at_most_ten_answers_a_minute() -> None:
    guard, clock = gate()
    answered = 0
    for number in range(10_000):
        clock.time_s = number * 0.03
        answered += guard.admit(attempt(f"guess-{number}")).status == 401
    assert answered <= MAX_FAILURES * (300 / FAILURE_WINDOW_S) + MAX_FAILURES


def test_a_gate_without_a_secret_lets_everybody_pass() -> None:
    guard = Gate(Authenticator(None))
    assert all(guard.admit(attempt("whatever")).ok for _ in range(3 * MAX_FAILURES))


def test_the_failure_table_is_bounded_and_forgets_the_longest_quiet_first() -> None:
    limiter = FailureLimiter(max_failures=1, max_peers=3)
    for number, peer in enumerate(["a", "b", "c", "a", "d"]):
        limiter.record(peer, float(number))
    assert len(limiter) == 3
    assert limiter.retry_after_s("b", 4.0) == 0.0
    assert all(limiter.retry_after_s(peer, 4.0) > 0 for peer in ("a", "c", "d"))


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_addresses_of_one_site_count_as_one_peer(address: str, key: str) -> None:
    assert peer_key(address) == key


def test_a_forwarded_address_means_nothing() -> None:
    request = scope(client="198.51.100.7", headers={"X-Forwarded-For": "203.0.113.9"})
    assert peer_address(request) == "198.51.100.7"
    assert peer_address(scope(client=None)) == ""


def test_a_browser_like_client_gets_its_marker_back_and_not_its_secret() -> None:
    guard = Gate(Authenticator(PLAIN))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        entry = guard.admit(scope)
        assert entry.ok
        await send({"type": "websocket.accept", "subprotocol": entry.subprotocol})

    async def scenario() -> None:
        async with listening(app) as server:
            offered = [Subprotocol("bearer"), Subprotocol(token64(PLAIN))]
            async with connect(f"ws://127.0.0.1:{server.port}/", subprotocols=offered) as client:
                assert client.response is not None
                assert client.response.headers["Sec-WebSocket-Protocol"] == "bearer"

    run(scenario)
