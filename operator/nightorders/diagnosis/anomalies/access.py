"""Rights that are missing."""

from __future__ import annotations

from collections.abc import Iterator

from ..hypotheses import Candidate
from ..world import World


def access(world: World) -> Iterator[Candidate]:  # noqa: ARG001
    """RBAC rules that a workload needs and has not."""
    yield from ()
