"""Policies from files: what the API server would refuse is refused here, with the line, the field and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nightorders.api.crdgen import all_crds
from nightorders.policykit import policies, schema
from nightorders.policykit.files import MAX_NODES, BadInputError, documents, parsed
from tests.unit.cli.policy_texts import NO_OBJECT, REFUSED, SEEN_THROUGH, TAKEN, cluster, policy


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


@pytest.mark.parametrize(("text", "says"), REFUSED + SEEN_THROUGH + NO_OBJECT)
def test_what_the_api_server_would_refuse(text: str, says: str) -> None:
    found = problems(text)
    assert any(says in p for p in found), found
    assert all(p.startswith("web.yaml:") for p in found)


@pytest.mark.parametrize("text", [*TAKEN, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n", "just a text\n", ""])
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
