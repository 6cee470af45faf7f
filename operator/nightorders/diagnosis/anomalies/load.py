"""More demand than there is room for."""

from __future__ import annotations

from collections.abc import Iterator

from ..hypotheses import Candidate
from ..world import World


def load(world: World) -> Iterator[Candidate]:  # noqa: ARG001
    """Saturation, throttling, growth of memory, by series."""
    yield from ()
