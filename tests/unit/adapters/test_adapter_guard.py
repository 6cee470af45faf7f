"""The approval guard: every way in which the live admission policies can be less than the shipped ones, and every answer to the attack."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from nightorders.adapters.guard import REPAIR, AdmissionGuard
from nightorders.adapters.kube import KubeClient
from nightorders.api.v1alpha1 import Incident
from nightorders.ports import GuardReport
from tests.unit.adapters.fake_api import FakeApi, connected, status

pytestmark = [pytest.mark.asyncio, pytest.mark.threat(2), pytest.mark.promise(1)]

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAME = "nightorders-approvals"
INCIDENT = "/apis/nightorders.dev/v1alpha1/namespaces/shop/incidents/i1"
CREATE = "/apis/nightorders.dev/v1alpha1/namespaces/nightorders-system/incidents"
PROVEN = "3 admission policies and bindings are the shipped ones, and nightorders-approvals refused forged approvals"

SHIPPED: list[dict[str, Any]] = [
    {
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": NAME, "labels": {"a": "b"}},
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": ["nightorders.dev"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["incidents"]}
                ]
            },
            "variables": [{"name": "me", "expression": "request.userInfo.username"}],
            "validations": [
                {"expression": "variables.me != 'op'", "message": "the operator cannot approve", "reason": "Forbidden"},
                {"expression": "true", "reason": "Forbidden"},
            ],
        },
    },
    {
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": NAME},
        "spec": {"policyName": NAME, "validationActions": ["Deny", "Audit"]},
    },
    {
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "stop"},
        "spec": {
            "policyName": NAME,
            "validationActions": ["Deny"],
            "paramRef": {"name": "nightorders-stop", "parameterNotFoundAction": "Allow"},
        },
    },
    {"kind": "Kustomization", "resources": []},
]


def denied(by: str = NAME, message: str = "the operator cannot approve", code: int = 403) -> web.Response:
    text = f"incidents.nightorders.dev \"i1\" is forbidden: ValidatingAdmissionPolicy '{by}' with binding '{by}' denied request: {message}"
    return status(code, "Forbidden", text)


class Live:
    """The cluster: the shipped objects as the API server stores them, then whatever a test does to them."""

    def __init__(self, api: FakeApi) -> None:
        self.objects: dict[str, dict[str, Any] | None] = {}
        for shipped in SHIPPED[:3]:
            stored = deepcopy(shipped)
            plural = "validatingadmissionpolicies" if shipped["kind"].endswith("Policy") else "validatingadmissionpolicybindings"
            stored["metadata"] |= {"uid": "u", "generation": 2, "labels": {"other": "label"}, "managedFields": []}
            if shipped["kind"] == "ValidatingAdmissionPolicy":
                stored["spec"] |= {"failurePolicy": "Fail"}
                stored["spec"]["matchConstraints"] |= {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}}
                stored["spec"]["matchConstraints"]["resourceRules"][0]["scope"] = "*"
                stored["status"] = {"observedGeneration": 2, "typeChecking": {}}
            self.objects[f"/apis/admissionregistration.k8s.io/v1/{plural}/{shipped['metadata']['name']}"] = stored
        self.attack: Callable[[], web.StreamResponse] = denied
        self.in_anothers_name: Callable[[], web.StreamResponse] | None = None
        api.default = self

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            found = self.objects.get(request.path)
            return web.json_response(found) if found else status(404, "NotFound", "not found", {"name": "x"})
        assert request.query["dryRun"] == "All"
        claims = (await request.json())["metadata"]["annotations"].values()
        if self.in_anothers_name is not None and any(c.endswith("|somebody") for c in claims):
            return self.in_anothers_name()
        return self.attack()

    @property
    def paths(self) -> list[str]:
        return list(self.objects)

    @property
    def policy(self) -> dict[str, Any]:
        found = self.objects[self.paths[0]]
        assert found
        return found

    @property
    def binding(self) -> dict[str, Any]:
        found = self.objects[self.paths[1]]
        assert found
        return found


class FixedClock:
    def now(self) -> datetime:
        return NOW


def guard(client: KubeClient, shipped: list[dict[str, Any]] | None = None, seconds: float = 5.0) -> AdmissionGuard:
    return AdmissionGuard(client, FixedClock(), SHIPPED if shipped is None else shipped, namespace="nightorders-system", seconds=seconds)


def incident() -> Incident:
    return Incident.model_validate(
        {
            "apiVersion": "nightorders.dev/v1alpha1",
            "kind": "Incident",
            "metadata": {"name": "i1", "namespace": "shop", "uid": "u1", "resourceVersion": "7"},
            "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
        }
    )


async def prove(change: Callable[[Live], Any], about: Incident | None = None) -> GuardReport:
    async with connected() as (api, client):
        live = Live(api)
        change(live)
        return await guard(client).prove(about)


async def test_shipped_and_refused_is_proven() -> None:
    assert await prove(lambda live: None, incident()) == GuardReport(True, f"{PROVEN} on Incident shop/i1", NOW)
    assert await prove(lambda live: None) == GuardReport(True, f"{PROVEN} at creation", NOW)


async def test_the_attacks_are_dry_on_that_incident_in_its_own_and_in_anothers_name() -> None:
    async with connected() as (api, client):
        Live(api)
        await guard(client).prove(incident())
        attacks = [a for a in api.asked if a.method != "GET"]
        assert {(a.method, a.path) for a in attacks} == {("PATCH", INCIDENT)}
        values = [value for a in attacks for value in a.body["metadata"]["annotations"].values()]
        assert sorted(v.split("|")[1] for v in values) == ["somebody", "system:serviceaccount:nightorders-system:nightorders"]
        assert all("resourceVersion" not in a.body["metadata"] for a in attacks)  # a conflict would answer before admission does
        api.asked.clear()
        await guard(client).prove(None)
        (attack,) = [a for a in api.asked if a.method != "GET"]
        assert (attack.method, attack.path) == ("POST", CREATE)


def _set(where: Callable[[Live], dict[str, Any]], *path: str | int, value: Any) -> Callable[[Live], Any]:
    def change(live: Live) -> None:
        here: Any = where(live)
        for step in path[:-1]:
            here = here[step] if isinstance(step, int) else here.setdefault(step, {})
        here[path[-1]] = value

    return change


def policy_of(live: Live) -> dict[str, Any]:
    return live.policy


def binding_of(live: Live) -> dict[str, Any]:
    return live.binding


def stop_of(live: Live) -> dict[str, Any]:
    found = live.objects[live.paths[2]]
    assert found
    return found


SELECTOR = {"matchLabels": {"guarded": "yes"}}
RULE = {"apiGroups": ["nightorders.dev"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["incidents"], "scope": "*"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda live: live.objects.update({live.paths[0]: None}), f"ValidatingAdmissionPolicy/{NAME} is missing"),
        (lambda live: live.objects.update({live.paths[1]: None}), f"ValidatingAdmissionPolicyBinding/{NAME} is missing"),
        (_set(policy_of, "spec", "validations", 0, "expression", value="true"), "spec.validations[0].expression"),
        (_set(policy_of, "spec", "variables", 0, "expression", value="'op'"), "spec.variables[0].expression"),
        (lambda live: live.policy["spec"]["validations"].pop(), "spec.validations: 1 instead of 2"),
        (lambda live: live.policy["spec"]["validations"].append({"expression": "true"}), "spec.validations: 3 instead of 2"),
        (_set(policy_of, "spec", "failurePolicy", value="Ignore"), "spec.failurePolicy"),
        (_set(policy_of, "spec", "matchConditions", value=[{"name": "n", "expression": "false"}]), "spec.matchConditions"),
        (_set(policy_of, "spec", "matchConstraints", "objectSelector", value=SELECTOR), "spec.matchConstraints.objectSelector"),
        (_set(policy_of, "spec", "matchConstraints", "namespaceSelector", value=SELECTOR), "spec.matchConstraints.namespaceSelector"),
        (_set(policy_of, "spec", "matchConstraints", "matchPolicy", value="Exact"), "spec.matchConstraints.matchPolicy"),
        (_set(policy_of, "spec", "matchConstraints", "excludeResourceRules", value=[RULE]), "excludeResourceRules"),
        (_set(policy_of, "spec", "matchConstraints", "resourceRules", 0, "operations", value=["CREATE"]), "resourceRules[0].operations"),
        (_set(policy_of, "spec", "matchConstraints", "resourceRules", 0, "scope", value="Cluster"), "resourceRules[0].scope"),
        (_set(policy_of, "spec", "matchConstraints", "resourceRules", 0, "resourceNames", value=["x"]), "resourceRules[0].resourceNames"),
        (_set(policy_of, "spec", "paramKind", value={"apiVersion": "v1", "kind": "ConfigMap"}), "spec.paramKind"),
        (_set(policy_of, "spec", "somethingNew", value=True), "spec.somethingNew"),
        (_set(policy_of, "metadata", "deletionTimestamp", value="2026-01-01T00:00:00Z"), "is being deleted"),
        (_set(policy_of, "metadata", "generation", value=3), "was not type-checked yet"),
        (lambda live: live.policy["status"].pop("typeChecking"), "was not type-checked yet"),
        (lambda live: live.policy.pop("status"), "was not type-checked yet"),
        (
            _set(policy_of, "status", "typeChecking", "expressionWarnings", value=[{"fieldRef": "spec.validations[0]", "warning": "x"}]),
            "does not compile cleanly (status.typeChecking: spec.validations[0])",
        ),
        (_set(binding_of, "spec", "validationActions", value=["Audit", "Warn"]), "does not deny"),
        (_set(binding_of, "spec", "validationActions", value=["Deny"]), "spec.validationActions"),
        (_set(binding_of, "spec", "policyName", value="other"), "spec.policyName"),
        (_set(binding_of, "spec", "matchResources", value={"objectSelector": SELECTOR}), "spec.matchResources"),
        (_set(binding_of, "spec", "matchResources", value={"namespaceSelector": SELECTOR}), "spec.matchResources"),
        (_set(binding_of, "spec", "matchResources", value={"resourceRules": [RULE]}), "spec.matchResources"),
        (_set(binding_of, "spec", "paramRef", value={"name": "x", "parameterNotFoundAction": "Allow"}), "spec.paramRef"),
        (_set(stop_of, "spec", "paramRef", "name", value="other"), "spec.paramRef.name"),
        (_set(stop_of, "spec", "paramRef", "namespace", value="elsewhere"), "spec.paramRef.namespace"),
    ],
)
async def test_anything_less_than_shipped_is_named(change: Callable[[Live], Any], says: str) -> None:
    report = await prove(change, incident())
    assert not report.proven
    assert says in report.message
    assert report.message.endswith(f"Repair: {REPAIR}")


async def test_several_differences_are_all_named() -> None:
    def change(live: Live) -> None:
        live.policy["spec"]["failurePolicy"] = "Ignore"
        live.objects[live.paths[2]] = None

    report = await prove(change)
    assert "spec.failurePolicy" in report.message
    assert "stop is missing" in report.message


@pytest.mark.parametrize(
    "change",
    [
        _set(binding_of, "spec", "validationActions", value=["Audit", "Deny"]),
        _set(binding_of, "metadata", "labels", value={}),
        _set(binding_of, "spec", "matchResources", value={}),
        _set(policy_of, "spec", "auditAnnotations", value=[]),
        lambda live: live.policy["spec"]["matchConstraints"].pop("namespaceSelector"),
    ],
)
async def test_other_spellings_of_the_same_are_the_same(change: Callable[[Live], Any]) -> None:
    assert (await prove(change, incident())).proven


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (lambda: web.json_response({}), "ALARM: the API server would have accepted an approval in its own name"),
        (lambda: web.json_response({}, status=201), "ALARM"),
        (lambda: status(403, "Forbidden", 'User "op" cannot patch resource "incidents"'), "not by an admission policy"),
        (lambda: denied("somebody-elses-policy"), "by somebody-elses-policy"),
        (lambda: denied(code=422), "proves nothing"),
        (lambda: denied(message="expression 'x' resulted in error: no such key"), "proves nothing"),
        (lambda: status(403, "Forbidden", f'admission webhook "x" denied the request: {NAME}'), "not by an admission policy"),
        (lambda: status(404, "NotFound", "gone", {"name": "i1"}), "not by an admission policy"),
        (lambda: status(409, "Conflict", "modified"), "not by an admission policy"),
        (lambda: status(400, "BadRequest", "strict decoding error"), "not by an admission policy"),
        (lambda: status(500, "", "boom"), "not by an admission policy"),
        (lambda: status(429, "", "slow"), "not by an admission policy"),
    ],
)
async def test_only_a_refusal_by_the_very_policy_counts(attack: Callable[[], web.StreamResponse], says: str) -> None:
    def change(live: Live) -> None:
        live.attack = attack

    for about in (incident(), None):
        report = await prove(change, about)
        assert not report.proven
    report = await prove(change, incident())
    assert says in report.message


async def test_the_second_attack_counts_too() -> None:
    def change(live: Live) -> None:
        live.in_anothers_name = lambda: web.json_response({})

    report = await prove(change, incident())
    assert not report.proven
    assert "another's name" in report.message


async def test_what_cannot_be_told_is_not_proven() -> None:
    async with connected() as (api, client):
        Live(api)
        for shipped in ([], SHIPPED[1:], [SHIPPED[0]]):
            report = await guard(client, shipped).prove(None)
            assert not report.proven
            assert "nothing to compare with" in report.message

        async def sleepy(_: web.Request) -> web.StreamResponse:
            await asyncio.sleep(5)
            return web.Response()

        api.default = sleepy
        assert (await guard(client, seconds=0.2).prove(None)).message.startswith("Cannot tell")

        async def refused(_: web.Request) -> web.StreamResponse:
            return status(403, "Forbidden", 'User "op" cannot get resource "validatingadmissionpolicies"')

        api.default = refused
        assert "could not be read" in (await guard(client).prove(None)).message

        async def garbage(_: web.Request) -> web.StreamResponse:
            return web.json_response({"spec": {"validations": 7}, "metadata": [], "status": "x"})

        api.default = garbage
        assert not (await guard(client).prove(None)).proven
    assert not (await guard(client).prove(incident())).proven  # the server is gone
