"""Origins of pods that are not created: a quota, a limit, a webhook that does not answer, a policy that says no.

The API server's refusal is a text (of a ReplicaSet a condition, of the others only an Event), so it only says where to look: what is
answered stands on the numbers and settings of the objects that it names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import KubeObject
from ..case import Case
from ..changes import Introduced
from ..evidence import Channel, Observation, safe, seen
from ..findings import UncreatedFinding
from ..hypotheses import Candidate, Cap, Mark
from ..read import clock, count, latest, listed, mapping, number, objects, sentence, word, words
from ..scene import TEMPLATE_HASH, Revision, Scene
from .common import release_of
from .sizes import EPSILON, Size, amounts, container_size, defaults, pod_size, quota_size, shown
from .touched import Touch, last_touch

_EXCEEDED = re.compile(r"exceeded quota: ([a-z0-9][a-z0-9.-]{0,252}), requested: ([^;]{1,600}?), used: [^;]{1,600}?, limited: ")
_UNNAMED = re.compile(r"failed quota: ([a-z0-9][a-z0-9.-]{0,252}): must specify ([a-z0-9./, -]{1,300}?)(?: for: |;|$)")
_LIMIT = re.compile(r"(?:maximum|minimum) \S{1,60} usage per|limit to request ratio per")
_CALL_FAILED = re.compile(r"failed calling webhook \"([^\"\s]{1,253})\"")
_DENIED = re.compile(r"admission webhook \"([^\"\s]{1,253})\" denied the request")
_POLICY = re.compile(r"ValidatingAdmissionPolicy '([^'\s]{1,253})'(?: with binding '([^'\s]{1,253})')? denied request")
_POD_SECURITY = re.compile(r"violates PodSecurity \"([a-z]{1,20}):")
_NO_ANSWER = re.compile(
    r"no endpoints available|connection refused|no such host|service \"[^\"]{1,253}\" not found|timeout|deadline exceeded|no route to host|EOF",
    re.IGNORECASE,
)
_WEBHOOKS = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
_ENFORCE = "pod-security.kubernetes.io/enforce"
# Objects that are applied together get their times in any order.
_TOGETHER = timedelta(seconds=5)


def created_origins(case: Case, f: UncreatedFinding) -> tuple[Candidate, ...]:
    """What refuses the pods: by the words of the refusal, and by the state of what they name. Without words, by state alone."""
    readers: tuple[Callable[[Case, UncreatedFinding], Iterator[Candidate]], ...] = (
        _quota,
        _unnamed,
        _limits,
        _webhook_down,
        _webhook_says_no,
        _policy_says_no,
        _pod_security,
    )
    for reader in readers:
        if found := tuple(reader(case, f)):
            return tuple(replace(c, hits=(case.title,)) for c in found)
    return ()


# -- quotas -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lack:
    """A quota that has no room: per resource what one more pod needs, what is used and the bound."""

    quota: KubeObject
    short: tuple[tuple[str, float, float, float], ...]

    @property
    def told(self) -> str:
        return "; ".join(
            f"{r}: used {shown(r, used)} of {shown(r, hard)}, one more pod needs {shown(r, need)}" for r, need, used, hard in self.short[:4]
        )


def _quota(case: Case, f: UncreatedFinding) -> Iterator[Candidate]:
    match = _EXCEEDED.search(f.message)
    if f.message and match is None:
        return
    name = match.group(1) if match else ""
    asked = amounts(dict(p.split("=", 1) for p in match.group(2).split(",") if "=" in p)) if match else {}
    lack = _lack(case, f.revision, name, asked)
    if lack is None:
        if name and not case.scene.looked("ResourceQuota"):
            yield _unseen_quota(case, f, name)
        elif name and any(q.name == name for q in case.scene.all("ResourceQuota")):
            yield _had_no_room(case, f, name)
        return
    touch = last_touch(lack.quota, ("f:spec", "f:hard"))
    found = _raised(case, f, lack)
    edited = _since(case, f, touch, found)
    if found is not None and not edited:
        yield _release_outgrew(case, f, lack, found)
        yield replace(
            _full(case, f, lack, None), caps=(Cap("C", "a release raised what its pods ask for, and the quota did not change"),), inferred=1
        )
        return
    yield _full(case, f, lack, touch if edited else None)


def _lack(case: Case, revision: Revision, name: str, asked: Size) -> _Lack | None:
    """The quota without room for one more pod: the one that is named, else the first without scopes that computing finds."""
    need = quota_size(revision.pod_spec, defaults(case.scene)) | asked
    for obj in case.scene.all("ResourceQuota"):
        spec, status = mapping(obj.raw.get("spec")), mapping(obj.raw.get("status"))
        if (name and obj.name != name) or (not name and (spec.get("scopes") or spec.get("scopeSelector"))):
            continue
        hard = amounts(spec.get("hard")) or amounts(status.get("hard"))
        used = amounts(status.get("used"))
        short = tuple(
            (r, need[r], used.get(r, 0.0), bound)
            for r, bound in sorted(hard.items())
            if need.get(r, 0.0) > 0 and used.get(r, 0.0) + need[r] > bound + EPSILON
        )
        if short:
            return _Lack(obj, short)
    return None


def _since(case: Case, f: UncreatedFinding, touch: Touch | None, found: Introduced | None) -> bool:
    """Whether a bound was written after what it now refuses had been let in: after the youngest pod, or the release that asks for more."""
    if touch is None or (f.onset is not None and touch.at > f.onset + timedelta(seconds=60)):
        return False
    got_in = latest(*(p.created for p in case.workload.pods))
    began = f.revision.released if found is not None else got_in or f.revision.released
    return began is not None and touch.at > began + _TOGETHER and not (touch.created and got_in is None)


def _raised(case: Case, f: UncreatedFinding, lack: _Lack) -> Introduced | None:
    """The release since which the workload as a whole does not fit, though it would with what it asked for before."""
    given = defaults(case.scene)
    resources = tuple(r for r, _, _, _ in lack.short)

    def sizes(template: Mapping[str, Any]) -> tuple[float, ...]:
        size = quota_size(mapping(template.get("spec")), given)
        return tuple(size.get(r, 0.0) for r in resources)

    found = brought_in(case, f.revision, sizes)
    if found is None or found.previous is None:
        return None
    now, before = sizes(f.revision.template), sizes(found.previous.template)
    wanted = max(case.workload.desired, f.revision.desired, 1)
    mine: Size = {}
    for pod in case.workload.pods:
        for r, v in quota_size(pod.spec, given).items():
            mine[r] = mine.get(r, 0.0) + v
    for i, (r, _, used, hard) in enumerate(lack.short):
        others = max(0.0, used - mine.get(r, 0.0))
        if now[i] > before[i] and others + wanted * now[i] > hard + EPSILON >= others + wanted * before[i]:
            return found
    return None


def brought_in(case: Case, revision: Revision, value: Callable[[Mapping[str, Any]], object]) -> Introduced | None:
    """The release that gave a setting its present value, if pods of that release never were all there.

    (Some of them may well be: the first pods of a release still found room.)
    """
    if revision is not case.workload.current or case.history.lasted or case.workload.completed_once:
        return None
    found = case.history.introduced(value)
    return found if found is not None and found.previous is not None else None


def _full(case: Case, f: UncreatedFinding, lack: _Lack, touch: Touch | None) -> Candidate:
    scene, title = case.scene, safe(lack.quota.title, 250)
    proof = seen(scene.listing("ResourceQuota"), f"{lack.quota.title}: {lack.told}")
    marks = [Mark("mechanism named", (*f.seen, proof))]
    if touch is not None:
        marks.append(
            Mark("edited before it began", (seen(scene.listing("ResourceQuota"), f"{lack.quota.title} {touch.told}", Channel.CHANGE),))
        )
    else:
        marks.append(Mark("no change seen"))
    lately = f"; it was {touch.told}" if touch else ""
    return Candidate(
        Category.QUOTA,
        title,
        f"{title} has no room for another pod of {case.title} ({lack.told}){lately}.",
        f"{title} has no room for another pod of {case.name}: {lack.told}.",
        touch.change if touch else ChangeRef(kind="None"),
        tuple(marks),
        inferred=0 if f.message else 1,
        counterfactual=True,
        timing=touch is not None,
        since=touch.at if touch else None,
    )


def _release_outgrew(case: Case, f: UncreatedFinding, lack: _Lack, found: Introduced) -> Candidate:
    assert found.previous is not None
    given = defaults(case.scene)
    before, now = (quota_size(r.pod_spec, given) for r in (found.previous, f.revision))
    told = "; ".join(f"{r}: {shown(r, before.get(r, 0.0))} → {shown(r, now.get(r, 0.0))}" for r, _, _, _ in lack.short[:4])
    release = release_of(case, found.revision)
    proof = seen(case.scene.listing("ResourceQuota"), f"{lack.quota.title}: {lack.told}")
    return Candidate(
        Category.QUOTA,
        case.title,
        f"{release} raised what each pod asks for ({told}), and {lack.quota.title} has no room for that ({lack.told}).",
        f"{release} asks for more than {lack.quota.title} has room for ({told}).",
        case.release(found.revision),
        (Mark("mechanism named", (*f.seen, proof)), Mark("introduced by this release", (case.saw_release(found, told),))),
        inferred=0 if f.message else 1,
        counterfactual=True,
        timing=True,
    )


def _unseen_quota(case: Case, f: UncreatedFinding, name: str) -> Candidate:
    title = safe(f"ResourceQuota/{name}", 250)
    statement = f"{title} has no room for another pod of {case.title}, says the API server."
    cap = Cap("B", "ResourceQuota objects were not looked at; the refusal is the only evidence")
    return Candidate(
        Category.QUOTA,
        title,
        statement,
        statement,
        ChangeRef(kind="None"),
        (Mark("mechanism likely", f.seen), Mark("no change seen")),
        caps=(cap,),
    )


def _had_no_room(case: Case, f: UncreatedFinding, name: str) -> Candidate:
    """The refusal is older than the numbers: there is room now, and the controller will try again."""
    title = safe(f"ResourceQuota/{name}", 250)
    statement = f"{title} had no room for another pod of {case.title} when the controller last tried; by its numbers it has now."
    return Candidate(
        Category.QUOTA,
        title,
        statement,
        statement,
        ChangeRef(kind="None"),
        (Mark("state fits", f.seen), Mark("no change seen")),
        inferred=2,
        caps=(Cap("C", "the quota's present numbers leave room for the pod"),),
    )


def _unnamed(case: Case, f: UncreatedFinding) -> Iterator[Candidate]:
    """A quota on what a pod must then name, and this one does not."""
    match = _UNNAMED.search(f.message)
    if match is None:
        return
    title = safe(f"ResourceQuota/{match.group(1)}", 250)
    resources = tuple(r.strip() for r in match.group(2).split(",") if r.strip())
    given = defaults(case.scene)

    def has(template: Mapping[str, Any]) -> tuple[bool, ...]:
        size = quota_size(mapping(template.get("spec")), given)
        return tuple(r in size for r in resources)

    found = brought_in(case, f.revision, has)
    quota = next((q for q in case.scene.all("ResourceQuota") if q.title == title), None)
    touch = last_touch(quota, ("f:spec", "f:hard")) if quota else None
    what = listed(resources)
    caps = () if quota else (Cap("B", f"{title} was not looked at"),)
    words_ = f"{title} counts {what}, which pods of {case.title} do not name"
    base = Candidate(
        Category.QUOTA, title, f"{words_}.", f"{words_}.", ChangeRef(kind="None"), (Mark("mechanism named", f.seen),), inferred=0, caps=caps
    )
    if found is not None and found.previous is not None and all(has(found.previous.template)):
        statement = f"{release_of(case, found.revision)} no longer names {what}, which {title} counts."
        mark = Mark("introduced by this release", (case.saw_release(found, f"{what} named → not named"),))
        yield replace(
            base,
            object=case.title,
            statement=statement,
            summary=statement,
            change=case.release(found.revision),
            marks=(*base.marks, mark),
            counterfactual=True,
            timing=True,
        )
        return
    referrer = replace(base, object=case.title, marks=(Mark("mechanism likely", f.seen), Mark("no change seen")), inferred=1)
    if touch is not None and _since(case, f, touch, None):
        proof = seen(case.scene.listing("ResourceQuota"), f"{title} {touch.told}", Channel.CHANGE)
        yield replace(
            base,
            change=touch.change,
            marks=(*base.marks, Mark("edited before it began", (proof,))),
            timing=True,
            since=touch.at,
            counterfactual=True,
        )
        yield replace(referrer, caps=(*caps, Cap("C", "the template did not change, as far as revisions tell")))
        return
    ran = case.workload.completed_once or case.history.lasted or any(p.ready for p in case.workload.pods)
    if ran:
        yield replace(base, marks=(*base.marks, Mark("no change seen")), inferred=1)
    else:
        yield replace(referrer, counterfactual=True)
        yield replace(
            base, marks=(*base.marks, Mark("no change seen")), caps=(*caps, Cap("C", "the quota did not change, as far as it tells"))
        )


# -- limits -------------------------------------------------------------------------------------------------------------------------


def _limits(case: Case, f: UncreatedFinding) -> Iterator[Candidate]:
    """A LimitRange that what a container asks for does not keep."""
    if f.message and not _LIMIT.search(f.message):
        return
    for obj in case.scene.all("LimitRange"):
        broken = breaches(obj, f.revision.pod_spec, defaults(case.scene))
        if broken:
            yield from _breach(case, f, obj, broken)
            return
    if f.message:
        named = case.scene.all("LimitRange")
        if len(named) == 1 or not case.scene.looked("LimitRange"):
            title = safe(named[0].title, 250) if named else case.title
            statement = f"A LimitRange refuses what pods of {case.title} ask for: {safe(f.message, 300)}"
            yield Candidate(
                Category.QUOTA,
                title,
                statement,
                statement,
                ChangeRef(kind="None"),
                (Mark("mechanism likely", f.seen), Mark("no change seen")),
                inferred=2,
            )


def breaches(obj: KubeObject, spec: Mapping[str, Any], given: tuple[Size, Size]) -> tuple[str, ...]:
    """How a pod's containers, and the pod as a whole, break the rules of a LimitRange; each in words with the numbers."""
    found: list[str] = []
    for rule in objects(mapping(obj.raw.get("spec")).get("limits")):
        kind = word(rule.get("type"))
        if kind == "Container":
            every = (*objects(spec.get("initContainers")), *objects(spec.get("containers")))
            sizes = [(f"container {word(c.get('name'))}", container_size(c, given)) for c in every]
        elif kind == "Pod":
            sizes = [("the pod", pod_size(spec, given))]
        else:
            continue
        for who, (requests, limits) in sizes:
            found += [f"{who}: {text}" for text in _broken(rule, requests, limits)]
    return tuple(found)


def _broken(rule: Mapping[str, Any], requests: Size, limits: Size) -> Iterator[str]:
    for r, most in sorted(amounts(rule.get("max")).items()):
        asked = limits.get(r, requests.get(r))
        if asked is not None and asked > most + EPSILON:
            yield f"{r} limit {shown(r, asked)} is above the maximum of {shown(r, most)}"
    for r, least in sorted(amounts(rule.get("min")).items()):
        asked = requests.get(r)
        if asked is not None and asked < least - EPSILON:
            yield f"{r} request {shown(r, asked)} is below the minimum of {shown(r, least)}"
    for r, ratio in sorted(amounts(rule.get("maxLimitRequestRatio")).items()):
        if r in limits and requests.get(r) and limits[r] / requests[r] > ratio + EPSILON:
            yield f"{r} limit is {limits[r] / requests[r]:g} times the request, at most {ratio:g} are allowed"


def _breach(case: Case, f: UncreatedFinding, obj: KubeObject, broken: tuple[str, ...]) -> Iterator[Candidate]:
    scene, given, title = case.scene, defaults(case.scene), safe(obj.title, 250)
    told = safe("; ".join(broken[:3]), 500)
    proof = seen(scene.listing("LimitRange"), f"{obj.title}: {told}")
    found = brought_in(case, f.revision, lambda t: breaches(obj, mapping(t.get("spec")), given))
    touch = last_touch(obj, ("f:spec", "f:limits"))
    if found is not None and (found.previous is None or breaches(obj, found.previous.pod_spec, given)):
        found = None
    edited = _since(case, f, touch, found)
    inferred = 0 if f.message else 1
    named = Mark("mechanism named", (*f.seen, proof))
    if found is not None and not edited:
        release = release_of(case, found.revision)
        statement = f"{release} asks for what {title} does not allow ({told})."
        mark = Mark("introduced by this release", (case.saw_release(found, told),))
        yield Candidate(
            Category.QUOTA,
            case.title,
            statement,
            statement,
            case.release(found.revision),
            (named, mark),
            inferred=inferred,
            counterfactual=True,
            timing=True,
        )
        return
    statement = f"{title} does not allow what pods of {case.title} ask for ({told})."
    if edited and touch is not None:
        mark = Mark("edited before it began", (seen(scene.listing("LimitRange"), f"{obj.title} {touch.told}", Channel.CHANGE),))
        yield Candidate(
            Category.QUOTA,
            title,
            statement,
            statement,
            touch.change,
            (named, mark),
            inferred=inferred,
            counterfactual=True,
            timing=True,
            since=touch.at,
        )
        return
    cap = Cap("B", "nothing shows which of the two changed: the limits, or what is asked for")
    plain = (named, Mark("no change seen"))
    yield Candidate(Category.QUOTA, title, statement, statement, ChangeRef(kind="None"), plain, inferred=inferred, caps=(cap,))
    yield Candidate(
        Category.QUOTA,
        case.title,
        statement,
        statement,
        ChangeRef(kind="None"),
        (Mark("mechanism likely", f.seen), Mark("no change seen")),
        caps=(cap,),
    )


# -- webhooks -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hook:
    """One webhook of a configuration, and the Service that answers it (no name: a URL)."""

    config: KubeObject
    raw: Mapping[str, Any]
    namespace: str
    service: str
    port: int

    @property
    def title(self) -> str:
        return safe(self.config.title, 250)

    @property
    def blocks(self) -> bool:
        """Whether a call that fails refuses the request."""
        return word(self.raw.get("failurePolicy")) != "Ignore"


def hooks(scene: Scene) -> tuple[Hook, ...]:
    """Every admission webhook of the cluster, by configuration."""
    found: list[Hook] = []
    for kind in _WEBHOOKS:
        for obj in scene.all(kind):
            for raw in objects(obj.raw.get("webhooks")):
                service = mapping(mapping(raw.get("clientConfig")).get("service"))
                found.append(Hook(obj, raw, word(service.get("namespace")), word(service.get("name")), number(service.get("port"), 443)))
    return tuple(found)


def _webhook_down(case: Case, f: UncreatedFinding) -> Iterator[Candidate]:
    match = _CALL_FAILED.search(f.message)
    if match is None:
        return
    name, scene = match.group(1), case.scene
    hook = next((h for h in hooks(scene) if word(h.raw.get("name")) == name), None)
    if hook is None:
        if not all(scene.looked(k) for k in _WEBHOOKS):
            yield Candidate(
                Category.ADMISSION,
                safe(f"ValidatingWebhookConfiguration/{name}", 250),
                f"The webhook {safe(name, 200)} cannot be called, so no pod of {case.title} can be created.",
                change=ChangeRef(kind="None"),
                marks=(Mark("mechanism likely", f.seen), Mark("no change seen")),
                inferred=2,
                caps=(Cap("C", "webhook configurations were not looked at, so its configuration's name is a guess"),),
            )
        return  # a complete list without it: the webhook is gone, and the controller will try again
    if hook.blocks:
        yield from dead_hook(scene, hook, case.title, f.seen, f.message)


def dead_hook(scene: Scene, hook: Hook, victim: str, told: tuple[Observation, ...], message: str = "") -> Iterator[Candidate]:
    """What makes a webhook not answer: its backend, the Service, or the configuration that names them."""
    name, at = safe(word(hook.raw.get("name")), 200), f"Service/{hook.namespace}/{hook.service}"
    if not hook.service:
        yield _config(scene, hook, told, f"The webhook {name} of {hook.title} is called by URL and does not answer", victim, inferred=1)
        return
    other = scene.beside(hook.namespace)
    if other is None or not other.looked("Service"):
        cap = Cap("B", f"namespace {safe(hook.namespace, 63)}, where its backend lives, was not looked at")
        yield _config(scene, hook, told, f"The webhook {name} of {hook.title} cannot be called ({at})", victim, inferred=1, caps=(cap,))
        return
    service = next((s for s in other.all("Service") if s.name == hook.service), None)
    if service is None:
        yield _config(scene, hook, told, f"{hook.title} calls {at}, which does not exist", victim, inferred=0)
        yield Candidate(
            Category.ADMISSION,
            spelled(scene, "Service", hook.namespace, hook.service),
            f"{at} does not exist; {hook.title} calls it before it lets pods of {victim} in.",
            change=ChangeRef(kind="Deletion"),
            marks=(Mark("mechanism likely", told), Mark("no change seen")),
            caps=(Cap("C", "nothing shows that the Service ever existed"),),
        )
        return
    ready, backends = _behind(other, service)
    if not ready:
        yield _backend(scene, other, hook, service, backends, told, victim, message)
        return
    ports = [number(p.get("port")) for p in objects(mapping(service.raw.get("spec")).get("ports"))]
    if ports and hook.port not in ports:
        shown_ports = listed([str(p) for p in ports])
        yield _config(
            scene,
            hook,
            told,
            f"{hook.title} calls {at} on port {hook.port}, which serves {shown_ports}",
            victim,
            inferred=0,
            counterfactual=True,
        )
        return
    if not message:
        return
    why = "does not accept its certificate" if "x509" in message or "tls:" in message.lower() else "gets no good answer"
    statement = f"The API server {why} from {at}, whose pods are Ready, for {hook.title}"
    yield _config(
        scene,
        hook,
        told,
        statement,
        victim,
        inferred=1,
        caps=(Cap("C", "its backend is Ready, and nothing shows what is wrong in between"),),
    )


def _behind(other: Scene, service: KubeObject) -> tuple[int, list[KubeObject]]:
    """How many ready pods a Service selects, and the workloads whose pods it is meant for."""
    selector = words(mapping(service.raw.get("spec")).get("selector"))
    if not selector:
        slices = [s for s in other.all("EndpointSlice") if s.labels.get("kubernetes.io/service-name") == service.name]
        ready = sum(mapping(e.get("conditions")).get("ready") is not False for s in slices for e in objects(s.raw.get("endpoints")))
        return ready, []
    ready = sum(p.ready and not p.terminating for p in other.pods if selector.items() <= p.labels.items())
    found = [
        o
        for kind in ("Deployment", "StatefulSet", "DaemonSet")
        for o in other.all(kind)
        if selector.items() <= words(mapping(mapping(mapping(o.raw.get("spec")).get("template")).get("metadata")).get("labels")).items()
    ]
    return ready, found


def _backend(
    scene: Scene,
    other: Scene,
    hook: Hook,
    service: KubeObject,
    backends: list[KubeObject],
    told: tuple[Observation, ...],
    victim: str,
    message: str,
) -> Candidate:
    at = f"Service/{hook.namespace}/{hook.service}"
    if not backends:
        return _config(
            scene, hook, told, f"{hook.title} calls {at}, behind which there is no workload and no ready pod", victim, inferred=0
        )
    w = other.workload(backends[0])
    numbers = f"wants {w.desired}, ready {w.ready_pods}"
    title = spelled(scene, w.kind, hook.namespace, w.name)
    proof = seen(other.listing(w.kind), f"{w.title} in {hook.namespace}: {numbers}; {service.title} selects it and has no ready endpoint")
    config = seen(
        scene.listing(hook.config.kind), f"{hook.config.title}: webhook {word(hook.raw.get('name'))} calls {at}, failurePolicy Fail"
    )
    statement = f"{title} ({numbers}) is behind the webhook of {hook.title}, without whose answer no pod of {victim} can be created."
    return Candidate(
        Category.ADMISSION,
        title,
        statement,
        f"The webhook of {hook.title} does not answer: {title} has no ready pod.",
        ChangeRef(kind="None"),
        (Mark("mechanism named", (*told, proof, config)), Mark("no change seen")),
        inferred=0 if _NO_ANSWER.search(message) else 1,
        counterfactual=bool(_NO_ANSWER.search(message)),
    )


def _config(
    scene: Scene,
    hook: Hook,
    told: tuple[Observation, ...],
    what: str,
    victim: str,
    *,
    inferred: int,
    counterfactual: bool = False,
    caps: tuple[Cap, ...] = (),
) -> Candidate:
    """The webhook's configuration as the object: it names what does not answer, and refuses what it cannot ask about."""
    touch = last_touch(hook.config, ("f:webhooks",))
    lately = touch is not None and not touch.created
    proof = seen(scene.listing(hook.config.kind), f"{hook.config.title}: {what}" + (f"; {touch.told}" if touch else ""))
    statement = f"{what}; without its answer no pod of {victim} can be created."
    return Candidate(
        Category.ADMISSION,
        hook.title,
        statement,
        statement,
        touch.change if touch and lately else ChangeRef(kind="None"),
        (Mark("mechanism named", (*told, proof)), Mark("no change seen")),
        inferred=inferred,
        counterfactual=counterfactual,
        caps=caps,
    )


def spelled(scene: Scene, kind: str, namespace: str, name: str) -> str:
    """`Kind/name`, with the namespace between where it is not the Incident's."""
    return safe(f"{kind}/{name}" if namespace == scene.snapshot.namespace else f"{kind}/{namespace}/{name}", 250)


# -- policies -----------------------------------------------------------------------------------------------------------------------


def _webhook_says_no(case: Case, f: UncreatedFinding) -> Iterator[Candidate]:
    match = _DENIED.search(f.message)
    if match is None:
        return
    name = match.group(1)
    hook = next((h for h in hooks(case.scene) if word(h.raw.get("name")) == name), None)
    if hook is None and all(case.scene.looked(k) for k in _WEBHOOKS):
        return
    yield from _refused(case, f, hook.title if hook else safe(f"ValidatingWebhookConfiguration/{name}", 250), hook.config if hook else None)


def _policy_says_no(case: Case, f: UncreatedFinding) -> Iterator[Candidate]:
    match = _POLICY.search(f.message)
    if match is None:
        return
    title = safe(f"ValidatingAdmissionPolicy/{match.group(1)}", 250)
    policy = next((p for p in case.scene.all("ValidatingAdmissionPolicy") if p.name == match.group(1)), None)
    if policy is None and case.scene.looked("ValidatingAdmissionPolicy"):
        return
    yield from _refused(case, f, title, policy)


def _refused(case: Case, f: UncreatedFinding, title: str, policy: KubeObject | None) -> Iterator[Candidate]:
    """A denial: by the release that brought in what is minded, or by a policy that is younger than the pods that got in."""
    touch = last_touch(policy, ("f:spec",), ("f:webhooks",)) if policy else None
    found = brought_in(case, f.revision, _asked)
    if found is not None and any(case.history.proven(r) for r in case.history.chain if _asked(r.template) == _asked(f.revision.template)):
        found = None  # pods just like these were let in, so it is the policy that changed
    got_in = latest(*(p.created for p in case.workload.pods if p.ready))
    younger = touch is not None and got_in is not None and touch.at > got_in + _TOGETHER
    caps = () if policy else (Cap("B", f"{title} was not looked at"),)
    denial = safe(f.message, 300)
    blamed = _policy_candidate(case, f, title, touch if younger else None, caps)
    if found is None or found.previous is None or younger:
        yield blamed
        return
    release = release_of(case, found.revision)
    statement = f"{title} refuses pods of {release}: {denial}"
    yield Candidate(
        Category.ADMISSION,
        case.title,
        statement,
        f"{release} is refused by {title}.",
        case.release(found.revision),
        (
            Mark("mechanism named", f.seen),
            Mark("introduced by this release", (case.saw_release(found, "pods of the one before were let in"),)),
        ),
        inferred=1,
        timing=True,
        caps=caps,
    )
    yield replace(blamed, caps=(*caps, Cap("C", "the template changed, and nothing shows that the policy did")), inferred=1)


def _asked(template: Mapping[str, Any]) -> object:
    """What a policy about pods can mind; a restart alone changes none of it."""
    labels = {k: v for k, v in words(mapping(template.get("metadata")).get("labels")).items() if k != TEMPLATE_HASH}
    return labels, mapping(template.get("spec"))


def _policy_candidate(case: Case, f: UncreatedFinding, title: str, touch: Touch | None, caps: tuple[Cap, ...]) -> Candidate:
    statement = f"{title} refuses pods of {case.title}: {safe(f.message, 300)}"
    kind = title.partition("/")[0]
    change = Mark("no change seen")
    if touch is not None:
        change = Mark("edited before it began", (seen(case.scene.listing(kind), f"{title} {touch.told}", Channel.CHANGE),))
    return Candidate(
        Category.ADMISSION,
        title,
        statement,
        f"{title} refuses pods of {case.name}.",
        touch.change if touch else ChangeRef(kind="None"),
        (Mark("mechanism named", f.seen), change),
        inferred=0 if f.proved else 1,
        timing=touch is not None,
        caps=caps,
        since=touch.at if touch else None,
    )


def _pod_security(case: Case, f: UncreatedFinding) -> Iterator[Candidate]:
    """The namespace's own level: its label was raised, or a release began to ask for what it does not allow."""
    if not _POD_SECURITY.search(f.message):
        return
    scene = case.scene
    title = safe(f"Namespace/{scene.snapshot.namespace}", 250)
    namespace = next((n for n in scene.all("Namespace") if n.name == scene.snapshot.namespace), None)
    touch = last_touch(namespace, ("f:metadata", "f:labels", f"f:{_ENFORCE}")) if namespace else None
    found = brought_in(case, f.revision, _privileges)
    released = f.revision.released
    got_in: datetime | None = latest(*(p.created for p in case.workload.pods if p.ready))
    raised = (
        touch is not None
        and not touch.created
        and (got_in is None or touch.at > got_in)
        and (released is None or touch.at > released or found is None)
    )
    caps = () if namespace else (Cap("B", f"{title} was not looked at"),)
    blamed = _policy_candidate(case, f, title, touch if raised else None, caps)
    if found is None or found.previous is None or (raised and touch is not None and released is not None and touch.at > released):
        yield blamed
        return
    release = release_of(case, found.revision)
    statement = f"{release} asks for more privileges than namespace {safe(scene.snapshot.namespace, 63)} allows: {safe(f.message, 300)}"
    level = namespace.labels.get(_ENFORCE, "none") if namespace else "unknown"
    shown_ = f"host access, security contexts or volumes changed; the namespace enforces {level}" + (f" ({touch.told})" if touch else "")
    yield Candidate(
        Category.ADMISSION,
        case.title,
        sentence(statement),
        f"{release} asks for more privileges than its namespace allows.",
        case.release(found.revision),
        (Mark("mechanism named", f.seen), Mark("introduced by this release", (case.saw_release(found, shown_),))),
        inferred=0,
        counterfactual=case.history.proven(found.previous),
        timing=True,
        caps=caps,
    )
    yield replace(
        blamed, caps=(*caps, Cap("C", "a release changed privileges, and nothing shows that the namespace's level did")), inferred=1
    )


def _privileges(template: Mapping[str, Any]) -> object:
    """The part of a template that Pod Security looks at."""
    spec = mapping(template.get("spec"))
    every = (*objects(spec.get("initContainers")), *objects(spec.get("containers")))
    return (
        [spec.get(k) for k in ("hostNetwork", "hostPID", "hostIPC", "securityContext")],
        [c.get("securityContext") for c in every],
        [number(p.get("hostPort")) for c in every for p in objects(c.get("ports"))],
        [sorted(k for k in v if k != "name") for v in objects(spec.get("volumes"))],
    )


def missing_pods(case: Case) -> str:
    """How many pods are missing that nothing in a status or an Event explains; empty when none is."""
    w = case.workload
    due = w.current.desired if w.current and (w.runs_once or w.kind in ("Deployment", "ReplicaSet")) else w.desired
    have = len(w.current.live) if w.current and (w.runs_once or w.kind in ("Deployment", "ReplicaSet")) else len(w.pods)
    return f"{have} of {count(due, 'pod')} exist, says {w.title} {clock(case.scene.snapshot.at)}" if have < due else ""
