"""Team PromQL reads one namespace only: every selector of a query carries namespace="<it>", or the query is refused (threats.md 21).

The query is parsed, the selectors are replaced in the tree, and the tree is printed again, so that what Prometheus gets is text that
this module wrote. The text is then parsed once more: it must be the same query, and every selector in it must be pinned.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache

import promql_parser as promql

from ..api.v1alpha1.policy import RemediationPolicySpec

LABEL = "namespace"
VARIABLE = "$namespace"
MAX_LENGTH = 4096  # of a query as it is sent; a policy's own text has at most 1024 characters
MAX_PARTS = 64  # calls, parentheses and operators: the library takes minutes to walk a tree that is some hundred deep
MAX_POINTS = 11_000  # of all subqueries, one inside the other; Prometheus' own bound for a range query
DEFAULT_STEP = timedelta(seconds=60)  # of a subquery that names none, unless the server says otherwise
UNBOUND = {"info": "it reads series that no selector names"}
OPERATORS = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}
_PLAIN = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_STRING = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`""", re.DOTALL)
_PART = re.compile(r"[-+*/%^(<>]|==|\b(?:and|or|unless|atan2)\b", re.IGNORECASE)


class RefusedError(ValueError):
    """The query is not sent; the text says why."""


def pinned(query: str, namespace: str) -> str:
    """The query with every selector pinned to the namespace. Raises RefusedError."""
    sent, why = _answer(query, namespace)
    if why:
        raise RefusedError(why)
    return sent


def problem(query: str, namespace: str = "") -> str:
    """Why a policy's query (its variables not filled in yet) would not be sent; empty if it would.

    Without a namespace every literal one is let pass, because nobody knows yet where the policy will stand.
    """
    return _problem(query, namespace)


@lru_cache(maxsize=1024)
def _answer(query: str, namespace: str) -> tuple[str, str]:
    """(what is sent, why nothing is sent). Remembered: a verification asks the same again every few seconds."""
    try:
        return _pinned(query, namespace), ""
    except RefusedError as refused:
        return "", str(refused)


@lru_cache(maxsize=1024)
def _problem(query: str, namespace: str) -> str:
    try:
        _check(_parsed(query), (VARIABLE, namespace) if namespace else None)
    except RefusedError as refused:
        return str(refused)
    return ""


def _pinned(query: str, namespace: str) -> str:
    if not namespace:
        raise RefusedError("no namespace to pin the query to")
    tree = _parsed(query)
    _check(tree, (namespace,))
    sent = _map(tree, lambda s: _with(s, namespace)).prettify()
    if len(sent) > MAX_LENGTH:
        raise RefusedError(f"the query would be {len(sent)} characters long; at most {MAX_LENGTH} are sent")
    again = _parsed(sent)
    loose = [str(s) for s in selectors(again) if not _is_pinned(s, namespace)]
    if loose or _map(again, _without).prettify() != _map(tree, _without).prettify():
        raise RefusedError("the query cannot be pinned to its namespace: printed and read again it is another one")
    return sent


def policy_problems(spec: RemediationPolicySpec, namespace: str = "") -> list[str]:
    """`rule … check …: why` for each query of a policy that would not be sent."""
    asked = [(f"rule {r.name} check {c.name}", c.promql) for r in spec.rules for c in r.verify.checks if c.promql is not None]
    asked += [(f"rule {r.name} errorBudget", r.error_budget.promql) for r in spec.rules if r.error_budget is not None]
    return [f"{where}: {why}" for where, query in asked if (why := problem(query, namespace))]


def selectors(tree: promql.Expr) -> list[promql.VectorSelector]:
    """Every vector selector, also those inside ranges, subqueries and parameters."""
    found: list[promql.VectorSelector] = []

    def visit(node: promql.Expr) -> None:
        if isinstance(node, promql.VectorSelector):
            found.append(node)

    promql.walk(tree, visit)
    return found


def series_names(query: str) -> tuple[str, ...]:
    """The metric names in a query, in order, without those that only a regular expression gives. Raises RefusedError."""
    found = selectors(_parsed(query))
    named = [
        s.name or next((m.value for m in s.matchers.matchers if m.name == "__name__" and m.op == promql.MatchOp.Equal), "") for s in found
    ]
    return tuple(dict.fromkeys(n for n in named if n))


def _parsed(query: str) -> promql.Expr:
    if len(query) > MAX_LENGTH:
        raise RefusedError(f"the query is {len(query)} characters long; at most {MAX_LENGTH} are read")
    if (parts := len(_PART.findall(_STRING.sub('""', query)))) > MAX_PARTS:
        raise RefusedError(f"the query has {parts} calls, parentheses and operators; at most {MAX_PARTS} are read")
    try:
        return promql.parse(query)
    except ValueError as error:
        raise RefusedError(f"no PromQL: {error}") from None
    except BaseException as error:  # what the library throws when it panics is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise RefusedError("no PromQL that can be read") from None


def _check(tree: promql.Expr, allowed: tuple[str, ...] | None) -> None:
    """Raises RefusedError for a selector that asks for another namespace, and for what no selector pins. `allowed` None: any one name."""
    for selector in selectors(tree):
        if selector.matchers.or_matchers:
            raise RefusedError(f"{selector}: Prometheus knows no `or` between matchers")
        for m in selector.matchers.matchers:
            if m.name != LABEL:
                continue
            literal = m.op in (promql.MatchOp.Equal, promql.MatchOp.Re) and (_is_name(m.value) or m.value == VARIABLE)
            if not literal or (allowed is not None and m.value not in allowed):
                own = f'"{allowed[-1]}"' if allowed else f'"{VARIABLE}"'
                raise RefusedError(f"{m} asks for more or other than this namespace; write {LABEL}={own}, or leave it out")
    _check_cost(tree)


def _check_cost(tree: promql.Expr) -> None:
    def before(node: promql.Expr) -> None:
        if isinstance(node, promql.Call) and node.func.name in UNBOUND:
            raise RefusedError(f"{node.func.name}() is not sent: {UNBOUND[node.func.name]}")
        if isinstance(node, promql.SubqueryExpr) and node.range is not None:
            points.append(max(1.0, node.range / (node.step or DEFAULT_STEP)))
            product = 1.0
            for p in points:
                product *= p
            if product > MAX_POINTS:
                raise RefusedError(f"its subqueries ask for {product:.0f} points; at most {MAX_POINTS}")

    def after(node: promql.Expr) -> None:
        if isinstance(node, promql.SubqueryExpr) and node.range is not None:
            points.pop()

    points: list[float] = []
    promql.walk(tree, before, after)


def _map(tree: promql.Expr, change: Callable[[promql.VectorSelector], str]) -> promql.Expr:
    """The tree with every selector replaced by the one that `change` writes."""

    def visit(node: promql.Expr) -> promql.Expr | None:
        return promql.parse(change(node)) if isinstance(node, promql.VectorSelector) else None

    try:
        return promql.transform(tree, post_visit=visit)
    except ValueError as error:
        raise RefusedError(f"the query cannot be pinned to its namespace: {error}") from None


def _with(selector: promql.VectorSelector, namespace: str) -> str:
    return _printed(selector, promql.Matcher(promql.MatchOp.Equal, LABEL, namespace))


def _without(selector: promql.VectorSelector) -> str:
    """As it was, but for the namespace. (A selector needs one matcher at least: a mark stands in for the one that was taken out.)"""
    return _printed(selector, promql.Matcher(promql.MatchOp.Equal, "pinned", "here"))


def _printed(selector: promql.VectorSelector, instead: promql.Matcher) -> str:
    """The selector with `instead` in place of what it says about the namespace.

    Written here, because the library's own printing of a changed selector does not escape quotes: `a{b="} or c{d=\\"e\\"}"}` came out
    as two selectors.
    """
    kept = [m for m in selector.matchers.matchers if m.name != LABEL]
    selector.matchers = promql.Matchers([promql.Matcher(promql.MatchOp.Equal, "mark", "here")])
    before, _, modifiers = str(selector).partition('{mark="here"}')
    if before and not _PLAIN.fullmatch(before):
        raise RefusedError(f"the metric's name {selector.name!r} cannot be written safely")
    return f"{before}{{{','.join(_matcher(m) for m in (*kept, instead))}}}{modifiers}"


def _matcher(m: promql.Matcher) -> str:
    name = m.name if _PLAIN.fullmatch(m.name) else _quoted(m.name)
    return f"{name}{OPERATORS[str(m.op).rpartition('.')[2]]}{_quoted(m.value)}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\x{ord(c):02x}" for c in escaped) + '"'


def _is_pinned(selector: promql.VectorSelector, namespace: str) -> bool:
    own = [m for m in selector.matchers.matchers if m.name == LABEL]
    return len(own) == 1 and own[0].op == promql.MatchOp.Equal and own[0].value == namespace and not selector.matchers.or_matchers


def _is_name(value: str) -> bool:
    """Whether it is a namespace's name and nothing else: then, as a regular expression, it matches itself only."""
    return 0 < len(value) <= 63 and all(c in "abcdefghijklmnopqrstuvwxyz0123456789-" for c in value)
