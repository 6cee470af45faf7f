"""Which provider gives the cluster."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

from tools.cluster.build import to_stderr
from tools.cluster.errors import ClusterError, Unavailable
from tools.cluster.interface import Cluster
from tools.cluster.paths import check_name, state_directory

# In the order in which they are tried.
PROVIDERS = ("kubeconfig", "kind", "local")


def provide(
    *,
    name: str | None = None,
    nodes: int = 3,
    keep: bool = False,
    require: str | None = None,
    progress: Callable[[str], None] = to_stderr,
) -> Cluster:
    """A cluster, from the first provider that can give one, or from the one that `require` names.

    `name` tells clusters apart that run at the same time (default: a new one), `nodes` is how many nodes
    that can run pods it has. A local cluster ends with the process that asked for it unless `keep`; then
    `attach` finds it from other processes. Waits until the cluster can be used, which takes minutes when
    its programs must be built first; `progress` is told about it.

    Raises ClusterError that names each provider's reason when none can.
    """
    chosen = check_name(name) if name else f"t-{secrets.token_hex(3)}"

    def named() -> Cluster:
        from tools.cluster import named

        return named.start(progress=progress)

    def kind() -> Cluster:
        from tools.cluster import kind

        return kind.start(chosen, nodes=nodes, progress=progress)

    def local() -> Cluster:
        from tools.cluster import local

        return local.start(chosen, nodes=nodes, keep=keep, progress=progress)

    return first_that_works({"kubeconfig": named, "kind": kind, "local": local}, require, progress)


def first_that_works(providers: Mapping[str, Callable[[], Cluster]], require: str | None, progress: Callable[[str], None]) -> Cluster:
    """What the first provider gives that is not unavailable; with `require` only that one counts.

    kind may also fail: an engine that answers can still be unable to run it. Any other failure is raised,
    because it is one to repair and not to hide.
    """
    if require is not None and require not in providers:
        raise ClusterError(f"no provider {require!r}; there are {', '.join(providers)}")
    reasons = []
    for provider, start in providers.items():
        if require not in (None, provider):
            continue
        try:
            return start()
        except Unavailable as problem:
            reasons.append(f"{provider}: {problem}")
        except ClusterError as problem:
            if provider != "kind" or require is not None:
                raise
            progress(f"{problem}; going on without kind")
            reasons.append(f"{provider}: {problem}")
    raise ClusterError("no cluster to be had: " + "; ".join(reasons))


def attach(name: str) -> Cluster:
    """A running local cluster, for example one that another process started with `keep`.

    Raises ClusterError when there is none of that name.
    """
    from tools.cluster import local

    return local.attach(state_directory(name))
