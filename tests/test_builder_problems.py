"""Refusals of all APIs to errors; headers that ask for patience; how long we have it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.api.backoff import CAP_S, full_jitter_s
from builder.api.models import Pod
from builder.api.problems import graphql_error, http_error, is_capacity, one_line, parsed, parsed_list
from builder.api.rate_limits import MAX_ASKED_S, Window, asked_wait_s, parse_rate_limit, parse_retry_after
from builder.api.retries import ATTEMPTS, LONGEST_WAIT_S, Failure, next_wait_s
from builder.errors import (
    AuthError,
    BadAnswerError,
    BadRequestError,
    BalanceError,
    BuilderError,
    CapacityError,
    ConflictError,
    ForbiddenError,
    NetworkError,
    NotAvailableError,
    NotFoundError,
    RateLimitedError,
    ServerFaultError,
)

CAPACITY = [
    "There are no longer any instances available with the requested specifications. Please refresh and try again.",
    "This machine does not have the resources to deploy your pod. Please try a different machine",
    "There are not enough free GPUs on the host machine to start this pod.",
    "no machines available",
    "No GPU available in this region",
    "there are no available hosts",
    "out of stock",
]


def error(status: int, body: object = None, text: str = "", **headers: str) -> BuilderError:
    return http_error("create pod", status, headers, body, json.dumps(body) if body is not None else text)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthError),
        (402, BalanceError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (408, ServerFaultError),
        (409, ConflictError),
        (410, NotAvailableError),
        (418, BadRequestError),
        (422, BadRequestError),
        (429, RateLimitedError),
        (500, ServerFaultError),
        (503, ServerFaultError),
        (524, ServerFaultError),
    ],
)
def test_status_of_a_v2_problem(status: int, kind: type[BuilderError]) -> None:
    found = error(status, {"title": "T", "status": status, "detail": "that is why"}, **{"x-request-id": "r-1"})
    assert type(found) is kind
    assert str(found) == "create pod: that is why"
    assert (found.status, found.request_id) == (status, "r-1")


def test_every_violation_of_the_contract_is_told() -> None:
    body = {"title": "U", "status": 422, "detail": "invalid", "errors": ["$: missing property 'name'", "$.disk: 0 < 1"]}
    assert str(error(422, body)) == "create pod: invalid: $: missing property 'name'; $.disk: 0 < 1"


@pytest.mark.parametrize("text", CAPACITY)
@pytest.mark.parametrize("body", ["detail", "error", "message"])
def test_no_machine_is_told_by_the_text(text: str, body: str) -> None:
    assert type(error(400, {body: text})) is CapacityError
    assert type(error(500, {body: text})) is CapacityError
    assert type(graphql_error("rent", [{"message": text}])) is CapacityError


def test_a_broken_contract_is_no_lack_of_machines() -> None:
    assert type(error(422, {"detail": "out of stock"})) is BadRequestError


@pytest.mark.parametrize("text", ["insufficient balance", "Insufficient funds.", "You hit your spend limit of $80/h"])
def test_an_empty_account(text: str) -> None:
    assert type(error(400, {"detail": text})) is BalanceError
    assert type(error(500, {"error": text, "status": 500})) is BalanceError
    assert type(graphql_error("rent", [{"message": text}])) is BalanceError


def test_a_fault_that_passes_is_the_servers_whatever_its_status() -> None:
    text = "Something went wrong. Please try again later or contact support."
    assert type(error(400, {"detail": text})) is ServerFaultError
    assert type(graphql_error("rent", [{"message": text}])) is ServerFaultError


def test_an_edge_s_page_is_shortened_and_not_believed() -> None:
    page = "<html><head><title>502 Bad Gateway</title></head><body>no hosts available" + "x" * 5000
    found = error(502, None, page)
    assert type(found) is ServerFaultError
    assert str(found) == "create pod: HTTP 502 Bad Gateway"
    assert "1020" in str(error(403, None, "<h1>Access denied</h1>\n<p>error 1020</p>"))
    assert str(error(503, None, "")) == "create pod: HTTP 503 Service Unavailable"


def test_messages_are_one_line_of_bounded_length() -> None:
    assert one_line("a\n\x1b[31mb\t c") == "a [31mb c"
    assert len(str(error(400, {"detail": "x" * 9999}))) < 600


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ([{"message": "no", "extensions": {"code": "UNAUTHENTICATED"}}], AuthError),
        ([{"message": "no", "extensions": {"code": "FORBIDDEN"}}], ForbiddenError),
        ([{"message": "pod not found"}], NotFoundError),
        ([{"message": "This API is no longer supported"}], NotAvailableError),
        ([{"message": "deprecated, use REST"}], NotAvailableError),
        ([{"message": "x", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}], ServerFaultError),
        ([{"message": "The bid is too low", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}], BadRequestError),
        ([{"message": "already exists", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}], ConflictError),
        ([{"message": "Variable $x"}], BadRequestError),
        ([], BadRequestError),
        ("junk", BadRequestError),
        ([None], BadRequestError),
        ([{"message": None, "extensions": "junk"}], BadRequestError),
    ],
)
def test_graphql_errors(body: object, kind: type[BuilderError]) -> None:
    assert type(graphql_error("rent", body)) is kind


@given(
    st.integers(300, 599),
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["detail", "error", "message", "errors", "title"]), x),
        max_leaves=6,
    ),
)
def test_no_refusal_is_beyond_it(status: int, body: object) -> None:
    assert "\n" not in str(error(status, body))
    assert not is_capacity("")


def test_an_answer_that_lacks_a_field_names_it_and_the_operation() -> None:
    with pytest.raises(BadAnswerError, match=r"list pods: field 'name' of the answer: Field required \(and 1 more\)"):
        parsed_list(Pod, {"pods": [{"id": "p"}]}, "pods", "list pods")
    with pytest.raises(BadAnswerError, match="list pods: the answer has no list 'pods'"):
        parsed_list(Pod, {"items": []}, "pods", "list pods")
    with pytest.raises(BadAnswerError, match="the whole answer"):
        parsed(Pod, None, "read pod")


# Patience


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("12", 12),
        (" 0 ", 0),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        ("-3", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("99999999", None),
        ("9" * 5000, None),
        ("Thu, 01 Jan 9999 00:00:30 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, 1_767_225_600.0) == seconds


def test_rate_limit_windows() -> None:
    header = '"minute";r=0;t=12, "hour";r=2800;t=1812, "day";r=49500;t=45012'
    assert parse_rate_limit(header) == (
        Window("minute", 0, 12),
        Window("hour", 2800, 1812),
        Window("day", 49500, 45012),
    )


@pytest.mark.parametrize(
    "value",
    [None, "", "minute;r=0;t=1", '"minute";r=0', '"minute";r=x;t=1', '"m";r=0;t=1,', '"m";r=0;t=99999999', "x" * 2000],
)
def test_malformed_rate_limits_say_nothing(value: str | None) -> None:
    assert parse_rate_limit(value) is None


@given(st.text(max_size=80))
def test_no_header_is_beyond_it(value: str) -> None:
    for asked in (parse_retry_after(value, 0.0), asked_wait_s({"ratelimit": value}, 0.0)):
        assert asked is None or 0 <= asked <= MAX_ASKED_S


def test_the_latest_renewal_counts_unless_told_outright() -> None:
    limits = {"ratelimit": '"minute";r=0;t=12, "hour";r=0;t=50, "day";r=9;t=99'}
    assert asked_wait_s(limits, 0.0) == 50
    assert asked_wait_s(limits | {"retry-after": "3"}, 0.0) == 3
    assert asked_wait_s({"ratelimit": '"minute";r=5;t=12'}, 0.0) is None


def test_waits_double_within_a_cap_and_use_the_whole_span() -> None:
    longest = [full_jitter_s(failures, lambda: 1.0) for failures in range(1, 9)]
    assert longest == [0.5, 1, 2, 4, 8, 16, CAP_S, CAP_S]
    assert full_jitter_s(4, lambda: 0.25) == 1.0
    assert full_jitter_s(10_000, lambda: 1.0) == CAP_S


def test_what_may_be_sent_again() -> None:
    limited, fault = Failure(RateLimitedError("x")), Failure(ServerFaultError("x"))
    unsent, lost = Failure(NetworkError("x"), is_unsent=True), Failure(NetworkError("x"))
    repeats = {
        mode: [next_wait_s(each, 1, mode, lambda: 0.0) is not None for each in (limited, unsent, lost, fault)]
        for mode in ("any", "unsent", "limits")
    }  # fmt: skip
    assert repeats == {
        "any": [True, True, True, True],
        "unsent": [True, True, False, False],
        "limits": [True, False, False, False],
    }
    assert next_wait_s(Failure(BadRequestError("x")), 1, "any", lambda: 0.0) is None
    assert next_wait_s(limited, ATTEMPTS, "any", lambda: 0.0) is None
    assert next_wait_s(Failure(RateLimitedError("x"), LONGEST_WAIT_S + 1), 1, "any", lambda: 0.0) is None
    assert next_wait_s(Failure(RateLimitedError("x"), 7.0), 1, "any", lambda: 0.0) == 7.0


def test_v1_says_500_where_there_is_no_pod() -> None:
    assert type(error(500, {"error": "pod not found", "status": 500})) is NotFoundError
    assert type(error(500, {"error": "no answer from the pod", "status": 500})) is ServerFaultError
