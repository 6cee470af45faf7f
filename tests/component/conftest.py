"""Every world that a test made is judged by the oracle when the test is over."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache

import pytest
import structlog

from nightorders.domain import redaction
from tests.component import oracle
from tests.component.world import World


@pytest.fixture(scope="session", autouse=True)
def lines_are_redacted_once() -> Iterator[None]:
    """The same lines come again in every pass; redacting them anew would be half of the time of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "_line", lru_cache(maxsize=20_000)(redaction._line))
        yield


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
        if not w.exempt:
            oracle.check(w)
