"""Simulated kubelets' handling of ConfigMap and Secret references.

A kubelet does not start a pod whose ConfigMap or Secret is not there: it says so in the pod's status and
events and tries again. kwok looks at one object at a time and cannot know. So the stages that start pods
hold back those with such references (`stages.MAY_START`) until this process, which runs beside kwok, has
found everything and sets a condition on the pod; until then it writes what a kubelet would.

It looks at pods of simulated nodes in every namespace. Pods that have started are left alone, whatever
happens to their ConfigMaps then.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import http.client
import queue
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tools.cluster.rest import Api, ApiError
from tools.cluster.stages import NODE_ANNOTATION, REFERENCES_PRESENT, ROOT_CA_CONFIGMAP

Object = dict[str, Any]

# How soon a pod starts after its ConfigMap was made. A kubelet needs up to a minute.
_CHECK_SECONDS = 0.25
_RECONNECT_SECONDS = 0.2
_WATCH_SILENCE_SECONDS = 300.0
# How often a kubelet tells about the same problem: a container is tried again at every sync, a volume
# less and less often.
_CONTAINER_RETRY_SECONDS = 12.0
_MOUNT_RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 122.0)
_STRATEGIC_MERGE = "application/strategic-merge-patch+json"
_MERGE = "application/merge-patch+json"
_NO_ANSWER = (OSError, http.client.HTTPException)


# ---------------------------------------------------------------- what a pod refers to


@dataclass(frozen=True)
class Reference:
    """Something that must exist before a container or a volume of a pod can be set up."""

    kind: Literal["ConfigMap", "Secret"]
    name: str
    key: str | None  # None: the object is enough
    user: str  # name of the container or volume
    place: Literal["volume", "initContainer", "container"]


def references(pod: Object) -> list[Reference]:
    """The references that are not optional, in the order in which a kubelet meets them.

    The certificate of the API server, which every pod mounts and the control plane provides, is not among
    them. `stages.MAY_START` says the same as jq; they must agree.
    """
    spec = pod["spec"]
    found = [reference for volume in spec.get("volumes") or [] for reference in _of_volume(volume)]
    for place in ("initContainer", "container"):
        for container in spec.get(f"{place}s") or []:
            found += _of_container(container, place)
    return found


def _of_volume(volume: Object) -> Iterator[Reference]:
    sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
    for source in sources:
        for kind, entry, name_field in (("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName")):
            found = source.get(entry)
            if not found or found.get("optional"):
                continue
            name = found.get(name_field) or found.get("name", "")
            if source is not volume and name == ROOT_CA_CONFIGMAP:
                continue
            keys = [item["key"] for item in found.get("items") or []] or [None]
            for key in keys:
                yield Reference(kind, name, key, volume["name"], "volume")  # type: ignore[arg-type]


def _of_container(container: Object, place: str) -> Iterator[Reference]:
    for source in container.get("envFrom") or []:
        for kind, entry in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            found = source.get(entry)
            if found and not found.get("optional"):
                yield Reference(kind, found["name"], None, container["name"], place)  # type: ignore[arg-type]
    for variable in container.get("env") or []:
        for kind, entry in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
            found = (variable.get("valueFrom") or {}).get(entry)
            if found and not found.get("optional"):
                yield Reference(kind, found["name"], found["key"], container["name"], place)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what is missing, in a kubelet's words


@dataclass(frozen=True)
class Problem:
    """A reference that leads nowhere."""

    reference: Reference
    message: str


class Objects:
    """The ConfigMaps and Secrets of one moment: each is asked for once."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: dict[tuple[str, str, str], frozenset[str] | None] = {}

    def keys(self, kind: str, namespace: str, name: str) -> frozenset[str] | None:
        """The keys of that object; None when it does not exist. Raises ApiError, OSError."""
        where = (kind, namespace, name)
        if where not in self._known:
            self._known[where] = self._fetch(*where)
        return self._known[where]

    def _fetch(self, kind: str, namespace: str, name: str) -> frozenset[str] | None:
        resource = {"ConfigMap": "configmaps", "Secret": "secrets"}[kind]
        try:
            found = self._api.get(f"/api/v1/namespaces/{namespace}/{resource}/{urllib.parse.quote(name, safe='')}")
        except ApiError as problem:
            if problem.status == 404:
                return None
            raise
        return frozenset(found.get("data") or {}) | frozenset(found.get("binaryData") or {})


def problem_of(reference: Reference, namespace: str, keys: frozenset[str] | None) -> Problem | None:
    """What a kubelet says about a reference, given the keys of its object (None: no such object)."""
    kind, key = reference.kind, reference.key
    if keys is None:
        return Problem(reference, f'{kind.lower()} "{reference.name}" not found')
    if key is None or key in keys:
        return None
    if reference.place != "volume":
        return Problem(reference, f"couldn't find key {key} in {kind} {namespace}/{reference.name}")
    if kind == "ConfigMap":
        return Problem(reference, f"configmap references non-existent config key: {key}")
    return Problem(reference, f"references non-existent secret key: {key}")


def problems(pod: Object, objects: Objects) -> list[Problem]:
    """What keeps a pod from starting now: the first problem of each volume, or when the volumes are there of
    the first init container that has one, or of each container. Empty when it can start."""
    namespace = pod["metadata"]["namespace"]
    first: dict[tuple[str, str], Problem] = {}
    for reference in references(pod):
        keys = objects.keys(reference.kind, namespace, reference.name)
        problem = problem_of(reference, namespace, keys)
        if problem is not None:
            first.setdefault((reference.place, reference.user), problem)
    for place in ("volume", "initContainer", "container"):
        found = [problem for problem in first.values() if problem.reference.place == place]
        if found:
            return found[:1] if place == "initContainer" else found
    return []


def waiting_status(pod: Object, found: list[Problem], now: str) -> Object:
    """The status of a pod that cannot start because of these problems."""
    spec, old = pod["spec"], pod.get("status") or {}
    place = found[0].reference.place
    by_container = {problem.reference.user: problem.message for problem in found if place != "volume"}
    has_init = bool(spec.get("initContainers"))
    idle = {"reason": "PodInitializing" if has_init else "ContainerCreating"}

    def state(container: Object, kind: str) -> Object:
        if kind == place and container["name"] in by_container:
            return {"waiting": {"reason": "CreateContainerConfigError", "message": by_container[container["name"]]}}
        if place == "container":
            since = old.get("startTime") or now
            if kind == "initContainer":
                return {"terminated": {"reason": "Completed", "exitCode": 0, "startedAt": since, "finishedAt": since}}
            return {"running": {"startedAt": since}}
        return {"waiting": idle}

    def entry(container: Object, kind: str) -> Object:
        current = state(container, kind)
        runs = "running" in current
        return {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": runs or "terminated" in current,
            "started": runs,
            "restartCount": 0,
            "state": current,
            "lastState": {},
        }

    containers = [entry(container, "container") for container in spec["containers"]]
    init = [entry(container, "initContainer") for container in spec.get("initContainers") or []]
    unready = [container["name"] for container in containers if not container["ready"]]
    uninitialized = [container["name"] for container in init if not container["ready"]]
    not_ready = ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    not_initialized = ("ContainersNotInitialized", f"containers with incomplete status: [{' '.join(uninitialized)}]")
    conditions = [
        ("PodReadyToStartContainers", place != "volume", None),
        ("Initialized", not uninitialized, not_initialized),
        ("Ready", False, not_ready),
        ("ContainersReady", False, not_ready),
    ]
    return {
        "phase": "Pending",
        "startTime": old.get("startTime") or now,
        "conditions": [_condition(old, kind, holds, why, now) for kind, holds, why in conditions],
        "containerStatuses": containers,
        **({"initContainerStatuses": init} if init else {}),
    }


def _condition(old: Object, kind: str, holds: bool, why: tuple[str, str] | None, now: str) -> Object:
    value = "True" if holds else "False"
    before = next((c for c in old.get("conditions") or [] if c["type"] == kind and c["status"] == value), None)
    condition: Object = {
        "type": kind,
        "status": value,
        "lastTransitionTime": before["lastTransitionTime"] if before else now,
    }
    # None removes what a condition said before.
    reason, message = why if why and not holds else (None, None)
    return {**condition, "reason": reason, "message": message}


def present_status(pod: Object, now: str) -> Object:
    """The status that lets the stages start a pod."""
    return {"conditions": [_condition(pod.get("status") or {}, REFERENCES_PRESENT, True, None, now)]}


def event(pod: Object, problem: Problem, count: int, since: str, now: str) -> Object:
    """The Event that a kubelet writes about a problem; the same problem has the same name."""
    reference, metadata = problem.reference, pod["metadata"]
    if reference.place == "volume":
        reason = "FailedMount"
        message = f'MountVolume.SetUp failed for volume "{reference.user}" : {problem.message}'
        path = {}
    else:
        reason = "Failed"
        message = f"Error: {problem.message}"
        path = {"fieldPath": f"spec.{reference.place}s{{{reference.user}}}"}
    distinct = hashlib.sha256(f"{metadata['uid']}/{reason}/{message}".encode()).hexdigest()[:16]
    node = pod["spec"].get("nodeName", "")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{distinct}", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            **path,
        },
        "type": "Warning",
        "reason": reason,
        "message": message,
        "count": count,
        "firstTimestamp": since,
        "lastTimestamp": now,
        "source": {"component": "kubelet", "host": node},
        "reportingComponent": "kubelet",
        "reportingInstance": node,
    }


# ---------------------------------------------------------------- the process


@dataclass
class _Waiting:
    """A pod that cannot start yet, and what was said about it."""

    pod: Object
    since: str
    written: list[Problem] = field(default_factory=list)  # in the status
    told: int = 0  # how often events were written for `written`
    tell_again: float = 0.0  # time.monotonic()


class Simulator:
    """Looks after the pods that wait. Everything happens in the thread that calls `run`."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.waiting: dict[str, _Waiting] = {}  # by uid
        self._simulated: dict[str, bool] = {}  # by node

    def run(self, changes: queue.Queue[Object]) -> None:
        """Handle pods as they come (watch events) and look again at those that wait. Does not return."""
        while True:
            try:
                self.note(changes.get(timeout=_CHECK_SECONDS if self.waiting else None))
                while True:
                    self.note(changes.get_nowait())
            except queue.Empty:
                pass
            self.check()

    def note(self, change: Object) -> None:
        """Take in one watch event, or {"type": "LIST", "items": [...]}: all pods that there are."""
        if change["type"] == "LIST":
            listed = {pod["metadata"]["uid"] for pod in change["items"]}
            for gone in self.waiting.keys() - listed:
                del self.waiting[gone]
            for pod in change["items"]:
                self.note({"type": "ADDED", "object": pod})
            return
        pod = change["object"]
        uid = pod["metadata"]["uid"]
        if change["type"] == "DELETED" or not needs_care(pod):
            self.waiting.pop(uid, None)
        elif uid in self.waiting:
            self.waiting[uid].pod = pod
        else:
            self.waiting[uid] = _Waiting(pod, _now())

    def check(self) -> None:
        """Look at all pods that wait: start what can start, say what keeps the others."""
        objects = Objects(self.api)
        for uid, waiting in list(self.waiting.items()):
            try:
                if not self._on_simulated_node(waiting.pod) or self._handle(waiting, objects):
                    del self.waiting[uid]
            except ApiError as problem:
                if problem.status == 404:
                    del self.waiting[uid]  # the pod has gone
                else:
                    print(problem, file=sys.stderr, flush=True)
            except _NO_ANSWER as problem:
                print(f"no answer: {problem}", file=sys.stderr, flush=True)
                return  # the API server is being restarted; look again soon

    def _handle(self, waiting: _Waiting, objects: Objects) -> bool:
        """True when the pod may start and that was written down."""
        pod, now = waiting.pod, _now()
        found = problems(pod, objects)
        if not found:
            self._patch(pod, present_status(pod, now))
            return True
        if found != waiting.written:
            self._patch(pod, waiting_status(pod, found, now))
            waiting.written, waiting.told, waiting.tell_again, waiting.since = found, 0, 0.0, now
        if time.monotonic() >= waiting.tell_again:
            waiting.told += 1
            waiting.tell_again = time.monotonic() + _pause(found[0], waiting.told)
            for problem in found:
                self._tell(event(pod, problem, waiting.told, waiting.since, now))
        return False

    def _patch(self, pod: Object, status: Object) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        # The uid makes the patch fail on another pod of the same name.
        body = {"metadata": {"uid": metadata["uid"]}, "status": status}
        try:
            self.api.request("PATCH", path, body, _STRATEGIC_MERGE)
        except ApiError as problem:
            if problem.status != 409:
                raise

    def _tell(self, what: Object) -> None:
        path = f"/api/v1/namespaces/{what['metadata']['namespace']}/events"
        try:
            self.api.post(path, what)
        except ApiError as problem:
            if problem.status == 409:
                again = {"count": what["count"], "lastTimestamp": what["lastTimestamp"]}
                self.api.request("PATCH", f"{path}/{what['metadata']['name']}", again, _MERGE)
            elif problem.status != 403:  # the namespace is being deleted
                raise

    def _on_simulated_node(self, pod: Object) -> bool:
        name = pod["spec"]["nodeName"]
        if name not in self._simulated:
            node = self.api.get(f"/api/v1/nodes/{name}")
            self._simulated[name] = NODE_ANNOTATION in (node["metadata"].get("annotations") or {})
        return self._simulated[name]


def needs_care(pod: Object) -> bool:
    """Whether a pod waits for references: scheduled, not started, and not yet let go by us."""
    status = pod.get("status") or {}
    if status.get("phase") != "Pending" or not pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"):
        return False
    if any(c["type"] == REFERENCES_PRESENT and c["status"] == "True" for c in status.get("conditions") or []):
        return False
    return bool(references(pod))


def _pause(problem: Problem, told: int) -> float:
    if problem.reference.place != "volume":
        return _CONTAINER_RETRY_SECONDS
    return _MOUNT_RETRY_SECONDS[min(told, len(_MOUNT_RETRY_SECONDS)) - 1]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def watch_pods(api: Api, changes: queue.Queue[Object]) -> None:
    """Put every pod that is scheduled and not started into the queue, as `Simulator.note` takes it.

    Does not return.
    """
    query = "fieldSelector=" + urllib.parse.quote("status.phase=Pending,spec.nodeName!=")
    while True:
        try:
            found = api.get(f"/api/v1/pods?{query}")
            changes.put({"type": "LIST", "items": found["items"]})
            version = found["metadata"]["resourceVersion"]
            path = f"/api/v1/pods?{query}&watch=1&resourceVersion={version}"
            for change in api.watch(path, _WATCH_SILENCE_SECONDS):
                if change["type"] == "ERROR":
                    break  # too old a version, for example: list again
                changes.put(change)
        except (ApiError, ValueError, *_NO_ANSWER) as problem:
            print(f"watch: {problem}", file=sys.stderr, flush=True)
        time.sleep(_RECONNECT_SECONDS)


def main() -> None:
    """Run until killed; it has no end of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    for file in ("authority", "certificate", "key"):
        parser.add_argument(f"--{file}", type=Path, required=True)
    arguments = parser.parse_args()

    def api() -> Api:
        return Api(arguments.server, arguments.authority, arguments.certificate, arguments.key)

    changes: queue.Queue[Object] = queue.Queue()
    threading.Thread(target=watch_pods, args=(api(), changes), daemon=True).start()
    Simulator(api()).run(changes)


if __name__ == "__main__":
    main()
