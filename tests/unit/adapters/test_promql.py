"""Team queries are pinned to their namespace: what is sent, what is refused, and that no selector ever gets past."""

from __future__ import annotations

import promql_parser
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nightorders.api.v1alpha1.policy import RemediationPolicySpec
from nightorders.domain.promql import MAX_LENGTH, RefusedError, pinned, policy_problems, problem, selectors

pytestmark = [pytest.mark.threat(21), pytest.mark.promise(7)]

pytestmark = pytest.mark.threat(21)
PIN = 'namespace="shop"'

SENT = [
    ("up", f"up{{{PIN}}}"),
    ('up{namespace="shop"}', f"up{{{PIN}}}"),
    ('up{namespace=~"shop"}', f"up{{{PIN}}}"),
    ("up{namespace='shop'}", f"up{{{PIN}}}"),
    ('{__name__="up"}', f'{{__name__="up",{PIN}}}'),
    ('{__name__=~".+"}', f'{{__name__=~".+",{PIN}}}'),
    ('{"my.metric"}', f'{{__name__="my.metric",{PIN}}}'),
    ("up offset 5m", f"up{{{PIN}}} offset 5m"),
    ("up offset -5m", f"up{{{PIN}}} offset -5m"),
    ("up @ start()", f"up{{{PIN}}} @ start()"),
    ("up @ 1609746000 offset 1w", f"up{{{PIN}}} @ 1609746000.000 offset 1w"),
    ("rate(up[5m] offset 1h)", f"rate(up{{{PIN}}}[5m] offset 1h)"),
    ("sum(up) by (namespace)", f"sum by (namespace) (up{{{PIN}}})"),
    ("sum without (namespace) (up)", f"sum without (namespace) (up{{{PIN}}})"),
    ("up or vector(0)", f"up{{{PIN}}} or vector(0)"),
    ("a unless on () b", f"a{{{PIN}}} unless on () b{{{PIN}}}"),
    ("a / on (pod) group_left (node) b", f"a{{{PIN}}} / on (pod) group_left (node) b{{{PIN}}}"),
    ("a > bool ignoring (x) group_right (y) b", f"a{{{PIN}}} > bool ignoring (x) group_right (y) b{{{PIN}}}"),
    ("-a ^ 2", f"-a{{{PIN}}} ^ 2"),
    ("max_over_time(rate(a[1m])[5m:10s] @ end())", f"max_over_time(rate(a{{{PIN}}}[1m])[5m:10s] @ end())"),
    ("topk(scalar(a), b)", f"topk(scalar(a{{{PIN}}}), b{{{PIN}}})"),
    ("absent_over_time(a[1h])", f"absent_over_time(a{{{PIN}}}[1h])"),
    ('count_values("namespace", a)', f'count_values("namespace", a{{{PIN}}})'),
    # the label may be written over afterwards; what is read stays the namespace's own
    (
        'label_replace(a, "namespace", "other", "pod", ".*")',
        f'label_replace(a{{{PIN}}}, "namespace", "other", "pod", ".*")',
    ),
    ("a # {namespace=\"other\"}", f"a{{{PIN}}}"),
    ('a{text="} or b{namespace=\\"other\\"}"}', f'a{{{PIN},text="}} or b{{namespace=\\"other\\"}}"}}'),
    # a name and a value that close their own quotes when they are printed carelessly
    ('{"up\\"} or b{a=\\"c"}', f'{{__name__="up\\"}} or b{{a=\\"c",{PIN}}}'),
    ("vector(1)", "vector(1)"),
    ("time() - 3", "time() - 3"),
]  # fmt: skip

REFUSED = [
    ('up{namespace="other"}', 'write namespace="shop"'),
    ('up{namespace=""}', "asks for more or other"),
    ('up{namespace!="x"}', "asks for more or other"),
    ('up{namespace=~".+"}', "asks for more or other"),
    ('up{namespace=~"shop|other"}', "asks for more or other"),
    ('up{namespace=~"shop.*"}', "asks for more or other"),
    ('up{namespace!~"other"}', "asks for more or other"),
    ('up{"namespace"="other"}', "asks for more or other"),
    ('up{namespace="shop",namespace="other"}', "asks for more or other"),
    ('up{namespace="shop"} or up{namespace="other"}', "asks for more or other"),
    ('sum(up{namespace="shop"}) / sum(rate(up{namespace="other"}[5m]))', "asks for more or other"),
    ('max_over_time(up{namespace="other"}[5m:1m])', "asks for more or other"),
    ('topk(scalar(up{namespace="other"}), up)', "asks for more or other"),
    ('{namespace=~".*"}', "no PromQL"),
    ('up{namespace="shop" or namespace="other"}', "no `or`"),
    ('up{a="1" or b="2"}', "no `or`"),
    ("info(up)", "info() is not sent"),
    ('info(up, {k8s_cluster_name="a"})', "info() is not sent"),
    ("sum(", "no PromQL"),
    ("", "no PromQL"),
    ("up{", "no PromQL"),
    ('up{a=~"("}', "no PromQL"),
    ("sum(up}", "no PromQL"),
    ("up; up", "no PromQL"),
    ("no_such_function(up)", "no PromQL"),
    ("max_over_time(max_over_time(up[1d:1s])[1d:1s])", "points"),
    ("(" * 400 + "up" + ")" * 400, "400 calls"),
    ("-" * 400 + "up", "400 calls"),
    ("up" + " or up" * 200, "200 calls"),
    ("a" * (MAX_LENGTH + 1), "characters"),
    (" or ".join("a" * 60 for _ in range(60)), "characters"),
]


@pytest.mark.parametrize(("query", "sent"), SENT)
def test_every_selector_is_pinned(query: str, sent: str) -> None:
    assert pinned(query, "shop") == sent
    assert pinned(sent, "shop") == sent
    assert problem(query, "shop") == ""


@pytest.mark.parametrize(("query", "says"), REFUSED)
def test_what_cannot_be_pinned_is_not_sent(query: str, says: str) -> None:
    with pytest.raises(RefusedError, match=says.replace("(", r"\(").replace(")", r"\)")):
        pinned(query, "shop")


def test_without_a_namespace_nothing_is_sent() -> None:
    with pytest.raises(RefusedError, match="no namespace"):
        pinned("up", "")


@pytest.mark.parametrize(
    ("query", "namespace", "says"),
    [
        ('sum(errors{namespace="$namespace",service="$name"})', "", ""),
        ('sum(errors{namespace=~"$namespace"})', "shop", ""),
        ('sum(errors{namespace="shop"})', "", ""),  # nobody knows yet where it will stand
        ('sum(errors{namespace="shop"})', "shop", ""),
        ('sum(errors{namespace="shop"})', "web", "asks for more or other"),
        ('sum(errors{namespace=~"$namespace-.*"})', "", "asks for more or other"),
        ("sum($name)", "", "no PromQL"),  # variables stand inside quotes only
        ("sum(", "", "no PromQL"),
    ],
)
def test_a_policy_says_what_is_wrong_before_it_is_needed(query: str, namespace: str, says: str) -> None:
    assert problem(query, namespace).find(says) >= 0 if says else problem(query, namespace) == ""


def test_a_policy_names_the_check() -> None:
    good = {"name": "errors", "promql": 'sum(errors{namespace="$namespace"})', "max": "1"}
    bad = {"name": "latency", "promql": 'sum(latency{namespace=~".+"})', "max": "1"}
    rule = {"name": "rollback", "types": ["RollbackWorkload"], "level": "L4", "verify": {"checks": [good, bad]}}
    spec = RemediationPolicySpec.model_validate({"rules": [{**rule, "errorBudget": {"promql": "sum(", "min": "0.1"}}]})
    first, second = policy_problems(spec, "shop")
    assert first.startswith("rule rollback check latency: namespace=~")
    assert second.startswith("rule rollback errorBudget: no PromQL")


# ---------------------------------------------------------------- whatever is written

labels = st.sampled_from(["namespace", "pod", "job", '"namespace"', "exported_namespace"])
values = st.sampled_from(["shop", "other", "", ".*", "shop|other", "shop.*", 'a"b', "}", "a\\b", "é\n"]) | st.text(max_size=6)
quoted = values.map(lambda v: '"' + v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"')
matchers = st.builds(lambda n, o, v: f"{n}{o}{v}", labels, st.sampled_from(["=", "!=", "=~", "!~"]), quoted)
selector = st.builds(
    lambda name, ms, more: f"{name}{{{','.join(ms)}}}{more}",
    st.sampled_from(["up", "errors_total", "a:b:c"]),
    st.lists(matchers, max_size=3),
    st.sampled_from(["", " offset 5m", " @ end()", " @ 5 offset -1h"]),
)
ranged = st.builds(lambda s: s.replace("}", "}[5m]", 1) if s.count("}") == 1 else s, selector)


def _grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(["+", "/", "or", "unless", "> bool", "and on (pod)", "* on (pod) group_left (node)", "atan2"])
    return st.one_of(
        st.builds(lambda a, o, b: f"({a}) {o} ({b})", inner, binary, inner),
        st.builds(lambda f, a: f"{f}({a})", st.sampled_from(["sum", "abs", "-", "scalar", "absent", "sum by (namespace) "]), inner),
        st.builds(lambda a, b: f"topk(scalar({a}), {b})", inner, inner),
        st.builds(lambda a: f"max_over_time(({a})[5m:30s] offset 1m)", inner),
        st.builds(lambda a: f"rate({a})", ranged),
        st.builds(lambda a: f'label_replace({a}, "namespace", "$1", "pod", "(.*)")', inner),
        st.builds(lambda a: f"{a} or vector(0)", inner),
    )


queries = st.recursive(selector, _grow, max_leaves=6)


@given(queries | st.text(alphabet="up{}()[]\"\\=~!,:@- \tnamespace'`or5m", max_size=40))
@example('up{namespace="shop"}')
@example('{"a\\"} or b{c=\\"d"}')
def test_whatever_is_written_only_the_namespace_is_read(query: str) -> None:
    """Judged by a second reading of what would be sent; the same selectors in the same places, each with the one pin."""
    try:
        sent = pinned(query, "shop")
    except RefusedError:
        return
    before, after = selectors(promql_parser.parse(query)), selectors(promql_parser.parse(sent))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        own = [m for m in new.matchers.matchers if m.name == "namespace"]
        assert [(m.op, m.value) for m in own] == [(promql_parser.MatchOp.Equal, "shop")]
        assert not new.matchers.or_matchers
        assert new.name == old.name
        others = [[str(m) for m in s.matchers.matchers if m.name != "namespace"] for s in (old, new)]
        assert sorted(others[0]) == sorted(others[1])
    assert pinned(sent, "shop") == sent


@given(queries)
def test_what_a_policy_is_told_is_what_happens(query: str) -> None:
    try:
        pinned(query, "shop")
        refused = ""
    except RefusedError as error:
        refused = str(error)
    assert bool(problem(query, "shop")) <= bool(refused)
