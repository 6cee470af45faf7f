"""The control plane."""

from __future__ import annotations

from collections.abc import Iterator

from ..hypotheses import Candidate
from ..world import World


def control_plane(world: World) -> Iterator[Candidate]:  # noqa: ARG001
    """Schedulers and controllers that are away, APIs that do not answer."""
    yield from ()
