"""What people call a workload: every spelling that kubectl accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from ..api.v1alpha1.common import ObjectRef
from .errors import usage

# API version, kind, and what kubectl calls it.
_SPELLED: tuple[tuple[str, str, str], ...] = (
    ("apps/v1", "Deployment", "deploy deployment deployments"),
    ("apps/v1", "StatefulSet", "sts statefulset statefulsets"),
    ("apps/v1", "DaemonSet", "ds daemonset daemonsets"),
    ("apps/v1", "ReplicaSet", "rs replicaset replicasets"),
    ("batch/v1", "Job", "job jobs"),
    ("batch/v1", "CronJob", "cj cronjob cronjobs"),
    ("v1", "Pod", "po pod pods"),
    ("v1", "Service", "svc service services"),
    ("v1", "ConfigMap", "cm configmap configmaps"),
    ("v1", "ServiceAccount", "sa serviceaccount serviceaccounts"),
    ("v1", "PersistentVolumeClaim", "pvc persistentvolumeclaim persistentvolumeclaims"),
    ("v1", "PersistentVolume", "pv persistentvolume persistentvolumes"),
    ("v1", "ResourceQuota", "quota resourcequota resourcequotas"),
    ("v1", "Node", "no node nodes"),
    ("v1", "Namespace", "ns namespace namespaces"),
    ("networking.k8s.io/v1", "Ingress", "ing ingress ingresses"),
    ("networking.k8s.io/v1", "NetworkPolicy", "netpol networkpolicy networkpolicies"),
    ("autoscaling/v2", "HorizontalPodAutoscaler", "hpa horizontalpodautoscaler horizontalpodautoscalers"),
    ("policy/v1", "PodDisruptionBudget", "pdb poddisruptionbudget poddisruptionbudgets"),
)
_KINDS: Mapping[str, tuple[str, str]] = {word: (version, kind) for version, kind, words in _SPELLED for word in words.split()}
EXAMPLE = "write deploy/NAME, svc/NAME, deployments.apps/NAME or: deploy NAME"


def thing(words: Sequence[str]) -> ObjectRef:
    """`deploy/checkout`, `deployments.apps/checkout`, `svc checkout`, … → the object. Raises CommandError (usage)."""
    joined = "/".join(words)
    kind, slash, name = joined.partition("/")
    if not words or len(words) > 2 or not slash or "/" in name or not name or not kind:
        raise usage(f"which object is meant by {' '.join(words)!r}? {EXAMPLE}")
    singular, _, suffix = kind.casefold().partition(".")
    known = _KINDS.get(singular)
    if known is None or suffix not in _suffixes(known[0]):
        raise usage(f"diagnose does not know the type {kind!r}; it looks at: {', '.join(k for _, k, _ in _SPELLED)}. {EXAMPLE}")
    try:
        return ObjectRef(api_version=known[0], kind=known[1], name=name)
    except ValidationError:
        raise usage(f"{name!r} cannot be the name of an object: use lower-case letters, digits, '-' and '.'") from None


def workload(words: Sequence[str]) -> ObjectRef:
    """As `thing`, for commands that are about workloads only."""
    found = thing(words)
    if found.kind not in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
        raise usage(f"{found.title} is no workload with a pod template: write deploy/NAME, sts/NAME, ds/NAME or job/NAME")
    return found


def _suffixes(api_version: str) -> tuple[str, ...]:
    """What may stand behind the first dot: nothing, the group, or version and group."""
    group, _, version = api_version.rpartition("/")
    return ("", group, f"{version}.{group}") if group else ("", version)
