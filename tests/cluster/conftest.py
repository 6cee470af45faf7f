"""The cluster that the tests of this tier share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.cluster import Cluster, provide


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster for the whole session. Tests keep apart by namespaces of their own."""
    found = provide()
    yield found
    found.stop()
