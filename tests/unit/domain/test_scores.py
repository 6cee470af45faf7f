"""Trust and risk: what every doubt takes away and everything at stake adds, and from where on either lowers the level."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from nightorders.api.meta import TAKE_PREFIX, Level
from nightorders.api.v1alpha1 import Category
from nightorders.domain import scores
from nightorders.domain.autonomy import effective
from nightorders.domain.situation import BudgetAnswer
from tests.unit.domain.make import (
    ARGO,
    HOUR,
    MINUTE,
    NAMESPACE,
    NOW,
    SECOND,
    cluster_policy,
    deployment,
    hypothesis,
    incident,
    ledger,
    orders,
    outcome,
    rejection,
    voices,
)

L1, L2, L3, L4 = Level.L1, Level.L2, Level.L3, Level.L4
HERE = "Deployment/checkout"
CITING = hypothesis(supported_by=("e1",))
HPA = "HorizontalPodAutoscaler/checkout"


def ended(result: str, age: timedelta = HOUR, execution: str = "no-before", workload: str = HERE) -> Any:
    return ledger(outcomes=(outcome(execution, workload, at=NOW - age - SECOND, result=result),))


def said_no(age: timedelta = HOUR, workload: str = HERE) -> Any:
    return ledger(rejections=(rejection("bob", NOW - age, workload=workload),))


def tiers(*entries: tuple[str, dict[str, str], int], **where: Any) -> Any:
    return orders(cluster=(cluster_policy(tiers=[{"name": n, "selector": {"matchLabels": s}, "risk": r} for n, s, r in entries], **where),))


def components(which: str, **fields: Any) -> dict[str, tuple[int, str]]:
    score = getattr(scores, which)(voices(**fields), NOW)
    return {c.name: (c.points, c.because) for c in score.components}


# (what is doubtful, its component, its points, what the message says)
DOUBTS: list[tuple[str, dict[str, Any], str, int, str]] = [
    ("no origin", {"hypothesis": None}, "grade", 100, "no origin can be shown"),
    ("grade B", {"hypothesis": hypothesis("B")}, "grade", 30, "grade B; acting alone needs grade A"),
    ("grade C", {"hypothesis": hypothesis("C")}, "grade", 45, "grade C"),
    ("grade D", {"hypothesis": hypothesis("D")}, "grade", 100, "grade D"),
    ("unknown mechanism", {"hypothesis": hypothesis(category=Category.UNKNOWN)}, "class", 100, "mechanism of the fault is not known"),
    ("no fault", {"hypothesis": hypothesis(category=Category.NO_FAULT)}, "class", 100, "not known"),
    ("one gap", {"gaps": ("logs of a",)}, "coverage", 5, "not looked at: logs of a"),
    ("four gaps", {"gaps": tuple("abcd")}, "coverage", 20, "a, b, c, d"),
    ("nine gaps", {"gaps": tuple("abcdefghi")}, "coverage", 20, "a, b, c, d, e, f, g, h, i"),
    ("evidence of no known age", {"evidence_at": None}, "freshness", 100, "nobody knows how old"),
    ("evidence older than a minute", {"evidence_at": NOW - 61 * SECOND}, "freshness", 30, "61 s old"),
    ("evidence of five minutes", {"evidence_at": NOW - 300 * SECOND}, "freshness", 30, "300 s old"),
    ("evidence older than five minutes", {"evidence_at": NOW - 301 * SECOND}, "freshness", 100, "301 s old"),
    ("evidence from the future", {"evidence_at": NOW + 2 * MINUTE}, "freshness", 100, "from the future"),
    ("log text alone", {"evidence_sources": ("Logs",)}, "provenance", 30, "log text alone"),
    ("cited and not at hand", {"hypothesis": CITING}, "provenance", 30, "not at hand"),
    ("undone here", {"ledger": ended("Undone")}, "record", 30, "RollbackWorkload here ended as Undone at 2026-07-01 11:00Z"),
    ("escalated here", {"ledger": ended("Escalated", 23 * HOUR)}, "record", 30, "ended as Escalated at 2026-06-30 13:00Z"),
    ("rejected here", {"ledger": said_no()}, "rejected", 30, "bob rejected RollbackWorkload here at 2026-07-01 11:00Z"),
]  # fmt: skip
BUDGET_LOW, BUDGET_SILENT = BudgetAnswer(0.0123, 0.1), BudgetAnswer(None, 0.1, "Prometheus does not answer")
STAKES: list[tuple[str, dict[str, Any], str, int, str]] = [
    ("one of three pods", {"pods_at_risk": 1}, "blast-radius", 6, "1 healthy pods at risk, 33 % of the workload"),
    ("all pods", {"pods_at_risk": 3}, "blast-radius", 20, "3 healthy pods at risk, 100 %"),
    ("more than it wants", {"pods_at_risk": 5}, "blast-radius", 20, "100 %"),
    ("pods of one that is scaled to zero", {"pods_at_risk": 2, "workload_pods": 0}, "blast-radius", 20, "100 %"),
    ("tier", {"orders": tiers(("gold", {"tier": "web"}, 25))}, "tier", 25, "ClusterRemediationPolicy/platform tier gold"),
    ("autoscaler", {"scaled_by": HPA}, "autoscaler", 5, f"{HPA} scales it"),
    ("owner", {"owner": replace(ARGO, governs=12)}, "owner", 30, "governed by Argo CD; 12 objects would be paused"),
    ("little error budget", {"error_budget": BUDGET_LOW}, "error-budget", 30, "1.2% of the error budget left; 10.0% is asked for"),
    ("no answer", {"error_budget": BUDGET_SILENT}, "error-budget", 30, "no answer: Prometheus does not answer"),
    ("one neighbour", {"neighbours": 1}, "concurrent", 4, "1 other Incidents"),
    ("nine neighbours", {"neighbours": 9}, "concurrent", 20, "9 other Incidents are open in this namespace"),
    ("victim", {"hypothesis": hypothesis(object="ConfigMap/x")}, "victim", 100, f"the origin is ConfigMap/x, not {HERE}"),
    ("a human", {"changed_at": NOW - 14 * MINUTE}, "human", 60, f"somebody changed {HERE} at 11:46:00Z"),
    ("a human, clock ahead", {"changed_at": NOW + MINUTE}, "human", 60, "a human may be at work"),
    ("taken", {"incident": incident(annotations={f"{TAKE_PREFIX}x": "eve"})}, "taken", 60, "eve took this Incident"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "name", "points", "says"), [d[1:] for d in DOUBTS], ids=[d[0] for d in DOUBTS])
def test_every_doubt_takes_its_points_from_trust_and_says_why(fields: dict[str, Any], name: str, points: int, says: str) -> None:
    found = components("trust", **fields)
    assert found[name][0] == points
    assert says in found[name][1]
    assert scores.trust(voices(**fields), NOW).value == 100 - points


@pytest.mark.parametrize(("fields", "name", "points", "says"), [s[1:] for s in STAKES], ids=[s[0] for s in STAKES])
def test_everything_at_stake_adds_its_points_to_risk_and_says_why(fields: dict[str, Any], name: str, points: int, says: str) -> None:
    found = components("risk", **fields)
    assert found[name][0] == points
    assert says in found[name][1]
    assert scores.risk(voices(**fields), NOW).value == points


# (what is no doubt or stake at all)
NOTHING: list[tuple[str, dict[str, Any]]] = [
    ("grade A", {"hypothesis": hypothesis("A")}),
    ("fresh", {"evidence_at": NOW - MINUTE}),
    ("a clock that is a little ahead", {"evidence_at": NOW + 30 * SECOND}),
    ("logs beside the API", {"hypothesis": CITING, "evidence_sources": ("Kubernetes", "Logs")}),
    ("recovered here", {"ledger": ended("Recovered")}),
    ("not applied here", {"ledger": ended("NotApplied")}),
    ("superseded here", {"ledger": ended("Superseded")}),
    ("undone elsewhere", {"ledger": ended("Undone", workload="Deployment/cart")}),
    ("undone a day ago", {"ledger": ended("Undone", 24 * HOUR)}),
    ("undone by this very execution", {"ledger": ended("Undone", execution="no-me"), "execution": "no-me"}),
    ("rejected elsewhere", {"ledger": said_no(workload="Deployment/cart")}),
    ("rejected a day ago", {"ledger": said_no(24 * HOUR)}),
    ("a tier without risk", {"orders": tiers(("silver", {"tier": "web"}, 0))}),
    ("a tier of others", {"orders": tiers(("gold", {"tier": "db"}, 90))}),
    ("a tier elsewhere", {"orders": tiers(("gold", {}, 90), namespaces=["billing"])}),
    ("enough error budget", {"error_budget": BudgetAnswer(0.1, 0.1)}),
    ("a change of a quarter of an hour ago", {"changed_at": NOW - 15 * MINUTE}),
    ("taken and given back", {"incident": incident(annotations={f"{TAKE_PREFIX}x": ""})}),
]


@pytest.mark.parametrize("fields", [n[1] for n in NOTHING], ids=[n[0] for n in NOTHING])
def test_what_is_fine_costs_nothing(fields: dict[str, Any]) -> None:
    v = voices(**fields)
    assert (scores.trust(v, NOW).components, scores.risk(v, NOW).components) == ((), ())
    assert (scores.trust(v, NOW).value, scores.risk(v, NOW).value) == (100, 0)


def test_the_last_failure_of_several_is_named() -> None:
    both = ledger(outcomes=(*ended("Undone", 5 * HOUR).spec.outcomes, *ended("Escalated", 2 * HOUR, "no-2").spec.outcomes))
    assert "ended as Escalated at 2026-07-01 10:00Z" in components("trust", ledger=both)["record"][1]
    assert components("trust", ledger=both)["record"][0] == 30


def test_tiers_add_up_over_all_policies() -> None:
    both = orders(
        cluster=(
            cluster_policy("a", tiers=[{"name": "gold", "selector": {}, "risk": 15}]),
            cluster_policy("b", namespaces=[NAMESPACE], tiers=[{"name": "paid", "selector": {"matchLabels": {"app": "checkout"}}, "risk": 15}]),
        )
    )  # fmt: skip
    score = scores.risk(voices(orders=both), NOW)
    assert (score.value, [c.because for c in score.components]) == (
        30, ["ClusterRemediationPolicy/a tier gold", "ClusterRemediationPolicy/b tier paid"],
    )  # fmt: skip


# ---------------------------------------------------------------- from points to levels


@pytest.mark.parametrize(
    ("points", "level"), [(0, L4), (20, L4), (21, L3), (50, L3), (51, L2), (80, L2), (81, L1), (100, L1)]
)  # fmt: skip
def test_the_thresholds_of_risk(points: int, level: Level) -> None:
    v = voices(orders=tiers(("gold", {}, points)))
    assert (scores.risk(v, NOW).value, scores.risk(v, NOW).level) == (points, level)
    assert effective(v, NOW).level == level


@pytest.mark.parametrize(
    ("doubts", "value", "level"),
    [
        ({"gaps": tuple("abcd")}, 80, L4),
        ({"gaps": ("a",), "evidence_sources": ("Logs",)}, 65, L3),
        ({"hypothesis": hypothesis("B"), "gaps": tuple("abcd")}, 50, L3),
        ({"hypothesis": hypothesis("C"), "gaps": ("a",)}, 50, L3),
        ({"hypothesis": hypothesis("C"), "gaps": ("a", "b")}, 45, L2),
        ({"hypothesis": hypothesis("B"), "ledger": ended("Undone")}, 40, L2),
        ({"hypothesis": hypothesis("B"), "ledger": ended("Undone"), "gaps": tuple("abcd")}, 20, L2),
        ({"hypothesis": hypothesis("C"), "ledger": ended("Undone"), "gaps": tuple("abcd")}, 5, L1),
        ({"hypothesis": hypothesis("D"), "ledger": ended("Undone"), "gaps": tuple("abcd")}, 0, L1),
    ],
)
def test_small_doubts_add_up(doubts: dict[str, Any], value: int, level: Level) -> None:
    score = scores.trust(voices(**doubts), NOW)
    assert (score.value, score.level) == (value, level)
    assert effective(voices(**doubts), NOW).level == level


def test_small_stakes_add_up() -> None:
    score = scores.risk(voices(neighbours=2, scaled_by=HPA, pods_at_risk=1), NOW)
    assert (score.value, score.level) == (19, L4)
    score = scores.risk(voices(neighbours=3, scaled_by=HPA, pods_at_risk=1), NOW)
    assert (score.value, score.level) == (23, L3)


def test_the_two_are_independent_and_either_alone_lowers() -> None:
    doubtful, risky = {"hypothesis": hypothesis("B")}, {"neighbours": 9, "scaled_by": HPA}
    assert [effective(voices(**f), NOW).level for f in (doubtful, risky, {**doubtful, **risky})] == [L3, L3, L3]
    answer = effective(voices(**doubtful, **risky), NOW)
    said = {s.who: s for s in answer.decided_by}
    assert (said["trust"].value, said["trust"].threshold) == ("trust 70", "L4 at least 80, L3 at least 50, L2 at least 20")
    assert (said["risk"].value, said["risk"].threshold) == ("risk 25", "L4 at most 20, L3 at most 50, L2 at most 80")
    assert said["risk"].because == f"{HPA} scales it (5); 9 other Incidents are open in this namespace (20)"


def test_the_chains_are_what_the_documentation_lists() -> None:
    assert [p.__name__ for p in scores.TRUST] == ["grade", "known", "coverage", "freshness", "provenance", "record"]
    assert [p.__name__ for p in scores.RISK] == [
        "blast_radius", "tier", "ownership", "error_budget", "neighbours", "victim", "human", "taken",
    ]  # fmt: skip


def test_hostile_text_in_a_message_is_made_safe() -> None:
    found = components("trust", gaps=("logs\x1b[31m of\nx",))["coverage"][1]
    assert "\x1b" not in found
    assert "\n" not in found
    assert deployment().title == HERE
