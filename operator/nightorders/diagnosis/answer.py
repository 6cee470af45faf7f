"""The finished answer: observations get their ids, and nothing exceeds what the API stores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ..api.v1alpha1.common import Category
from ..api.v1alpha1.incident import BlastRadius, Change, Fact, Gap, Guess, Hypothesis, Owner
from ..domain.diagnosis import Diagnosis, Finding
from .evidence import Believed, Known, Register, safe
from .grades import worth
from .hypotheses import Candidate

MOST_FACTS = 24
MOST_GUESSES = 12
MOST_UNEXPLAINED = 16
MOST_GAPS = 32
_CITED_PER_HYPOTHESIS = 8


@dataclass(frozen=True)
class Answer:
    """What the supervisor has to say, before ids and bounds. `grade` is told with the evidence, where an origin is shown."""

    kind: Finding
    reason: str
    message: str
    summary: str
    grade: str = ""
    ranked: tuple[Candidate, ...] = ()
    facts: tuple[Known, ...] = ()
    guesses: tuple[Believed, ...] = ()
    unexplained: tuple[Known, ...] = ()
    gaps: tuple[Gap, ...] = ()
    blast_radius: BlastRadius | None = None
    owners: tuple[Owner, ...] = ()
    changes: tuple[Change, ...] = ()
    symptom_since: datetime | None = None
    terminal_since: datetime | None = None
    failing_revision: str = ""


def compose(answer: Answer) -> Diagnosis:
    """The Diagnosis. Hypotheses cite first, so that what decides keeps its evidence when there is more than fits."""
    register = Register()
    hypotheses = tuple(_hypothesis(register, c) for c in answer.ranked)
    unexplained = _facts(register, answer.unexplained[:MOST_UNEXPLAINED])
    facts = _facts(register, answer.facts[:MOST_FACTS])
    guesses = tuple(
        Guess(text=safe(g.text), evidence=register.cite(g.seen), settled_by=g.settled_by[:1024])
        for g in dict.fromkeys(answer.guesses[:MOST_GUESSES])
    )
    return Diagnosis(
        finding=answer.kind,
        reason=answer.reason,
        message=safe(_cited(answer, hypotheses)),
        summary=safe(answer.summary, 512),
        hypotheses=hypotheses,
        facts=facts,
        guesses=guesses,
        evidence=register.evidence(),
        unexplained=unexplained,
        gaps=tuple(dict.fromkeys(answer.gaps))[:MOST_GAPS],
        blast_radius=answer.blast_radius,
        owners=answer.owners,
        changes=answer.changes,
        symptom_since=answer.symptom_since,
        terminal_since=answer.terminal_since,
        failing_revision=answer.failing_revision,
    )


def _cited(answer: Answer, hypotheses: tuple[Hypothesis, ...]) -> str:
    """`…, which the registry does not have (e1, e2; grade A).`"""
    if not answer.grade or not hypotheses:
        return answer.message
    first = hypotheses[0]
    ids = ", ".join(first.supported_by[:4])
    counted = f"; {first.confidence} %: {first.basis} like it were right" if first.confidence is not None else ""
    return f"{answer.message.rstrip('.')} ({ids}; {answer.grade}{counted})."


def _facts(register: Register, known: Iterable[Known]) -> tuple[Fact, ...]:
    """A fact without evidence is none: beyond the bound on evidence there are no more facts."""
    made = (Fact(text=safe(k.text), evidence=register.cite(k.seen)) for k in dict.fromkeys(known))
    return tuple(f for f in made if f.evidence)


def _hypothesis(register: Register, c: Candidate) -> Hypothesis:
    # What was given up, and "something else", are no forecasts.
    counted = None if c.refuted or c.category is Category.UNKNOWN else worth().get(c.grade)
    return Hypothesis(
        category=c.category,
        object=safe(c.object, 256),
        change=c.change,
        grade=c.grade,
        confidence=counted.percent if counted else None,
        basis=counted.basis if counted else "",
        statement=safe(c.statement),
        supported_by=register.cite(c.supporting)[:_CITED_PER_HYPOTHESIS],
        contradicted_by=register.cite(c.contradicting)[:_CITED_PER_HYPOTHESIS],
        refuted=c.refuted,
    )
