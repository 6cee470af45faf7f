"""What keeps pods from being created."""

from __future__ import annotations

from collections.abc import Iterator

from ..hypotheses import Candidate
from ..world import World


def admission(world: World) -> Iterator[Candidate]:  # noqa: ARG001
    """Quotas, limit ranges, webhooks, policies, missing accounts."""
    yield from ()
