"""Traffic that a NetworkPolicy does not let through."""

from __future__ import annotations

from collections.abc import Iterator

from ..hypotheses import Candidate
from ..world import World


def network_policies(world: World) -> Iterator[Candidate]:  # noqa: ARG001
    """Policies that cut a configured path."""
    yield from ()
