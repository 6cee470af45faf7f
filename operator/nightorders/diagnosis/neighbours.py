"""Other namespaces that one leans on."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .graph import workloads
from .read import mapping, objects, word, words
from .scene import Scene

DNS_NAMESPACE = "kube-system"
_FQDN = re.compile(r"\b[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?\.([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)\.svc\b")
_VALUE_LIMIT = 2000


def foreign_namespaces(scene: Scene) -> Iterator[str]:
    """Where webhooks' and aggregated APIs' backends live, and the namespaces of hosts that settings name, as `name.namespace.svc`."""
    for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        for obj in scene.all(kind):
            for hook in objects(obj.raw.get("webhooks")):
                service = mapping(mapping(hook.get("clientConfig")).get("service"))
                if namespace := word(service.get("namespace")):
                    yield namespace
    for obj in scene.all("Service"):
        yield from _FQDN.findall(word(mapping(obj.raw.get("spec")).get("externalName")))
    values = [word(e.get("value")) for _, spec in workloads(scene) for c in objects(spec.get("containers")) for e in objects(c.get("env"))]
    values += [v for c in scene.all("ConfigMap") for v in words(c.raw.get("data")).values()]
    for value in values:
        yield from _FQDN.findall(value[:_VALUE_LIMIT])
