"""Whether a scenario may run beside others in one cluster. Those that touch nodes or cluster-scoped objects run alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tools.scenarios.kube import Ref
from tools.scenarios.load import Scenario
from tools.scenarios.model import Document, Step

# Everything cluster-scoped of a plain cluster. Reviews are questions and change nothing.
CLUSTER_SCOPED = frozenset(
    {
        "APIService",
        "CertificateSigningRequest",
        "ClusterRole",
        "ClusterRoleBinding",
        "ComponentStatus",
        "CSIDriver",
        "CSINode",
        "CustomResourceDefinition",
        "DeviceClass",
        "FlowSchema",
        "IngressClass",
        "IPAddress",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "PriorityLevelConfiguration",
        "RuntimeClass",
        "ServiceCIDR",
        "StorageClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
        "VolumeAttachment",
    }
)
_SIMULATOR_ONLY = frozenset(
    {"Stage", "ClusterLogs", "ClusterExec", "ClusterAttach", "ClusterPortForward", "ClusterResourceUsage", "Metric"}
)
_NODE_COMMANDS = frozenset({"cordon", "uncordon", "drain", "taint"})
_CLUSTER_RESOURCES = re.compile(
    r"^(nodes?|no|namespaces?|ns|persistentvolumes?|pv|storageclass(es)?|sc|clusterroles?|clusterrolebindings?|priorityclass(es)?|pc"
    r"|ingressclass(es)?|(validating|mutating)webhookconfigurations?|(validating|mutating)admissionpolic(y|ies)(bindings?)?"
    r"|customresourcedefinitions?|crds?|apiservices?|runtimeclass(es)?)([./]|$)",
    re.IGNORECASE,
)


def alone_because(scenario: Scenario) -> str:
    """Why the scenario must run alone; empty: it may run beside others."""
    return next(_reasons(scenario), "")


def _reasons(scenario: Scenario) -> Iterator[str]:
    document = scenario.document
    if document.cluster:
        yield "cluster: manifests outside its namespace"
    if not document.signal.labels.get("namespace"):
        yield "its alert is about something of cluster scope"
    for name in dict.fromkeys(document.files):
        for one in scenario.objects(name):
            yield from _of_object(one, scenario.namespace)
    for step in steps(document):
        yield from _of_step(step, scenario.namespace)
    for reference in document.expect.may_mutate:
        if Ref.parse(reference).kind in CLUSTER_SCOPED:
            yield f"{reference} may be changed"


def steps(document: Document) -> list[Step]:
    """All steps, those of the proof too."""
    found = [*document.steps]
    if document.proof is not None:
        found += [*document.proof.repair, *(s for wrong in document.proof.wrong.values() for s in wrong)]
    return found


def _of_object(one: dict[str, Any], namespace: str) -> Iterator[str]:
    kind, place = one["kind"], one["metadata"].get("namespace")
    if kind in CLUSTER_SCOPED:
        yield f"{kind}/{one['metadata']['name']} is cluster-scoped"
    if kind == "Stage" and one["spec"].get("resourceRef", {}).get("kind") in CLUSTER_SCOPED:
        yield f"Stage/{one['metadata']['name']} rules nodes"
    if kind not in _SIMULATOR_ONLY and place not in (None, namespace):
        yield f"{kind}/{one['metadata']['name']} is in namespace {place}"


def _of_step(step: Step, namespace: str) -> Iterator[str]:
    target = step.delete or (step.patch.object if step.patch is not None else None)
    if target is not None:
        ref = Ref.parse(target, namespace)
        if ref.kind in CLUSTER_SCOPED or ref.namespace != namespace:
            yield f"a step changes {target}"
    if step.run is not None:
        words = [str(word) for word in step.run[1:]]
        if words[0] in _NODE_COMMANDS or any(_CLUSTER_RESOURCES.match(word) for word in words):
            yield f"a step runs {' '.join(step.run)}"
