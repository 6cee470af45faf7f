"""What is measured. Every function leaves the cluster so that the next one can use it, and gives its figures."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nightorders.api.meta import APPROVE_PREFIX, FLEET_LEDGER_NAME, LEDGER_NAME
from tests.benchmarks import chain
from tests.benchmarks.arena import (
    APPROVAL,
    APPROVER,
    APPS,
    COPY,
    MERGE,
    OURS,
    USERNAME,
    Arena,
    Operator,
    Pass,
    Request,
    finalizer_write,
    read,
    state_reads,
    status_write,
)
from tests.benchmarks.figures import Figure, against, milliseconds
from tests.benchmarks.floor import GROUP
from tests.benchmarks.observer import Json
from tests.cluster.scene import BAD, GOOD, Scene, policy, until
from tools.operator_process import NAMESPACE

# Longer than snapshots are shared between Incidents (5 s); two of them are longer than idle connections are kept (15 s).
PAUSE = 8.5
SETTLE = 3.0
NOT_STORED = ", nothing is stored)"


@dataclass(frozen=True)
class Extent:
    """How much is measured. `pods`: sizes of the workloads."""

    repeats: int
    pods: tuple[int, ...]
    idle_seconds: float

    @property
    def nodes(self) -> int:
        """A simulated node takes 110 pods."""
        return max(3, max(self.pods) // 90 + 1)


@contextmanager
def operator(arena: Arena, *, detect: bool, environment: dict[str, str] | None = None) -> Iterator[Operator]:
    """One that leads and is ready."""
    running = Operator(arena.cluster, detect=detect, environment=environment).start()
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


# ---------------------------------------------------------------- commit → summary, and what a diagnosis costs


def diagnoses(arena: Arena, extent: Extent) -> Iterator[Figure]:
    """At each size: time from an Incident's commit to its summary, against the floor; requests, bytes, memory."""
    for pods in extent.pods:
        with operator(arena, detect=False) as first:
            scene = arena.broken(f"pods-{pods}", pods)
            saved = warm_up(arena, first, scene.namespace)
        # A fresh process, so that one size does not remember the peak of another.
        with operator(arena, detect=False) as running:
            yield from diagnoses_of(arena, running, scene.namespace, pods, saved, extent.repeats)
            if pods == min(extent.pods):
                yield from staged(arena, running, pods, saved, extent.repeats)
        scene.kubectl("scale", "deployment/checkout", "--replicas=0")
        until(lambda: not arena.admin.get(f"/api/v1/namespaces/{scene.namespace}/pods?resourceVersion=0")["items"], "no pods", 180)  # noqa: B023


def warm_up(arena: Arena, running: Operator, namespace: str) -> Json:
    """The Incident as the operator saves it: the floor writes the same bytes. Its reads must be the floor's."""
    time.sleep(PAUSE)
    _, made = one_diagnosis(arena, running, namespace, "warm-up")
    (saved,) = [s.object for s in arena.incidents.all(namespace, "warm-up") if s.object.get("status", {}).get("summary")][:1]
    ours = {
        r["path"].replace(OURS, COPY) if "/incidents/" in r["path"] or "/ledgers/" in r["path"] else r["path"]
        for r in made.requests
        if r["method"] == "GET"
    }
    theirs = {path.partition("?")[0] for _, path, _, _ in state_reads(namespace, "warm-up")}
    if missing := ours - theirs:
        print(f"  beyond the floor's reads in {namespace}: {', '.join(sorted(missing))}")
    if more := theirs - ours:
        raise RuntimeError(f"the floor reads what the operator does not need: {', '.join(sorted(more))}")
    return saved


def one_diagnosis(arena: Arena, running: Operator, namespace: str, name: str) -> tuple[float, Pass]:
    """Seconds from commit to summary, and the pass. The Incident is gone afterwards."""
    for attempt in range(3):
        begin = arena.open_incident(namespace, f"{name}-{attempt}" if attempt else name)
        name = f"{name}-{attempt}" if attempt else name
        seconds = arena.summarised(arena.incidents, namespace, name, begin).at - begin
        made = running.pass_that_ended(f"{namespace}/{name}", begin)
        arena.delete_incident(namespace, name)
        if any(r["cached"] for r in made.requests):
            return seconds, made
        time.sleep(PAUSE)  # it could use the lists of a look at the namespace a moment before: that is not what is asked here
    raise RuntimeError(f"no diagnosis in {namespace} made its own lists")


def one_floor(arena: Arena, namespace: str, name: str, saved: Json) -> float:
    """The same for the bare client, which was idle as long as the operator was."""
    time.sleep(PAUSE)
    arena.floor.plan(name, "created", [state_reads(namespace, name), [status_write(saved, namespace, name)]])
    begin = arena.open_copy(namespace, name)
    seconds = arena.summarised(arena.copies, namespace, name, begin).at - begin
    arena.floor.done(name)
    return seconds


def diagnoses_of(arena: Arena, running: Operator, namespace: str, pods: int, saved: Json, repeats: int) -> Iterator[Figure]:
    """One size, operator and floor in turn."""
    time.sleep(PAUSE)
    at_rest = running.memory("VmRSS")
    took, floor, passes, peaks = [], [], [], []
    for number in range(repeats):
        time.sleep(PAUSE)
        running.forget_peak()
        seconds, made = one_diagnosis(arena, running, namespace, f"o-{number}")
        took.append(seconds)
        passes.append(made)
        peaks.append(running.memory("VmHWM"))
        floor.append(one_floor(arena, namespace, f"f-{number}", saved))
    size = f"{pods:,} pods"
    yield milliseconds("summary", f"{size}: commit → summary saved", took)
    yield milliseconds("summary", f"{size}: floor", floor)
    yield against("summary", f"{size}: ratio", took, floor, 2.0)
    yield milliseconds("summary", f"{size}: CPU of the pass", [p.cpu for p in passes])
    yield Figure("diagnosis", f"{size}: requests until the summary is saved", "", tuple(float(len(until_saved(p))) for p in passes))
    yield Figure("diagnosis", f"{size}: bytes received", "KiB", tuple(sum(r["bytes"] for r in until_saved(p)) / 1024 for p in passes))
    yield Figure("diagnosis", f"{size}: peak memory of the process", "MiB", tuple(peaks))
    yield Figure("diagnosis", f"{size}: memory before the first", "MiB", (at_rest,))


def until_saved(made: Pass) -> list[Json]:
    """The requests of a pass up to the write of the status."""
    (saved,) = [r["end"] for r in made.requests if r["method"] in ("PUT", "PATCH") and r["path"].endswith("/status")][:1]
    return [r for r in made.requests if r["end"] <= saved]


def staged(arena: Arena, running: Operator, pods: int, saved: Json, repeats: int) -> Iterator[Figure]:
    """Where a policy says L3, the first write holds the staged plan too, so a dry run comes before it."""
    scene = arena.broken("staged", pods, policy("L3"))
    time.sleep(PAUSE)
    took, floor = [], []
    for number in range(repeats):
        time.sleep(PAUSE)
        seconds, made = one_diagnosis(arena, running, scene.namespace, f"o-{number}")
        assert any(r["dry"] for r in made.requests), "a plan is staged"
        took.append(seconds)
        floor.append(one_floor(arena, scene.namespace, f"l3-{number}", saved))
    yield milliseconds("summary", f"{pods} pods, L3: commit → summary and staged plan saved", took)
    yield against("summary", f"{pods} pods, L3: ratio to the floor without a plan", took, floor, None)
    scene.kubectl("scale", "deployment/checkout", "--replicas=0")


# ---------------------------------------------------------------- approval → target patched


@dataclass(frozen=True)
class Approved:
    """One approval of the operator: times (monotonic), and what the floors copy from it."""

    seconds: float
    phases: Json
    incident: Json
    reserved: Json
    guard: tuple[Json, ...]


def approvals(arena: Arena, extent: Extent) -> Iterator[Figure]:
    """From a committed approval to the Deployment's new spec, against three floors."""
    with operator(arena, detect=False) as running:
        bench = Bench(arena, arena.broken("approve-floor", 10))
        times: dict[str, list[float]] = {}
        phases: dict[str, list[float]] = {}
        for number in range(extent.repeats):
            one = approved(arena, running, f"approve-{number}")
            times.setdefault("operator", []).append(one.seconds)
            for phase, seconds in one.phases.items():
                phases.setdefault(phase, []).append(seconds)
            floors = list(bench.floors(one, number).items())
            for name, rounds in floors[number % 3 :] + floors[: number % 3]:
                times.setdefault(name, []).append(bench.run(f"{name}-{number}", rounds))
    took = times.pop("operator")
    yield milliseconds("approval", "approval committed → Deployment patched", took)
    for name, label, target in (
        ("one", "floor A: watch, reads side by side, one write", None),
        ("durable", "floor B: A and the 4 durable writes before the patch", None),
        ("full", "floor C: B, the proof of the guard and the second look", 1.5),
    ):
        yield milliseconds("approval", label, times[name])
        yield against("approval", f"ratio to {label.partition(':')[0]}", took, times[name], target)
    for phase, seconds in phases.items():
        yield milliseconds("approval", f"of this: {phase}", seconds)


def approved(arena: Arena, running: Operator, namespace: str) -> Approved:
    """One Incident at L3, approved by a person after a while, as people do."""
    arena.broken(namespace, 10, policy("L3"))
    time.sleep(PAUSE)
    arena.open_incident(namespace, "one")
    arena.condition(namespace, "one", "Approved", {"Waiting"})
    time.sleep(PAUSE)
    digest = arena.admin.get(f"{OURS}/namespaces/{namespace}/incidents/one")["status"]["plan"]["digest"]
    note = {"metadata": {"annotations": {f"{APPROVE_PREFIX}one": f"{digest}|{APPROVER}"}}}
    path = f"{OURS}/namespaces/{namespace}/incidents/one"
    begin = arena.committed(arena.incidents, arena.approver, "PATCH", path, note, APPROVE_PREFIX, namespace)
    patched = arena.patched(namespace, begin)
    arena.condition(namespace, "one", "Closed", {"Recovered"})
    time.sleep(SETTLE)
    passes = [p for p in running.passes(f"{namespace}/one") if p.end >= begin]
    acting = [p for p in passes if p.begin <= patched]
    sent = next(r for p in acting for r in p.requests if r["method"] == "PATCH" and "/deployments/" in r["path"] and not r["dry"])
    reserving = next(p for p in acting if any("/ledgers" in r["path"] and r["method"] != "GET" for r in p.requests))
    reserved = [e["requestObject"] for e in arena.audited() if saves(e, namespace, "Reserved")]
    return Approved(
        patched - begin,
        phases(begin, reserving, sent, patched),
        arena.admin.get(path),
        reserved[0],
        tuple(r for r in reserving.requests if "admissionregistration" in r["path"] or r["dry"]),
    )


def saves(entry: Json, namespace: str, state: str) -> bool:
    """Whether that request of the audit log saved an execution in that state."""
    ref, body = entry["objectRef"], entry.get("requestObject") or {}
    executions = (body.get("status") or {}).get("executions") or []
    return ref.get("namespace") == namespace and ref.get("subresource") == "status" and any(e.get("state") == state for e in executions)


def phases(begin: float, reserving: Pass, sent: Json, patched: float) -> Json:
    """Where the time of an approval went."""
    writes = [r for r in reserving.requests if r["method"] in ("POST", "PUT", "PATCH") and not r["dry"] and "/events" not in r["path"]]
    last = max(r["end"] for r in writes)
    first = min(r["begin"] for r in writes)
    return {
        "watch, reads, guard, decision until the first durable write": first - begin,
        "the durable writes (2 Ledgers, finalizer, Incident)": last - first,
        "Event, second look, decision": sent["begin"] - last,
        "the patch itself": patched - sent["begin"],
    }


# ---------------------------------------------------------------- failed verification → undone

NEVER_PASSES = {"for": "4s", "every": "1s", "checks": [{"name": "never", "condition": "Impossible"}], "onNoData": "Undo"}


def undone(arena: Arena, extent: Extent) -> Iterator[Figure]:
    """From the begin of the pass that takes the last, failing samples to the Deployment being as it was, against the same requests."""
    with operator(arena, detect=False) as running:
        bench = Bench(arena, arena.broken("undo-floor", 10))
        took, floor = [], []
        for number in range(extent.repeats):
            seconds, status = undone_once(arena, running, f"undo-{number}")
            took.append(seconds)
            floor.append(bench.run(f"undo-{number}", bench.undoing(status, f"undo-{number}")))
    yield milliseconds("undo", "failing samples begin → Deployment as it was before", took)
    yield milliseconds("undo", "floor: the samples' reads side by side, the verdict saved, the exact reads, the patch", floor)
    yield against("undo", "ratio", took, floor, 1.5)


def undone_once(arena: Arena, running: Operator, namespace: str) -> tuple[float, Json]:
    """Seconds, and the Incident as it was saved with the verdict."""
    arena.broken(namespace, 10, policy("L3", verify=NEVER_PASSES))
    arena.open_incident(namespace, "one")
    waiting = arena.condition(namespace, "one", "Approved", {"Waiting"})
    note = {"metadata": {"annotations": {f"{APPROVE_PREFIX}one": f"{waiting.object['status']['plan']['digest']}|{APPROVER}"}}}
    path = f"{OURS}/namespaces/{namespace}/incidents/one"
    begin = arena.committed(arena.incidents, arena.approver, "PATCH", path, note, APPROVE_PREFIX, namespace)
    applied = arena.patched(namespace, begin)
    back = arena.patched(namespace, applied, BAD)
    arena.condition(namespace, "one", "Closed", {"Undone"})
    time.sleep(SETTLE)
    passes = [p for p in running.passes(f"{namespace}/one") if p.begin > applied]
    undoing = next(p for p in passes if any(r["method"] == "PATCH" and "/deployments/" in r["path"] for r in p.requests))
    concluding = [p for p in passes if p.begin < undoing.begin and any(r["method"] == "PUT" for r in p.requests)]
    saved = [e["requestObject"] for e in arena.audited() if saves(e, namespace, "Undoing")]
    return back - concluding[-1].begin, saved[0]


def judged(arena: Arena, extent: Extent) -> Iterator[Figure]:
    """CPU time of one judgement, with few and with as many remembered outcomes as a Ledger takes."""
    for outcomes in (10, 500):
        for timing in chain.measure(200 * extent.repeats, outcomes):
            yield Figure("chain", f"{outcomes} remembered outcomes: {timing.what}", "µs", (timing.least, timing.median, timing.p95))


class Bench:
    """The floor's own Deployment and books."""

    def __init__(self, arena: Arena, scene: Scene) -> None:
        self._arena = arena
        self.namespace = scene.namespace
        sets = arena.admin.get(f"{APPS}/namespaces/{self.namespace}/replicasets")["items"]
        images = {s["metadata"]["name"]: s["spec"]["template"]["spec"]["containers"][0]["image"] for s in sets}
        self._good = next(name for name, image in images.items() if image == GOOD)
        for namespace, name in ((self.namespace, LEDGER_NAME), (NAMESPACE, FLEET_LEDGER_NAME)):
            body = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "Ledger", "metadata": {"name": name}, "spec": {}}
            if not arena.cluster_has(f"{COPY}/namespaces/{namespace}/ledgers", name):  # the fleet's is there since the first measurement
                arena.admin.post(f"{COPY}/namespaces/{namespace}/ledgers", body)

    def floors(self, one: Approved, number: int) -> dict[str, list[list[Request]]]:
        """The rounds of each floor."""
        reads: dict[str, list[Request]] = {}
        for name in ("one", "durable", "full"):
            copy = f"{name}-{number}"
            reads[name] = [*state_reads(self.namespace, copy), read(f"{APPS}/namespaces/{self.namespace}/replicasets/{self._good}")]
        patch = [["PATCH", f"{APPS}/namespaces/{self.namespace}/deployments/checkout?fieldValidation=Strict", image(GOOD), MERGE]]
        guard = [read(r["path"]) for r in one.guard if r["method"] == "GET"]
        guard += [self._attack(one, user) for user, _ in zip((USERNAME, "somebody"), [r for r in one.guard if r["dry"]], strict=False)]
        exact = [r for r in reads["full"] if "resourceVersion=0" not in r[1]]
        return {
            "one": [reads["one"], patch],
            "durable": [reads["durable"], *self._durable(one, f"durable-{number}"), patch],
            "full": [reads["full"] + guard, *self._durable(one, f"full-{number}"), exact, patch],
        }

    def undoing(self, saved: Json, copy: str) -> list[list[Request]]:
        """The rounds of an undo: samples, verdict, exact reads, patch."""
        reads = [*state_reads(self.namespace, copy), read(f"{APPS}/namespaces/{self.namespace}/replicasets/{self._good}")]
        patch = [["PATCH", f"{APPS}/namespaces/{self.namespace}/deployments/checkout?fieldValidation=Strict", image(GOOD), MERGE]]
        exact = [r for r in reads if "resourceVersion=0" not in r[1]]
        return [reads, [status_write(saved, self.namespace, copy)], exact, patch]

    def _attack(self, one: Approved, user: str) -> Request:
        metadata = one.incident["metadata"]
        digest = one.incident["status"]["plan"]["digest"]
        path = f"{OURS}/namespaces/{metadata['namespace']}/incidents/{metadata['name']}?dryRun=All&fieldValidation=Strict"
        return ["PATCH", path, {"metadata": {"annotations": {f"{APPROVE_PREFIX}guard-probe": f"{digest}|{user}"}}}, MERGE]

    def _durable(self, one: Approved, copy: str) -> list[list[Request]]:
        """Fleet Ledger, namespace Ledger, finalizer, Incident: as large as the operator's, and never the same twice."""
        slot = {
            "execution": copy,
            "action": "RollbackWorkload",
            "namespace": self.namespace,
            "incident": copy,
            "incidentUid": one.incident["metadata"]["uid"],
            "workload": "Deployment/checkout",
            "at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }
        books = [f"{COPY}/namespaces/{NAMESPACE}/ledgers/{FLEET_LEDGER_NAME}", f"{COPY}/namespaces/{self.namespace}/ledgers/{LEDGER_NAME}"]
        taken: list[list[Request]] = [
            [["PATCH", f"{path}?fieldValidation=Strict", {"spec": {"reservations": [slot]}}, MERGE]] for path in books
        ]
        return [*taken, [finalizer_write(self.namespace, copy)], [status_write(one.reserved, self.namespace, copy)]]

    def run(self, copy: str, rounds: list[list[Request]]) -> float:
        """Seconds from the approval of the copy to the Deployment's new spec."""
        arena, target = self._arena, f"{APPS}/namespaces/{self.namespace}/deployments/checkout"
        arena.write(arena.admin, "PATCH", target, image(BAD))
        arena.failing(Scene(arena.cluster, self.namespace), 10)
        arena.open_copy(self.namespace, copy)
        time.sleep(SETTLE)
        arena.floor.plan(copy, "approved", rounds)
        note = {"metadata": {"annotations": {APPROVAL: "yes"}}}
        path = f"{COPY}/namespaces/{self.namespace}/incidents/{copy}"
        begin = arena.committed(arena.copies, arena.admin, "PATCH", path, note, APPROVAL, self.namespace)
        seconds = arena.patched(self.namespace, begin) - begin
        arena.floor.done(copy)
        time.sleep(SETTLE)
        return seconds


def image(name: str) -> Json:
    """The patch that asks for that image."""
    return {"spec": {"template": {"spec": {"containers": [{"name": "checkout", "image": name}]}}}}


# ---------------------------------------------------------------- writes per Incident


def writes(arena: Arena, extent: Extent) -> tuple[list[Figure], Json]:
    """Every write of the operator from the Incident's creation to its end, by level; the audit log does not show Events, the trace does."""
    with operator(arena, detect=True, environment={"NIGHTORDERS_DETECT_AFTER_SECONDS": "2"}) as running:
        counts = {level: [written(arena, running, level, n) for n in range(min(5, extent.repeats))] for level in ("L1", "L3", "L4")}
    figures = [
        Figure(
            "writes",
            f"{level}: writes that are stored",
            "",
            tuple(float(sum(c[k] for k in c if not k.endswith(NOT_STORED))) for c in found),
        )
        for level, found in counts.items()
    ]
    by_kind: dict[str, Any] = {}
    for level, found in counts.items():
        kinds = sorted({kind for c in found for kind in c})
        by_kind[level] = {kind: [c[kind] for c in found] for kind in kinds}
    return figures, by_kind


def written(arena: Arena, running: Operator, level: str, number: int) -> Counter[str]:
    """The writes of one Incident."""
    namespace = f"writes-{level.lower()}-{number}"
    begin = time.monotonic()
    arena.broken(namespace, 4, policy(level))
    opened = arena.incidents.wait(f"an Incident in {namespace}", lambda s: s.namespace == namespace)
    if level == "L1":
        arena.condition(namespace, opened.name, "Planned", {"ReadOnly"})
        arena.write(arena.admin, "PATCH", f"{APPS}/namespaces/{namespace}/deployments/checkout", image(GOOD))
    if level == "L3":
        waiting = arena.condition(namespace, opened.name, "Approved", {"Waiting"})
        note = {"metadata": {"annotations": {f"{APPROVE_PREFIX}one": f"{waiting.object['status']['plan']['digest']}|{APPROVER}"}}}
        arena.write(arena.approver, "PATCH", f"{OURS}/namespaces/{namespace}/incidents/{opened.name}", note)
    arena.condition(namespace, opened.name, "Closed", {"Recovered", "RecoveredByItself"})
    time.sleep(SETTLE)
    return Counter(audited_writes(arena, namespace)) + Counter(traced_events(running, namespace, begin))


def audited_writes(arena: Arena, namespace: str) -> Iterator[str]:
    """`verb resource` of each write from the creation of the Incident on; what stores nothing says so."""
    created = ""
    for entry in arena.audited():
        ref = entry.get("objectRef", {})
        if entry["verb"] not in ("create", "update", "patch", "delete"):
            continue
        if ref.get("namespace") == namespace and ref["resource"] == "incidents" and entry["verb"] == "create":
            created = entry["requestReceivedTimestamp"]
        fleet = ref.get("namespace") == NAMESPACE and ref.get("name") == FLEET_LEDGER_NAME
        if not created or not (ref.get("namespace") == namespace or fleet):
            continue
        resource = "/".join(filter(None, (ref["resource"], ref.get("subresource", "")))) + (" (fleet)" if fleet else "")
        code = entry["responseStatus"]["code"]
        how = f" (refused {code}{NOT_STORED}" if code >= 300 else f" (dry run{NOT_STORED}" if "dryRun=All" in entry["requestURI"] else ""
        yield f"{entry['verb']} {resource}{how}"


def traced_events(running: Operator, namespace: str, begin: float) -> Iterator[str]:
    """Events, which the audit policy leaves out."""
    for row in map(json.loads, running.trace.read_text().splitlines()):
        if row.get("path", "").startswith(f"/api/v1/namespaces/{namespace}/events") and row["method"] != "GET" and row["begin"] >= begin:
            yield f"{'create' if row['method'] == 'POST' else 'patch'} events"


# ---------------------------------------------------------------- doing nothing


def idle(arena: Arena, extent: Extent) -> Iterator[Figure]:
    """CPU with healthy workloads and no open Incident."""
    with operator(arena, detect=True) as running:
        time.sleep(20)
        used = []
        for _ in range(extent.repeats):
            before, begin = running.cpu_seconds(), time.monotonic()
            time.sleep(extent.idle_seconds)
            used.append(100 * (running.cpu_seconds() - before) / (time.monotonic() - begin))
        yield Figure("idle", f"CPU over {extent.idle_seconds:.0f} s, no open Incident", "% of a core", tuple(used))
        yield Figure("idle", "memory", "MiB", (running.memory("VmRSS"),))


__all__ = ["Extent", "approvals", "diagnoses", "idle", "writes"]
