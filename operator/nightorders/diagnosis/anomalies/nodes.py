"""Machines."""

from __future__ import annotations

from collections.abc import Iterator

from ..hypotheses import Candidate
from ..world import World


def nodes(world: World) -> Iterator[Candidate]:  # noqa: ARG001
    """Nodes that are not ready, under pressure, cordoned or tainted."""
    yield from ()
