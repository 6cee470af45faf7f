"""Claims, volumes and classes."""

from __future__ import annotations

from collections.abc import Iterator

from ..hypotheses import Candidate
from ..world import World


def storage(world: World) -> Iterator[Candidate]:  # noqa: ARG001
    """Claims that do not bind, volumes that are full."""
    yield from ()
