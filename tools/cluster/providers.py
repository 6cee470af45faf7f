"""Which provider gives the cluster."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from tools.cluster.build import to_stderr
from tools.cluster.interface import Cluster
from tools.cluster.paths import check_name, state_directory


def provide(
    *,
    name: str | None = None,
    nodes: int = 3,
    keep: bool = False,
    require: str | None = None,
    progress: Callable[[str], None] = to_stderr,
) -> Cluster:
    from tools.cluster import local

    chosen = check_name(name) if name else f"t-{secrets.token_hex(3)}"
    return local.start(chosen, nodes=nodes, keep=keep, progress=progress)


def attach(name: str) -> Cluster:
    """A running local cluster, for example one that another process started. Raises ClusterError."""
    from tools.cluster import local

    return local.attach(state_directory(name))
