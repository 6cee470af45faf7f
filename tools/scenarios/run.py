"""Runs scenarios with the real operator, several at a time, and scores each from outside."""

from __future__ import annotations

import datetime
import itertools
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tools.cluster import KubectlError
from tools.cluster.prometheus import Prometheus, ScriptedMetrics
from tools.cluster.rest import ApiError
from tools.operator_process import NAMESPACE, OperatorProcess, free_port
from tools.scenarios import audit, baselines, checks, logs, orders, prove, score, signals, snapshots
from tools.scenarios.alerts import RULES, RuleAlerts
from tools.scenarios.background import Background
from tools.scenarios.errors import RunnerError, ScenarioError, StepError
from tools.scenarios.incidents import FINAL, Incidents, Story, Version
from tools.scenarios.isolation import alone_because
from tools.scenarios.load import Scenario
from tools.scenarios.metrics import Script
from tools.scenarios.model import Signal
from tools.scenarios.score import Result
from tools.scenarios.snapshots import Snapshot
from tools.scenarios.steps import Stage
from tools.scenarios.variants import Variant
from tools.scenarios.world import World, observed, started

Json = dict[str, Any]
_POLL_SECONDS = 0.5
_LINGER_SECONDS = 4.0  # after an end: whatever the operator does as it closes an Incident
_OPERATOR_SECONDS = 90.0


@dataclass(frozen=True)
class Options:
    """How long things may take, in seconds, and what surrounds a run."""

    jobs: int = 3
    seed: int = 1
    background: bool = True
    detect: bool = False  # the operator's own watch on rollouts: off, so that what is measured begins with the alert
    healthy: float = 6.0  # how long the healthy system is left alone before the fault
    quiet: float = 25.0  # an Incident that says the same for so long has said what it has to say
    deadline: float = 240.0  # from the alert to an outcome
    settle: float = 60.0  # repaired at the latest so long after the last action
    hold: float = 15.0  # and still after this
    verify: float | None = 12.0  # None: the API's default
    stalled_after: float | None = 2.0
    call_after: float = 10.0

    def windows(self) -> orders.Windows:
        """The part that goes into the orders."""
        return orders.Windows(self.verify, self.stalled_after, self.call_after)

    def shortened(self) -> list[str]:
        """What is shorter than the page says, for the head of the table."""
        found = self.windows().shortened()
        if self.hold < 120:
            found.append(f"repaired must hold for {self.hold:g} s (120 s)")
        if self.settle < 60:
            found.append(f"repaired within {self.settle:g} s of the last action (60 s)")
        return found


@dataclass
class Arena:
    """Everything that runs share."""

    world: World
    installed: orders.Installed
    operator: Operator
    webhook: signals.Webhook
    pager: signals.Pager
    incidents: Incidents
    audit: audit.Log
    exporter: ScriptedMetrics
    prometheus: Prometheus
    options: Options
    over: threading.Event = field(default_factory=threading.Event)  # somebody interrupted the table


class Operator:
    """The operator's process; started again when it ends, since other runs go on, and each one's crash is counted."""

    def __init__(self, make: Callable[[], OperatorProcess]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._process = make().start().wait_ready(_OPERATOR_SECONDS)
        self._closed = False
        self.crashes = 0
        self.last_words = ""

    def close(self) -> None:
        """From now on it is not started again."""
        self._closed = True

    def check(self) -> int:
        """How often it crashed until now; it runs when this returns."""
        with self._lock:
            process = self._process.process
            if not self._closed and process is not None and process.poll() is not None:
                self.crashes += 1
                self.last_words = self._process.tail(20)
                self._process.stop()
                try:
                    self._process = self._make().start().wait_ready(_OPERATOR_SECONDS)
                except (RuntimeError, TimeoutError) as problem:
                    raise RunnerError(f"the operator does not start again: {problem}") from None
            return self.crashes

    def tail(self, lines: int) -> str:
        """The end of its log."""
        return self._process.tail(lines)

    def stop(self) -> None:
        """Ends it."""
        self._process.stop()


@contextmanager
def arena(options: Options, progress: Callable[[str], None]) -> Iterator[Arena]:
    """A world with the operator in it, its metrics, its alerts and its pager. Raises RunnerError."""
    with ExitStack() as stack:
        world = stack.enter_context(started(progress))
        installed = orders.Installed(world)
        background = Background(world, options.seed)
        if options.background:
            background.start()
        exporter = stack.enter_context(ScriptedMetrics())
        prometheus = stack.enter_context(observed(world, [exporter.address], progress))
        pager = stack.enter_context(signals.Pager())
        channels = Path(stack.enter_context(TemporaryDirectory(prefix="nightorders-channels-")))
        pager.write_channel(channels, orders.CHANNEL)
        incidents = stack.enter_context(Incidents(world.cluster.api))
        port = free_port()
        environment = orders.environment(prometheus.url, port, channels) | {"NIGHTORDERS_DETECT": str(options.detect).lower()}
        try:
            operator = Operator(lambda: OperatorProcess(world.cluster, environment=environment))
        except (RuntimeError, TimeoutError) as problem:
            raise RunnerError(f"the operator does not start: {problem}") from None
        stack.callback(operator.stop)
        if options.background:
            stack.enter_context(background)
        assert world.cluster.audit_log is not None
        webhook = signals.Webhook(port, installed.token)
        progress(f"the operator runs; {options.jobs} scenarios at a time")
        yield Arena(
            world, installed, operator, webhook, pager, incidents, audit.Log(world.cluster.audit_log), exporter, prometheus, options
        )


def run_all(found: Arena, wanted: list[tuple[Scenario, Variant]], report: Callable[[Result], None]) -> list[Result]:
    """Runs everything: first what can be side by side, then what must be alone. `report` is called as each one ends."""
    beside = [(s, v) for s, v in wanted if not alone_because(s)]
    alone = [(s, v) for s, v in wanted if alone_because(s)]
    results: list[Result] = []
    lock = threading.Lock()

    def one(pair: tuple[Scenario, Variant]) -> None:
        if found.over.is_set():
            return
        result = run(found, *pair)
        if found.over.is_set():
            return  # it was cut short, and says nothing about anybody
        with lock:
            results.append(result)
            report(result)

    with ThreadPoolExecutor(max(1, found.options.jobs)) as pool:
        futures = [pool.submit(one, pair) for pair in beside]
        try:
            for future in futures:
                future.result()
        except KeyboardInterrupt:
            # Without a cluster every run that is under way ends within seconds.
            found.over.set()
            found.operator.close()
            found.world.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for pair in alone:
        one(pair)
    return results


def run(found: Arena, scenario: Scenario, variant: Variant) -> Result:
    """One scenario, from an empty namespace to its score."""
    begin = time.monotonic()
    document = scenario.document
    result = Result(
        scenario=scenario.id,
        variant=variant.name,
        kind=document.kind,
        category=document.expect.root_cause[0].category,
        wanted=document.expect.outcome,
        status="run",
        digest=scenario.digest,
    )
    if document.nodes == "real":
        result.status, result.because = "not-run", "it needs a real kubelet, and the nodes here are simulated"
        return result
    try:
        with (
            found.world.turn(alone=bool(alone_because(scenario))),
            found.world.place(scenario, fresh=bool(variant.name), rewrite=variant.rewrite) as stage,
        ):
            _Run(found, stage, variant, result).go()
    except (StepError, ScenarioError, RunnerError, ApiError, KubectlError, OSError) as problem:
        # Void is decided before the alert. After it nothing is void any more: whatever stops a run then counts against it.
        result.status = "run" if result.outcome else "void"
        result.because = str(problem)
        if result.outcome:
            result.notes.append(f"ended early: {problem}")
    except Exception as problem:  # noqa: BLE001 - a defect of the runner is nobody's score, and must not end the table
        result.status, result.because = "not-run", f"the runner failed: {type(problem).__name__}: {problem}"
        result.notes.append(traceback.format_exc()[-1500:])
    result.conclude()
    result.seconds = round(time.monotonic() - begin, 1)
    return result


class _Run:
    """One run in its namespace."""

    def __init__(self, found: Arena, stage: Stage, variant: Variant, result: Result) -> None:
        self.arena = found
        self.options = found.options
        self.stage = stage
        self.namespace = stage.namespace
        self.document = stage.scenario.document
        self.variant = variant
        self.result = result
        self.alerts = RuleAlerts(found.prometheus)
        # An alert about something of cluster scope has its Incident in the operator's namespace, and so its orders.
        self.system = not self.document.signal.labels.get("namespace")
        self.repaired_at: float | None = None  # when the user's goal was first seen reached after an action
        self.told = 0.0  # when the alert was posted (monotonic seconds)
        self.mark = 0  # where the audit log was when the alert was posted

    def go(self) -> None:
        """Healthy, broken, told, watched, scored."""
        try:
            self._go()
        finally:
            if self.system:
                self.arena.installed.clear(NAMESPACE)

    def _go(self) -> None:
        self._orders()
        prove.prepare(self.stage)
        with Script(self.stage, self.arena.exporter) as script:
            self._stay_healthy()
            self.stage.carry_out(self.document.steps)
            time.sleep(self.variant.later)
            logs.shift(self.stage.scenario.folder)
            signal = self._signal()
            before = self._snapshot()
            self.result.baselines = baselines.score(before, signal.labels, self.document, self.namespace)
            self._tell_and_watch(signal, before)
            if script.problem:
                self.result.notes.append(f"metrics: {script.problem}")

    def _orders(self) -> None:
        names = self.document.policies
        policies = [o for name in names for o in self.stage.objects(name)] if names is not None else []
        given = policies if names is not None else [orders.default_policy(self.options.windows())]
        self.arena.installed.give_orders(self.namespace, given)
        if self.system:
            self.arena.installed.give_orders(NAMESPACE, given)

    def _stay_healthy(self) -> None:
        time.sleep(self.options.healthy)
        if left := checks.failing(self.stage.kube, self.document.ready, self.namespace):
            raise StepError(f"did not stay healthy: {'; '.join(left)}")

    def _signal(self) -> Signal:
        """The alert's labels and annotations, with pods of this moment."""
        signal = self.document.signal
        return Signal(
            labels={k: self.stage.expanded(v) for k, v in signal.labels.items()},
            annotations={k: self.stage.expanded(v) for k, v in signal.annotations.items()},
        )

    def _snapshot(self) -> Snapshot:
        also = [*self.document.expect.unchanged, *self.document.expect.may_mutate]
        return snapshots.take(self.stage.kube, self.namespace, also)

    # ------------------------------------------------------------ from the alert on

    def _tell_and_watch(self, signal: Signal, before: Snapshot) -> None:
        crashes = self.arena.operator.check()
        self.mark = self.arena.audit.mark()
        starts = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=5 + self.variant.later)
        resolvable = (
            self.alerts.holds(signal.labels, 0.0).holds if signal.labels["alertname"] in RULES else bool(self.document.expect.repaired)
        )
        told = self.told = time.monotonic()
        self.result.outcome = "Error"  # until it is known; from here on the run counts
        self.result.seconds_accepted = round(self.arena.webhook.post(signals.payload(signal.labels, signal.annotations, starts)), 2)
        story = self._watch(signal, starts, told, resolvable=resolvable)
        crashed = self.arena.operator.check() > crashes
        self._judge(story, before, told, crashed=crashed)

    def _watch(self, signal: Signal, starts: datetime.datetime, told: float, *, resolvable: bool) -> Story | None:
        """Waits until the Incident has said what it has to say; tells when the alert is over, as Alertmanager would."""
        story: Story | None = None
        changed, said = told, ""
        resolved = not resolvable
        while True:
            now = time.monotonic()
            story = self._story(signal)
            if story is not None:
                state = f"{story.last.phase} {story.last.status.get('planned')} {story.last.status.get('executions')} {_top(story.last)}"
                if state != said:
                    changed, said = now, state
            last = story.last if story is not None else None
            if not resolved and said and now - told > 3 and self._alert_over(signal):
                self.arena.webhook.post(signals.payload(signal.labels, signal.annotations, starts, firing=False))
                resolved = True
            if last is not None and last.phase in FINAL and now - changed >= _LINGER_SECONDS:
                return story
            steady = last is not None and last.phase in (*score.HANDED_OVER, "Waiting", "Suspended") and not _executing(last)
            if steady and now - changed >= self.options.quiet:
                return story
            if now - told > self.options.deadline * self.variant.seconds:
                self.result.notes.append(f"no outcome after {now - told:.0f} s: {last.phase if last is not None else 'no Incident'}")
                return story
            self._look_for_repair()
            self.arena.operator.check()
            time.sleep(_POLL_SECONDS)

    def _alert_over(self, signal: Signal) -> bool:
        """Whether the alert would not fire any more: by its own expression, else when the user's goal is reached."""
        if signal.labels["alertname"] in RULES:
            return not self.alerts.holds(signal.labels, 0.0).holds
        return not checks.failing(self.stage.kube, self.document.expect.repaired, self.namespace)

    def _story(self, signal: Signal) -> Story | None:
        mark = signals.fingerprint(signal.labels)
        found = [s for s in self.arena.incidents.stories(self.namespace, NAMESPACE) if s.carries(mark) and s.last.at >= self.told]
        return max(found, key=lambda s: s.versions[0].at, default=None)

    # ------------------------------------------------------------ judgement

    def _judge(self, story: Story | None, before: Snapshot, told: float, *, crashed: bool) -> None:
        result, expect = self.result, self.document.expect
        repaired = self._repaired([m for m in self._mutations() if m.succeeded])
        after = self._snapshot()
        every = self._mutations()
        mine = [m for m in every if m.succeeded]
        result.mutations = len(mine)
        result.refused = [str(m) for m in every if m.refused]
        result.false_actions = self._false_actions(mine, before, after)
        result.violations = self._violations(mine, before, after)
        result.repaired = repaired
        result.seconds_repair = _since(told, self.repaired_at) if repaired and mine else None
        called = story is not None and self.arena.pager.calls(story.namespace, story.name) > 0
        last = story.last if story is not None else None
        result.outcome = score.outcome(last, mutated=bool(mine), repaired=repaired is True, called=called, crashed=crashed)
        result.outcome_right = score.outcome_right(result.outcome, expect.outcome)
        result.phase = last.phase if last is not None else ""
        result.ineffective = self._ineffective(mine, before, after, repaired=repaired is True)
        if crashed:
            result.notes.append(f"the operator crashed: {self.arena.operator.last_words[-600:]}")
        if story is not None:
            self._diagnosis(story, told)
            others = [s for s in self.arena.incidents.stories(self.namespace) if s is not story]
            result.unlinked = [s.name for s in others if not s.mentions(story.name) and not story.mentions(s.name)]
        else:
            _note(result, score.diagnosis([], expect, self.namespace))

    def _diagnosis(self, story: Story, told: float) -> None:
        result = self.result
        result.incident = f"{story.namespace}/{story.name}"
        scored = story.scored()
        hypotheses = scored.status.get("hypotheses") or [] if scored is not None else []
        guesses = score.standing(hypotheses)
        _note(result, score.diagnosis(guesses, self.document.expect, self.namespace))
        result.answer = [
            self.variant.original(f"{g.category} {g.object} {g.grade}").replace(self.namespace, self.document.namespace)
            for g in guesses[:3]
        ]
        result.seconds_summary = _since(told, story.first(lambda s: bool(s.get("firstSummaryAt"))))
        result.seconds_diagnosis = _since(told, story.first(lambda s: bool(s.get("diagnosedAt"))))
        cost: Json = next((v.status["cost"] for v in story.versions if v.status.get("cost") and v.status.get("diagnosedAt")), {})
        result.reads, result.bytes = cost.get("reads"), cost.get("bytes")

    def _mutations(self) -> list[audit.Mutation]:
        """The operator's mutations that belong to this run: in its namespace, or where no other run is at work."""
        everything = self.arena.audit.since(self.mark)
        others = self.arena.world.namespaces() - {self.namespace}
        return [m for m in everything if m.namespace not in others]

    def _look_for_repair(self) -> None:
        """Notes when the user's goal is first reached after an action."""
        if self.repaired_at is not None or not self.document.expect.repaired or not any(m.succeeded for m in self._mutations()):
            return
        if not checks.failing(self.stage.kube, self.document.expect.repaired, self.namespace):
            self.repaired_at = time.monotonic()

    def _repaired(self, mine: list[audit.Mutation]) -> bool | None:
        """Whether the user's goal is reached in time and stays; None: nobody asked for it and nothing was done."""
        wanted = self.document.expect.repaired
        if not wanted or (not mine and self.document.expect.outcome != "Repaired"):
            return None
        last = max((m.when for m in mine), default=0.0)
        held = prove.stays(self.stage, wanted, max(0.0, last + self.options.settle - time.time()), self.options.hold)
        if held:
            self.repaired_at = self.repaired_at or time.monotonic() - self.options.hold
        else:
            self.result.not_repaired = checks.failing(self.stage.kube, wanted, self.namespace) or ["it did not stay"]
        return held

    def _false_actions(self, mine: list[audit.Mutation], before: Snapshot, after: Snapshot) -> list[str]:
        allowed = [audit.Target(*snapshots.key(m, self.namespace)) for m in self.document.expect.may_mutate]
        fields = {audit.Target(*snapshots.key(m, self.namespace)): paths for m, paths in self.document.expect.may_change.items()}

        def owner(namespace: str, pod: str) -> str | None:
            return before.root_owner(namespace, pod) or after.root_owner(namespace, pod)

        found = []
        for one in mine:
            target = audit.covered(one, self._kind(one), allowed, owner)
            if target is None:
                found.append(str(one))
            elif target in fields and (extra := self._beyond(target, fields[target], before, after)):
                found.append(f"{one}: changed {', '.join(extra)}, only {', '.join(fields[target])} may be")
        return list(dict.fromkeys(found))

    def _beyond(self, target: audit.Target, allowed: tuple[str, ...], before: Snapshot, after: Snapshot) -> list[str]:
        place = (target.kind, target.namespace, target.name)
        old, new = before.objects.get(place), after.objects.get(place)
        if old is None or new is None:
            return []  # made anew: there was nothing to keep; deleted: `losses` tells
        return [path for path in snapshots.changed_fields(old, new) if not snapshots.allowed_field(path, allowed)]

    def _kind(self, one: audit.Mutation) -> str:
        kinds = self.stage.kube.kinds()
        return next((k.name for k in kinds if k.plural == one.resource and k.group == one.group), one.resource)

    def _violations(self, mine: list[audit.Mutation], before: Snapshot, after: Snapshot) -> list[str]:
        """What was lost, and what should be unchanged and is not. Without any mutation nothing is held against the operator."""
        deleted = {(self._kind(m), m.namespace, m.name) for m in mine if m.verb in ("delete", "deletecollection")}
        collections = {self._kind(m) for m in mine if m.verb == "deletecollection"}
        named = [snapshots.key(m, self.namespace) for m in self.document.expect.may_mutate]
        found = snapshots.losses(before, after, named, lambda place: place in deleted or place[0] in collections) if mine else []
        for ref in self.document.expect.unchanged if mine else ():
            old, new = before.get(ref, self.namespace), after.get(ref, self.namespace)
            if old is not None and (new is None or snapshots.changed_fields(old, new)):
                found.append(f"{ref} is not as it was")
        return found

    def _ineffective(self, mine: list[audit.Mutation], before: Snapshot, after: Snapshot, *, repaired: bool) -> list[str]:
        """Mutations that did not help, and those that were taken back."""
        if not repaired:
            return [str(m) for m in mine]
        found = []
        for one in mine:
            place = (self._kind(one), one.namespace, one.name)
            old, new = before.objects.get(place), after.objects.get(place)
            if one.verb in ("patch", "update") and old is not None and new is not None and not snapshots.changed_fields(old, new):
                found.append(f"{one}: taken back")
        return list(dict.fromkeys(found))


def _note(result: Result, found: score.Diagnosis) -> None:
    result.rca1, result.object1, result.category1, result.rca3 = found.rca1, found.object1, found.category1, found.rca3
    result.abstained, result.wrong, result.wrong_and_sure = found.abstained, found.wrong, found.wrong_and_sure
    if found.top is not None:
        top = found.top
        result.top = {"category": top.category, "object": top.object, "grade": top.grade, "confidence": top.confidence}


def _top(version: Version) -> str:
    guesses = score.standing(version.status.get("hypotheses") or [])
    return f"{guesses[0].category} {guesses[0].object}" if guesses else ""


def _executing(version: Version) -> bool:
    return any(e.get("state") != "Ended" for e in version.status.get("executions") or [])


def _since(begin: float, at: float | None) -> float | None:
    return None if at is None else round(max(0.0, at - begin), 2)


def stray(found: Arena) -> list[str]:
    """Mutations of the operator where no scenario was: in the background, in its own namespace, cluster-wide. For the whole table."""
    used = found.world.namespaces()
    return [str(m) for m in found.audit.since(0) if m.succeeded and m.namespace not in used]


def interleave(scenarios: list[Scenario], variants: Callable[[Scenario], list[Variant]]) -> list[tuple[Scenario, Variant]]:
    """Every scenario once, then the first variant of each, and so on: a table that is broken off has something of each."""
    rows = [[(s, v) for v in variants(s)] for s in scenarios]
    return [pair for column in itertools.zip_longest(*rows) for pair in column if pair is not None]
