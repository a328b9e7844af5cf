"""bench.arguments: what a command line stands for, and what of it is written down."""

from __future__ import annotations

import argparse
import json

import pytest

from bench.arguments import (
    add_load_arguments,
    add_server_arguments,
    check_ranges,
    chunk_ms,
    command_line,
    conditions,
    load_options,
    server_of,
)
from bench.servers import GivenServer, OwnServer
from engine.errors import BadInputError


def parsed(line: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_server_arguments(parser)
    add_load_arguments(parser, seconds=30.0)
    return parser.parse_args(line.split())


def test_without_a_url_the_server_is_our_own() -> None:
    server = server_of(parsed("--option use_vad=false --linger-s 2"))
    assert isinstance(server, OwnServer)
    assert (server.options, server.linger_s) == ({"use_vad": False}, 2.0)


def test_a_given_server_with_all_that_is_known_of_it() -> None:
    line = "ws://host:1 --pid 7 --pid 8 --health-url http://host:2 --option a=1 --option b=text --option c=x=y"
    server = server_of(parsed(line))
    assert isinstance(server, GivenServer)
    assert (server.url, server.health_url, tuple(server.pids)) == ("ws://host:1", "http://host:2", (7, 8))
    assert server.options == {"a": 1, "b": "text", "c": "x=y"}


@pytest.mark.parametrize("pair", ["a", "=1", ""])
def test_an_option_has_a_key_and_a_value(pair: str) -> None:
    args = parsed("ws://host:1")
    args.option = [pair]
    with pytest.raises(BadInputError, match="KEY=VALUE"):
        server_of(args)


@pytest.mark.parametrize(
    "line", ["--chunk-ms 10", "--chunk-ms 1000", "--drivers 64", "--seconds 0", "--seconds 86400", "--chunk-ms mixed"]
)
def test_values_at_their_limits_are_taken(line: str) -> None:
    check_ranges(parsed(line))


def test_the_load_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_AUTH_TOKEN", "the-secret-of-a-server")
    options = load_options(parsed("ws://host:1 --chunk-ms 50 --seed 9 --drivers 2"), 12)
    assert (options.clients, options.seconds, options.chunk_ms, options.seed, options.drivers) == (12, 30.0, 50, 9, 2)
    assert options.token == "the-secret-of-a-server"
    assert "the-secret-of-a-server" not in repr(options)
    assert load_options(parsed(""), 1).token is None
    assert chunk_ms(parsed("")) is None


def test_documents_hold_no_address_no_path_and_no_secret() -> None:
    line = "wss://host/?token=hush --output /home/me/x.json --option hf_token=hush --option a=1"
    written = json.dumps(
        [conditions(parsed(line.replace("--output /home/me/x.json ", ""))), command_line("m", line.split())]
    )
    assert not any(word in written for word in ("hush", "host", "/home"))
    assert "hf_token=..." in written
    assert command_line("bench.live", ["-n", "4", "ws://h:1"]) == "python -m bench.live -n 4 URL"
