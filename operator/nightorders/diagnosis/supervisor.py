"""The supervisor: lets each specialist look, has the origins ranked, and puts the answer together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from ..api.v1alpha1.common import Category, ObjectRef
from ..api.v1alpha1.incident import BlastRadius, Change, Gap, Owner
from ..api.v1alpha1.ledger import HealthyRevision
from ..domain.diagnosis import Diagnosis
from ..domain.diagnosis import Finding as Kind
from ..domain.snapshot import Absent, KubeObject, NotLooked, Snapshot
from . import telling
from .answer import Answer, compose
from .assess import State, assess
from .case import CORE_KINDS, Case
from .changes import history
from .evidence import Believed, Channel, Known, Observation, safe
from .findings import TERMINAL, CrashFinding, Finding, Trouble
from .graph import Graph, build
from .hypotheses import Candidate, Cap, Mark, rank
from .origins import origins
from .origins.crash import dead_dependency
from .read import clock, count, earliest, listed
from .scene import Scene, Workload
from .specialists import changes, logs, topology
from .specialists.logs import LogReport
from .specialists.workload import WorkloadReport, examine

STALE_AFTER = timedelta(minutes=2)
NEUTRAL = (Category.UNKNOWN, Category.NO_FAULT)
_SUPPORTED = "Deployments (apps/v1)"
_FAILED = State(Kind.UNKNOWN, "EngineFailed", "The engine failed on this data; nothing can be told.")
_NO_CANDIDATES: tuple[Candidate, ...] = ()
_NO_OWNERS: tuple[Owner, ...] = ()
_NO_CHANGES: tuple[Change, ...] = ()
_NO_GUESSES: tuple[Believed, ...] = ()
_NO_FACTS: tuple[Known, ...] = ()
T = TypeVar("T")


def diagnose(snapshot: Snapshot, target: ObjectRef, healthy: tuple[HealthyRevision, ...], now: datetime) -> Diagnosis:
    """The whole answer about one target."""
    scene = Scene(snapshot, now)
    title = safe(target.title, 250)
    if target.kind != "Deployment" or not target.api_version.startswith("apps/"):
        message = safe(f"{title} ({target.api_version}): this release diagnoses {_SUPPORTED} only. Ask about the Deployment behind it.")
        return Diagnosis(Kind.TARGET_UNKNOWN, "KindNotSupported", message, message)
    match snapshot.find(target.kind, target.name):
        case Absent() as absent:
            return _missing_target(scene, absent, title)
        case NotLooked() as unread:
            message = safe(f"{title} could not be looked at: {unread.because}")
            gap = telling.gap("Deployment objects", unread.because, unread.fix)
            return Diagnosis(Kind.TARGET_UNKNOWN, "TargetNotRead", message, message, gaps=(gap,))
        case KubeObject() as obj:
            return _Examination(scene, scene.workload(obj), healthy).answer()


def _missing_target(scene: Scene, absent: Absent, title: str) -> Diagnosis:
    """The alert's object is gone or misnamed; names that are there are told, none is picked."""
    names = sorted(o.name for o in scene.all("Deployment"))
    words = safe(f"{title} does not exist in namespace {scene.snapshot.namespace}; Deployments there: {listed(names, 8) or 'none'}.")
    fact = Known(words, (Observation(Channel.STATUS, "Kubernetes", safe(absent.query), absent.at, words),))
    return compose(Answer(Kind.TARGET_MISSING, "TargetAbsent", words, words, facts=(fact,)))


class _Examination:
    """One diagnosis of one Deployment. A specialist that fails leaves a gap and an empty report, and never blocks the rest."""

    def __init__(self, scene: Scene, workload: Workload, healthy: tuple[HealthyRevision, ...]) -> None:
        self._scene = scene
        self._workload = workload
        self._gaps: list[Gap] = list(telling.listing_gaps(scene))
        self._logs: dict[int, LogReport] = {}
        report = self._ask("workload", lambda: examine(scene, workload), WorkloadReport((), frozenset(), (), None, None))
        graph = self._ask("topology", lambda: build(scene), Graph())
        current = [f.onset for f in report.findings if f.revision is workload.current and f.trouble is not Trouble.STARTING]
        past = history(workload, healthy, earliest(*current), report.serving)
        self._case = Case(scene, workload, report, past, graph, tuple(_caps(scene, workload)), self._read_logs)

    def _ask(self, name: str, question: Callable[[], T], otherwise: T) -> T:
        try:
            return question()
        except Exception as error:  # noqa: BLE001  one specialist's mistake over hostile data must not cost the others' answers
            self._gaps.append(telling.gap(f"the {name} specialist", f"it failed: {type(error).__name__}"))
            return otherwise

    def _read_logs(self, finding: Finding) -> LogReport:
        """The logs of a finding, read once."""
        if id(finding) not in self._logs:
            read = partial(logs.read_logs, self._scene.snapshot.logs, finding)
            self._logs[id(finding)] = self._ask("logs", read, LogReport((), False, ()))
        return self._logs[id(finding)]

    def answer(self) -> Diagnosis:
        """State first; origins only where pods of the wished template fail."""
        report = self._case.report
        state = self._ask("workload", lambda: assess(self._scene, self._workload, report), _FAILED)
        if state.kind is not Kind.FAULT:
            return self._compose(state, self._rank(state, ()), ())
        troubles = [f for f in report.findings if f.trouble in TERMINAL]
        candidates = [c for f in troubles for c in self._ask("workload", partial(origins, self._case, f), _NO_CANDIDATES)]
        ranked = self._rank(state, candidates)
        first = next((c for c in ranked if not c.refuted), None)
        if first is None or first.category in NEUTRAL:
            state = replace(state, kind=Kind.UNKNOWN, reason="OriginNotShown", words=self._untold(state, first))
        return self._compose(state, ranked, candidates)

    def _untold(self, state: State, first: Candidate | None) -> str:
        """What is told when no origin is shown: the symptom, and the best lead."""
        lead = first.statement if first is not None and first.object.startswith("Node/") else ""
        for title, _ in self._dead():
            lead = f"Its log names {title}, which has no ready endpoint."
        return safe(f"{state.words} {lead or 'Its origin is not shown.'}")

    def _dead(self) -> Iterator[tuple[str, Observation]]:
        for f in self._case.report.findings:
            if isinstance(f, CrashFinding) and (dead := dead_dependency(self._case, f)):
                yield dead

    def _rank(self, state: State, candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
        return rank((*candidates, self._nothing(state), self._something(state)))

    def _nothing(self, state: State) -> Candidate:
        """NoFault: it stands when every replica is available, and is refuted by whatever is not."""
        failing, refuted = self._case.report.failing, ""
        if state.kind is not Kind.NO_FAULT:
            refuted = f"failing now: {count(len(failing), 'pod')}" if failing else state.words
        mark = Mark("pods fail" if refuted else "nothing fails", (telling.saw_status(self._case),))
        return Candidate(
            Category.NO_FAULT,
            self._workload.title,
            "Nothing is wrong, or it is over.",
            marks=(mark,),
            inferred=0,
            counterfactual=True,
            caps=self._case.caps,
            refuted=safe(refuted, 900),
        )

    def _something(self, state: State) -> Candidate:
        """Unknown: something that nobody named. A dead dependency speaks for it, since no category of this release is that."""
        marks = tuple(Mark("dependency without endpoints", (line,)) for _, line in self._dead())[:1]
        told = "" if state.kind is Kind.FAULT else f": {state.words}"
        refuted = state.words if state.kind is Kind.NO_FAULT else ""
        statement = safe(f"An origin that the evidence does not show{told or '.'}")
        return Candidate(Category.UNKNOWN, self._workload.title, statement, marks=marks, inferred=3, refuted=safe(refuted, 900))

    def _compose(self, state: State, ranked: tuple[Candidate, ...], candidates: Iterable[Candidate]) -> Diagnosis:
        case, ill = self._case, state.kind in (Kind.FAULT, Kind.UNKNOWN)
        top = next((c for c in ranked if not c.refuted), None) if state.kind is Kind.FAULT else None
        answer = Answer(
            kind=state.kind,
            reason="OriginShown" if top else state.reason,
            message=(top.summary or top.statement) if top else state.words,
            grade=_grade(top) if top else "",
            summary=(top.summary or top.statement) if top else state.words,
            ranked=ranked,
            facts=self._ask("workload", lambda: tuple(telling.facts(case, state)), _NO_FACTS),
            guesses=self._ask("logs", lambda: tuple(telling.guesses(case)), _NO_GUESSES),
            unexplained=tuple(telling.unexplained(case, top, candidates)),
            blast_radius=self._ask("topology", lambda: topology.blast_radius(self._scene, case.graph, self._workload), BlastRadius()),
            owners=self._ask("topology", lambda: topology.owners(self._workload), _NO_OWNERS),
            changes=self._ask("changes", lambda: changes.recent(self._scene, case.history, case.report.onset), _NO_CHANGES),
            symptom_since=case.report.onset if ill else None,
            terminal_since=case.report.terminal_since if ill else None,
            failing_revision=self._failing_revision() if ill else "",
        )
        gaps = (*telling.evidence_gaps(case), *self._gaps)
        return compose(replace(answer, gaps=gaps))

    def _failing_revision(self) -> str:
        current = self._workload.current
        failing = any(f.revision is current and f.trouble in TERMINAL for f in self._case.report.findings)
        return current.uid if current is not None and failing and self._workload.sets_known else ""


def _caps(scene: Scene, workload: Workload) -> Iterator[Cap]:
    """What was not looked at could refute anything: it caps every hypothesis, and the gaps say what would lift it."""
    missing = [k for k in CORE_KINDS if not scene.looked(k)]
    if missing:
        yield Cap("B", f"{listed(missing, 4)} objects were not looked at and could refute it")
    if scene.now - scene.snapshot.at > STALE_AFTER:
        yield Cap("B", f"the snapshot was taken {clock(scene.snapshot.at)} and is stale")
    if workload.duplicate_numbers:
        yield Cap("C", "two ReplicaSets claim the same revision number, so the order of releases is not known")


def _grade(top: Candidate) -> str:
    """The grade, and what keeps it from being better."""
    return f"grade {top.grade}" + next((f", not better because {c.because}" for c in top.caps if c.grade == top.grade), "")
