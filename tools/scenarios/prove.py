"""Shows without the operator that a scenario means what it says: healthy, then broken; the repair repairs; the wrong moves do not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tools.scenarios import checks
from tools.scenarios.alerts import Alerts
from tools.scenarios.errors import ScenarioError, StepError
from tools.scenarios.isolation import alone_because
from tools.scenarios.load import Scenario
from tools.scenarios.model import Check, Step
from tools.scenarios.steps import Stage
from tools.scenarios.world import World

READY_SECONDS = 90.0
SYMPTOM_SECONDS = 60.0
REPAIR_SECONDS = 60.0
STAY_SECONDS = 5.0
_MOVES = 3  # of one scenario, side by side


@dataclass
class Finding:
    """The proof of one scenario. `problems` is empty when it holds."""

    id: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Move:
    """One instance of the scenario: broken, then these steps, then `repaired` must hold or must not."""

    name: str
    steps: tuple[Step, ...]
    helps: bool


def prepare(stage: Stage) -> None:
    """The healthy system. Raises StepError when it does not come."""
    document = stage.scenario.document
    for name in document.cluster:
        stage.apply(name, namespaced=False)
    for name in document.behaviour:
        stage.apply(name)
    for name in document.before:
        stage.apply(name)
    if left := checks.wait(stage.kube, document.ready, stage.namespace, READY_SECONDS):
        raise StepError(f"not healthy after {READY_SECONDS:.0f} s: {'; '.join(left)}")


def prove(world: World, scenario: Scenario, alerts: Alerts | None, *, wrong_seconds: float = 20.0) -> Finding:
    """The proof of one scenario, each move in a namespace of its own."""
    begin = time.monotonic()
    finding = Finding(scenario.id)
    proof = scenario.document.proof
    if proof is None:
        finding.problems.append("proof is missing; add symptom, repair and wrong")
        return finding
    if scenario.document.nodes == "real":
        finding.notes.append("not tried: it needs a real kubelet, and the nodes here are simulated")
        return finding
    moves = [Move("repair", proof.repair, helps=True)] if proof.repair else [Move("fault", (), helps=False)]
    moves += [Move(f"wrong.{name}", steps, helps=False) for name, steps in proof.wrong.items()]
    alone = alone_because(scenario)

    def one(number: int) -> tuple[list[str], list[str]]:
        return _move(world, scenario, moves[number], alerts if number == 0 else None, wrong_seconds, fresh=number > 0)

    if alone:
        with world.turn(alone=True):
            results = []
            for number in range(len(moves)):
                results.append(one(number))
                world.restore_nodes()
    else:
        with world.turn(alone=False), ThreadPoolExecutor(_MOVES) as pool:
            results = list(pool.map(one, range(len(moves))))
    for problems, notes in results:
        finding.problems += problems
        finding.notes += notes
    finding.seconds = time.monotonic() - begin
    return finding


def _move(
    world: World, scenario: Scenario, move: Move, alerts: Alerts | None, wrong_seconds: float, *, fresh: bool
) -> tuple[list[str], list[str]]:
    """(problems, notes) of one move."""
    problems: list[str] = []
    notes: list[str] = []
    try:
        with world.place(scenario, fresh=fresh) as stage:
            document = stage.scenario.document
            assert document.proof is not None
            prepare(stage)
            if document.kind == "fault" and document.steps and _all_hold(stage, document.proof.symptom):
                problems.append(f"{move.name}: the symptom holds before the fault; choose one that the healthy system does not show")
            stage.carry_out(document.steps)
            if left := checks.wait(stage.kube, document.proof.symptom, stage.namespace, SYMPTOM_SECONDS):
                problems.append(f"{move.name}: no symptom {SYMPTOM_SECONDS:.0f} s after the fault: {'; '.join(left)}")
                return problems, notes
            if alerts is not None:
                _alert(stage, alerts, problems, notes)
            if fresh is False:
                _series(stage, notes)
            if document.expect.repaired and document.kind == "fault" and _all_hold(stage, document.expect.repaired):
                problems.append(f"{move.name}: every `repaired` line holds while the fault is there; state what the user misses")
                return problems, notes
            stage.carry_out(move.steps)
            if not document.expect.repaired:
                return problems, notes
            begin = time.monotonic()
            repaired = stays(stage, document.expect.repaired, REPAIR_SECONDS if move.helps else wrong_seconds, STAY_SECONDS)
            took = time.monotonic() - begin - STAY_SECONDS
            if move.helps and not repaired:
                left = checks.failing(stage.kube, document.expect.repaired, stage.namespace)
                problems.append(f"{move.name}: not repaired {REPAIR_SECONDS:.0f} s after it: {'; '.join(left) or 'it did not stay'}")
            elif not move.helps and repaired and move.steps:
                problems.append(
                    f"{move.name}: repairs the fault after {took:.0f} s, so it is not wrong; key the behaviour to the faulty field"
                )
    except (StepError, ScenarioError) as problem:
        problems.append(f"{move.name}: {problem}")
    return problems, notes


def stays(stage: Stage, wanted: tuple[Check, ...], within: float, stay: float) -> bool:
    """Whether all checks come true within so many seconds and then stay true for `stay`."""
    end = time.monotonic() + within
    since: float | None = None
    while True:
        now = time.monotonic()
        if checks.failing(stage.kube, wanted, stage.namespace):
            since = None
            if now > end:
                return False
        else:
            since = since or now
            if now - since >= stay:
                return True
        time.sleep(0.5)


def _all_hold(stage: Stage, wanted: tuple[Check, ...]) -> bool:
    return not checks.failing(stage.kube, wanted, stage.namespace)


def _alert(stage: Stage, alerts: Alerts, problems: list[str], notes: list[str]) -> None:
    """The alert's own expression must hold when the signal is posted, but in a trap."""
    labels = {key: stage.expanded(value) for key, value in stage.scenario.document.signal.labels.items()}
    said = alerts.holds(labels, seconds=15.0)
    if said.known and not said.holds and stage.scenario.document.kind == "fault":
        problems.append(
            f"the alert {labels['alertname']} would not fire: {said.text}; choose the alert that the fault raises, or it is a trap"
        )
    else:
        notes.append(said.text)


def _series(stage: Stage, notes: list[str]) -> None:
    """What each scripted series would show while the fault is there; a case that cannot be asked raises StepError."""
    for series in stage.scenario.document.metrics:
        value = next((c.value for c in series.cases if c.when is None or checks.ask(stage.kube, c.when, stage.namespace).holds), None)
        notes.append(f"{series.series} {'+' if series.type == 'counter' else '='}{'nothing' if value is None else f'{value:g}'}")


def prove_all(
    world: World, scenarios: list[Scenario], alerts: Alerts | None, tell: Callable[[Finding], None], *, wrong_seconds: float, jobs: int
) -> bool:
    """Proves scenarios, `jobs` at a time and those that must be alone at the end; True when all hold."""
    alone = {scenario.id for scenario in scenarios if alone_because(scenario)}
    lock = threading.Lock()

    def one(scenario: Scenario) -> bool:
        finding = prove(world, scenario, alerts, wrong_seconds=wrong_seconds)
        with lock:
            tell(finding)
        return not finding.problems

    with ThreadPoolExecutor(jobs) as pool:
        good = list(pool.map(one, (s for s in scenarios if s.id not in alone)))
    return all([*good, *(one(s) for s in scenarios if s.id in alone)])


def default_directory() -> Path:
    """Where this repository keeps its own scenarios."""
    return Path(__file__).resolve().parents[2] / "scenarios" / "open"
