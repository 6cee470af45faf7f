"""Throw-away Kubernetes clusters for the demo and the tests.

    from tools.cluster import provide

    cluster = provide()
    try:
        cluster.kubectl("get", "nodes")
    finally:
        cluster.stop()

`provide` takes the first that works of: the cluster that NIGHTORDERS_TEST_KUBECONFIG names; kind, where a
container engine answers; a local control plane with simulated nodes. No other cluster is ever touched,
whatever the machine's kubeconfig says.
"""

from __future__ import annotations

from tools.cluster.errors import ClusterError, KubectlError, Unavailable
from tools.cluster.interface import Cluster
from tools.cluster.providers import attach, provide

__all__ = ["Cluster", "ClusterError", "KubectlError", "Unavailable", "attach", "provide"]
