"""Rights: what a denial in a log means, held against what roles and bindings grant."""

from __future__ import annotations

from typing import Any

import pytest

from nightorders.diagnosis.anomalies.access import Right, access, grants, parse
from nightorders.diagnosis.hypotheses import Candidate
from nightorders.diagnosis.world import World

from .between import MINUTE, NS, Raw, app, made, released, template, told, web, world, written


def denial(verb: str = "list", resource: str = "configmaps", group: str = "", account: str = "planner", quote: str = '"') -> str:
    text = f'{resource} is forbidden: User "system:serviceaccount:{NS}:{account}" cannot {verb} resource "{resource}"'
    text += f' in API group "{group}" in the namespace "{NS}"'
    return text.replace('"', quote)


def planner(account: str = "planner") -> Raw:
    return template(web("planner"), labels={"app": "planner"}, serviceAccountName=account)


def role(name: str = "planner", *verbs: str, resource: str = "configmaps", kind: str = "Role", **more: Any) -> Raw:
    return made(kind, name, rules=[{"apiGroups": [""], "resources": [resource], "verbs": list(verbs)}], **more)


def binding(name: str = "planner", *, to: str = "planner", account: str = "planner", kind: str = "Role", **more: Any) -> Raw:
    subjects = [{"kind": "ServiceAccount", "name": account, "namespace": NS}]
    return made("RoleBinding", name, roleRef={"kind": kind, "name": to}, subjects=subjects, **more)


def scene(*more: Raw | list[Raw], line: str = "", planned: list[Raw] | None = None, **kw: Any) -> World:
    parts = planned or app("planner", planner(), ready=False)
    pod = next(o["metadata"]["name"] for o in parts if o["kind"] == "Pod")
    return world(parts, made("ServiceAccount", "planner"), *more, logs={pod: [line or denial()]}, **kw)


def found(w: World) -> list[Candidate]:
    return list(access(w))


@pytest.mark.parametrize("quote", ['"', '\\"'])
def test_the_words_of_a_denial(quote: str) -> None:
    right = Right("watch", "apps", "deployments", NS)
    assert parse(denial("watch", "deployments", "apps", quote=quote)) == (NS, "planner", right)
    assert parse("forbidden: no") is None


@pytest.mark.parametrize(
    ("rule", "yes"),
    [
        ({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}, True),
        ({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, True),
        ({"apiGroups": ["apps"], "resources": ["configmaps"], "verbs": ["list"]}, False),
        ({"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}, False),
        ({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"], "resourceNames": ["one"]}, False),
        ({"apiGroups": "x", "resources": None, "verbs": 3}, False),
    ],
)
def test_what_a_rule_grants(rule: Raw, yes: bool) -> None:
    assert grants([rule], Right("list", "", "configmaps", NS)) is yes


def test_a_role_that_lost_a_verb() -> None:
    (c,) = found(scene(role("planner", "get", managed=[written(5 * MINUTE, "rules")]), binding()))
    assert told([c]) == ["AccessDenied Role/planner Edit A"]
    assert "grants get on configmaps, not list" in c.statement
    assert c.hits == ("Deployment/planner", "ServiceAccount/planner")


def test_a_role_without_any_rule_for_it_and_without_a_change_is_less_sure() -> None:
    assert told(found(scene(role("planner", "get", resource="pods"), role("other", "get", resource="leases"), binding()))) == [
        "AccessDenied Role/planner B"
    ]


def test_a_right_that_is_there_again_is_no_fault() -> None:
    assert found(scene(role("planner", "get", "list"), binding())) == []
    cluster = role("reader", "list", kind="ClusterRole")
    assert found(scene(cluster, binding(to="reader", kind="ClusterRole"))) == []
    group = made(
        "RoleBinding",
        "all",
        roleRef={"kind": "Role", "name": "planner"},
        subjects=[{"kind": "Group", "name": f"system:serviceaccounts:{NS}"}],
    )
    assert found(scene(role("planner", "list"), group)) == []


def test_a_binding_to_a_role_that_is_not_there() -> None:
    gone = found(scene(binding()))
    assert told(gone) == ["AccessDenied Role/planner Deletion B", "AccessDenied RoleBinding/planner C"]
    misspelt = found(scene(binding(to="plannr"), role("planner", "list")))
    assert told(misspelt)[0] == "AccessDenied RoleBinding/planner A"


def test_a_binding_of_a_misspelt_account() -> None:
    (c,) = found(scene(binding(account="planer"), role("planner", "list")))
    assert told([c]) == ["AccessDenied RoleBinding/planner A"]
    assert "ServiceAccount/planer" in c.statement


def test_a_denial_that_hurts_nobody_and_was_always_so_is_a_lead_only() -> None:
    w = scene(role("planner", "get"), binding(), planned=app("planner", planner()))
    assert told(found(w)) == ["AccessDenied Role/planner C"]
    w = scene(role("planner", "get", managed=[written(MINUTE, "rules")]), binding(), planned=app("planner", planner()))
    assert told(found(w)) == ["AccessDenied Role/planner Edit A"]


def test_no_binding_at_all() -> None:
    (c,) = found(scene(role("planner", "list")))
    assert told([c]) == ["AccessDenied RoleBinding/planner Deletion B"]
    (bare,) = found(scene())
    assert told([bare]) == ["AccessDenied ServiceAccount/planner C"]


def test_roles_about_other_things_do_not_hide_a_binding_that_is_gone() -> None:
    other = role("leases", "get", resource="leases")
    w = scene(other, binding("leases", to="leases"), role("planner", "list"))
    assert told(found(w)) == ["AccessDenied RoleBinding/planner Deletion B"]


def test_a_release_that_dropped_the_account() -> None:
    parts = released("planner", planner(), template(web("planner"), labels={"app": "planner"}), ready=False)
    w = scene(role("planner", "list"), binding(), planned=parts, line=denial(account="default"))
    (c,) = found(w)
    assert told([c]) == ["AccessDenied Deployment/planner Release A"]
    assert "ServiceAccount/planner may" in c.statement


def test_lines_about_other_accounts_and_other_namespaces_are_not_ours() -> None:
    assert found(scene(binding(), line=denial(account="somebody"))) == []
    assert found(scene(binding(), line=denial().replace(f'in the namespace "{NS}"', 'in the namespace "far"'))) == []
    assert found(scene(binding(), line=denial().replace(f":{NS}:", ":far:"))) == []


def test_what_was_not_looked_at_caps_the_grade() -> None:
    w = scene(role("planner", "get", managed=[written(MINUTE, "rules")]), binding(), unread=["ClusterRoleBinding"])
    assert told(found(w)) == ["AccessDenied Role/planner Edit B"]


NO_TOKEN = "Failed to load config: open /var/run/secrets/kubernetes.io/serviceaccount/token: no such file or directory"


def test_a_token_that_is_not_mounted() -> None:
    without = {**planner(), "spec": {**planner()["spec"], "automountServiceAccountToken": False}}
    w = scene(planned=released("planner", planner(), without, ready=False), line=NO_TOKEN)
    assert told(found(w)) == ["AccessDenied Deployment/planner Release A"]
    account = made(
        "ServiceAccount", "planner", automountServiceAccountToken=False, managed=[written(MINUTE, "automountServiceAccountToken")]
    )
    parts = app("planner", planner(), ready=False)
    w = world(parts, account, logs={"planner-0001-0": [NO_TOKEN]})
    assert told(found(w)) == ["AccessDenied ServiceAccount/planner Edit A"]
    assert found(scene(line=NO_TOKEN)) == []
