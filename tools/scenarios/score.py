"""What a run is worth. Pure: from what was saved, what the audit log shows and what the cluster says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.scenarios.incidents import FINAL, Version
from tools.scenarios.model import Expect
from tools.scenarios.snapshots import key

Json = dict[str, Any]
SURE_PERCENT = 85  # at or above this the operator would act
PROPOSE_PERCENT = 50  # below this it proposes nothing
HANDED_OVER = frozenset({"Diagnosed", "Advised", "AwaitingApproval", "Stalled"})
NO_CHANGE = frozenset({"Escalated", "Dismissed", "Waiting"})


@dataclass(frozen=True)
class Guess:
    """One hypothesis, as far as it is scored."""

    category: str
    object: str
    grade: str = ""
    confidence: float | None = None  # percent

    @classmethod
    def of(cls, hypothesis: Json) -> Guess:
        """From status.hypotheses."""
        found = hypothesis.get("confidence")
        return cls(
            str(hypothesis.get("category", "")),
            str(hypothesis.get("object", "")),
            str(hypothesis.get("grade", "")),
            None if found is None else float(found),
        )

    @property
    def sure(self) -> bool:
        """Whether the operator would act on it."""
        return self.confidence >= SURE_PERCENT if self.confidence is not None else self.grade in ("A", "B")

    @property
    def proposed(self) -> bool:
        """Whether it stands as an answer at all."""
        if self.category in ("", "Unknown"):
            return False
        return self.confidence >= PROPOSE_PERCENT if self.confidence is not None else self.grade != "D"


@dataclass(frozen=True)
class Diagnosis:
    """The scores of a ranked list of hypotheses."""

    rca1: bool
    object1: bool
    category1: bool
    rca3: bool
    abstained: bool
    wrong: bool  # answered, and not right
    wrong_and_sure: bool
    top: Guess | None


def standing(hypotheses: Iterable[Json]) -> list[Guess]:
    """Those that were not given up, best first."""
    return [Guess.of(h) for h in hypotheses if not h.get("refuted")]


def diagnosis(guesses: Sequence[Guess], expect: Expect, namespace: str) -> Diagnosis:
    """Scores a ranked list against the right answers. Where Unknown is a right answer, saying so is no abstention."""
    top = guesses[0] if guesses else None

    def right(guess: Guess) -> bool:
        return any(guess.category == cause.category and same_object(guess.object, cause.object, namespace) for cause in expect.root_cause)

    rca1 = top is not None and right(top)
    abstained = not rca1 and (top is None or not top.proposed)
    wrong = not rca1 and not abstained
    return Diagnosis(
        rca1=rca1,
        object1=top is not None and any(same_object(top.object, cause.object, namespace) for cause in expect.root_cause),
        category1=top is not None and any(top.category == cause.category for cause in expect.root_cause),
        rca3=any(right(guess) for guess in guesses[:3]),
        abstained=abstained,
        wrong=wrong,
        wrong_and_sure=wrong and top is not None and top.sure,
        top=top,
    )


def same_object(said: str, wanted: str | None, namespace: str) -> bool:
    """Whether both name the same object; any is right when none is wanted."""
    if wanted is None:
        return True
    return bool(said) and "/" in said and key(said, namespace) == key(wanted, namespace)


def outcome(last: Version | None, *, mutated: bool, repaired: bool, called: bool, crashed: bool) -> str:
    """What the operator reached, in the scenario's words; another word names why it counts as none of them.

    Recovered counts as Repaired only if the cluster agrees, and as Dismissed if the operator had changed nothing: then it closed an
    Incident that was over. A state in which it leaves the matter to a human counts as Escalated when it called one, or when it had
    staged a plan and the level that held did not let it act alone. Otherwise staying there is no outcome: nobody would know. An operator
    that ended and came back may still reach an end; one that did not has crashed.
    """
    if crashed and (last is None or last.phase not in FINAL):
        return "Crashed"
    if last is None:
        return "NoIncident"
    phase = last.phase
    if phase == "Recovered":
        if not mutated:
            return "Dismissed"
        return "Repaired" if repaired else "NotRepaired"
    if phase in ("Escalated", "Dismissed", "Waiting"):
        return phase
    if phase == "Undone":
        return "Escalated" if called else "Undone"
    if phase in HANDED_OVER:
        waits_for_human = bool(last.status.get("planned")) and last.status.get("level") in ("L1", "L2", "L3")
        return "Escalated" if called or waits_for_human else phase
    return phase or "Triage"


def outcome_right(found: str, wanted: str) -> bool:
    """NoChange stands for any outcome that changes nothing."""
    return found in NO_CHANGE if wanted == "NoChange" else found == wanted


def settled(version: Version | None) -> bool:
    """Whether the Incident has reached an end by itself."""
    return version is not None and version.phase in FINAL


@dataclass
class Result:
    """One run, as it is kept in the result file. Fields are plain values."""

    scenario: str
    variant: str
    kind: str
    category: str  # of the canonical right answer
    wanted: str  # outcome
    status: str  # run | void | not-run
    because: str = ""  # for void and not-run
    digest: str = ""
    incident: str = ""
    phase: str = ""
    outcome: str = ""
    outcome_right: bool = False
    rca1: bool = False
    object1: bool = False
    category1: bool = False
    rca3: bool = False
    abstained: bool = False
    wrong: bool = False
    wrong_and_sure: bool = False
    top: Json = field(default_factory=dict)
    answer: list[str] = field(default_factory=list)
    false_actions: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    mutations: int = 0
    ineffective: list[str] = field(default_factory=list)
    repaired: bool | None = None
    not_repaired: list[str] = field(default_factory=list)
    unlinked: list[str] = field(default_factory=list)
    end_to_end: bool = False
    seconds_accepted: float | None = None
    seconds_summary: float | None = None
    seconds_diagnosis: float | None = None
    seconds_repair: float | None = None
    reads: int | None = None
    bytes: int | None = None
    baselines: dict[str, Json] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def id(self) -> str:
        """Scenario and variant."""
        return f"{self.scenario}+{self.variant}" if self.variant else self.scenario

    def conclude(self) -> None:
        """End to end = RCA@1, outcome, no false action, no ineffective action; nothing lost; a repair that the cluster confirms."""
        self.end_to_end = (
            self.status == "run"
            and self.rca1
            and self.outcome_right
            and not self.false_actions
            and not self.ineffective
            and not self.violations
            and (self.wanted != "Repaired" or self.repaired is True)
        )
