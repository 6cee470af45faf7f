"""Digests say "the same thing", whatever the order of keys and whatever moves by itself."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nightorders.domain.digest import bare_template, sha256, sha256_text, spec_sha256, template_sha256

KEYS = st.sampled_from(["a", "b", "labels", "metadata", "spec", "ünï"])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=4),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(KEYS, x, max_size=3),
    max_leaves=10,
)
LABELS = st.dictionaries(st.sampled_from(["app", "tier", "pod-template-hash"]), st.text(max_size=3), max_size=3)
POD = st.fixed_dictionaries(
    {"spec": st.dictionaries(KEYS, JSON, max_size=3)},
    optional={"metadata": st.fixed_dictionaries({}, optional={"labels": LABELS, "creationTimestamp": st.none()})},
)
FEW = settings(max_examples=150, deadline=None)


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: shuffled(value[k]) for k in reversed(value)}
    return [shuffled(v) for v in value] if isinstance(value, list) else value


@FEW
@given(JSON)
def test_the_order_of_keys_plays_no_part(value: Any) -> None:
    assert sha256(value) == sha256(shuffled(value)) == sha256(copy.deepcopy(value))
    assert re.fullmatch("sha256:[0-9a-f]{64}", sha256(value))


@FEW
@given(JSON, JSON)
def test_different_json_has_different_digests(a: Any, b: Any) -> None:
    assert (sha256(a) == sha256(b)) is (json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True))


@FEW
@given(POD, st.text(max_size=5))
def test_a_replica_sets_template_equals_the_deployments(pod: dict[str, Any], value: str) -> None:
    made = copy.deepcopy(pod)
    made.setdefault("metadata", {}).setdefault("labels", {})["pod-template-hash"] = value
    made["metadata"]["creationTimestamp"] = None
    bare = copy.deepcopy(pod)
    bare.get("metadata", {}).get("labels", {}).pop("pod-template-hash", None)
    assert template_sha256(made) == template_sha256(bare)


@FEW
@given(POD)
def test_a_bare_template_is_bare_and_the_original_is_not_changed(pod: dict[str, Any]) -> None:
    before = copy.deepcopy(pod)
    assert bare_template(bare_template(pod)) == bare_template(pod)
    assert pod == before


@FEW
@given(POD, POD)
def test_another_pod_spec_is_another_template(a: dict[str, Any], b: dict[str, Any]) -> None:
    if sha256(a["spec"]) != sha256(b["spec"]):
        assert template_sha256(a) != template_sha256(b)
        assert spec_sha256({"template": a}) != spec_sha256({"template": b})


@FEW
@given(POD, st.integers(0, 5), st.integers(0, 5))
def test_another_number_of_replicas_is_another_spec(pod: dict[str, Any], a: int, b: int) -> None:
    assert (spec_sha256({"replicas": a, "template": pod}) == spec_sha256({"replicas": b, "template": pod})) is (a == b)


def test_broken_text_has_a_digest_too() -> None:
    assert sha256_text("\ud800") != sha256_text("\ud801")
    assert sha256({"a": "\ud800"}) != sha256({"a": "\ud801"})
