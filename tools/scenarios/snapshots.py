"""All objects of a namespace at one moment, and what differs between two moments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tools.cluster.rest import ApiError
from tools.scenarios.isolation import CLUSTER_SCOPED
from tools.scenarios.kube import Kind, Kube, Ref

Json = dict[str, Any]
_NOT_OBJECTS = frozenset({"Event", "Lease", "Endpoints", "EndpointSlice", "PodMetrics"})
_OUR_MARKS = "nightorders.dev/"
_CONTROLLER_MARKS = ("deployment.kubernetes.io/", "deprecated.daemonset.template.generation", "control-plane.alpha.kubernetes.io/")
Key = tuple[str, str, str]  # kind, namespace (empty: cluster-scoped), name


@dataclass(frozen=True)
class Snapshot:
    """Objects by kind, namespace and name."""

    objects: dict[Key, Json]

    def get(self, ref: str, namespace: str) -> Json | None:
        """The object that Kind/name names."""
        return self.objects.get(key(ref, namespace))

    def kind(self, name: str) -> list[Json]:
        """All of a kind."""
        return [o for (kind, _, _), o in self.objects.items() if kind == name]

    def root_owner(self, namespace: str, pod: str) -> str | None:
        """Kind/name of what a pod belongs to in the end."""
        found = self.objects.get(("Pod", namespace, pod))
        title = None
        while found is not None:
            above = controller(found)
            if above is None:
                return title
            title = f"{above['kind']}/{above['name']}"
            found = self.objects.get((above["kind"], namespace, above["name"]))
        return title


def key(ref: str, namespace: str) -> Key:
    """The key of Kind/name or Kind/namespace/name; kinds of cluster scope have no namespace."""
    parsed = Ref.parse(ref, namespace)
    kind = parsed.kind.partition(".")[0]
    return kind, "" if kind in CLUSTER_SCOPED else parsed.namespace, parsed.name


def controller(one: Json) -> Json | None:
    """The controller owner reference."""
    return next((o for o in one["metadata"].get("ownerReferences") or [] if o.get("controller")), None)


def take(kube: Kube, namespace: str, also: Iterable[str] = ()) -> Snapshot:
    """Everything in a namespace that is an object somebody may have made, and the objects that `also` names."""
    kinds = [k for k in kube.kinds() if k.namespaced and "list" in k.verbs and k.name not in _NOT_OBJECTS and k.group != "nightorders.dev"]
    with ThreadPoolExecutor(4) as pool:
        listed = list(pool.map(lambda kind: _listed(kube, kind, namespace), kinds))
    objects = {(o["kind"], namespace, o["metadata"]["name"]): o for found in listed for o in found}
    for ref in also:
        if key(ref, namespace) not in objects:
            parsed = Ref.parse(ref, namespace)
            if (found := kube.get(parsed)) is not None:
                objects[key(ref, namespace)] = found
    return Snapshot(objects)


def _listed(kube: Kube, kind: Kind, namespace: str) -> list[Json]:
    try:
        return kube.list(f"{kind.name}.{kind.group}" if kind.group else kind.name, namespace)
    except ApiError as problem:
        if problem.status in (403, 404, 405, 503):
            return []  # a kind whose server is gone has nothing to compare
        raise


# ---------------------------------------------------------------- differences


def wish(one: Json) -> Json:
    """What people and controllers ask for: the object without status, bookkeeping and the operator's own marks."""
    meta = one.get("metadata", {})
    marks = {
        part: {k: v for k, v in (meta.get(part) or {}).items() if _OUR_MARKS not in k and not k.startswith(_CONTROLLER_MARKS)}
        for part in ("labels", "annotations")
    }
    return {**{k: v for k, v in one.items() if k not in ("status", "metadata", "apiVersion", "kind")}, "metadata": marks}


def changed_fields(before: Json, after: Json) -> list[str]:
    """Paths such as data.PORT or spec.template.spec.containers[0].image whose values differ."""
    return sorted(_differences(wish(before), wish(after), ""))


def _differences(before: Any, after: Any, path: str) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before.keys() | after.keys():
            yield from _differences(before.get(name), after.get(name), f"{path}.{name}" if path else name)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differences(old, new, f"{path}[{number}]")
    else:
        yield path


def allowed_field(path: str, allowed: Iterable[str]) -> bool:
    """Whether a path lies at or below one of the allowed ones."""
    return any(path == one or (path.startswith(one) and re.match(r"[.\[]", path[len(one) :])) for one in allowed)


def losses(before: Snapshot, after: Snapshot, may_mutate: Iterable[Key], by_operator: Callable[[Key], bool]) -> list[str]:
    """Objects without a controller that the operator deleted and mayMutate does not name, and workloads that were scaled to zero."""
    named = set(may_mutate)
    found = []
    for place, old in before.objects.items():
        new = after.objects.get(place)
        title = f"{place[0]}/{place[2]}"
        gone = new is None or new["metadata"]["uid"] != old["metadata"]["uid"]
        if gone and controller(old) is None and place not in named and by_operator(place):
            found.append(f"{title} was deleted")
        if new is not None and controller(old) is None and _replicas(old) and _replicas(new) == 0:
            found.append(f"{title} was scaled to zero")
    return found


def _replicas(one: Json) -> int | None:
    value = (one.get("spec") or {}).get("replicas")
    return value if isinstance(value, int) else None
