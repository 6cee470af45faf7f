"""How kwok is told what simulated kubelets do: nodes, the default stages, and the parts of pod stages.

A kwok Stage has a selector (jq expressions over the object) and a next status (a Go template). When
several match one pod, those with a weight above zero win over those without, and equal ones are drawn by
lot; so the selectors of stages that can meet must exclude each other.
"""

from __future__ import annotations

import json
from typing import Any

Object = dict[str, Any]

NODE_ANNOTATION = "kwok.x-k8s.io/node"
# The condition that the references simulator sets on a pod once every ConfigMap and Secret it needs is
# there (`tools.cluster.references`).
REFERENCES_PRESENT = "testcluster.nightorders.dev/ReferencesPresent"
# Certificate of the API server, published into every namespace by the control plane itself.
ROOT_CA_CONFIGMAP = "kube-root-ca.crt"
# The stage by which an ordinary pod becomes ready; kwok's own has the same name.
POD_READY = "pod-ready"

# jq: whether a pod has ConfigMap or Secret references that must exist before it starts. The same as
# `tools.cluster.references.references`, in the language of selectors.
_HAS_REFERENCES = f"""
  [ .spec.containers[]?, .spec.initContainers[]?
    | (.env[]?.valueFrom | (.configMapKeyRef?, .secretKeyRef?)), (.envFrom[]? | (.configMapRef?, .secretRef?)) ]
  + [ .spec.volumes[]? | .configMap?, .secret?,
      (.projected?.sources[]? | (.configMap?, .secret?) | select(. != null and .name != "{ROOT_CA_CONFIGMAP}")) ]
  | any(.[]; . != null and .optional != true)
"""
_PRESENT = f'([.status.conditions[]? | select(.type == "{REFERENCES_PRESENT}" and .status == "True")] | length > 0)'
MAY_START = " ".join(f"(({_HAS_REFERENCES}) | not) or {_PRESENT}".split())


def node(name: str, version: str) -> Object:
    """A simulated node with room for as many pods as a real one of that size."""
    room = {"cpu": "8", "memory": "16Gi", "ephemeral-storage": "100Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {NODE_ANNOTATION: "fake"},
            "labels": {
                "type": "kwok",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
            },
        },
        "status": {"allocatable": room, "capacity": room, "nodeInfo": _node_info(version)},
    }


def _node_info(version: str) -> dict[str, str]:
    # The fields are all required; kwok fills in what is empty.
    empty = (
        "machineID",
        "systemUUID",
        "bootID",
        "kernelVersion",
        "osImage",
        "containerRuntimeVersion",
        "kubeProxyVersion",
    )
    known = {"kubeletVersion": version, "operatingSystem": "linux", "architecture": "amd64"}
    return {**dict.fromkeys(empty, ""), **known}


def defaults(shipped: list[Object]) -> list[Object]:
    """The stages of every cluster: those that kwok ships, with a `pod-ready` of our own.

    Ours waits for ConfigMaps and Secrets, and leaves alone what a pod already has (its IP, its restarts).
    """
    return [_pod_ready() if stage["metadata"]["name"] == POD_READY else stage for stage in shipped]


def _pod_ready() -> Object:
    selector = [
        expression(".metadata.deletionTimestamp", "DoesNotExist"),
        expression(".status.phase", "In", "Pending"),
        expression('.status.conditions.[] | select( .type == "Ready" ) | .status', "NotIn", "True"),
        expression(MAY_START, "In", "true"),
    ]
    return stage(POD_READY, selector, steps=[status_step(status("Running", ready=True))])


# ---------------------------------------------------------------- parts of stages


def expression(key: str, operator: str, *values: str) -> Object:
    """One condition of a selector; `key` is jq over the pod."""
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


def stage(name: str, selector: list[Object], steps: list[Object], *, weight: int = 0, delay: Object | None = None) -> Object:
    """A Stage for pods. `steps` are done in order; `delay` as kwok has it ({"durationMilliseconds": 500})."""
    spec: Object = {
        "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
        "selector": {"matchExpressions": selector},
        "weight": weight,
        "steps": steps,
    }
    if delay:
        spec["delay"] = delay
    return {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": name}, "spec": spec}


def status_step(template: str) -> Object:
    """The step that patches a pod's status with a rendered template."""
    return {"patch": {"subresource": "status", "root": "status", "template": template}}


def event_step(*, image: str, severity: str, reason: str, message: str, count: str = "1") -> Object:
    """The step that writes an Event (of severity Normal or Warning) about the container of that image, as a kubelet does.

    `message` is a Go template expression in which `$pod` is the pod and `$container` the container's name,
    `count` a template text. The same event again keeps its name and gets the new count.
    """
    head = f"""
{{{{ $pod := . }}}}{{{{ $now := Now }}}}{{{{ $container := "" }}}}
{{{{ range .spec.containers }}}}{{{{ if eq .image {go(image)} }}}}{{{{ $container = .name }}}}{{{{ end }}}}{{{{ end }}}}
{{{{ $message := {message} }}}}
{{{{ $distinct := sha256sum (printf "%s/{reason}/%s" .metadata.uid $message) | trunc 16 }}}}
type: {severity}
reason: {reason}
count: {count}"""
    return {"apply": {"template": head.strip() + _EVENT, "type": "apply"}}


_EVENT = """
apiVersion: v1
kind: Event
metadata:
  name: {{ printf "%s.%s" .metadata.name $distinct | Quote }}
  namespace: {{ .metadata.namespace | Quote }}
involvedObject:
  apiVersion: v1
  kind: Pod
  name: {{ .metadata.name | Quote }}
  namespace: {{ .metadata.namespace | Quote }}
  uid: {{ .metadata.uid | Quote }}
  fieldPath: {{ printf "spec.containers{%s}" $container | Quote }}
message: {{ $message | Quote }}
firstTimestamp: {{ or .status.startTime $now | Quote }}
lastTimestamp: {{ $now | Quote }}
source:
  component: kubelet
  host: {{ .spec.nodeName | Quote }}
reportingComponent: kubelet
reportingInstance: {{ .spec.nodeName | Quote }}
"""


# Templates of parts of one container's status. In them `$c` is the container's spec, `$old` its present
# status ({} when there is none), `$restarts` how often it was restarted, `$since` when it began to run.

_CONTAINER_HEAD = """
{{ range .spec.containers }}{{ $c := . }}{{ $old := dict }}
{{ range $pod.status.containerStatuses }}{{ if eq .name $c.name }}{{ $old = . }}{{ end }}{{ end }}
{{ $restarts := toString (or $old.restartCount 0) | atoi }}
{{ $since := $now }}{{ with $old.state }}{{ with .running }}{{ $since = .startedAt }}{{ end }}{{ end }}
- name: {{ $c.name | Quote }}
  image: {{ $c.image | Quote }}
"""
# A container that has run at least once: the image's digest, and an id of its own for each run.
STARTED_ONCE = """
  imageID: {{ printf "%s@sha256:%s" (regexReplaceAll "[:@][^/]*$" $c.image "") (sha256sum $c.image) | Quote }}
  containerID: {{ printf "containerd://%s" (sha256sum (printf "%s/%s/%d" $pod.metadata.uid $c.name $restarts)) | Quote }}
"""
KEEP_HISTORY = """
  restartCount: {{ $restarts }}
  lastState: {{ (or $old.lastState dict) | toJson }}
"""
RUNNING = f"""{STARTED_ONCE}{KEEP_HISTORY}
  ready: true
  started: true
  state: {{running: {{startedAt: {{{{ $since | Quote }}}}}}}}
"""
_INIT_CONTAINERS = """
initContainerStatuses:
{{ range .spec.initContainers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  started: {{ eq (or .restartPolicy "") "Always" }}
  restartCount: 0
  state:
    {{ if eq (or .restartPolicy "") "Always" }}
    running: {startedAt: {{ or $pod.status.startTime $now | Quote }}}
    {{ else }}
    terminated:
      exitCode: 0
      reason: Completed
      startedAt: {{ or $pod.status.startTime $now | Quote }}
      finishedAt: {{ or $pod.status.startTime $now | Quote }}
    {{ end }}
{{ end }}
"""
# `PodIPsWith` gives another address each time, and two of them are refused: only for a pod without one.
_ADDRESSES = """
{{ if not .status.podIP }}
{{ with NodeIPsWith .spec.nodeName }}
hostIP: {{ index . 0 | Quote }}
hostIPs: [{{ range $i, $ip := . }}{{ if $i }}, {{ end }}{ip: {{ $ip | Quote }}}{{ end }}]
{{ end }}
{{ $host := or .spec.hostNetwork false }}
{{ with PodIPsWith .spec.nodeName $host .metadata.uid .metadata.name .metadata.namespace }}
podIP: {{ index . 0 | Quote }}
podIPs: [{{ range $i, $ip := . }}{{ if $i }}, {{ end }}{ip: {{ $ip | Quote }}}{{ end }}]
{{ end }}
{{ end }}
"""


def status(phase: str, *, ready: bool, image: str = "", container: str = RUNNING) -> str:
    """The template of a whole pod status.

    Containers of that image have the `container` template for their status, all others run. `ready` says
    whether the former, and so the pod, are ready. Without an image all containers run and are ready.
    """
    if image:
        mine = f"{{{{ if eq .image {go(image)} }}}}"
        containers = f"{mine}{container}{{{{ else }}}}{RUNNING}{{{{ end }}}}"
        unready = f"{{{{ range .spec.containers }}}}{mine}{{{{ $unready = append $unready .name }}}}{{{{ end }}}}{{{{ end }}}}"
    else:
        containers, unready = RUNNING, ""
    conditions = (
        _condition("PodReadyToStartContainers", holds=True),
        _condition("Initialized", holds=True),
        _condition("Ready", holds=ready),
        _condition("ContainersReady", holds=ready),
    )
    return "".join(
        (
            f"{{{{ $pod := . }}}}{{{{ $now := Now }}}}{{{{ $unready := list }}}}{unready}\n",
            f"phase: {phase}\nstartTime: {{{{ or .status.startTime $now | Quote }}}}\n",
            "conditions:",
            *conditions,
            _READINESS_GATES,
            "containerStatuses:",
            f"{_CONTAINER_HEAD}{containers}{{{{ end }}}}\n",
            _INIT_CONTAINERS,
            _ADDRESSES,
        )
    )


# Set once, so that whoever owns a gate can then close it.
_READINESS_GATES = """
{{ range .spec.readinessGates }}{{ $gate := .conditionType }}{{ $known := false }}
{{ range $pod.status.conditions }}{{ if eq .type $gate }}{{ $known = true }}{{ end }}{{ end }}
{{ if not $known }}
- {type: {{ $gate | Quote }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ end }}{{ end }}
"""
_CONDITION = """
{{ $at := $now }}
{{ range .status.conditions }}{{ if and (eq .type "TYPE") (eq .status "STATUS") }}{{ $at = .lastTransitionTime }}{{ end }}{{ end }}
- type: TYPE
  status: "STATUS"
  lastTransitionTime: {{ $at | Quote }}
"""
_NOT_READY = """
  reason: ContainersNotReady
  message: {{ printf "containers with unready status: [%s]" (join " " $unready) | Quote }}
"""
_NO_REASON = """
  reason: null
  message: null
"""


def _condition(name: str, *, holds: bool) -> str:
    """One condition; its transition time stays while its status does."""
    template = _CONDITION.replace("TYPE", name).replace("STATUS", "True" if holds else "False")
    return template + (_NO_REASON if holds else _NOT_READY)


def go(text: str) -> str:
    """A text as a Go template string literal."""
    return json.dumps(text, ensure_ascii=False)
