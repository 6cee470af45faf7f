"""What a workload leans on and what fails."""

from __future__ import annotations

from collections.abc import Iterator

from ..hypotheses import Candidate
from ..world import World


def dependencies(world: World) -> Iterator[Candidate]:  # noqa: ARG001
    """Services without ready pods, databases that refuse, APIs outside."""
    yield from ()
