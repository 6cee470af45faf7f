"""Certificates that are expired or not accepted."""

from __future__ import annotations

from collections.abc import Iterator

from ..hypotheses import Candidate
from ..world import World


def certificates(world: World) -> Iterator[Candidate]:  # noqa: ARG001
    """Certificates by logs, conditions and series."""
    yield from ()
