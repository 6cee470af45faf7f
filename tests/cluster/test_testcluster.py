"""The local test cluster does what its users rely on."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tools.cluster import Cluster, ClusterError, attach, behaviour, provide
from tools.cluster.local import LocalCluster
from tools.cluster.supervision import Processes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

REPOSITORY = Path(__file__).resolve().parents[2]
T = TypeVar("T")
Object = dict[str, Any]


@pytest.fixture(scope="module")
def local(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """A local cluster: the session's when that is one."""
    shared: Cluster = request.getfixturevalue("cluster")
    if isinstance(shared, LocalCluster):
        yield shared
        return
    own = provide(require="local")
    assert isinstance(own, LocalCluster)
    yield own
    own.stop()


_numbers = itertools.count()


@pytest.fixture
def namespace(local: LocalCluster) -> str:
    """A namespace of the test's own."""
    name = f"testcluster-{next(_numbers)}"
    local.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def until(look: Callable[[], T | None], what: str, seconds: float = 20) -> T:
    """What `look` finds, once it finds something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


def deployment(namespace: str, image: str, replicas: int = 1, **container: Any) -> Object:
    pod = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": image, **container}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": spec,
    }


def pods(local: LocalCluster, namespace: str) -> list[Object]:
    found: list[Object] = local.api().get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return found


def roll_out(local: LocalCluster, namespace: str) -> None:
    """Wait until the Deployment is rolled out; shows what there is when it is not."""
    where = f"--namespace={namespace}"
    result = local.kubectl("rollout", "status", "deployment/web", where, "--timeout=60s", check=False, timeout=90)
    if result.returncode:
        shown = [local.kubectl("get", *what, where).stdout for what in (("pods", "-o", "wide"), ("replicasets",), ("events",))]
        nodes = local.kubectl("describe", "nodes").stdout
        pytest.fail("\n".join([result.stdout, result.stderr, *shown, nodes]))


def container_status(pod: Object) -> Object:
    statuses: list[Object] = pod["status"].get("containerStatuses") or [{}]
    return statuses[0]


def waiting_reason(pod: Object) -> str:
    reason: str = container_status(pod).get("state", {}).get("waiting", {}).get("reason", "")
    return reason


def is_ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def messages(local: LocalCluster, namespace: str, reason: str) -> list[str]:
    events = local.api().get(f"/api/v1/namespaces/{namespace}/events")["items"]
    return [event["message"] for event in events if event["reason"] == reason]


def test_a_deployment_becomes_available(local: LocalCluster, namespace: str) -> None:
    local.apply(deployment(namespace, "registry.example/web:1", replicas=3))
    roll_out(local, namespace)

    found = pods(local, namespace)
    assert len(found) == 3
    assert len({pod["status"]["podIP"] for pod in found}) == 3
    assert all(is_ready(pod) for pod in found)


def test_a_missing_image_keeps_new_pods_from_starting_while_old_ones_serve(local: LocalCluster, namespace: str) -> None:
    good, bad = "registry.example/web:1.0", "registry.example/web:1.O"
    local.apply(*behaviour.image_missing(namespace, bad), deployment(namespace, good, replicas=3))
    roll_out(local, namespace)
    local.kubectl("set", "image", "deployment/web", f"web={bad}", f"--namespace={namespace}")

    def backing_off() -> Object | None:
        return next((pod for pod in pods(local, namespace) if waiting_reason(pod) == "ImagePullBackOff"), None)

    pod = until(backing_off, "ImagePullBackOff")
    assert pod["status"]["phase"] == "Pending"
    waiting = container_status(pod)["state"]["waiting"]["message"]
    assert waiting.startswith(f'Back-off pulling image "{bad}": ErrImagePull: rpc error: code = NotFound')
    assert sum(is_ready(pod) for pod in pods(local, namespace)) == 3
    failed = messages(local, namespace, "Failed")
    assert {"Error: ErrImagePull", "Error: ImagePullBackOff"} < set(failed)
    assert any(message.startswith(f'Failed to pull image "{bad}": rpc error') for message in failed)

    # Only another image helps.
    local.kubectl("rollout", "restart", "deployment/web", f"--namespace={namespace}")
    until(backing_off, "ImagePullBackOff after a restart")
    local.kubectl("set", "image", "deployment/web", f"web={good}", f"--namespace={namespace}")
    roll_out(local, namespace)


def test_a_program_that_ends_crash_loops(local: LocalCluster, namespace: str) -> None:
    image = "registry.example/web:crash"
    local.apply(
        *behaviour.exits(namespace, image, code=137, reason="OOMKilled", back_off_seconds=1),
        *behaviour.logs(namespace, None, "web", ["second run"], ["first run", "out of memory"]),
        deployment(namespace, image),
    )

    def restarted(times: int) -> Callable[[], Object | None]:
        def look() -> Object | None:
            return next(
                (
                    pod
                    for pod in pods(local, namespace)
                    if container_status(pod).get("restartCount", 0) >= times and waiting_reason(pod) == "CrashLoopBackOff"
                ),
                None,
            )

        return look

    before = container_status(until(restarted(1), "a first CrashLoopBackOff"))["restartCount"]
    pod = until(restarted(before + 1), "more restarts")
    status = container_status(pod)
    assert status["lastState"]["terminated"]["exitCode"] == 137
    assert status["lastState"]["terminated"]["reason"] == "OOMKilled"
    assert status["state"]["waiting"]["message"].startswith("back-off ")
    assert pod["status"]["phase"] == "Running"
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    expected = f"Back-off restarting failed container web in pod {name}_{namespace}({uid})"
    assert messages(local, namespace, "BackOff") == [expected]

    logs = local.kubectl("logs", name, f"--namespace={namespace}")
    assert logs.stdout == "second run\n"
    previous = local.kubectl("logs", name, "--previous", "--tail=1", f"--namespace={namespace}")
    assert previous.stdout == "out of memory\n"


def test_unready_and_slow_programs(local: LocalCluster, namespace: str) -> None:
    local.apply(
        *behaviour.never_ready(namespace, "registry.example/web:unready"),
        *behaviour.slow_start(namespace, "registry.example/web:slow", 1.5),
        deployment(namespace, "registry.example/web:unready"),
    )
    until(lambda: messages(local, namespace, "Unhealthy"), "an Unhealthy event")
    pod = until(lambda: next((p for p in pods(local, namespace) if p["status"]["phase"] == "Running"), None), "Running")
    assert not is_ready(pod)

    local.apply(deployment(namespace, "registry.example/web:slow"))
    slow = until(
        lambda: next(
            (p for p in pods(local, namespace) if is_ready(p) and p["spec"]["containers"][0]["image"].endswith("slow")),
            None,
        ),
        "the slow program to be ready",
    )
    moments = {c["type"]: c["lastTransitionTime"] for c in slow["status"]["conditions"]}
    assert moments["Ready"] > moments["PodScheduled"]


def config_map(namespace: str, **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": namespace},
        "data": data,
    }


def test_a_missing_config_map_holds_up_new_pods_until_it_is_there(local: LocalCluster, namespace: str) -> None:
    variable = {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}}
    local.apply(config_map(namespace, mode="a"), deployment(namespace, "registry.example/web:1", env=[variable]))
    roll_out(local, namespace)
    local.kubectl("delete", "configmap", "settings", f"--namespace={namespace}")
    assert [is_ready(pod) for pod in pods(local, namespace)] == [True]  # what runs is not touched
    local.kubectl("rollout", "restart", "deployment/web", f"--namespace={namespace}")

    def refused(message: str) -> Callable[[], bool]:
        return lambda: any(
            waiting_reason(pod) == "CreateContainerConfigError" and container_status(pod)["state"]["waiting"]["message"] == message
            for pod in pods(local, namespace)
        )

    until(refused('configmap "settings" not found'), "CreateContainerConfigError")
    until(lambda: messages(local, namespace, "Failed"), "a Failed event")
    assert messages(local, namespace, "Failed") == ['Error: configmap "settings" not found']
    assert sum(is_ready(pod) for pod in pods(local, namespace)) == 1

    local.apply(config_map(namespace, other="a"))
    until(refused(f"couldn't find key mode in ConfigMap {namespace}/settings"), "the key to be missing")
    local.apply(config_map(namespace, mode="b"))
    roll_out(local, namespace)


def test_a_volume_of_a_missing_secret_holds_up_the_pod(local: LocalCluster, namespace: str) -> None:
    volume = {"name": "keys", "secret": {"secretName": "keys"}}
    spec = {"containers": [{"name": "web", "image": "registry.example/web:1"}], "volumes": [volume]}
    meta = {"name": "web", "namespace": namespace}
    local.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    expected = 'MountVolume.SetUp failed for volume "keys" : secret "keys" not found'
    until(lambda: messages(local, namespace, "FailedMount") == [expected], "a FailedMount event")
    assert waiting_reason(pods(local, namespace)[0]) == "ContainerCreating"

    local.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": namespace}})
    local.kubectl("wait", "pod/web", "--for=condition=Ready", f"--namespace={namespace}", "--timeout=20s")


def audit(local: LocalCluster) -> list[Object]:
    assert local.audit_log is not None
    return [json.loads(line) for line in local.audit_log.read_text().splitlines()]


def whoami(local: LocalCluster, kubeconfig: Path) -> Object:
    answer = local.kubectl("auth", "whoami", "--output=json", kubeconfig=kubeconfig)
    found: Object = json.loads(answer.stdout)["status"]["userInfo"]
    return found


def test_users_are_told_apart_and_audited(local: LocalCluster, namespace: str) -> None:
    alice, bob = local.user("alice", "oncall", "team/a"), local.user("auth0|bob")
    assert whoami(local, alice)["username"] == "alice"
    assert {"oncall", "team/a"} <= set(whoami(local, alice)["groups"])
    assert whoami(local, bob)["username"] == "auth0|bob"
    assert "oncall" not in whoami(local, bob)["groups"]
    account = local.service_account(namespace, "default")
    assert whoami(local, account)["username"] == f"system:serviceaccount:{namespace}:default"

    # Rights come from RBAC only.
    local.kubectl("create", "rolebinding", "alice", "--clusterrole=admin", "--user=alice", f"--namespace={namespace}")
    where = f"--namespace={namespace}"
    until(
        lambda: local.kubectl("auth", "can-i", "create", "secrets", where, kubeconfig=alice, check=False).returncode == 0,
        "the role to count",
    )
    local.kubectl("create", "secret", "generic", "s", "--from-literal=p=hidden-value", where, kubeconfig=alice)
    local.kubectl("create", "configmap", "c", "--from-literal=p=hidden-value", where, kubeconfig=alice)
    local.kubectl("create", "service", "clusterip", "web", "--tcp=80", where, kubeconfig=alice)
    refused = local.kubectl("get", "secrets", where, kubeconfig=bob, check=False)
    assert refused.returncode != 0
    assert 'User "auth0|bob" cannot list resource "secrets"' in refused.stderr

    entries = [e for e in audit(local) if e.get("objectRef", {}).get("namespace") == namespace]

    def by(user: str, verb: str, resource: str) -> Object:
        return next(e for e in entries if (e["user"]["username"], e["verb"], e["objectRef"]["resource"]) == (user, verb, resource))

    assert by("auth0|bob", "list", "secrets")["responseStatus"]["code"] == 403
    assert by("alice", "create", "services")["requestObject"]["metadata"]["name"] == "web"
    assert "requestObject" not in by("alice", "create", "secrets")
    assert "requestObject" not in by("alice", "create", "configmaps")
    assert local.audit_log is not None
    assert "hidden-value" not in local.audit_log.read_text()


def test_errors_of_kubectl_are_shown(local: LocalCluster) -> None:
    with pytest.raises(subprocess.CalledProcessError, match='namespaces "nowhere" not found'):
        local.kubectl("get", "namespace", "nowhere")


def test_the_api_server_can_be_restarted(local: LocalCluster, namespace: str) -> None:
    # Through `attach`, as another process would.
    other = attach(local.name)
    before = Processes.read(local.directory).children["kube-apiserver"]
    other.restart_apiserver()
    after = Processes.read(local.directory).children["kube-apiserver"]
    assert not before.alive()
    assert after.alive()
    # Controllers and simulated nodes come back by themselves.
    local.apply(deployment(namespace, "registry.example/web:1"))
    roll_out(local, namespace)


def test_a_taken_name_is_refused(local: LocalCluster) -> None:
    with pytest.raises(ClusterError, match="is there already"):
        provide(name=local.name, require="local")


CREATOR = """
import sys, time
from tools.cluster import provide
cluster = provide(name=sys.argv[1], nodes=1, require="local")
print(cluster.directory, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs the start times and parent-death signals of Linux")
def test_a_killed_creator_leaves_nothing_behind() -> None:
    name = f"killed-{os.getpid()}"
    creator = subprocess.Popen([sys.executable, "-c", CREATOR, name], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert creator.stdout is not None
    directory = Path(creator.stdout.readline().strip())
    running = Processes.read(directory)
    assert running.supervisor is not None
    everything = [running.supervisor, *running.children.values()]
    assert len(everything) == 7
    assert all(process.alive() for process in everything)
    data = Path(json.loads((directory / "state.json").read_text())["data"])

    creator.send_signal(signal.SIGKILL)
    creator.wait()
    creator.stdout.close()

    until(lambda: not any(process.alive() for process in everything), "all processes to end")
    until(lambda: not directory.exists() and not data.exists(), "the files to go")
