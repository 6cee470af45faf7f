"""Where the demo plays: the cluster, the operator in it, its people, and a shell that runs what is shown."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from demo.arguments import ACTS
from tools.cluster import Cluster, ClusterError, attach, behaviour, build, provide, supervision
from tools.cluster.errors import KubectlError
from tools.cluster.local import LocalCluster
from tools.cluster.named import VARIABLE
from tools.cluster.paths import state_directory, temporary_directory
from tools.cluster.rest import ApiError
from tools.cluster.supervision import Supervision
from tools.operator_process import ACCOUNT, NAMESPACE, ROOT, OperatorProcess, install, wait_guarded

Json = dict[str, Any]
Progress = Callable[[str], None]
OPERATOR = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
PEOPLE = ("ann", "bob", "dan")
NAMESPACES = {"L3": "shop", "L1": "shop-l1", "L2": "shop-l2", "L4": "shop-l4", "cause": "shop-cause"}
_PROGRAM = "nightorders"
_STOP_SECONDS = 10.0
_COMMAND_SECONDS = 120.0


class NotPlayed(Exception):
    """The demo cannot be played here; the text is the reason and what to do."""


class Failed(Exception):
    """A step did not go as it must for the next one to make sense."""


@dataclass(frozen=True)
class Images:
    """What is released. On simulated nodes no registry is asked; on real ones the good image must be there."""

    good: str
    bad: str

    @classmethod
    def of(cls, cluster: Cluster) -> Images:
        name, tag = ("registry.example/checkout", "2.4.0") if cluster.simulated else ("registry.k8s.io/pause", "3.10")
        return cls(f"{name}:{tag}", f"{name}:{tag[:-1]}O")


class SupervisedOperator(OperatorProcess):
    """The operator as a child of the local cluster's supervisor: it lives exactly as long as its cluster, whatever becomes of us."""

    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__(cluster)
        self._supervision = Supervision(cluster.directory)
        self.log = cluster.directory / "log" / f"{_PROGRAM}.log"

    def start(self) -> SupervisedOperator:
        """See `OperatorProcess.start`."""
        self._supervision.spawn(_PROGRAM, [sys.executable, "-m", "nightorders", "run"], self._environment)
        return self

    def stop(self) -> int | None:
        """See `OperatorProcess.stop`."""
        self._supervision.stop_process(_PROGRAM, _STOP_SECONDS)
        super().stop()
        return self._supervision.status()[_PROGRAM]


@dataclass(frozen=True)
class Answer:
    """What a command printed, standard error included, and how it ended."""

    text: str
    status: int

    @property
    def refused(self) -> bool:
        return self.status != 0


class World:
    """One cluster with the operator in it. `start` makes it, `close` ends it."""

    def __init__(self, cluster: Cluster, images: Images, kubectl: Path) -> None:
        self.cluster = cluster
        self.images = images
        self.kubectl_program = kubectl
        self.operator: OperatorProcess | None = None
        self.people: dict[str, Path] = {}
        self._cache = temporary_directory("demo")
        self._api = cluster.api() if isinstance(cluster, LocalCluster) else None

    # ------------------------------------------------------------ making it

    @classmethod
    def start(cls, name: str, *, keep: bool, provider: str, progress: Progress) -> World:
        """A cluster, with nothing of ours in it yet. Raises NotPlayed, ClusterError."""
        cluster = provide(name=name, keep=keep, require=provider, progress=progress)
        try:
            if cluster.provider == "kubeconfig":
                _nothing_of_ours(cluster)
            return cls(cluster, Images.of(cluster), build.kubectl(progress))
        except BaseException:
            cluster.stop()
            raise

    def install(self) -> None:
        """CRDs, roles, admission policies, level L1, as users get them; and the roles of the one action there is."""
        install(self.cluster)
        if not self.cluster.simulated:  # there the Deployment would start, and there is no image of it in any registry
            self.cluster.kubectl("-n", NAMESPACE, "scale", "deployment/nightorders", "--replicas=0")
            wait_guarded(self.cluster)
        self.cluster.kubectl("apply", "--server-side", "-k", str(ROOT / "manifests/actions/rollback-workload"))
        self.people = {person: self.cluster.user(person) for person in PEOPLE}

    def start_operator(self) -> None:
        """The operator, ready and leading."""
        self.operator = SupervisedOperator(self.cluster) if isinstance(self.cluster, LocalCluster) else OperatorProcess(self.cluster)
        self.operator.start()
        self.operator.wait_ready()

    def close(self) -> None:
        """Ends all of it. On a cluster that is not ours to end, takes away what was brought."""
        if self.operator is not None:
            with contextlib.suppress(ClusterError):
                self.operator.stop()
        if self.cluster.provider == "kubeconfig":
            self._take_away()
        self.cluster.stop()

    def _take_away(self) -> None:
        spaces = [NAMESPACES[act] for act in ACTS]
        for arguments in (
            ["delete", "namespace", *spaces],
            ["delete", "-k", str(ROOT / "manifests/actions/rollback-workload")],
            ["delete", "-k", str(ROOT / "manifests/install")],
        ):
            self.cluster.kubectl(*arguments, "--ignore-not-found", timeout=180)
        requests = [f"nightorders-test-{path.stem.rpartition('-')[2]}" for path in self.people.values()]  # as tools.cluster names them
        if requests:
            self.cluster.kubectl("delete", "csr", *requests, "--ignore-not-found")
        if self.cluster.simulated:
            stages = [one["metadata"]["name"] for space in spaces for one in behaviour.image_missing(space, self.images.bad)]
            self.cluster.kubectl("delete", "stages.kwok.x-k8s.io", *stages, "--ignore-not-found", check=False)

    # ------------------------------------------------------------ using it

    def shell(self, command: str, who: str = "") -> Answer:
        """Runs a command line in bash, in the root of the repository, as that person (default: the administrator)."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=ROOT,
            env=self._environment(self.kubeconfig(who)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        return Answer(done.stdout, done.returncode)

    def _environment(self, kubeconfig: Path) -> dict[str, str]:
        own = [str(self.kubectl_program.parent), str(Path(sys.executable).parent)]
        return {
            **os.environ,
            "PATH": os.pathsep.join([*own, os.environ.get("PATH", "")]),
            "KUBECONFIG": str(kubeconfig),
            "KUBECACHEDIR": str(self._cache),
            "NO_COLOR": "1",
        }

    def session(self, who: str) -> list[str]:
        """What a human types first in a terminal to be that person, with the same kubectl and nightorders."""
        lines = [f"export KUBECONFIG={self.kubeconfig(who)}"]
        missing = [p for p in (self.kubectl_program, Path(sys.executable).parent / "nightorders") if not on_path(p)]
        if missing:
            lines.append(f"export PATH={':'.join(str(p.parent) for p in missing)}:$PATH")
        return lines

    def kubeconfig(self, who: str) -> Path:
        """Of a person, of the operator's own account (`operator`), or of the administrator."""
        if who == "operator":
            return self.cluster.service_account(NAMESPACE, ACCOUNT)
        return self.people[who] if who else self.cluster.kubeconfig

    def get(self, path: str) -> Json:
        """What the API server has at that path; empty when there is nothing. Without kubectl where possible: it is asked often."""
        if self._api is None:
            done = self.cluster.kubectl("get", "--raw", path, check=False)
            found: Json = json.loads(done.stdout) if done.returncode == 0 else {}
            return found
        try:
            return self._api.get(path)
        except ApiError as problem:
            if problem.status == HTTPStatus.NOT_FOUND:
                return {}
            raise

    def incidents(self, namespace: str) -> list[Json]:
        """All Incidents there."""
        items: list[Json] = self.get(f"/apis/nightorders.dev/v1alpha1/namespaces/{namespace}/incidents").get("items", [])
        return items

    def deployment(self, namespace: str, name: str) -> Json:
        """One Deployment."""
        return self.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")

    def image(self, namespace: str) -> str:
        """What checkout asks for now."""
        return str(self.deployment(namespace, "checkout")["spec"]["template"]["spec"]["containers"][0]["image"])

    def recorded_healthy(self, namespace: str, name: str) -> bool:
        """Whether the operator has written down that the workload's present release was healthy."""
        uid = self.deployment(namespace, name).get("metadata", {}).get("uid")
        ledger = self.get(f"/apis/nightorders.dev/v1alpha1/namespaces/{namespace}/ledgers/ledger")
        return any(one["workloadUid"] == uid for one in ledger.get("spec", {}).get("healthyRevisions", []))

    def orders_ready(self, namespace: str) -> bool:
        """Whether the operator has read the namespace's night orders and says so."""
        policies = self.get(f"/apis/nightorders.dev/v1alpha1/namespaces/{namespace}/remediationpolicies").get("items", [])
        return bool(policies) and all(
            any(c["type"] == "Ready" and c["status"] == "True" for c in one.get("status", {}).get("conditions", [])) for one in policies
        )

    def image_will_be_missing(self, namespace: str) -> None:
        """Simulated nodes must be told what a registry would answer; real ones ask it."""
        if self.cluster.simulated:
            self.cluster.apply(*behaviour.image_missing(namespace, self.images.bad))


# ---------------------------------------------------------------- before and after


def choose_provider(asked: str | None, name: str, *, keep: bool) -> str:
    """Where the cluster comes from: what was asked for, else the cluster that the user names, else a local one.

    Raises NotPlayed where nothing can be played there now.
    """
    provider = asked or ("kubeconfig" if os.environ.get(VARIABLE) else "local")
    if keep and provider != "local":
        raise NotPlayed(f"KEEP=1 is for local clusters, and {VARIABLE} is set: there the operator is this program's child and ends with it")
    if provider == "local":
        _nobody_plays(name)
    return provider


def _nobody_plays(name: str) -> None:
    """Raises NotPlayed where a demo of that name runs, or is kept."""
    try:
        found = attach(name)
    except ClusterError:
        return
    if isinstance(found, LocalCluster) and not found.state.keep:
        raise NotPlayed(f"a demo is running already (process {found.state.creator.pid}); end it there with Ctrl-C, or take another --name")
    raise NotPlayed(
        f"the cluster of an earlier demo was kept and still runs: KUBECONFIG={found.kubeconfig}. Its acts are played already; "
        f"to play again end it first: {down_command(name)}"
    )


def _nothing_of_ours(cluster: Cluster) -> None:
    """Raises NotPlayed where the named cluster has nightorders, or a namespace that the demo would make and delete."""
    taken = [n for n in (NAMESPACE, *NAMESPACES.values()) if cluster.kubectl("get", "namespace", n, check=False).returncode == 0]
    crds = cluster.kubectl("get", "crd", "incidents.nightorders.dev", check=False).returncode == 0
    if taken or crds:
        what = [f"namespace {name}" for name in taken] + (["the CustomResourceDefinitions of nightorders"] if crds else [])
        raise NotPlayed(
            f"the cluster that {VARIABLE} names has {', '.join(what)} already. The demo installs nightorders and removes it again, so it "
            "does not touch an installation that is there"
        )


def end_kept(name: str) -> str:
    """Ends the cluster that was kept, with the operator in it; safe to repeat. Returns what was done. Raises NotPlayed."""
    leftovers = supervision.reap()  # of a cluster whose supervisor was killed
    try:
        found = attach(name)
    except ClusterError:
        return "removed what was left of the demo" if name in leftovers else "nothing to end: no demo is kept"
    if isinstance(found, LocalCluster) and not found.state.keep:
        raise NotPlayed(
            f"a demo is running (process {found.state.creator.pid}) that was not asked to be kept: it ends by itself, or with Ctrl-C there"
        )
    found.stop()
    return f"ended the operator and cluster {name}; nothing of them is left in {state_directory(name).parent}"


def down_command(name: str) -> str:
    """What ends a kept demo of that name."""
    return "make demo-down" if name == "demo" else f"{Path(sys.executable).name} -m demo --down --name {name}"


def on_path(program: Path) -> bool:
    """Whether a human who types the program's name gets this one."""
    return shutil.which(program.name) == str(program)


__all__ = ["Answer", "Failed", "Images", "KubectlError", "NotPlayed", "World"]
