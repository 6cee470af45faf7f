"""`ApprovalGuard`: are the admission policies that protect approvals there, ours, compiled, and do they refuse a forged approval?

Both halves are needed. A policy reduced to "the operator cannot approve" still refuses the operator's own attack; a binding narrowed by
a selector refuses it elsewhere; and a policy that is letter by letter ours may not be enforced yet.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from ..api.meta import API_VERSION, APPROVE_PREFIX, line
from ..api.v1alpha1 import Incident
from ..domain.mergepatch import same
from ..domain.snapshot import KubeObject
from ..ports import Clock, GuardReport
from .errors import EXTERNAL, port_error, status_of
from .kube.client import MERGE_PATCH, STRICT, KubeClient, parse
from .kube.resources import KNOWN

POLICY = "ValidatingAdmissionPolicy"
BINDING = "ValidatingAdmissionPolicyBinding"
ADMISSION = "admissionregistration.k8s.io/v1"
# Both: apply does not notice a field that somebody added beside it (a narrowing selector: "unchanged"), and replace makes nothing new.
REPAIR = "kubectl apply -k manifests/admission && kubectl replace --save-config -k manifests/admission"
NO_DIGEST = "sha256:" + "0" * 64
_DRY_RUN = (*STRICT, ("dryRun", "All"))


class _NotProvenError(Exception):
    """Why the guard is not proven."""


class AdmissionGuard:
    """Implements `ApprovalGuard`.

    `shipped`: the parsed documents of manifests/admission (others than policies and bindings are passed over). `policy`: the one that
    must refuse. `namespace`: the operator's own. `repair`: the command for the message. `seconds`: limit of one proof.
    """

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        shipped: Iterable[Mapping[str, Any]],
        *,
        namespace: str,
        username: str = "system:serviceaccount:nightorders-system:nightorders",
        policy: str = "nightorders-approvals",
        repair: str = REPAIR,
        seconds: float = 15.0,
    ) -> None:
        self._client = client
        self._clock = clock
        ours = (d for d in shipped if d.get("kind") in (POLICY, BINDING))
        self._shipped = [KubeObject(deepcopy(dict(d)), str(d["kind"]), ADMISSION) for d in ours]
        self._namespace = namespace
        self._username = username
        self._policy = policy
        self._repair = repair
        self._seconds = seconds

    async def prove(self, incident: Incident | None) -> GuardReport:
        """Never raises; what cannot be told is not proven."""
        try:
            async with asyncio.timeout(self._seconds):
                attacks = self._on(incident) if incident else self._at_creation()
                proofs = (self._compare(), *(self._attack(*attack) for attack in attacks))  # side by side: an approval waits for this
                for failed in await asyncio.gather(*proofs, return_exceptions=True):
                    if isinstance(failed, BaseException):
                        raise failed
        except _NotProvenError as error:
            return self._report(False, f"The approval guard is not proven: {error}")
        except TimeoutError:
            return self._report(False, f"Cannot tell whether approvals are guarded: no answer within {self._seconds:g} s")
        except Exception as error:  # noqa: BLE001  a bug here must never read as a proof
            return self._report(False, f"Cannot tell whether approvals are guarded: {type(error).__name__}")
        where = f"on Incident {incident.metadata.namespace}/{incident.metadata.name}" if incident else "at creation"
        same_as = f"{len(self._shipped)} admission policies and bindings are the shipped ones"
        return self._report(True, f"{same_as}, and {self._policy} refused forged approvals {where}")

    def _report(self, proven: bool, message: str) -> GuardReport:
        return GuardReport(proven, line(message, 1024), self._clock.now())

    # (a) What is there is what was shipped.

    async def _compare(self) -> None:
        have = {(o.kind, o.name) for o in self._shipped}
        if (POLICY, self._policy) not in have or not any(o.at("spec", "policyName") == self._policy for o in self._shipped):
            raise _NotProvenError(f"this version was started without its own {self._policy}, so there is nothing to compare with")
        found = await asyncio.gather(*(self._wrong_with(o) for o in self._shipped))
        if wrong := [text for text in found if text]:
            raise _NotProvenError(f"{'; '.join(wrong)}. Repair: {self._repair}")

    async def _wrong_with(self, shipped: KubeObject) -> str:
        """What is wrong with the live one; empty if nothing is."""
        path = KNOWN[(ADMISSION, shipped.kind)].path(name=shipped.name)
        try:
            live = KubeObject(await parse(await self._client.request("GET", path)), shipped.kind, ADMISSION)
        except EXTERNAL as error:
            if isinstance(error, ApiException) and status_of(error).code == 404:
                return f"{shipped.title} is missing"
            return f"{shipped.title} could not be read ({port_error(error, 'GET')})"
        return wrong_with(shipped, live)

    # (b) It refuses.

    def _on(self, incident: Incident) -> list[tuple[str, str, str, dict[str, Any]]]:
        path = KNOWN[(API_VERSION, "Incident")].path(incident.metadata.namespace, incident.metadata.name)
        digest = incident.status.plan.digest if incident.status.plan else NO_DIGEST
        return [
            (f"an approval in {whose} name", "PATCH", path, {"metadata": {"annotations": self._forged(digest, user)}})
            for whose, user in (("its own", self._username), ("another's", "somebody"))
        ]

    def _at_creation(self) -> list[tuple[str, str, str, dict[str, Any]]]:
        name = f"guard-probe-{uuid.uuid4().hex[:10]}"
        body = {
            "apiVersion": API_VERSION,
            "kind": "Incident",
            "metadata": {"name": name, "namespace": self._namespace, "annotations": self._forged(NO_DIGEST, self._username)},
            "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}},
        }
        return [("an Incident with an approval in it", "POST", KNOWN[(API_VERSION, "Incident")].path(self._namespace), body)]

    def _forged(self, digest: str, user: str) -> dict[str, str]:
        return {f"{APPROVE_PREFIX}guard-probe": f"{digest}|{user}"}

    async def _attack(self, what: str, method: str, path: str, body: dict[str, Any]) -> None:
        """Raises _NotProvenError unless exactly the guarding policy refuses. With dryRun=All nothing is ever stored."""
        try:
            await self._client.request(
                method, path, query=_DRY_RUN, body=body, content_type=MERGE_PATCH if method == "PATCH" else "application/json"
            )
        except EXTERNAL as error:
            if not isinstance(error, ApiException):
                raise _NotProvenError(f"the attack could not be made ({port_error(error, method)})") from None
            status = status_of(error)
            if status.code == 403 and status.policy == self._policy and "resulted in error" not in status.message:
                return
            by = f"by {status.policy}" if status.policy else "not by an admission policy"
            reason = f"{what} was refused, but {by}: {port_error(error, method)}"
            raise _NotProvenError(f"{reason}. That proves nothing about {self._policy}") from None
        raise _NotProvenError(f"ALARM: the API server would have accepted {what}. Repair: {self._repair}")


def wrong_with(shipped: KubeObject, live: KubeObject) -> str:
    """Why `live` does not do what `shipped` does; empty if it does. Labels and annotations play no part."""
    if live.terminating:
        return f"{live.title} is being deleted"
    if live.kind == BINDING and "Deny" not in (live.at("spec", "validationActions") or []):
        return f"{live.title} does not deny (spec.validationActions)"
    if where := differences(normal(shipped), normal(live)):
        return f"{live.title} is not the shipped one ({', '.join(where[:3])}{', …' if len(where) > 3 else ''})"
    if live.kind == BINDING:
        return ""
    if live.at("status", "observedGeneration") != live.at("metadata", "generation") or live.at("status", "typeChecking") is None:
        return f"{live.title} was not type-checked yet (status.observedGeneration)"
    if warnings := live.at("status", "typeChecking", "expressionWarnings"):
        field = warnings[0].get("fieldRef", "") if isinstance(warnings[0], Mapping) else ""
        return f"{live.title} does not compile cleanly (status.typeChecking: {field})"
    return ""


def normal(obj: KubeObject) -> dict[str, Any]:
    """The spec with the API server's defaults filled in and "nothing" spelled in one way: the same function for both sides."""
    spec: dict[str, Any] = _without_nothing(deepcopy(dict(obj.raw.get("spec") or {})))
    if obj.kind == POLICY:
        spec.setdefault("failurePolicy", "Fail")
        _fill_match(spec.setdefault("matchConstraints", {}))
    if "matchResources" in spec:
        _fill_match(spec["matchResources"])
    if isinstance(spec.get("validationActions"), list):  # a set
        spec["validationActions"] = sorted(map(str, spec["validationActions"]))
    return spec


def _fill_match(match: dict[str, Any]) -> None:
    match.setdefault("matchPolicy", "Equivalent")
    for rules in ("resourceRules", "excludeResourceRules"):
        for rule in match.get(rules) or []:
            rule.setdefault("scope", "*")


def _without_nothing(value: Any) -> Any:
    """Without nulls, empty lists and empty maps (an empty selector selects everything, as an absent one does)."""
    if isinstance(value, Mapping):
        kept = {key: _without_nothing(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner is not None and inner != {} and inner != []}
    if isinstance(value, list):
        return [_without_nothing(inner) for inner in value]
    return value


def differences(shipped: Any, live: Any, path: str = "spec") -> Sequence[str]:
    """The paths at which two specs differ."""
    if isinstance(shipped, Mapping) and isinstance(live, Mapping):
        keys = [*shipped, *(k for k in live if k not in shipped)]
        return [d for k in keys for d in differences(shipped.get(k), live.get(k), f"{path}.{k}")]
    if isinstance(shipped, list) and isinstance(live, list):
        if len(shipped) != len(live):
            return [f"{path}: {len(live)} instead of {len(shipped)}"]
        return [d for i, (s, v) in enumerate(zip(shipped, live, strict=True)) for d in differences(s, v, f"{path}[{i}]")]
    return [] if same(shipped, live) else [path]
