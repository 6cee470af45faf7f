"""One cluster, one operator behind the fault proxy, and one run after the other, each in a namespace of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import yaml

from tests.cluster.scene import BAD, GOOD, deployment, policy
from tests.crash.oracle import AuditLog, Facts, Verdict, end_state, judge
from tests.crash.outcomes import LIMITS, USER, Outcome, Scene
from tests.crash.points import Crash, Point, points
from tools.cluster import behaviour, kubeconfig, provide
from tools.cluster.local import LocalCluster
from tools.cluster.pki import Authority
from tools.cluster.rest import Api, ApiError
from tools.faultproxy import FaultProxy, Plan
from tools.operator_process import ACCOUNT, NAMESPACE, ROOT, OperatorProcess, allow_rollback, install

Json = dict[str, Any]
OURS = "/apis/nightorders.dev/v1alpha1"
APPS = "/apis/apps/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/nightorders"
MERGE = "application/merge-patch+json"
APP = "checkout"
# One fleet for all runs: more happens within an hour than any real fleet would allow.
GENEROUS = {
    "apiVersion": "nightorders.dev/v1alpha1",
    "kind": "ClusterRemediationPolicy",
    "metadata": {"name": "tests"},
    "spec": {"fleet": {"maxConcurrent": 100, "perHour": 10000}},
}
QUICK = {"NIGHTORDERS_DETECT_AFTER_SECONDS": "0.5", "NIGHTORDERS_RECHECK_SECONDS": "2", "NIGHTORDERS_LEASE_SECONDS": "6"}
POLL = 0.1
LIMIT = 150.0  # a slot that a crash left taken is reclaimed after two minutes
STEADY = 2.0  # how long the end state of a run without a fault must hold
LATER = 2  # how many runs later the end of a run is looked at once more, and its namespace removed


@dataclass(frozen=True)
class Played:
    """A run and how it ended."""

    namespace: str
    outcome: Outcome
    facts: Facts
    points: list[Point]
    seconds: float


class World:
    """Everything that the runs share."""

    def __init__(self) -> None:
        cluster = provide(require="local")  # only a local cluster has an audit log
        assert isinstance(cluster, LocalCluster)
        assert cluster.audit_log is not None
        self.cluster = cluster
        self._end = contextlib.ExitStack()
        self._end.callback(cluster.stop)
        self.log = AuditLog(cluster.audit_log)
        self._end.callback(self.log.close)
        try:
            self._prepare()
        except BaseException:
            self._end.close()
            raise

    def _prepare(self) -> None:
        cluster = self.cluster
        install(cluster)
        allow_rollback(cluster, "default")
        cluster.apply(GENEROUS, *PULL_FAILS)
        pki = cluster.directory / "pki"
        pair = Authority.load(pki).issue("crash-approver", USER, [])
        self.admin = cluster.api()
        self.human = Api(cluster.state.server, pki / "ca.crt", pair.certificate, pair.key)
        self._end.callback(self.admin.close)
        self._end.callback(self.human.close)
        self.proxy = FaultProxy(cluster.state.server, pki / "ca.crt", kill=self.kill).start()
        self._end.callback(self.proxy.stop)
        own = json.loads(cluster.service_account(NAMESPACE, ACCOUNT).read_text())
        config = kubeconfig.with_token(
            cluster.directory / "users" / "proxied.kubeconfig",
            kubeconfig.Endpoint({"server": self.proxy.url}),
            ACCOUNT,
            own["users"][0]["user"]["token"],
        )
        self.operator = OperatorProcess(cluster, environment={**QUICK, "KUBECONFIG": str(config)}, name="crash")
        self._end.callback(self.operator.stop)
        self.bindings = [
            yaml.safe_load((ROOT / "manifests/actions/rollback-workload/rolebinding.example.yaml").read_text()),
            *(_binding(role) for role in ("nightorders-approver", "edit")),
        ]
        self._numbers = itertools.count(1)
        self._finished: deque[tuple[Played, Facts]] = deque()
        self.operator.start().wait_ready()

    def stop(self) -> None:
        """Ends everything."""
        self._end.close()

    # ------------------------------------------------------------ the operator

    def kill(self) -> None:
        """kill -9, from any thread; nobody is waited for."""
        process = self.operator.process
        if process is not None and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)

    @property
    def alive(self) -> bool:
        """Whether the operator's process runs."""
        return self.operator.process is not None and self.operator.process.poll() is None

    @property
    def leads(self) -> bool:
        """Whether it is ready and leads."""
        if not self.alive or self.operator.answer("ready")[0] != 200:
            return False
        with contextlib.suppress(OSError):
            return "nightorders_leader 1.0" in self.operator.scrape()
        return False

    def restart(self) -> None:
        """The next process. The dead one's Lease is given back for it, as if its time were over; the count of terms stays."""
        assert self.operator.process is not None
        self.operator.process.wait(10)
        with contextlib.suppress(ApiError):  # where that is refused, it waits until the Lease has run out
            self.admin.request("PATCH", LEASE, {"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}, MERGE)
        self.operator.start()

    # ------------------------------------------------------------ runs

    def play(self, outcome: Outcome, crash: Crash | None = None, expected: Facts | None = None, limit: float = LIMIT) -> Played:
        """One run in a new namespace, up to the end state of `expected`, or as far as it gets within `limit` seconds.

        Without `expected` it is a run without a fault: it is over when the outcome is reached and nothing moves any more.
        """
        run = Run(self, outcome, f"crash-{next(self._numbers)}", crash, expected)
        return run.to_the_end(limit)

    def judged(self, crash: Crash, outcome: Outcome, reference: Facts, attempts: int = 5) -> tuple[Verdict, Played, int]:
        """One plan: (verdict, run, attempts). Where the write never came, so that nothing was injected, the run is made once more."""
        for attempt in itertools.count(1):
            played = self.play(outcome, crash, reference)
            verdict = judge(played.facts, reference)
            if verdict.injected or attempt == attempts or not verdict.converged:
                self._finished.append((played, reference))
                return verdict, played, attempt
            self.remove(played.namespace)
        raise AssertionError("unreachable")

    def late(self, *, all_of_them: bool = False) -> list[tuple[str, Verdict]]:
        """Runs that ended a while ago, looked at once more: (namespace, verdict) of those where something has happened since. They are
        removed."""
        found = []
        while len(self._finished) > (0 if all_of_them else LATER):
            played, reference = self._finished.popleft()
            facts = self.facts(played.namespace, played.outcome, injected=played.facts.injected)
            before, now = judge(played.facts, reference), judge(facts, reference)
            if before.converged and not now.converged:
                found.append((played.namespace, now))
            self.remove(played.namespace)
        return found

    def remove(self, namespace: str) -> None:
        """Its namespace and what was made for it go, in the background."""
        with contextlib.suppress(ApiError):
            self.admin.request("DELETE", f"/api/v1/namespaces/{namespace}")
        self.cure(namespace)

    def cure(self, namespace: str) -> None:
        """Pods of the old release that start from now on become ready."""
        for stage in _sick(namespace):
            with contextlib.suppress(ApiError):
                self.admin.request("DELETE", f"/apis/kwok.x-k8s.io/v1alpha1/stages/{stage['metadata']['name']}")

    def facts(self, namespace: str, outcome: Outcome, *, injected: bool) -> Facts:
        """How things are in that namespace now."""
        incidents = self.incidents(namespace)
        return Facts(
            level=outcome.level,
            end=self.end(namespace),
            audited=self.log.of(namespace),
            plans={e["id"]: e["planDigest"] for i in incidents for e in i.get("status", {}).get("executions") or []},
            injected=injected,
        )

    def end(self, namespace: str) -> Json:
        """The state of that namespace now, as the oracle compares it."""
        ledger, fleet = self.get(f"{OURS}/namespaces/{namespace}/ledgers/ledger"), self.get(f"{OURS}/namespaces/{NAMESPACE}/ledgers/fleet")
        target = self.get(f"{APPS}/namespaces/{namespace}/deployments/{APP}")
        return end_state(self.incidents(namespace), target, ledger, fleet, namespace)

    def incidents(self, namespace: str) -> list[Json]:
        """The Incidents of that namespace."""
        return list(self.admin.get(f"{OURS}/namespaces/{namespace}/incidents")["items"])

    def get(self, path: str) -> Json:
        """One object; empty when it is not there."""
        try:
            return self.admin.get(path)
        except ApiError as error:
            if error.status == 404:
                return {}
            raise


class Run:
    """One run: a healthy app, a release that cannot be pulled, what the operator makes of it, and the humans in it."""

    def __init__(self, world: World, outcome: Outcome, namespace: str, crash: Crash | None, expected: Facts | None) -> None:
        self.world = world
        self.outcome = outcome
        self.namespace = namespace
        self.expected = expected
        self.notes: list[str] = []
        self._released = False
        self._deaths = 0
        self._scene: Scene | None = None
        self._crash = crash

    def to_the_end(self, limit: float) -> Played:
        """See `World.play`."""
        begin = time.monotonic()
        plan = self.world.proxy.arm(self._crash.plan(self.namespace)) if self._crash else None
        if plan is None:
            self.world.proxy.disarm()
        self._set_up()
        last: Json = {}
        since = begin
        while (now := time.monotonic()) - begin < limit:
            self._revive(plan)
            self.world.log.follow()
            self._act()
            end = self.world.end(self.namespace)
            if end != last:
                last, since = end, now
            over = end == self.expected.end if self.expected else self.outcome.reached(end) and now - since > STEADY
            # Where the fault is yet to come it may be due in this moment: the answer to the last write is on its way.
            patience = 2.0 if plan is not None and not plan.fired.is_set() else 0.0
            if self._released and over and now - since >= patience and self.world.leads:
                break
            time.sleep(POLL)
        else:
            self.notes.append(f"given up after {limit:.0f} s")
        injected = plan is not None and plan.fired.is_set()
        facts = replace(self.world.facts(self.namespace, self.outcome, injected=injected), end=last, notes=tuple(self.notes))
        writes = points(self.world.proxy.requests("write"), self.namespace)
        return Played(self.namespace, self.outcome, facts, writes, time.monotonic() - begin)

    # ------------------------------------------------------------ the stage

    def _set_up(self) -> None:
        admin, ns = self.world.admin, self.namespace
        admin.post("/api/v1/namespaces", {"metadata": {"name": ns}})
        for binding in self.world.bindings:
            admin.post(f"{RBAC}/namespaces/{ns}/rolebindings", binding)
        admin.post(
            f"{OURS}/namespaces/{ns}/remediationpolicies",
            policy(self.outcome.level, verify=self.outcome.verify, limits=LIMITS),
        )
        admin.post(f"{APPS}/namespaces/{ns}/deployments", deployment(APP, GOOD))

    def _revive(self, plan: Plan | None) -> None:
        if self.world.alive:
            return
        self._deaths += 1
        if self._deaths > 1 or plan is None or not plan.fired.wait(0.5):
            self.notes.append(f"the operator ended by itself:\n{self.world.operator.tail(15)}")
        self.world.restart()

    def _act(self) -> None:
        if not self._released:
            if self._recorded():
                self._release()
            return
        incident, target = self._incident(), self._target()
        if self._scene is None:
            self._scene = Scene(incident, target, self._annotate, self._set_image, self._renew_pods, self._cure)
        self._scene.incident, self._scene.deployment = incident, target
        if incident:
            self.outcome.human(self._scene)

    def _recorded(self) -> bool:
        """Whether the app is complete and the operator has its revision as healthy."""
        target = self._target()
        status = target.get("status", {})
        ready = status.get("availableReplicas") == target["spec"]["replicas"] == status.get("updatedReplicas")
        ledger = self.world.get(f"{OURS}/namespaces/{self.namespace}/ledgers/ledger")
        return ready and any(h["workloadUid"] == target["metadata"]["uid"] for h in ledger.get("spec", {}).get("healthyRevisions", []))

    def _release(self) -> None:
        if self.outcome.sick:
            self.world.cluster.apply(*_sick(self.namespace))
        self._released = self._patch(self.world.admin, self._target_path(), _image(BAD))

    def _target_path(self) -> str:
        return f"{APPS}/namespaces/{self.namespace}/deployments/{APP}"

    def _target(self) -> Json:
        return self.world.get(self._target_path())

    def _incident(self) -> Json:
        return next(iter(self.world.incidents(self.namespace)), {})

    # ------------------------------------------------------------ people

    def _annotate(self, incident: Json, notes: dict[str, str]) -> bool:
        path = f"{OURS}/namespaces/{self.namespace}/incidents/{incident['metadata']['name']}"
        return self._patch(self.world.human, path, {"metadata": {"annotations": notes}})

    def _set_image(self, image: str) -> bool:
        return self._patch(self.world.human, self._target_path(), _image(image))

    def _cure(self) -> bool:
        self.world.cure(self.namespace)
        self.world.cluster.apply(*PULL_FAILS)  # nothing new: makes the simulator look at its stages again
        return True

    def _renew_pods(self) -> bool:
        self.world.admin.request("DELETE", f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=app%3D{APP}")
        return True

    def _patch(self, who: Api, path: str, body: Json) -> bool:
        """Whether the API server took it; a refusal is noted."""
        who.close()  # over a new connection: one that was idle for long may be closed by the server, and a write is not made again
        try:
            who.request("PATCH", path, body, "application/strategic-merge-patch+json" if "/apps/" in path else MERGE)
        except ApiError as refused:
            self.notes.append(f"refused: {refused}")
            return False
        return True


def _image(image: str) -> Json:
    return {"spec": {"template": {"spec": {"containers": [{"name": APP, "image": image}]}}}}


def _binding(role: str) -> Json:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{role}-{USER}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    }


def _everywhere(stages: list[Json]) -> list[Json]:
    """A behaviour of one namespace for all of them: hundreds of runs need it, and the simulator asks every stage about every pod."""
    for stage in stages:
        selector = stage["spec"]["selector"]
        selector["matchExpressions"] = [e for e in selector["matchExpressions"] if e["key"] != ".metadata.namespace"]
    return stages


PULL_FAILS = _everywhere(behaviour.image_missing("everywhere", BAD))


def _sick(namespace: str) -> list[Json]:
    return behaviour.never_ready(namespace, GOOD)
