"""What a pod template refers to: ConfigMaps, Secrets, claims, accounts, classes; and which of these references lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..domain.snapshot import Absent, NotLooked
from .read import flag, mapping, objects, word
from .scene import Scene


@dataclass(frozen=True)
class Reference:
    """One reference of a template. `key` is empty when the whole object is read; an optional one can never hold a pod back."""

    kind: str
    name: str
    key: str
    optional: bool
    path: str
    container: str = ""

    @property
    def title(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def what(self) -> str:
        return f"key {self.key} of {self.title}" if self.key else self.title

    @property
    def at_start(self) -> bool:
        """Whether a change reaches a container only when it starts again (environment), or by itself (a volume)."""
        return ".env" in self.path


def references(spec: Mapping[str, Any]) -> tuple[Reference, ...]:
    """Every reference of a pod's spec, in the order of the spec."""
    return tuple(r for r in (*_from_containers(spec), *_from_volumes(spec), *_from_pod(spec)) if r.name)


def _from_containers(spec: Mapping[str, Any]) -> Iterator[Reference]:
    for group in ("initContainers", "containers"):
        for container in objects(spec.get(group)):
            name = word(container.get("name"))
            at = f"spec.{group}[{name}]"
            for env in objects(container.get("env")):
                source = mapping(env.get("valueFrom"))
                for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                    ref = mapping(source.get(field))
                    yield Reference(
                        kind,
                        word(ref.get("name")),
                        word(ref.get("key")),
                        flag(ref.get("optional")),
                        f"{at}.env[{word(env.get('name'))}]",
                        name,
                    )
            for source in objects(container.get("envFrom")):
                for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                    ref = mapping(source.get(field))
                    yield Reference(kind, word(ref.get("name")), "", flag(ref.get("optional")), f"{at}.envFrom", name)


def _from_volumes(spec: Mapping[str, Any]) -> Iterator[Reference]:
    for volume in objects(spec.get("volumes")):
        at = f"spec.volumes[{word(volume.get('name'))}]"
        for source in (volume, *objects(mapping(volume.get("projected")).get("sources"))):
            config, secret = mapping(source.get("configMap")), mapping(source.get("secret"))
            yield from _items("ConfigMap", word(config.get("name")), config, at)
            yield from _items("Secret", word(secret.get("secretName")) or word(secret.get("name")), secret, at)
        claim = mapping(volume.get("persistentVolumeClaim"))
        yield Reference("PersistentVolumeClaim", word(claim.get("claimName")), "", False, at)


def _from_pod(spec: Mapping[str, Any]) -> Iterator[Reference]:
    """What the whole pod needs: without the first three it is not created; a pull secret that is absent only leaves a pull anonymous."""
    account = word(spec.get("serviceAccountName")) or word(spec.get("serviceAccount"))
    yield Reference("ServiceAccount", account, "", False, "spec.serviceAccountName")
    yield Reference("PriorityClass", word(spec.get("priorityClassName")), "", False, "spec.priorityClassName")
    yield Reference("RuntimeClass", word(spec.get("runtimeClassName")), "", False, "spec.runtimeClassName")
    for secret in objects(spec.get("imagePullSecrets")):
        yield Reference("Secret", word(secret.get("name")), "", True, "spec.imagePullSecrets")


def _items(kind: str, name: str, source: Mapping[str, Any], at: str) -> Iterator[Reference]:
    optional = flag(source.get("optional"))
    yield Reference(kind, name, "", optional, at)
    for item in objects(source.get("items")):
        yield Reference(kind, name, word(item.get("key")), optional, at)


@dataclass(frozen=True)
class Dangling:
    """A required reference to what is proved absent. `key_only`: the object is there and lacks the key."""

    reference: Reference
    key_only: bool


def dangling(scene: Scene, spec: Mapping[str, Any]) -> tuple[Dangling, ...]:
    """Required ConfigMap references that lead nowhere, by a complete list. (Secrets are never listed; claims belong to another class.)"""
    found: dict[tuple[str, str], Dangling] = {}
    for ref in references(spec):
        if ref.kind == "ConfigMap" and not ref.optional and (broken := _check(scene, ref)):
            found.setdefault((ref.title, ref.key if broken.key_only else ""), broken)
    return tuple(found.values())


def _check(scene: Scene, ref: Reference) -> Dangling | None:
    target = scene.snapshot.find(ref.kind, ref.name)
    match target:
        case Absent():
            return Dangling(ref, key_only=False)
        case NotLooked():
            return None
    if ref.key and ref.key not in keys_of(target.raw):
        return Dangling(ref, key_only=True)
    return None


def keys_of(raw: Mapping[str, Any]) -> frozenset[str]:
    """The keys of a ConfigMap."""
    return frozenset(k for part in ("data", "binaryData") for k in mapping(raw.get(part)) if isinstance(k, str))
