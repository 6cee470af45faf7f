"""Policies as texts: those that the API server refuses, those that only the operator sees through, and those that are fine.

tests/cluster/test_cli_orders.py asks a real API server about the same texts.
"""

from __future__ import annotations

from typing import Any

import yaml

RULE = {"name": "rollback", "types": ["RollbackWorkload"], "level": "L3"}


def policy(spec: dict[str, Any] | None = None, **rule: Any) -> str:
    spec = {"rules": [{**RULE, **rule}], **(spec or {})}
    return yaml.safe_dump(
        {"apiVersion": "nightorders.dev/v1alpha1", "kind": "RemediationPolicy", "metadata": {"name": "web"}, "spec": spec}
    )


def cluster(**spec: Any) -> str:
    return yaml.safe_dump(
        {"apiVersion": "nightorders.dev/v1alpha1", "kind": "ClusterRemediationPolicy", "metadata": {"name": "platform"}, "spec": spec}
    )


# What is written, and a part of what is said about it.
REFUSED: list[tuple[str, str]] = [
    (policy({"enforcment": "Shadow"}), "spec.enforcment: there is no such field; known here: selector, enforcement"),
    (policy({"enforcment": "Shadow"}), "(did you mean enforcement?)"),
    (policy(level="L5"), "spec.rules[0].level: 'L5' is not possible; write one of L1, L2, L3, L4"),
    (policy({"rules": []}), "spec.rules: needs at least 1 entries"),
    (policy({"rules": [RULE, RULE]}), "spec.rules[1]: name rollback stands in this list twice"),
    (policy(types=["RollbackWorkload", "RollbackWorkload"]), "spec.rules[0].types[1]: RollbackWorkload stands in this list twice"),
    (policy(types=["Reboot"]), "'Reboot' is not possible; write one of RollbackWorkload"),
    (policy(limits={"maxPods": "5"}), "spec.rules[0].limits.maxPods: must be of type integer, not a text"),
    (policy(limits={"maxPods": True}), "must be of type integer, not true or false"),
    (policy(limits={"maxPods": -1}), "-1 is too small; at least 0"),
    (policy(limits={"maxPercent": 101}), "101 is too large; at most 100"),
    (policy(limits={"cooldown": "1d"}), "'1d' has not the right form; write a duration such as 90s, 15m or 336h"),
    (policy(earn={"from": "L4"}), "spec.rules[0]: earn.from must not be above level"),
    (policy(earn={}), "spec.rules[0].earn.from: is missing; add from: Where it begins"),
    (policy(earn={"from": "L2", "over": "10m"}), "earn.over must be at least 1h"),
    (policy(pauseFor="25h"), "pauseFor must be at most 24h"),
    (policy(approval={"expiresAfter": "0s"}), "approval.expiresAfter must be at least 1s"),
    (policy(verify={"every": "10m"}), "verify.every must not be longer than verify.for"),
    (policy(verify={"for": "25h"}), "verify.for must be at most 24h"),
    (policy(verify={"every": "10ms"}), "verify.every must be at least 1s"),
    (policy(verify={"checks": [{"name": "a"}]}), "a check has either promql or condition, not both and not neither"),
    (policy(verify={"checks": [{"name": "a", "promql": "up"}]}), "a promql check needs max or min, or both"),
    (policy(verify={"checks": [{"name": "a", "condition": "Available", "max": "1"}]}), "max and min belong to promql checks only"),
    (policy(verify={"checks": [{"name": "a", "promql": "up", "max": "1", "min": "2"}]}), "min must not be above max"),
    (policy(verify={"checks": [{"name": "a", "promql": "up{x='$pod'}", "max": "1"}]}), "promql knows the variables $namespace"),
    (policy(verify={"checks": [{"name": "a", "promql": "up", "max": 0.1}]}), 'write it in quotes: "0.1"'),
    (policy({"escalate": {"to": ["oncall"], "repeat": "1s"}}), "escalate.repeat must be at least 1m"),
    (policy({"freezes": [{"name": "x", "schedule": "0 18 * * 5"}]}), "either schedule and duration, or from and until"),
    (
        policy({"freezes": [{"name": "x", "from": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}]}),
        "spec.freezes[0]: until must be after from",
    ),
    (policy({"freezes": [{"name": "x", "from": "tomorrow", "until": "2026-01-01T00:00:00Z"}]}), "no moment in time; write it as 2026-"),
    (cluster(namespaces=["Shop"]), "use lower-case letters"),
    (cluster(tiers=[{"name": "gold"}]), "spec.tiers[0].selector: is missing"),
    (cluster(rules=[]), "spec.rules: there is no such field"),
    (policy().replace("name: web", "name: Web"), "metadata.name: is missing or no name"),
]

# The API server takes these: a schema cannot know them. The operator treats such a freeze as in force.
SEEN_THROUGH: list[tuple[str, str]] = [
    (policy({"freezes": [{"name": "x", "schedule": "every friday", "duration": "1h"}]}), "needs five fields"),
    (policy({"freezes": [{"name": "x", "schedule": "0 18 * * 8", "duration": "1h"}]}), "is no cron expression"),
    (policy({"freezes": [{"name": "x", "schedule": "0 1 * * *", "duration": "1h", "timeZone": "Europe/Berlni"}]}), "IANA database"),
]

# Not even an object of ours, or not of this version.
NO_OBJECT: list[tuple[str, str]] = [
    ("kind: RemediationPolicy\nmetadata: {name: a}\nspec: {}\n", "apiVersion: None is not served; write nightorders.dev/v1alpha1"),
    ("apiVersion: nightorders.dev/v1alpha1\nkind: RemediationPolicies\n", "kind: 'RemediationPolicies' is no policy"),
    (cluster().replace("name: platform", "name: platform, namespace: shop"), "is no YAML"),
    (cluster().replace("  name: platform", "  name: platform\n  namespace: shop"), "a ClusterRemediationPolicy lives in no namespace"),
    ("a: 1\na: 2\n", "the key 'a' stands here twice"),
    ("a: [1\n", "is no YAML"),
]

TAKEN: list[str] = [
    policy(),
    policy({"selector": None, "freezes": None}),  # null is as good as absent
    policy({"freezes": [{"name": "x", "from": "2026-01-01T00:00:00Z", "until": "2026-02-01T00:00:00+01:00"}]}),
    policy().replace("level: L3", "level: L3\n    earn: {from: L3}"),
    cluster(),
    cluster(fleet={"maxConcurrent": 0}),
]
