"""HorizontalPodAutoscalers that cannot work, or are at their end."""

from __future__ import annotations

from collections.abc import Iterator

from ..hypotheses import Candidate
from ..world import World


def autoscaling(world: World) -> Iterator[Candidate]:  # noqa: ARG001
    """Targets, metrics and bounds."""
    yield from ()
