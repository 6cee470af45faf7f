"""The alerts that most clusters have, with expressions over kube-state-metrics, in a real Prometheus.

They mean what the kubernetes-mixin's alerts of these names mean and are written for a run of minutes: no `for`, and where theirs looks
back ten minutes these look back one. The operator finds them as Prometheus's own rules; `--prove` asks whether a signal would be raised.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Protocol

from tools.cluster.prometheus import Prometheus

_POD_NOT_READY = """
sum by (namespace, pod) (
  max by (namespace, pod) (kube_pod_status_phase{phase=~"Pending|Unknown|Failed"})
  * on (namespace, pod) group_left (owner_kind) max by (namespace, pod, owner_kind) (kube_pod_owner{owner_kind!="Job"})
) > 0
"""
_DEPLOYMENT_SHORT = """
kube_deployment_spec_replicas != kube_deployment_status_replicas_available
"""
_STATEFULSET_ROLLOUT = """
max by (namespace, statefulset) (
  kube_statefulset_status_current_revision unless kube_statefulset_status_update_revision
) * on (namespace, statefulset) (kube_statefulset_replicas != kube_statefulset_status_replicas_updated)
"""
_DAEMONSET_ROLLOUT = """
kube_daemonset_status_current_number_scheduled != kube_daemonset_status_desired_number_scheduled
or kube_daemonset_status_updated_number_scheduled != kube_daemonset_status_desired_number_scheduled
or kube_daemonset_status_number_available != kube_daemonset_status_desired_number_scheduled
"""
_HPA_MISMATCH = """
(kube_horizontalpodautoscaler_status_desired_replicas != kube_horizontalpodautoscaler_status_current_replicas)
and (kube_horizontalpodautoscaler_status_current_replicas > kube_horizontalpodautoscaler_spec_min_replicas)
and (kube_horizontalpodautoscaler_status_current_replicas < kube_horizontalpodautoscaler_spec_max_replicas)
"""
_VOLUME_FULL = """
kubelet_volume_stats_available_bytes / kubelet_volume_stats_capacity_bytes < 0.03 and kubelet_volume_stats_used_bytes > 0
"""
_JOB_NOT_DONE = """
time() - max by (namespace, job_name) (kube_job_status_start_time and kube_job_status_active > 0) > 43200
"""

RULES: dict[str, str] = {
    "KubePodCrashLooping": 'max_over_time(kube_pod_container_status_waiting_reason{reason="CrashLoopBackOff"}[1m]) >= 1',
    "KubePodNotReady": _POD_NOT_READY,
    "KubeContainerWaiting": 'kube_pod_container_status_waiting_reason{reason!="CrashLoopBackOff"} > 0',
    "KubeDeploymentGenerationMismatch": "kube_deployment_status_observed_generation != kube_deployment_metadata_generation",
    "KubeDeploymentReplicasMismatch": _DEPLOYMENT_SHORT,
    "KubeDeploymentRolloutStuck": 'kube_deployment_status_condition{condition="Progressing",status="false"} != 0',
    "KubeStatefulSetReplicasMismatch": "kube_statefulset_status_replicas_ready != kube_statefulset_replicas",
    "KubeStatefulSetGenerationMismatch": "kube_statefulset_status_observed_generation != kube_statefulset_metadata_generation",
    "KubeStatefulSetUpdateNotRolledOut": _STATEFULSET_ROLLOUT,
    "KubeDaemonSetRolloutStuck": _DAEMONSET_ROLLOUT,
    "KubeDaemonSetNotScheduled": ("kube_daemonset_status_desired_number_scheduled - kube_daemonset_status_current_number_scheduled > 0"),
    "KubeDaemonSetMisScheduled": "kube_daemonset_status_number_misscheduled > 0",
    "KubeJobFailed": "kube_job_failed > 0",
    "KubeJobNotCompleted": _JOB_NOT_DONE,
    "KubeHpaReplicasMismatch": _HPA_MISMATCH,
    "KubeHpaMaxedOut": ("kube_horizontalpodautoscaler_status_current_replicas == kube_horizontalpodautoscaler_spec_max_replicas"),
    "KubePdbNotEnoughHealthyPods": (
        "kube_poddisruptionbudget_status_desired_healthy - kube_poddisruptionbudget_status_current_healthy > 0"
    ),
    "KubePersistentVolumeFillingUp": _VOLUME_FULL,
    "KubePersistentVolumeErrors": 'kube_persistentvolume_status_phase{phase=~"Failed|Pending"} > 0',
    "KubeNodeNotReady": 'kube_node_status_condition{condition="Ready",status="true"} == 0',
    "KubeNodeUnreachable": 'kube_node_spec_taint{key="node.kubernetes.io/unreachable",effect="NoSchedule"} == 1',
    "KubeNodeReadinessFlapping": 'sum by (node) (changes(kube_node_status_condition{condition="Ready",status="true"}[2m])) > 2',
    "KubeNodePressure": 'kube_node_status_condition{condition=~"(Memory|Disk|PID)Pressure",status="true"} == 1',
    "KubeNodeCordoned": "kube_node_spec_unschedulable == 1",
}


def _quota(compare: str) -> str:
    used = 'max by (namespace, resource, resourcequota) (kube_resourcequota{type="used"})'
    hard = 'max by (namespace, resource, resourcequota) (kube_resourcequota{type="hard"} > 0)'
    return f"{used} / {hard} {compare}"


RULES |= {
    "KubeQuotaAlmostFull": _quota("> 0.9 < 1"),
    "KubeQuotaFullyUsed": _quota("== 1"),
    "KubeQuotaExceeded": _quota(">= 1"),
}


def rules() -> list[dict[str, Any]]:
    """The alerts as Prometheus reads them."""
    return [{"alert": name, "expr": " ".join(expression.split())} for name, expression in RULES.items()]


@dataclass(frozen=True)
class Said:
    """What an alert's own expression says now. `known`: the runner knows the expression."""

    known: bool
    holds: bool
    text: str


class Alerts(Protocol):
    """Evaluates the alert's own expression."""

    def holds(self, labels: dict[str, str], seconds: float) -> Said:
        """Whether it holds for these labels, at the latest after so many seconds."""
        ...


class RuleAlerts:
    """What the alerts' expressions say in a Prometheus that scrapes the cluster."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus

    def holds(self, labels: dict[str, str], seconds: float) -> Said:
        """See `prove.Alerts.holds`. Scrapes lag behind the cluster, so a false answer is asked again for so many seconds."""
        name = labels["alertname"]
        if name not in RULES:
            return Said(known=False, holds=False, text=f"alert {name}: its expression is not known here, so it was not evaluated")
        end = time.monotonic() + seconds
        while True:
            found = self._prometheus.query(RULES[name])
            if any(matches(row["metric"], labels) for row in found):
                return Said(known=True, holds=True, text=f"alert {name}: its expression holds (without its `for`)")
            if time.monotonic() >= end:
                return Said(
                    known=True, holds=False, text=f"alert {name}: its expression does not hold for these labels{_near(found, labels)}"
                )
            time.sleep(1)


def _near(found: list[dict[str, Any]], labels: dict[str, str]) -> str:
    """What the expression shows of the same namespace, for whoever corrects the labels."""
    rows = [row["metric"] for row in found if row["metric"].get("namespace") == labels.get("namespace")]
    own = {"__name__", "job", "instance", "uid", "namespace"}
    shown = [", ".join(f"{k}={v}" for k, v in sorted(row.items()) if k not in own) for row in rows[:3]]
    return f"; it does for {' and for '.join(shown)}" if shown else ""


def matches(series: dict[str, str], labels: dict[str, str]) -> bool:
    """Whether a series is the one that an alert with these labels is about: no label that both have differs.

    The names of the exporter itself (job, instance, service …) differ from cluster to cluster and do not count.
    """
    own = {"__name__", "job", "instance", "service", "endpoint", "container", "uid", "alertname", "severity"}
    both = (set(series) & set(labels)) - own
    return bool(both) and all(series[key] == labels[key] for key in both) and not (_objects(labels) - set(series) - own)


def _objects(labels: dict[str, str]) -> set[str]:
    """The labels that name an object that kube-state-metrics knows."""
    known = (
        r"namespace|pod|node|deployment|statefulset|daemonset|job_name|horizontalpodautoscaler|poddisruptionbudget|persistentvolumeclaim"
    )
    return {key for key in labels if re.fullmatch(known, key)}
