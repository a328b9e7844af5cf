"""Fixtures for tests over real sockets; how hypothesis runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.serving import Server, running_server

# A shared machine stalls now and then: how long one example takes says nothing about the code.
settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server with the demo model for all tests that leave it as they found it."""
    with running_server("--max-clients", "16") as started:
        yield started
