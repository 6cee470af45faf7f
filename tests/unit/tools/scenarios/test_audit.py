"""Which requests of the audit log count against the operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.scenarios.audit import Log, Mutation, Target, covered, mutation

OPERATOR = "system:serviceaccount:nightorders-system:nightorders"


def event(verb: str = "patch", resource: str = "deployments", *, code: int = 200, user: str = OPERATOR, **more: Any) -> dict[str, Any]:
    ref = {"resource": resource, "namespace": "shop", "name": "web", **more.pop("ref", {})}
    return {
        "stage": "ResponseComplete",
        "verb": verb,
        "user": {"username": user},
        "objectRef": ref,
        "responseStatus": {"code": code},
        "requestURI": "/x",
        "stageTimestamp": "2026-01-01T00:00:00.5Z",
        **more,
    }


@pytest.mark.parametrize(
    "row",
    [
        event(),
        event("delete", "pods"),
        event("deletecollection", "pods", ref={"name": ""}),
        event("update", "deployments", ref={"subresource": "scale"}),
        event("create", "pods", ref={"subresource": "eviction"}),
        event("get", "pods", ref={"subresource": "exec"}, code=101),
        event("create", "serviceaccounts", ref={"subresource": "token"}),
        event(user="mallory", impersonatedUser={"username": OPERATOR}),
        event(user="system:serviceaccount:nightorders-system:another"),
        event("create", "localsubjectaccessreviews", ref={"apiGroup": "authorization.k8s.io"}),
    ],
)
def test_what_changes_something_counts(row: dict[str, Any]) -> None:
    found = mutation(row)
    assert found is not None
    assert found.succeeded


@pytest.mark.parametrize(
    "row",
    [
        event("get"),
        event("list"),
        event("watch"),
        event(user="dana"),
        event(requestURI="/x?dryRun=All"),
        event("delete", requestObject={"kind": "DeleteOptions", "dryRun": ["All"]}),
        event("create", "events"),
        event("create", "events", ref={"apiGroup": "events.k8s.io"}),
        event("update", "leases", ref={"apiGroup": "coordination.k8s.io"}),
        event("create", "tokenreviews", ref={"apiGroup": "authentication.k8s.io"}),
        event("create", "subjectaccessreviews", ref={"apiGroup": "authorization.k8s.io"}),
        event("create", "selfsubjectaccessreviews", ref={"apiGroup": "authorization.k8s.io"}),
        event("patch", "incidents", ref={"apiGroup": "nightorders.dev", "subresource": "status"}),
    ],
)
def test_what_is_exempt_does_not(row: dict[str, Any]) -> None:
    assert mutation(row) is None


def test_refused_attempts_are_told_apart() -> None:
    found = mutation(event(code=403))
    assert found is not None
    assert (found.refused, found.succeeded) == (True, False)
    conflict = mutation(event(code=409))
    assert conflict is not None
    assert (conflict.refused, conflict.succeeded) == (False, False)


def test_the_log_is_read_on_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text(json.dumps(event()) + "\n" + json.dumps(event("delete", "pods"))[:40])
    log = Log(path)
    mark = log.mark()
    assert mark == 1  # the half line waits for its other half
    path.write_text(json.dumps(event()) + "\n" + json.dumps(event("delete", "pods")) + "\n" + json.dumps(event(user="dana")) + "\n")
    assert [m.verb for m in log.since(mark)] == ["delete"]
    assert log.since(0)[0].when == pytest.approx(1767225600.5)


def test_what_may_be_changed_covers_the_pods_of_a_workload() -> None:
    allowed = [Target("Deployment", "shop", "web"), Target("ConfigMap", "shop", "settings")]

    def owner(namespace: str, pod: str) -> str | None:
        return {"web-5d9c-x2x": "Deployment/web", "api-1-y": "Deployment/api"}.get(pod)

    def one(resource: str, name: str, namespace: str = "shop", owners: tuple[str, ...] = ()) -> Mutation:
        return Mutation("delete", "", resource, "", namespace, name, 200, OPERATOR, "", owners)

    assert covered(one("deployments", "web"), "Deployment", allowed, owner)
    assert covered(one("configmaps", "settings"), "ConfigMap", allowed, owner)
    assert covered(one("pods", "web-5d9c-x2x"), "Pod", allowed, owner)
    assert covered(one("pods", "web-new", owners=("ReplicaSet/web-7f",)), "Pod", allowed, owner)
    assert covered(one("pods", "api-1-y"), "Pod", allowed, owner) is None
    assert covered(one("deployments", "web", "other"), "Deployment", allowed, owner) is None
    assert covered(one("pods", ""), "Pod", allowed, owner) is None  # a whole collection is covered by no name
    assert covered(one("replicasets", "web-7f"), "ReplicaSet", allowed, owner) is None
