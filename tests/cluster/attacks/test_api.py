"""What the schemas refuse, each time with a message that names the field."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.cluster.attacks.world import AT, Json, World, deployment, head, incident, plan, policy

pytestmark = pytest.mark.cluster
RULE = "spec.rules[0]."


def _set(document: Json, path: str, value: Any) -> Json:
    """A copy with `value` at a dotted path; numbers index lists, None removes."""
    document = copy.deepcopy(document)
    *way, last = path.split(".")
    node: Any = document
    for name in way:
        node = node[int(name)] if name.isdigit() else node.setdefault(name, {})
    if value is None:
        del node[last]
    elif last.isdigit():
        node[int(last)] = value
    else:
        node[last] = value
    return document


def _checks(*checks: Json) -> Any:
    return ("spec.rules.0.verify.checks", list(checks))


POLICIES: list[tuple[str, Any, str]] = [
    # path, value, what the message must say
    ("spec.rules.0.level", "L5", "spec.rules[0].level: Unsupported value"),
    ("spec.rules.0.level", "l3", "spec.rules[0].level: Unsupported value"),
    ("spec.rules.0.level", None, "spec.rules[0].level: Required value"),
    ("spec.rules.0.types", ["Reboot"], "spec.rules[0].types[0]: Unsupported value"),
    ("spec.rules.0.types", [], "spec.rules[0].types"),
    ("spec.rules.0.types", ["RollbackWorkload", "RollbackWorkload"], "spec.rules[0].types[1]: Duplicate value"),
    ("spec.rules.0.name", "two words", "spec.rules[0].name"),
    ("spec.rules.0.name", "", "spec.rules[0].name"),
    ("spec.rules", [], "spec.rules"),
    ("spec.rules", None, "spec.rules: Required value"),
    ("spec.rules", [policy("x", "x", "L1", "L2")["spec"]["rules"][0]] * 2, "spec.rules[1]: Duplicate value"),
    ("spec.rules.0.maximum", 3, 'unknown field "spec.rules[0].maximum"'),
    ("spec.enforcement", "Audit", "spec.enforcement: Unsupported value"),
    ("spec.dryRun", True, 'unknown field "spec.dryRun"'),
    ("spec.rules.0.earn", {"from": "L4"}, "earn.from must not be above level"),
    ("spec.rules.0.earn", {"from": "L1", "successes": 0}, "spec.rules[0].earn.successes"),
    ("spec.rules.0.earn", {"from": "L1", "over": "1m"}, "earn.over must be at least 1h"),
    ("spec.rules.0.earn", {"successes": 3}, "spec.rules[0].earn.from: Required value"),
    ("spec.rules.0.gitOps", "Force", "spec.rules[0].gitOps: Unsupported value"),
    ("spec.rules.0.pauseFor", "25h", "pauseFor must be at most 24h"),
    ("spec.rules.0.approval.serviceAccounts", "Some", "spec.rules[0].approval.serviceAccounts: Unsupported value"),
    ("spec.rules.0.approval.emergency", "Always", "spec.rules[0].approval.emergency: Unsupported value"),
    ("spec.rules.0.errorBudget", {"promql": "up"}, "spec.rules[0].errorBudget.min: Required value"),
    ("spec.freezes", [{"name": "a"}], "a freeze has either schedule and duration, or from and until"),
    ("spec.freezes", [{"name": "a", "schedule": "0 18 * * 5"}], "a freeze has either schedule and duration"),
    ("spec.freezes", [{"name": "a", "from": AT, "until": AT}], "until must be after from"),
    ("spec.freezes", [{"name": "a", "from": AT, "until": "2027-01-01T00:00:00Z", "timeZone": "../x"}], "spec.freezes[0].timeZone"),
    ("spec.breaker", {"failures": 0}, "spec.breaker.failures"),
    ("spec.escalate", {"to": ["a"], "repeat": "1s"}, "escalate.repeat must be at least 1m"),
    ("spec.escalate", {"to": ["https://evil.example/x"]}, "spec.escalate.to[0]"),
    ("spec.escalate", {"to": []}, "spec.escalate.to"),
    ("spec.rules.0.limits.cooldown", "14d", "spec.rules[0].limits.cooldown"),
    ("spec.rules.0.limits.cooldown", "10", "spec.rules[0].limits.cooldown"),
    ("spec.rules.0.limits.cooldown", "-10m", "spec.rules[0].limits.cooldown"),
    ("spec.rules.0.limits.maxPercent", 101, "spec.rules[0].limits.maxPercent"),
    ("spec.rules.0.limits.maxPods", -1, "spec.rules[0].limits.maxPods"),
    ("spec.rules.0.limits.maxPods", "10", "spec.rules[0].limits.maxPods"),
    ("spec.rules.0.limits.perHour", 0, "spec.rules[0].limits.perHour"),
    ("spec.rules.0.limits.duringRollout", "Ask", "spec.rules[0].limits.duringRollout: Unsupported value"),
    ("spec.rules.0.approval.count", 0, "spec.rules[0].approval.count"),
    ("spec.rules.0.approval.expiresAfter", "0s", "approval.expiresAfter must be at least 1s"),
    ("spec.rules.0.verify.every", "10m", "verify.every must not be longer than verify.for"),
    ("spec.rules.0.verify.every", "500ms", "verify.every must be at least 1s"),
    ("spec.rules.0.verify.for", "25h", "verify.for must be at most 24h"),
    ("spec.rules.0.verify.onWorse", "Ignore", "spec.rules[0].verify.onWorse: Unsupported value"),
    (*_checks({"name": "a", "promql": "up", "max": "1", "condition": "Available"}), "a check has either promql or condition"),
    (*_checks({"name": "a"}), "a check has either promql or condition"),
    (*_checks({"name": "a", "promql": "up"}), "a promql check needs max or min"),
    (*_checks({"name": "a", "condition": "Available", "max": "1"}), "max and min belong to promql checks only"),
    (*_checks({"name": "a", "promql": "up", "max": "1", "min": "2"}), "min must not be above max"),
    (*_checks({"name": "a", "promql": "up", "max": "one"}), "spec.rules[0].verify.checks[0].max"),
    (*_checks({"name": "a", "promql": "up", "max": 1}), "spec.rules[0].verify.checks[0].max"),
    (*_checks({"name": "a", "promql": 'up{pod="$pod"}', "max": "1"}), "promql knows the variables $namespace, $name and $kind only"),
    (*_checks({"name": "a", "promql": 'up{pod="${name}"}', "max": "1"}), "promql knows the variables"),
    (*_checks({"name": "a", "promql": "up\n", "max": "1"}), "spec.rules[0].verify.checks[0].promql"),
    (*_checks(*[{"name": "a", "condition": "Available"}] * 2), "spec.rules[0].verify.checks[1]: Duplicate value"),
    (*_checks(*[{"name": f"c{i}", "condition": "Available"} for i in range(9)]), "spec.rules[0].verify.checks"),
    ("spec.selector.matchLabels", {"a": "x" * 64}, "spec.selector.matchLabels.a"),
    ("spec.selector.matchExpressions", [{"key": "a", "operator": "Like"}], "spec.selector.matchExpressions[0].operator: Unsupported value"),
    ("spec.rules.0.verify.for", "5 minutes", "spec.rules[0].verify.for"),
]

INCIDENTS: list[tuple[str, Any, str]] = [
    ("spec.target", None, "spec.target: Required value"),
    ("spec.target.kind", "deployment", "spec.target.kind"),
    ("spec.target.kind", "", "spec.target.kind"),
    ("spec.target.apiVersion", "apps/", "spec.target.apiVersion"),
    ("spec.target.name", "Checkout", "spec.target.name"),
    ("spec.target.name", "../secrets", "spec.target.name"),
    ("spec.target.namespace", "kube-system", 'unknown field "spec.target.namespace"'),
    ("spec.severity", "Fatal", "spec.severity: Unsupported value"),
    ("spec.title", "red\x1b[31m", "spec.title"),
    ("spec.title", "two\nlines", "spec.title"),
    ("spec.title", "turned \u202e around", "spec.title"),
    ("spec.title", "x" * 257, "spec.title"),
    ("spec.requestedBy", "", "spec.requestedBy"),
    ("spec.suspend", "yes", "spec.suspend"),
    ("spec.signal", {"source": "Rumour", "name": "x", "startsAt": AT}, "spec.signal.source: Unsupported value"),
    ("spec.signal", {"source": "Detector", "name": "x", "startsAt": "noon"}, "spec.signal.startsAt"),
]

PLATFORM: list[tuple[str, Any, str]] = [
    ("spec.ceilings", [{"name": "a", "level": "L0"}], "spec.ceilings[0].level: Unsupported value"),
    ("spec.ceilings", [{"name": "a", "level": "L1"}] * 2, "spec.ceilings[1]: Duplicate value"),
    ("spec.fleet", {"maxConcurrent": -1}, "spec.fleet.maxConcurrent"),
    ("spec.namespaces", ["Shop"], "spec.namespaces[0]"),
    ("spec.protected", [{"name": "a", "kinds": ["deployments"]}], "spec.protected[0].kinds[0]"),
    ("spec.gitOpsPause", "Allow", "spec.gitOpsPause: Unsupported value"),
    ("spec.approval", {"serviceAccounts": "Allow"}, "spec.approval.serviceAccounts: Unsupported value"),
    ("spec.approval", {"minCount": 6}, "spec.approval.minCount"),
    ("spec.tiers", [{"name": "a", "risk": 10}], "spec.tiers[0].selector: Required value"),
    ("spec.fleet", {"maxPercentOfWorkloads": 101}, "spec.fleet.maxPercentOfWorkloads"),
    ("spec.freezes", [{"name": "a", "schedule": "0 18 * * 5", "until": AT}], "a freeze has either schedule and duration"),
]

CASES = [("policy", *case) for case in POLICIES] + [("incident", *case) for case in INCIDENTS] + [("platform", *case) for case in PLATFORM]


def _valid(kind: str, namespace: str) -> Json:
    match kind:
        case "policy":
            return policy("orders", namespace, "L2")
        case "incident":
            return incident("inc", namespace)
    return {**head("ClusterRemediationPolicy", namespace), "spec": {"ceilings": [{"name": "a", "level": "L1"}]}}


def test_invalid_objects_are_refused_with_a_message_that_names_the_field(world: World) -> None:
    """Each differs in one place from an object that is accepted. All in one test: the list is long, and the failures are collected."""
    wrong = []
    for kind in ("policy", "incident", "platform"):
        world.admin.may("create", "--dry-run=server", "--validate=strict", "-f", "-", document=_valid(kind, world.namespace))
    for kind, path, value, says in CASES:
        document = _set(_valid(kind, world.namespace), path, value)
        answer = world.admin.run("create", "--dry-run=server", "--validate=strict", "-f", "-", document=document)
        if answer.returncode == 0 or says not in answer.stderr:
            wrong.append(f"{kind} {path}={value!r}: expected {says!r}, got {answer.stdout or answer.stderr}")
    assert not wrong, "\n".join(wrong)


def test_what_an_incident_is_about_cannot_be_changed(world: World) -> None:
    world.admin.may("create", "-f", "-", document=incident("inc", world.namespace, spec={"title": "slow"}))
    for spec, says in (
        ({"target": {"name": "payments"}}, "spec.target is immutable"),
        ({"target": {"kind": "StatefulSet"}}, "spec.target is immutable"),
        ({"requestedBy": "kubernetes-admin"}, "spec.requestedBy is immutable"),
        ({"signal": {"source": "Detector", "name": "x", "startsAt": AT}}, "spec.signal is immutable"),
    ):
        answer = world.admin.run(*world.admin.patch("inc", {"spec": spec}))
        assert answer.returncode != 0, answer.stdout
        assert says in answer.stderr
    world.admin.may(*world.admin.patch("inc", {"spec": {"title": "very slow", "severity": "Critical"}}))


def test_defaults_are_written_into_the_object_for_all_to_see(world: World) -> None:
    world.admin.may("create", "-f", "-", document=policy("orders", world.namespace, "L2"))
    rule = world.get("remediationpolicy", "orders")["spec"]["rules"][0]
    assert rule["limits"]["maxPods"] == 10
    assert rule["approval"]["expiresAfter"] == "15m"
    assert rule["verify"] == {"for": "5m", "every": "15s", "onWorse": "Undo", "onUnchanged": "Undo", "onNoData": "Escalate"}


def test_24_status_takes_no_control_characters_and_no_unsafe_argument(world: World) -> None:
    """Even from the operator itself: its own mistake is refused before it reaches somebody's terminal."""
    world.incident()
    for status, field in (
        ({"summary": "red\x1b[31m"}, "status.summary"),
        ({"summary": "two\nlines"}, "status.summary"),
        ({"plan": {**plan(), "command": [["kubectl", "delete;ls"]]}}, "status.plan.command[0][1]"),
        ({"plan": {**plan(), "command": [["kubectl", "$(id)"]]}}, "status.plan.command[0][1]"),
        ({"plan": {**plan(), "digest": "sha256:short"}}, "status.plan.digest"),
    ):
        answer = world.operator.run(
            "patch", "incident", "inc", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
        )
        assert answer.returncode != 0, answer.stdout
        assert field in answer.stderr
    world.status({"summary": "plain", "plan": {**plan(), "command": [["kubectl", "-n", "shop", "version"]]}})


def test_kubectl_explain_teaches(world: World) -> None:
    assert "L3" in world.admin.may("explain", "remediationpolicy.spec.rules.level")
    assert "Immutable" in world.admin.may("explain", "incident.spec.target")
    world.cluster.apply(deployment("checkout", world.namespace))
    world.incident()
    assert "SEVERITY" in world.admin.may("get", "inc")
