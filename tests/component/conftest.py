"""Every world that a test made is judged by the oracle when the test is over."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.component import oracle
from tests.component.world import World


@pytest.fixture(autouse=True)
def judged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Collects the worlds and asks the oracle about each."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    made: list[World] = []
    real = World.__post_init__

    def noted(self: World) -> None:
        real(self)
        made.append(self)

    monkeypatch.setattr(World, "__post_init__", noted)
    yield
    structlog.reset_defaults()
    for w in made:
        oracle.check(w)
