"""Autoscalers that cannot scale, may not, or have nothing left to give."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import KubeObject
from ..evidence import Channel, Observation, measured, seen
from ..graph import series_name
from ..hypotheses import Candidate, Cap, Mark
from ..read import clock, listed, mapping, number, objects, when, word
from ..scene import Workload
from ..views import Condition, conditions
from ..world import World
from .common import edited, found, introduced, labels, made, pod_spec, ready, released, resembling, saw_change, services_of, signal_about

_METRICS_API = "v1beta1.metrics.k8s.io"
_OTHER_APIS = {
    "FailedGetPodsMetric": "v1beta1.custom.metrics.k8s.io",
    "FailedGetObjectMetric": "v1beta1.custom.metrics.k8s.io",
    "FailedGetExternalMetric": "v1beta1.external.metrics.k8s.io",
}
_MISSING = re.compile(r"missing request for (cpu|memory|[a-z0-9./-]{1,63}) in container (\S{1,63})")
_OWN_FAULT = frozenset(
    {"InvalidSelector", "InvalidMetricSourceType", "AmbiguousSelector", "FailedConvertHPA", "FailedConvertCurrentMetrics", "InvalidSpec"}
)


def autoscaling(world: World) -> Iterator[Candidate]:
    """Requests that are missing, metrics that nobody serves, targets that are not there, limits that are reached."""
    for hpa in world.scene.all("HorizontalPodAutoscaler"):
        yield from _examined(world, hpa)


def _examined(world: World, hpa: KubeObject) -> Iterator[Candidate]:
    spec, status = mapping(hpa.raw.get("spec")), mapping(hpa.raw.get("status"))
    ref = mapping(spec.get("scaleTargetRef"))
    title = f"{word(ref.get('kind'))}/{word(ref.get('name'))}"
    target = world.workload(title)
    state = conditions(status)
    if target is None:
        yield from _no_target(world, hpa, title, state)
        return
    if target.desired == 0:
        return  # (scaling is off at zero: that is the scale's matter)
    asked = list(_no_requests(world, hpa, target))
    yield from asked
    active, able = state.get("ScalingActive"), state.get("AbleToScale")
    if active is not None and active.status == "False":
        yield from _blind(world, hpa, target, active, known=bool(asked))
    if able is not None and able.status == "False":
        yield from _unable(world, hpa, target, able)
    yield from _held(world, hpa, target)
    yield from _overwritten(world, hpa, target)
    yield from _at_most(world, hpa, target, state, blind=active is not None and active.status == "False")


def _hits(hpa: KubeObject, target: Workload) -> tuple[str, ...]:
    return (hpa.title, target.title)


# -- the target ---------------------------------------------------------------------------------------------------------------------------


def _no_target(world: World, hpa: KubeObject, title: str, state: Mapping[str, Condition]) -> Iterator[Candidate]:
    """An autoscaler of what is not there: renamed, deleted, or misspelt."""
    kind, _, name = title.partition("/")
    if (
        kind not in ("Deployment", "StatefulSet", "ReplicaSet")
        or not world.scene.looked(kind)
        or found(world.scene, kind, name) is not None
    ):
        return
    near = resembling(name, (o.name for o in world.scene.all(kind)))
    change = edited(hpa, "spec", "scaleTargetRef")
    able = state.get("AbleToScale")
    told = seen(
        world.scene.listing("HorizontalPodAutoscaler"),
        f"{hpa.title} scales {title}, which is not in the list; {able.reason if able else ''}",
    )
    yield made(
        world,
        Category.AUTOSCALING,
        hpa.title,
        f"{hpa.title} scales {title}, which does not exist{f'; {kind}/{near} does' if near else ''}.",
        marks=(Mark("mechanism named", (told,)), *_changed(world, hpa, change, "scaleTargetRef")),
        inferred=0 if near else 1,
        counterfactual=bool(near),
        change=change,
        hits=(hpa.title, f"{kind}/{near}" if near else ""),
    )


def _changed(world: World, obj: KubeObject, change: ChangeRef | None, what: str) -> tuple[Mark, ...]:
    return (saw_change(world.scene, obj, change, what),) if change is not None else (Mark("no change seen"),)


# -- requests -----------------------------------------------------------------------------------------------------------------------------


def _wanted(hpa: KubeObject) -> list[tuple[str, str]]:
    """(resource, container) of the metrics that are a share of the request; an empty container means: of all of them."""
    found_: list[tuple[str, str]] = []
    for metric in objects(mapping(hpa.raw.get("spec")).get("metrics")):
        part, at = ("resource", "") if word(metric.get("type")) == "Resource" else ("containerResource", "container")
        source = mapping(metric.get(part))
        if word(mapping(source.get("target")).get("type")) == "Utilization" and word(source.get("name")):
            found_.append((word(source.get("name")), word(source.get(at)) if at else ""))
    return found_


def lacking(spec: Mapping[str, Any], resource: str, container: str = "") -> list[str]:
    """Containers that request nothing of the resource (a limit stands for a request)."""
    sidecars = [c for c in objects(spec.get("initContainers")) if word(c.get("restartPolicy")) == "Always"]
    missing: list[str] = []
    for c in (*objects(spec.get("containers")), *sidecars):
        resources = mapping(c.get("resources"))
        named = not container or word(c.get("name")) == container
        if named and resource not in {**mapping(resources.get("limits")), **mapping(resources.get("requests"))}:
            missing.append(word(c.get("name")))
    return missing


def _no_requests(world: World, hpa: KubeObject, target: Workload) -> Iterator[Candidate]:
    """A share of a request that is not there cannot be computed. Judged by the pods, which a LimitRange may have completed."""
    for resource, container in _wanted(hpa):
        live = [p.spec for p in target.pods if not p.done]
        missing = lacking(pod_spec(target), resource, container)
        if not missing or (live and not any(lacking(s, resource, container) for s in live)):
            continue
        hit = introduced(world, target, lambda t, r=resource, c=container: lacking(mapping(t.get("spec")), r, c))  # type: ignore[misc]
        before = hit is not None and hit[1].previous is not None and not lacking(hit[1].previous.pod_spec, resource, container)
        active = conditions(mapping(hpa.raw.get("status"))).get("ScalingActive")
        stuck = active is not None and active.status == "False"
        told = seen(
            world.scene.listing("HorizontalPodAutoscaler"),
            f"{hpa.title} scales by {resource} utilization; {target.title} container {listed(missing)} requests no {resource}"
            + (f"; ScalingActive False {active.reason}" if active is not None and stuck else ""),
        )
        marks = [Mark("mechanism named" if stuck else "mechanism likely", (told,))]
        change: ChangeRef | None = None
        if hit is not None and before:
            change, mark = released(*hit, f"requests.{resource} of {listed(missing)} removed")
            marks.append(mark)
        else:
            marks.append(Mark("no change seen"))
        yield made(
            world,
            Category.AUTOSCALING,
            target.title,
            f"{hpa.title} cannot scale {target.title} by {resource}: container {listed(missing)} requests no {resource}.",
            marks=marks,
            inferred=(0 if stuck else 1) if change is not None or signal_about(world, _SCALING) else 2,
            counterfactual=True,
            change=change,
            hits=_hits(hpa, target),
        )
        return


# -- conditions ---------------------------------------------------------------------------------------------------------------------------


def _blind(world: World, hpa: KubeObject, target: Workload, active: Condition, *, known: bool) -> Iterator[Candidate]:
    """ScalingActive is False for another reason than requests."""
    if active.reason == "ScalingDisabled":
        return
    listing = world.scene.listing("HorizontalPodAutoscaler")
    told = seen(listing, f"{hpa.title}: ScalingActive False {active.reason}: {active.message[:240]}")
    if active.reason in _OWN_FAULT:
        change = edited(hpa, "spec")
        yield made(
            world,
            Category.AUTOSCALING,
            hpa.title,
            f"{hpa.title} cannot scale {target.title}: {active.reason}.",
            marks=(Mark("mechanism named", (told,)), *_changed(world, hpa, change, "its spec")),
            inferred=0 if change else 1,
            change=change,
            hits=_hits(hpa, target),
            since=active.changed,
        )
        return
    if known or _MISSING.search(active.message) or not ready(target):
        return  # (without ready pods there are no metrics: the pods are the matter)
    name = _OTHER_APIS.get(active.reason, _METRICS_API if active.reason == "FailedGetResourceMetric" else "")
    if name:
        yield from _no_api(world, hpa, target, active, told, name)


def _no_api(world: World, hpa: KubeObject, target: Workload, active: Condition, told: Observation, name: str) -> Iterator[Candidate]:
    """Nobody serves the metrics. It was otherwise only if the autoscaler has worked."""
    api = found(world.scene, "APIService", name)
    absent = api is None and world.scene.looked("APIService")
    down = api is not None and (c := conditions(mapping(api.raw.get("status"))).get("Available")) is not None and c.status != "True"
    status = mapping(hpa.raw.get("status"))
    worked = bool(status.get("lastScaleTime")) or bool(objects(status.get("currentMetrics")))
    if absent or down:
        what = "does not exist" if absent else "is not available"
        proof = seen(world.scene.listing("APIService"), f"APIService/{name} {what}")
        yield made(
            world,
            Category.CONTROL_PLANE,
            f"APIService/{name}",
            f"{hpa.title} gets no metrics for {target.title}: APIService/{name} {what}.",
            marks=(Mark("mechanism named", (told, proof)), Mark("no change seen")),
            inferred=1 if worked or down else 2,
            change=ChangeRef(kind="Deletion") if absent and worked else None,
            caps=()
            if (worked or down) and signal_about(world, _SCALING)
            else (Cap("C", "that anything needs these metrics now is not shown"),),
            hits=_hits(hpa, target),
            since=active.changed,
        )
        return
    change = edited(hpa, "spec", "metrics")
    if active.reason in _OTHER_APIS or change is not None:
        yield made(
            world,
            Category.AUTOSCALING,
            hpa.title,
            f"{hpa.title} asks for a metric that nobody has: {active.reason}.",
            marks=(Mark("mechanism likely", (told,)), *_changed(world, hpa, change, "its metrics")),
            inferred=1 if change else 2,
            change=change,
            hits=_hits(hpa, target),
        )


def _unable(world: World, hpa: KubeObject, target: Workload, able: Condition) -> Iterator[Candidate]:
    """AbleToScale is False although the target is there."""
    told = seen(world.scene.listing("HorizontalPodAutoscaler"), f"{hpa.title}: AbleToScale False {able.reason}: {able.message[:240]}")
    change = edited(hpa, "spec")
    yield made(
        world,
        Category.AUTOSCALING,
        hpa.title,
        f"{hpa.title} cannot scale {target.title}: {able.reason}.",
        marks=(Mark("mechanism likely", (told,)), *_changed(world, hpa, change, "its spec")),
        inferred=1,
        change=change,
        caps=(Cap("C", "the condition does not say whose fault it is"),),
        hits=_hits(hpa, target),
        since=able.changed,
    )


def _held(world: World, hpa: KubeObject, target: Workload) -> Iterator[Candidate]:
    """`scaleUp.selectPolicy: Disabled`: it may only scale down."""
    up = mapping(mapping(mapping(hpa.raw.get("spec")).get("behavior")).get("scaleUp"))
    if word(up.get("selectPolicy")) != "Disabled":
        return
    change = edited(hpa, "spec", "behavior")
    pressed = demand(world, hpa, target)
    told = seen(world.scene.listing("HorizontalPodAutoscaler"), f"{hpa.title}: behavior.scaleUp.selectPolicy Disabled")
    yield made(
        world,
        Category.AUTOSCALING,
        hpa.title,
        f"{hpa.title} may not scale {target.title} up (behavior.scaleUp.selectPolicy Disabled).",
        marks=(Mark("mechanism named", (told,)), *_changed(world, hpa, change, "its behavior"), *pressed),
        inferred=0 if pressed and change else 1 if pressed else 2,
        counterfactual=bool(pressed),
        change=change,
        hits=_hits(hpa, target),
    )


def _overwritten(world: World, hpa: KubeObject, target: Workload) -> Iterator[Candidate]:
    """Somebody applies `replicas` over what the autoscaler wants: the manifest should not name them."""
    status = mapping(hpa.raw.get("status"))
    wanted, scaled = number(status.get("desiredReplicas")), when(status.get("lastScaleTime"))
    change = edited(target.obj, "spec", "replicas")
    if scaled is None or change is None or change.at is None or change.at < scaled or wanted <= target.desired:
        return
    told = seen(
        world.scene.listing(target.obj.kind),
        f"{target.title}: spec.replicas {target.desired}, written {clock(change.at)}; {hpa.title} scaled {clock(scaled)} and wants {wanted}",
    )
    yield made(
        world,
        Category.AUTOSCALING,
        target.title,
        f"{target.title} was applied with {target.desired} replicas over the {wanted} that {hpa.title} wants.",
        marks=(Mark("state fits", (told,)), saw_change(world.scene, target.obj, change, "replicas")),
        inferred=1,
        change=change,
        caps=(Cap("C", "the autoscaler may set it right at its next look"),),
        hits=_hits(hpa, target),
    )


# -- the upper limit ------------------------------------------------------------------------------------------------------------------------


def _at_most(world: World, hpa: KubeObject, target: Workload, state: Mapping[str, Condition], *, blind: bool) -> Iterator[Candidate]:
    """As many replicas as it may have, and more demand than they can take: too low a limit if it was lowered, else simply overload."""
    spec, status = mapping(hpa.raw.get("spec")), mapping(hpa.raw.get("status"))
    most = number(spec.get("maxReplicas"))
    if most <= 0 or target.desired < most or number(spec.get("minReplicas"), 1) > most:
        return
    limited = state.get("ScalingLimited")
    stopped = limited is not None and limited.status == "True" and limited.reason == "TooManyReplicas"
    pressed = demand(world, hpa, target)
    change = edited(hpa, "spec", "maxReplicas")
    if number(spec.get("minReplicas"), 1) == most and change is None and not stopped:
        return  # pinned to one number, and by nobody lately: that is what they want
    if not stopped and not pressed and change is None:
        return
    serving = ready(target)
    if target.desired and len(serving) * 2 < target.desired and world.scene.looked("Pod"):
        return  # most of its pods do not serve: more of them would not either
    told = seen(
        world.scene.listing("HorizontalPodAutoscaler"),
        f"{hpa.title}: {target.desired} of at most {most} replicas; desired {number(status.get('desiredReplicas'))}"
        + (f"; ScalingLimited True {limited.reason}" if limited is not None and stopped else ""),
    )
    category = Category.AUTOSCALING if change is not None else Category.OVERLOAD
    why = f"; its maximum was written {clock(change.at)}" if change is not None else ""
    shown = stopped or bool(pressed)
    yield made(
        world,
        category,
        hpa.title,
        f"{target.title} runs {target.desired} replicas, the most that {hpa.title} allows, and the demand asks for more{why}.",
        summary=f"{hpa.title} is at its maximum of {most} replicas{why}.",
        marks=(Mark("mechanism named" if stopped else "state fits", (told,)), *pressed, *_changed(world, hpa, change, "maxReplicas")),
        inferred=(0 if stopped and pressed else 1) if shown else 2,
        counterfactual=stopped and bool(pressed),
        change=change,
        caps=(Cap("B", "the autoscaler sees no metrics, so its own word is missing"),) if blind else (),
        hits=(*_hits(hpa, target), *(s.title for s in services_of(world, target))),
        since=limited.changed if limited is not None and stopped and change is None else None,
    )


def demand(world: World, hpa: KubeObject, target: Workload) -> tuple[Mark, ...]:
    """More than the target value, by the autoscaler's own metrics, or by series about it."""
    over = list(_over(hpa))
    if over:
        return (
            Mark(
                "metric shows it", (seen(world.scene.listing("HorizontalPodAutoscaler"), f"{hpa.title}: {listed(over)}", Channel.METRIC),)
            ),
        )
    vector = world.metric("series")
    names = {target.name, *labels(target).values()}
    for point in vector.points if vector is not None and not vector.because else ():
        name = series_name(point)
        about = {
            point.labels.get(k, "") for k in ("deployment", "service", "app", "workload", "job", "container", "horizontalpodautoscaler")
        }
        if (
            _SATURATION.search(name)
            and point.value >= (0.9 if point.value <= 1.5 else 90)
            and about & (names | {hpa.name})
            and vector is not None
        ):
            shown = f"{name}{{{listed([f'{k}={v}' for k, v in sorted(point.labels.items()) if k not in ('__name__', 'series')], 4)}}} = {point.value:g}"
            return (Mark("metric shows it", (measured(vector, shown),)),)
    return ()


_SCALING = r"hpa|autoscal|maxed|scal(?:e|ing)|saturat|utili[sz]ation|overload"
_SATURATION = re.compile(r"utili[sz]ation|saturation|usage_ratio|busy_ratio|cpu_ratio|load_ratio", re.IGNORECASE)


def _over(hpa: KubeObject) -> Iterator[str]:
    """Metrics whose current value is above their target."""
    targets = {_metric_key(m): m for m in objects(mapping(hpa.raw.get("spec")).get("metrics"))}
    for current in objects(mapping(hpa.raw.get("status")).get("currentMetrics")):
        wanted = targets.get(_metric_key(current))
        if wanted is None:
            continue
        part = _part(current)
        now, goal = mapping(mapping(current.get(part)).get("current")), mapping(mapping(wanted.get(part)).get("target"))
        value, most = number(now.get("averageUtilization")), number(goal.get("averageUtilization"))
        if most and value > most:
            yield f"{_metric_key(current)[1]} at {value} % of the request, target {most} %"


def _part(metric: Mapping[str, Any]) -> str:
    kind = word(metric.get("type"))
    return kind[:1].lower() + kind[1:]


def _metric_key(metric: Mapping[str, Any]) -> tuple[str, str]:
    source = mapping(metric.get(_part(metric)))
    return word(metric.get("type")), word(source.get("name")) or word(mapping(source.get("metric")).get("name"))
