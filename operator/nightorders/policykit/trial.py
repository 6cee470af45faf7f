"""Policy tests: a case becomes a Situation, the very judgement of the operator is made, and held against what was expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..api.crdgen import structural
from ..api.meta import TAKE_PREFIX, ObjectMeta, parse_duration
from ..api.v1alpha1.clusterpolicy import ClusterRemediationPolicy
from ..api.v1alpha1.incident import Autonomy, Incident, IncidentStatus, Pause
from ..api.v1alpha1.ledger import Ledger, LedgerSpec, Outcome, Rejection, Reservation, WorkloadRecord
from ..api.v1alpha1.policy import RemediationPolicy
from ..domain import approval, breaker, standing, whatif
from ..domain.autonomy import frozen_by, own_labels
from ..domain.digest import sha256
from ..domain.gates import DisruptionBudget, Rollout, Stop
from ..domain.judgement import Judgement, judge
from ..domain.orders import Governing, Orders
from ..domain.ownership import Owner
from ..domain.plan import Proposal
from ..domain.situation import BudgetAnswer, Operator, Proof, Situation
from ..domain.snapshot import KubeObject
from .cases import GATES, REASONS, Case, Expect, TestFile
from .files import BadInputError, Problem, Source, bad, documents, dotted, files_of
from .policies import MODELS, Loaded, load, of_object, twice
from .schema import checked, close

NOON = datetime(2026, 1, 14, 10, 0, tzinfo=UTC)
OPERATOR = Operator("system:serviceaccount:nightorders-system:nightorders", "nightorders-system")
Json = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """A case as it stands in its file, with the policies that hold for it."""

    case: Case
    policies: tuple[Loaded, ...]
    source: Source = field(repr=False)

    @property
    def at(self) -> datetime:
        return self.case.at or NOON


@dataclass(frozen=True)
class Difference:
    """One expectation that did not come true. `because` is what the operator would say."""

    what: str
    expected: str
    got: str
    because: str
    line: int


@dataclass(frozen=True)
class Result:
    """What came out of a case."""

    trial: Trial
    judgement: Judgement = field(repr=False)
    outcome: str
    differences: tuple[Difference, ...]
    touched: frozenset[str] = frozenset()

    @property
    def ok(self) -> bool:
        return not self.differences


# ------------------------------------------------------------ reading


@cache
def file_schema() -> Json:
    """The format of a test file as a structural schema."""
    raw = TestFile.model_json_schema(by_alias=True)
    return structural({k: v for k, v in raw.items() if k != "$defs"}, raw.get("$defs", {}), defaults=True)


def read(path: Path, shown: str) -> list[Trial]:
    """Every case of a file or of all test files below a directory. Raises BadInputError with every problem."""
    found: list[Trial] = []
    problems: list[Problem] = []
    for file, name in files_of(path, shown):
        try:
            for document in documents(file, name):
                found += _of_file(document.value, document.source, file)
        except BadInputError as error:
            problems += error.problems
    if problems:
        raise BadInputError(problems)
    if not found:
        raise bad(shown, "holds no test files", "a test file has a list `cases:`; see docs/reference/policy-test.md")
    return found


def _of_file(value: Any, source: Source, file: Path) -> list[Trial]:
    if not isinstance(value, dict):
        raise bad(source.file, "is neither a policy nor a test file", "a test file has a list `cases:`", source.line())
    if "cases" not in value and "apiVersion" in value and "kind" in value:
        return []  # an object of Kubernetes; tests name the policies that they mean
    if "cases" not in value:
        near = close("cases", value) if value else ""
        raise bad(source.file, f"has no list `cases:`{near}", "a test file has one; see docs/reference/policy-test.md", source.line())
    _, problems = checked(file_schema(), value, source)
    if problems:
        raise BadInputError([_with_case(p, value) for p in problems])
    return list(_trials(value, source, file))


def _with_case(problem: Problem, value: Json) -> Problem:
    """Says the case's name instead of its number."""
    if not problem.where.startswith("cases["):
        return problem
    number, _, rest = problem.where.removeprefix("cases[").partition("]")
    name = value["cases"][int(number)].get("name", "") if isinstance(value["cases"][int(number)], dict) else ""
    return Problem(problem.file, problem.line, rest.lstrip("."), problem.message, problem.fix, str(name) or number)


def _trials(value: Json, source: Source, file: Path) -> Iterator[Trial]:
    problems: list[Problem] = []
    names: dict[str, int] = {}
    defaults = value.get("defaults") or {}
    shared = value.get("policies") or defaults.get("policies") or []
    base = ("policies",) if value.get("policies") else ("defaults", "policies")
    cached: dict[str, list[Loaded]] = {}
    for i, raw in enumerate(value["cases"]):
        here = source.below("cases", i)
        merged = merge({k: v for k, v in defaults.items() if k not in ("policies", "morePolicies")}, raw)
        try:
            case = Case.model_validate(_pruned(merged))
        except ValidationError as error:
            for e in error.errors(include_input=False, include_url=False, include_context=False):
                at = tuple(s for s in e["loc"] if isinstance(s, str | int))
                problems.append(Problem(source.file, here.line(at), dotted(at), e["msg"], "", str(raw.get("name", i))))
            continue
        problems += _impossible(case, here)
        if names.setdefault(case.name, i) != i:
            problems.append(
                Problem(
                    source.file, here.line(("name",)), "name", f"{case.name!r} is the name of another case, too", "rename one", case.name
                )
            )
        try:
            own = [(p, here.below("policies", n)) for n, p in enumerate(raw.get("policies") or [])]
            given = own or [(p, source.below(*base, n)) for n, p in enumerate(shared)]
            given += [(p, here.below("morePolicies", n)) for n, p in enumerate(raw.get("morePolicies") or [])]
            yield Trial(case, _policies(given, file, case.name, cached), here)
        except BadInputError as error:
            problems += [p for p in error.problems if p not in problems]
    if problems:
        raise BadInputError(problems)


def _policies(given: Sequence[tuple[Any, Source]], file: Path, case: str, cached: dict[str, list[Loaded]]) -> tuple[Loaded, ...]:
    found: list[Loaded] = []
    for entry, source in given:
        match entry:
            case str():
                if entry not in cached:
                    try:
                        cached[entry] = load([(file.parent / entry, str(Path(source.file).parent / entry))])
                    except BadInputError as error:
                        if any("no such file" in p.message for p in error.problems):
                            fix = "paths are seen from the directory of the test file"
                            raise bad(source.file, f"there is no {entry}", fix, source.line(), "policies") from None
                        raise
                found += cached[entry]
            case dict() if entry.get("kind") in MODELS:
                found.append(of_object(entry, source, case))
            case _:
                raise bad(source.file, "is neither a path nor a policy", f"kind is one of {', '.join(MODELS)}", source.line(), "policies")
    if problems := list(twice(found)):
        raise BadInputError(problems)
    return tuple(found)


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> Json:
    """`over` on `under`: mappings are merged, everything else is replaced."""
    made = dict(under)
    for key, value in over.items():
        old = made.get(key)
        made[key] = merge(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return made


def _pruned(value: Any) -> Any:
    """Without nulls, as the API server reads them."""
    if isinstance(value, dict):
        return {k: _pruned(v) for k, v in value.items() if v is not None}
    return [_pruned(v) for v in value] if isinstance(value, list) else value


def _impossible(case: Case, source: Source) -> Iterator[Problem]:
    """What the schema cannot say."""

    def wrong(at: tuple[str, ...], message: str, fix: str) -> Problem:
        return Problem(source.file, source.line(at), dotted(at), message, fix, case.name)

    e = case.expect
    if e == Expect():
        yield wrong(("expect",), "expects nothing", "say at least one thing, such as level: L3")
    for gate, reason in (e.gates or {}).items():
        if gate not in GATES:
            yield wrong(("expect", "gates", gate), "there is no such gate", f"known: {', '.join(GATES)}{close(gate, GATES)}")
        elif reason not in REASONS:
            yield wrong(("expect", "gates", gate), f"{reason!r} is no reason", f"write Passed, or a reason{close(reason, REASONS)}")
    if e.verdict is not None and e.verdict not in REASONS:
        yield wrong(("expect", "verdict"), f"{e.verdict!r} is no reason", f"write Passed, or a reason{close(e.verdict, REASONS)}")
    if case.incident.requested_by and case.incident.opened_by == "operator":
        yield wrong(("incident", "requestedBy"), "nobody asked for an Incident that the operator opened", "add openedBy: human")


# ------------------------------------------------------------ a case becomes a Situation


def situation(trial: Trial) -> tuple[Situation, KubeObject, Proposal]:
    """The pass that the case describes."""
    c, now = trial.case, trial.at
    w, i, r = c.workload, c.incident, c.risk
    target = whatif.workload(w.name, w.kind, w.namespace, w.labels, w.annotations, w.replicas)
    looked = whatif.diagnosis(
        target,
        now,
        grade=None if i.grade == "None" else i.grade,
        category=i.category,
        origin=i.origin or "",
        gaps=i.gaps,
        source="Logs" if i.logs_only else "Kubernetes",
    )
    offered = whatif.proposal(
        target,
        pods_at_risk=r.healthy_pods,
        workload_pods=w.replicas,
        at_once=r.at_once,
        scaled_by=f"HorizontalPodAutoscaler/{r.autoscaler}" if r.autoscaler else "",
        undo=r.undo,
        at_most=r.at_most,
        preflight=r.preflight,
    )
    if w.changed:
        target = whatif.workload(w.name, w.kind, w.namespace, w.labels, w.annotations, w.replicas, note="changed since")
    place = KubeObject({"metadata": {"name": w.namespace, "annotations": dict(w.namespace_annotations)}}, "Namespace", "v1")
    orders = Orders(
        policies=tuple(p.policy for p in trial.policies if _here(p, w.namespace) and isinstance(p.policy, RemediationPolicy)),
        cluster=tuple(p.policy for p in trial.policies if isinstance(p.policy, ClusterRemediationPolicy)),
    )
    s = Situation(
        operator=OPERATOR,
        incident=_incident(trial, target),
        target=target,
        orders=orders,
        namespace_object=place,
        ledger=_ledger(trial, target),
        fleet=_fleet(trial),
        stop=_stop(c.stop, w.namespace),
        guard=Proof(c.guard == "Proven", "" if c.guard == "Proven" else "the test says so"),
        schemas=Proof(c.schemas == "Current", "" if c.schemas == "Current" else "the test says so"),
        unknown=c.unreadable,
        owner=_owner(c),
        looked_at=now - parse_duration(i.evidence_age),
        neighbours=i.others,
        changed_at=now - parse_duration(i.human_change) if i.human_change else None,
        namespace_pods=None if r.uncounted else r.namespace_pods,
        fleet_workloads=None if r.uncounted else c.fleet.workloads,
        disruption_budgets=tuple(DisruptionBudget(b.name, b.allowed) for b in r.disruption_budgets),
    )
    rollout = Rollout(
        under_way=c.rollout.under_way,
        past_deadline=c.rollout.past_deadline,
        own_change=c.rollout.own_fault,
        terminal_since=now - parse_duration(c.rollout.terminal_for),
        progress="as the test says",
    )
    s = whatif.faulty(s, target, looked, offered, now, rollout)
    return whatif.asked_for_budget(s, target, offered, _budget(c)), target, offered


def _here(loaded: Loaded, namespace: str) -> bool:
    return loaded.policy.metadata.namespace in ("", namespace)


def _budget(c: Case) -> BudgetAnswer:
    if c.risk.error_budget_unanswered:
        return BudgetAnswer(None, 0.0, "the test says so")
    return BudgetAnswer(float(c.risk.error_budget_left), 0.0)


def _incident(trial: Trial, target: KubeObject) -> Incident:
    i = trial.case.incident
    notes = {**i.annotations, **({f"{TAKE_PREFIX}somebody": i.taken} if i.taken else {})}
    made = whatif.incident(target, trial.case.workload.namespace, trial.at, notes)
    human = {"signal": None, "requested_by": i.requested_by} if i.opened_by == "human" else {}
    status = IncidentStatus()
    if i.detected_level is not None:
        status = IncidentStatus(autonomy=Autonomy(level=i.detected_level, detected_level=i.detected_level))
    spec = made.spec.model_copy(update={**human, "suspend": i.suspend})
    return made.model_copy(update={"spec": spec, "status": status})


def _ledger(trial: Trial, target: KubeObject) -> Ledger | None:
    book, now = trial.case.ledger, trial.at
    if book.state != "Kept":
        return None
    namespace, action = trial.case.workload.namespace, trial.case.action
    other = f"{target.kind}/other"
    outcomes = []
    for n, o in enumerate(book.outcomes):
        last = now - parse_duration(o.ago)
        for k in range(o.times):
            at = last - k * parse_duration(o.every)
            outcomes.append(
                Outcome(
                    execution=f"no-{n}-{k}",
                    action=action,
                    namespace=namespace,
                    workload=o.workload or other,
                    at=at - timedelta(minutes=1),
                    ended_at=at,
                    result=o.result,
                    confirmed=o.confirmed,
                )
            )
    spec = LedgerSpec(
        outcomes=tuple(sorted(outcomes, key=lambda o: o.ended_at)),
        rejections=tuple(
            Rejection(plan=sha256(str(n)), action=action, workload=r.workload or target.title, by=r.by, at=now - parse_duration(r.ago))
            for n, r in enumerate(book.rejections)
        ),
        reservations=tuple(
            _slot(f"no-run-{n}", trial, r.workload or other, namespace, parse_duration(r.ago)) for n, r in enumerate(book.running)
        ),
        workloads=()
        if book.labels_before is None
        else (WorkloadRecord(uid=target.uid, workload=target.title, labels=own_labels(book.labels_before)),),
    )
    return Ledger(kind="Ledger", metadata=ObjectMeta(name="ledger", namespace=namespace), spec=spec)


def _slot(execution: str, trial: Trial, workload: str, namespace: str, ago: timedelta) -> Reservation:
    return Reservation(
        execution=execution,
        action=trial.case.action,
        namespace=namespace,
        incident="other",
        incident_uid="other",
        workload=workload,
        at=trial.at - ago,
    )


def _fleet(trial: Trial) -> Ledger:
    f, here = trial.case.fleet, trial.case.workload.namespace
    minute = timedelta(minutes=1)
    running = [("elsewhere", f.running), (here, f.running_here)]
    begun = [("elsewhere", f.last_hour), (here, f.last_hour_here)]
    spec = LedgerSpec(
        reservations=tuple(
            _slot(f"no-fleet-{ns}-{n}"[:63].rstrip("-."), trial, f"Deployment/other-{n}", ns, minute)
            for ns, many in running
            for n in range(many)
        ),
        outcomes=tuple(
            Outcome(
                execution=f"no-past-{k}-{n}",
                action=trial.case.action,
                namespace=ns,
                workload="Deployment/other",
                at=trial.at - 30 * minute,
                ended_at=trial.at - 20 * minute,
                result="Recovered",
            )
            for k, (ns, many) in enumerate(begun)
            for n in range(many)
        ),
        namespaces=(here,) if trial.case.ledger.state != "New" else (),
        cluster_policies=f.cluster_policies_seen,
    )
    return Ledger(kind="Ledger", metadata=ObjectMeta(name="fleet", namespace=OPERATOR.namespace), spec=spec)


def _stop(said: str, namespace: str) -> Stop:
    match said:
        case "Namespace":
            return Stop(where=namespace)
        case "Everything":
            return Stop(where=OPERATOR.namespace)
        case "Unknown":
            return Stop(unknown="the test says so")
        case _:
            return Stop()


def _owner(c: Case) -> Owner | None:
    o = c.git_ops
    if o is None:
        return None
    pause = Pause(api_version="argoproj.io/v1alpha1", kind="Application", namespace="argocd", name="application", hold_seconds=0)
    return Owner(o.who, pause if o.can_pause else None, o.confirmed, o.governs, "" if o.can_pause else "the test says so")


# ------------------------------------------------------------ the judgement, held against what was expected


def run(trial: Trial) -> Result:
    """One case."""
    now, c = trial.at, trial.case
    s, target, offered = situation(trial)
    top = s.diagnosis.top if s.diagnosis else None
    j = judge(s, target, top, offered, None, now)
    if c.incident.staged_level is not None and isinstance(j.governing, Governing):
        plan = whatif.staged(s, offered, j.governing, j, now).model_copy(update={"staged_level": c.incident.staged_level})
        s = whatif.with_plan(s, plan)
        j = judge(s, target, top, offered, plan, now)
    answers = [whatif.Answer(a.by, now - parse_duration(a.ago), a.emergency, a.because) for a in c.incident.approvals]
    given = approval.Rejected(c.incident.rejected_by, "") if c.incident.rejected_by else whatif.approved(s, offered, j, answers, now)
    word = whatif.outcome(j.verdict, j.level.level, given)
    facts = _Facts(s, target, offered, j, given, word, now, c)
    return Result(trial, j, word, tuple(facts.differences(c.expect, trial.source)), frozenset(_touched(s, target, offered, j, now)))


@dataclass(frozen=True)
class _Facts:
    s: Situation
    target: KubeObject
    offered: Proposal
    j: Judgement
    answer: approval.Answer | None
    outcome: str
    now: datetime
    case: Case

    def differences(self, e: Expect, source: Source) -> Iterator[Difference]:
        def differs(what: str, expected: object, got: object, because: str, *at: str) -> Iterator[Difference]:
            if expected is not None and expected != got:
                yield Difference(what, _shown(expected), _shown(got), because, source.line(("expect", *(at or (what,)))))

        j = self.j
        low = "; ".join(f"{s.who} says {s.level}{f' ({s.because})' if s.because else ''}" for s in whatif.deciders(j))
        yield from differs("level", e.level, j.level.level, low)
        yield from self._speakers(e, source)
        for gate, reason in (e.gates or {}).items():
            result = next(r for r in j.results if r.gate == gate)
            yield from differs(f"gate {gate}", reason, result.reason, result.message, "gates", gate)
        why = f"{j.verdict.message}; {low}"
        yield from differs("verdict", e.verdict, j.verdict.reason.value, why)
        yield from differs("outcome", e.outcome, self.outcome, why)
        would = whatif.outcome(j.otherwise, j.level.level, self.answer)
        yield from differs("shadowWould", e.shadow_would, would if j.shadow else "(not in Shadow)", j.otherwise.message)
        yield from self._needs(e, source)
        kind = type(self.answer).__name__ if self.answer else "(no rule governs)"
        yield from differs("approval", e.approval, kind, self._missing())
        if e.emergency_would_pass is not None:
            passes = whatif.emergency_would_pass(self.s, self.offered, j, self.now)
            yield from differs("emergencyWouldPass", e.emergency_would_pass, passes, why)
        for name, wanted, score in (("trust", e.trust, j.level.trust), ("risk", e.risk, j.level.risk)):
            parts = "; ".join(f"{p.because} ({p.points})" for p in (score.components if score else ()))
            yield from differs(name, wanted, score.value if score else None, parts or "nothing speaks against it")
        yield from differs("breaker", e.breaker, *self._breaker())
        yield from differs("earned", e.earned, *self._earned())

    def _speakers(self, e: Expect, source: Source) -> Iterator[Difference]:
        spoken = self.j.level.decided_by
        names = ", ".join(f"{s.who} {s.level}" for s in spoken)
        if e.decided_by is not None:
            who = [s.who for s in whatif.deciders(self.j)]
            if not any(e.decided_by.casefold() in w.casefold() for w in who):
                yield Difference(
                    "decidedBy", e.decided_by, " and ".join(who), f"all who speak: {names}", source.line(("expect", "decidedBy"))
                )
        for name, level in (e.speakers or {}).items():
            levels = [s.level for s in spoken if name.casefold() in s.who.casefold()]
            if level not in levels:
                got = ", ".join(levels) or "(does not speak)"
                yield Difference(f"speaker {name}", level, got, f"all who speak: {names}", source.line(("expect", "speakers", name)))

    def _needs(self, e: Expect, source: Source) -> Iterator[Difference]:
        if e.needs is None:
            return
        got = self.j.needs.wire()
        wanted = e.needs.wire()
        if (lasts := wanted.pop("expiresAfter", None)) is not None:
            wanted["expiresSeconds"] = int(parse_duration(str(lasts)).total_seconds())
        for key, value in wanted.items():
            if got[key] != value:
                line = source.line(("expect", "needs", "expiresAfter" if key == "expiresSeconds" else key))
                yield Difference(f"needs {key}", _shown(value), _shown(got[key]), "the rule's wishes within the platform's bounds", line)

    def _missing(self) -> str:
        match self.answer:
            case approval.Waiting(missing, needed, counted):
                return f"{missing} of {needed} missing; counted: {', '.join(counted) or 'nobody'}"
            case approval.Approved(by):
                return f"counted: {', '.join(by)}"
            case _:
                return ""

    def _breaker(self) -> tuple[str, str]:
        found = self.j.governing
        if not isinstance(found, Governing):
            return "(no rule governs)", found.message
        b = breaker.state(found.policy.spec.breaker, self.s.ledger, self.case.action, self.target.kind, self.now)
        return b.state, b.because or f"{b.failures} failures within {found.policy.spec.breaker.within}"

    def _earned(self) -> tuple[str, str]:
        found = self.j.governing
        if not isinstance(found, Governing) or found.rule.earn is None:
            return "(no earn)", "the rule has none"
        s = standing.earned(found.rule.earn, found.rule.level, self.s.ledger, self.case.action, self.target.kind)
        return s.level, f"{s.successes} of {s.needed} successes; {s.because}"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# ------------------------------------------------------------ coverage


def _touched(s: Situation, target: KubeObject, offered: Proposal, j: Judgement, now: datetime) -> Iterator[str]:
    """What of the orders spoke in that case."""
    namespace, action = s.incident.metadata.namespace, offered.action
    governing = j.governing if isinstance(j.governing, Governing) else None
    labels = own_labels(target.labels)
    for p in s.orders.policies:
        if p.spec.selector.matches(labels):  # two that govern nothing together were touched as well
            yield from (Governing(p, r).title for r in p.spec.rules if action in r.types and r.selector.matches(labels))
    for who, _ in frozen_by(s.orders, governing, namespace, action, now):
        yield who
    for c in s.orders.over(namespace):
        who = f"ClusterRemediationPolicy/{c.metadata.name}"
        yield from (f"{who} ceiling {x.name}" for x in c.spec.ceilings if not x.types or action in x.types)
        yield from (
            f"{who} protected {p.name}"
            for p in c.spec.protected
            if (not p.kinds or target.kind in p.kinds) and p.selector.matches(target.labels)
        )
    yield from (f"ClusterRemediationPolicy/{c.metadata.name} tier {t.name}" for c, t in s.orders.tiers_of(namespace, target.labels))


def untouched(results: Sequence[Result]) -> list[tuple[str, Source]]:
    """Rules, freezes, ceilings, tiers and protected entries of the policies that no case touches, with where they stand."""
    touched = frozenset().union(*(r.touched for r in results))
    found: dict[str, Source] = {}
    for loaded in {p.source.file + p.title: p for r in results for p in r.trial.policies}.values():
        for title, at in _parts(loaded):
            if title not in touched:
                found.setdefault(title, loaded.source.below(*at))
    return sorted(found.items())


def _parts(loaded: Loaded) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    p = loaded.policy
    who = f"{p.kind}/{p.metadata.name}"
    yield from ((f"{who} freeze {f.name}", ("spec", "freezes", i)) for i, f in enumerate(p.spec.freezes))
    match p:
        case RemediationPolicy():
            yield from ((f"{who} rule {r.name}", ("spec", "rules", i)) for i, r in enumerate(p.spec.rules))
        case ClusterRemediationPolicy():
            yield from ((f"{who} ceiling {x.name}", ("spec", "ceilings", i)) for i, x in enumerate(p.spec.ceilings))
            yield from ((f"{who} protected {x.name}", ("spec", "protected", i)) for i, x in enumerate(p.spec.protected))
            yield from ((f"{who} tier {x.name}", ("spec", "tiers", i)) for i, x in enumerate(p.spec.tiers))
