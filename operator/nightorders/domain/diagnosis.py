"""What a diagnosis says: typed values that the engine makes and the gates read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from ..api.v1alpha1.common import Category
from ..api.v1alpha1.incident import BlastRadius, Change, Cost, Evidence, Fact, Gap, Guess, Hypothesis, Owner


class Finding(Enum):
    """The kind of answer a diagnosis gives."""

    FAULT = "a fault, with an origin"
    NO_FAULT = "nothing is wrong, or it is over"
    PROGRESSING = "on its way without us"
    TARGET_MISSING = "the target does not exist"
    TARGET_UNKNOWN = "the target could not be looked at, or its kind is not understood"
    UNKNOWN = "something is wrong and its origin cannot be shown"


@dataclass(frozen=True)
class Diagnosis:
    """The whole answer. `hypotheses` are ranked, refuted ones last; all texts are redacted and safe to show.

    `symptom_since` comes from the API's own transition times, never from a signal.
    `terminal_since`: since when a terminal reason (image not found, missing reference, three crashes) has held at the failing
    revision with no pod of it ever Ready; None when that is not so. `failing_revision` is the uid of the ReplicaSet that fails.
    """

    finding: Finding
    reason: str
    message: str
    summary: str
    hypotheses: tuple[Hypothesis, ...] = ()
    facts: tuple[Fact, ...] = ()
    guesses: tuple[Guess, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    unexplained: tuple[Fact, ...] = ()
    gaps: tuple[Gap, ...] = ()
    blast_radius: BlastRadius | None = None
    owners: tuple[Owner, ...] = ()
    changes: tuple[Change, ...] = ()
    symptom_since: datetime | None = None
    terminal_since: datetime | None = None
    failing_revision: str = ""
    cost: Cost | None = None

    @property
    def top(self) -> Hypothesis | None:
        """The first hypothesis that names an origin and still stands."""
        return next(
            (h for h in self.hypotheses if not h.refuted and h.category not in (Category.NO_FAULT, Category.UNKNOWN)),
            None,
        )
