"""A status never grows beyond what can be stored: what explains is cut before what decides."""

from __future__ import annotations

import pytest

from nightorders.api.v1alpha1.incident import Change, Evidence, Fact, Gap, GateResult, Guess, IncidentStatus, TimelineEntry
from nightorders.domain import journal
from nightorders.domain.record import SIZE_LIMIT, fit
from tests.unit.domain.make import NOW, execution, plan

ZERO = "sha256:" + "0" * 64


def size(status: IncidentStatus) -> int:
    return len(status.model_dump_json(by_alias=True, exclude_none=True).encode())


KEPT = ("Decision", "Approval", "Execution")


def story(words: str) -> tuple[TimelineEntry, ...]:
    """As long and as wordy as people and the cluster can make it."""
    made: tuple[TimelineEntry, ...] = ()
    kinds: tuple[journal.Kind, ...] = ("Observation", "Approval", "Observation", "Decision")
    for n in range(400):
        made = journal.append(made, "uid-incident", NOW, kinds[n % 4], f"{words[:200]}{n % 9}", f"{n} {words}")
    for n in range(16):
        made = journal.append(made, "uid-incident", NOW, "Execution", "operator", f"{n} {words}")
    return made


@pytest.mark.parametrize(("letter", "limit"), [("x", 64), ("ä", 128)])
def test_the_largest_status_that_the_schema_allows_fits(letter: str, limit: int) -> None:
    """threats.md 25: however much there is to say, the journal write must not fail. (An umlaut is two bytes.)"""
    p, LONG = plan(), letter * 1024  # noqa: N806
    full = IncidentStatus(
        plan=p,
        executions=tuple(execution("Ended", p).model_copy(update={"message": LONG}) for _ in range(4)),
        facts=tuple(Fact(text=LONG, evidence=("e1",)) for _ in range(32)),
        guesses=tuple(Guess(text=LONG, settled_by=LONG) for _ in range(32)),
        evidence=tuple(Evidence(id=f"e{n}", source="Logs", query=LONG, at=NOW, excerpt=LONG, sha256=ZERO) for n in range(64)),
        gaps=tuple(Gap(what="x", because=LONG, fix=LONG) for _ in range(32)),
        changes=tuple(Change(object="x", at=NOW, what=LONG) for _ in range(16)),
        unexplained=tuple(Fact(text=LONG, evidence=("e1",)) for _ in range(16)),
        gates=tuple(GateResult(gate="x", allowed=True, reason="X", message=LONG) for _ in range(32)),
        timeline=story(LONG),
    )
    assert size(full) > 5 * SIZE_LIMIT
    fitted = fit(full)
    assert size(fitted) < limit * 1024
    assert (fitted.plan, fitted.executions) == (full.plan, full.executions)
    assert fitted.timeline[-1] == full.timeline[-1]
    assert [e for e in fitted.timeline if e.kind in KEPT] == [e for e in full.timeline if e.kind in KEPT]
    assert journal.breaks(fitted.timeline, "uid-incident") == []


def test_a_status_of_ordinary_size_is_left_alone() -> None:
    status = IncidentStatus(plan=plan(), timeline=journal.append((), "uid-incident", NOW, "Observation", "operator", "x"))
    assert fit(status) is status
