"""The product installed as its users install it, and a namespace of its own for each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.attacks.world import MANIFESTS, World, until_guarded
from tools.cluster import Cluster


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """`kubectl apply -k manifests/install`, and the role of the action type, bound to nobody."""
    cluster.kubectl("apply", "-k", str(MANIFESTS / "install"))
    cluster.kubectl("apply", "-k", str(MANIFESTS / "actions" / "rollback-workload"))
    until_guarded(cluster)
    return cluster


@pytest.fixture(scope="session")
def operator(installed: Cluster) -> Path:
    """Credentials of the operator's own ServiceAccount."""
    return installed.service_account("nightorders-system", "nightorders")


@pytest.fixture
def world(installed: Cluster, operator: Path) -> Iterator[World]:
    """A fresh namespace with the installed product around it."""
    namespace = f"t-{secrets.token_hex(4)}"
    installed.kubectl("create", "namespace", namespace)
    yield World(installed, namespace, operator)
    installed.kubectl("delete", "namespace", namespace, "--wait=false")
