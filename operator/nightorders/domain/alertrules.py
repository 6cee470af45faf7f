"""What Prometheus says about an alert's own rule, and whether what the rule finds now is this alert. Pure: no request is made here.

An alert is stale only if its rule was evaluated and found nothing *although the series behind it are there*: when an exporter is down, every
rule over its series finds nothing as well, and that proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import promql_parser as promql

from .promql import selectors

ALERT_NAME = "alertname"
# They name one incarnation of a workload. Another pod of the same workload in the same trouble is the same trouble.
INCARNATION = frozenset(
    {"pod", "pod_name", "exported_pod", "container", "instance", "uid", "id", "container_id", "image", "image_id", "pod_ip"}
)
# Who was scraped, and by whom, says nothing about the object: exporters are renamed, and Prometheus servers replaced.
_SCRAPED = frozenset({"job", "instance", "endpoint", "prometheus", "prometheus_replica"})
_PODS = ("pod", "pod_name", "exported_pod")
# kube-state-metrics makes some series only while something is wrong, so that their absence is news; these are always there.
_STATE = "kube_"
_STATE_ALIVE = "(count(kube_namespace_created) or count(kube_node_info) or count(kube_pod_info) or count(kube_deployment_created))"
_SOURCE = ("namespace", "job", "service")
_TEMPLATE = "{{"
_MAX_NAMES = 12


@dataclass(frozen=True)
class AlertRule:
    """An alerting rule as Prometheus tells it. `labels` are those that the rule adds; `error` non-empty: its last evaluation failed."""

    name: str
    expr: str
    labels: Mapping[str, str]
    error: str = ""


def rules_for(answer: object, labels: Mapping[str, str]) -> tuple[AlertRule, ...]:
    """The rules in an answer of /api/v1/rules that can have made an alert with these labels.

    Several rules may share a name and differ in what they add (severity). Raises ValueError for what Prometheus does not send.
    """
    data = answer.get("data") if isinstance(answer, Mapping) else None
    groups = data.get("groups") if isinstance(data, Mapping) else None
    if not isinstance(groups, list):
        raise ValueError("the answer is not what Prometheus sends")
    found = []
    for group in groups:
        rules = group.get("rules") if isinstance(group, Mapping) else None
        for rule in rules if isinstance(rules, list) else ():
            if isinstance(rule, Mapping) and (read := _rule(rule)) is not None and _fits(read, labels):
                found.append(read)
    return tuple(found)


def _rule(raw: Mapping[str, Any]) -> AlertRule | None:
    name, expr, labels = raw.get("name"), raw.get("query"), raw.get("labels")
    if raw.get("type", "alerting") != "alerting" or not isinstance(name, str) or not isinstance(expr, str):
        return None
    own = {k: v for k, v in labels.items() if isinstance(v, str)} if isinstance(labels, Mapping) else {}
    error = raw.get("lastError") if raw.get("health") == "err" else ""
    return AlertRule(name, expr, own, error if isinstance(error, str) else "its evaluation fails")


def _fits(rule: AlertRule, labels: Mapping[str, str]) -> bool:
    if rule.name != labels.get(ALERT_NAME):
        return False
    return all(labels.get(k, v) == v for k, v in rule.labels.items() if _TEMPLATE not in v)


def is_that_alert(series: Mapping[str, str], rule: AlertRule, labels: Mapping[str, str], pods_of: str = "") -> bool:
    """Whether a series that the rule's expression gives is the alert with these labels.

    Only a label that both have and that differs speaks against it: relabelling adds and drops some on the way to Alertmanager.
    """
    differing = {k for k, v in series.items() if k not in rule.labels and k not in _SCRAPED and k in labels and labels[k] != v}
    if not differing:
        return True
    ours = bool(pods_of) and any(series.get(k, "").startswith(f"{pods_of}-") for k in _PODS)
    return ours and differing <= INCARNATION


def alive(rule: AlertRule, labels: Mapping[str, str]) -> str:
    """PromQL that gives something only if every series that the rule reads is still delivered for these labels; empty: cannot be asked.

    A series that lacks one of the labels counts, too: an expression may join series of several exporters.
    """
    try:
        tree = promql.parse(rule.expr)
        names = {_name(s) for s in selectors(tree)}
    except ValueError:
        return ""
    if not names or "" in names or len(names) > _MAX_NAMES:
        return ""
    where = ",".join(f"{k}=~{_quoted(re.escape(labels[k]) + '|')}" for k in _SOURCE if labels.get(k))
    parts = sorted(f"count({n}{{{where}}})" if where else f"count({n})" for n in names if not n.startswith(_STATE))
    if any(n.startswith(_STATE) for n in names):
        parts.append(_STATE_ALIVE)
    return " and ".join(parts)


def _name(selector: promql.VectorSelector) -> str:
    if selector.name:
        return str(selector.name)
    equal = [m.value for m in selector.matchers.matchers if m.name == "__name__" and m.op == promql.MatchOp.Equal]
    return equal[0] if equal and re.fullmatch(r"[A-Za-z_:][A-Za-z0-9_:]*", equal[0]) else ""


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
