"""Services and routes that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator

from ..hypotheses import Candidate
from ..world import World


def routing(world: World) -> Iterator[Candidate]:  # noqa: ARG001
    """Selectors that match nothing, ports nobody opens, Ingresses to what is not there."""
    yield from ()
