"""The adapters against a real API server, with the operator's own account and roles."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import shlex
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import yaml
from kubernetes.aio.config import incluster_config

from nightorders.adapters.clock import SystemClock
from nightorders.adapters.crds import compare_crds
from nightorders.adapters.guard import REPAIR, AdmissionGuard
from nightorders.adapters.kube import (
    EventAnnouncer,
    IncidentStore,
    KubeClient,
    LedgerStore,
    PolicyStore,
    Reader,
    Resources,
    Target,
    Watcher,
)
from nightorders.adapters.kube.watch import Patience
from nightorders.adapters.lease import LeaderLease
from nightorders.adapters.prometheus import PrometheusMetrics, PrometheusSettings
from nightorders.api.meta import FINALIZER
from nightorders.api.v1alpha1 import Incident, IncidentStatus, LedgerSpec, Phase
from nightorders.api.v1alpha1.ledger import HealthyRevision
from nightorders.domain.digest import template_sha256
from nightorders.domain.mergepatch import replace_patch
from nightorders.domain.snapshot import Absent, KubeObject, LogKey, NotLooked
from nightorders.ports import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    ObjectKey,
    PermanentError,
    Sample,
    Unreadable,
)
from tests.cluster.attacks.world import MANIFESTS, until_guarded
from tests.cluster.attacks.world import until as served
from tools.cluster import Cluster
from tools.cluster.prometheus import Prometheus, ScriptedMetrics

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio]

APPROVALS = "nightorders-approvals"
INCIDENT = "nightorders.dev/v1alpha1"
QUICK = Patience(stall_after=100, backoff=(0.05, 0.5), forbidden_backoff=(0.1, 0.3))


@pytest.fixture(scope="module")
def operator_account(cluster: Cluster) -> Path:
    """The product as its users install it; a kubeconfig of the operator's account."""
    cluster.kubectl("apply", "-k", str(MANIFESTS / "install"))
    cluster.kubectl("apply", "-k", str(MANIFESTS / "actions" / "rollback-workload"))
    until_guarded(cluster)
    kinds = "incidents,ledgers,remediationpolicies,clusterremediationpolicies"
    served(lambda: cluster.kubectl("get", kinds, "-A", check=False).returncode == 0, "our kinds are served")
    return cluster.service_account("nightorders-system", "nightorders")


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = f"adapters-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest_asyncio.fixture
async def client(operator_account: Path) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(kubeconfig=str(operator_account)) as connected:
        yield connected


@pytest_asyncio.fixture
async def admin(cluster: Cluster, operator_account: Path) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(kubeconfig=str(cluster.kubeconfig)) as connected:
        yield connected


def reader(client: KubeClient, watcher: Watcher | None = None) -> Reader:
    resources = Resources(client)
    return Reader(client, resources, SystemClock(), redact=lambda text: text, watcher=watcher or Watcher(client, resources))


def manifest(name: str, namespace: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": INCIDENT,
        "kind": "Incident",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    }


def deployment(name: str, namespace: str, env: dict[str, str]) -> dict[str, Any]:
    container = {"name": "c", "image": "app:1", "env": [{"name": k, "value": v} for k, v in env.items()]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": {"release": "7"}},
                "spec": {"containers": [container], "nodeSelector": {"disk": "fast"}},
            },
        },
    }


# Incidents


async def test_a_status_is_replaced_whole_and_only_once(client: KubeClient, namespace: str) -> None:
    store = IncidentStore(client)
    made = await store.create(namespace, manifest("i", namespace, labels={"team": "web"}, annotations={"note": "kept"}))
    first = await store.save_status(made, IncidentStatus(summary="one", phase=Phase.TRIAGE, first_summary_at=SystemClock().now()))
    assert first.status.phase is Phase.TRIAGE
    with pytest.raises(ConflictError):
        await store.save_status(made, IncidentStatus(summary="stale"))
    second = await store.save_status(first, IncidentStatus(summary="two"))
    assert (second.status.summary, second.status.phase, second.status.first_summary_at) == ("two", None, None)
    assert second.metadata.labels == {"team": "web"}
    assert second.metadata.annotations == {"note": "kept"}
    assert second.spec == made.spec
    assert await store.get(namespace, "i") == second
    assert second in await store.list()


async def test_times_survive_to_the_microsecond(client: KubeClient, namespace: str) -> None:
    store = IncidentStore(client)
    at = SystemClock().now().replace(microsecond=123456)
    made = await store.create(namespace, manifest("i", namespace))
    await store.save_status(made, IncidentStatus(first_summary_at=at))
    found = await store.get(namespace, "i")
    assert isinstance(found, Incident)
    assert found.status.first_summary_at == at


async def test_a_field_that_the_crd_does_not_know_is_refused_and_nothing_is_lost_silently(client: KubeClient, namespace: str) -> None:
    class Newer(IncidentStatus):
        journal_entry: str = "reserved"

    store = IncidentStore(client)
    made = await store.create(namespace, manifest("i", namespace))
    with pytest.raises(PermanentError, match=r'unknown field "status\.journalEntry"'):
        await store.save_status(made, Newer(summary="x"))
    unchanged = await store.get(namespace, "i")
    assert isinstance(unchanged, Incident)
    assert unchanged.metadata.resource_version == made.metadata.resource_version
    with pytest.raises(PermanentError, match="strict decoding error"):
        await store.create(namespace, {**manifest("j", namespace), "extra": 1})


async def test_a_value_that_the_crd_refuses_is_named_without_the_value(client: KubeClient, namespace: str) -> None:
    store = IncidentStore(client)
    made = await store.create(namespace, manifest("i", namespace))
    with pytest.raises(PermanentError) as caught:
        await store.save_status(made, made.status.model_copy(update={"summary": "hunter2" + "\x1b"}))
    assert "status.summary" in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_creating_twice_and_nowhere(client: KubeClient, namespace: str) -> None:
    store = IncidentStore(client)
    await store.create(namespace, manifest("i", namespace))
    with pytest.raises(AlreadyExistsError):
        await store.create(namespace, manifest("i", namespace))
    with pytest.raises(NotFoundError):
        await store.create("no-such-namespace", manifest("i", "no-such-namespace"))
    assert await store.get(namespace, "other") is None


async def test_a_deleted_incident_stays_until_the_finalizer_is_lifted(client: KubeClient, cluster: Cluster, namespace: str) -> None:
    store = IncidentStore(client)
    made = await store.create(namespace, manifest("i", namespace))
    held = await store.set_finalizer(made, True)
    assert held.metadata.finalizers == (FINALIZER,)
    with pytest.raises(ConflictError):
        await store.set_finalizer(made, True)
    cluster.kubectl("-n", namespace, "delete", "incident", "i", "--wait=false")
    terminating = await store.get(namespace, "i")
    assert isinstance(terminating, Incident)
    assert terminating.metadata.deletion_timestamp is not None
    saved = await store.save_status(terminating, IncidentStatus(summary="undone"))
    await store.set_finalizer(saved, False)
    assert await store.get(namespace, "i") is None
    with pytest.raises(NotFoundError):
        await store.save_status(saved, IncidentStatus())


async def test_an_incident_recreated_under_its_name_is_another(client: KubeClient, cluster: Cluster, namespace: str) -> None:
    store = IncidentStore(client)
    made = await store.create(namespace, manifest("i", namespace))
    cluster.kubectl("-n", namespace, "delete", "incident", "i")
    await store.create(namespace, manifest("i", namespace))
    with pytest.raises(ConflictError):
        await store.save_status(made, IncidentStatus())


async def test_admission_is_named_when_it_refuses(client: KubeClient, admin: KubeClient, namespace: str) -> None:
    made = await IncidentStore(client).create(namespace, manifest("i", namespace))
    with pytest.raises(ForbiddenError) as caught:
        await IncidentStore(admin).save_status(made, IncidentStatus(summary="forged"))
    assert caught.value.policy == "nightorders-records"


# Credentials


@pytest.fixture
def inside_a_pod(operator_account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a pod finds them: token and CA in files, the address in the environment."""
    config = yaml.safe_load(operator_account.read_text())
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    token, ca = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text(config["users"][0]["user"]["token"])
    ca.write_bytes(base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(server.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(ca))
    monkeypatch.setattr("nightorders.adapters.kube.client._TOKEN_FILE", token)


@pytest.mark.usefixtures("inside_a_pod")
async def test_credentials_of_a_pod() -> None:
    async with await KubeClient.connect() as inside:
        assert isinstance(await IncidentStore(inside).list(), list)


# Policies and ledgers


async def test_policies_are_read_fresh_and_their_status_is_swapped(client: KubeClient, cluster: Cluster, namespace: str) -> None:
    store = PolicyStore(client)
    assert await store.of(namespace) == []
    cluster.apply(
        {
            "apiVersion": INCIDENT,
            "kind": "RemediationPolicy",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {"rules": [{"name": "r", "types": ["RollbackWorkload"], "level": "L2"}]},
        }
    )
    (policy,) = await store.of(namespace)
    assert not isinstance(policy, Unreadable)
    await store.save_status(policy, {"workloads": 2, "actions": "RollbackWorkload=L2"})
    with pytest.raises(ConflictError):
        await store.save_status(policy, {"workloads": 3})
    (again,) = await store.of(namespace)
    assert not isinstance(again, Unreadable)
    assert again.status.workloads == 2
    with pytest.raises(PermanentError, match="unknown field"):
        await store.save_status(again, {"bogus": 1})
    assert isinstance(await store.cluster(), list)


async def test_many_writers_of_one_ledger_lose_nothing(client: KubeClient, namespace: str) -> None:
    store = LedgerStore(client)

    async def add(number: int) -> None:
        while True:
            ledger = await store.get(namespace, "ledger")
            seen = HealthyRevision(
                workload_uid=f"w{number}", workload=f"Deployment/w{number}", revision_uid="r", template_sha256="sha256:" + "a" * 64,
                at=SystemClock().now(), **LABELS
            )  # fmt: skip
            spec = ledger.spec if ledger else LedgerSpec()
            try:
                await store.save(
                    namespace, "ledger", ledger, spec.model_copy(update={"healthy_revisions": (*spec.healthy_revisions, seen)})
                )
            except (ConflictError, AlreadyExistsError):
                continue
            return

    await asyncio.gather(*(add(n) for n in range(12)))
    ledger = await store.get(namespace, "ledger")
    assert ledger is not None
    assert {r.workload_uid for r in ledger.spec.healthy_revisions} == {f"w{n}" for n in range(12)}
    emptied = await store.save(namespace, "ledger", ledger, LedgerSpec())
    assert emptied.spec == LedgerSpec()


LABELS: dict[str, Any] = {"labels": {}} if "labels" in HealthyRevision.model_fields else {}


# Reads


async def test_present_absent_and_no_such_kind(client: KubeClient, cluster: Cluster, namespace: str) -> None:
    read = reader(client)
    cluster.apply(deployment("web", namespace, {}))
    found = await read.list("apps/v1", "Deployment", namespace)
    assert [o.title for o in found.objects] == ["Deployment/web"]
    assert found.objects[0].at("metadata", "managedFields")
    assert found.size > 500
    assert found.query == f"GET /apis/apps/v1/namespaces/{namespace}/deployments?resourceVersion=0"
    assert isinstance(await read.get(ObjectKey("apps/v1", "Deployment", namespace, "web")), KubeObject)
    assert isinstance(await read.get(ObjectKey("apps/v1", "Deployment", namespace, "nope")), Absent)
    assert isinstance(await read.get(ObjectKey("apps/v1", "Deployment", "no-such-namespace", "web")), Absent)
    for version, kind in (("apps/v1", "Bogus"), ("example.org/v1", "Foo"), ("apps/v9", "Deployment")):
        missing = await read.get(ObjectKey(version, kind, namespace, "web"))
        assert isinstance(missing, NotLooked)
        assert missing.because == f"no such kind on this cluster: {kind} in {version}"
    assert (await read.list("v1", "Node", None)).complete


async def test_secrets_are_out_of_reach_and_no_fix_offers_them(client: KubeClient, namespace: str) -> None:
    found = await reader(client).list("v1", "Secret", namespace)
    assert found.because.startswith("forbidden:")
    assert found.fix == ""
    one = await reader(client).get(ObjectKey("v1", "ConfigMap", namespace, "../secrets/x"))
    assert isinstance(one, NotLooked)


async def test_what_is_forbidden_is_granted_by_the_printed_command(cluster: Cluster, operator_account: Path, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "create", "serviceaccount", "other")
    async with await KubeClient.connect(kubeconfig=str(cluster.service_account(namespace, "other"))) as client:
        read = reader(client)
        for kind, version in (("Pod", "v1"), ("Deployment", "apps/v1")):
            found = await read.list(version, kind, namespace)
            assert found.because.startswith("forbidden:")
        logs = await read.logs(namespace, LogKey("p", "c"), lines=5)
        assert "nightorders-reader-logs" in logs.fix
        one = await read.get(ObjectKey("v1", "ConfigMap", namespace, "x"))
        assert isinstance(one, NotLooked)
        assert one.fix == found.fix

        command, _, who = found.fix.partition("  # ")
        assert "verb bind on clusterrole/nightorders-reader" in who
        cluster.kubectl(*shlex.split(command)[1:])
        cluster.kubectl(*shlex.split(logs.fix, comments=True)[1:])
        await until(lambda: read.list("apps/v1", "Deployment", namespace), lambda listing: listing.complete)
        assert (await read.list("v1", "Pod", namespace)).complete
        assert not (await read.list("v1", "Pod", None)).complete
        assert (await read.logs(namespace, LogKey("p", "c"), lines=5)).because.startswith('failed: pods "p" not found')


async def test_who_can_run_that_command_is_told_truly(cluster: Cluster, operator_account: Path, namespace: str) -> None:
    """A namespace admin alone cannot: the role reads nodes, which an admin of a namespace does not."""
    boss = cluster.user("boss")
    cluster.kubectl("-n", namespace, "create", "rolebinding", "boss", "--clusterrole=admin", "--user=boss")
    command = ["-n", namespace, "create", "rolebinding", "nightorders-reader", "--clusterrole=nightorders-reader", "--serviceaccount=x:y"]
    refused = await eventually_allowed(cluster, boss, command, tries=1)
    assert "attempting to grant RBAC permissions not currently held" in refused
    cluster.kubectl("create", "clusterrole", f"bind-{namespace}", "--verb=bind", "--resource=clusterroles.rbac.authorization.k8s.io",
                    "--resource-name=nightorders-reader")  # fmt: skip
    try:
        cluster.kubectl("-n", namespace, "create", "rolebinding", "bind", f"--clusterrole=bind-{namespace}", "--user=boss")
        assert await eventually_allowed(cluster, boss, command, tries=30) == ""
    finally:
        cluster.kubectl("delete", "clusterrole", f"bind-{namespace}")


async def eventually_allowed(cluster: Cluster, kubeconfig: Path, command: list[str], tries: int) -> str:
    """Empty once it works, else the last error. RBAC takes a moment to be heard of."""
    for _ in range(tries):
        answer: subprocess.CompletedProcess[str] = cluster.kubectl(*command, check=False, kubeconfig=kubeconfig)
        if answer.returncode == 0:
            return ""
        await asyncio.sleep(0.2)
    return answer.stderr


async def until(ask: Callable[[], Any], good: Callable[[Any], bool], seconds: float = 15) -> Any:
    end = time.monotonic() + seconds
    while not good(answer := await ask()):
        assert time.monotonic() < end, f"not within {seconds} s: {answer}"
        await asyncio.sleep(0.1)
    return answer


# Watches


async def test_a_watch_tells_what_happens_and_outlives_the_api_server(client: KubeClient, cluster: Cluster, namespace: str) -> None:
    states: list[tuple[str, bool, str]] = []
    watcher = Watcher(client, Resources(client), on_state=lambda *s: states.append(s), patience=QUICK)
    store = IncidentStore(client)
    async with aclosing(watcher.watch(INCIDENT, "Incident")) as events:

        async def next_of(name: str) -> tuple[str, KubeObject]:
            async with asyncio.timeout(40):
                while True:
                    kind, seen = await anext(events)
                    if seen.name == name and seen.namespace == namespace:
                        return kind, seen

        made = await store.create(namespace, manifest("i", namespace))
        assert (await next_of("i"))[0] == "ADDED"
        await store.save_status(made, IncidentStatus(summary="x"))
        kind, seen = await next_of("i")
        assert (kind, seen.at("status", "summary")) == ("MODIFIED", "x")
        if cluster.provider == "local":
            waiting = asyncio.create_task(next_of("j"))
            await asyncio.to_thread(cluster.restart_apiserver)
            await until(lambda: created(store, namespace, "j"), bool, 30)
            assert (await waiting)[0] == "ADDED"
            assert states[0][1]
            assert not states[1][1]
            assert states[-1][1]
        cluster.kubectl("-n", namespace, "delete", "incident", "i")
        assert (await next_of("i"))[0] == "DELETED"
    assert watcher.silence()[(INCIDENT, "Incident")] < 30


async def created(store: IncidentStore, namespace: str, name: str) -> bool:
    try:
        await store.create(namespace, manifest(name, namespace))
    except AlreadyExistsError:
        return True
    except Exception:
        return False
    return True


async def test_a_forbidden_watch_begins_when_it_is_granted(cluster: Cluster, operator_account: Path, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "create", "serviceaccount", "other")
    states: list[tuple[str, bool, str]] = []
    async with await KubeClient.connect(kubeconfig=str(cluster.service_account(namespace, "other"))) as client:
        watcher = Watcher(client, Resources(client), on_state=lambda *s: states.append(s), patience=QUICK)
        async with aclosing(watcher.watch("apps/v1", "Deployment")) as events:
            first = asyncio.create_task(anext(events))
            await until(lambda: asyncio.sleep(0.1, list(states)), bool)
            _, healthy, message = states[0]
            assert not healthy
            command = shlex.split(message.partition("To grant it: ")[2], comments=True)
            assert command[:4] == ["kubectl", "create", "clusterrolebinding", "nightorders-reader"]
            command[3] = f"reader-{namespace}"  # that name is taken by the installation itself
            cluster.kubectl(*command[1:])
            try:
                async with asyncio.timeout(20):
                    await first
            finally:
                cluster.kubectl("delete", "clusterrolebinding", f"reader-{namespace}")


async def test_a_version_that_is_gone_is_listed_again(client: KubeClient, cluster: Cluster, namespace: str) -> None:
    watcher = Watcher(client, Resources(client), patience=QUICK)
    async with aclosing(watcher.watch(INCIDENT, "Incident")) as events:
        await IncidentStore(client).create(namespace, manifest("i", namespace))
        real = watcher._watch_query
        versions = ["1"]  # what the first watch asks for; older than anything in the API server's cache
        watcher._watch_query = lambda progress: tuple(  # type: ignore[method-assign]
            (key, versions.pop() if key == "resourceVersion" and versions else value) for key, value in real(progress)
        )
        seen: list[str] = []
        async with asyncio.timeout(20):
            while seen.count("BOOKMARK") < 2:
                seen.append((await anext(events))[0])
        assert versions == []
        assert seen.count("ADDED") % 2 == 0


# The port to other people's objects


@pytest_asyncio.fixture
async def target(client: KubeClient, cluster: Cluster, namespace: str) -> Target:
    cluster.apply(deployment("web", namespace, {"GOOD": "1", "BAD": "2"}))
    cluster.kubectl("-n", namespace, "apply", "-f", str(MANIFESTS / "actions/rollback-workload/rolebinding.example.yaml"))
    ready = Target(client, Resources(client))
    key = ObjectKey("apps/v1", "Deployment", namespace, "web")

    async def allowed() -> bool:
        live = await fresh(client, namespace)
        try:
            await ready.patch(key, fence(live), dry_run=True)
        except ForbiddenError:
            return False
        return True

    await until(allowed, bool)
    return ready


async def fresh(client: KubeClient, namespace: str) -> KubeObject:
    live = await reader(client).get(ObjectKey("apps/v1", "Deployment", namespace, "web"))
    assert isinstance(live, KubeObject)
    return live


def fence(live: KubeObject) -> dict[str, Any]:
    return {"metadata": {"uid": live.uid, "resourceVersion": live.resource_version}}


async def test_a_template_is_replaced_exactly_and_dry_runs_change_nothing(target: Target, client: KubeClient, namespace: str) -> None:
    key = ObjectKey("apps/v1", "Deployment", namespace, "web")
    before = await fresh(client, namespace)
    old = before.at("spec", "template")
    new = json.loads(json.dumps(old))
    new["metadata"]["annotations"] = {"other": "1"}
    del new["spec"]["nodeSelector"]
    new["spec"]["containers"][0]["env"] = [{"name": "GOOD", "value": "1"}]
    patch = {**fence(before), "spec": {"template": replace_patch(old, new)}}
    dry = await target.patch(key, patch, dry_run=True)
    assert template_sha256(dry.at("spec", "template")) == template_sha256(new)
    assert (await fresh(client, namespace)).resource_version == before.resource_version
    done = await target.patch(key, patch, dry_run=False)
    assert template_sha256(done.at("spec", "template")) == template_sha256(new)
    with pytest.raises(ConflictError):
        await target.patch(key, patch, dry_run=False)


async def test_each_refusal_has_its_port_error(target: Target, client: KubeClient, cluster: Cluster, namespace: str) -> None:
    key = ObjectKey("apps/v1", "Deployment", namespace, "web")
    live = await fresh(client, namespace)
    another = {"metadata": {"uid": "00000000-0000-0000-0000-000000000000", "resourceVersion": live.resource_version}}
    with pytest.raises(PermanentError, match=r"metadata\.uid"):
        await target.patch(key, another, dry_run=False)
    with pytest.raises(PermanentError, match=r"unknown field .*spec\.template\.spec\.bogus"):
        await target.patch(key, {**fence(live), "spec": {"template": {"spec": {"bogus": 1}}}}, dry_run=False)
    with pytest.raises(PermanentError, match="immutable"):
        await target.patch(key, {**fence(live), "spec": {"selector": {"matchLabels": {"x": "y"}}}}, dry_run=True)
    with pytest.raises(NotFoundError):
        await target.patch(ObjectKey("apps/v1", "Deployment", namespace, "gone"), fence(live), dry_run=False)
    with pytest.raises(ForbiddenError) as rbac:
        await target.patch(ObjectKey("v1", "ConfigMap", namespace, "kube-root-ca.crt"), fence(live), dry_run=True)
    assert rbac.value.policy == ""
    cluster.kubectl("-n", namespace, "create", "configmap", "nightorders-stop")

    async def stopped() -> str:
        try:
            await target.patch(key, {"metadata": {**fence(live)["metadata"], "labels": {"nightorders.dev/execution": "x"}}}, dry_run=True)
        except ForbiddenError as error:
            return error.policy
        return ""

    assert await until(stopped, bool) == "nightorders-stop"


# Events


async def test_events_stand_on_the_incident_once(client: KubeClient, cluster: Cluster, namespace: str) -> None:
    lost: list[str] = []
    announcer = EventAnnouncer(client, SystemClock(), instance="pod-1", on_lost=lost.append)
    made = await IncidentStore(client).create(namespace, manifest("i", namespace))
    await announcer.announce(made, "Diagnosed", "the image does not exist", warning=True)
    await announcer.announce(made, "Diagnosed", "the image does not exist", warning=True)
    assert lost == []
    described = cluster.kubectl("-n", namespace, "describe", "incident", "i").stdout
    assert described.count("the image does not exist") == 1
    assert "nightorders" in described
    await announcer.announce(
        made.model_copy(update={"metadata": made.metadata.model_copy(update={"namespace": "gone"})}), "A", "b", warning=False
    )
    assert len(lost) == 1


# The schemas


async def test_the_installed_schemas_are_current_and_a_change_is_noticed(client: KubeClient, cluster: Cluster, namespace: str) -> None:
    assert (await compare_crds(client)).current
    crd = "crd/ledgers.nightorders.dev"
    was = json.loads(cluster.kubectl("get", crd, "-o", "json").stdout)["metadata"]["annotations"]["nightorders.dev/schema-digest"]
    cluster.kubectl("annotate", crd, "nightorders.dev/schema-digest=older", "--overwrite")
    try:
        found = await compare_crds(client)
        assert found.certain
        assert "ledgers.nightorders.dev is of another version" in found.messages[0]
    finally:
        cluster.kubectl("annotate", crd, f"nightorders.dev/schema-digest={was}", "--overwrite")
    cluster.kubectl("-n", namespace, "create", "serviceaccount", "other")
    async with await KubeClient.connect(kubeconfig=str(cluster.service_account(namespace, "other"))) as other:
        unknown = await compare_crds(other)
        assert not unknown.certain
        assert not unknown.current


# The approval guard


def shipped() -> list[dict[str, Any]]:
    return [d for path in sorted((MANIFESTS / "admission").glob("*.yaml")) for d in yaml.safe_load_all(path.read_text())]


def guard(client: KubeClient, documents: list[dict[str, Any]] | None = None) -> AdmissionGuard:
    return AdmissionGuard(client, SystemClock(), documents or shipped(), namespace="nightorders-system")


@pytest.fixture
def admission(cluster: Cluster, operator_account: Path) -> Iterator[Callable[[str, Any], None]]:
    """Changes the guarding policy (`policy`) or its binding; afterwards it is as before."""

    def change(what: str, patch: Any) -> None:
        kind = "validatingadmissionpolicy" if what == "policy" else "validatingadmissionpolicybinding"
        if patch == "delete":
            cluster.kubectl("delete", kind, APPROVALS)
        else:
            style = "json" if isinstance(patch, list) else "merge"
            cluster.kubectl("patch", kind, APPROVALS, f"--type={style}", "-p", json.dumps(patch))

    yield change
    for verb in ("apply", "replace"):
        cluster.kubectl(verb, "-f", str(MANIFESTS / "admission" / "approvals.yaml"))


def repair(cluster: Cluster) -> None:
    for command in REPAIR.split(" && "):
        cluster.kubectl(*(word.replace("manifests/", f"{MANIFESTS}/") for word in command.split()[1:]))


async def test_the_guard_is_proven_as_installed(client: KubeClient, namespace: str) -> None:
    made = await IncidentStore(client).create(namespace, manifest("i", namespace))
    for about in (made, None):
        report = await guard(client).prove(about)
        assert report.proven, report.message
        assert APPROVALS in report.message
        assert SystemClock().now() - report.at < timedelta(minutes=1)
    unchanged = await IncidentStore(client).get(namespace, "i")
    assert unchanged == made  # the attacks left no trace
    assert (await reader(client).list(INCIDENT, "Incident", "nightorders-system")).objects == ()


SELECTOR = {"matchLabels": {"guarded": "yes"}}
ONLY_THE_OPERATOR = [
    {"op": "replace", "path": "/spec/validations", "value": [
        {"expression": "!variables.touched || !variables.me.startsWith('system:')", "reason": "Forbidden", "message": "no"}]}
]  # fmt: skip
ILL_TYPED = [{"op": "replace", "path": "/spec/validations/0/expression", "value": "object.spec.nosuchfield == 7"}]


@pytest.mark.parametrize(
    ("what", "patch", "says"),
    [
        ("policy", "delete", f"ValidatingAdmissionPolicy/{APPROVALS} is missing"),
        ("binding", "delete", f"ValidatingAdmissionPolicyBinding/{APPROVALS} is missing"),
        ("policy", [{"op": "replace", "path": "/spec/validations/0/expression", "value": "true"}], "spec.validations[0].expression"),
        ("policy", [{"op": "remove", "path": "/spec/validations/1"}], "spec.validations"),
        ("policy", ONLY_THE_OPERATOR, "spec.validations"),
        ("policy", ILL_TYPED, "spec.validations[0].expression"),
        ("policy", {"spec": {"failurePolicy": "Ignore"}}, "spec.failurePolicy"),
        ("policy", {"spec": {"matchConditions": [{"name": "n", "expression": "false"}]}}, "spec.matchConditions"),
        ("policy", {"spec": {"matchConstraints": {"namespaceSelector": SELECTOR}}}, "spec.matchConstraints.namespaceSelector"),
        ("binding", {"spec": {"validationActions": ["Audit", "Warn"]}}, "does not deny"),
        ("binding", {"spec": {"matchResources": {"objectSelector": SELECTOR}}}, "spec.matchResources"),
        ("binding", {"spec": {"matchResources": {"namespaceSelector": SELECTOR}}}, "spec.matchResources"),
        (
            "binding",
            {"spec": {"matchResources": {"resourceRules": [
                {"apiGroups": ["nightorders.dev"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["incidents"]}]}}},
            "spec.matchResources",
        ),
    ],
)  # fmt: skip
async def test_every_sabotage_is_noticed_at_once(
    client: KubeClient, admission: Callable[[str, Any], None], what: str, patch: Any, says: str
) -> None:
    admission(what, patch)
    report = await guard(client).prove(None)
    assert not report.proven
    assert says in report.message
    assert report.message.endswith(f"Repair: {REPAIR}")


@pytest.mark.parametrize(
    ("what", "patch"),
    [("policy", "delete"), ("binding", {"spec": {"matchResources": {"objectSelector": SELECTOR}}})],
    ids=["missing", "narrowed"],
)
async def test_the_printed_command_repairs_it(
    client: KubeClient, cluster: Cluster, admission: Callable[[str, Any], None], what: str, patch: Any
) -> None:
    """`kubectl apply` alone calls a narrowed binding unchanged; `kubectl replace` alone makes nothing that is missing."""
    admission(what, patch)
    assert not (await guard(client).prove(None)).proven
    repair(cluster)
    await until(lambda: guard(client).prove(None), lambda found: found.proven)


async def test_a_policy_that_is_as_shipped_and_lets_an_approval_pass_is_an_alarm(
    client: KubeClient, cluster: Cluster, admission: Callable[[str, Any], None], namespace: str
) -> None:
    """The second half alone: here the comparison finds nothing, because what was shipped is as bad."""
    bad = shipped()
    for document in bad:
        if document["kind"] == "ValidatingAdmissionPolicy" and document["metadata"]["name"] == APPROVALS:
            document["spec"]["validations"] = [{"expression": "true"}]
    admission("policy", [{"op": "replace", "path": "/spec/validations", "value": [{"expression": "true"}]}])
    made = await IncidentStore(client).create(namespace, manifest("i", namespace))
    for about, attack in ((made, "an approval in its own name"), (None, "an Incident with an approval in it")):
        report = await until(partial(guard(client, bad).prove, about), lambda found: "ALARM" in found.message)
        assert not report.proven
        assert attack in report.message
    assert await IncidentStore(client).get(namespace, "i") == made


async def test_without_the_right_to_patch_nothing_is_proven(cluster: Cluster, client: KubeClient, namespace: str) -> None:
    """A refusal by RBAC is no proof."""
    made = await IncidentStore(client).create(namespace, manifest("i", namespace))
    cluster.kubectl("-n", namespace, "create", "serviceaccount", "other")
    group = "admissionregistration.k8s.io"
    resources = f"validatingadmissionpolicies.{group},validatingadmissionpolicybindings.{group}"
    look = f"look-{namespace}"
    cluster.kubectl("create", "clusterrole", look, "--verb=get", f"--resource={resources}")
    cluster.kubectl("create", "clusterrolebinding", look, f"--clusterrole={look}", f"--serviceaccount={namespace}:other")
    try:
        async with await KubeClient.connect(kubeconfig=str(cluster.service_account(namespace, "other"))) as other:
            report = await until(lambda: guard(other).prove(made), lambda found: "could not be read" not in found.message)
            assert not report.proven
            assert "not by an admission policy" in report.message
    finally:
        cluster.kubectl("delete", "clusterrole,clusterrolebinding", look)


# The lease


async def test_two_candidates_hand_over(client: KubeClient, operator_account: Path) -> None:
    def candidate(name: str) -> LeaderLease:
        return LeaderLease(client, namespace="nightorders-system", identity=name, lease=2, renew_deadline=1.5, retry=0.2)

    a, b = candidate("a"), candidate("b")
    await a.acquire()
    keeping = asyncio.create_task(a.keep())
    waiting = asyncio.create_task(b.acquire())
    await asyncio.sleep(3)
    assert a.leading
    assert not b.leading
    keeping.cancel()
    began = time.monotonic()
    await a.release()
    await waiting
    assert b.leading
    assert time.monotonic() - began < 1.5  # the release was noticed: nobody waited for the lease to end

    crashed = time.monotonic()  # b renews no more, as after kill -9
    c = candidate("c")
    await c.acquire()
    assert time.monotonic() - crashed >= 1.9
    assert not b.leading
    await c.release()


async def test_the_lease_can_be_made_with_the_shipped_role(cluster: Cluster, client: KubeClient, operator_account: Path) -> None:
    cluster.kubectl("-n", "nightorders-system", "delete", "lease", "nightorders", "--ignore-not-found")
    lease = LeaderLease(client, namespace="nightorders-system", identity="a", lease=2, renew_deadline=1.5, retry=0.2)
    async with asyncio.timeout(5):
        await lease.acquire()
    assert lease.leading, lease.message
    await lease.release()


# Prometheus


@pytest.mark.prometheus
async def test_a_real_prometheus_gives_one_number_or_says_why() -> None:
    with ScriptedMetrics() as scripted, Prometheus([scripted.address]) as prometheus:
        scripted.set("errors_total", {"pod": "a", "namespace": "shop"}, 3)
        scripted.set("errors_total", {"pod": "b", "namespace": "shop"}, 4)
        scripted.set("errors_total", {"pod": "c", "namespace": "others"}, 100)
        prometheus.wait_for("sum(errors_total) == 107")
        metrics = PrometheusMetrics(PrometheusSettings(url=prometheus.url, seconds=5, connect_seconds=1))

        async def ask(promql: str) -> Sample:
            return await metrics.query(promql, SystemClock().now(), namespace="shop")

        assert await ask("sum(errors_total)") == Sample(7.0)
        assert await ask('errors_total{pod="a"}') == Sample(3.0)
        assert await ask("scalar(sum(errors_total))") == Sample(7.0)
        for promql, says in (
            ("errors_total", "2 series"),
            ("errors_total / 0", "2 series"),
            ("sum(errors_total) / 0", "gives +Inf"),
            ("sum(errors_total - errors_total) / 0", "gives NaN"),
            ("nothing_of_the_kind", "no data"),
            ('"text"', "gives a string"),
            ("errors_total[5m]", "gives a matrix"),
            ("sum(", "not sent: no PromQL"),
            ("topk('x', up)", "no"),
            ('errors_total{namespace="others"}', "other than this namespace"),
        ):
            sample = await ask(promql)
            assert sample.value is None, promql
            assert says in sample.message, sample
        long_ago = await metrics.query("sum(errors_total)", SystemClock().now() - timedelta(days=1), namespace="shop")
        assert "no data" in long_ago.message
        prometheus.interrupt()
        assert "cannot be reached" in (await ask("sum(errors_total)")).message
        prometheus.resume()
        await until(partial(ask, "sum(errors_total)"), lambda sample: sample.value == 7.0)
