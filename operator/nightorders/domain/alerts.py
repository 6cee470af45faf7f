"""Alertmanager's alerts as data: what a notification says, which object an alert is about, which Incident it belongs to. Pure.

Labels and annotations are untrusted text. They choose where to look; a value that cannot be the name of an object chooses nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ..api.meta import API_VERSION, GROUP, NAME_PATTERN, line
from ..api.v1alpha1.common import ObjectRef
from ..api.v1alpha1.incident import AlertState, Gap, Incident, IncidentSpec, Severity, Signal
from .redaction import redact
from .snapshot import parse_time

ALERT_LABEL = f"{GROUP}/alert"  # on an Incident: the key of the alerts that it stands for
TARGET_ANNOTATIONS = (f"{GROUP}/target", "nightorders_target")  # the second: Prometheus 2 takes no dots and slashes
LEFT_OUT = "other alerts of this notification"
BAD_TARGET = "the annotation that names the target"
MOST_STATES = 64
_LABELS, _ANNOTATIONS = 64, 32
_LABEL_CHARACTERS, _ANNOTATION_CHARACTERS = 4096, 6144  # of all values together: an Incident stays well below 64 KiB
_YEAR_ONE = 1  # endsAt of an alert that has no end


class PayloadError(ValueError):
    """The notification is not what Alertmanager sends. `str()` names the field and what is expected there."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")


@dataclass(frozen=True)
class Alert:
    """One alert, by its own status and not its group's. `ends_at` is None while nobody knows its end."""

    fingerprint: str
    firing: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: datetime
    ends_at: datetime | None = None

    @property
    def name(self) -> str:
        """Its alertname."""
        return self.labels["alertname"]


@dataclass(frozen=True)
class Notification:
    """What one POST says. `truncated`: how many alerts of the group Alertmanager left out."""

    alerts: tuple[Alert, ...]
    truncated: int = 0


# ---------------------------------------------------------------- reading a notification


def parse(payload: object) -> Notification:
    """A notification of version 4; fields that are not named here are passed over. Raises PayloadError."""
    if not isinstance(payload, Mapping):
        raise PayloadError("body", "a JSON object is expected, as Alertmanager's webhook_configs send it")
    if payload.get("version") != "4":
        raise PayloadError("version", f'"4" is expected, not {_shown(payload.get("version"))}')
    alerts = payload.get("alerts")
    if not isinstance(alerts, list) or not alerts:
        raise PayloadError("alerts", "a list with at least one alert is expected")
    truncated = payload.get("truncatedAlerts", 0)
    if not isinstance(truncated, int) or isinstance(truncated, bool) or truncated < 0:
        raise PayloadError("truncatedAlerts", f"a whole number is expected, not {_shown(truncated)}")
    return Notification(tuple(_alert(raw, f"alerts[{n}]") for n, raw in enumerate(alerts)), truncated)


def _alert(raw: object, where: str) -> Alert:
    if not isinstance(raw, Mapping):
        raise PayloadError(where, "an object is expected")
    status = raw.get("status")
    if status not in ("firing", "resolved"):
        raise PayloadError(f"{where}.status", f"firing or resolved is expected, not {_shown(status)}")
    labels = _strings(raw.get("labels"), f"{where}.labels")
    if not labels.get("alertname", "").strip():
        raise PayloadError(f"{where}.labels.alertname", "every alert needs a name")
    starts_at, ends_at = (_time(raw.get(field), f"{where}.{field}") for field in ("startsAt", "endsAt"))
    if starts_at is None:
        raise PayloadError(f"{where}.startsAt", "a time such as 2026-01-02T03:04:05Z is expected")
    fingerprint = raw.get("fingerprint") or _digest(sorted(labels.items()))[:16]
    if not isinstance(fingerprint, str) or not re.fullmatch(r"[0-9A-Za-z_-]{1,64}", fingerprint):
        raise PayloadError(f"{where}.fingerprint", f"at most 64 letters and digits are expected, not {_shown(fingerprint)}")
    annotations = _strings(raw.get("annotations", {}), f"{where}.annotations")
    return Alert(fingerprint, status == "firing", labels, annotations, starts_at, ends_at)


def _strings(raw: object, where: str) -> dict[str, str]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise PayloadError(where, "an object with texts is expected")
    for name, value in raw.items():
        if not isinstance(value, str):
            raise PayloadError(f"{where}.{line(str(name), 64)}", f"a text is expected, not {_shown(value)}")
    return dict(raw)


def _time(raw: object, where: str) -> datetime | None:
    if raw is None or raw == "":
        return None
    at = parse_time(raw)
    if at is None:
        raise PayloadError(where, f"a time such as 2026-01-02T03:04:05Z is expected, not {_shown(raw)}")
    return None if at.year <= _YEAR_ONE else at


def _shown(value: object) -> str:
    return line(repr(value), 64)


# ---------------------------------------------------------------- which object it is about


@dataclass(frozen=True)
class Candidate:
    """An object that an alert may be about. `must_exist`: it counts only if a read finds it.

    `follow`: what stands for it: nothing else, the root of its owners, or the node that it runs on.
    """

    api_version: str
    kind: str
    name: str
    must_exist: bool = False
    follow: Literal["", "owner", "node"] = ""

    @property
    def ref(self) -> ObjectRef:
        """As an Incident's target."""
        return ObjectRef(api_version=self.api_version, kind=self.kind, name=self.name)


@dataclass(frozen=True)
class Subject:
    """Where to look: the first candidate that counts, in `namespace` (empty: the alert names none). `problem`: what is wrong with it."""

    namespace: str
    candidates: tuple[Candidate, ...]
    problem: str = ""


# label → kind, the most telling first: a label that kube-state-metrics puts only on series of that very object.
_OBJECT_LABELS = {
    "deployment": ("apps/v1", "Deployment"),
    "statefulset": ("apps/v1", "StatefulSet"),
    "daemonset": ("apps/v1", "DaemonSet"),
    "job_name": ("batch/v1", "Job"),
    "cronjob": ("batch/v1", "CronJob"),
    "horizontalpodautoscaler": ("autoscaling/v2", "HorizontalPodAutoscaler"),
    "hpa": ("autoscaling/v2", "HorizontalPodAutoscaler"),
    "persistentvolumeclaim": ("v1", "PersistentVolumeClaim"),
    "poddisruptionbudget": ("policy/v1", "PodDisruptionBudget"),
    "ingress": ("networking.k8s.io/v1", "Ingress"),
    "networkpolicy": ("networking.k8s.io/v1", "NetworkPolicy"),
    "resourcequota": ("v1", "ResourceQuota"),
    "configmap": ("v1", "ConfigMap"),
}
_WORKLOADS = {"deployment": "Deployment", "statefulset": "StatefulSet", "daemonset": "DaemonSet"}
# They may be the name of a workload, and may be anything else.
_APP_LABELS = ("workload", "destination_workload", "app", "app_kubernetes_io_name", "service_name")
_KINDS: Mapping[str, str] = {
    **{kind: version for version, kind in _OBJECT_LABELS.values()},
    "Pod": "v1",
    "Service": "v1",
    "Node": "v1",
    "Namespace": "v1",
    "PersistentVolume": "v1",
    "Secret": "v1",
    "ServiceAccount": "v1",
    "LimitRange": "v1",
    "ReplicaSet": "apps/v1",
    "StorageClass": "storage.k8s.io/v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "ClusterRole": "rbac.authorization.k8s.io/v1",
    "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
    "ValidatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
    "MutatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
}
CLUSTER_SCOPED = frozenset(
    {
        "Node",
        "PersistentVolume",
        "StorageClass",
        "ClusterRole",
        "ClusterRoleBinding",
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
        "APIService",
        "PriorityClass",
        "IngressClass",
    }
)
# What is scraped in the name of others: their own pod, service, container and instance say nothing about the object in trouble.
_EXPORTER = re.compile(r"(?:^|[-./])(?:kube-state-metrics|ksm|node-exporter|kubelet|cadvisor|kubernetes-nodes)(?:$|[-./])")
_NODE_EXPORTER = re.compile(r"(?:^|[-./])node-exporter(?:$|[-./])")
_NODE_LABELS = ("node", "nodename", "kubernetes_node")
_TARGET_LABELS = ("pod", "service", "container", "instance", "endpoint")


def subject_of(alert: Alert) -> Subject:
    """Which object the alert is about, as far as its own text tells."""
    labels = _of_the_object(alert)
    namespace = labels.get("namespace", "") if _is_name(labels.get("namespace", "")) else ""
    named, problem = _annotated(alert.annotations)
    if named is not None:
        return Subject(namespace, (named,))
    found: list[Candidate] = []
    if namespace:
        found += _objects(labels)
        found += _pods(labels)
        found += [Candidate("apps/v1", kind, labels[k], True) for k in _APP_LABELS if k in labels for kind in _WORKLOADS.values()]
    found += _nodes(labels)
    if namespace:
        found += [Candidate("v1", "Pod", labels["pod"], True, "owner")] if "pod" in labels else []
        found.append(Candidate("v1", "Namespace", namespace))
    return Subject(namespace, tuple(c for c in found if _is_name(c.name)), problem)


def _of_the_object(alert: Alert) -> dict[str, str]:
    """The labels as they describe the object. Where the scrape target's labels win, Prometheus renames the object's to exported_<label>."""
    labels = {k: v for k, v in alert.labels.items() if v}
    exported = {k.removeprefix("exported_"): v for k, v in labels.items() if k.startswith("exported_")}
    if "namespace" in exported:
        labels = {k: v for k, v in labels.items() if k not in _TARGET_LABELS}
    return {**labels, **exported}


def _annotated(annotations: Mapping[str, str]) -> tuple[Candidate | None, str]:
    text = next((annotations[key].strip() for key in TARGET_ANNOTATIONS if annotations.get(key, "").strip()), "")
    if not text:
        return None, ""
    *version, kind, name = text.split("/") if "/" in text else ("", "")
    api_version = "/".join(version) or _KINDS.get(kind, "")
    try:
        ref = ObjectRef(api_version=api_version, kind=kind, name=name)
    except ValueError:
        known = "Kind/name with a kind such as Deployment, or group/version/Kind/name for others"
        return None, line(f"{text!r} is not {known}; the alert's labels were used instead", 512)
    follow: Literal["", "owner"] = "owner" if kind in ("Pod", "ReplicaSet") else ""
    return Candidate(ref.api_version, ref.kind, ref.name, follow=follow), ""


def _objects(labels: Mapping[str, str]) -> Iterable[Candidate]:
    for label, (api_version, kind) in _OBJECT_LABELS.items():
        if label in labels:
            yield Candidate(api_version, kind, labels[label])
    if (kind := _WORKLOADS.get(labels.get("workload_type", "").lower(), "")) and "workload" in labels:
        yield Candidate("apps/v1", kind, labels["workload"])
    if "replicaset" in labels:
        yield Candidate("apps/v1", "ReplicaSet", labels["replicaset"], follow="owner")
    service = labels.get("service", "")
    if service and not _EXPORTER.search(service) and not (service == labels.get("job") and _is_exporter(labels)):
        yield Candidate("v1", "Service", service)


def _pods(labels: Mapping[str, str]) -> Iterable[Candidate]:
    if "pod" in labels and not _EXPORTER.search(labels["pod"]):
        yield Candidate("v1", "Pod", labels["pod"], follow="owner")


def _nodes(labels: Mapping[str, str]) -> Iterable[Candidate]:
    for label in _NODE_LABELS:
        if label in labels:
            yield Candidate("v1", "Node", labels[label])
    if any(_NODE_EXPORTER.search(labels.get(k, "")) for k in ("job", "service", "pod")):
        host = labels.get("instance", "").partition(":")[0]
        if host and not re.fullmatch(r"[0-9.]+", host):
            yield Candidate("v1", "Node", host, must_exist=True)
        if "pod" in labels:
            yield Candidate("v1", "Pod", labels["pod"], must_exist=True, follow="node")
    if "persistentvolume" in labels:
        yield Candidate("v1", "PersistentVolume", labels["persistentvolume"])


def _is_exporter(labels: Mapping[str, str]) -> bool:
    return bool(_EXPORTER.search(labels.get("job", "")))


def _is_name(value: str) -> bool:
    return 0 < len(value) <= 253 and re.fullmatch(NAME_PATTERN, value) is not None


_HASH = "[bcdfghjklmnpqrstvwxz2456789]"  # Kubernetes makes its suffixes without vowels
_POD_NAMES = (
    (rf"(.+)-{_HASH}{{6,10}}-{_HASH}{{5}}", "apps/v1", "Deployment"),
    (rf"(.+)-[0-9]{{8,10}}-{_HASH}{{5}}", "batch/v1", "CronJob"),
    (r"(.+)-[0-9]{1,4}", "apps/v1", "StatefulSet"),
    (rf"(.+)-{_HASH}{{5}}", "apps/v1", "DaemonSet"),
    (rf"(.+)-{_HASH}{{5}}", "batch/v1", "Job"),
)


def makers_of(pod: str) -> tuple[Candidate, ...]:
    """Workloads that name their pods like this one; of a pod that is gone nothing else tells."""
    return tuple(Candidate(version, kind, m[1], True) for pattern, version, kind in _POD_NAMES if (m := re.fullmatch(pattern, pod)))


# ---------------------------------------------------------------- which Incident it belongs to


@dataclass(frozen=True)
class Place:
    """Where the alerts of one key are kept: the Incident's namespace, its target, and the key (16 hex digits) of its episodes."""

    namespace: str
    target: ObjectRef
    key: str
    name: str

    def incident(self, episode: int) -> str:
        """Name of the Incident of that episode: `<object>-<alert>-<10 hex of the key>-<episode>`, at most 63 characters."""
        return f"{self.name}-{self.key[:10]}-{episode}"


def place(alert: Alert, target: ObjectRef, namespace: str, operator_namespace: str) -> Place:
    """`namespace`: the object's own. What has none, and is no namespace itself, is kept in the operator's."""
    if target.kind == "Namespace":
        home = target.name
    else:
        home = operator_namespace if target.kind in CLUSTER_SCOPED else namespace
    return _placed(alert, target, home)


def without_namespace(alert: Alert, namespace: str, operator_namespace: str) -> Place:
    """For an alert about a namespace that is not there (any more): the operator's own keeps it."""
    return _placed(alert, ObjectRef(api_version="v1", kind="Namespace", name=namespace), operator_namespace)


def _placed(alert: Alert, target: ObjectRef, home: str) -> Place:
    key = _digest([alert.name, alert.labels.get("cluster", ""), home, target.api_version.partition("/")[0], target.kind, target.name])[:16]
    slug = re.sub(r"[^a-z0-9]+", "-", alert.name.lower())[:20].strip("-") or "alert"
    return Place(home, target, key, f"{re.sub(r'[^a-z0-9]+', '-', target.name)[:24].strip('-')}-{slug}")


def episode_of(name: str) -> int:
    """The number at the end of an Incident's name; 0 where there is none."""
    number = name.rpartition("-")[2]
    return int(number) if number.isdigit() and len(number) < 9 else 0


def belongs(incident: Incident, where: Place) -> bool:
    """Whether the Incident was made by the operator for these alerts: only it may write a signal or this label (threats.md 26)."""
    signal = incident.spec.signal
    ours = signal is not None and signal.source == "Alertmanager" and incident.metadata.labels.get(ALERT_LABEL) == where.key
    return ours and incident.spec.target == where.target


def manifest(where: Place, episode: int, alert: Alert, now: datetime) -> Mapping[str, Any]:
    """The Incident as it is created. Texts are redacted and bounded."""
    signal = Signal(
        source="Alertmanager",
        name=word(alert.name),
        starts_at=min(alert.starts_at, now),
        labels=_bounded(alert.labels, _LABELS, _LABEL_CHARACTERS),
        annotations=_bounded(alert.annotations, _ANNOTATIONS, _ANNOTATION_CHARACTERS),
        fingerprints=(alert.fingerprint,),
    )
    spec = IncidentSpec(target=where.target, severity=severity_of(alert.labels), title=_title(alert), signal=signal)
    return {
        "apiVersion": API_VERSION,
        "kind": "Incident",
        "metadata": {"name": where.incident(episode), "labels": {ALERT_LABEL: where.key}},
        "spec": spec.wire(),
    }


def word(name: str) -> str:
    """An alert's name as a word: everything that is no letter, digit, `-`, `_` or `.` becomes `_`; at most 63 characters."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:63].strip("_.-") or "Alert"


def severity_of(labels: Mapping[str, str]) -> Severity:
    """By the usual words in the label `severity` (or `priority`); Warning for any other."""
    said = (labels.get("severity") or labels.get("priority") or "").lower()
    if said in ("critical", "page", "error", "emergency", "fatal", "high", "p0", "p1", "sev0", "sev1"):
        return "Critical"
    return "Info" if said in ("info", "information", "none", "low", "debug") else "Warning"


def _title(alert: Alert) -> str:
    said = next((t for k in ("summary", "message", "description", "title") if (t := alert.annotations.get(k, "").strip())), "")
    return line(_clean(said) if said else alert.name, 256)


def _clean(text: str) -> str:
    """Without secrets: asked line by line and as one line, since a secret may end with its line, or go on in the next."""
    return redact(line(redact(text), 1 << 20))


def _bounded(texts: Mapping[str, str], count: int, characters: int) -> dict[str, str]:
    """The entries that fit, the shortest first: one long text must not push out the names of objects."""
    kept: dict[str, str] = {}
    for name, value in sorted(texts.items(), key=lambda item: (len(item[1]), item[0]))[:count]:
        short = line(_clean(value), min(1024, max(16, characters)))
        characters -= len(short) + len(name)
        if characters >= 0:
            kept[line(name, 256)] = short
    return dict(sorted(kept.items()))


def _digest(value: Sequence[object]) -> str:
    return hashlib.sha256(repr(list(value)).encode("utf-8", "surrogatepass")).hexdigest()


# ---------------------------------------------------------------- what becomes of its alerts


def state_of(incident: Incident, fingerprint: str) -> str:
    """What was last told of that alert: Firing, Resolved, or nothing (empty). The one that opened the Incident fires until told otherwise."""
    return _state(incident, incident.status.alerts, fingerprint)


def _state(incident: Incident, states: Iterable[AlertState], fingerprint: str) -> str:
    noted = next((a.state for a in states if a.fingerprint == fingerprint), "")
    first = incident.spec.signal is not None and fingerprint in incident.spec.signal.fingerprints
    return noted or ("Firing" if first else "")


def noted(incident: Incident, alerts: Iterable[Alert], now: datetime) -> tuple[AlertState, ...]:
    """`status.alerts` with what these alerts say, newest last; unchanged if they say nothing new.

    That an alert which was never noted is resolved is no news.
    """
    states = list(incident.status.alerts)
    for alert in alerts:
        before = _state(incident, states, alert.fingerprint)
        state: Literal["Firing", "Resolved"] = "Firing" if alert.firing else "Resolved"
        if before == state or (not before and not alert.firing):
            continue
        at = alert.starts_at if alert.firing else alert.ends_at or now
        states = [s for s in states if s.fingerprint != alert.fingerprint]
        states.append(AlertState(fingerprint=alert.fingerprint, state=state, at=min(at, now)))
    while len(states) > MOST_STATES:
        states.remove(next((s for s in states if s.state == "Resolved"), states[0]))
    return tuple(states)


def gaps_of(incident: Incident, truncated: int, problem: str) -> tuple[Gap, ...]:
    """`status.gaps` with what is not known of the alert itself; unchanged if that stands there already."""
    news = []
    if truncated:
        because = f"Alertmanager left out {truncated} alerts of the group"
        news.append(Gap(what=LEFT_OUT, because=because, fix="max_alerts: 0 in the receiver's webhook_configs"))
    if problem:
        news.append(Gap(what=BAD_TARGET, because=problem, fix=f"write Kind/name into the annotation {TARGET_ANNOTATIONS[0]} of the rule"))
    there = {g.what for g in incident.status.gaps}
    more = tuple(g for g in news if g.what not in there)
    return (*incident.status.gaps, *more)[:32] if more else incident.status.gaps
