"""How long one judgement takes: level, every gate, whose approval is needed. `python -m tests.benchmarks.chain`

No cluster: one Situation as full as a busy namespace makes it (two policies, a platform's ceilings, tiers and freezes, hundreds of
remembered outcomes), judged many times. Time is CPU time of the thread, so that neighbours on the machine do not count. The median
counts; the whole chain must stay far below the time of one request to an API server.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from nightorders.api.meta import ObjectMeta
from nightorders.api.v1alpha1 import ActionType, ClusterRemediationPolicy, Ledger, LedgerSpec, RemediationPolicy
from nightorders.api.v1alpha1.ledger import Outcome
from nightorders.domain import autonomy, gates, whatif
from nightorders.domain.judgement import Judgement, judge, question, voices
from nightorders.domain.orders import Orders
from nightorders.domain.plan import Proposal
from nightorders.domain.situation import Operator, Proof, Situation
from nightorders.domain.snapshot import KubeObject

NOW = datetime(2026, 1, 14, 10, 0, tzinfo=UTC)
NAMESPACE = "shop"


@dataclass(frozen=True)
class Timing:
    """CPU microseconds of one evaluation: median, 95th percentile, fastest."""

    what: str
    median: float
    p95: float
    least: float
    repeats: int

    def __str__(self) -> str:
        return f"{self.what:<28} {self.median:8.1f} µs median  {self.p95:8.1f} µs p95  {self.least:8.1f} µs least  ({self.repeats} times)"


def orders() -> Orders:
    """Two teams' policies and the platform's, with everything that speaks or refuses in them."""
    freezes = [
        {"name": "weekend", "schedule": "0 18 * * 5", "duration": "62h", "timeZone": "Europe/Berlin"},
        {"name": "year-end", "from": "2026-12-23T00:00:00Z", "until": "2027-01-02T00:00:00Z"},
    ]
    rule = {"name": "rollback", "types": ["RollbackWorkload"], "level": "L4", "earn": {"from": "L2"}, "limits": {"perHour": 100}}
    team = [
        RemediationPolicy.model_validate(
            {
                "metadata": {"name": tier, "namespace": NAMESPACE},
                "spec": {"selector": {"matchLabels": {"tier": tier}}, "rules": [rule], "freezes": freezes, "breaker": {"failures": 20}},
            }
        )
        for tier in ("web", "batch")
    ]
    platform = ClusterRemediationPolicy.model_validate(
        {
            "metadata": {"name": "platform"},
            "spec": {
                "ceilings": [{"name": "everywhere", "level": "L4"}],
                "protected": [{"name": "money", "selector": {"matchLabels": {"criticality": "untouchable"}}}],
                "freezes": freezes,
                "tiers": [{"name": "gold", "selector": {"matchLabels": {"tier": "web"}}, "maxPods": 5, "risk": 10}],
                "fleet": {"perHour": 1000},
            },
        }
    )
    return Orders(policies=tuple(team), cluster=(platform,))


def ledger(outcomes: int) -> Ledger:
    """Remembers that many executions, an hour apart, each on one of ten workloads."""
    made = tuple(
        Outcome(
            execution=f"no-{i}",
            action=ActionType.ROLLBACK_WORKLOAD,
            namespace=NAMESPACE,
            workload=f"Deployment/app-{i % 10}",
            at=NOW - timedelta(hours=i + 1, minutes=5),
            ended_at=NOW - timedelta(hours=i + 1),
            result="Recovered",
            confirmed="Human",
        )
        for i in reversed(range(outcomes))
    )
    return Ledger(kind="Ledger", metadata=ObjectMeta(name="ledger", namespace=NAMESPACE), spec=LedgerSpec(outcomes=made))


def situation(outcomes: int = 500) -> tuple[Situation, KubeObject, Proposal]:
    """One Situation in which every gate passes, so that none of them answers early."""
    target = whatif.workload("checkout", "Deployment", NAMESPACE, {"tier": "web", "app": "checkout"}, {}, 10)
    offered = whatif.proposal(target, pods_at_risk=2, workload_pods=10)
    fine = Proof(True, "")
    s = Situation(
        operator=Operator("system:serviceaccount:nightorders-system:nightorders", "nightorders-system"),
        incident=whatif.incident(target, NAMESPACE, NOW),
        target=target,
        orders=orders(),
        namespace_object=KubeObject({"metadata": {"name": NAMESPACE}}, "Namespace", "v1"),
        ledger=ledger(outcomes),
        fleet=ledger(outcomes),
        stop=gates.Stop(),
        guard=fine,
        schemas=fine,
        namespace_pods=200,
        fleet_workloads=1000,
    )
    return whatif.faulty(s, target, whatif.diagnosis(target, NOW), offered, NOW), target, offered


def timed(what: str, work: Callable[[], object], repeats: int) -> Timing:
    """That many single evaluations, each between two readings of the clock."""
    for _ in range(max(10, repeats // 20)):
        work()
    gc.collect()
    gc.disable()
    try:
        samples = []
        for _ in range(repeats):
            begin = time.thread_time_ns()
            work()
            samples.append((time.thread_time_ns() - begin) / 1000)
    finally:
        gc.enable()
    samples.sort()
    return Timing(what, statistics.median(samples), samples[int(len(samples) * 0.95)], samples[0], repeats)


def measure(repeats: int = 500, outcomes: int = 500) -> list[Timing]:
    """The whole judgement, and its two halves alone."""
    s, target, offered = situation(outcomes)
    top = s.diagnosis.top if s.diagnosis else None

    def whole() -> Judgement:
        return judge(s, target, top, offered, None, NOW)

    found = whole()
    assert found.verdict.allowed, f"a gate refuses, so less than the chain would be measured: {found.verdict}"
    spoken = voices(s, target, top, offered.caps, None, offered)
    asked = question(s, target, top, offered, found.level.level, "")
    return [
        timed("judgement (level + gates)", whole, repeats),
        timed("level (all speakers)", lambda: autonomy.effective(spoken, NOW), repeats),
        timed("gates (the whole chain)", lambda: gates.judge(asked, NOW), repeats),
    ]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.chain", description="Time one judgement, without a cluster.")
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--outcomes", type=int, default=500, help="executions that the Ledgers remember (at most 512)")
    given = parser.parse_args()
    for timing in measure(given.repeats, min(512, given.outcomes)):
        print(timing)


if __name__ == "__main__":
    main()
