"""RollbackWorkload: when it fits, what it chooses, what caps it, and that its patches do exactly what the plan says."""

from __future__ import annotations

import copy
import json
import shlex
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightorders.actions import CATALOGUE
from nightorders.actions.base import Unavailable
from nightorders.actions.rollback import REVISION, RollbackWorkload, configmaps_of, full_json_patch, json_patch, template_patch
from nightorders.api.meta import ROLLBACK_BARRIER_ANNOTATION, Level
from nightorders.api.v1alpha1 import ActionType, Category
from nightorders.api.v1alpha1.incident import ChangeRef, Plan
from nightorders.domain.digest import bare_template, spec_sha256, template_sha256
from nightorders.domain.mergepatch import apply_patch
from nightorders.domain.plan import NoProposal, Proposal
from nightorders.domain.reasons import Reason
from nightorders.domain.snapshot import Absent, KubeObject, NotLooked
from tests.unit.domain.make import (
    HOUR,
    NOW,
    changed,
    deployment,
    diagnosis,
    healthy_revision,
    hypothesis,
    incident,
    ledger,
    plan,
    pod_of,
    replica_set,
    snapshot,
    stamp,
    template,
)

ACTION = RollbackWorkload()
NO_RECORD = ledger(healthy_revisions=())


def ask(
    *sets: KubeObject, target: KubeObject | None = None, books: Any = None, said: Any = None, more: tuple[KubeObject, ...] = (), **look: Any
) -> Proposal | NoProposal:
    target = target or deployment()
    seen = snapshot(target, *(sets or (replica_set(6), replica_set(7))), *more, **look)
    return ACTION.propose(incident(), seen, target, said or diagnosis(), books or ledger(), NOW)


def proposed(*sets: KubeObject, **fields: Any) -> Proposal:
    answer = ask(*sets, **fields)
    assert isinstance(answer, Proposal), answer
    return answer


def refusal(*sets: KubeObject, **fields: Any) -> str:
    answer = ask(*sets, **fields)
    assert isinstance(answer, NoProposal)
    assert answer.reason is Reason.NO_ACTION_FITS
    assert answer.alternatives[0].why == answer.message
    return answer.message


def test_the_catalogue_is_closed_and_every_member_has_its_action() -> None:
    assert set(CATALOGUE) == set(ActionType)
    assert all(CATALOGUE[t].type is t for t in CATALOGUE)


def test_its_rights_are_to_patch_deployments_and_to_read_replica_sets() -> None:
    assert {(r.group, r.resource, r.verbs) for r in ACTION.rules} == {
        ("apps", "deployments", ("get", "patch")),
        ("apps", "replicasets", ("get",)),
    }


# ---------------------------------------------------------------- which revision


@pytest.mark.parametrize(
    ("sets", "recorded", "chosen", "proven"),
    [
        ([(6, 0), (7, 0)], [6], "6", True),
        ([(5, 0), (6, 0), (7, 0)], [5], "5", True),  # proven older over unproven newer
        ([(5, 0), (6, 0), (7, 0)], [5, 6], "6", True),
        ([(5, 0), (6, 2), (7, 0)], [5], "6", True),  # pods that serve now are a proof
        ([(5, 0), (6, 0), (7, 0)], [], "6", False),
        ([(4, 0), (7, 0)], [], "4", False),  # numbers may be missing
        ([(6, 0), (7, 1)], [6, 7], "6", True),  # the failing one is never the answer
    ],
)
def test_the_newest_proven_revision_is_chosen(sets: list[tuple[int, int]], recorded: list[int], chosen: str, proven: bool) -> None:
    made = [replica_set(n, ready=ready) for n, ready in sets]
    books = ledger(healthy_revisions=tuple(healthy_revision(replica_set(n)) for n in recorded))
    p = proposed(*made, books=books)
    assert (p.parameters.to_revision, p.parameters.proven_healthy) == (chosen, proven)
    assert p.parameters.revision_uid == f"uid-rs-{chosen}"
    assert p.parameters.template_sha256 == template_sha256(template(chosen))


@pytest.mark.threat(12)
@pytest.mark.promise(4)
def test_not_proven_needs_a_human() -> None:
    p = proposed(books=NO_RECORD)
    assert [(c.level, "never seen healthy" in c.because) for c in p.caps] == [(Level.L3, True)]
    assert "not proven healthy" in p.impact


def test_proven_has_no_cap() -> None:
    assert proposed().caps == ()


def test_without_any_ledger_nothing_is_proven() -> None:
    target = deployment()
    answer = ACTION.propose(incident(), snapshot(target, replica_set(6), replica_set(7)), target, diagnosis(), None, NOW)
    assert isinstance(answer, Proposal)
    assert not answer.parameters.proven_healthy


@pytest.mark.threat(12)
def test_a_record_of_another_object_of_that_revision_proves_nothing() -> None:
    record = healthy_revision(replica_set(6)).model_copy(update={"revision_uid": "uid-gone"})
    assert not proposed(books=ledger(healthy_revisions=(record,))).parameters.proven_healthy


# ---------------------------------------------------------------- when it does not fit


@pytest.mark.threat(12)
@pytest.mark.parametrize("edited", [5, 6])
def test_a_template_edited_since_it_was_seen_healthy_is_refused(edited: int) -> None:
    """threats.md 12: a planted template would be deployed by `rollout undo`."""
    planted = replica_set(edited, template("evil"))
    sets = [planted if n == edited else replica_set(n) for n in (5, 6, 7)]
    books = ledger(healthy_revisions=(healthy_revision(replica_set(5)), healthy_revision(replica_set(6))))
    assert f"ReplicaSet/checkout-{edited} is not what it was when it was seen healthy" in refusal(*sets, books=books)


@pytest.mark.parametrize("doubled", ["5", "6", "7"])
def test_a_revision_number_on_two_replica_sets_is_refused(doubled: str) -> None:
    intruder = replica_set(8, annotations={REVISION: doubled})
    message = refusal(replica_set(5), replica_set(6), replica_set(7), intruder)
    assert f"revision number {doubled} stands on more than one ReplicaSet" in message


def test_a_replica_set_of_another_owner_is_no_history() -> None:
    assert "no earlier revision" in refusal(replica_set(6, owner="uid-other"), replica_set(7))


@pytest.mark.parametrize("number", ["", "six", "-6", "6.0", "0x6", "６", "²", " 6", "6\n", "9" * 5000])
def test_a_replica_set_without_a_plain_number_is_no_history(number: str) -> None:
    assert "no earlier revision" in refusal(replica_set(6, annotations={REVISION: number}), replica_set(7))


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (diagnosis(hypothesis(change=None)), "no release of Deployment/checkout brought it in"),
        (diagnosis(hypothesis(change=ChangeRef(kind="Edit"))), "no release"),
        (diagnosis(hypothesis(change=ChangeRef(kind="None"))), "no release"),
        (diagnosis(hypothesis(object="ConfigMap/checkout")), "ConfigMap/checkout"),
        (diagnosis(hypothesis(refuted="disproved")), "no origin is shown"),
        (diagnosis(hypothesis(category=Category.UNKNOWN)), "no origin is shown"),
        (diagnosis(hypothesis(category=Category.NO_FAULT)), "no origin is shown"),
        (diagnosis(failing_revision="uid-rs-6"), "it was changed already"),
        (diagnosis(failing_revision=""), "it was changed already"),
    ],
)
def test_it_fits_only_a_fault_that_came_in_with_the_release_that_fails_now(said: Any, says: str) -> None:
    assert says in refusal(said=said)


def test_another_kind_is_not_handled() -> None:
    other = KubeObject(deployment().raw, "StatefulSet", "apps/v1")
    assert "handles Deployments, not StatefulSet" in refusal(target=other)


def test_a_template_that_no_replica_set_has_is_refused() -> None:
    assert "changed already" in refusal(target=deployment(template("8")))


def test_two_replica_sets_of_the_present_template_are_refused() -> None:
    assert "changed already" in refusal(replica_set(6), replica_set(7), replica_set(8, template("7")))


def test_the_first_revision_has_nowhere_to_go() -> None:
    assert "no earlier revision" in refusal(replica_set(7))


def test_replica_sets_that_could_not_be_listed_are_no_history() -> None:
    assert refusal(unseen=("ReplicaSet",))


# ---------------------------------------------------------------- preflight and caps


@pytest.mark.parametrize(("paused", "allowed"), [(True, False), (False, True), ("true", False)])
def test_a_paused_deployment_is_refused(paused: object, allowed: bool) -> None:
    verdict = proposed(target=deployment(spec={"paused": paused})).preflight
    assert verdict.allowed is allowed
    assert allowed or "rollout resume" in verdict.message


@pytest.mark.parametrize("where", ["target", "revision"])
@pytest.mark.parametrize("value", ["true", "", "false"])
def test_a_rollback_barrier_is_for_humans(where: str, value: str) -> None:
    notes = {ROLLBACK_BARRIER_ANNOTATION: value}
    if where == "target":
        p = proposed(target=deployment(notes=notes))
    else:
        p = proposed(replica_set(6), replica_set(7, annotations=notes))
    assert [c.level for c in p.caps] == [Level.L2]


def test_a_barrier_on_the_healthy_revision_is_behind_us() -> None:
    assert proposed(replica_set(6, annotations={ROLLBACK_BARRIER_ANNOTATION: "true"}), replica_set(7)).caps == ()


def configmap(at: Any, edited: Any = None, name: str = "settings") -> KubeObject:
    fields = [{"manager": "kubectl", "time": stamp(edited)}] if edited else []
    return KubeObject({"metadata": {"name": name, "creationTimestamp": stamp(at), "managedFields": fields}}, "ConfigMap", "v1")


WITH_MAP = template("6", envFrom=[{"configMapRef": {"name": "settings"}}])


@pytest.mark.parametrize(
    ("found", "capped"),
    [
        (configmap(NOW - 99 * HOUR), False),
        (configmap(NOW - 99 * HOUR, NOW - 4 * HOUR), False),
        (configmap(NOW - 99 * HOUR, NOW - 3 * HOUR), False),  # at the very moment of the release
        (configmap(NOW - 99 * HOUR, NOW - 2 * HOUR), True),
        (configmap(NOW - HOUR), True),  # made anew
        (configmap(NOW - HOUR, name="other"), False),
        (configmap(NOW - 99 * HOUR, None), False),
    ],
)
def test_a_configmap_changed_since_needs_a_human(found: KubeObject, capped: bool) -> None:
    books = ledger(healthy_revisions=(healthy_revision(replica_set(6, WITH_MAP)),))
    p = proposed(replica_set(6, WITH_MAP), replica_set(7), more=(found,), books=books)
    assert [c.level for c in p.caps] == ([Level.L3] if capped else [])


def test_a_template_names_its_configmaps_wherever_they_stand() -> None:
    pod = {
        "spec": {
            "containers": [
                {"envFrom": [{"configMapRef": {"name": "a"}}], "env": [{"valueFrom": {"configMapKeyRef": {"name": "b", "key": "k"}}}]},
            ],
            "initContainers": [{"envFrom": [{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}]}],
            "volumes": [
                {"configMap": {"name": "d"}},
                {"projected": {"sources": [{"configMap": {"name": "e"}}]}},
                {"configMap": {"name": 7}},
            ],
        }
    }
    assert configmaps_of(pod) == {"a", "b", "c", "d", "e"}


def test_pods_at_risk_are_the_healthy_ones_of_the_failing_revision() -> None:
    good, bad = replica_set(6, ready=2), replica_set(7)
    pods = (pod_of(good, "a", ready=True), pod_of(good, "b", ready=True), pod_of(bad, "c", ready=True), pod_of(bad, "d", ready=False))
    p = proposed(good, bad, more=pods)
    assert (p.pods_at_risk, p.workload_pods) == (1, 3)


def test_helm_is_mentioned_to_the_human() -> None:
    p = proposed(target=deployment(labels={"app.kubernetes.io/managed-by": "Helm"}, notes={"meta.helm.sh/release-name": "shop"}))
    assert "helm rollback" in p.impact


def test_other_revisions_are_alternatives_with_the_reason_why_not() -> None:
    books = ledger(healthy_revisions=(healthy_revision(replica_set(5)),))
    p = proposed(replica_set(4), replica_set(5), replica_set(6), replica_set(7), books=books)
    assert {a.action: a.why for a in p.alternatives if a.action.startswith("Rollback")} == {
        "RollbackWorkload to revision 6": "newer, but not proven healthy",
        "RollbackWorkload to revision 4": "older than the chosen one",
    }


# ---------------------------------------------------------------- the change itself

TEMPLATES = [
    template("6"),
    template("6", env=[{"name": "A", "value": "1"}]),
    template("6", args=["serve"], resources={"limits": {"memory": "1Gi"}}),
    {**template("6"), "metadata": {"labels": {"app": "checkout", "release": "six"}, "annotations": {"a": "b"}}},
    {
        "metadata": {"labels": {"app": "checkout"}},
        "spec": {"containers": [{"name": "app", "image": "x:6"}], "volumes": [], "hostNetwork": False},
    },
    {
        "metadata": {"labels": {"app": "checkout"}},
        "spec": {
            "containers": [{"name": "app", "image": "x:6"}],
            "initContainers": [{"name": "i", "image": "i:1"}],
            "nodeSelector": {"a": "b"},
        },
    },
]
BAD = [
    template("7"),
    template("7", env=[{"name": "A", "value": "1"}, {"name": "BROKEN", "value": "yes"}], livenessProbe={"exec": {"command": ["false"]}}),
    {
        **template("7", command=["/bin/false"]),
        "metadata": {"labels": {"app": "checkout", "extra": "x"}, "annotations": {"new": "note", "a": "c"}},
    },
]


def merged(target: KubeObject, patch: Any) -> KubeObject:
    return KubeObject(apply_patch(target.raw, patch), target.kind, target.api_version)


@pytest.mark.parametrize("good", range(len(TEMPLATES)))
@pytest.mark.parametrize("bad", range(len(BAD)))
def test_forward_and_backward_lead_exactly_to_the_intended_templates(good: int, bad: int) -> None:
    sets = replica_set(6, TEMPLATES[good]), replica_set(7, BAD[bad])
    target = deployment(BAD[bad])
    p = proposed(*sets, target=target, books=NO_RECORD)
    made = plan_of(p)
    there = merged(target, ACTION.forward(made, target, sets[0]))
    assert there.at("spec", "template") == bare_template(TEMPLATES[good])
    assert spec_sha256(there.at("spec")) == p.after_sha256 == made.target.after_sha256
    assert spec_sha256(merged(target, p.patch).at("spec")) == p.after_sha256
    back = merged(there, ACTION.backward(made, there, sets[1]))
    assert back.at("spec", "template") == bare_template(BAD[bad])
    assert spec_sha256(back.at("spec")) == p.before_sha256
    assert {k: v for k, v in there.at("spec").items() if k != "template"} == {k: v for k, v in target.at("spec").items() if k != "template"}


def plan_of(p: Proposal) -> Plan:
    target = plan().target.model_copy(update={"before_sha256": p.before_sha256, "after_sha256": p.after_sha256})
    return plan(parameters=p.parameters, inverse=p.inverse, target=target)


def test_what_the_release_brought_in_is_gone_after_the_rollback() -> None:
    p = proposed(replica_set(6), replica_set(7, BAD[1]), target=deployment(BAD[1]))
    container = merged(deployment(BAD[1]), p.patch).at("spec", "template", "spec", "containers", 0)
    assert container == {"name": "app", "image": "registry.example/checkout:6"}


JSON = st.recursive(
    st.sampled_from(["", "a", 1, True, False]),
    lambda x: st.lists(x, max_size=2) | st.dictionaries(st.sampled_from("abcd"), x, max_size=3),
    max_leaves=8,
)
POD = st.fixed_dictionaries({"spec": st.dictionaries(st.sampled_from(["containers", "volumes", "x"]), JSON, max_size=3)})


@settings(max_examples=60, deadline=None)
@given(POD, POD)
def test_any_template_can_be_put_back_exactly(good: dict[str, Any], bad: dict[str, Any]) -> None:
    target = deployment(copy.deepcopy(bad))
    after = merged(target, template_patch(target, bare_template(good)))
    assert template_sha256(after.at("spec", "template")) == template_sha256(good)
    back = merged(after, template_patch(after, bare_template(bad)))
    assert template_sha256(back.at("spec", "template")) == template_sha256(bad)


# ---------------------------------------------------------------- where the bytes come from


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    "source",
    [
        Absent("ReplicaSet/checkout-6", "GET", NOW),
        NotLooked("ReplicaSet/checkout-6", "forbidden"),
        replica_set(6, template("evil")),
        changed(replica_set(6), ("metadata", "uid"), "uid-recreated"),
    ],
)
def test_bytes_that_are_not_the_planned_ones_are_never_sent(source: Any) -> None:
    answer = ACTION.forward(plan(), deployment(), source)
    assert isinstance(answer, Unavailable)
    assert "checkout-6" in answer.because


@pytest.mark.parametrize("source", [Absent("ReplicaSet/checkout-7", "GET", NOW), replica_set(7, template("evil")), replica_set(6)])
def test_the_inverse_is_held_to_its_own_digest(source: Any) -> None:
    assert isinstance(ACTION.backward(plan(), deployment(), source), Unavailable)


def test_the_sources_are_the_two_replica_sets_of_the_plan() -> None:
    change, inverse = ACTION.sources(plan(), "shop")
    assert (change.kind, change.namespace, change.name) == ("ReplicaSet", "shop", "checkout-6")
    assert (inverse.kind, inverse.namespace, inverse.name) == ("ReplicaSet", "shop", "checkout-7")


# ---------------------------------------------------------------- for the human's hand


def applied(target: KubeObject, text: str) -> KubeObject:
    return KubeObject(jsonpatch.apply_patch(copy.deepcopy(dict(target.raw)), text), target.kind, target.api_version)


def test_a_change_of_images_only_comes_as_a_json_patch() -> None:
    target = deployment()
    text = json_patch(target, template("6"))
    assert applied(target, text).at("spec", "template") == template("6")
    ops = json.loads(text)
    assert ops[0] == {"op": "test", "path": "/metadata/uid", "value": "uid-checkout"}
    assert [o["op"] for o in ops] == ["test", "test", "replace"]


@pytest.mark.parametrize(
    "good",
    [
        template("6", env=[{"name": "A", "value": "secret"}]),
        template("6", args=["--password=x"]),
        {**template("6"), "metadata": {"labels": {"app": "checkout"}, "annotations": {"a": "b"}}},
        template("6;curl evil"),
        template("6$(id)"),
        template("6 "),
        template("6\n"),
        template("x" * 300),
        template("7"),
    ],
)
def test_anything_else_never_enters_the_incident(good: dict[str, Any]) -> None:
    assert json_patch(deployment(), good) == ""


@pytest.mark.parametrize("good", range(len(TEMPLATES)))
@pytest.mark.parametrize("bad", range(len(BAD)))
def test_the_full_json_patch_does_the_same_as_the_operators(good: int, bad: int) -> None:
    target = deployment(BAD[bad])
    theirs = applied(target, full_json_patch(target, bare_template(TEMPLATES[good])))
    ours = merged(target, template_patch(target, bare_template(TEMPLATES[good])))
    assert spec_sha256(theirs.at("spec")) == spec_sha256(ours.at("spec"))


@pytest.mark.threat(13)
@pytest.mark.parametrize("make", [json_patch, full_json_patch])
def test_a_pasted_patch_refuses_another_object_and_another_value(make: Any) -> None:
    text = make(deployment(), template("6"))
    for other in (deployment(uid="uid-recreated"), deployment(template("8"))):
        with pytest.raises(jsonpatch.JsonPatchTestFailed):
            applied(other, text)


@pytest.mark.threat(13)
@pytest.mark.promise(3)
@pytest.mark.parametrize("good", [template("6"), template("6", env=[{"name": "A", "value": "$(touch /tmp/x)"}])])
def test_commands_are_plain_words(good: dict[str, Any]) -> None:
    p = proposed(replica_set(6, good), replica_set(7), books=NO_RECORD)
    for argv in p.command:
        assert shlex.split(" ".join(argv)) == list(argv)
        assert all(c.isalnum() or c in "._:/=@,-" for word in argv for c in word)
    assert p.command[1][:4] == ("kubectl", "patch", "deployment", "checkout")
    assert (p.command[0][0] == "kubectl") is bool(p.json_patch)
    Plan.model_validate(replace_command(plan(), p).wire())


def replace_command(p: Plan, made: Proposal) -> Plan:
    return p.model_copy(update={"command": made.command, "patch": made.json_patch})


def test_the_proposal_is_made_for_the_object_that_was_read() -> None:
    target = deployment()
    p = proposed(target=target)
    assert p.target is target
    assert p.before_sha256 == spec_sha256(target.at("spec"))
    assert replace(p, patch={}).after_sha256 == p.after_sha256


# ---------------------------------------------------------------- who scales it, and how much at once


def autoscaler(kind: str = "Deployment", name: str = "checkout") -> KubeObject:
    raw = {"metadata": {"name": "checkout-hpa", "namespace": "shop"}, "spec": {"scaleTargetRef": {"kind": kind, "name": name}}}
    return KubeObject(raw, "HorizontalPodAutoscaler", "autoscaling/v2")


def test_where_an_autoscaler_owns_the_replicas_scaling_is_no_other_target() -> None:
    few = proposed(more=(autoscaler(),))
    many = proposed(target=deployment(spec={"replicas": 9}), more=(autoscaler(),))
    assert (few.scaled_by, few.before_sha256, few.after_sha256) == (many.scaled_by, many.before_sha256, many.after_sha256)
    assert few.scaled_by == "HorizontalPodAutoscaler/checkout-hpa"
    assert (
        proposed(
            target=deployment(template("8")), said=diagnosis(failing_revision="uid-rs-8"), more=(autoscaler(), replica_set(8))
        ).before_sha256
        != few.before_sha256
    )


@pytest.mark.parametrize("more", [(), (autoscaler("StatefulSet"),), (autoscaler(name="cart"),)])
def test_without_one_it_is(more: tuple[KubeObject, ...]) -> None:
    few, many = proposed(more=more), proposed(target=deployment(spec={"replicas": 9}), more=more)
    assert few.scaled_by == many.scaled_by == ""
    assert few.before_sha256 != many.before_sha256


@pytest.mark.parametrize(
    ("ready", "strategy", "at_once"), [(0, {}, 0), (2, {}, 1), (2, {"type": "Recreate"}, 2), (1, {"type": "Recreate"}, 1)]
)
def test_what_may_be_down_at_once_is_the_strategys_and_no_more_than_is_at_risk(ready: int, strategy: Any, at_once: int) -> None:
    seven = replica_set(7)
    pods = tuple(pod_of(seven, f"p{n}", ready=True) for n in range(ready))
    target = deployment(spec={"strategy": strategy}) if strategy else deployment()
    made = proposed(replica_set(6), seven, target=target, more=pods)
    assert (made.pods_at_risk, made.at_once, made.undo) == (ready, at_once, "Exact")
