"""A plan's digest binds everything that a human approves; the same plan staged again keeps it."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import Any

import pytest

from nightorders.api.meta import Level
from nightorders.api.v1alpha1 import IncidentStatus
from nightorders.api.v1alpha1.incident import CheckSpec, Incident, Pause, Plan
from nightorders.domain.digest import sha256
from nightorders.domain.plan import content_sha256, execution_id, plan_digest, rule_verify, stage, verify_spec
from nightorders.domain.snapshot import KubeObject
from tests.unit.domain.make import (
    MINUTE,
    NOW,
    changed,
    deployment,
    governing,
    incident,
    needs_of,
    orders,
    policy,
    proposal,
    rule_json,
)

P = proposal()
VERIFY = rule_verify(P, governing().rule, "shop")
X = sha256("another")


def with_rule(**rule: Any) -> Any:
    return governing(orders(policy("web", rule_json(**rule))))


def with_plan(p: Plan) -> Incident:
    return incident(IncidentStatus(plan=p, plan_sequence=p.sequence))


def staged(
    p: Any = P,
    *,
    of: Incident | None = None,
    level: Level = Level.L3,
    ordered: Level = Level.L3,
    found: Any = None,
    at: Any = NOW,
    pause: Pause | None = None,
    **needs: Any,
) -> Plan:
    found = found or governing()
    return stage(of or incident(), p, found, level, ordered, None, at, needs=needs_of(found, **needs), pause=pause)


# ---------------------------------------------------------------- digest

VARIED: dict[str, tuple[str, Any, Any]] = {
    "incident": ("uid-2", P, VERIFY),
    "target": ("uid-incident", replace(P, target=changed(P.target, ("metadata", "uid"), "uid-recreated")), VERIFY),
    "before": ("uid-incident", replace(P, before_sha256=X), VERIFY),
    "after": ("uid-incident", replace(P, after_sha256=X), VERIFY),
    "parameters: revision uid": ("uid-incident", replace(P, parameters=P.parameters.model_copy(update={"revision_uid": "u"})), VERIFY),
    "parameters: template": ("uid-incident", replace(P, parameters=P.parameters.model_copy(update={"template_sha256": X})), VERIFY),
    "parameters: revision": ("uid-incident", replace(P, parameters=P.parameters.model_copy(update={"to_revision": "5"})), VERIFY),
    "parameters: proof": ("uid-incident", replace(P, parameters=P.parameters.model_copy(update={"proven_healthy": False})), VERIFY),
    "inverse: object": ("uid-incident", replace(P, inverse=P.inverse.model_copy(update={"ref": "ReplicaSet/x"})), VERIFY),
    "inverse: uid": ("uid-incident", replace(P, inverse=P.inverse.model_copy(update={"uid": "u"})), VERIFY),
    "inverse: bytes": ("uid-incident", replace(P, inverse=P.inverse.model_copy(update={"sha256": X})), VERIFY),
    "verification: window": ("uid-incident", P, VERIFY.model_copy(update={"seconds": 301})),
    "verification: interval": ("uid-incident", P, VERIFY.model_copy(update={"every_seconds": 16})),
    "verification: on worse": ("uid-incident", P, VERIFY.model_copy(update={"on_worse": "Escalate"})),
    "verification: on unchanged": ("uid-incident", P, VERIFY.model_copy(update={"on_unchanged": "Escalate"})),
    "verification: on no data": ("uid-incident", P, VERIFY.model_copy(update={"on_no_data": "Undo"})),
    "verification: checks": ("uid-incident", P, VERIFY.model_copy(update={"checks": (CheckSpec(name="a", condition="Available"),)})),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIED)
def test_the_digest_changes_with_everything_that_is_approved(name: str) -> None:
    assert content_sha256(*VARIED[name]) != content_sha256("uid-incident", P, VERIFY)


def test_what_is_paused_around_it_is_approved_with_it() -> None:
    apps = Pause(api_version="argoproj.io/v1alpha1", kind="Application", namespace="argocd", name="web", hold_seconds=60)
    ways = (None, apps, apps.model_copy(update={"name": "all"}), apps.model_copy(update={"hold_seconds": 3600}))
    assert len({content_sha256("uid-incident", P, VERIFY, pause) for pause in ways}) == len(ways)
    assert staged(pause=apps).pause == apps
    assert staged(pause=apps).digest != staged().digest


def test_all_variants_have_digests_of_their_own() -> None:
    assert len({content_sha256(*v) for v in VARIED.values()}) == len(VARIED)


def test_the_digest_does_not_depend_on_what_moves_by_itself() -> None:
    later = replace(
        P, target=changed(changed(P.target, ("metadata", "resourceVersion"), "9"), ("status", "replicas"), 1), impact="other words"
    )
    assert content_sha256("uid-incident", later, VERIFY) == content_sha256("uid-incident", P, VERIFY)


def test_a_place_among_the_plans_makes_another_digest() -> None:
    assert plan_digest(X, 1) != plan_digest(X, 2) != X
    assert plan_digest(X, 1) == plan_digest(X, 1)


@pytest.mark.parametrize("n", range(20))
def test_an_execution_id_fits_a_label_value(n: int) -> None:
    made = execution_id(plan_digest(X, n))
    assert re.fullmatch(r"no-[0-9a-f]{20}", made)
    assert len(made) <= 63
    assert made == execution_id(plan_digest(X, n)) != execution_id(plan_digest(X, n + 1))


# ---------------------------------------------------------------- staging


def test_the_first_plan_has_sequence_one() -> None:
    p = staged()
    assert (p.sequence, p.digest) == (1, plan_digest(p.content_sha256, 1))


def test_the_same_content_staged_again_keeps_sequence_and_digest() -> None:
    first = staged()
    again = staged(of=with_plan(first), at=NOW + 20 * MINUTE)
    assert (again.sequence, again.digest, again.content_sha256) == (first.sequence, first.digest, first.content_sha256)
    assert again.expires_at == NOW + 35 * MINUTE


def test_new_content_gets_the_next_sequence() -> None:
    first = staged()
    second = staged(replace(P, after_sha256=X), of=with_plan(first))
    assert second.sequence == 2
    assert second.digest != first.digest


def test_a_plan_that_was_withdrawn_comes_back_under_another_digest() -> None:
    """So an approval of the withdrawn one does not fit, although the content is the same."""
    first = staged()
    second = staged(of=incident(IncidentStatus(plan=None, plan_sequence=1)))
    assert second.content_sha256 == first.content_sha256
    assert (second.sequence, second.digest == first.digest) == (2, False)


@pytest.mark.parametrize(
    ("first", "then", "kept"),
    [(Level.L3, Level.L4, Level.L3), (Level.L4, Level.L3, Level.L3), (Level.L2, Level.L4, Level.L2), (Level.L3, Level.L3, Level.L3)],
)
def test_a_plan_staged_again_keeps_the_lowest_order(first: Level, then: Level, kept: Level) -> None:
    assert staged(of=with_plan(staged(ordered=first)), ordered=then).staged_level == kept


def test_a_new_plan_is_under_the_orders_of_its_time() -> None:
    assert staged(replace(P, after_sha256=X), of=with_plan(staged(ordered=Level.L2)), ordered=Level.L4).staged_level == Level.L4


@pytest.mark.parametrize(("level", "waits"), [(Level.L2, False), (Level.L3, True), (Level.L4, False)])
def test_only_a_plan_at_the_gate_expires_and_can_be_answered(level: Level, waits: bool) -> None:
    p = staged(level=level)
    assert bool(p.expires_at) is bool(p.approve) is bool(p.reject) is waits


def test_the_needs_stand_in_the_plan_while_it_waits() -> None:
    assert staged(level=Level.L3, count=3).needs == needs_of(governing(), count=3)
    assert staged(level=Level.L2).needs is staged(level=Level.L4).needs is None


def test_during_a_freeze_the_command_gives_an_emergency_approval_with_its_reason() -> None:
    p = staged(frozen_by="Cluster")
    assert p.approve.startswith("at=at-$(date +%s); kubectl annotate incident ")
    assert f'"emergency.nightorders.dev/$at={p.digest}|' in p.approve
    assert p.approve.endswith('"why.nightorders.dev/$at=REASON"')
    assert "emergency" not in staged().approve


def test_expiry_is_the_rules() -> None:
    assert staged(found=with_rule(approval={"expiresAfter": "1h30m"})).expires_at == NOW + 90 * MINUTE


def test_the_approval_command_names_this_plan_and_asks_the_api_server_who_you_are() -> None:
    p = staged()
    words = shlex.split(p.approve)
    assert words[:6] == ["kubectl", "annotate", "incident", "checkout-rolloutstuck-0123456789-1", "-n", "shop"]
    assert f"={p.digest}|$(kubectl auth whoami" in words[6]
    assert words[6].startswith("approve.nightorders.dev/")
    assert shlex.split(p.reject)[6].startswith("reject.nightorders.dev/")


def test_a_plan_without_a_dry_run_says_so() -> None:
    assert staged(level=Level.L2).dry_run is None


# ---------------------------------------------------------------- verification as ordered


def test_variables_are_filled_in_and_escaped() -> None:
    rule = with_rule(
        verify={
            "checks": [{"name": "e", "promql": 'x{n="$name",ns="$namespace",k="$kind",s="$name"}', "max": "1"}],
            "for": "90s",
            "every": "5s",
        }
    ).rule
    spec = verify_spec(rule.verify, {"namespace": "shop", "name": 'a"b\\c', "kind": "Deployment"})
    assert spec.checks[0].promql == 'x{n="a\\"b\\\\c",ns="shop",k="Deployment",s="a\\"b\\\\c"}'
    assert (spec.seconds, spec.every_seconds, spec.checks[0].max) == (90, 5, "1")


def test_namespace_is_not_taken_for_name() -> None:
    rule = with_rule(verify={"checks": [{"name": "e", "promql": 'up{a="$namespace",b="$name"}', "max": "1"}]}).rule
    assert rule_verify(P, rule, "shop").checks[0].promql == 'up{a="shop",b="checkout"}'


@pytest.mark.parametrize(("window", "seconds"), [("1s", 1), ("1500ms", 1), ("10ms", 1), ("24h", 86400)])
def test_a_window_is_at_least_a_second(window: str, seconds: int) -> None:
    assert rule_verify(P, with_rule(verify={"for": window, "every": "1s"}).rule, "shop").seconds == seconds


def test_a_plan_survives_the_wire() -> None:
    p = staged()
    assert Plan.model_validate(p.wire()) == p


def test_the_target_of_the_plan_is_the_diagnosed_object() -> None:
    p, t = staged(), deployment()
    assert isinstance(t, KubeObject)
    assert (p.target.uid, p.target.kind, p.target.name) == (t.uid, "Deployment", "checkout")
    assert (p.target.before_sha256, p.target.after_sha256) == (P.before_sha256, P.after_sha256)
