"""JSON merge patches (RFC 7386) that replace, although merging is what they are made for.

A merge patch keeps every key that it does not name. So a patch that is to turn one pod template into another must name the keys
that have to go, with null: otherwise the environment variable that broke the release survives the rollback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def replace_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The smallest merge patch that turns `old` into exactly `new`; empty when they are the same.

    A merge patch cannot put a null anywhere, so a key whose value is None counts as absent, in `old` and in `new`.
    """
    patch: dict[str, Any] = {key: None for key, value in old.items() if value is not None and new.get(key) is None}
    for key, value in new.items():
        if value is None:
            continue
        before = old.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            if inner := replace_patch(before, value):
                patch[key] = inner
        elif not same(before, value):
            patch[key] = value
    return patch


def same(a: object, b: object) -> bool:
    """Whether two JSON values are the same JSON. Python says that 1 == True == 1.0; JSON does not."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def apply_patch(target: object, patch: object) -> Any:
    """RFC 7386: what the API server makes of `target` with `patch`. Neither is changed."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply_patch(result.get(key), value)
    return result
