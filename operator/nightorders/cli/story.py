"""An Incident's status as sections for people. `diagnose` and `show` tell the same story with the same words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from ..api.v1alpha1.common import Category
from ..api.v1alpha1.incident import ChangeRef, Fact, Hypothesis, IncidentStatus
from . import paste
from .document import Code, Row, Say, Section, Tone, section
from .times import both, lasting

GRADES = {
    "A": "every link was observed and a counterfactual computed",
    "B": "one link is inferred or could not be looked at",
    "C": "a chain and its timing",
    "D": "timing or similarity only",
}
TONES = {"A": Tone.GOOD, "B": Tone.WARN, "C": Tone.WARN, "D": Tone.WARN}


def cited(ids: Sequence[str]) -> str:
    """` (e1, e4)`; empty without evidence."""
    return f" ({', '.join(ids)})" if ids else ""


def findings(status: IncidentStatus, now: datetime) -> list[Section]:
    """What is known, believed, explained, and not: everything but the evidence itself."""
    standing = [h for h in status.hypotheses if not h.refuted]
    refuted = [h for h in status.hypotheses if h.refuted]
    return [
        section("Known", _facts(status.facts)),
        section("Guessed", _guesses(status)),
        section("Hypotheses", (row for i, h in enumerate(standing) for row in _hypothesis(i + 1, h, now))),
        section("Refuted", (row for h in refuted for row in _refuted(h))),
        section("Not explained by the first hypothesis", _facts(status.unexplained)),
        section("Changes", _changes(status, now)),
        section("Blast radius", _radius(status)),
        section("Owners", (Say(f"{o.who}: {o.because}") for o in status.owners)),
        section("Gaps", _gaps(status)),
    ]


def evidence(status: IncidentStatus, now: datetime) -> Section:
    """Each observation with its exact query."""

    def rows() -> Iterator[Row]:
        for e in status.evidence:
            yield Say(f"{e.id}  {e.source}, {both(e.at, now)}")
            yield Code(e.query, label="query")
            yield Code(e.excerpt, label="seen")

    return section("Evidence", rows())


def _facts(facts: Iterable[Fact]) -> Iterator[Row]:
    return (Say(f.text + cited(f.evidence)) for f in facts)


def _guesses(status: IncidentStatus) -> Iterator[Row]:
    for g in status.guesses:
        yield Say(g.text + cited(g.evidence))
        if settled := strict(g.settled_by):
            yield Code(settled, label="settled by")


def strict(text: str) -> str:
    """A command from a status, if every word of it is plain."""
    return paste.command(text.split(" ")) if text else ""


def _hypothesis(number: int, h: Hypothesis, now: datetime) -> Iterator[Row]:
    yield Say(f"{number}. {h.title}", tone=Tone.STRONG, bullet=False)
    yield Say(h.statement, 1, bullet=False)
    if h.category is not Category.UNKNOWN:
        yield Say(f"grade {h.grade}: {GRADES[h.grade]}", 1, TONES[h.grade], bullet=False)
    if h.change is not None:
        yield Say(change(h.change, now), 1, bullet=False)
    if h.category in (Category.UNKNOWN, Category.NO_FAULT) and not h.supported_by:
        return
    against = f"; against: {', '.join(h.contradicted_by)}" if h.contradicted_by else ""
    yield Say(f"for: {', '.join(h.supported_by) or 'nothing'}{against}", 1, bullet=False)


def change(c: ChangeRef, now: datetime) -> str:
    """What brought it in, when, and who claims to have done it."""
    what = {"Release": f"release {c.revision}".strip(), "Edit": "an edit", "Deletion": "a deletion", "None": "no change was seen"}[c.kind]
    when = f", {both(c.at, now)}" if c.at else ""
    by = f", by {c.by} (a claim, not proven)" if c.by else ""
    return f"brought in by {what}{when}{by}" if c.kind != "None" else what


def _refuted(h: Hypothesis) -> Iterator[Row]:
    yield Say(f"{h.title}: {h.statement}")
    yield Say(f"given up because: {h.refuted}{cited(h.contradicted_by)}", 1, bullet=False)


def _changes(status: IncidentStatus, now: datetime) -> Iterator[Row]:
    for c in status.changes:
        by = f", by {c.by} (a claim)" if c.by else ""
        lead = ""
        if c.seconds_before_symptom is not None:
            side = "before" if c.seconds_before_symptom >= 0 else "after"
            lead = f", {lasting(abs(c.seconds_before_symptom))} {side} the symptom"
        yield Say(f"{both(c.at, now)}  {c.object}: {c.what}{by}{lead}")


def _radius(status: IncidentStatus) -> Iterator[Row]:
    radius = status.blast_radius
    if radius is None or not (status.grade or radius.pods_percent or radius.victims):
        return
    yield Say(f"{radius.pods_percent} % of the pods that it wants do not serve")
    if radius.workloads:
        yield Say(f"workloads: {', '.join(radius.workloads)}")
    if radius.victims:
        yield Say(f"victims: {', '.join(radius.victims)}")


def _gaps(status: IncidentStatus) -> Iterator[Row]:
    for g in status.gaps:
        yield Say(f"{g.what}: {g.because}", tone=Tone.WARN)
        if fix := paste.checked(g.fix):
            who = paste.comment(g.fix)
            yield Code(f"{fix}  # {who}" if who else fix, label="fix")
        elif g.fix:
            yield Say(f"fix: {g.fix}", 1, bullet=False)
