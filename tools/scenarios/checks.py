"""Asks the cluster the checks of a scenario."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from tools.scenarios.jsonpath import Template
from tools.scenarios.kube import Ref
from tools.scenarios.model import Check

Json = dict[str, Any]
_POLL_SECONDS = 0.5


class Reader(Protocol):
    """What a check needs of the cluster; `kube.Kube` in a run."""

    def get(self, ref: Ref) -> Json | None:
        """The object, or None."""
        ...

    def list(self, kind_name: str, namespace: str = "", selector: str | None = None) -> list[Json]:
        """The objects of a kind."""
        ...


@dataclass(frozen=True)
class Answer:
    """Whether a check holds, and what was seen."""

    holds: bool
    seen: str


def describe(check: Check) -> str:
    """The check in one line."""
    what = check.object + (f" ({check.selector})" if check.selector else "")
    if check.absent:
        return f"{what} is absent"
    if check.condition is not None:
        return f"{what} {check.condition}={check.status}"
    for word, value in (("==", check.equals), ("!=", check.not_equals), ("=~", check.matches)):
        if value is not None:
            return f"{what} {check.jsonpath} {word} {value!r}"
    return what


def ask(reader: Reader, check: Check, namespace: str) -> Answer:
    """Evaluates a check now."""
    ref = Ref.parse(check.object, namespace)
    if ref.name:
        found = reader.get(ref)
        objects = [] if found is None else [found]
    else:
        objects = reader.list(ref.kind, ref.namespace, check.selector)
        found = {"apiVersion": "v1", "kind": "List", "items": objects}
    if check.absent:
        return Answer(not objects, f"{len(objects)} there")
    if not objects and ref.name:
        return Answer(False, "not there")
    if check.condition is not None:
        return _conditions(objects, check)
    assert check.jsonpath is not None
    return _compare(check, _template(check.jsonpath).render(found))


def _conditions(objects: list[Json], check: Check) -> Answer:
    """All of them must have the condition, and there must be one at least."""
    states = {
        o["metadata"]["name"]: next(
            (c["status"] for c in o.get("status", {}).get("conditions") or [] if c["type"] == check.condition), "not set"
        )
        for o in objects
    }
    seen = ", ".join(f"{name}: {state}" for name, state in sorted(states.items())[:5]) or "none there"
    return Answer(bool(states) and all(state == check.status for state in states.values()), seen)


def _compare(check: Check, text: str) -> Answer:
    if check.equals is not None:
        return Answer(text == check.equals, repr(text[:200]))
    if check.not_equals is not None:
        return Answer(text != check.not_equals, repr(text[:200]))
    assert check.matches is not None
    return Answer(re.search(check.matches, text) is not None, repr(text[:200]))


@functools.cache
def _template(source: str) -> Template:
    return Template(source)


def failing(reader: Reader, checks: Iterable[Check], namespace: str) -> list[str]:
    """The checks that do not hold, each with what was seen; empty: all hold."""
    found = []
    for check in checks:
        answer = ask(reader, check, namespace)
        if not answer.holds:
            found.append(f"{describe(check)} (seen: {answer.seen})")
    return found


def wait(reader: Reader, checks: Iterable[Check], namespace: str, seconds: float) -> list[str]:
    """Polls until all hold at the same time; what still does not after `seconds`."""
    checks = list(checks)
    end = time.monotonic() + seconds
    while (left := failing(reader, checks, namespace)) and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
    return left
