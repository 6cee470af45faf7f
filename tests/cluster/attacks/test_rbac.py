"""What the roles give, and what they do not, as the API server's authorizer sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.cluster.attacks.world import MANIFESTS, Json, World, deployment

pytestmark = pytest.mark.cluster
ACTION = "nightorders-action-rollbackworkload"


def _can(world: World, verb: str, resource: str, *more: str, namespace: str | None = None) -> bool:
    where = "-A" if namespace == "" else f"--namespace={namespace or world.namespace}"
    answer = world.operator.cluster.kubectl(
        "auth", "can-i", verb, resource, *more, where, check=False, kubeconfig=world.operator.kubeconfig
    )
    assert answer.stdout.strip() in {"yes", "no"}, answer.stderr
    return answer.stdout.strip() == "yes"


def _rules(world: World, namespace: str) -> list[Json]:
    """Everything that the operator's account may do in a namespace: the authorizer's own list."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    answer = world.operator.may("create", "--validate=false", "-f", "-", "-o", "json", document=review)
    status: Any = json.loads(answer)["status"]
    assert not status["incomplete"]
    rules: list[Json] = status["resourceRules"]
    return rules


@pytest.mark.promise(7)
def test_30_the_operators_rights_hold_no_wildcard_no_secret_and_no_way_to_more(world: World) -> None:
    """The complete list, in an ordinary namespace and in its own."""
    for namespace in (world.namespace, "nightorders-system"):
        for rule in _rules(world, namespace):
            said = json.dumps(rule)
            verbs, resources = set(rule["verbs"]), set(rule["resources"])
            assert "*" not in verbs | resources | set(rule["apiGroups"]), said
            assert not verbs & {
                "delete",
                "deletecollection",
                "approve",
                "approve-emergency",
                "stop",
                "grant-l4",
                "emergency-delete",
                "bind",
                "escalate",
                "impersonate",
            }, said
            assert not resources & {"secrets", "serviceaccounts/token", "pods/exec", "pods/attach", "pods/eviction", "nodes/proxy"}, said
            if verbs & {"create", "update", "patch"}:
                assert resources <= {
                    "incidents",
                    "incidents/status",
                    "remediationpolicies/status",
                    "clusterremediationpolicies/status",
                    "runbooks/status",
                    "ledgers",
                    "events",
                    "leases",
                    # questions, which change nothing; every account may ask them
                    "selfsubjectaccessreviews",
                    "selfsubjectrulesreviews",
                    "selfsubjectreviews",
                    # questions as well: who sends an alert, and whether that account may
                    "tokenreviews",
                    "subjectaccessreviews",
                }, said


@pytest.mark.promise(7)
def test_30_the_operator_cannot(world: World) -> None:
    for verb, resource in (
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "remediationpolicies.nightorders.dev"),
        ("patch", "remediationpolicies.nightorders.dev"),
        ("patch", "clusterremediationpolicies.nightorders.dev"),
        ("approve", "incidents.nightorders.dev"),
        ("delete", "incidents.nightorders.dev"),
        ("delete", "ledgers.nightorders.dev"),
        ("patch", "deployments.apps"),
        ("create", "configmaps"),
        ("patch", "leases.coordination.k8s.io"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("update", "validatingadmissionpolicies.admissionregistration.k8s.io"),
    ):
        assert not _can(world, verb, resource, namespace=""), f"{verb} {resource} in every namespace"
        assert not _can(world, verb, resource), f"{verb} {resource}"


def test_the_operator_can_do_its_work(world: World) -> None:
    """The twin: without these it would stand still."""
    for verb, resource in (
        ("create", "incidents.nightorders.dev"),
        ("patch", "incidents.nightorders.dev"),
        ("watch", "remediationpolicies.nightorders.dev"),
        ("create", "ledgers.nightorders.dev"),
        ("create", "events"),
        ("watch", "namespaces"),
        ("list", "replicasets.apps"),
        ("list", "events.events.k8s.io"),
    ):
        assert _can(world, verb, resource), f"{verb} {resource}"
    for verb in ("patch", "get"):
        assert _can(world, verb, "incidents.nightorders.dev", "--subresource=status")
    assert _can(world, "get", "pods", "--subresource=log")
    assert _can(world, "get", "configmaps/nightorders-stop")
    assert _can(world, "create", "leases.coordination.k8s.io", namespace="nightorders-system")
    assert _can(world, "update", "leases.coordination.k8s.io/nightorders", namespace="nightorders-system")
    for name in ("customresourcedefinitions/incidents.nightorders.dev", "validatingadmissionpolicies/nightorders-approvals"):
        world.operator.may("get", name)


def test_2_it_reads_every_policy_and_binding_that_ships_and_they_are_as_shipped(world: World) -> None:
    """The operator compares. It must be allowed to get each one by name, and find live spec == shipped spec, cleanly typed."""
    files = sorted((MANIFESTS / "admission").glob("*.yaml"))
    shipped = [d for path in files for d in yaml.safe_load_all(path.read_text()) if d["kind"] != "Kustomization"]
    assert len(shipped) == 19
    for document in shipped:
        name = document["metadata"]["name"]
        live = json.loads(world.operator.may("get", document["kind"], name, "-o", "json"))
        assert live["spec"] == document["spec"], name
        if document["kind"] == "ValidatingAdmissionPolicy":
            assert live["status"]["typeChecking"] == {}, name
            assert live["status"]["observedGeneration"] == live["metadata"]["generation"], name
        else:
            assert live["spec"]["validationActions"] == ["Deny", "Audit"], name


@pytest.mark.promise(7)
def test_30_the_right_to_act_is_where_it_was_bound_and_only_there(world: World) -> None:
    """As installed: nowhere (L1). Bound with the example, as a user would: there, patch on Deployments and nothing besides."""
    world.cluster.apply(deployment("checkout", world.namespace))
    act = ("patch", "deployment", "checkout", "--type=merge", "-p", '{"metadata":{"labels":{"nightorders.dev/execution":"x-1"}}}')
    assert "cannot patch resource" in world.operator.run(*act).stderr
    world.admin.may("apply", "-f", str(MANIFESTS / "actions" / "rollback-workload" / "rolebinding.example.yaml"))
    world.operator.may(*act)
    assert not _can(world, "patch", "deployments.apps", namespace="default")
    for verb, resource in (
        ("update", "deployments.apps"),
        ("delete", "deployments.apps"),
        ("patch", "replicasets.apps"),
        ("patch", "pods"),
    ):
        assert not _can(world, verb, resource), f"{verb} {resource}"
    assert not _can(world, "patch", "deployments.apps", "--subresource=scale")
    world.admin.may("delete", "rolebinding", ACTION)
    assert "cannot patch resource" in world.operator.run(*act).stderr


@pytest.mark.promise(7)
def test_30_install_binds_no_role_to_act(world: World) -> None:
    everything = json.loads(world.admin.may("get", "rolebindings,clusterrolebindings", "-A", "-o", "json"))["items"]
    of_install = [b for b in everything if b["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "nightorders"]
    roles = {b["roleRef"]["name"] for b in of_install if b["metadata"].get("namespace") in (None, "nightorders-system")}
    signals = [b for b in of_install if b["roleRef"]["name"] == "nightorders-signaller"]
    assert roles == {"nightorders", "nightorders-leader-election", "nightorders-reader", "nightorders-reader-logs", "nightorders-signaller"}
    assert all(s["name"] == "nightorders" for b in of_install if b not in signals for s in b["subjects"])
    assert [s["name"] for b in signals for s in b["subjects"]] == ["nightorders-alertmanager"]


def test_3_16_the_verbs_of_emergencies_are_not_given_away_with_the_common_roles(world: World) -> None:
    """Neither by the common roles nor by ours that are for something else, and those of the platform not within a namespace."""
    common = ("view", "edit", "admin", "nightorders-approver", "nightorders-incident-author", "nightorders-policy-author")
    asked = (
        ("approve-emergency", "incidents.nightorders.dev"),
        ("approve-emergency", "clusterremediationpolicies.nightorders.dev"),
        ("stop", "remediationpolicies.nightorders.dev"),
        ("stop", "clusterremediationpolicies.nightorders.dev"),
        ("grant-l4", "remediationpolicies.nightorders.dev"),
        ("emergency-delete", "incidents.nightorders.dev"),
    )
    person = world.user("person", *common)
    special = world.user("special", "nightorders-emergency-approver", "nightorders-stop-lifter", "nightorders-platform")
    for verb, resource in asked:
        where = ("-A",) if resource.startswith("cluster") else ()  # asked within a namespace, RoleBindings would be looked at
        assert person.run("auth", "can-i", verb, resource, *where).stdout.strip() == "no", f"{verb} {resource}"
        allowed = special.run("auth", "can-i", verb, resource, *where).stdout.strip()
        of_the_namespace = (verb, resource) in (asked[0], asked[2])
        assert allowed == ("yes" if of_the_namespace else "no"), f"{verb} {resource}"
    with world.everywhere(special, "nightorders-platform"):
        for verb in ("stop", "approve-emergency"):
            assert special.run("auth", "can-i", verb, "clusterremediationpolicies.nightorders.dev", "-A").stdout.strip() == "yes"


@pytest.mark.promise(7)
def test_20_incidents_are_not_given_away_with_the_common_roles(world: World) -> None:
    """They quote logs and ConfigMaps: neither view nor edit nor admin of a namespace reads them, or approves."""
    world.incident()
    for role in ("view", "edit", "admin"):
        person = world.user(role, role)
        assert "cannot get resource" in person.run("get", "incident", "inc").stderr
        assert person.run("auth", "can-i", "approve", "incidents.nightorders.dev").stdout.strip() == "no"
    reader = world.user("reader", "nightorders-incident-reader")
    reader.may("get", "incident", "inc")
    assert reader.run("auth", "can-i", "patch", "incidents.nightorders.dev").stdout.strip() == "no"


@pytest.mark.promise(7)
def test_3_an_admin_cannot_give_herself_the_verb_approve(world: World) -> None:
    boss = world.user("boss", "admin")
    answer = boss.run("create", "rolebinding", "me", "--clusterrole=nightorders-approver", "--user=boss")
    assert "attempting to grant RBAC permissions not currently held" in answer.stderr
    boss.may("create", "rolebinding", "viewers", "--clusterrole=view", "--user=guest")
