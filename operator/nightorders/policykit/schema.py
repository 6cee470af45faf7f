"""What the API server would say to a policy: the CRD's schema, its list types and its CEL rules, walked over the plain file."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from ..api.crdgen import all_crds
from ..api.meta import DURATION_PATTERN, NAME_PATTERN, NUMBER_PATTERN, parse_duration
from .files import At, Problem, Source, dotted

Json = dict[str, Any]

_GO_ESCAPE = re.compile(r"\\x\{([0-9a-f]+)\}")
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}
_HINTS: Mapping[str, str] = {
    DURATION_PATTERN: "write a duration such as 90s, 15m or 336h (days are written in hours)",
    NUMBER_PATTERN: 'write a number in quotes, such as "0.01"',
    NAME_PATTERN: "use lower-case letters, digits, '-' and '.'",
}


@cache
def spec_schema(plural: str) -> Json:
    """The schema of `spec` of one of our kinds."""
    schema: Json = all_crds()[plural]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def checked(schema: Mapping[str, Any], value: Any, source: Source, at: At = (), case: str = "") -> tuple[Any, list[Problem]]:
    """The value with its defaults, and everything that is wrong with it."""
    walk = _Walk(source, case)
    made = walk.value(schema, value, at)
    return made, walk.problems


class _Walk:
    def __init__(self, source: Source, case: str) -> None:
        self.problems: list[Problem] = []
        self._source, self._case = source, case

    def _wrong(self, at: At, message: str, fix: str = "") -> None:
        self.problems.append(Problem(self._source.file, self._source.line(at), dotted(at), message, fix, self._case))

    def value(self, schema: Mapping[str, Any], given: Any, at: At) -> Any:
        value: Any = given
        kind = schema.get("type")
        if kind is None:
            return value
        if not _is_a(kind, value):
            article = "a list" if kind == "array" else "a mapping" if kind == "object" else f"of type {kind}"
            quoted = f'; write it in quotes: "{value}"' if kind == "string" and isinstance(value, (int, float)) else ""
            self._wrong(at, f"must be {article}, not {_named(value)}{quoted}", _hint(schema))
            return value
        before = len(self.problems)
        match kind:
            case "object":
                value = self._object(schema, value, at)
            case "array":
                value = self._list(schema, value, at)
            case "string":
                self._string(schema, value, at)
            case _:
                self._bounds(schema, value, at)
        if (allowed := schema.get("enum")) and value not in allowed:
            self._wrong(at, f"{value!r} is not possible", f"write one of {', '.join(map(str, allowed))}{close(str(value), allowed)}")
        if len(self.problems) == before:  # the API server, too, asks CEL only about what has the right shape
            self._rules(schema, value, at)
        return value

    def _object(self, schema: Mapping[str, Any], value: Json, at: At) -> Json:
        # null is pruned where a field is not nullable, before the defaults are filled in
        made = {k: v for k, v in value.items() if v is not None}
        if (entry := schema.get("additionalProperties")) is not None:
            if (most := schema.get("maxProperties")) is not None and len(made) > most:
                self._wrong(at, f"has {len(made)} entries; at most {most}")
            return {k: self.value(entry, v, (*at, k)) for k, v in made.items()}
        known: Mapping[str, Any] = schema.get("properties", {})
        for key in [k for k in value if k not in known]:
            self._wrong((*at, key), "there is no such field", f"known here: {', '.join(known) or 'nothing'}{close(key, known)}")
            made.pop(key, None)
        for key, inner in known.items():
            if key not in made and "default" in inner:
                made[key] = copy.deepcopy(inner["default"])
        for key in schema.get("required", ()):
            if key not in made:
                about = str(known.get(key, {}).get("description", "")).split(". ")[0].rstrip(".")
                self._wrong((*at, key), "is missing", f"add {key}{f': {about}' if about else ''}")
        return {k: self.value(known[k], v, (*at, k)) for k, v in made.items()}

    def _list(self, schema: Mapping[str, Any], value: list[Any], at: At) -> list[Any]:
        if len(value) < schema.get("minItems", 0):
            self._wrong(at, f"needs at least {schema['minItems']} entries")
        if (most := schema.get("maxItems")) is not None and len(value) > most:
            self._wrong(at, f"has {len(value)} entries; at most {most}")
        made = [self.value(schema.get("items", {}), v, (*at, i)) for i, v in enumerate(value)]
        keys = schema.get("x-kubernetes-list-map-keys", ())
        seen: dict[Any, int] = {}
        for i, v in enumerate(made):
            mark: Any = None
            if schema.get("x-kubernetes-list-type") == "set":
                mark = str(v)
            elif keys and isinstance(v, dict):
                mark = tuple(str(v.get(k)) for k in keys)
            if mark is not None and seen.setdefault(mark, i) != i:
                name = mark if isinstance(mark, str) else ", ".join(f"{k} {m}" for k, m in zip(keys, mark, strict=True))
                self._wrong((*at, i), f"{name} stands in this list twice", "every entry needs its own; rename or remove one")
        return made

    def _string(self, schema: Mapping[str, Any], value: str, at: At) -> None:
        if (most := schema.get("maxLength")) is not None and len(value) > most:
            self._wrong(at, f"has {len(value)} characters; at most {most}")
        if len(value) < schema.get("minLength", 0):
            self._wrong(at, "is empty")
        if (pattern := schema.get("pattern")) and not _regex(pattern).search(value):
            self._wrong(at, f"{value[:80]!r} has not the right form", _hint(schema))
        if schema.get("format") == "date-time" and not _is_time(value):
            self._wrong(at, f"{value[:80]!r} is no moment in time", "write it as 2026-12-24T00:00:00Z")

    def _bounds(self, schema: Mapping[str, Any], value: Any, at: At) -> None:
        if "minimum" in schema and value < schema["minimum"]:
            self._wrong(at, f"{value} is too small", f"at least {schema['minimum']}")
        if "maximum" in schema and value > schema["maximum"]:
            self._wrong(at, f"{value} is too large", f"at most {schema['maximum']}")

    def _rules(self, schema: Mapping[str, Any], value: Any, at: At) -> None:
        for rule in schema.get("x-kubernetes-validations", ()):
            try:
                held = CEL[rule["rule"]](value)
            except (ValueError, TypeError):
                held = False
            if not held:
                self._wrong(at, rule["message"])


def _is_a(kind: str, value: object) -> bool:
    return isinstance(value, _TYPES[kind]) and not (kind in ("integer", "number") and isinstance(value, bool))


def _named(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a fraction"}
    return names.get(type(value), "nothing")


def _hint(schema: Mapping[str, Any]) -> str:
    if (pattern := schema.get("pattern")) is None:
        return ""
    return _HINTS.get(
        pattern, "use letters, digits, '-', '_' and '.'" if "A-Za-z0-9" in pattern else "no line breaks or control characters"
    )


def close(word: str, known: Any) -> str:
    """` (did you mean …?)`, if one of the known words is near."""
    near = get_close_matches(word, [str(k) for k in known], n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    """Go's spelling of a code point, in Python's; its `$` is the end of the text and nothing else."""
    spelled = _GO_ESCAPE.sub(lambda m: f"\\U{int(m[1], 16):08x}", pattern)
    return re.compile(spelled[:-1] + r"\Z" if spelled.endswith("$") else spelled)


def _is_time(value: str) -> bool:
    from ..domain.snapshot import parse_time

    return re.match(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt]", value) is not None and parse_time(value.replace("z", "Z")) is not None


# ------------------------------------------------------------ the CEL rules of the policies, each by its own text


def _duration(value: Any) -> float:
    return parse_duration(value).total_seconds()


def _exactly_one_form(f: Json) -> bool:
    if "schedule" in f:
        return "duration" in f and "from" not in f and "until" not in f
    return "from" in f and "until" in f and "duration" not in f


def _moment(value: str) -> Any:
    from ..domain.snapshot import parse_time

    return parse_time(value)


CEL: Mapping[str, Callable[[Any], bool]] = {
    "!has(self.earn) || self.earn.from <= self.level": lambda s: "earn" not in s or s["earn"]["from"] <= s["level"],
    "duration(self.pauseFor) <= duration('24h')": lambda s: _duration(s["pauseFor"]) <= 86400,
    "duration(self.over) >= duration('1h')": lambda s: _duration(s["over"]) >= 3600,
    "duration(self.expiresAfter) >= duration('1s')": lambda s: _duration(s["expiresAfter"]) >= 1,
    "duration(self.every) >= duration('1s')": lambda s: _duration(s["every"]) >= 1,
    "duration(self.every) <= duration(self.__for__)": lambda s: _duration(s["every"]) <= _duration(s["for"]),
    "duration(self.__for__) <= duration('24h')": lambda s: _duration(s["for"]) <= 86400,
    "has(self.promql) != has(self.condition)": lambda s: ("promql" in s) != ("condition" in s),
    "!has(self.promql) || has(self.max) || has(self.min)": lambda s: "promql" not in s or "max" in s or "min" in s,
    "has(self.promql) || (!has(self.max) && !has(self.min))": lambda s: "promql" in s or ("max" not in s and "min" not in s),
    "!has(self.max) || !has(self.min) || double(self.min) <= double(self.max)": lambda s: (
        "max" not in s or "min" not in s or float(s["min"]) <= float(s["max"])
    ),
    "!has(self.promql) || !self.promql.replace('$namespace', '$').replace('$name', '$').replace('$kind', '$')"
    ".matches('[$][A-Za-z0-9_{]')": lambda s: (
        "promql" not in s
        or re.search(r"[$][A-Za-z0-9_{]", s["promql"].replace("$namespace", "$").replace("$name", "$").replace("$kind", "$")) is None
    ),
    "has(self.schedule) ? (has(self.duration) && !has(self.from) && !has(self.until)) "
    ": (has(self.from) && has(self.until) && !has(self.duration))": _exactly_one_form,
    "!has(self.from) || !has(self.until) || self.from < self.until": lambda s: (
        "from" not in s or "until" not in s or _moment(s["from"]) < _moment(s["until"])
    ),
    "duration(self.repeat) >= duration('1m')": lambda s: _duration(s["repeat"]) >= 60,
}


def rules_of(schema: Mapping[str, Any]) -> Iterator[str]:
    """Every CEL rule of a schema. A test holds them against the table above, so that a new rule is never forgotten here."""
    yield from (r["rule"] for r in schema.get("x-kubernetes-validations", ()))
    for inner in schema.get("properties", {}).values():
        yield from rules_of(inner)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            yield from rules_of(schema[key])
