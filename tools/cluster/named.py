"""The cluster that the user names in NIGHTORDERS_TEST_KUBECONFIG."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tools.cluster import build
from tools.cluster.errors import ClusterError, KubectlError, Unavailable
from tools.cluster.paths import temporary_directory
from tools.cluster.signing import SigningCluster
from tools.cluster.stages import NODE_ANNOTATION

VARIABLE = "NIGHTORDERS_TEST_KUBECONFIG"
_ANSWER_SECONDS = 15


class NamedCluster(SigningCluster):
    """A cluster that was there before and stays; see `tools.cluster.interface.Cluster`."""

    def stop(self) -> None:
        """Nothing: the cluster is not ours."""


def start(*, progress: Callable[[str], None]) -> NamedCluster:
    """The named cluster. Raises Unavailable when none is named.

    One that is named and does not answer raises ClusterError: whoever names a cluster means that one, and
    no other may be taken in its place.
    """
    value = os.environ.get(VARIABLE)
    if not value:
        raise Unavailable(f"{VARIABLE} names no cluster")
    path = Path(value).expanduser().absolute()
    if not path.is_file():
        raise ClusterError(f"{VARIABLE} names {path}, which is no file")
    cluster = NamedCluster(
        name="named",
        provider="kubeconfig",
        kubeconfig=path,
        kubectl=build.kubectl(progress),
        files=temporary_directory("cluster"),
        simulated=False,
    )
    try:
        found = cluster.kubectl("get", "nodes", "--output=jsonpath={.items[*].metadata.annotations}", timeout=_ANSWER_SECONDS)
    except (KubectlError, subprocess.TimeoutExpired) as problem:
        raise ClusterError(f"the cluster that {VARIABLE} names does not answer: {problem}") from problem
    cluster.simulated = f'"{NODE_ANNOTATION}":"fake"' in found.stdout
    return cluster
