"""Whether the CustomResourceDefinitions in the cluster are the ones that this version was made with.

An older schema would refuse our writes (they are strict), or worse, lack a guardrail that we believe in.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubernetes.aio.client.exceptions import ApiException

from ..api.crdgen import SCHEMA_DIGEST_ANNOTATION, all_crds
from ..domain.snapshot import KubeObject
from .errors import EXTERNAL, port_error, status_of
from .kube.client import KubeClient, parse
from .kube.resources import KNOWN

COMMAND = "nightorders crds | kubectl apply --server-side -f -"


@dataclass(frozen=True)
class CrdReport:
    """`messages`: what is wrong, in plain words, with the command that repairs it. `certain` False: at least one could not be looked at."""

    messages: tuple[str, ...]
    certain: bool

    @property
    def current(self) -> bool:
        """Proved to be ours."""
        return self.certain and not self.messages


async def compare_crds(client: KubeClient) -> CrdReport:
    """Reads every CRD of ours. Never raises."""
    served = KNOWN[("apiextensions.k8s.io/v1", "CustomResourceDefinition")]
    messages: list[str] = []
    certain = True
    for shipped in all_crds().values():
        name = shipped["metadata"]["name"]
        wanted = shipped["metadata"]["annotations"][SCHEMA_DIGEST_ANNOTATION]
        try:
            live = KubeObject(await parse(await client.request("GET", served.path(name=name))), served.kind, served.api_version)
        except EXTERNAL as error:
            if isinstance(error, ApiException) and status_of(error).code == 404:
                messages.append(f"The CustomResourceDefinition {name} is missing. Repair: {COMMAND}")
            else:
                certain = False
                messages.append(
                    f"Cannot tell whether the CustomResourceDefinition {name} is this version's: {port_error(error, 'reading it')}"
                )
            continue
        if message := _difference(live, wanted):
            messages.append(f"{message} Repair: {COMMAND}")
    return CrdReport(tuple(messages), certain)


def _difference(live: KubeObject, wanted: str) -> str:
    found = live.annotations.get(SCHEMA_DIGEST_ANNOTATION, "")
    established = live.condition("Established") or {}
    if found != wanted:
        return (
            f"The schema of the CustomResourceDefinition {live.name} is of another version of nightorders"
            f" (digest {found or 'absent'}, this version has {wanted})."
        )
    if established.get("status") != "True":
        return f"The CustomResourceDefinition {live.name} is not served: {established.get('message') or 'not established yet'}."
    return ""
