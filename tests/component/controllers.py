"""A toy of the Deployment controller and the kubelet: ReplicaSets, pods, and statuses as the API server would show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from nightorders.domain.digest import bare_template, sha256
from nightorders.domain.snapshot import parse_time
from tests.component.fakes import Api, Json, clone, stamp

REVISION = "deployment.kubernetes.io/revision"
STARTS_IN = timedelta(seconds=2)
DEADLINE = timedelta(seconds=600)


@dataclass
class Controllers:
    """`missing` images cannot be pulled; `dead` ones are never ready, `sick` ones not while a Deployment asks for them.

    Everything else is Ready after two seconds.
    """

    api: Api
    missing: set[str] = field(default_factory=set)
    sick: set[str] = field(default_factory=set)
    _pods: int = 0
    dead: set[str] = field(default_factory=set)

    def sync(self) -> None:
        """Works until nothing changes any more at this moment."""
        for _ in range(20):
            version = self.api._version
            for raw in list(self.api.all("Deployment")):
                self._kubelet(raw["metadata"]["namespace"])
                self._deployment(clone(raw))
            self._garbage()
            if self.api._version == version:
                return
        raise AssertionError("the controllers do not come to rest")

    def _owned(self, kind: str, namespace: str, uid: str) -> Iterator[Json]:
        return (o for o in self.api.all(kind, namespace) if any(r["uid"] == uid for r in o["metadata"].get("ownerReferences", ())))

    def _garbage(self) -> None:
        uids = {o["metadata"]["uid"] for o in self.api.objects.values()}
        for (kind, ns, name), raw in list(self.api.objects.items()):
            owners = raw["metadata"].get("ownerReferences", ())
            if kind in ("ReplicaSet", "Pod") and owners and not any(r["uid"] in uids for r in owners):
                self.api.delete(kind, ns, name, "controller")

    # ------------------------------------------------------------ pods

    def _kubelet(self, namespace: str) -> None:
        asked = {d["spec"]["template"]["spec"]["containers"][0]["image"] for d in self.api.all("Deployment", namespace)}
        for raw in list(self.api.all("Pod", namespace)):
            pod = clone(raw)
            image = pod["spec"]["containers"][0]["image"]
            started = parse_time(pod["metadata"]["creationTimestamp"])
            assert started is not None
            due = self.api.clock.now() - started >= STARTS_IN
            if image in self.missing:
                why = {
                    "reason": "ImagePullBackOff" if due else "ErrImagePull",
                    "message": f'Back-off pulling image "{image}": ErrImagePull: failed to pull and unpack image "{image}": not found',
                }
                state: Json = {"waiting": why}
            elif due:
                state = {"running": {"startedAt": stamp(started + STARTS_IN)}}
            else:
                state = {"waiting": {"reason": "ContainerCreating"}}
            ready = "running" in state and image not in self.dead and not (image in self.sick and image in asked)
            before = next((c for c in pod.get("status", {}).get("conditions", ()) if c["type"] == "Ready"), None)
            same = before is not None and before["status"] == str(ready)
            at = before["lastTransitionTime"] if same and before else stamp(self.api.clock.now())
            conditions = [{"type": kind, "status": str(ready), "lastTransitionTime": at} for kind in ("Ready", "ContainersReady")]
            conditions += [
                {"type": kind, "status": "True", "lastTransitionTime": stamp(started)} for kind in ("PodScheduled", "Initialized")
            ]
            pod["status"] = {
                "phase": "Running" if "running" in state else "Pending",
                "startTime": stamp(started),
                "conditions": conditions,
                "containerStatuses": [{"name": "app", "image": image, "ready": ready, "started": ready, "restartCount": 0, "state": state}],
            }
            self.api.put("Pod", namespace, pod["metadata"]["name"], pod, "controller")

    def _ready(self, pod: Json) -> bool:
        return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", ()))

    # ------------------------------------------------------------ rollout

    def _deployment(self, d: Json) -> None:
        ns, name, uid = d["metadata"]["namespace"], d["metadata"]["name"], d["metadata"]["uid"]
        if d["metadata"].get("deletionTimestamp"):
            return
        sets = list(self._owned("ReplicaSet", ns, uid))
        newest = max((int(s["metadata"]["annotations"][REVISION]) for s in sets), default=0)
        wanted = bare_template(d["spec"]["template"])
        current = next((s for s in sets if bare_template(s["spec"]["template"]) == wanted), None)
        if current is None or int(current["metadata"]["annotations"][REVISION]) != newest:
            current = self._revision(d, current, newest + 1 if sets else int(d["metadata"].get("annotations", {}).get(REVISION, 1)))
            sets = list(self._owned("ReplicaSet", ns, uid))
        number = current["metadata"]["annotations"][REVISION]
        pods = {s["metadata"]["name"]: list(self._owned("Pod", ns, s["metadata"]["uid"])) for s in sets}
        self._scale(d, current, pods)
        pods = {s["metadata"]["name"]: list(self._owned("Pod", ns, s["metadata"]["uid"])) for s in sets}
        for s in sets:
            own = pods[s["metadata"]["name"]]
            ready = sum(self._ready(p) for p in own)
            made = clone(s) | {"status": {"replicas": len(own), "readyReplicas": ready, "availableReplicas": ready}}
            made["spec"]["replicas"] = len(own)
            self.api.put("ReplicaSet", ns, s["metadata"]["name"], made, "controller")
        self._status(d, number, pods, pods[current["metadata"]["name"]])
        assert self.api.objects[("Deployment", ns, name)]["metadata"]["uid"] == uid

    def _revision(self, d: Json, known: Json | None, number: int) -> Json:
        """The ReplicaSet of the present template: a new one, or an old one with a new number."""
        ns, name = d["metadata"]["namespace"], d["metadata"]["name"]
        if known is not None:
            made = clone(known)
            made["metadata"]["annotations"][REVISION] = str(number)
            return self.api.put("ReplicaSet", ns, made["metadata"]["name"], made, "controller")
        template = clone(d["spec"]["template"])
        digest = sha256([d["metadata"]["uid"], bare_template(template)])[7:17]
        template["metadata"]["labels"] = {**template["metadata"].get("labels", {}), "pod-template-hash": digest}
        raw = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "annotations": {REVISION: str(number)},
                "labels": template["metadata"]["labels"],
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": d["metadata"]["uid"], "controller": True}
                ],
            },
            "spec": {"replicas": 0, "selector": d["spec"]["selector"], "template": template},
        }
        return self.api.put("ReplicaSet", ns, f"{name}-{digest}", raw, "controller")

    def _scale(self, d: Json, current: Json, pods: dict[str, list[Json]]) -> None:
        """One step of a rolling update with maxSurge 1 and maxUnavailable 1."""
        replicas, ns = d["spec"]["replicas"], d["metadata"]["namespace"]
        mine = pods[current["metadata"]["name"]]
        old = [p for name, own in pods.items() if name != current["metadata"]["name"] for p in own]
        for pod in [p for p in old if not self._ready(p)]:
            self.api.delete("Pod", ns, pod["metadata"]["name"], "controller")
            old.remove(pod)
        available = sum(self._ready(p) for p in (*old, *mine))
        while old and available > replicas - 1 and len(old) + len(mine) > replicas - 1:
            self.api.delete("Pod", ns, old.pop()["metadata"]["name"], "controller")
            available -= 1
        for _ in range(min(replicas - len(mine), replicas + 1 - len(mine) - len(old))):
            self._pods += 1
            template = clone(current["spec"]["template"])
            owner = {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": current["metadata"]["name"],
                "uid": current["metadata"]["uid"],
                "controller": True,
            }
            raw = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"labels": template["metadata"]["labels"], "ownerReferences": [owner]},
                "spec": {**template["spec"], "nodeName": "node-1"},
            }
            self.api.put("Pod", ns, f"{current['metadata']['name']}-{self._pods:03}", raw, "controller")
        for pod in mine[replicas:]:
            self.api.delete("Pod", ns, pod["metadata"]["name"], "controller")

    def _status(self, d: Json, number: str, pods: dict[str, list[Json]], mine: list[Json]) -> None:
        ns, name, now = d["metadata"]["namespace"], d["metadata"]["name"], self.api.clock.now()
        everything = [p for own in pods.values() for p in own]
        ready = sum(self._ready(p) for p in everything)
        replicas = d["spec"]["replicas"]
        done = len(mine) == replicas == len(everything) == ready
        before = {c["type"]: c for c in d.get("status", {}).get("conditions", ())}
        old = before.get("Progressing")
        began = parse_time(old["lastUpdateTime"]) if old and d.get("status", {}).get("updatedTo") == number else now
        assert began is not None
        if done:
            progressing: tuple[str, str] = ("True", "NewReplicaSetAvailable")
        elif now - began > DEADLINE:
            progressing = ("False", "ProgressDeadlineExceeded")
        else:
            progressing = ("True", "ReplicaSetUpdated")
        raw = clone(self.api.objects[("Deployment", ns, name)])
        raw["metadata"].setdefault("annotations", {})[REVISION] = number
        raw["status"] = {
            "observedGeneration": raw["metadata"]["generation"],
            "updatedTo": number,
            "replicas": len(everything),
            "updatedReplicas": len(mine),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, replicas - ready),
            "conditions": [
                self._condition("Progressing", *progressing, old, now, began),
                self._condition("Available", str(ready >= replicas - 1), "MinimumReplicasAvailable", before.get("Available"), now, now),
            ],
        }
        if raw["status"] != d.get("status") or raw["metadata"]["annotations"] != d["metadata"].get("annotations"):
            self.api.put("Deployment", ns, name, raw, "controller")

    def _condition(self, kind: str, status: str, reason: str, old: Any, now: Any, began: Any) -> Json:
        at = old["lastTransitionTime"] if old and old["status"] == status else stamp(now)
        updated = stamp(began) if kind == "Progressing" else at
        return {"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": at, "lastUpdateTime": updated}
