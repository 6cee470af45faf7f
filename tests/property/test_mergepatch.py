"""replace_patch: applied per RFC 7386, it gives the wanted object exactly."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightorders.domain.mergepatch import apply_patch, replace_patch, same

KEYS = st.sampled_from(["a", "b", "c", "env", ""])
SCALARS = st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, -1.5]) | st.sampled_from(["", "x", "null"])
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12)
OBJECTS = st.dictionaries(KEYS, JSON, max_size=4)


@given(OBJECTS, OBJECTS)
def test_applied_to_old_gives_new_exactly(old: dict[str, Any], new: dict[str, Any]) -> None:
    before = copy.deepcopy(old)
    assert same(apply_patch(old, replace_patch(old, new)), new)
    assert old == before


@given(OBJECTS)
def test_nothing_to_do_is_an_empty_patch(value: dict[str, Any]) -> None:
    assert replace_patch(value, copy.deepcopy(value)) == {}


@given(OBJECTS, OBJECTS)
def test_what_the_patch_does_not_name_was_the_same_before(old: dict[str, Any], new: dict[str, Any]) -> None:
    patch = replace_patch(old, new)
    for key in old.keys() | new.keys():
        assert (key in patch) != (key in old and key in new and same(old[key], new[key]))


# The examples of RFC 7386, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_apply_is_rfc_7386(target: object, patch: object, result: object) -> None:
    assert apply_patch(target, patch) == result


def test_a_null_in_the_wanted_object_counts_as_absent() -> None:
    old = {"metadata": {"creationTimestamp": None, "labels": {"app": "a"}}}
    new = {"metadata": {"creationTimestamp": None, "labels": {"app": "b"}}}
    assert replace_patch(old, new) == {"metadata": {"labels": {"app": "b"}}}
    assert replace_patch({"a": 1}, {"a": None}) == {"a": None}
    assert replace_patch(old, old) == {}


def test_true_is_not_one() -> None:
    assert replace_patch({"a": 1}, {"a": True}) == {"a": True}
