"""Fixtures for tests over real sockets; how hypothesis runs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.serving import Server, running_server

# A shared machine stalls now and then: how long one example takes says nothing about the code.
# The suite always tries the same examples, so that a change is judged by itself; `make fuzz` looks for new ones.
settings.register_profile(
    "shared-machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="FUZZ" not in os.environ,
)
settings.load_profile("shared-machine")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server with the demo model for all tests that leave it as they found it."""
    with running_server("--max-clients", "16") as started:
        yield started
