"""Rights that a program's account lacks, by what it logs and by what the RBAC objects grant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import KubeObject
from ..evidence import Observation, seen
from ..graph import account_of
from ..hypotheses import Candidate, Cap, Mark
from ..read import listed, mapping, objects, word
from ..scene import Workload
from ..specialists.logs import Clue, Sign
from ..views import obj_created
from ..world import World
from .common import alike, edited, found, introduced, made, pod_spec, ready, released, resembling, saw_change, touched, unread

_DENIED = re.compile(
    r"User \\?\"system:serviceaccount:(?P<ns>[a-z0-9.-]{1,63}):(?P<sa>[a-z0-9.-]{1,253})\\?\" cannot (?P<verb>[a-z*]{1,40}) "
    r"(?:resource \\?\"(?P<resource>[a-z0-9./-]{1,200})\\?\"(?: in API group \\?\"(?P<group>[a-z0-9.-]{0,253})\\?\")?|path \\?\"(?P<path>[^\"\\]{1,200})\\?\")"
)
_IN = re.compile(r"in the namespace \\?\"(?P<in>[a-z0-9.-]{1,63})\\?\"")
_TOKEN = re.compile(r"/var/run/secrets/kubernetes\.io/serviceaccount|open .{0,40}serviceaccount/token")
_KINDS = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


@dataclass(frozen=True)
class Right:
    """What was asked for. `namespace` is empty for what is asked at the scope of the cluster."""

    verb: str
    group: str
    resource: str
    namespace: str

    @property
    def words(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else " in the whole cluster"
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}{where}"


def access(world: World) -> Iterator[Candidate]:
    """Each denial that a log shows, checked against roles and bindings: what lacks the right, and where it would stand."""
    told: set[tuple[str, str, Right]] = set()
    for w in world.workloads:
        yield from _without_token(world, w)
        for clue in world.clues(w.pods):
            if clue.sign is not Sign.FORBIDDEN or (denial := parse(clue.seen.text)) is None:
                continue
            namespace, account, right = denial
            if (namespace, account, right) not in told:
                told.add((namespace, account, right))
                yield from _denied(world, w, clue, namespace, account, right)


def _without_token(world: World, w: Workload) -> Iterator[Candidate]:
    """A program that looks for its account's token, which its pods or its account say not to mount."""
    said = [c for c in world.clues(w.pods) if _TOKEN.search(f"{c.subject} {c.seen.text}")]
    if not said:
        return
    own = pod_spec(w).get("automountServiceAccountToken")
    account = found(world.scene, "ServiceAccount", account_of(pod_spec(w)))
    base = (Mark("log says so", (said[0].seen,)),)
    if own is False:
        hit = introduced(world, w, lambda t: mapping(t.get("spec")).get("automountServiceAccountToken"))
        change, mark = released(*hit, "automountServiceAccountToken changed") if hit is not None else (None, Mark("no change seen"))
        told = _saw(world, w.obj.kind, f"{w.title}: automountServiceAccountToken false")
        yield made(
            world,
            Category.ACCESS_DENIED,
            w.title,
            f"{w.title} looks for its account's token, and its template says not to mount one (automountServiceAccountToken false).",
            marks=(*base, Mark("mechanism named", (told,)), mark),
            inferred=0,
            counterfactual=True,
            change=change,
            hits=(w.title,),
        )
    elif own is None and account is not None and account.raw.get("automountServiceAccountToken") is False:
        edit = edited(account, "automountServiceAccountToken")
        told = _saw(world, "ServiceAccount", f"{account.title}: automountServiceAccountToken false")
        yield made(
            world,
            Category.ACCESS_DENIED,
            account.title,
            f"{w.title} looks for its account's token, and {account.title} says not to mount one (automountServiceAccountToken false).",
            marks=(*base, Mark("mechanism named", (told,)), *_changed(world, account, edit, "automountServiceAccountToken")),
            inferred=0 if edit is not None else 1,
            counterfactual=True,
            change=edit,
            hits=(w.title, account.title),
        )


def parse(text: str) -> tuple[str, str, Right] | None:
    """Namespace and name of the account, and the right that it lacks, from the API server's own words; None where they are not."""
    match = _DENIED.search(text[:2000])
    if match is None or not match["resource"]:
        return None
    where = _IN.search(text[:2000])
    return match["ns"], match["sa"], Right(match["verb"], match["group"] or "", match["resource"], where["in"] if where else "")


# -- what the objects grant -----------------------------------------------------------------------------------------------------------------


def grants(rules: object, right: Right) -> bool:
    """Whether these rules grant the right."""
    return any(
        _has(r.get("verbs"), right.verb) and _has(r.get("apiGroups"), right.group) and _names(r.get("resources"), right.resource)
        and not r.get("resourceNames")
        for r in objects(rules)
    )  # fmt: skip


def _has(values: object, wanted: str) -> bool:
    return isinstance(values, list) and (wanted in values or "*" in values)


def _names(values: object, resource: str) -> bool:
    sub = resource.partition("/")[2]
    return _has(values, resource) or (bool(sub) and isinstance(values, list) and f"*/{sub}" in values)


def _bound_to(binding: KubeObject, namespace: str, account: str) -> bool:
    """Whether a binding's subjects are that account, by name or by one of its groups."""
    groups = {"system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"}
    user = f"system:serviceaccount:{namespace}:{account}"
    for s in objects(binding.raw.get("subjects")):
        kind, name = word(s.get("kind")), word(s.get("name"))
        if kind == "ServiceAccount" and name == account and (word(s.get("namespace")) or binding.namespace) == namespace:
            return True
        if (kind == "Group" and name in groups) or (kind == "User" and name == user):
            return True
    return False


def _bindings(world: World, right: Right) -> list[KubeObject]:
    """Bindings that count for the right: those of its namespace (if it is ours), and the cluster's."""
    mine = world.scene.all("RoleBinding") if right.namespace == world.scene.snapshot.namespace else ()
    return [*mine, *world.scene.all("ClusterRoleBinding")]


def _role(world: World, binding: KubeObject) -> tuple[str, KubeObject | None]:
    """Title of the role that a binding refers to, and the role, if it is there."""
    ref = mapping(binding.raw.get("roleRef"))
    kind, name = word(ref.get("kind")), word(ref.get("name"))
    return f"{kind}/{name}", found(world.scene, kind, name) if kind in ("Role", "ClusterRole") else None


def granted(world: World, namespace: str, account: str, right: Right) -> bool:
    """Whether any binding that the snapshot holds gives the account this right."""
    for binding in _bindings(world, right):
        if _bound_to(binding, namespace, account):
            _, role = _role(world, binding)
            if role is not None and grants(role.raw.get("rules"), right):
                return True
    return False


# -- who is at fault ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Denial:
    """A workload `w` whose `account` lacks a `right`, the line that says so, and what was not looked at."""

    w: Workload
    namespace: str
    account: str
    right: Right
    base: tuple[Mark, ...]
    caps: tuple[Cap, ...]


def _denied(world: World, w: Workload, clue: Clue, namespace: str, account: str, right: Right) -> Iterator[Candidate]:
    if namespace != world.scene.snapshot.namespace or right.namespace not in ("", namespace):
        return  # (rights in another namespace: its bindings were not looked at)
    if not any(world.scene.looked(k) for k in _KINDS) or granted(world, namespace, account, right):
        return
    if account_of(pod_spec(w)) != account and account != account_of(_live_spec(w)):
        return  # a line about somebody else's account
    if len(ready(w)) >= w.desired > 0 and not _edited_lately(world, _bindings(world, right), namespace, account):
        caps: tuple[Cap, ...] = (Cap("C", "every pod of it is Ready, and nothing shows that the right was ever there"),)
    else:
        caps = ()
    d = _Denial(w, namespace, account, right, (Mark("log says so", (clue.seen,)),), (*unread(world.scene, *_KINDS), *caps))
    for candidates in (
        _other_account(world, d),
        _broken_binding(world, d),
        _lacking_role(world, d),
        _no_binding(world, d),
    ):
        found_ = list(candidates)
        if found_:
            yield from found_
            return


def _edited_lately(world: World, bindings: list[KubeObject], namespace: str, account: str) -> bool:
    """Whether a binding of the account, or the role that it refers to, was written after it was made."""
    mine = [b for b in bindings if _named(b, namespace, account)]
    roles = [r for b in mine if (r := _role(world, b)[1]) is not None]
    return any(edited(o, part) is not None for o in (*mine, *roles) for part in ("rules", "subjects", "roleRef"))


def _live_spec(w: Workload) -> Mapping[str, Any]:
    return w.pods[0].spec if w.pods else {}


def _other_account(world: World, d: _Denial) -> Iterator[Candidate]:
    """A release gave the pods another account than the one that has the right."""
    hit = introduced(world, d.w, lambda t: account_of(mapping(t.get("spec"))))
    if hit is None or hit[1].previous is None:
        return
    before = account_of(hit[1].previous.pod_spec)
    if before == d.account or not granted(world, d.namespace, before, d.right):
        return
    change, mark = released(*hit, f"serviceAccountName: {before} → {d.account}")
    yield made(
        world,
        Category.ACCESS_DENIED,
        d.w.title,
        f"{hit[1].revision.label} of {d.w.title} runs as ServiceAccount/{d.account}, which may not {d.right.words}; ServiceAccount/{before} may.",
        marks=(*d.base, Mark("mechanism named", (_saw(world, "RoleBinding", f"{before} may {d.right.words}, {d.account} may not"),)), mark),
        inferred=0,
        counterfactual=True,
        change=change,
        caps=d.caps,
        hits=(d.w.title, f"ServiceAccount/{d.account}"),
    )


def _broken_binding(world: World, d: _Denial) -> Iterator[Candidate]:
    """A binding whose role is not there, or whose subject is misspelt."""
    for binding in _bindings(world, d.right):
        title, role = _role(world, binding)
        kind, name = title.split("/", 1)
        if _bound_to(binding, d.namespace, d.account) and role is None and world.scene.looked(kind):
            yield from _absent_role(world, d, binding, kind, name)
        elif role is not None and grants(role.raw.get("rules"), d.right) and (wrong := _misspelt(world, binding, d.namespace, d.account)):
            change = edited(binding, "subjects")
            proof = _saw(
                world, binding.kind, f"{binding.title} binds {title}, which has the right, to {wrong}, not to ServiceAccount/{d.account}"
            )
            yield made(
                world,
                Category.ACCESS_DENIED,
                binding.title,
                f"{binding.title} gives {d.right.words} to {wrong}, which is not there, and not to ServiceAccount/{d.account}, as which {d.w.title} runs.",
                marks=(*d.base, Mark("mechanism named", (proof,)), *_changed(world, binding, change, "its subjects")),
                inferred=0,
                counterfactual=True,
                change=change,
                caps=d.caps,
                hits=(d.w.title, f"ServiceAccount/{d.account}"),
            )


def _misspelt(world: World, binding: KubeObject, namespace: str, account: str) -> str:
    """A subject that is like the account and is not there."""
    for s in objects(binding.raw.get("subjects")):
        name, home = word(s.get("name")), word(s.get("namespace")) or binding.namespace
        if word(s.get("kind")) != "ServiceAccount":
            continue
        if home == namespace and name != account and alike(name, account) and found(world.scene, "ServiceAccount", name) is None:
            return f"ServiceAccount/{name}" if world.scene.looked("ServiceAccount") else ""
        if binding.kind == "RoleBinding" and home != namespace and name == account != "default":
            return f"ServiceAccount/{home}/{name}"
    return ""


def _absent_role(world: World, d: _Denial, binding: KubeObject, kind: str, name: str) -> Iterator[Candidate]:
    """By the rule of dangling references: the binding if it is new, the role if it is gone."""
    others = [o.name for o in world.scene.all(kind) if grants(o.raw.get("rules"), d.right)]
    near = resembling(name, others) or (others[0] if len(others) == 1 else "")
    change = touched(world, binding, "roleRef", since=obj_created(d.w.obj))
    proof = Mark("mechanism named", (_saw(world, binding.kind, f"{binding.title} refers to {kind}/{name}, which is not in the list"),))
    hits = (d.w.title, binding.title)
    wrong = change is not None or bool(near)
    as_binding = made(
        world,
        Category.ACCESS_DENIED,
        binding.title,
        f"{binding.title} refers to {kind}/{name}, which does not exist{f'; {kind}/{near} has the right' if near else ''}.",
        marks=(*d.base, proof, *_changed(world, binding, change, "its roleRef")),
        inferred=0 if near else 1,
        counterfactual=bool(near),
        change=change,
        caps=d.caps if wrong else (*d.caps, Cap("C", "nothing shows that the binding was changed")),
        hits=hits,
    )
    as_role = made(
        world,
        Category.ACCESS_DENIED,
        f"{kind}/{name}",
        f"{kind}/{name}, to which {binding.title} refers, does not exist, so that {d.w.title} may not {d.right.words}.",
        marks=(*d.base, proof, Mark("no change seen")),
        inferred=1 if not wrong else 2,
        counterfactual=True,
        change=None if wrong else ChangeRef(kind="Deletion"),
        caps=d.caps,
        hits=hits,
    )
    yield from (as_binding, as_role) if wrong else (as_role, as_binding)


def _lacking_role(world: World, d: _Denial) -> Iterator[Candidate]:
    """A role that the account is bound to and that is about that resource, or was edited, and lacks the verb."""
    found_: list[tuple[tuple[bool, bool, bool, str], KubeObject]] = []
    for binding in _bindings(world, d.right):
        _, role = _role(world, binding)
        if role is None or not _named(binding, d.namespace, d.account):
            continue
        rules = role.raw.get("rules")
        same = any(_has(r.get("apiGroups"), d.right.group) and _names(r.get("resources"), d.right.resource) for r in objects(rules))
        key = (not same, edited(role, "rules") is None, role.kind != "Role", role.name)
        found_.append((key, role))
    if not found_:
        return
    found_.sort(key=lambda f: f[0])
    (differs, unchanged, _, _), role = found_[0]
    if differs and unchanged and len(_idle(world, d.right)) == 1:
        return  # its roles are about other things, and one that would do is bound to nobody
    roles = {r.title for _, r in found_}
    change = edited(role, "rules")
    has = sorted({v for r in objects(role.raw.get("rules")) if _names(r.get("resources"), d.right.resource) for v in _list(r.get("verbs"))})
    what = f"grants {listed(has, 6)} on {d.right.resource}, not {d.right.verb}" if has else f"has no rule for {d.right.resource}"
    proof = _saw(world, role.kind, f"{role.title}, to which ServiceAccount/{d.account} is bound, {what}")
    yield made(
        world,
        Category.ACCESS_DENIED,
        role.title,
        f"{d.w.title} runs as ServiceAccount/{d.account}, which may not {d.right.words}: {role.title} {what}.",
        summary=f"{role.title} does not let {d.w.name} {d.right.words}.",
        marks=(*d.base, Mark("mechanism named", (proof,)), *_changed(world, role, change, "its rules")),
        inferred=0 if (not differs or len(roles) == 1) and (not unchanged or not differs) else 1,
        counterfactual=True,
        change=change,
        caps=d.caps,
        hits=(d.w.title, f"ServiceAccount/{d.account}"),
    )


def _named(binding: KubeObject, namespace: str, account: str) -> bool:
    """Whether a binding names that very account, not only a group that it is in."""
    return any(
        word(s.get("kind")) == "ServiceAccount" and word(s.get("name")) == account and (word(s.get("namespace")) or binding.namespace) == namespace
        for s in objects(binding.raw.get("subjects"))
    )  # fmt: skip


def _idle(world: World, right: Right) -> list[KubeObject]:
    """Roles that would give the right and that nothing binds."""
    used = {_role(world, b)[0] for b in _bindings(world, right)}
    return [r for r in world.scene.all("Role") if grants(r.raw.get("rules"), right) and r.title not in used]


def _no_binding(world: World, d: _Denial) -> Iterator[Candidate]:
    """Nothing binds the account. A role that would do and that nothing binds tells what the binding was; else nobody knows."""
    idle = _idle(world, d.right)
    like = [r for r in idle if alike(r.name, d.account) or alike(r.name, d.w.name)] or idle
    proof = Mark("mechanism named", (_saw(world, "RoleBinding", f"no binding names ServiceAccount/{d.account}"),))
    if len(like) == 1:
        role = like[0]
        yield made(
            world,
            Category.ACCESS_DENIED,
            f"RoleBinding/{role.name}",
            f"{role.title} would let ServiceAccount/{d.account} {d.right.words}, and no RoleBinding binds it.",
            marks=(*d.base, proof, Mark("no change seen")),
            inferred=1,
            counterfactual=True,
            change=ChangeRef(kind="Deletion"),
            caps=(*d.caps, Cap("B", "the name of the binding that is not there is a guess")),
            hits=(d.w.title, f"ServiceAccount/{d.account}"),
        )
        return
    yield made(
        world,
        Category.ACCESS_DENIED,
        f"ServiceAccount/{d.account}",
        f"{d.w.title} runs as ServiceAccount/{d.account}, which may not {d.right.words}: nothing binds it to any role.",
        marks=(*d.base, proof, Mark("no change seen")),
        inferred=1,
        caps=(*d.caps, Cap("C", "which role it should have is not shown")),
        hits=(d.w.title, f"ServiceAccount/{d.account}"),
    )


def _list(values: object) -> list[str]:
    return [v for v in values if isinstance(v, str)] if isinstance(values, list) else []


def _saw(world: World, kind: str, text: str) -> Observation:
    return seen(world.scene.listing(kind), text)


def _changed(world: World, obj: KubeObject, change: ChangeRef | None, what: str) -> tuple[Mark, ...]:
    return (saw_change(world.scene, obj, change, what),) if change is not None else (Mark("no change seen"),)
