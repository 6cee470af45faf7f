"""Counts that somebody set."""

from __future__ import annotations

from collections.abc import Iterator

from ..hypotheses import Candidate
from ..world import World


def scale(world: World) -> Iterator[Candidate]:  # noqa: ARG001
    """Workloads at zero, or fewer than are needed."""
    yield from ()
