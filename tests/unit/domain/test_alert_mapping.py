"""Alertmanager's payload, the object that an alert is about, and what is kept of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nightorders.api.v1alpha1.common import ObjectRef
from nightorders.api.v1alpha1.incident import AlertState, Incident
from nightorders.domain import alerts as module
from nightorders.domain.alertrules import AlertRule, is_that_alert
from nightorders.domain.alerts import (
    ALERT_LABEL,
    MOST_STATES,
    Alert,
    PayloadError,
    belongs,
    episode_of,
    gaps_of,
    makers_of,
    manifest,
    noted,
    parse,
    place,
    severity_of,
    state_of,
    subject_of,
    without_namespace,
    word,
)

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
WEB = ObjectRef(api_version="apps/v1", kind="Deployment", name="web")
KSM = {"job": "kube-state-metrics", "service": "kps-kube-state-metrics", "instance": "10.1.1.1:8080", "endpoint": "http"}


def alert(firing: bool = True, fingerprint: str = "f1", annotations: dict[str, str] | None = None, **labels: str) -> Alert:
    return Alert(fingerprint, firing, {"alertname": "Broken", **labels}, annotations or {}, NOW - timedelta(minutes=5))


def raw(**more: Any) -> dict[str, Any]:
    return {
        "status": "firing",
        "labels": {"alertname": "Broken", "namespace": "shop"},
        "annotations": {"summary": "it is broken"},
        "startsAt": "2026-05-04T11:55:00.123456789Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": "abcdef0123456789",
        **more,
    }


def payload(*alerts: Any, **more: Any) -> dict[str, Any]:
    return {"version": "4", "groupKey": "{}", "status": "firing", "truncatedAlerts": 0, "alerts": list(alerts), **more}


def incident(where: module.Place, one: Alert, **status: Any) -> Incident:
    made = manifest(where, 1, one, NOW)
    return Incident.model_validate({**made, "metadata": {**made["metadata"], "namespace": where.namespace}, "status": status})


def first(one: Alert) -> str:
    """The first candidate that needs no look, with what must be looked at before."""
    parts = []
    for c in subject_of(one).candidates:
        parts.append(f"{c.kind}/{c.name}" + ("?" if c.must_exist else "") + (f">{c.follow}" if c.follow else ""))
        if not c.must_exist:
            break
    return " ".join(parts)


# ---------------------------------------------------------------- the payload


def test_a_notification_is_read_by_each_alerts_own_status() -> None:
    found = parse(
        payload(
            raw(), raw(status="resolved", endsAt="2026-05-04T11:59:00Z", fingerprint="b"), status="firing", newField=1, truncatedAlerts=3
        )
    )
    assert [a.firing for a in found.alerts] == [True, False]
    assert found.alerts[0].starts_at == datetime(2026, 5, 4, 11, 55, 0, 123456, tzinfo=UTC)
    assert found.alerts[0].ends_at is None
    assert found.alerts[1].ends_at == datetime(2026, 5, 4, 11, 59, tzinfo=UTC)
    assert found.truncated == 3


def test_without_a_fingerprint_the_labels_make_one() -> None:
    one, two, other = parse(payload(raw(fingerprint=""), raw(fingerprint=None), raw(fingerprint="", labels={"alertname": "x"}))).alerts
    assert one.fingerprint == two.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("bad", "names"),
    [
        ([], "body"),
        ({"version": "3", "alerts": [raw()]}, "version"),
        ({"alerts": [raw()]}, "version"),
        (payload(), "alerts"),
        ({"version": "4", "alerts": {}}, "alerts"),
        (payload(raw(), truncatedAlerts="1"), "truncatedAlerts"),
        (payload(raw(), truncatedAlerts=-1), "truncatedAlerts"),
        (payload(raw(), truncatedAlerts=True), "truncatedAlerts"),
        (payload(raw(), 7), "alerts[1]"),
        (payload(raw(status="pending")), "alerts[0].status"),
        (payload(raw(labels={})), "alerts[0].labels.alertname"),
        (payload(raw(labels=None)), "alerts[0].labels.alertname"),
        (payload(raw(labels={"alertname": " "})), "alerts[0].labels.alertname"),
        (payload(raw(labels={"alertname": "x", "pod": 7})), "alerts[0].labels.pod"),
        (payload(raw(labels=["x"])), "alerts[0].labels"),
        (payload(raw(annotations={"summary": None})), "alerts[0].annotations.summary"),
        (payload(raw(startsAt=None)), "alerts[0].startsAt"),
        (payload(raw(startsAt="yesterday")), "alerts[0].startsAt"),
        (payload(raw(startsAt="0001-01-01T00:00:00Z")), "alerts[0].startsAt"),
        (payload(raw(endsAt=5)), "alerts[0].endsAt"),
        (payload(raw(fingerprint="../x")), "alerts[0].fingerprint"),
        (payload(raw(fingerprint=["x"])), "alerts[0].fingerprint"),
    ],
)
def test_bad_input_names_the_field(bad: object, names: str) -> None:
    with pytest.raises(PayloadError) as error:
        parse(bad)
    assert str(error.value).startswith(f"{names}: ")
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- the object


@pytest.mark.parametrize(
    ("labels", "is_about"),
    [
        ({"namespace": "shop", "deployment": "web"}, "Deployment/web"),
        ({"namespace": "shop", "statefulset": "db"}, "StatefulSet/db"),
        ({"namespace": "shop", "daemonset": "agent", "node": "n1"}, "DaemonSet/agent"),
        ({"namespace": "shop", "job_name": "report-1", "job": "kube-state-metrics"}, "Job/report-1"),
        ({"namespace": "shop", "cronjob": "report"}, "CronJob/report"),
        ({"namespace": "shop", "horizontalpodautoscaler": "web"}, "HorizontalPodAutoscaler/web"),
        (
            {"namespace": "shop", "persistentvolumeclaim": "data", "node": "n1", "job": "kubelet", "service": "kubelet"},
            "PersistentVolumeClaim/data",
        ),
        ({"namespace": "shop", "poddisruptionbudget": "web"}, "PodDisruptionBudget/web"),
        ({"namespace": "shop", "ingress": "front"}, "Ingress/front"),
        ({"namespace": "shop", "service": "web", "job": "web", "pod": "web-1"}, "Service/web"),
        ({"namespace": "shop", "workload": "web", "workload_type": "deployment"}, "Deployment/web"),
        ({"namespace": "shop", "pod": "web-7c9-x2x2x", "container": "app"}, "Pod/web-7c9-x2x2x>owner"),
        ({"namespace": "shop", "container": "app"}, "Namespace/shop"),
        ({"namespace": "shop", "job": "something", "instance": "10.0.0.1:80"}, "Namespace/shop"),
        ({"namespace": "shop"}, "Namespace/shop"),
        ({"namespace": "shop", "app": "web"}, "Deployment/web? StatefulSet/web? DaemonSet/web? Namespace/shop"),
        ({"node": "n1"}, "Node/n1"),
        ({"persistentvolume": "pv1"}, "PersistentVolume/pv1"),
        ({"severity": "none"}, ""),
        # kube-state-metrics' own pod, container, service and job are the scrape target's
        (
            {**KSM, "namespace": "shop", "deployment": "web", "pod": "kps-kube-state-metrics-5b-x", "container": "kube-state-metrics"},
            "Deployment/web",
        ),
        ({**KSM, "namespace": "shop", "pod": "web-7c9-x2x2x", "container": "app", "uid": "u"}, "Pod/web-7c9-x2x2x>owner"),
        ({**KSM, "namespace": "monitoring", "node": "n1", "pod": "kps-kube-state-metrics-5b-x"}, "Node/n1"),
        ({**KSM, "namespace": "shop", "pod": "ksm-5b6c-x"}, "Pod/ksm-5b6c-x?>owner Namespace/shop"),
        ({**KSM, "service": "kube-state-metrics", "namespace": "shop"}, "Namespace/shop"),
        ({"job": "kubelet", "service": "kubelet", "namespace": "shop", "pod": "web-1"}, "Pod/web-1>owner"),
        # without honorLabels Prometheus renames what the object says
        (
            {**KSM, "namespace": "monitoring", "pod": "ksm-1", "exported_namespace": "shop", "exported_pod": "web-1"},
            "Pod/web-1>owner",
        ),
        (
            {"job": "ksm", "namespace": "monitoring", "pod": "collector-1", "service": "collector", "exported_namespace": "shop"},
            "Namespace/shop",
        ),
        # a node exporter speaks for its machine
        (
            {"job": "node-exporter", "namespace": "monitoring", "pod": "node-exporter-x", "instance": "n1:9100"},
            "Node/n1? Pod/node-exporter-x?>node Pod/node-exporter-x?>owner Namespace/monitoring",
        ),
        (
            {"job": "node-exporter", "namespace": "monitoring", "pod": "node-exporter-x", "instance": "10.0.0.1:9100"},
            "Pod/node-exporter-x?>node Pod/node-exporter-x?>owner Namespace/monitoring",
        ),
        # what cannot be a name chooses nothing
        ({"namespace": "shop", "deployment": "Web;rm", "pod": "web-1"}, "Pod/web-1>owner"),
        ({"namespace": "../kube-system", "deployment": "web"}, ""),
        ({"namespace": "shop", "deployment": ""}, "Namespace/shop"),
    ],
)
def test_labels_say_what_it_is_about(labels: dict[str, str], is_about: str) -> None:
    assert first(alert(**labels)) == is_about


@pytest.mark.parametrize("key", ["nightorders.dev/target", "nightorders_target"])
def test_an_annotation_comes_before_every_label(key: str) -> None:
    assert first(alert(annotations={key: "StatefulSet/db"}, namespace="shop", deployment="web")) == "StatefulSet/db"
    assert first(alert(annotations={key: "argoproj.io/v1alpha1/Rollout/web"}, namespace="shop")) == "Rollout/web"
    assert first(alert(annotations={key: "Node/n1"})) == "Node/n1"
    assert first(alert(annotations={key: "Pod/p"}, namespace="shop")) == "Pod/p>owner"
    assert first(alert(annotations={key: " "}, namespace="shop")) == "Namespace/shop"


@pytest.mark.parametrize(
    "text", ["web", "Gadget/web", "Deployment/", "Deployment/Web", "x/y/z/Deployment/web", "apps/Deployment/web", "deployment/web"]
)
def test_a_bad_annotation_is_told_and_the_labels_count(text: str) -> None:
    one = alert(annotations={"nightorders.dev/target": text}, namespace="shop", deployment="web")
    assert first(one) == "Deployment/web"
    assert text in subject_of(one).problem


def test_the_name_of_a_pod_that_is_gone_tells_who_may_have_made_it() -> None:
    def kinds(pod: str) -> list[str]:
        return [f"{c.kind}/{c.name}" for c in makers_of(pod) if c.must_exist]

    assert kinds("web-7c9d8f6b5-x2x4z")[0] == "Deployment/web"
    assert kinds("db-0") == ["StatefulSet/db"]
    assert kinds("agent-x2x4z") == ["DaemonSet/agent", "Job/agent"]
    assert kinds("report-29012345-x2x4z") == ["CronJob/report", "DaemonSet/report-29012345", "Job/report-29012345"]
    assert kinds("bare") == []


# ---------------------------------------------------------------- the Incident


def test_namespace_and_key() -> None:
    one = alert(namespace="shop")
    assert place(one, WEB, "shop", "ops").namespace == "shop"
    assert place(one, ObjectRef(api_version="v1", kind="Namespace", name="shop"), "shop", "ops").namespace == "shop"
    assert place(one, ObjectRef(api_version="v1", kind="Node", name="n1"), "monitoring", "ops").namespace == "ops"
    gone = without_namespace(one, "shop", "ops")
    assert (gone.namespace, gone.target.title) == ("ops", "Namespace/shop")
    keys = {
        place(one, WEB, "shop", "ops").key,
        place(alert(namespace="shop", pod="other", instance="y"), WEB, "shop", "ops").key,  # another pod: the same trouble
        place(alert(namespace="shop", cluster="c2"), WEB, "shop", "ops").key,
        place(alert(alertname="Slow"), WEB, "shop", "ops").key,
        place(one, WEB, "bank", "ops").key,
        place(one, WEB.model_copy(update={"name": "api"}), "shop", "ops").key,
    }
    assert len(keys) == 5


@pytest.mark.parametrize("name", ["web", "a" * 253, "web.v1.example", "9-x." * 20 + "y"])
@pytest.mark.parametrize("alertname", ["KubePodCrashLooping", "Zu viele Fehler!", "日本", "x" * 300])
def test_names_are_short_and_valid(name: str, alertname: str) -> None:
    where = place(alert(alertname=alertname), WEB.model_copy(update={"name": name}), "shop", "ops")
    made = where.incident(12345)
    assert len(made) <= 63
    assert module._is_name(made)
    assert made.endswith(f"-{where.key[:10]}-12345")
    assert episode_of(made) == 12345
    assert episode_of("somebody-elses") == 0


def test_the_incident_keeps_what_was_said_bounded_and_without_secrets() -> None:
    one = alert(
        annotations={"summary": "it fails\nwith password=hunter2 \u202eevil", "runbook_url": "https://example.org/r", "long": "y" * 9000},
        namespace="shop",
        severity="critical",
        **{f"label_{n}": "v" * 900 for n in range(90)},
    )
    made = manifest(place(one, WEB, "shop", "ops"), 3, one, NOW)
    spec = Incident.model_validate(made).spec
    assert made["metadata"]["labels"] == {ALERT_LABEL: place(one, WEB, "shop", "ops").key}
    assert spec.signal is not None
    assert spec.signal.fingerprints == ("f1",)
    assert spec.signal.starts_at == NOW - timedelta(minutes=5)
    assert (spec.target, spec.severity) == (WEB, "Critical")
    assert "hunter2" not in str(made)
    assert "\u202e" not in str(made)
    assert spec.title.startswith("it fails with password=")
    assert spec.signal.labels["namespace"] == "shop"
    assert spec.signal.labels["alertname"] == "Broken"
    assert len(spec.signal.model_dump_json()) < 16_000


def test_a_time_in_the_future_is_now() -> None:
    one = Alert("f", True, {"alertname": "x"}, {}, NOW + timedelta(days=1))
    assert manifest(place(one, WEB, "shop", "ops"), 1, one, NOW)["spec"]["signal"]["startsAt"] == "2026-05-04T12:00:00.000000Z"


@pytest.mark.parametrize(
    ("name", "is_word"),
    [("KubeX", "KubeX"), ("High error rate!", "High_error_rate"), ("", "Alert"), ("日本", "Alert"), ("x" * 99, "x" * 63)],
)
def test_an_alerts_name_as_a_word(name: str, is_word: str) -> None:
    assert word(name) == is_word


@pytest.mark.parametrize(
    ("labels", "severity"),
    [
        ({"severity": "PAGE"}, "Critical"),
        ({"severity": "warning"}, "Warning"),
        ({}, "Warning"),
        ({"severity": "none"}, "Info"),
        ({"priority": "P1"}, "Critical"),
    ],
)
def test_severity(labels: dict[str, str], severity: str) -> None:
    assert severity_of(labels) == severity


def test_only_our_own_incident_belongs() -> None:
    one = alert(namespace="shop")
    where = place(one, WEB, "shop", "ops")
    ours = incident(where, one)
    assert belongs(ours, where)
    assert not belongs(ours.model_copy(update={"metadata": ours.metadata.model_copy(update={"labels": {}})}), where)
    assert not belongs(ours.model_copy(update={"spec": ours.spec.model_copy(update={"signal": None})}), where)
    assert not belongs(ours, place(one, WEB.model_copy(update={"name": "api"}), "shop", "ops"))


# ---------------------------------------------------------------- states


def test_states_are_noted_once_and_newest_last() -> None:
    one = alert(namespace="shop")
    where = place(one, WEB, "shop", "ops")
    seen = incident(where, one)
    assert state_of(seen, "f1") == "Firing"
    assert noted(seen, [one], NOW) == ()  # the signal says it already
    assert noted(seen, [alert(False, "unknown")], NOW) == ()  # never heard of: no news
    other = alert(True, "f2", namespace="shop")
    states = noted(seen, [other, other, alert(False)], NOW)
    assert [(s.fingerprint, s.state, s.at) for s in states] == [("f2", "Firing", other.starts_at), ("f1", "Resolved", NOW)]
    again = incident(where, one, alerts=[s.wire() for s in states])
    assert noted(again, [other, alert(False)], NOW) == states
    assert [(s.fingerprint, s.state) for s in noted(again, [one], NOW)] == [("f2", "Firing"), ("f1", "Firing")]


def test_too_many_states_lose_the_resolved_ones_first() -> None:
    one = alert(namespace="shop")
    states = [AlertState(fingerprint=f"f{n}", state="Resolved" if n == 7 else "Firing", at=NOW).wire() for n in range(MOST_STATES)]
    full = noted(incident(place(one, WEB, "shop", "ops"), one, alerts=states), [alert(True, "new")], NOW)
    assert len(full) == MOST_STATES
    assert "f7" not in {s.fingerprint for s in full}
    assert full[-1].fingerprint == "new"


def test_gaps_are_noted_once() -> None:
    one = alert(namespace="shop")
    where = place(one, WEB, "shop", "ops")
    gaps = gaps_of(incident(where, one), 3, "no Kind/name")
    assert [("3 alerts" in g.because, "no Kind" in g.because) for g in gaps] == [(True, False), (False, True)]
    assert all(g.fix for g in gaps)
    assert gaps_of(incident(where, one, gaps=[g.wire() for g in gaps]), 4, "other") == gaps
    assert gaps_of(incident(where, one), 0, "") == ()


def test_a_secret_that_ends_with_its_line_is_not_kept_of_an_alert() -> None:
    one = alert(namespace="shop", annotations={"summary": "settings:\n  password: correct horse battery staple\n  user: bob"})
    spec = str(manifest(place(one, WEB, "shop", "ops"), 1, one, NOW))
    assert "correct" not in spec
    assert "staple" not in spec


def test_who_was_scraped_does_not_speak_against_an_alert() -> None:
    rule = AlertRule("Short", "a < b", {}, "")
    labels = {"alertname": "Short", "namespace": "shop", "deployment": "web", "job": "kube-state-metrics", "prometheus": "monitoring/k8s"}
    assert is_that_alert({"namespace": "shop", "deployment": "web", "job": "ksm", "instance": "10.0.0.1:8080"}, rule, labels)
    assert not is_that_alert({"namespace": "shop", "deployment": "other", "job": "ksm"}, rule, labels)
