"""The local provider: a real control plane as ordinary processes on loopback, with simulated nodes.

No root, no container engine. etcd, API server, controller manager and scheduler are the real programs;
kwok plays the kubelets, so pods go through their lives without anything being run.
"""

from __future__ import annotations

import functools
import http.client
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.cluster import build, kubeconfig, stages, supervision
from tools.cluster.base import KubectlCluster
from tools.cluster.errors import ClusterError
from tools.cluster.paths import new_data_directory
from tools.cluster.pki import Authority, signing_keys
from tools.cluster.processes import ProcessId
from tools.cluster.rest import Api, ApiError
from tools.cluster.supervision import State, Supervision

Progress = Callable[[str], None]

HOST = "127.0.0.1"
_SERVICE_NETWORK = "10.96.0.0/16"
_SERVICE_IP = "10.96.0.1"  # the first of it: the API server's own Service
_POD_NETWORK = "10.244.0.0/16"
_START_SECONDS = 60.0
_POLL_SECONDS = 0.05
_NUDGE_SECONDS = 0.5
_NUDGE_PAUSE_SECONDS = 0.05
_STAGES = "/apis/kwok.x-k8s.io/v1alpha1/stages"
# Less memory for a little more collection: 245 MiB in place of 298 for the API server.
_GO_ENVIRONMENT = {"GOGC": "50"}
_REPOSITORY = Path(__file__).resolve().parents[2]
_AUDIT_POLICY = Path(__file__).with_name("audit-policy.yaml")

# What a Deployment and its like need; the rest would only take memory and processor.
_CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-cleaner-controller",
    "certificatesigningrequest-signing-controller",
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "replicationcontroller-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "taint-eviction-controller",
    "ttl-after-finished-controller",
    "validatingadmissionpolicy-status-controller",
)
_LISTENERS = ("kube-apiserver", "etcd", "etcd-peer", "kube-controller-manager", "kube-scheduler", "kwok")
# What kwok is told through the API, kind and resource. Each one costs time at the start and memory; kwok
# has more (Metric, Exec, ...), whose definitions are kept beside its program too.
_KWOK_RESOURCES = {"Stage": "stages", "Logs": "logs", "ClusterLogs": "clusterlogs"}


class LocalCluster(KubectlCluster):
    """A running local cluster; see `tools.cluster.interface.Cluster`."""

    def __init__(self, directory: Path, state: State, supervised: Supervision) -> None:
        super().__init__(
            name=state.name,
            provider="local",
            kubeconfig=directory / "kubeconfig",
            kubectl=Path(state.kubectl),
            files=directory,
            simulated=True,
        )
        self.audit_log = directory / "audit.jsonl"
        self.directory = directory
        self.state = state
        self._supervised = supervised

    def user(self, name: str, *groups: str) -> Path:
        """See `Cluster.user`."""
        stem = kubeconfig.file_stem(name, groups)
        pair = Authority.load(self.directory / "pki").issue(f"user-{stem}", name, groups)
        path = self.directory / "users" / f"{stem}.kubeconfig"
        return kubeconfig.with_certificate(path, self._endpoint(), name, pair)

    def api(self) -> Api:
        """The API server as administrator, without kubectl."""
        return _api(self.directory, self.state.server, "admin")

    def restart_apiserver(self) -> None:
        """See `Cluster.restart_apiserver`."""
        self.stop_apiserver()
        self.start_apiserver()

    def stop_apiserver(self) -> None:
        """Kill the API server. Everything that talks to it sees its connections break."""
        self.stop_program("kube-apiserver")

    def start_apiserver(self) -> None:
        """Start the API server after `stop_apiserver`; ready when this returns."""
        self.start_program("kube-apiserver")

    def stop_program(self, name: str) -> None:
        """Kill one program of the cluster, a key of PROGRAMS, without any chance to say goodbye."""
        self._supervised.stop_process(name)

    def start_program(self, name: str) -> None:
        """Start a program after `stop_program`, as it was. Only kwok and the API server are waited for."""
        starting = _Start(self.directory, self.state, self._supervised, lambda _: None)
        if name == "kwok":
            starting.start_simulator()
            starting.wait_simulating()
            return
        _spawn(self._supervised, name, self.directory, self.state)
        if name == "kube-apiserver":
            starting.wait_ready("/readyz")

    def stop(self) -> None:
        """See `Cluster.stop`: some 0.1 s, nothing is left behind."""
        self._supervised.shutdown()

    def _simulation_changed(self) -> None:
        _nudge(self.api())

    def _endpoint(self) -> kubeconfig.Endpoint:
        return kubeconfig.Endpoint.of(self.state.server, (self.directory / "pki" / "ca.crt").read_bytes())


def start(name: str, *, nodes: int, keep: bool, progress: Progress, host: str = HOST) -> LocalCluster:
    """Start a local cluster: about 3 s once its programs are built.

    `host` is the address of the API server. On loopback it is nobody else's business; a real kubelet with
    a network of its own needs another one.

    Raises ClusterError, with the end of the log of the program that failed. Nothing is left then.
    """
    programs = build.ensure("control-plane", progress)
    kubectl = build.kubectl(progress)
    for reaped in supervision.reap():
        progress(f"removed what was left of cluster {reaped}")
    directory = supervision.create_directory(name)
    supervised: Supervision | None = None
    try:
        state = _new_state(directory, nodes=nodes, keep=keep, host=host, programs=programs, kubectl=kubectl)
        supervised = Supervision.start(directory, Path(state.data), keep=keep)
        _Start(directory, state, supervised, progress).run()
    except BaseException:
        # Interrupts too: a cluster that is half there must not stay.
        if supervised is not None:
            supervised.shutdown()
        else:
            supervision.remove(directory)
        raise
    return LocalCluster(directory, state, supervised)


def _new_state(directory: Path, *, nodes: int, keep: bool, host: str, programs: Path, kubectl: Path) -> State:
    """The state of a new cluster, as it is left in its directory."""
    ports = supervision.reserve_ports(directory, _LISTENERS, host)
    state = State(
        name=directory.name,
        keep=keep,
        creator=ProcessId.current(),
        host=host,
        server=f"https://{host}:{ports['kube-apiserver']}",
        ports=ports,
        data=str(new_data_directory(directory.name, directory)),
        nodes=nodes,
        programs=str(programs),
        kubectl=str(kubectl),
    )
    state.write(directory)
    return state


def attach(directory: Path) -> LocalCluster:
    """The running cluster of that state directory. Raises ClusterError when there is none."""
    try:
        live = supervision.is_live(directory)
        state = State.read(directory)
    except (FileNotFoundError, ValueError):
        live = False
    if not live:
        raise ClusterError(f"no local cluster named {directory.name!r} runs; `python -m tools.cluster list` shows those that do")
    return LocalCluster(directory, state, Supervision(directory))


class _Start:
    """The start of one cluster, step by step. The order of the steps matters; see `run`."""

    def __init__(self, directory: Path, state: State, supervised: Supervision, progress: Progress) -> None:
        self.directory = directory
        self.state = state
        self.supervised = supervised
        self.progress = progress
        self._begin = time.monotonic()
        self._nudged = self._begin
        self._kwok_log = directory / "log" / "kwok.log"
        self._kwok_log_begin = 0

    @functools.cached_property
    def api(self) -> Api:
        """The API server as administrator; not before its certificate is there."""
        return _api(self.directory, self.state.server, "admin")

    def run(self) -> None:
        directory, state = self.directory, self.state
        self._spawn("etcd")  # boots while the certificates are made
        _write_identities(directory, state)
        self._spawn("kube-apiserver")
        self.wait_ready("/livez/ping")
        # The administrator needs no RBAC, whose default roles are still being written.
        self._simulate_nodes()
        # Only now: controllers that start before the default roles are there are refused, and then wait
        # for 1-2 s before they ask again.
        self.wait_ready("/readyz")
        self._spawn("kube-controller-manager")
        self._spawn("kube-scheduler")
        self._spawn("references")
        self._settle()
        self.progress(f"cluster {state.name} is up after {time.monotonic() - self._begin:.1f} s")

    def _spawn(self, name: str) -> None:
        _spawn(self.supervised, name, self.directory, self.state)

    def wait_ready(self, path: str) -> None:
        """Wait until the API server answers that path with 200."""

        def ready() -> bool:
            self.api.get(path)
            return True

        self._until(ready, f"the API server does not answer {path}", "kube-apiserver")

    def _simulate_nodes(self) -> None:
        for number in range(self.state.nodes):
            self.api.post("/api/v1/nodes", stages.node(f"node-{number}", _kubernetes_version()))
        programs = Path(self.state.programs)
        for definition in json.loads((programs / build.CRDS).read_text()):
            if definition["spec"]["names"]["kind"] in _KWOK_RESOURCES:
                self.api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
        for resource in _KWOK_RESOURCES.values():
            # New resources answer 404 and then 429 for some 100 ms.
            self._until(lambda: self._served(resource), f"{resource} are not served", "kube-apiserver")  # noqa: B023
        for stage in stages.defaults(json.loads((programs / build.STAGES).read_text())):
            self.api.post(_STAGES, stage)
        self.start_simulator()

    def start_simulator(self) -> None:
        """Start kwok. It simulates only after `wait_simulating`."""
        self._kwok_log_begin = self._kwok_log.stat().st_size if self._kwok_log.exists() else 0
        self._spawn("kwok")
        self._nudged = time.monotonic()

    def wait_simulating(self) -> None:
        """Wait until kwok simulates nodes and pods; see `_nudge` for why that takes more than patience."""
        self._until(self._simulating, "kwok does not simulate", "kwok")
        _nudge(self.api)

    def _simulating(self) -> bool:
        log = self._kwok_log.read_bytes()[self._kwok_log_begin :].decode(errors="replace")
        started = [line for line in log.splitlines() if '"Start stage controller"' in line]
        if all(any(f'"Kind":"{kind}"' in line for line in started) for kind in ("Node", "Pod")):
            return True
        if time.monotonic() > self._nudged + _NUDGE_SECONDS:
            _nudge(self.api)
            self._nudged = time.monotonic()
        return False

    def _served(self, resource: str) -> bool:
        self.api.get(f"/apis/kwok.x-k8s.io/v1alpha1/{resource}")
        return True

    def _settle(self) -> None:
        """Wait for what the first pods need.

        Without the ServiceAccount they are refused (and tried again later and later), and on nodes with
        a not-ready taint the scheduler gives up on them for at least a second.
        """

        def settled() -> bool:
            self.api.get("/api/v1/namespaces/default/serviceaccounts/default")
            nodes = self.api.get("/api/v1/nodes")["items"]
            return len(nodes) >= self.state.nodes and all(_takes_pods(node) for node in nodes)

        self.wait_simulating()
        self._until(settled, "the nodes do not become ready", "kwok", "kube-controller-manager", "kube-scheduler")

    def _until(self, holds: Callable[[], bool], otherwise: str, *needed: str) -> None:
        """Poll until `holds`; errors of the API server count as not yet. Raises ClusterError."""
        end = time.monotonic() + _START_SECONDS
        last = ""
        while time.monotonic() < end:
            try:
                if holds():
                    return
            except (ApiError, OSError, http.client.HTTPException) as problem:
                last = f": {problem}"
            for name in ("etcd", *needed):
                self.supervised.check_running(name)
            time.sleep(_POLL_SECONDS)
        logs = "".join(f"\n{name}: {supervision.log_tail(self.directory, name, 4)}" for name in needed)
        raise ClusterError(f"{otherwise} after {_START_SECONDS:.0f} s{last}{logs}")


def _nudge(api: Api) -> None:
    """Make kwok look at its stages again, by changes to one of them that mean nothing.

    kwok 0.8 keeps the list of stages by the version of what it has seen last, and can see a new version a
    moment before it has the new stage in its store. A list made in that moment would be kept without that
    stage until the version changes again: a behaviour would be ignored, or at a start everything. After two
    changes with a pause between them the list has what was there before the first.
    """
    for number in range(2):
        change = {"metadata": {"annotations": {"testcluster.nightorders.dev/nudge": f"{time.time()}-{number}"}}}
        api.request("PATCH", f"{_STAGES}/{stages.POD_READY}", change, "application/merge-patch+json")
        time.sleep(_NUDGE_PAUSE_SECONDS)


def _takes_pods(node: dict[str, Any]) -> bool:
    """Whether a node is ready and untainted: new nodes are for a moment neither tainted nor ready."""
    conditions = node["status"].get("conditions") or []
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and not node["spec"].get("taints")


def _api(directory: Path, server: str, identity: str) -> Api:
    pki = directory / "pki"
    return Api(server, pki / "ca.crt", pki / f"{identity}.crt", pki / f"{identity}.key")


def _kubernetes_version() -> str:
    module_file = (build.MODULES / "kubernetes" / "go.mod").read_text()
    return build.pinned_version(module_file, "k8s.io/kubernetes")


def _write_identities(directory: Path, state: State) -> None:
    """Certificates and kubeconfigs of the control plane and the administrator."""
    authority = Authority.create(directory / "pki")
    service = "kubernetes.default.svc"
    names = [
        *dict.fromkeys([HOST, state.host]),
        _SERVICE_IP,
        "localhost",
        "kubernetes",
        "kubernetes.default",
        service,
        f"{service}.cluster.local",
    ]
    authority.issue("apiserver", "kube-apiserver", hosts=names)
    authority.issue("kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"])
    authority.issue("front-proxy", "front-proxy-client")
    authority.issue("kwok-serving", "kwok", hosts=[HOST, "localhost"])
    authority.issue("references", "system:kubelet-simulator", ["system:masters"])
    signing_keys(directory / "pki")
    endpoint = kubeconfig.Endpoint.of(state.server, authority.certificate_file.read_bytes())
    for file, user, groups in (
        ("controller-manager", "system:kube-controller-manager", []),
        ("scheduler", "system:kube-scheduler", []),
        ("kwok", "system:kwok", ["system:masters"]),
        ("admin", "admin", ["system:masters"]),
    ):
        pair = authority.issue(file, user, groups)
        kubeconfig.with_certificate(directory / f"{file}.kubeconfig", endpoint, user, pair)
    (directory / "admin.kubeconfig").rename(directory / "kubeconfig")
    (directory / "audit-policy.yaml").write_text(_AUDIT_POLICY.read_text())


# ---------------------------------------------------------------- command lines
# All programs run in the state directory, so paths in it can be relative.


def _etcd(_directory: Path, state: State) -> list[str]:
    client = f"http://{HOST}:{state.ports['etcd']}"
    peer = f"http://{HOST}:{state.ports['etcd-peer']}"
    return [
        f"{state.programs}/etcd",
        "--name=default",
        f"--data-dir={state.data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # the data is thrown away
        "--log-level=error",
        "--heartbeat-interval=50",
        "--election-timeout=250",
        "--snapshot-count=10000",
        f"--quota-backend-bytes={512 * 1024 * 1024}",
    ]


def _apiserver(directory: Path, state: State) -> list[str]:
    return [
        f"{state.programs}/kube-apiserver",
        f"--etcd-servers=http://{HOST}:{state.ports['etcd']}",
        f"--bind-address={state.host}",
        f"--secure-port={state.ports['kube-apiserver']}",
        f"--advertise-address={state.host}",
        f"--service-cluster-ip-range={_SERVICE_NETWORK}",
        # A loopback address is no valid endpoint of the Service `kubernetes`.
        f"--endpoint-reconciler-type={'none' if state.host.startswith('127.') else 'lease'}",
        "--tls-cert-file=pki/apiserver.crt",
        "--tls-private-key-file=pki/apiserver.key",
        "--client-ca-file=pki/ca.crt",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--service-account-key-file=pki/sa.pub",
        "--service-account-signing-key-file=pki/sa.key",
        "--kubelet-client-certificate=pki/kubelet-client.crt",
        "--kubelet-client-key=pki/kubelet-client.key",
        "--kubelet-certificate-authority=pki/ca.crt",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
        "--requestheader-client-ca-file=pki/ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--proxy-client-cert-file=pki/front-proxy.crt",
        "--proxy-client-key-file=pki/front-proxy.key",
        f"--audit-policy-file={directory}/audit-policy.yaml",
        f"--audit-log-path={directory}/audit.jsonl",
        "--audit-log-mode=blocking",  # what a test reads must have been written
        "--audit-log-maxsize=4096",  # MB, in place of 100: what a test counts must not be rotated away
        "--allow-privileged=true",
        "--profiling=false",
        # Less work and memory for a cluster of one user.
        "--enable-priority-and-fairness=false",
        "--etcd-compaction-interval=0",
        "--etcd-count-metric-poll-period=0",
        "--etcd-db-metric-poll-interval=0",
    ]


def _controller_manager(_directory: Path, state: State) -> list[str]:
    return [
        f"{state.programs}/kube-controller-manager",
        "--kubeconfig=controller-manager.kubeconfig",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        "--service-account-private-key-file=pki/sa.key",
        "--root-ca-file=pki/ca.crt",
        "--cluster-signing-cert-file=pki/ca.crt",
        "--cluster-signing-key-file=pki/ca.key",
        f"--bind-address={HOST}",
        f"--secure-port={state.ports['kube-controller-manager']}",
        "--profiling=false",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--node-monitor-period=2s",
        "--node-monitor-grace-period=20s",
        f"--controllers={','.join(_CONTROLLERS)}",
    ]


def _scheduler(_directory: Path, state: State) -> list[str]:
    return [
        f"{state.programs}/kube-scheduler",
        "--kubeconfig=scheduler.kubeconfig",
        "--leader-elect=false",
        f"--bind-address={HOST}",
        f"--secure-port={state.ports['kube-scheduler']}",
        "--profiling=false",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def _kwok(_directory: Path, state: State) -> list[str]:
    return [
        f"{state.programs}/kwok",
        "--kubeconfig=kwok.kubeconfig",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector={stages.NODE_ANNOTATION}=fake",
        f"--node-ip={HOST}",
        f"--node-port={state.ports['kwok']}",
        f"--server-address={HOST}:{state.ports['kwok']}",
        "--tls-cert-file=pki/kwok-serving.crt",
        "--tls-private-key-file=pki/kwok-serving.key",
        f"--cidr={_POD_NETWORK}",
        "--node-lease-duration-seconds=40",
        f"--enable-crds={','.join(_KWOK_RESOURCES)}",
    ]


def _references(_directory: Path, state: State) -> list[str]:
    return [
        sys.executable,
        "-P",
        "-m",
        "tools.cluster.references",
        f"--server={state.server}",
        "--authority=pki/ca.crt",
        "--certificate=pki/references.crt",
        "--key=pki/references.key",
    ]


# The programs of a cluster, by the name of their logs, and how each is started.
PROGRAMS: dict[str, Callable[[Path, State], list[str]]] = {
    "etcd": _etcd,
    "kube-apiserver": _apiserver,
    "kube-controller-manager": _controller_manager,
    "kube-scheduler": _scheduler,
    "kwok": _kwok,
    "references": _references,
}


def _spawn(supervised: Supervision, name: str, directory: Path, state: State) -> None:
    environment = {"PYTHONPATH": str(_REPOSITORY)} if name == "references" else _GO_ENVIRONMENT
    supervised.spawn(name, PROGRAMS[name](directory, state), environment)
