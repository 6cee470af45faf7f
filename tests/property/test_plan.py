"""Plans: the digest binds the content, and no two plans of an Incident share one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightorders.api.meta import Level
from nightorders.api.v1alpha1 import IncidentStatus
from nightorders.api.v1alpha1.incident import Plan
from nightorders.domain.digest import sha256
from nightorders.domain.plan import execution_id, stage
from tests.unit.domain.make import MINUTE, NOW, governing, incident, needs_of, proposal

P = proposal()
CONTENT = st.sampled_from("abc")
LEVELS = st.sampled_from([Level.L2, Level.L3, Level.L4])
RULE = governing()


@pytest.mark.threat(3)
@pytest.mark.promise(1)
@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(CONTENT, LEVELS, LEVELS, st.booleans()), min_size=1, max_size=6))
def test_a_digest_is_never_given_twice_to_different_plans(history: list[tuple[str, Level, Level, bool]]) -> None:
    """Staged, staged again, withdrawn, replaced: an approval of one never fits another, and the order never rises while it waits."""
    status = IncidentStatus()
    seen: dict[str, tuple[str, int]] = {}
    for i, (content, level, ordered, withdrawn) in enumerate(history):
        p: Any = replace(P, after_sha256=sha256(content))
        made = stage(incident(status), p, RULE, level, ordered, None, NOW + i * MINUTE, needs=needs_of(RULE))
        old: Plan | None = status.plan
        if old is not None and old.content_sha256 == made.content_sha256:
            assert (made.digest, made.sequence) == (old.digest, old.sequence)
            assert made.staged_level <= min(old.staged_level, ordered)
        else:
            assert made.digest not in seen
            assert made.sequence > status.plan_sequence
        assert seen.setdefault(made.digest, (made.content_sha256, made.sequence)) == (made.content_sha256, made.sequence)
        assert made.staged_level <= ordered
        status = IncidentStatus(plan=None if withdrawn else made, plan_sequence=made.sequence)
    assert len({execution_id(d) for d in seen}) == len(seen)
