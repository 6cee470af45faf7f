"""Counting from the audit log: what is not known to be harmless is a change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demo.audit import Class, Request, classify, parse, read, tally
from demo.closing import Expected, as_table, by_people, count
from demo.world import OPERATOR

# As kube-apiserver 1.36 writes them, shortened.
PATCH = (
    '{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"a-1","stage":"ResponseComplete",'
    '"requestURI":"/apis/apps/v1/namespaces/shop/deployments/checkout?fieldManager=nightorders&fieldValidation=Strict","verb":"patch",'
    '"user":{"username":"system:serviceaccount:nightorders-system:nightorders","groups":["system:serviceaccounts"]},'
    '"sourceIPs":["127.0.0.1"],"objectRef":{"resource":"deployments","namespace":"shop","name":"checkout","apiGroup":"apps",'
    '"apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-11-21T12:30:01.5Z"}'
)


def line(**changes: Any) -> str:
    event = json.loads(PATCH)
    ref = changes.pop("ref", {})
    for key, value in changes.items():
        event[key] = value
    event["objectRef"].update(ref)
    return json.dumps(event)


def request(**changes: Any) -> Request:
    found = parse(line(**changes))
    assert found is not None
    return found


def user(name: str) -> dict[str, str]:
    return {"username": name}


def test_a_line_becomes_a_request() -> None:
    found = request()
    assert (found.user, found.what, found.namespace, found.code, found.dry_run) == (
        OPERATOR,
        "patch deployments/checkout",
        "shop",
        200,
        False,
    )
    assert classify(found) is Class.CHANGE


@pytest.mark.parametrize(
    ("changes", "meaning"),
    [
        ({"verb": "get"}, None),
        ({"verb": "watch"}, None),
        ({"verb": "deletecollection"}, Class.CHANGE),
        ({"verb": "some-new-verb"}, Class.CHANGE),
        ({"responseStatus": {"code": 403}}, Class.REFUSED),
        ({"responseStatus": {"code": 409}}, Class.REFUSED),
        ({"requestURI": "/apis/apps/v1/namespaces/shop/deployments/checkout?dryRun=All&x=1"}, Class.DRY_RUN),
        ({"ref": {"apiGroup": "nightorders.dev", "resource": "incidents", "subresource": "status"}}, Class.OWN),
        ({"ref": {"apiGroup": "nightorders.dev", "resource": "ledgers"}}, Class.OWN),
        ({"ref": {"apiGroup": "nightorders.dev", "resource": "remediationpolicies", "subresource": "status"}}, Class.OWN),
        ({"ref": {"apiGroup": "nightorders.dev", "resource": "remediationpolicies"}}, Class.CHANGE),
        ({"ref": {"apiGroup": "", "resource": "events"}, "verb": "create"}, Class.OWN),
        ({"ref": {"apiGroup": "", "resource": "pods", "subresource": "eviction"}, "verb": "create"}, Class.CHANGE),
        ({"ref": {"apiGroup": "authorization.k8s.io", "resource": "selfsubjectaccessreviews"}, "verb": "create"}, Class.QUESTION),
        ({"ref": {"apiGroup": "rbac.authorization.k8s.io", "resource": "rolebindings"}, "verb": "create"}, Class.CHANGE),
    ],
)
def test_what_a_request_means(changes: dict[str, Any], meaning: Class | None) -> None:
    assert classify(request(**changes)) is meaning


def test_a_request_that_has_not_ended_does_not_count_and_a_panic_does() -> None:
    assert parse(line(stage="ResponseStarted")) is None
    assert parse(line(stage="Panic")) is not None


def test_who_acts_is_the_impersonated_user() -> None:
    assert request(user=user("admin"), impersonatedUser=user(OPERATOR)).user == OPERATOR


@pytest.mark.parametrize("text", ["{}", "[]", "no json"])
def test_what_is_no_audit_event_is_an_error_and_not_nothing(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_a_line_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_text(line() + "\n" + line(auditID="a-2")[:50])
    assert [r.id for r in read(log)] == ["a-1"]


def test_counted_by_namespace_and_once() -> None:
    found = tally(
        [
            request(),
            request(),  # the same request, logged twice
            request(auditID="a-2", requestURI="/x?dryRun=All"),
            request(auditID="a-3", user=user("ann")),
            request(auditID="a-4", ref={"namespace": "shop-l4"}),
        ],
        OPERATOR,
    )
    assert {ns: len(t.changes) for ns, t in found.items()} == {"shop": 1, "shop-l4": 1}
    assert found["shop"].dry_runs == 1


EXPECTED = [Expected("L3", "shop", 1), Expected("L1", "shop-l1", 0)]


def test_the_right_numbers_are_no_problem() -> None:
    found = count([request()], EXPECTED)
    assert found.problems == ()
    assert found.rows[0][:4] == ("L3", "shop", "1", "1")
    assert found.rows[-1][:4] == ("elsewhere", "-", "0", "0")
    assert found.changes == ("12:30:01Z  shop: patch deployments/checkout, answered 200",)
    widths = {len(row) for row in as_table(found.rows)}
    assert len(widths) == 1


@pytest.mark.parametrize(
    ("requests", "named"),
    [
        ([], "L3: 0 changes"),
        ([request(), request(auditID="a-2")], "L3: 2 changes"),
        ([request(), request(auditID="a-2", ref={"namespace": "shop-l1"})], "L1: 1 changes"),
        ([request(), request(auditID="a-2", ref={"namespace": "kube-system"})], "elsewhere: 1 changes"),
        ([request(), request(auditID="a-2", ref={"namespace": "", "resource": "nodes"})], "elsewhere: 1 changes"),
        ([request(), request(auditID="a-2", responseStatus={"code": 403})], "refused the operator in shop"),
    ],
)
def test_wrong_numbers_are_named(requests: list[Request], named: str) -> None:
    assert any(named in problem for problem in count(requests, EXPECTED).problems)


def test_people_are_shown_from_the_same_log() -> None:
    mine = [request(user=user("ann")), request(user=user("ann"), responseStatus={"code": 403}), request(), request(user=user("eve"))]
    assert by_people(mine, ["ann", "dan"], ["shop"]) == ("12:30:01Z  shop: ann, patch deployments/checkout",)
