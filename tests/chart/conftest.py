"""Helm, and the cluster that the tests of the chart share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.helm import Helm
from tools.cluster import Cluster, build, provide


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm without a cluster: always the pinned one, so that what is tested does not depend on the machine."""
    return Helm(build.ensure("helm"), build.kubectl().parent, tmp_path_factory.mktemp("helm"), Path(os.devnull))


@pytest.fixture(scope="session")
def installed_by_kubectl() -> str:
    """What `kubectl apply -k manifests/install` would apply, as YAML."""
    folder = Path(__file__).resolve().parents[2] / "manifests/install"
    return subprocess.run([build.kubectl(), "kustomize", folder], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of the chart's own, since it installs and removes what all others use; a throw-away one, whatever the user named."""
    found = provide(require="local")
    yield found
    found.stop()
