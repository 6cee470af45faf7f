"""kubectl's JSONPath templates, evaluated here: a check is asked every second and must not cost a process each time.

Supported: text around `{…}`, fields with `\\.` escapes, `['name']`, unions, indices, slices, `[*]`, `.*`, `..name`, filters
`[?(@.path OP literal)]` and `[?(@.path)]`, `{range …}…{end}` and string literals `{"…"}`. As in kubectl a missing field gives nothing,
and several results of one `{…}` are joined by a space.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Value = Any
Step = Callable[[Value], Iterator[Value]]


class JsonPathError(ValueError):
    """A template that cannot be read."""


@dataclass(frozen=True)
class _Text:
    text: str


@dataclass(frozen=True)
class _Query:
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class _Range:
    steps: tuple[Step, ...]
    body: tuple[Any, ...]


class Template:
    """A parsed template. Raises JsonPathError."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._nodes, rest = _parse_nodes(_pieces(source), inside_range=False)
        if rest:
            raise JsonPathError(f"{source!r}: {{end}} without {{range}}")

    def render(self, value: Value) -> str:
        """The text that kubectl would print for this object."""
        return "".join(_render(node, value) for node in self._nodes)


def _render(node: Any, value: Value) -> str:
    if isinstance(node, _Text):
        return node.text
    found = _follow(node.steps, value)
    if isinstance(node, _Range):
        return "".join(_render(inner, item) for item in found for inner in node.body)
    return " ".join(_show(item) for item in found)


def _follow(steps: tuple[Step, ...], value: Value) -> Iterator[Value]:
    values = iter([value])
    for step in steps:
        values = _each(step, values)
    return values


def _each(step: Step, values: Iterator[Value]) -> Iterator[Value]:
    for value in values:
        yield from step(value)


def _show(value: Value) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | dict | list):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


# ---------------------------------------------------------------- reading


def _pieces(source: str) -> list[str]:
    """The template cut into texts and `{…}` parts; braces inside quotes and filters do not count."""
    found, start, i = [], 0, 0
    while i < len(source):
        if source[i] != "{":
            i += 1
            continue
        end = _closing(source, i)
        if source[start:i]:
            found.append(source[start:i])
        found.append(source[i : end + 1])
        start = i = end + 1
    if source[start:]:
        found.append(source[start:])
    return found


def _closing(source: str, begin: int) -> int:
    quote = ""
    for i in range(begin + 1, len(source)):
        c = source[i]
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c == "}":
            return i
    raise JsonPathError(f"{source!r}: a '{{' without its '}}'")


def _parse_nodes(pieces: list[str], *, inside_range: bool) -> tuple[tuple[Any, ...], list[str]]:
    nodes: list[Any] = []
    while pieces:
        piece, *pieces = pieces
        if not piece.startswith("{"):
            nodes.append(_Text(piece))
            continue
        inner = piece[1:-1].strip()
        if inner == "end":
            if not inside_range:
                return tuple(nodes), [piece, *pieces]
            return tuple(nodes), pieces
        if inner.startswith("range"):
            body, pieces = _parse_nodes(pieces, inside_range=True)
            nodes.append(_Range(_parse_path(inner.removeprefix("range").strip()), body))
        elif inner[:1] in ('"', "'"):
            nodes.append(_Text(inner[1:-1].encode().decode("unicode_escape")))
        else:
            nodes.append(_Query(_parse_path(inner)))
    if inside_range:
        raise JsonPathError("{range} without {end}")
    return tuple(nodes), []


_FIELD = re.compile(r"((?:\\.|[^.\[\]\\\s])+)")


def _parse_path(path: str) -> tuple[Step, ...]:
    rest = path.lstrip("$@") if path[:1] in "$@" else path
    if path and path[0] not in "$@.[":
        raise JsonPathError(f"{path!r}: a path begins with '.', '$', '@' or '['")
    steps: list[Step] = []
    while rest:
        if rest.startswith(".."):
            match = _FIELD.match(rest, 2)
            if match is None:
                raise JsonPathError(f"{path!r}: '..' needs a field name")
            steps.append(_descend(_unescape(match[1])))
            rest = rest[match.end() :]
        elif rest.startswith("."):
            match = _FIELD.match(rest, 1)
            if match is None:
                if rest == "." or rest[1] == "[":
                    rest = rest[1:]
                    continue
                raise JsonPathError(f"{path!r}: a field name is missing after '.'")
            steps.append(_wild if match[1] == "*" else _field(_unescape(match[1])))
            rest = rest[match.end() :]
        elif rest.startswith("["):
            end = _bracket_end(path, rest)
            steps.append(_bracket(rest[1:end].strip(), path))
            rest = rest[end + 1 :]
        else:
            raise JsonPathError(f"{path!r}: cannot read {rest!r}")
    return tuple(steps)


def _bracket_end(path: str, rest: str) -> int:
    quote, depth = "", 0
    for i, c in enumerate(rest):
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c == "[":
            depth += 1
        elif c == "]":
            depth -= 1
            if depth == 0:
                return i
    raise JsonPathError(f"{path!r}: a '[' without its ']'")


def _unescape(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name)


def _bracket(inner: str, path: str) -> Step:
    if inner == "*":
        return _wild
    if inner.startswith("?"):
        return _filter(inner[1:].strip(), path)
    if inner[:1] in ("'", '"'):
        names = [a or b for a, b in re.findall(r"'([^']*)'|\"([^\"]*)\"", inner)]
        return _union([_field(name) for name in names])
    if re.fullmatch(r"-?\d*:-?\d*(:-?\d+)?", inner):
        parts = [int(part) if part else None for part in inner.split(":")]
        return _slice(slice(*parts))
    if re.fullmatch(r"-?\d+(\s*,\s*-?\d+)*", inner):
        return _union([_index(int(part)) for part in inner.split(",")])
    raise JsonPathError(f"{path!r}: cannot read [{inner}]")


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


def _filter(expression: str, path: str) -> Step:
    if not (expression.startswith("(") and expression.endswith(")")):
        raise JsonPathError(f"{path!r}: a filter is written [?(…)]")
    match = re.fullmatch(r"(@[^=!<>]*?)\s*(?:(==|!=|<=|>=|<|>)\s*(.+))?", expression[1:-1].strip())
    if match is None:
        raise JsonPathError(f"{path!r}: cannot read the filter {expression}; use @.field OP literal")
    steps = _parse_path(match[1].strip())
    if match[2] is None:
        return lambda value: (item for item in _items(value) if any(True for _ in _follow(steps, item)))
    wanted, compare = _literal(match[3], path), _OPERATORS[match[2]]

    def holds(item: Value) -> bool:
        return any(type(found) is type(wanted) and compare(found, wanted) for found in _follow(steps, item))

    return lambda value: (item for item in _items(value) if holds(item))


def _literal(text: str, path: str) -> Any:
    if text[:1] in ("'", '"') and text[-1:] == text[:1]:
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError:
        raise JsonPathError(f"{path!r}: {text} is no string in quotes, number, true or false") from None


def _items(value: Value) -> list[Value]:
    if isinstance(value, list):
        return value
    return list(value.values()) if isinstance(value, dict) else []


def _wild(value: Value) -> Iterator[Value]:
    yield from _items(value)


def _field(name: str) -> Step:
    def step(value: Value) -> Iterator[Value]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _index(number: int) -> Step:
    def step(value: Value) -> Iterator[Value]:
        if isinstance(value, list) and -len(value) <= number < len(value):
            yield value[number]

    return step


def _slice(part: slice) -> Step:
    def step(value: Value) -> Iterator[Value]:
        if isinstance(value, list):
            yield from value[part]

    return step


def _union(steps: list[Step]) -> Step:
    def step(value: Value) -> Iterator[Value]:
        for one in steps:
            yield from one(value)

    return step


def _descend(name: str) -> Step:
    def step(value: Value) -> Iterator[Value]:
        if isinstance(value, dict) and name in value:
            yield value[name]
        for item in _items(value):
            yield from step(item)

    return step
