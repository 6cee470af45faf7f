"""The symptom: what the target's own state shows, what the signal claims beside that, and whether there is anything to explain."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from ..api.v1alpha1.common import Category
from ..domain.diagnosis import Finding as Kind
from . import telling
from .assess import State, assess
from .claim import Claim
from .evidence import Channel, Observation, measured, safe, seen
from .focus import Focus
from .graph import BARE_KINDS, WORKLOAD_KINDS
from .hypotheses import Candidate
from .read import count, earliest, listed, mapping, objects, word
from .specialists.logs import Sign
from .world import World

_FAILED = State(Kind.UNKNOWN, "EngineFailed", "The engine failed on this data; nothing can be told.")
# Alerts of which the API server itself shows whether they hold: where the state is well, they are over, whatever anybody claims.
_BY_STATE = re.compile(
    r"Kube(Deployment|StatefulSet|DaemonSet|Pod(NotReady|CrashLooping)|ContainerWaiting|Job|Node|Hpa|Quota|Replica)\w*|RolloutStuck"
)
_ORDER = (Kind.FAULT, Kind.UNKNOWN, Kind.PROGRESSING, Kind.NO_FAULT)
_NEUTRAL = (Category.UNKNOWN, Category.NO_FAULT)


@dataclass(frozen=True)
class Symptom:
    """`state` is what is told; `size` the failing pods of the focus; `against` why it is not nothing (empty: NoFault stands).

    `benign`: how NoFault is told; `looks`: whether origins are sought at all; `claimed`: only the signal says that anything is wrong.
    """

    state: State
    onset: datetime | None
    size: int
    seen: tuple[Observation, ...]
    against: str = ""
    benign: str = ""
    looks: bool = True
    claimed: bool = False

    def given(self, candidates: Iterable[Candidate]) -> Symptom:
        """The symptom in the light of what was found broken: a route that leads nowhere is a fault, though every pod is Ready."""
        if self.state.kind not in (Kind.NO_FAULT, Kind.UNKNOWN, Kind.PROGRESSING) or not self.looks:
            return self
        waits = self.state.kind is Kind.PROGRESSING and self.state.reason != "Paused"  # what is paused does not mend itself
        enough = ("A",) if waits else ("A", "B", "C")
        broken = [c for c in candidates if not c.refuted and c.category not in _NEUTRAL and c.grade in enough]
        if not broken:
            return self
        told = max(broken, key=lambda c: c.score())
        against = self.against or safe(told.statement, 900)
        if self.state.kind is Kind.UNKNOWN:
            return replace(self, against=against)
        return replace(self, state=State(Kind.FAULT, "AnomalyFound", told.statement), against=against)


def symptom_of(world: World, focus: Focus) -> Symptom:
    """What there is to explain."""
    states = [world.ask("workload", lambda w=w: assess(world.scene, w, world.case(w).report), _FAILED) for w in focus.workloads]  # type: ignore[misc]
    reports = [world.case(w).report for w in focus.workloads]
    onset = earliest(*(r.onset for r in reports))
    failing = sum(len(r.failing) for r in reports)
    observed = tuple(telling.saw_status(world.case(w)) for w in focus.workloads[:4]) or (saw_target(world, focus),)
    state = _together(states, focus)
    if state is None:
        return _without_workloads(world, focus, observed)
    base = Symptom(state, onset, failing, observed)
    match state.kind:
        case Kind.NO_FAULT:
            return _well(world, focus, base)
        case Kind.PROGRESSING:
            # On its way, unless something is found that waiting will not mend.
            return replace(base, benign=f"Nothing is wrong: {state.words}")
        case _:
            told = f"failing now: {count(failing, 'pod')}" if failing else state.words
            return replace(base, against=told)


def _together(states: list[State], focus: Focus) -> State | None:
    """The gravest of them, telling how many others there are."""
    if not states:
        return None
    gravest = min(states, key=lambda s: _ORDER.index(s.kind) if s.kind in _ORDER else len(_ORDER))
    if len(states) == 1:
        return gravest
    ill = [w.title for w, s in zip(focus.workloads, states, strict=True) if s.kind in (Kind.FAULT, Kind.UNKNOWN)]
    if not ill:
        return gravest
    others = f" ({len(ill)} of {count(len(states), 'workload')} are in trouble: {listed(ill, 4)})" if len(ill) > 1 else ""
    return replace(gravest, words=safe(f"{gravest.words.rstrip('.')}{others}."))


def _well(world: World, focus: Focus, base: Symptom) -> Symptom:
    """Every replica is available. Whether that is all depends on what was claimed."""
    claim = world.claim
    if claim is None:
        return _complaints(world, focus, base)
    what = safe(claim.name, 120)
    if claim.resolved or claim.firing is False:
        why = safe(claim.because, 300) or "its source says that it is over"
        return replace(base, looks=False, benign=f"The signal {what} no longer holds: {why}. {base.state.words}")
    if _BY_STATE.fullmatch(claim.name) and focus.target.kind in (*WORKLOAD_KINDS, *BARE_KINDS):
        words = f"The signal {what} does not hold (any more): {base.state.words}"
        return replace(base, state=replace(base.state, words=safe(words)), looks=False, benign=safe(words))
    if _BY_STATE.fullmatch(claim.name):
        return replace(base, onset=claim.starts_at)  # an autoscaler's, a budget's, a quota's own state: a finder says what is wrong with it
    if (denied := _denied_by_series(world, focus, claim)) is not None:
        words = f"The signal {what} is not borne out: {denied.text}. {base.state.words}"
        calm = replace(base, state=replace(base.state, reason="SignalNotBorneOut", words=safe(words)), benign=safe(words))
        return replace(calm, seen=(*base.seen, denied), looks=False)
    asked = f"Prometheus: {safe(claim.because, 300)}" if claim.because else "nobody could be asked whether it holds now"
    words = f"{base.state.words.rstrip('.')}; the signal {what} says otherwise ({asked})."
    against = f"the signal {what} fires now" if claim.firing else ""
    return replace(base, state=State(Kind.UNKNOWN, "SignalNotConfirmed", safe(words)), against=against, claimed=True, onset=claim.starts_at)


_COMPLAINTS = frozenset(
    {Sign.HOST, Sign.NAME, Sign.CREDENTIALS, Sign.FORBIDDEN, Sign.CERTIFICATE, Sign.POOL, Sign.DISK, Sign.MEMORY, Sign.UPSTREAM}
)


def _complaints(world: World, focus: Focus, base: Symptom) -> Symptom:
    """A human asks, and every replica is available: then what the programs themselves complain of in their logs is worth a look."""
    told = [c for w in focus.workloads[:8] for c in world.clues(w.pods) if c.sign in _COMPLAINTS]
    if not told or focus.whole:
        return base
    first = told[0]
    words = (
        f"{base.state.words.rstrip('.')}; its log says that {first.sign.value}{f' ({safe(first.subject, 120)})' if first.subject else ''}."
    )
    return replace(base, state=State(Kind.UNKNOWN, "LogsComplain", safe(words)), seen=(*base.seen, first.seen), claimed=True)


_ERRORS = re.compile(r"error|5xx|availab|burn|fail")
_LATENCY = re.compile(r"latency|slow|duration|p9[059]")
_NO_ERRORS = 0.001  # of all answers; an SLO of 99.9 % burns at more


def _denied_by_series(world: World, focus: Focus, claim: Claim) -> Observation | None:
    """Series of the service itself that show none of the errors which the signal claims. (Slowness has no such plain measure.)"""
    if claim.firing or not _ERRORS.search(claim.text) or _LATENCY.search(claim.name.lower()):
        return None
    named = {claim.labels.get("service", ""), focus.obj.name, *(w.name for w in focus.workloads)} - {""}
    vector = world.metric("error_ratio_by_service")
    if vector is None or vector.because:
        return None
    mine = [p for p in vector.points if p.labels.get("service") in named]
    if not mine or any(p.value > _NO_ERRORS for p in mine):
        return None
    served = world.metric("requests_by_service")
    if not any(p.value > 0 for p in (served.points if served else ()) if p.labels.get("service") in named):
        return None  # without traffic there is nothing to tell from
    return measured(vector, f"of the answers of {', '.join(sorted(p.labels['service'] for p in mine))} none failed within the last minutes")


def _without_workloads(world: World, focus: Focus, observed: tuple[Observation, ...]) -> Symptom:
    """A Node, a claim, a Service that selects nothing: what is wrong with it, a finder says."""
    claim = world.claim
    onset = claim.starts_at if claim else None
    over = claim is not None and (claim.resolved or claim.firing is False)
    words = f"Nothing is found wrong with {safe(focus.title, 250)}."
    if over:
        assert claim is not None
        words = f"The signal {safe(claim.name, 120)} no longer holds ({safe(claim.because, 300) or 'its source says so'}). {words}"
    if claim is not None and not over and not _BY_STATE.fullmatch(claim.name):
        told = f"{words.rstrip('.')}; the signal {safe(claim.name, 120)} says otherwise."
        against = f"the signal {safe(claim.name, 120)} fires now" if claim.firing else ""
        state = State(Kind.UNKNOWN, "SignalNotConfirmed", told)
        return Symptom(state, onset, 0, observed, against=against, claimed=True)
    return Symptom(State(Kind.NO_FAULT, "NothingWrong", words), onset, 0, observed, benign=words)


def saw_target(world: World, focus: Focus) -> Observation:
    """The target's own conditions."""
    status = mapping(focus.obj.raw.get("status"))
    told = "; ".join(
        f"{word(c.get('type'))}={word(c.get('status'))} {word(c.get('reason'))}: {word(c.get('message'))[:120]}"
        for c in objects(status.get("conditions"))[:6]
    )
    return seen(world.scene.listing(focus.obj.kind), f"{focus.title}: {told or 'no conditions'}", Channel.STATUS)
