"""Drains, evictions and budgets."""

from __future__ import annotations

from collections.abc import Iterator

from ..hypotheses import Candidate
from ..world import World


def disruption(world: World) -> Iterator[Candidate]:  # noqa: ARG001
    """Budgets without room, evicted pods."""
    yield from ()
