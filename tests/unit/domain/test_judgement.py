"""Level, gates, and whose approval is needed, in one call; and what a waiting plan keeps of stricter orders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nightorders.api.meta import Level
from nightorders.api.v1alpha1.incident import ApprovalNeeds, Cost, Evidence, Gap, Pause
from nightorders.domain import gates
from nightorders.domain.digest import spec_sha256
from nightorders.domain.judgement import approval_needs, judge, pause_of, stricter, voices
from nightorders.domain.orders import Governing, Orders, governing_rule
from nightorders.domain.ownership import Owner
from nightorders.domain.plan import digest_for, execution_id
from nightorders.domain.reasons import Reason
from nightorders.domain.situation import Situation
from nightorders.domain.snapshot import KubeObject
from tests.unit.domain.make import (
    HOUR,
    MINUTE,
    NAMESPACE,
    NOW,
    ROLLBACK,
    cluster_policy,
    deployment,
    diagnosis,
    hypothesis,
    ledger,
    orders,
    outcome,
    plan,
    policy,
    proposal,
    reservation,
    rule_json,
    situation,
    stamp,
    template,
)

L1, L2, L3, L4 = Level.L1, Level.L2, Level.L3, Level.L4
NOW_FROZEN = [{"name": "f", "from": stamp(NOW - HOUR), "until": stamp(NOW + HOUR)}]
OVER = [{"name": "f", "from": stamp(NOW - HOUR), "until": stamp(NOW)}]
NOT_THIS = [{**NOW_FROZEN[0], "allow": ["RollbackWorkload"]}]


def team(approval: dict[str, Any] | None = None, **spec: Any) -> Orders:
    return orders(policy("web", rule_json(approval=approval or {}), **spec))


def needs(found: Orders) -> ApprovalNeeds:
    s = situation(orders=found)
    return approval_needs(s, governing_rule(found, deployment().labels, ROLLBACK), ROLLBACK, NOW)


def under(found: Orders, *platform: Any) -> Orders:
    return replace(found, cluster=platform)


def bounds(name: str = "platform", namespaces: tuple[str, ...] = (), **approval: Any) -> Any:
    return cluster_policy(name, namespaces=list(namespaces), approval=approval)


# ---------------------------------------------------------------- whose approval


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (team(), {"count": 1, "expires_seconds": 900, "separation_of_duties": False, "service_accounts": "Deny", "frozen_by": "None"}),
        (team({"count": 3}), {"count": 3, "separation_of_duties": True}),
        (team({"count": 3, "separationOfDuties": False}), {"separation_of_duties": False}),
        (team({"separationOfDuties": True}), {"count": 1, "separation_of_duties": True}),
        (team({"expiresAfter": "1h30m"}), {"expires_seconds": 5400}),
        # what the platform does not let teams loosen
        (under(team({"count": 1}), bounds(minCount=2)), {"count": 2, "separation_of_duties": True}),
        (under(team({"count": 1, "separationOfDuties": False}), bounds(minCount=2)), {"count": 2, "separation_of_duties": False}),
        (under(team({"count": 3}), bounds(minCount=2)), {"count": 3}),
        (under(team(), bounds("a", minCount=2), bounds("b", minCount=4)), {"count": 4}),
        (under(team(), bounds(namespaces=("billing",), minCount=4)), {"count": 1}),
        (under(team({"separationOfDuties": False}), bounds(separationOfDuties="Required")), {"separation_of_duties": True}),
        # ServiceAccounts: the team must say so, somebody of the platform must allow it, and nobody may deny it
        (team({"serviceAccounts": "Allow"}), {"service_accounts": "Deny"}),
        (under(team({"serviceAccounts": "Allow"}), cluster_policy()), {"service_accounts": "Deny"}),
        (under(team({"serviceAccounts": "Allow"}), bounds(minCount=1)), {"service_accounts": "Deny"}),
        (under(team({"serviceAccounts": "Allow"}), bounds(serviceAccounts="TeamDecides")), {"service_accounts": "Allow"}),
        (under(team(), bounds(serviceAccounts="TeamDecides")), {"service_accounts": "Deny"}),
        (under(team({"serviceAccounts": "Allow"}), bounds("a", serviceAccounts="TeamDecides"), bounds("b")), {"service_accounts": "Deny"}),
        (under(team({"serviceAccounts": "Allow"}), bounds(namespaces=("x",), serviceAccounts="TeamDecides")), {"service_accounts": "Deny"}),
        # freezes
        (team(freezes=NOW_FROZEN), {"frozen_by": "Namespace"}),
        (team(freezes=OVER), {"frozen_by": "None"}),
        (team(freezes=NOT_THIS), {"frozen_by": "None"}),
        (team(freezes=[{"name": "broken", "schedule": "x", "duration": "1h"}]), {"frozen_by": "Namespace"}),
        (under(team(), cluster_policy(freezes=NOW_FROZEN)), {"frozen_by": "Cluster"}),
        (under(team(freezes=NOW_FROZEN), cluster_policy(freezes=NOW_FROZEN)), {"frozen_by": "Cluster"}),
        (under(team(freezes=NOW_FROZEN), cluster_policy(freezes=OVER)), {"frozen_by": "Namespace"}),
        (under(team(), cluster_policy(namespaces=["billing"], freezes=NOW_FROZEN)), {"frozen_by": "None"}),
    ],
)
def test_whose_approval_a_plan_needs_now(found: Orders, expected: dict[str, Any]) -> None:
    made = needs(found)
    assert {k: getattr(made, k) for k in expected} == expected


def test_ungoverned_there_is_nothing_to_approve() -> None:
    assert needs(replace(orders(), policies=())) == ApprovalNeeds()


LAX = ApprovalNeeds(count=1, expires_seconds=900, separation_of_duties=False, service_accounts="Allow", frozen_by="None")
STRICT = ApprovalNeeds(count=3, expires_seconds=60, separation_of_duties=True, service_accounts="Deny", frozen_by="None")


@pytest.mark.parametrize(("before", "now"), [(LAX, STRICT), (STRICT, LAX), (STRICT, STRICT)])
def test_a_waiting_plan_keeps_the_strictest_of_what_was_said(before: ApprovalNeeds, now: ApprovalNeeds) -> None:
    assert stricter(before, now) == STRICT


@pytest.mark.parametrize("field", ["count", "expires_seconds", "separation_of_duties", "service_accounts"])
def test_each_part_of_it_is_kept_by_itself(field: str) -> None:
    one = LAX.model_copy(update={field: getattr(STRICT, field)})
    assert stricter(one, LAX) == stricter(LAX, one) == one


def test_a_new_plan_has_the_orders_of_its_time_and_a_freeze_holds_while_it_is_in_force() -> None:
    assert stricter(None, LAX) == LAX
    frozen = LAX.model_copy(update={"frozen_by": "Cluster"})
    assert stricter(frozen, LAX).frozen_by == "None"
    assert stricter(LAX, frozen).frozen_by == "Cluster"


# ---------------------------------------------------------------- the judgement


def judged(p: Any = None, **fields: Any) -> Any:
    s = situation(**fields)
    target = s.target
    assert isinstance(target, KubeObject)
    return judge(s, target, diagnosis().top, p or proposal(), None, NOW)


def test_with_nothing_in_the_way_it_acts_alone() -> None:
    j = judged()
    assert (j.level.level, j.ordered, j.verdict.allowed, j.shadow, j.pause) == (L4, L4, True, False, None)
    assert isinstance(j.governing, Governing)
    assert [r.gate for r in j.results] == [g.name for g in gates.CHAIN]
    assert (j.level.trust.value, j.level.risk.value) == (100, 0)


def test_shadow_refuses_and_says_what_would_have_been() -> None:
    shadow = orders(policy(enforcement="Shadow"))
    j = judged(orders=shadow)
    assert (j.shadow, j.verdict.reason, j.otherwise.allowed) == (True, Reason.SHADOW, True)
    assert [r.gate for r in j.results if not r.allowed] == ["enforcement"]
    j = judged(orders=shadow, stop=gates.Stop(where=NAMESPACE))
    assert (j.verdict.reason, j.otherwise.reason) == (Reason.SHADOW, Reason.STOPPED)


def test_an_enforced_policy_is_judged_once() -> None:
    j = judged(stop=gates.Stop(where=NAMESPACE))
    assert (j.shadow, j.verdict.reason, j.otherwise) == (False, Reason.STOPPED, j.verdict)


def test_everything_that_a_pass_knows_reaches_the_speakers() -> None:
    evidence = tuple(
        Evidence(id=i, source=s, query="q", at=NOW, excerpt="x", sha256="sha256:" + "0" * 64)  # type: ignore[arg-type]
        for i, s in (("e1", "Kubernetes"), ("e2", "Logs"), ("e3", "Prometheus"))
    )
    top = hypothesis(supported_by=("e2", "e1"))
    looked = diagnosis(top, evidence=evidence, gaps=(Gap(what="logs of a", because="forbidden"),), cost=Cost())
    s = situation(diagnosis=looked, looked_at=NOW - MINUTE, neighbours=4, changed_at=NOW)
    v = voices(s, deployment(), top, (), None, proposal(undo="None", scaled_by="HorizontalPodAutoscaler/x", pods_at_risk=2))
    assert (v.gaps, set(v.evidence_sources), v.evidence_at) == (("logs of a",), {"Kubernetes", "Logs"}, NOW - MINUTE)
    assert (v.undo, v.scaled_by, v.pods_at_risk, v.workload_pods) == ("None", "HorizontalPodAutoscaler/x", 2, 3)
    assert (v.neighbours, v.changed_at, v.fleet) == (4, NOW, s.fleet)


def test_a_pass_without_a_diagnosis_does_not_call_old_evidence_fresh() -> None:
    s = replace(situation(), diagnosis=None)
    assert voices(s, deployment(), hypothesis(), (), plan(), None).evidence_at is None
    v = voices(s, deployment(), hypothesis(), (), plan(), None, evidence_at=NOW - HOUR, execution="no-1")
    assert (v.evidence_at, v.execution) == (NOW - HOUR, "no-1")


def test_a_staged_plans_own_execution_is_not_somebody_elses() -> None:
    p = plan(L4)
    mine = execution_id(p.digest)
    own = ledger(outcomes=(outcome(mine, "Deployment/checkout"),), reservations=(reservation(mine, "Deployment/checkout"),))
    s = situation(ledger=own)
    assert judge(s, deployment(), diagnosis().top, proposal(), p, NOW).verdict.allowed
    assert not judge(s, deployment(), diagnosis().top, proposal(), None, NOW).verdict.allowed


# ---------------------------------------------------------------- the same object, and who scales it

HPA = "HorizontalPodAutoscaler/checkout"


def scaled(target: KubeObject) -> Any:
    before, after = (spec_sha256(d.at("spec"), scaled=True) for d in (target, deployment(template("6"))))
    return proposal(before_sha256=before, after_sha256=after, scaled_by=HPA)


@pytest.mark.parametrize(("by", "allowed"), [(HPA, True), ("", False)])
def test_scaling_voids_a_plan_only_where_nobody_scales_it(by: str, allowed: bool) -> None:
    p = scaled(deployment()) if by else proposal()
    grown = deployment(spec={"replicas": 7})
    verdict = judge(situation(), grown, diagnosis().top, p, None, NOW).verdict
    assert verdict.allowed is allowed
    assert allowed or verdict.reason is Reason.TARGET_CHANGED
    staged = plan(scaled_by=by)
    staged = staged.model_copy(update={"target": staged.target.model_copy(update={"scaled_by": by})})
    assert (digest_for(staged, grown) == digest_for(staged, deployment())) is allowed


def test_everything_else_of_a_scaled_workload_still_counts() -> None:
    verdict = judge(situation(), deployment(template("8"), spec={"replicas": 7}), diagnosis().top, scaled(deployment()), None, NOW).verdict
    assert verdict.reason is Reason.TARGET_CHANGED


def test_an_object_made_anew_is_another_object() -> None:
    verdict = judge(situation(), deployment(uid="uid-recreated"), diagnosis().top, proposal(), None, NOW).verdict
    assert verdict.reason is Reason.TARGET_CHANGED


# ---------------------------------------------------------------- what is paused

KUSTOMIZATION = Pause(
    api_version="kustomize.toolkit.fluxcd.io/v1", kind="Kustomization", namespace="flux-system", name="apps", hold_seconds=0
)
OWNED = Owner("Flux Kustomization apps", pause=KUSTOMIZATION, confirmed=True, governs=7)
PAUSING = orders(policy("web", rule_json(gitOps="Pause", pauseFor="2h")))
ALLOWED = replace(PAUSING, cluster=(cluster_policy(gitOpsPause="TeamDecides"),))


def paused(found: Orders, owner: Owner | None) -> Pause | None:
    s: Situation = situation(orders=found, owner=owner)
    return pause_of(s, governing_rule(found, deployment().labels, ROLLBACK))


def test_an_owner_is_paused_for_as_long_as_the_rule_says() -> None:
    made = paused(ALLOWED, OWNED)
    assert made is not None
    assert (made.title, made.hold_seconds) == ("Kustomization/flux-system/apps", 7200)


@pytest.mark.parametrize(
    ("found", "owner"),
    [
        (ALLOWED, None),
        (ALLOWED, replace(OWNED, pause=None)),
        (PAUSING, OWNED),  # nobody of the platform allows it
        (replace(orders(), cluster=ALLOWED.cluster), OWNED),  # the rule says Refuse
        (replace(PAUSING, cluster=(*ALLOWED.cluster, cluster_policy("b", gitOpsPause="Deny"))), OWNED),
        (replace(PAUSING, cluster=(cluster_policy("b", namespaces=["x"], gitOpsPause="TeamDecides"),)), OWNED),
        (replace(ALLOWED, policies=()), OWNED),
    ],
)
def test_nothing_is_paused_without_both_saying_so(found: Orders, owner: Owner | None) -> None:
    assert paused(found, owner) is None
