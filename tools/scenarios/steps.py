"""Carries out the steps of a scenario, with kubectl and as a user of their own: the audit log and field managers then read as usual."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tools.cluster import KubectlError
from tools.cluster.interface import Cluster
from tools.scenarios import checks
from tools.scenarios.errors import StepError
from tools.scenarios.kube import Kube, Ref
from tools.scenarios.load import Scenario, expand_pods
from tools.scenarios.model import Patch, Step

Json = dict[str, Any]
SIMULATOR = "kwok.x-k8s.io/"
_KUBECTL_SECONDS = 90.0


class Stage:
    """Where the steps of one run happen."""

    def __init__(self, cluster: Cluster, kube: Kube, user: Path, scenario: Scenario, suffix: str = "") -> None:
        self.cluster = cluster
        self.kube = kube
        self.user = user
        self.scenario = scenario
        self.namespace = scenario.namespace
        self.suffix = suffix  # of simulator objects, which are cluster-scoped: two runs of one scenario must not share them
        self.simulation: list[Json] = []  # applied, to be removed at the end

    def objects(self, name: str) -> list[Json]:
        """The objects of a file, as of now."""
        return self.scenario.objects(name, lambda selector: self.kube.pod(self.namespace, selector))

    # ------------------------------------------------------------ manifests

    def apply(self, name: str, *, namespaced: bool = True) -> None:
        """Applies a file; simulator objects in it go to the simulator. Raises StepError."""
        found = self.objects(name)
        self.simulate([o for o in found if o["apiVersion"].startswith(SIMULATOR)])
        rest = [o for o in found if not o["apiVersion"].startswith(SIMULATOR)]
        if rest:
            where = ["-n", self.namespace] if namespaced else []
            self.kubectl(*where, "apply", "-f", "-", stdin=yaml.safe_dump_all(rest, sort_keys=False), what=f"apply {name}")

    def simulate(self, objects: list[Json]) -> None:
        """Tells the simulator how pods of this namespace behave."""
        if not objects:
            return
        mine = [self.own(one) for one in objects]
        try:
            self.cluster.apply(*mine)
        except KubectlError as problem:
            raise StepError(f"behaviour: {problem}") from None
        known = {(o["kind"], o["metadata"]["name"]) for o in self.simulation}
        self.simulation += [o for o in mine if (o["kind"], o["metadata"]["name"]) not in known]

    def own(self, one: Json) -> Json:
        """A simulator object that holds for this run only.

        Stages are cluster-scoped: one for pods without a condition on the namespace would rule the pods of every other run.
        """
        metadata = dict(one["metadata"])
        if one["kind"] in ("Logs", "Attach", "Exec", "PortForward", "ResourceUsage"):
            return {**one, "metadata": {"namespace": self.namespace, **metadata}}
        metadata["name"] = self.own_name(metadata["name"])
        if one["kind"] != "Stage" or one["spec"].get("resourceRef", {}).get("kind") not in (
            "Pod",
            "Job",
            "PersistentVolumeClaim",
            "Service",
        ):
            return {**one, "metadata": metadata}
        spec = dict(one["spec"])
        selector = dict(spec.get("selector") or {})
        expressions = list(selector.get("matchExpressions") or [])
        if not any(".metadata.namespace" in e.get("key", "") for e in expressions):
            expressions.insert(0, {"key": ".metadata.namespace", "operator": "In", "values": [self.namespace]})
        return {**one, "metadata": metadata, "spec": {**spec, "selector": {**selector, "matchExpressions": expressions}}}

    def own_name(self, name: str) -> str:
        """The name of a cluster-scoped simulator object in this run."""
        return f"{name}-{self.suffix}" if self.suffix else name

    # ------------------------------------------------------------ steps

    def carry_out(self, steps: Iterable[Step]) -> None:
        """Carries out steps in order. Raises StepError that names the step."""
        for number, step in enumerate(steps, 1):
            try:
                self.one(step)
            except StepError as problem:
                raise StepError(f"step {number}: {problem}") from None

    def one(self, step: Step) -> None:
        """One step."""
        if step.apply is not None:
            self.apply(step.apply)
        elif step.patch is not None:
            self.patch(step.patch)
        elif step.delete is not None:
            self.delete(step.delete)
        elif step.run is not None:
            self.run(step.run)
        elif step.wait is not None:
            time.sleep(step.wait)
        elif step.until is not None:
            left = checks.wait(self.kube, [step.until], self.namespace, step.until.within)
            if left:
                raise StepError(f"not within {step.until.within:g} s: {'; '.join(left)}")

    def patch(self, patch: Patch) -> None:
        """A patch as kubectl sends it."""
        body = self.expanded(json.dumps(patch.patch))
        extra = [f"--subresource={patch.subresource}"] if patch.subresource else []
        what, *where = self._target(patch.object)
        self.kubectl(*where, "patch", what, f"--type={patch.type}", f"--patch={body}", *extra, what=f"patch {patch.object}")

    def delete(self, reference: str) -> None:
        """Deletes an object and waits until it is gone."""
        what, *where = self._target(reference)
        self.kubectl(*where, "delete", what, "--timeout=60s", what=f"delete {reference}")

    def run(self, command: tuple[str, ...], *, namespaced: bool = True) -> None:
        """kubectl with -n NAMESPACE after the first word."""
        words = [self.expanded(word) for word in command[1:]]
        self.kubectl(*(["-n", self.namespace] if namespaced else []), *words, what=" ".join(command))

    def expanded(self, text: str) -> str:
        """${POD:selector}, as of now."""
        return expand_pods(text, lambda selector: self.kube.pod(self.namespace, selector))

    def _target(self, reference: str) -> list[str]:
        """[resource/name, -n, namespace] for kubectl."""
        ref = Ref.parse(self.expanded(reference), self.namespace)
        kind = self.kube.kind(ref.kind)
        name = self.own_name(ref.name) if kind.group == SIMULATOR.rstrip("/") and not kind.namespaced else ref.name
        resource = f"{kind.plural}.{kind.version}.{kind.group}" if kind.group else kind.plural
        return [f"{resource}/{name}", *(["-n", ref.namespace] if kind.namespaced else [])]

    def kubectl(self, *args: str, what: str, stdin: str | None = None) -> str:
        """kubectl as the scenario's user. Raises StepError with what kubectl said."""
        try:
            return self.cluster.kubectl(*args, stdin=stdin, kubeconfig=self.user, timeout=_KUBECTL_SECONDS).stdout
        except KubectlError as problem:
            raise StepError(f"{what}: {(problem.stderr or problem.output or '').strip()[:600]}") from None
        except subprocess.TimeoutExpired:
            raise StepError(f"{what}: no answer within {_KUBECTL_SECONDS:.0f} s") from None

    def remove_simulation(self) -> None:
        """Takes the behaviour of this run's pods away again."""
        names = [f"{o['kind'].lower()}.kwok.x-k8s.io/{o['metadata']['name']}" for o in self.simulation if "namespace" not in o["metadata"]]
        if names:
            self.cluster.kubectl("delete", "--ignore-not-found", "--wait=false", *names, check=False)
        self.simulation = []
