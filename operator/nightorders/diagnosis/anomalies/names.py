"""Names that do not resolve."""

from __future__ import annotations

from collections.abc import Iterator

from ..hypotheses import Candidate
from ..world import World


def names(world: World) -> Iterator[Candidate]:  # noqa: ARG001
    """Cluster DNS, a pod's dnsPolicy, names of Services that do not exist."""
    yield from ()
