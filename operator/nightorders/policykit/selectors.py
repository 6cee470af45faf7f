"""What selectors can tell apart: one set of labels stands for every workload that all of them treat alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from ..api.meta import LabelSelector

MOST_CLASSES = 4096
OTHER = "\N{HORIZONTAL ELLIPSIS}"  # a value that no selector names
Kinds = list[dict[str, str]]


def vocabulary(selectors: Iterable[LabelSelector]) -> dict[str, list[str | None]]:
    """Label key → the values that these selectors can tell apart: those they name, any other, and none (None)."""
    found: dict[str, set[str]] = {}
    for s in selectors:
        for key, value in s.match_labels.items():
            found.setdefault(key, set()).add(value)
        for r in s.match_expressions:
            found.setdefault(r.key, set()).update(r.values)
    return {k: [None, *sorted(v), OTHER] for k, v in sorted(found.items())}


def classes(selectors: Iterable[LabelSelector]) -> Kinds | None:
    """One set of labels for each kind of workload that these selectors can tell apart; None: too many to go through."""
    words = vocabulary(selectors)
    many = 1
    for values in words.values():
        many *= len(values)
        if many > MOST_CLASSES:
            return None
    return [{k: v for k, v in zip(words, chosen, strict=True) if v is not None} for chosen in itertools.product(*words.values())]


def selector_moves(o: LabelSelector, n: LabelSelector) -> tuple[bool, bool]:
    """Whether the new selector matches something that the old one did not, and the other way round. Exact, unless there is too much."""
    kinds = classes([o, n])
    if kinds is None:
        return True, True
    return any(n.matches(k) and not o.matches(k) for k in kinds), any(o.matches(k) and not n.matches(k) for k in kinds)


def selector_text(s: LabelSelector) -> str:
    """`tier=web, payments absent`."""
    parts = [f"{k}={v}" for k, v in sorted(s.match_labels.items())]
    words = {"In": "in", "NotIn": "not in", "Exists": "present", "DoesNotExist": "absent"}
    for r in s.match_expressions:
        values = f" ({', '.join(r.values)})" if r.values else ""
        parts.append(f"{r.key} {words[r.operator]}{values}")
    return ", ".join(parts) or "(everything)"


def described(some: Kinds, all_: Kinds) -> list[str]:
    """Sets of labels in words; a key that makes no difference is left out."""
    keys = sorted({k for labels in all_ for k in labels})
    values = {k: {labels.get(k) for labels in all_} for k in keys}
    rows = {tuple(labels.get(k) for k in keys) for labels in some}
    kept = list(range(len(keys)))
    for i in range(len(keys)):
        rest = {(*row[:i], None, *row[i + 1 :]) for row in rows}
        if len(rest) * len(values[keys[i]]) == len(rows):
            rows = rest
            kept.remove(i)
    out = []
    by_rest: dict[tuple[Any, ...], list[str | None]] = {}
    last = kept[-1] if kept else None
    for row in sorted(rows, key=lambda r: [str(v or "") for v in r]):
        rest_of = tuple(v for i, v in enumerate(row) if i != last and i in kept)
        by_rest.setdefault(rest_of, []).append(row[last] if last is not None else None)
    for rest_of, lasts in by_rest.items():
        parts = [_label(keys[i], [v], values[keys[i]]) for i, v in zip(kept, rest_of, strict=False)]
        if last is not None:
            parts.append(_label(keys[last], lasts, values[keys[last]]))
        out.append(", ".join(p for p in parts if p) or "every workload")
    return out


def _label(key: str, values: list[str | None], known: set[str | None]) -> str:
    named = [v for v in values if v not in (None, OTHER)]
    absent, other = None in values, OTHER in values
    if other:
        left = sorted(str(v) for v in known if v not in (None, OTHER, *values))
        if absent:
            return f"{key} not in ({', '.join(left)})" if left else ""
        return f"{key} present" + (f", not ({', '.join(left)})" if left else "")
    if absent:
        return f"{key} absent" + (f" or in ({', '.join(map(str, named))})" if named else "")
    return f"{key}={named[0]}" if len(named) == 1 else f"{key} in ({', '.join(map(str, named))})"
