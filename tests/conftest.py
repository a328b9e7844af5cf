"""Fixtures for tests over real sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving import Server, running_server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server with the demo model for all tests that leave it as they found it."""
    with running_server("--max-clients", "16") as started:
        yield started
