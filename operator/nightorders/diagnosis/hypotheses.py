"""Ranking and grading: from candidate origins, each with what speaks for and against it, to the list that the answer shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ..api.v1alpha1.common import Category
from ..api.v1alpha1.incident import ChangeRef
from .evidence import Channel, Observation
from .findings import Finding

Grade = Literal["A", "B", "C", "D"]
MOST_SHOWN = 8
CLIP = 20.0
_ORDER = tuple(Category)  # as in the table of mechanisms: of two that fit alike, the first that holds


@dataclass(frozen=True)
class Factor:
    """How much likelier a sight is if the hypothesis holds than if it does not, and why we think so."""

    channel: Channel
    ratio: float
    because: str


# The whole table. The numbers rank, they are no probabilities and never shown; what is shown is the grade.
FACTORS: Mapping[str, Factor] = {
    "mechanism named": Factor(Channel.STATUS, 20, "kubelet reports this very mechanism in a field made for it"),
    "mechanism likely": Factor(Channel.STATUS, 8, "kubelet reports the effect, the mechanism is the usual one behind it"),
    "state fits": Factor(Channel.STATUS, 4, "the state is what this mechanism leaves, and some others do as well"),
    "only an exit": Factor(Channel.STATUS, 2, "a non-zero exit fits this and much else"),
    "nothing fails": Factor(Channel.STATUS, 20, "every replica is available"),
    "pods fail": Factor(Channel.STATUS, 1 / 20, "pods fail now, so it is neither nothing nor over"),
    "signal stands": Factor(Channel.METRIC, 2, "whoever sent the signal still says so, or cannot be asked"),
    "dependency without endpoints": Factor(
        Channel.STATUS, 20, "what the program calls has no ready endpoint, and no hypothesis here explains that"
    ),
    "leads nowhere": Factor(Channel.STATUS, 20, "a value names a Service or a port that a complete list does not have"),
    "never ends": Factor(Channel.STATUS, 8, "what holds the pod back is, by its own command, not going to end"),
    "probe asks the wrong door": Factor(
        Channel.STATUS, 20, "the probe asks for a port, a scheme or a program that the container does not offer"
    ),
    "probe gives too little time": Factor(Channel.STATUS, 8, "healthy starts took longer than the probe allows"),
    "probe was right before": Factor(Channel.CHANGE, 1 / 8, "pods were Ready with the very same probe"),
    "other image content": Factor(Channel.CONTRAST, 8, "the same image name stands for other content where it works"),
    "errors in the new release only": Factor(
        Channel.METRIC, 15, "pods of the new revision answer with errors, those of the old one do not"
    ),
    "began with the release": Factor(Channel.CHANGE, 8, "the errors began within minutes of the release, and not before"),
    "introduced by this release": Factor(
        Channel.CHANGE, 10, "the field differs from the revision before, and failing pods are of this one"
    ),
    "whole container is new": Factor(Channel.CHANGE, 2, "a program that never ran here fails by itself more often than by one setting"),
    "was complete before": Factor(Channel.CHANGE, 1 / 4, "the rollout had been complete before the first failure"),
    "one of several releases": Factor(Channel.CHANGE, 5, "it came in after the last healthy revision, together with other changes"),
    "edited before it began": Factor(Channel.CHANGE, 5, "it changed after healthy pods had started and before the first failure"),
    "edited together with others": Factor(Channel.CHANGE, 3, "so did other objects that the pods read"),
    "existed before": Factor(Channel.CHANGE, 8, "pods that need it have started earlier, so it is gone since"),
    "names what never was": Factor(Channel.CHANGE, 3, "nothing shows that what is named ever existed, so the name is the likelier mistake"),
    "node changed since": Factor(Channel.CHANGE, 10, "pods of this very template were placed there, so it is the node that changed"),
    "no change seen": Factor(Channel.CHANGE, 1 / 2, "most faults follow a change, and none was seen"),
    "previous revision serves": Factor(Channel.CONTRAST, 8, "healthy pods are all of other revisions"),
    "started earlier serves": Factor(Channel.CONTRAST, 6, "pods that started before the edit serve, pods that started after it fail"),
    "works on other nodes": Factor(Channel.CONTRAST, 4, "several pods fail on one node, and the same revision serves on others"),
    "same revision serves": Factor(Channel.CONTRAST, 1 / 8, "pods of the very same revision serve"),
    "same image runs": Factor(Channel.CONTRAST, 1 / 4, "the very same image runs elsewhere"),
    "one node only": Factor(Channel.CONTRAST, 1 / 20, "it fails on one node only, and works on the others"),
    "registry fails elsewhere": Factor(Channel.CONTRAST, 1 / 2, "other images of the same registry fail too"),
    "works elsewhere": Factor(Channel.CONTRAST, 6, "what differs from it in this one point works"),
    "log says so": Factor(Channel.LOG, 8, "the failing program itself reports this mechanism"),
    "metric shows it": Factor(Channel.METRIC, 8, "a series shows the mechanism, in the right window"),
    "metric speaks against it": Factor(Channel.METRIC, 1 / 8, "a series that should move with it does not"),
    "intended": Factor(Channel.CHANGE, 20, "whoever made it says in so many words that it is meant, or announced it"),
    "counterfactual holds": Factor(Channel.CONTRAST, 5, "computed: without just this, there is a place for the pod"),
    "path observed": Factor(Channel.PATH, 6, "the failing one itself names what is broken: in its log, its status or its traffic"),
    "path configured": Factor(Channel.PATH, 3, "a selector, a route or a setting leads from the symptom to what is broken"),
    "path unknown": Factor(Channel.PATH, 1 / 10, "nothing leads from the symptom to what is broken"),
    "log names it": Factor(Channel.LOG, 5, "a log line names what was changed"),
    "log names a dead host": Factor(Channel.LOG, 1 / 20, "a log line names a Service without ready endpoints, which this does not explain"),
}


@dataclass(frozen=True)
class Mark:
    """One factor that applies, with what was seen."""

    factor: str
    seen: tuple[Observation, ...] = ()

    @property
    def ratio(self) -> float:
        return FACTORS[self.factor].ratio


@dataclass(frozen=True)
class Cap:
    """A reason why a grade cannot be better."""

    grade: Grade
    because: str


@dataclass(frozen=True)
class Candidate:
    """Object + category + change, and everything that speaks for or against it.

    `inferred`: links of the chain from faulty field to symptom that nobody saw; `counterfactual`: what the world looks like without
    the fault was computed; `finding`: what it explains, and `explains`: how many pods of the current revision that is. `hits`: titles
    (`Kind/name`) of what it breaks directly: the workloads whose pods fail of it, the Service that leads nowhere. `since`: when it began
    to be broken, as far as the API tells; what is younger than the symptom did not cause it. `weight`: how much of a whole namespace's
    trouble it explains.
    """

    category: Category
    object: str
    statement: str
    summary: str = ""
    change: ChangeRef | None = None
    marks: tuple[Mark, ...] = ()
    inferred: int = 1
    counterfactual: bool = False
    timing: bool = False
    caps: tuple[Cap, ...] = ()
    refuted: str = ""
    finding: Finding | None = None
    explains: int = 0
    hits: tuple[str, ...] = ()
    since: datetime | None = None
    weight: float = 1.0

    @property
    def grade(self) -> Grade:
        """A: every link seen and a counterfactual; B: one link inferred; C: a chain with timing; D: likeness only, or given up."""
        if self.refuted:
            return "D"
        if self.inferred == 0 and self.counterfactual:
            earned: Grade = "A"
        elif self.inferred <= 1:
            earned = "B"
        else:
            earned = "C" if self.timing and self.inferred == 2 else "D"
        return max((earned, *(c.grade for c in self.caps)))

    def score(self, *, text: bool = True) -> float:
        """The product over channels, each clipped; `text=False` leaves out what only log lines say."""
        return math.prod(
            _clipped(math.prod(m.ratio for m in self.marks if FACTORS[m.factor].channel is channel))
            for channel in Channel
            if text or channel is not Channel.LOG
        )

    @property
    def supporting(self) -> tuple[Observation, ...]:
        return tuple(o for m in self.marks if m.ratio > 1 for o in m.seen)

    @property
    def contradicting(self) -> tuple[Observation, ...]:
        return tuple(o for m in self.marks if m.ratio < 1 for o in m.seen)


def _clipped(ratio: float) -> float:
    return min(CLIP, max(1 / CLIP, ratio))


def rank(candidates: Iterable[Candidate], size: int = 0) -> tuple[Candidate, ...]:
    """Standing ones by how well they explain and how much of the symptom (of `size` failing pods), refuted ones last.

    Log lines order only the hypotheses about one object (and can lift Unknown): whoever can write a log line must not be able to point
    the operator at another object.
    """
    every = _distinct(candidates)
    standing = [c for c in every if not c.refuted and c.category not in (Category.UNKNOWN, Category.NO_FAULT)]
    finer = {t for c in standing if c.category is not Category.DEPENDENCY for t in (c.object, *c.hits)}
    best: dict[tuple[int, str], float] = {}
    for c in standing:
        best[_topic(c)] = max(best.get(_topic(c), 0.0), c.score(text=False) * _share(c, size))

    def coarse(c: Candidate) -> bool:
        """`Dependency` is what is said where nothing finer is shown."""
        return c.category is Category.DEPENDENCY and c.object in finer

    standing.sort(key=lambda c: (coarse(c), -best[_topic(c)], c.object, -c.score() * _share(c, size), _ORDER.index(c.category)))
    neutral = [c for c in every if not c.refuted and c.category in (Category.UNKNOWN, Category.NO_FAULT)]
    for c in sorted(neutral, key=lambda c: c.score(), reverse=True):
        at = next((i for i, s in enumerate(standing) if s.score() < c.score() or s.score() == c.score()), len(standing))
        standing.insert(at, c)
    refuted = sorted((c for c in every if c.refuted), key=lambda c: (c.category is not Category.NO_FAULT, -c.score(), c.object))
    return _bounded(standing, refuted)


def _distinct(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """One per object, category and finding, the best grounded; what stands somewhere is not refuted elsewhere."""
    found: dict[tuple[str, Category, int], Candidate] = {}
    for c in candidates:
        key = (c.object, c.category, id(c.finding))
        held = found.get(key)
        if held is None or (bool(held.refuted), -held.score()) > (bool(c.refuted), -c.score()):
            found[key] = c
    standing = {(c.object, c.category) for c in found.values() if not c.refuted}
    return tuple(c for c in found.values() if not c.refuted or (c.object, c.category) not in standing)


def _topic(c: Candidate) -> tuple[int, str]:
    """What a hypothesis is about: one object as the origin of one finding."""
    return (id(c.finding), c.object)


def _share(c: Candidate, size: int) -> float:
    """How much of the symptom it explains: what is no finding about pods explains all that its path reaches."""
    if c.finding is None or size <= 0:
        return c.weight
    return max(0.02, min(1.0, c.explains / size))


def _bounded(standing: list[Candidate], refuted: list[Candidate]) -> tuple[Candidate, ...]:
    """At most eight, among them always Unknown and NoFault."""
    neutral = (Category.UNKNOWN, Category.NO_FAULT)
    while len(standing) + min(len(refuted), 3) > MOST_SHOWN:
        standing.remove(next(c for c in reversed(standing) if c.category not in neutral))
    return (*standing, *refuted)[:MOST_SHOWN]
