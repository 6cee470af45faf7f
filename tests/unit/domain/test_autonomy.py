"""Who lowers the level, to what, and what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nightorders.api.meta import MAX_LEVEL_ANNOTATION, Level
from nightorders.api.v1alpha1 import IncidentStatus
from nightorders.api.v1alpha1.incident import Speaker
from nightorders.api.v1alpha1.ledger import WorkloadRecord
from nightorders.domain import ledger as books
from nightorders.domain.autonomy import effective, ordered, own_labels
from nightorders.domain.snapshot import KubeObject
from tests.unit.domain.make import (
    HOUR,
    MINUTE,
    NAMESPACE,
    NOW,
    SECOND,
    autonomy,
    ceiling,
    cluster_policy,
    deployment,
    hypothesis,
    incident,
    ledger,
    orders,
    outcome,
    plan,
    policy,
    rule_json,
    stamp,
    voices,
)

NO_RULE = "policies of this namespace"
CEILING = "ClusterRemediationPolicy/ceiling-most ceiling most"
NOTE = f"annotation {MAX_LEVEL_ANNOTATION} of Deployment/checkout"
L1, L2, L3, L4 = Level.L1, Level.L2, Level.L3, Level.L4


def namespace(value: str) -> KubeObject:
    return KubeObject({"metadata": {"name": NAMESPACE, "annotations": {MAX_LEVEL_ANNOTATION: value}}}, "Namespace", "v1")


def noted(value: str) -> KubeObject:
    return deployment(notes={MAX_LEVEL_ANNOTATION: value})


def detected(level: Level) -> IncidentStatus:
    return IncidentStatus(autonomy=autonomy(level, level))


def one_rule(level: str, **fields: Any) -> Any:
    return orders(policy("web", rule_json(level=level, **fields)))


EARN = {"from": "L2", "successes": 2, "over": "336h"}
HELD = {"name": "audit", "from": stamp(NOW - HOUR), "until": stamp(NOW + HOUR)}
BROKEN = {"name": "broken", "schedule": "0 18 * *", "duration": "1h"}


def earned(successes: int, failed: bool = False) -> Any:
    good = tuple(outcome(f"no-g{n}", f"Deployment/w{n}", at=NOW - (9 - n) * HOUR, confirmed="Human") for n in range(successes))
    return ledger(outcomes=(*good, outcome("no-bad", "Deployment/x", at=NOW - HOUR, result="Undone")) if failed else good)


def failures(*minutes: int) -> Any:
    return ledger(outcomes=tuple(outcome(f"no-f{m}", at=NOW - m * MINUTE, result="Undone") for m in minutes))


def frozen(emergency: str = "Deny", own: Any = HELD, platform: Any = None, **where: Any) -> Any:
    cluster = (cluster_policy(freezes=[platform], **where),) if platform else ()
    rule = rule_json(approval={"emergency": emergency})
    return orders(policy("web", rule, freezes=[] if platform else [own]), cluster=cluster)


# (what is taken away, the level that remains, who says so, what the message contains)
LOWERING: list[tuple[str, dict[str, Any], Level, str, str]] = [
    ("rule", {"orders": one_rule("L2")}, L2, "RemediationPolicy/web rule rollback", ""),
    ("no policy at all", {"orders": replace(orders(), policies=())}, L1, NO_RULE, "no RemediationPolicy"),
    ("policy selects others", {"orders": orders(policy(labels={"tier": "db"}))}, L1, NO_RULE, "RollbackWorkload"),
    ("two policies", {"orders": orders(policy("a"), policy("b"))}, L1, NO_RULE, "/a rule rollback and RemediationPolicy/b"),
    ("unreadable policy", {"orders": orders(unreadable=("x: spec.earn: not known",))}, L1, NO_RULE, "spec.earn"),
    ("unreadable ceiling", {"orders": orders(cluster_unreadable=("platform: no",))}, L2, "cluster policies", "platform"),
    ("ceiling", {"orders": orders(cluster=(ceiling("L2"),))}, L2, CEILING, ""),
    ("ceiling on the type", {"orders": orders(cluster=(ceiling("L3", types=["RollbackWorkload"]),))}, L3, CEILING, ""),
    ("annotation of the object", {"target": noted("L2")}, L2, NOTE, ""),
    ("annotation of the namespace", {"namespace_object": namespace("L3")}, L3, f"annotation {MAX_LEVEL_ANNOTATION} of Namespace/shop", ""),
    ("malformed annotation", {"target": noted("L5")}, L1, NOTE, "'L5' is none of L1, L2, L3, L4"),
    ("empty annotation", {"target": noted("")}, L1, NOTE, "none of"),
    ("lower-case annotation", {"target": noted("l4")}, L1, NOTE, "none of"),
    ("annotation with a newline", {"target": noted("L4\n")}, L1, NOTE, "none of"),
    ("something not read", {"unknown": ("policies: time-out",)}, L1, "cannot tell", "policies: time-out"),
    ("old schemas", {"schemas_current": False, "schemas_message": "differs"}, L1, "custom resource schemas", "differs"),
    ("no origin", {"hypothesis": None}, L1, "trust", "no origin"),
    ("grade B", {"hypothesis": hypothesis("B")}, L3, "trust", "grade B; acting alone needs grade A"),
    ("grade C", {"hypothesis": hypothesis("C")}, L3, "trust", "grade C"),
    ("grade D", {"hypothesis": hypothesis("D")}, L1, "trust", "grade D"),
    ("no Ledger", {"ledger": None}, L3, "ledger", "no Ledger"),
    ("opened by a human", {"incident": incident(signal=None, requestedBy="alice")}, L3, "incident", "not opened by the operator"),
    ("raised since detection", {"incident": incident(detected(L2))}, L3, "level at detection", "L2 when this was first diagnosed"),
    ("raised from nothing", {"incident": incident(detected(L1))}, L3, "level at detection", "L1 when this was first diagnosed"),
    ("a waiting plan", {"plan": plan(staged_level=L3)}, L3, "level at staging", "later raise"),
    ("nothing earned yet", {"orders": one_rule("L4", earn=EARN)}, L2, "earned", "begins here"),
    ("earned in part", {"orders": one_rule("L4", earn=EARN), "ledger": earned(2)}, L3, "earned", "2 confirmed successes carried it to L3"),
    ("earned and lost", {"orders": one_rule("L4", earn=EARN), "ledger": earned(4, failed=True)}, L2, "earned", "back to L2"),
    ("the platform's orders are gone", {"fleet": ledger("fleet", cluster_policies=True)}, L2, "cluster policies", "none is left; apply one"),
    ("cannot be undone", {"undo": "None"}, L3, "undo", "RollbackWorkload cannot be undone"),
    ("freeze", {"orders": frozen()}, L2, "RemediationPolicy/web freeze audit", "from 2026-07-01 11:00Z; advice only"),
    ("freeze with an emergency path", {"orders": frozen("Allow")}, L3, "RemediationPolicy/web freeze audit", "an emergency approval is needed"),
    ("freeze of the platform", {"orders": frozen(platform=HELD)}, L2, "ClusterRemediationPolicy/platform freeze audit", "advice only"),
    ("unreadable freeze", {"orders": frozen(own=BROKEN)}, L2, "RemediationPolicy/web freeze broken", "needs five fields"),
    ("open breaker", {"ledger": failures(1, 2, 3)}, L2, "breaker", "open until 12:59:01Z"),
    ("half-open breaker", {"ledger": failures(70, 71, 72)}, L3, "breaker", "half-open: one trial, which a human must approve"),
    ("Ledger gone", {"ledger": None, "fleet": ledger("fleet", namespaces=("shop",))}, L2, "ledger", "the Ledger of this namespace is gone"),
    ("fleet's Ledger gone", {"fleet": None}, L3, "ledger", "the fleet's Ledger is not there"),
    ("risk", {"neighbours": 9, "scaled_by": "HorizontalPodAutoscaler/checkout"}, L3, "risk", "9 other Incidents"),
    ("preflight", {"caps": (Speaker(who="preflight", level=L2, because="barrier"),)}, L2, "preflight", "barrier"),
    ("guard", {"guard_proven": False, "guard_message": "binding narrowed by a selector"}, L2, "approval guard", "binding narrowed"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "level", "who", "says"), [c[1:] for c in LOWERING], ids=[c[0] for c in LOWERING])
def test_each_speaker_lowers_and_says_why(fields: dict[str, Any], level: Level, who: str, says: str) -> None:
    answer = effective(voices(**fields), NOW)
    assert answer.level == level
    assert answer.decided_by[0].who == who
    assert says in answer.decided_by[0].because


def test_nobody_speaking_against_it_leaves_what_the_rule_says() -> None:
    answer = effective(voices(), NOW)
    assert answer.level == L4
    assert [(s.who, s.level) for s in answer.decided_by] == [("RemediationPolicy/web rule rollback", L4), ("trust", L4), ("risk", L4)]
    assert [(s.who, s.value) for s in answer.decided_by[1:]] == [("trust", "trust 100"), ("risk", "risk 0")]


def no_pair(*two: tuple[str, dict[str, Any], Level, str, str]) -> bool:
    """Without a rule there is no breaker to speak; with one order of the platform left, none is missed."""
    names = {case[0] for case in two}
    ungoverned = any(case[3] == NO_RULE for case in two) and any("breaker" in name for name in names)
    return ungoverned or (
        "the platform's orders are gone" in names and any("orders" in case[1] and case[1]["orders"].cluster for case in two)
    )


@pytest.mark.promise(6)
@pytest.mark.parametrize("first", LOWERING, ids=[c[0] for c in LOWERING])
def test_two_speakers_give_the_minimum_and_both_are_named(first: tuple[str, dict[str, Any], Level, str, str]) -> None:
    for second in LOWERING:
        if first[1].keys() & second[1].keys() or no_pair(first, second):
            continue
        answer = effective(voices(**first[1], **second[1]), NOW)
        assert answer.level == min(first[2], second[2])
        assert {first[3], second[3]} <= {s.who for s in answer.decided_by}
        assert [s.level for s in answer.decided_by] == sorted(s.level for s in answer.decided_by)


@pytest.mark.promise(6)
def test_the_effective_level_is_the_minimum_of_the_listed_speakers() -> None:
    v = voices(target=noted("L3"), orders=orders(cluster=(ceiling("L2"),)), guard_proven=False)
    answer = effective(v, NOW)
    assert answer.level == min(s.level for s in answer.decided_by) == L2


def test_a_ceiling_for_another_namespace_does_not_speak_here() -> None:
    elsewhere = cluster_policy(namespaces=["billing"], ceilings=[{"name": "most", "level": "L1"}])
    assert effective(voices(orders=orders(cluster=(elsewhere,))), NOW).level == L4
    here = cluster_policy(namespaces=["billing", NAMESPACE], ceilings=[{"name": "most", "level": "L1"}])
    assert effective(voices(orders=orders(cluster=(here,))), NOW).level == L1


@pytest.mark.promise(6)
def test_an_annotation_never_raises() -> None:
    v = voices(orders=one_rule("L2"), target=noted("L4"), namespace_object=namespace("L4"))
    assert effective(v, NOW).level == L2


def test_a_stamp_of_the_operator_is_no_label_of_the_owner() -> None:
    assert own_labels({"app": "a", "nightorders.dev/execution": "no-1"}) == {"app": "a"}
    stamped = deployment(labels={"nightorders.dev/execution": "no-1"})
    selects_stamp = policy(labels={"nightorders.dev/execution": "no-1"})
    assert effective(voices(target=stamped, orders=orders(selects_stamp)), NOW).level == L1


# ---------------------------------------------------------------- who asked


@pytest.mark.threat(6)
@pytest.mark.promise(4)
@pytest.mark.parametrize(
    ("approval", "requester", "level"),
    [
        ({"count": 2}, None, L2),
        ({"count": 2}, "alice", L3),
        ({"count": 1}, None, L3),
        ({"count": 1, "separationOfDuties": True}, None, L2),
        ({"count": 2, "separationOfDuties": False}, None, L3),
    ],
)
def test_without_a_requester_separation_of_duties_cannot_be_told(approval: dict[str, Any], requester: str | None, level: Level) -> None:
    asked = incident(signal=None, **({"requestedBy": requester} if requester else {}))
    assert effective(voices(incident=asked, orders=one_rule("L4", approval=approval)), NOW).level == level


def test_an_incident_of_the_operator_needs_no_requester() -> None:
    assert effective(voices(orders=one_rule("L4", approval={"count": 2})), NOW).level == L4


@pytest.mark.parametrize(
    ("bounds", "approval", "level"),
    [
        ({"separationOfDuties": "Required"}, {}, L2),  # the platform's word counts as the team's does
        ({"separationOfDuties": "Required"}, {"separationOfDuties": False}, L2),
        ({"separationOfDuties": "TeamDecides"}, {}, L3),
        ({"minCount": 2}, {}, L2),  # more than one approver means separated, unless the team says otherwise
        ({"minCount": 2}, {"separationOfDuties": False}, L3),
    ],
)
def test_the_platforms_bounds_ask_for_a_requester_too(bounds: dict[str, Any], approval: dict[str, Any], level: Level) -> None:
    found = orders(policy("web", rule_json(approval=approval)), cluster=(cluster_policy(approval=bounds),))
    assert effective(voices(incident=incident(signal=None), orders=found), NOW).level == level
    elsewhere = orders(policy("web", rule_json(approval=approval)), cluster=(cluster_policy(approval=bounds, namespaces=["billing"]),))
    assert effective(voices(incident=incident(signal=None), orders=elsewhere), NOW).level == L3


# ---------------------------------------------------------------- earned, frozen, broken


def spoken(who: str, **fields: Any) -> Speaker:
    return next(s for s in effective(voices(**fields), NOW).decided_by if s.who.startswith(who))


def test_earned_says_how_far_it_is() -> None:
    one = spoken("earned", orders=one_rule("L4", earn=EARN), ledger=earned(3))
    assert (one.level, one.value, one.threshold) == (L3, "1 of 2 successes", "2 within 336h for one level more")
    assert spoken("earned", orders=one_rule("L4", earn=EARN), ledger=earned(4)).value == "all that the rule allows"


@pytest.mark.parametrize("most", [L2, L3, L4])
def test_what_is_earned_never_exceeds_what_stands_in_git(most: Level) -> None:
    v = voices(orders=one_rule(most.value, earn=EARN), ledger=earned(8))
    assert effective(v, NOW).level == most
    assert spoken("earned", orders=one_rule(most.value, earn=EARN), ledger=earned(8)).level == most


def test_a_policy_made_anew_finds_its_breaker_and_its_standing_in_the_ledger() -> None:
    for name in ("web", "renamed"):
        anew = orders(policy(name, rule_json("other", earn=EARN)))
        assert effective(voices(orders=anew, ledger=failures(1, 2, 3)), NOW).level == L2
        assert spoken("earned", orders=anew, ledger=earned(2)).level == L3


def test_the_breaker_says_its_numbers() -> None:
    said = spoken("breaker", ledger=failures(1, 2, 3))
    assert (said.value, said.threshold) == ("3 failures", "3 within 1h")


@pytest.mark.parametrize(
    "found",
    [
        frozen(own={**HELD, "allow": ["RollbackWorkload"]}),
        frozen(own={**HELD, "until": stamp(NOW)}),
        frozen(platform=HELD, namespaces=["billing"]),
    ],
)
def test_a_freeze_that_is_not_in_force_here_says_nothing(found: Any) -> None:
    assert effective(voices(orders=found), NOW).level == L4


def test_every_freeze_in_force_is_named_with_its_end() -> None:
    both = orders(policy("web", freezes=[HELD]), cluster=(cluster_policy("a", freezes=[HELD]), cluster_policy("b", freezes=[BROKEN])))
    said = {s.who: s.value for s in effective(voices(orders=both), NOW).decided_by if "freeze" in s.who}
    assert said == {
        "ClusterRemediationPolicy/a freeze audit": "until 2026-07-01 13:00Z",
        "ClusterRemediationPolicy/b freeze broken": "for ever",
        "RemediationPolicy/web freeze audit": "until 2026-07-01 13:00Z",
    }


# ---------------------------------------------------------------- what was there before


@pytest.mark.parametrize(
    ("cluster", "unreadable", "level"),
    [((), (), L2), ((cluster_policy(),), (), L4), ((cluster_policy(namespaces=["billing"]),), (), L4), ((), ("platform: no",), L2)],
)
def test_orders_of_the_platform_that_were_there_are_missed(cluster: Any, unreadable: Any, level: Level) -> None:
    v = voices(fleet=ledger("fleet", cluster_policies=True), orders=orders(cluster=cluster, cluster_unreadable=unreadable))
    assert effective(v, NOW).level == level


@pytest.mark.parametrize(("known", "level"), [((), L3), (("billing",), L3), (("billing", "shop"), L2)])
def test_a_ledger_that_was_there_is_missed_more_than_one_that_never_was(known: tuple[str, ...], level: Level) -> None:
    assert effective(voices(ledger=None, fleet=ledger("fleet", namespaces=known)), NOW).level == level


@pytest.mark.parametrize(
    ("made", "where", "ended", "level"),
    [
        (NOW - HOUR, "shop", NOW - 2 * HOUR, L2),
        (NOW - 23 * HOUR, "shop", NOW - 40 * HOUR, L2),
        (NOW - 24 * HOUR, "shop", NOW - 40 * HOUR, L4),  # what is remembered for a day would be over, too
        (NOW - HOUR, "billing", NOW - 2 * HOUR, L4),
        (NOW - 2 * HOUR, "shop", NOW - HOUR, L4),  # the usual: first the Ledger, then its outcomes
    ],
)
def test_a_ledger_that_was_made_anew_does_not_hide_the_loss(made: Any, where: str, ended: Any, level: Level) -> None:
    """Whoever notes something in it makes it again at once; the fleet's Ledger remembers what ran here before."""
    new = ledger()
    new = new.model_copy(update={"metadata": new.metadata.model_copy(update={"creation_timestamp": made})})
    past = ledger("fleet", namespaces=("shop",), outcomes=(outcome(at=ended - MINUTE, ended_at=ended, namespace=where),))
    answer = effective(voices(ledger=new, fleet=past), NOW)
    assert answer.level == level
    assert level == L4 or "was made anew at" in answer.decided_by[0].because


# ---------------------------------------------------------------- raised later


@pytest.mark.threat(8)
def test_the_first_look_keeps_what_was_ordered_then() -> None:
    first = effective(voices(orders=one_rule("L2")), NOW)
    assert first.detected_level == L2
    later = effective(voices(orders=one_rule("L4"), incident=incident(IncidentStatus(autonomy=first))), NOW)
    assert (later.level, later.detected_level) == (L3, L2)


def test_what_was_lowered_for_a_moment_at_detection_is_not_what_was_ordered() -> None:
    first = effective(voices(guard_proven=False), NOW)
    assert (first.level, first.detected_level) == (L2, L4)
    assert effective(voices(incident=incident(IncidentStatus(autonomy=first))), NOW).level == L4


def test_a_level_lowered_after_detection_is_obeyed_at_once() -> None:
    assert effective(voices(incident=incident(detected(L4)), orders=one_rule("L2")), NOW).level == L2


@pytest.mark.threat(8)
@pytest.mark.parametrize("staged", [L2, L3])
def test_a_waiting_plan_is_not_released_by_a_later_raise(staged: Level) -> None:
    assert effective(voices(plan=plan(staged_level=staged)), NOW).level == staged


# ---------------------------------------------------------------- ordered


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({}, L4),
        ({"orders": one_rule("L2")}, L2),
        ({"orders": orders(cluster=(ceiling("L3"),))}, L3),
        ({"orders": orders(cluster_unreadable=("x",))}, L2),
        ({"target": noted("L2")}, L2),
        ({"target": noted("nonsense")}, L1),
        ({"orders": replace(orders(), policies=())}, L1),
        ({"guard_proven": False, "ledger": None, "unknown": ("x",), "hypothesis": None}, L4),
    ],
)
def test_ordered_is_what_is_written_and_not_what_is_so_at_the_moment(fields: dict[str, Any], level: Level) -> None:
    assert ordered(voices(**fields), NOW) == level


# ---------------------------------------------------------------- relabelling

BY_TIER = orders(
    policy("strict", rule_json(level="L2"), labels={"tier": "db"}),
    policy("loose", rule_json(level="L4"), labels={"tier": "web"}),
)


def remembered(*history: tuple[str, Any]) -> Any:
    """The Ledger after the workload was seen with these tiers at these moments."""
    spec = ledger().spec
    for tier, at in history:
        spec = books.remember_labels(spec, deployment(labels={"tier": tier}), at)
    return ledger(workloads=spec.workloads)


@pytest.mark.threat(8)
@pytest.mark.parametrize(
    ("history", "tier", "level"),
    [
        ([("web", NOW - 9 * HOUR)], "web", L4),
        ([("db", NOW - 9 * HOUR)], "web", L3),  # just now, not yet recorded
        ([("db", NOW - 9 * HOUR), ("web", NOW - SECOND)], "web", L3),
        ([("db", NOW - 9 * HOUR), ("web", NOW - HOUR + SECOND)], "web", L3),
        ([("db", NOW - 9 * HOUR), ("web", NOW - HOUR)], "web", L4),
        ([("web", NOW - 9 * HOUR), ("db", NOW - MINUTE)], "db", L2),  # into a stricter rule: that rule holds
        ([("other", NOW - 9 * HOUR)], "web", L3),  # from where nothing governed
    ],
)
def test_a_label_moved_into_a_more_permissive_rule_stops_at_l3_for_an_hour(history: Any, tier: str, level: Level) -> None:
    v = voices(orders=BY_TIER, target=deployment(labels={"tier": tier}), ledger=remembered(*history))
    assert effective(v, NOW).level == level


def test_a_second_label_change_does_not_wash_the_first_away() -> None:
    """threats.md 8: relabel into the permissive selector, let it be recorded, then touch any label once more."""
    spec = ledger().spec
    for labels, at in (
        ({"tier": "db"}, NOW - 9 * HOUR),
        ({"tier": "web"}, NOW - 10 * MINUTE),
        ({"tier": "web", "note": "x"}, NOW - 9 * MINUTE),
        ({"tier": "web", "note": "y"}, NOW - 8 * MINUTE),
    ):
        spec = books.remember_labels(spec, deployment(labels=labels), at)
    v = voices(orders=BY_TIER, target=deployment(labels={"tier": "web", "note": "y"}), ledger=ledger(workloads=spec.workloads))
    assert effective(v, NOW).level == L3
    assert effective(replace(v, evidence_at=NOW + HOUR), NOW + HOUR).level == L4


def test_a_label_that_no_rule_asks_for_changes_nothing() -> None:
    record = WorkloadRecord(uid="uid-checkout", workload="Deployment/checkout", labels={"app": "checkout", "tier": "web", "team": "a"})
    v = voices(orders=BY_TIER, ledger=ledger(workloads=(record,)))
    assert effective(v, NOW).level == L4


def tiers(*names: str) -> Any:
    return orders(
        cluster=tuple(cluster_policy(n, tiers=[{"name": n, "selector": {"matchLabels": {"tier": n}}, "maxPods": 1}]) for n in names)
    )


@pytest.mark.parametrize(
    ("history", "tier", "level"),
    [
        ([("gold", NOW - 9 * HOUR)], "web", L3),
        ([("gold", NOW - 9 * HOUR), ("web", NOW - 59 * MINUTE)], "web", L3),
        ([("gold", NOW - 9 * HOUR), ("web", NOW - HOUR)], "web", L4),
        ([("web", NOW - 9 * HOUR)], "gold", L4),  # into a tier: its limits hold
        ([("gold", NOW - 9 * HOUR)], "silver", L3),
        ([("gold", NOW - 9 * HOUR)], "gold", L4),
    ],
)
def test_a_label_moved_out_of_a_tier_stops_at_l3_for_an_hour(history: Any, tier: str, level: Level) -> None:
    answer = effective(voices(orders=tiers("gold", "silver"), target=deployment(labels={"tier": tier}), ledger=remembered(*history)), NOW)
    assert answer.level == level
    assert level == L4 or "out of tier gold" in answer.decided_by[0].because


def test_the_relabelling_message_names_the_moment() -> None:
    v = voices(orders=BY_TIER, ledger=remembered(("db", NOW - 9 * HOUR), ("web", NOW - MINUTE)))
    assert "changed at 11:59:00 to those of a more permissive rule" in effective(v, NOW).decided_by[0].because
