"""Claims: whether they are there, bound, and to a volume that the pods can reach; and whose fault it is when they are not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import Absent, KubeObject
from ..case import Case
from ..evidence import Observation, safe, seen
from ..findings import Finding, MissingFinding, Trouble
from ..graph import selects
from ..hypotheses import Candidate, Cap, Mark
from ..read import listed, mapping, objects, word, words
from ..references import Reference, references
from ..scene import Scene
from ..views import obj_created
from .memory import quantity
from .missing import missing_origins
from .placing import volume_allows
from .sizes import shown
from .touched import last_touch

CLAIM, VOLUME, CLASS = "PersistentVolumeClaim", "PersistentVolume", "StorageClass"
_NONE = ChangeRef(kind="None")
_NO_PROVISIONER = "kubernetes.io/no-provisioner"
_DEFAULT = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
_PROVISIONED = "pv.kubernetes.io/provisioned-by"
_ABOUT_VOLUMES = re.compile(r"persistent ?volume|storageclass|volume node affinity|binding volumes|pvc\(s\)", re.IGNORECASE)
_SAYS_ABSENT = re.compile(r"persistentvolumeclaim \"([^\"\s]{1,253})\" not found")
# How long an external provisioner may take before its silence means something.
_PATIENCE = timedelta(minutes=2)


@dataclass(frozen=True)
class Use:
    """One claim that a pod uses. `volume` is the pod's own name for it."""

    name: str
    volume: str
    path: str


def uses(spec: Mapping[str, Any], pod: str) -> tuple[Use, ...]:
    """The claims of a pod's volumes; those of ephemeral volumes are named after the pod."""
    found: list[Use] = []
    for volume in objects(spec.get("volumes")):
        name = word(volume.get("name"))
        claim = word(mapping(volume.get("persistentVolumeClaim")).get("claimName"))
        if not claim and isinstance(volume.get("ephemeral"), Mapping) and pod:
            claim = f"{pod}-{name}"
        if claim:
            found.append(Use(claim, name, f"spec.volumes[{name}]"))
    return tuple(found)


def bound_volumes(scene: Scene, spec: Mapping[str, Any], pod: str) -> tuple[Mapping[str, Any], ...]:
    """The volumes (raw) behind a pod's bound claims."""
    found: list[Mapping[str, Any]] = []
    for use in uses(spec, pod):
        claim = scene.snapshot.find(CLAIM, use.name)
        name = word(mapping(claim.raw.get("spec")).get("volumeName")) if isinstance(claim, KubeObject) else ""
        volume = scene.snapshot.find(VOLUME, name) if name else None
        if isinstance(volume, KubeObject):
            found.append(volume.raw)
    return tuple(found)


def claim_origins(case: Case, f: Finding) -> tuple[Candidate, ...]:
    """What is wrong with the claims of these pods; nothing where each is bound to a volume that some node can reach."""
    pod = min(f.pods, key=lambda p: p.name, default=None)
    message = getattr(f, "message", "")
    for use in uses(pod.spec if pod else f.revision.pod_spec, pod.name if pod else ""):
        found = case.scene.snapshot.find(CLAIM, use.name)
        candidates: tuple[Candidate, ...] = ()
        if isinstance(found, Absent):
            candidates = _absent(case, f, use, proved=True)
        elif isinstance(found, KubeObject):
            if not _waits_for_pod(case.scene, found) or _ABOUT_VOLUMES.search(message) or f.trouble is not Trouble.UNSCHEDULED:
                candidates = tuple(claim_trouble(case.scene, found, f.seen, case.title))
        elif any(name == use.name for name in _SAYS_ABSENT.findall(message)):
            candidates = _absent(case, f, use, proved=False)
        if candidates:
            return tuple(replace(c, hits=(case.title,)) for c in candidates)
    return ()


def _absent(case: Case, f: Finding, use: Use, *, proved: bool) -> tuple[Candidate, ...]:
    """A reference that leads nowhere, by the same rule as any other; only that a claim is storage."""
    spec = f.pods[0].spec if f.pods else f.revision.pod_spec
    mine = next((r for r in references(spec) if r.kind == CLAIM and r.name == use.name), None)
    ref = mine or Reference(CLAIM, use.name, "", False, use.path)
    names = sorted(o.name for o in case.scene.all(CLAIM))
    lacks = seen(case.scene.listing(CLAIM), f"no {CLAIM} is named {use.name}; there are: {listed(names, 8) or 'none'}")
    words_ = f"{ref.title} does not exist ({ref.path})"
    missing = MissingFinding(
        Trouble.MISSING,
        f.revision,
        "",
        f.pods,
        words_,
        (*f.seen, *((lacks,) if proved else ())),
        f.reason,
        f.onset,
        reference=ref,
        proved=proved,
    )
    return tuple(
        replace(c, category=Category.STORAGE) if c.category is Category.MISSING_OBJECT else c for c in missing_origins(case, missing)
    )


# -- one claim ----------------------------------------------------------------------------------------------------------------------


def claim_trouble(scene: Scene, claim: KubeObject, told: tuple[Observation, ...], user: str = "") -> Iterator[Candidate]:
    """What keeps a claim from being of use; nothing for one that is bound, or waits for its first consumer as it should."""
    phase = word(mapping(claim.raw.get("status")).get("phase"))
    look = _Claim(scene, claim, told, user)
    if claim.terminating:
        yield look.made(claim.title, "is being deleted while it is in use", ChangeRef(kind="Deletion"), inferred=0)
    elif phase == "Lost":
        yield from look.lost()
    elif phase == "Bound":
        yield from look.bound()
    elif phase in ("", "Pending"):
        yield from look.pending()


def _waits_for_pod(scene: Scene, claim: KubeObject) -> bool:
    """Pending on purpose: its class binds when a pod that uses it is placed, and none has been."""
    notes = claim.annotations
    name = word(mapping(claim.raw.get("spec")).get("storageClassName"))
    klass = scene.snapshot.find(CLASS, name) if name else None
    waits = isinstance(klass, KubeObject) and klass.raw.get("volumeBindingMode") == "WaitForFirstConsumer"
    return waits and word(mapping(claim.raw.get("status")).get("phase")) == "Pending" and "volume.kubernetes.io/selected-node" not in notes


@dataclass(frozen=True)
class _Claim:
    scene: Scene
    claim: KubeObject
    told: tuple[Observation, ...]
    user: str

    @property
    def spec(self) -> Mapping[str, Any]:
        return mapping(self.claim.raw.get("spec"))

    @property
    def title(self) -> str:
        return safe(self.claim.title, 250)

    @property
    def kind_of_class(self) -> str | None:
        """The class that it names; None when it names none (a default would then have been written in)."""
        found = self.spec.get("storageClassName")
        return found if isinstance(found, str) else None

    def made(
        self,
        object_: str,
        what: str,
        change: ChangeRef = _NONE,
        *,
        inferred: int,
        counterfactual: bool = False,
        caps: tuple[Cap, ...] = (),
        marks: tuple[Mark, ...] = (),
        likely: bool = False,
    ) -> Candidate:
        """A candidate about this claim: `what` goes on after its title."""
        proof = seen(self.scene.listing(CLAIM), f"{self.claim.title}: {self._state()}; {what}")
        statement = f"{self.title} {what}" + (f"; {self.user} needs it." if self.user else ".")
        mechanism = Mark("mechanism likely" if likely else "mechanism named", (*self.told, proof))
        return Candidate(
            Category.STORAGE,
            safe(object_, 250),
            safe(statement),
            safe(statement, 400),
            change,
            (mechanism, *(marks or (Mark("no change seen"),))),
            inferred=inferred,
            counterfactual=counterfactual,
            caps=caps,
            hits=tuple(t for t in (self.user, self.claim.title) if t),
        )

    def _state(self) -> str:
        asks = word(mapping(mapping(self.spec.get("resources")).get("requests")).get("storage"))
        modes = listed(_texts(self.spec.get("accessModes")))
        klass = "no class" if self.kind_of_class is None else f"class {self.kind_of_class or 'empty'}"
        return (
            f"phase {word(mapping(self.claim.raw.get('status')).get('phase')) or 'unknown'}, {klass}, asks for {asks or 'no size'} {modes}"
        )

    # ---------------------------------------------------------------- bound

    def lost(self) -> Iterator[Candidate]:
        volume = word(self.spec.get("volumeName"))
        what = f"has lost its volume {VOLUME}/{volume}, which does not exist any more"
        yield self.made(
            f"{VOLUME}/{volume}", what, ChangeRef(kind="Deletion"), inferred=0, counterfactual=True, marks=(Mark("existed before"),)
        )

    def bound(self) -> Iterator[Candidate]:
        name = word(self.spec.get("volumeName"))
        found = self.scene.snapshot.find(VOLUME, name) if name else None
        if isinstance(found, Absent):
            yield from self.lost()
            return
        if not isinstance(found, KubeObject):
            return
        phase = word(mapping(found.raw.get("status")).get("phase"))
        if phase == "Failed":
            why = safe(word(mapping(found.raw.get("status")).get("message")), 200) or "no message"
            yield self.made(found.title, f"is bound to {found.title}, which has failed ({why})", inferred=0)
        elif self.scene.nodes and not any(volume_allows(found.raw, n) for n in self.scene.nodes):
            where = safe(_wanted_nodes(found.raw), 200)
            yield self.made(
                found.title,
                f"is bound to {found.title}, which can only be reached from {where}, and there is no such node",
                inferred=0,
                counterfactual=False,
            )

    # ---------------------------------------------------------------- pending

    def pending(self) -> Iterator[Candidate]:
        name, volume = self.kind_of_class, word(self.spec.get("volumeName"))
        if volume:
            yield from self._named_volume(volume)
            return
        if not self.scene.looked(CLASS):
            yield self.made(self.title, "is not bound", inferred=2, caps=(Cap("C", f"{CLASS} objects were not looked at"),), likely=True)
            return
        if name is None:
            yield from self._no_class()
            return
        klass = next((k for k in self.scene.all(CLASS) if k.name == name), None)
        if not name:
            yield from self._static()
        elif klass is None:
            yield from self._class_absent(name)
        elif _waits_for_pod(self.scene, self.claim) and not self.user:
            return
        elif klass.raw.get("provisioner") == _NO_PROVISIONER:
            yield from self._static()
        else:
            yield from self._provisioned(klass)

    def _named_volume(self, name: str) -> Iterator[Candidate]:
        found = self.scene.snapshot.find(VOLUME, name)
        title = f"{VOLUME}/{name}"
        if isinstance(found, Absent):
            cap = (Cap("B", "nothing shows whether that volume ever existed"),)
            yield self.made(title, f"names {title} as its volume, which does not exist", inferred=0, caps=cap)
            yield self.made(self.title, f"names {title} as its volume, which does not exist", inferred=0, caps=cap, likely=True)
        elif isinstance(found, KubeObject):
            why = self._misfit(found) or self._taken(found)
            if why:
                yield self.made(self.title, f"names {title} as its volume, which {why}", inferred=0, counterfactual=True)

    def _no_class(self) -> Iterator[Candidate]:
        """It names no class. With a default class it would have been given that; a volume without class would do as well."""
        if any(_is_default(k) for k in self.scene.all(CLASS)):
            return  # the controller writes the default into claims that wait
        names = listed([k.name for k in self.scene.all(CLASS)], 6) or "none"
        what = f"names no StorageClass, and none is the default (there are: {names})"
        for klass in self.scene.all(CLASS):
            touch = last_touch(klass, ("f:metadata", "f:annotations"))
            if any(k in klass.annotations for k in _DEFAULT) and touch is not None and not touch.created and self._others_of(klass.name):
                proof = seen(self.scene.listing(CLASS), f"{klass.title} {touch.told}; its annotation says that it is not the default")
                yield self.made(
                    klass.title,
                    f"{what}; {klass.title} was, it seems",
                    touch.change,
                    inferred=1,
                    marks=(Mark("edited before it began", (proof,)),),
                )
                yield self.made(self.title, what, inferred=1, likely=True)
                return
        yield self.made(self.title, what, inferred=0, counterfactual=bool(self.scene.all(CLASS)))

    def _others_of(self, klass: str) -> tuple[KubeObject, ...]:
        """Claims of that class that are bound: proof that it worked."""
        return tuple(c for c in self.scene.all(CLAIM) if c.name != self.claim.name and _is_bound(c, klass))

    def _class_absent(self, name: str) -> Iterator[Candidate]:
        if any(not self._misfit(v) and not self._taken(v) for v in self.scene.all(VOLUME)):
            return  # a volume of that name of class is there, and the controller will bind it
        title, holder = f"{CLASS}/{name}", self._holder(name)
        there = listed([k.name for k in self.scene.all(CLASS)], 6) or "none"
        what = f"names {title}, which does not exist (there are: {there})"
        dynamic = [
            v.name
            for v in self.scene.all(VOLUME)
            if mapping(v.raw.get("spec")).get("storageClassName") == name and _PROVISIONED in v.annotations
        ]
        bound = [c.name for c in self._others_of(name)]
        lacks = seen(self.scene.listing(CLASS), f"no {CLASS} is named {name}; there are: {there}")
        if dynamic or bound:
            proof = seen(
                self.scene.listing(VOLUME if dynamic else CLAIM), f"made or bound with that class before: {listed(dynamic or bound)}"
            )
            sure = bool(dynamic)
            yield self.made(
                title,
                f"{what}; it did exist: {listed(dynamic or bound)} came of it",
                ChangeRef(kind="Deletion"),
                inferred=0 if sure else 1,
                counterfactual=sure,
                marks=(Mark("existed before", (proof, lacks)),),
            )
            yield self.made(holder, what, inferred=1, caps=(Cap("C", "others have used that class before"),), likely=True)
            return
        cap = (Cap("B", "nothing shows whether that class ever existed, so the class or its name may be the mistake"),)
        yield self.made(holder, what, inferred=0, caps=cap, marks=(Mark("no change seen", (lacks,)), Mark("names what never was")))
        yield self.made(title, what, inferred=0, caps=cap, likely=True)

    def _holder(self, klass: str) -> str:
        """Where the class is named: the StatefulSet whose template the claim was made from, else the claim itself."""
        for obj in self.scene.all("StatefulSet"):
            for made_from in objects(mapping(obj.raw.get("spec")).get("volumeClaimTemplates")):
                prefix = f"{word(mapping(made_from.get('metadata')).get('name'))}-{obj.name}-"
                ordinal = self.claim.name.removeprefix(prefix)
                if ordinal != self.claim.name and ordinal.isdigit() and mapping(made_from.get("spec")).get("storageClassName") == klass:
                    return obj.title
        return self.claim.title

    def _static(self) -> Iterator[Candidate]:
        """Volumes are made by hand: one must fit. What comes nearest says what would have to change."""
        if not self.scene.looked(VOLUME):
            yield self.made(self.title, "is not bound", inferred=2, caps=(Cap("C", f"{VOLUME} objects were not looked at"),), likely=True)
            return
        volumes = self.scene.all(VOLUME)
        mine = next((v for v in volumes if self._was_mine(v)), None)
        if mine is not None:
            what = f"waits for {mine.title}, which an earlier claim of that name has released and which is not cleared"
            yield self.made(mine.title, what, inferred=0, counterfactual=not self._misfit(mine))
            return
        if any(not self._misfit(v) and not self._taken(v) for v in volumes):
            return
        near = [(v, why) for v in volumes if not self._taken(v) and (why := self._misfit(v))]
        if near:
            volume, why = min(near, key=lambda x: (x[1].count(";"), x[0].name))
            yield self.made(self.title, f"finds no volume: the nearest, {volume.title}, {why}", inferred=0, counterfactual=";" not in why)
            return
        taken = next((v for v in volumes if not self._misfit(v)), None)
        also = f" ({taken.title} would fit and {self._taken(taken)})" if taken else ""
        yield self.made(self.title, f"finds no volume, and nothing makes one{also}", inferred=0)

    def _was_mine(self, volume: KubeObject) -> bool:
        ref = mapping(mapping(volume.raw.get("spec")).get("claimRef"))
        mine = (word(ref.get("namespace")), word(ref.get("name"))) == (self.scene.snapshot.namespace, self.claim.name)
        return mine and mapping(volume.raw.get("status")).get("phase") == "Released" and word(ref.get("uid")) not in ("", self.claim.uid)

    def _taken(self, volume: KubeObject) -> str:
        """Why a volume is not free; empty when it is."""
        ref = mapping(mapping(volume.raw.get("spec")).get("claimRef"))
        phase = word(mapping(volume.raw.get("status")).get("phase"))
        if phase in ("Released", "Failed"):
            return f"is {phase}"
        name = word(ref.get("name"))
        if phase == "Bound" and not name:
            return "is bound"
        if not name or (name == self.claim.name and word(ref.get("uid")) in ("", self.claim.uid)):
            return ""
        return f"belongs to {word(ref.get('namespace'))}/{name}"

    def _misfit(self, volume: KubeObject) -> str:
        """How a volume differs from what is asked for, joined by semicolons; empty when it fits."""
        spec = mapping(volume.raw.get("spec"))
        found: list[str] = []
        if (word(spec.get("storageClassName"))) != (self.kind_of_class or ""):
            found.append(f"is of class {word(spec.get('storageClassName')) or 'none'}")
        asked = quantity(word(mapping(mapping(self.spec.get("resources")).get("requests")).get("storage")))
        has = quantity(word(mapping(spec.get("capacity")).get("storage")))
        if asked is not None and has is not None and asked > has:
            found.append(f"has {shown('storage', has)}, less than the {shown('storage', asked)} asked for")
        lacking = sorted(set(_texts(self.spec.get("accessModes"))) - set(_texts(spec.get("accessModes"))))
        if lacking:
            found.append(f"does not offer {listed(lacking)}")
        if (word(spec.get("volumeMode")) or "Filesystem") != (word(self.spec.get("volumeMode")) or "Filesystem"):
            found.append("is of another volumeMode")
        if isinstance(self.spec.get("selector"), Mapping) and not selects(self.spec.get("selector"), volume.labels):
            found.append("does not match the claim's selector")
        return "; ".join(found)

    def _provisioned(self, klass: KubeObject) -> Iterator[Candidate]:
        """Somebody should make a volume. Events tell whether it failed; without any, whether somebody of that name ever did."""
        provisioner = safe(word(klass.raw.get("provisioner")), 120)
        events = self.scene.events(CLAIM, self.claim.name, self.claim.uid)
        failed = next((e for e in reversed(events) if e.reason == "ProvisioningFailed"), None)
        made_by = [v.name for v in self.scene.all(VOLUME) if v.annotations.get(_PROVISIONED) == klass.raw.get("provisioner")]
        others = self._others_of(klass.name)
        created = obj_created(self.claim)
        if failed is not None:
            cap = (Cap("C", "what the provisioner says is the only evidence"),)
            what = f"gets no volume: {provisioner} says {safe(failed.message, 300)}"
            first, second = (self.title, klass.title) if others else (klass.title, self.title)
            yield self.made(first, what, inferred=1, caps=cap)
            yield self.made(second, what, inferred=1, caps=cap, likely=True)
        elif created is None or self.scene.now - created > _PATIENCE:
            what = f"gets no volume: {klass.title} leaves that to {provisioner}, which does not answer"
            cap = (Cap("C", "nothing tells why the provisioner does not answer"),)
            if made_by:
                yield self.made(klass.title, f"{what}, though it did before ({listed(made_by)})", inferred=1, caps=cap, likely=True)
            else:
                yield self.made(klass.title, f"{what} and has made no volume here", inferred=1, caps=cap)


def _is_bound(claim: KubeObject, klass: str) -> bool:
    return mapping(claim.raw.get("spec")).get("storageClassName") == klass and mapping(claim.raw.get("status")).get("phase") == "Bound"


def _is_default(klass: KubeObject) -> bool:
    return any(words(klass.annotations).get(k) == "true" for k in _DEFAULT)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _wanted_nodes(volume: Mapping[str, Any]) -> str:
    required = mapping(mapping(mapping(volume.get("spec")).get("nodeAffinity")).get("required"))
    told = [
        f"{word(e.get('key'))} {word(e.get('operator'))} {listed(_texts(e.get('values')))}"
        for t in objects(required.get("nodeSelectorTerms"))
        for e in objects(t.get("matchExpressions"))
    ]
    return "nodes with " + (listed(told) or "nothing")
