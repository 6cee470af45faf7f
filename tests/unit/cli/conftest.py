"""The cluster that every command of a test reaches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from nightorders.cli import session as sessions
from nightorders.cli.session import Session, Where
from tests.unit.cli.scene import BAD, GOOD, FakeCluster, deployment, incident, replica_set, session


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """Every command of the test reaches this one."""
    fake = FakeCluster(incident=incident())
    fake.objects = {
        ("Deployment", "checkout"): deployment(BAD),
        ("ReplicaSet", "checkout-6"): replica_set(6, GOOD),
        ("ReplicaSet", "checkout-7"): replica_set(7, BAD),
    }

    @asynccontextmanager
    async def connect(where: Where) -> AsyncIterator[Session]:
        fake.where = where
        yield session(fake, where)

    monkeypatch.setattr(sessions, "connect", connect)
    return fake
