"""Policies from files: what the API server would refuse is refused here, with the line, the field and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nightorders.api.crdgen import all_crds
from nightorders.policykit import policies, schema
from nightorders.policykit.files import MAX_NODES, BadInputError, documents, parsed

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


def problems(text: str) -> list[str]:
    """What is said about it; empty: it is fine."""
    try:
        for document in parsed(text, "web.yaml"):
            policies.of_document(document)
    except BadInputError as error:
        return [str(p) for p in error.problems]
    return []


def test_every_cel_rule_of_the_policies_is_known_here() -> None:
    """A new rule in a model must be written down in schema.CEL, too."""
    plurals = [m.served.plural for m in policies.MODELS.values()]
    assert {r for p in plurals for r in schema.rules_of(schema.spec_schema(p))} == set(schema.CEL)


def test_every_keyword_of_the_schemas_is_walked() -> None:
    """A keyword that nobody looks at would let something through that the API server refuses."""
    walked = {
        "type", "properties", "required", "items", "additionalProperties", "enum", "pattern", "format", "default", "description",
        "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties",
        "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-validations",
    }  # fmt: skip

    def keywords(node: dict[str, Any]) -> set[str]:
        found = set(node)
        for inner in node.get("properties", {}).values():
            found |= keywords(inner)
        for key in ("items", "additionalProperties"):
            found |= keywords(node[key]) if isinstance(node.get(key), dict) else set()
        return found

    for plural in ("remediationpolicies", "clusterremediationpolicies"):
        assert keywords(schema.spec_schema(plural)) <= walked, plural
    assert set(all_crds()) >= {"remediationpolicies", "clusterremediationpolicies"}


def test_the_samples_are_fine() -> None:
    samples = Path("manifests/samples")
    assert len(policies.load([(samples / "policy-l3-approval.yaml", "l3"), (samples / "clusterpolicy.yaml", "cluster")])) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
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
        (policy({"freezes": [{"name": "x", "schedule": "every friday", "duration": "1h"}]}), "needs five fields"),
        (policy({"freezes": [{"name": "x", "schedule": "0 18 * * 8", "duration": "1h"}]}), "is no cron expression"),
        (policy({"freezes": [{"name": "x", "schedule": "0 1 * * *", "duration": "1h", "timeZone": "Europe/Berlni"}]}), "IANA database"),
        (
            policy({"freezes": [{"name": "x", "from": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}]}),
            "spec.freezes[0]: until must be after from",
        ),
        (policy({"freezes": [{"name": "x", "from": "tomorrow", "until": "2026-01-01T00:00:00Z"}]}), "no moment in time; write it as 2026-"),
        (cluster(namespaces=["Shop"]), "use lower-case letters"),
        (cluster(tiers=[{"name": "gold"}]), "spec.tiers[0].selector: is missing"),
        (cluster(rules=[]), "spec.rules: there is no such field"),
        ("kind: RemediationPolicy\nmetadata: {name: a}\nspec: {}\n", "apiVersion: None is not served; write nightorders.dev/v1alpha1"),
        ("apiVersion: nightorders.dev/v1alpha1\nkind: RemediationPolicies\n", "kind: 'RemediationPolicies' is no policy"),
        (policy().replace("name: web", "name: Web"), "metadata.name: is missing or no name"),
        (cluster().replace("name: platform", "name: platform, namespace: shop"), "is no YAML"),
        (cluster().replace("  name: platform", "  name: platform\n  namespace: shop"), "a ClusterRemediationPolicy lives in no namespace"),
        ("a: 1\na: 2\n", "the key 'a' stands here twice"),
        ("a: [1\n", "is no YAML"),
    ],
)  # fmt: skip
def test_what_the_api_server_would_refuse(text: str, says: str) -> None:
    found = problems(text)
    assert any(says in p for p in found), found
    assert all(p.startswith("web.yaml:") for p in found)


@pytest.mark.parametrize(
    "text",
    [
        policy(),
        policy({"selector": None, "freezes": None}),  # null is as good as absent
        policy({"freezes": [{"name": "x", "from": "2026-01-01T00:00:00Z", "until": "2026-02-01T00:00:00+01:00"}]}),
        policy().replace("level: L3", "level: L3\n    earn: {from: L3}"),
        cluster(),
        cluster(fleet={"maxConcurrent": 0}),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n",
        "just a text\n",
        "",
    ],
)
def test_what_it_would_take(text: str) -> None:
    assert problems(text) == []


def test_a_moment_without_quotes_is_text_as_kubectl_reads_it() -> None:
    text = policy() + "  freezes:\n  - {name: x, from: 2026-01-01T00:00:00Z, until: 2026-02-01T00:00:00Z}\n"
    assert problems(text) == []


def test_the_line_is_the_fields_own() -> None:
    text = policy(level="L9")
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "L9" in row)
    assert problems(text)[0].startswith(f"web.yaml:{line}: ")


def test_a_list_of_policies_is_read_like_its_items() -> None:
    items = [yaml.safe_load(policy()), yaml.safe_load(cluster())]
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items})
    (document,) = parsed(text, "list.yaml")
    assert [p.title for p in policies.of_document(document)] == ["RemediationPolicy/web", "ClusterRemediationPolicy/platform"]


def test_the_same_policy_twice_names_both_places(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(policy())
    with pytest.raises(BadInputError) as error:
        policies.load([(tmp_path, "dir")])
    assert "dir/b.yaml:" in str(error.value.problems[0])
    assert "RemediationPolicy/web is in dir/a.yaml:1, too" in str(error.value.problems[0])


def test_aliases_that_grow_end(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    (tmp_path / "bomb.yaml").write_text("\n".join(rows))
    with pytest.raises(BadInputError) as error:
        documents(tmp_path / "bomb.yaml")
    assert f"more than {MAX_NODES} values" in str(error.value)


def test_hidden_directories_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.yaml").write_text("a: [")
    (tmp_path / "web.yaml").write_text(policy())
    assert len(policies.load([(tmp_path, "dir")])) == 1
