"""Taking alerts in: stored before thanks, once whatever is delivered twice, joined where an Incident is open, never opened by an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog

from nightorders import metrics
from nightorders.adapters.kube.stores import read_as
from nightorders.api.v1alpha1 import Incident
from nightorders.controller import alerts as module
from nightorders.controller.alerts import AlertDesk
from nightorders.domain.alerts import ALERT_LABEL, LEFT_OUT, Alert, Notification
from nightorders.ports import ForbiddenError, NotFoundError, PermanentError, TransientError, Unreadable
from tests.component.fakes import START, Api, Call, Clock, Incidents, Json, Reader, stamp

OPS = "nightorders-system"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


class Store(Incidents):
    """With the list of episodes, and namespaces that take no Incident."""

    refuses = ""

    async def episodes(self, namespace: str, label: str, value: str) -> list[Incident | Unreadable]:
        items = await self.api.request(self.actor, "list", "Incident", namespace, "", lambda: list(self.api.all("Incident", namespace)))
        return [read_as(Incident, raw) for raw in items if raw["metadata"].get("labels", {}).get(label) == value]

    async def create(self, namespace: str, manifest: Any) -> Incident:
        if namespace == "gone":
            raise NotFoundError('namespaces "gone" not found (404)')
        if namespace == "going":
            raise ForbiddenError("namespace going is being terminated (403)")
        if namespace == "full" or namespace == self.refuses:
            raise ForbiddenError("exceeded quota: incidents, requested: count/incidents.nightorders.dev=1 (403)")
        return await super().create(namespace, manifest)


class World:
    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.api = Api(self.clock)
        self.reader = Reader(self.api)
        self.options = options
        self.desk = self.another()

    def another(self) -> AlertDesk:
        """A replica, or the same after a restart: it remembers nothing."""
        return AlertDesk(self.clock, self.reader, Store(self.api), operator_namespace=OPS, **self.options)

    async def take(self, *alerts: Alert, truncated: int = 0, desk: AlertDesk | None = None) -> tuple[str, ...]:
        return await (desk or self.desk).take(Notification(alerts, truncated))

    @property
    def incidents(self) -> list[Json]:
        return list(self.api.all("Incident"))

    @property
    def one(self) -> Json:
        (found,) = self.incidents
        return found

    def states(self, incident: Json) -> dict[str, str]:
        return {a["fingerprint"]: a["state"] for a in incident.get("status", {}).get("alerts", [])}

    def close(self, incident: Json) -> None:
        closed = {
            "type": "Closed", "status": "True", "reason": "Recovered", "message": "", "observedGeneration": 1,
            "lastTransitionTime": stamp(self.clock.now()),
        }  # fmt: skip
        status = {**incident.get("status", {}), "conditions": [closed]}
        self.api.edit("Incident", incident["metadata"]["namespace"], incident["metadata"]["name"], lambda raw: raw.update(status=status))

    def pod(self, name: str, *owners: tuple[str, str, str], node: str = "") -> None:
        """A pod and the chain of its controllers (apiVersion, kind, name); each of them exists."""
        here = ("v1", "Pod", name)
        for there in owners:
            self._put(here, there, node)
            here = there
        self._put(here, None, node)

    def _put(self, here: tuple[str, str, str], owner: tuple[str, str, str] | None, node: str) -> None:
        version, kind, name = here
        refs = [{"apiVersion": owner[0], "kind": owner[1], "name": owner[2], "uid": "u", "controller": True}] if owner else []
        spec = {"nodeName": node} if node else {}
        self.api.put(kind, "shop", name, {"apiVersion": version, "kind": kind, "metadata": {"ownerReferences": refs}, "spec": spec})


def alert(firing: bool = True, fingerprint: str = "f1", since: datetime = START, **labels: str) -> Alert:
    return Alert(fingerprint, firing, {"alertname": "Broken", "namespace": "shop", **labels}, {"summary": "broken"}, since)


def web(firing: bool = True, fingerprint: str = "f1", **more: Any) -> Alert:
    return alert(firing, fingerprint, deployment="web", **more)


def counted(result: str) -> float:
    return float(metrics.REGISTRY.get_sample_value("nightorders_alerts_total", {"result": result}) or 0)


async def test_an_alert_opens_an_incident() -> None:
    w = World()
    before = counted("Opened")
    assert await w.take(web()) == ()
    made = w.one
    assert made["metadata"]["namespace"] == "shop"
    assert made["spec"]["target"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    assert made["spec"]["signal"]["fingerprints"] == ["f1"]
    assert made["spec"]["signal"]["source"] == "Alertmanager"
    assert made["metadata"]["name"].endswith("-1")
    assert counted("Opened") == before + 1


async def test_the_same_again_changes_nothing_whoever_gets_it() -> None:
    w = World()
    await w.take(web())
    version = w.one["metadata"]["resourceVersion"]
    for desk in (w.desk, w.another()):
        await w.take(web(), desk=desk)
    assert w.one["metadata"]["resourceVersion"] == version


async def test_two_replicas_at_the_same_moment_open_one() -> None:
    w = World()
    held = asyncio.Event()

    async def both_have_looked(call: Call) -> None:
        if call.verb == "create":
            if held.is_set():
                return
            held.set()
            await asyncio.sleep(0.05)

    w.api.before = both_have_looked
    await asyncio.gather(w.take(web()), w.take(web(fingerprint="f2"), desk=w.another()))
    assert set(w.states(w.one)) | set(w.one["spec"]["signal"]["fingerprints"]) == {"f1", "f2"}


async def test_a_storm_is_one_incident_and_loses_nothing() -> None:
    w = World()
    await asyncio.gather(*(w.take(web(fingerprint=f"f{n % 40}")) for n in range(300)))
    assert len(set(w.states(w.one)) | set(w.one["spec"]["signal"]["fingerprints"])) == 40
    assert len(w.api.calls) < 100  # most are answered from what was read this moment


async def test_an_open_incident_absorbs_and_notes_states() -> None:
    w = World()
    await w.take(web(), web(fingerprint="f2"))
    assert w.states(w.one) == {"f2": "Firing"}
    await w.take(web(False))
    assert w.states(w.one) == {"f2": "Firing", "f1": "Resolved"}
    await w.take(web())
    assert w.states(w.one) == {"f2": "Firing", "f1": "Firing"}


async def test_an_end_opens_nothing_and_one_never_heard_of_is_no_news() -> None:
    w = World()
    before = counted("Over")
    await w.take(web(False), web(False, "f2"))
    assert w.incidents == []
    assert counted("Over") == before + 2
    await w.take(web())
    await w.take(web(False, "f9"))
    assert w.states(w.one) == {}


async def test_a_closed_incident_leads_to_the_next_episode() -> None:
    w = World()
    await w.take(web())
    w.close(w.one)
    w.clock.advance(timedelta(minutes=1))
    await w.take(web(fingerprint="f2", since=w.clock.now()), desk=w.another())
    assert [i["metadata"]["name"][-2:] for i in w.incidents] == ["-1", "-2"]
    await w.take(web(fingerprint="f2"), desk=w.another())
    assert len(w.incidents) == 2


async def test_an_alert_that_lingers_after_the_end_opens_nothing_yet() -> None:
    w = World()
    await w.take(web())
    w.clock.advance(timedelta(minutes=5))
    w.close(w.one)
    w.clock.advance(timedelta(minutes=2))
    await w.take(web(), desk=w.another())
    assert len(w.incidents) == 1
    w.clock.advance(timedelta(minutes=10))  # it still fires: closing was wrong
    await w.take(web(), desk=w.another())
    assert len(w.incidents) == 2


async def test_resolved_and_firing_again_after_the_end_is_a_new_episode_at_once() -> None:
    w = World()
    await w.take(web())
    w.close(w.one)
    await w.take(web(False), desk=w.another())
    assert w.states(w.one) == {"f1": "Resolved"}
    w.clock.advance(timedelta(seconds=30))
    await w.take(web(since=w.clock.now()), desk=w.another())
    assert len(w.incidents) == 2


async def test_a_suspended_incident_absorbs() -> None:
    w = World()
    await w.take(web())
    name = w.one["metadata"]["name"]
    w.api.edit("Incident", "shop", name, lambda raw: raw["spec"].update(suspend=True))
    await w.take(web(fingerprint="f2"), desk=w.another())
    assert w.states(w.one) == {"f2": "Firing"}


async def test_old_episodes_that_were_deleted_are_not_used_again_while_one_is_open() -> None:
    w = World()
    await w.take(web())
    w.close(w.one)
    w.clock.advance(timedelta(hours=1))
    await w.take(web(since=w.clock.now()), desk=w.another())
    w.api.delete("Incident", "shop", w.incidents[0]["metadata"]["name"])
    await w.take(web(fingerprint="f3"), desk=w.another())
    assert w.one["metadata"]["name"].endswith("-2")
    assert "f3" in w.states(w.one)


async def test_a_name_that_somebody_else_took_swallows_nothing() -> None:
    """threats.md 26."""
    w = World()
    await w.take(web())
    name = w.one["metadata"]["name"]
    spec = {"target": w.one["spec"]["target"]}
    w.api.delete("Incident", "shop", name)
    w.api.put("Incident", "shop", name, {"apiVersion": "nightorders.dev/v1alpha1", "kind": "Incident", "spec": spec})
    await w.take(web(), desk=w.another())
    ours = [i for i in w.incidents if "signal" in i["spec"]]
    assert [i["metadata"]["name"][-2:] for i in ours] == ["-2"]


# ---------------------------------------------------------------- targets that need a look


@pytest.mark.parametrize(
    ("owners", "target"),
    [
        ((("apps/v1", "ReplicaSet", "web-7c9"), ("apps/v1", "Deployment", "web")), "Deployment/web"),
        ((("batch/v1", "Job", "report-1"), ("batch/v1", "CronJob", "report")), "CronJob/report"),
        ((("apps/v1", "StatefulSet", "db"),), "StatefulSet/db"),
        ((("apps/v1", "ReplicaSet", "web-7c9"), ("argoproj.io/v1alpha1", "Rollout", "web")), "Rollout/web"),
        ((("v1", "Node", "n1"),), "Pod/p"),
        ((), "Pod/p"),
    ],
)
async def test_a_pod_stands_for_the_root_of_its_owners(owners: tuple[tuple[str, str, str], ...], target: str) -> None:
    w = World()
    w.pod("p", *owners)
    await w.take(alert(pod="p", container="app"))
    assert "{kind}/{name}".format(**w.one["spec"]["target"]) == target


async def test_pods_of_one_workload_are_one_incident() -> None:
    w = World()
    for name in ("web-7c9-aaaaa", "web-7c9-bbbbb"):
        w.pod(name, ("apps/v1", "ReplicaSet", "web-7c9"), ("apps/v1", "Deployment", "web"))
    await w.take(alert(pod="web-7c9-aaaaa"), alert(fingerprint="f2", pod="web-7c9-bbbbb"))
    assert w.states(w.one) == {"f2": "Firing"}


async def test_a_pod_that_is_gone_is_found_by_its_name_only_if_the_workload_is_there() -> None:
    w = World()
    await w.take(alert(pod="web-7c9d8f6b5-x2x4z"))
    assert w.one["spec"]["target"]["kind"] == "Pod"
    w.pod("other", ("apps/v1", "Deployment", "web"))
    await w.take(alert(fingerprint="f2", pod="web-7c9d8f6b5-zzzz2"))
    assert {i["spec"]["target"]["kind"] for i in w.incidents} == {"Pod", "Deployment"}


async def test_the_end_finds_its_incident_although_pod_and_workload_are_gone() -> None:
    w = World()
    w.pod("p", ("apps/v1", "ReplicaSet", "web-7c9"), ("apps/v1", "Deployment", "web"))
    await w.take(alert(pod="p"))
    for kind, name in (("Pod", "p"), ("ReplicaSet", "web-7c9"), ("Deployment", "web")):
        w.api.delete(kind, "shop", name)
    await w.take(alert(False, pod="p"))
    assert w.states(w.one) == {"f1": "Resolved"}


async def test_a_read_that_fails_is_tried_again_and_one_that_is_forbidden_is_not() -> None:
    w = World()
    w.reader.unread["Pod"] = "failed: no answer in time"
    with pytest.raises(TransientError):
        await w.take(alert(pod="p"))
    assert w.incidents == []
    w.reader.unread["Pod"] = "forbidden: pods is forbidden"
    await w.take(alert(pod="p"))
    assert w.one["spec"]["target"]["kind"] == "Pod"


async def test_a_node_exporter_speaks_for_its_machine_and_is_kept_by_the_operator() -> None:
    w = World()
    w.pod("node-exporter-x", node="n7")
    await w.take(alert(job="node-exporter", pod="node-exporter-x", instance="10.0.0.1:9100"))
    assert w.one["spec"]["target"] == {"apiVersion": "v1", "kind": "Node", "name": "n7"}
    assert w.one["metadata"]["namespace"] == OPS


@pytest.mark.threat(27)
@pytest.mark.parametrize("namespace", ["gone", "going", "full"])
async def test_what_a_namespace_refuses_is_kept_by_the_operator_and_holds_nobody_up(namespace: str) -> None:
    w = World()
    assert await w.take(web(fingerprint="f1", namespace=namespace), web(fingerprint="f2")) == ()
    kept, other = sorted(w.incidents, key=lambda i: i["metadata"]["namespace"])
    assert kept["metadata"]["namespace"] == OPS
    assert kept["spec"]["target"] == {"apiVersion": "v1", "kind": "Namespace", "name": namespace}
    assert kept["spec"]["signal"]["labels"]["deployment"] == "web"
    assert other["metadata"]["namespace"] == "shop"
    await w.take(web(fingerprint="f3", namespace=namespace), desk=w.another())
    assert len(w.incidents) == 2
    await w.take(web(False, "f1", namespace=namespace), desk=w.another())
    assert w.states(next(i for i in w.incidents if i["metadata"]["namespace"] == OPS)) == {"f3": "Firing", "f1": "Resolved"}


async def test_an_operator_whose_own_namespace_refuses_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "refuses", OPS)
    w = World()
    with pytest.raises(PermanentError, match="exceeded quota"):
        await w.take(web(namespace="gone"))


@pytest.mark.parametrize("namespace", ["kube-system", OPS])
async def test_protected_namespaces_are_left_alone(namespace: str) -> None:
    w = World()
    assert await w.take(web(namespace=namespace)) == ()
    assert w.incidents == []


async def test_an_alert_about_nothing_is_named_and_costs_the_others_nothing() -> None:
    w = World()
    nothing = Alert("w", True, {"alertname": "Watchdog"}, {}, START)
    homeless = Alert("h", True, {"alertname": "Lost"}, {"nightorders.dev/target": "Deployment/web"}, START)
    problems = await w.take(web(), nothing, homeless)
    assert [p.split(" ")[0] for p in problems] == ["alerts[1].labels:", "alerts[2].labels:"]
    assert "Watchdog" in problems[0]
    assert "has no label namespace" in problems[1]
    assert len(w.incidents) == 1


async def test_alerts_that_were_left_out_are_a_gap() -> None:
    w = World()
    await w.take(web(), truncated=4)
    (gap,) = w.one["status"]["gaps"]
    assert gap["what"] == LEFT_OUT
    assert "4 alerts" in gap["because"]


# ---------------------------------------------------------------- when it cannot be stored


async def test_a_conflict_is_tried_again_on_a_fresh_copy() -> None:
    w = World()
    await w.take(web())
    name = w.one["metadata"]["name"]
    times = 0

    async def somebody_is_faster(call: Call) -> None:
        nonlocal times
        if call.verb == "status" and times < 2:
            times += 1
            w.api.edit("Incident", "shop", name, lambda raw: raw.setdefault("status", {}).update(summary=f"edit {times}"))

    w.api.before = somebody_is_faster
    await w.take(web(fingerprint="f2"))
    assert w.states(w.one) == {"f2": "Firing"}
    assert w.one["status"]["summary"] == "edit 2"


async def test_an_api_server_that_fails_or_is_slow_means_again_and_what_could_be_stored_is() -> None:
    w = World(seconds=0.3)

    async def api_fails(call: Call) -> None:
        if call.verb == "create" and call.name.startswith("api"):
            raise TransientError("no answer in time; the outcome is unknown")

    w.api.before = api_fails
    with pytest.raises(TransientError):
        await w.take(alert(deployment="api"), web(fingerprint="f2"))
    assert w.one["spec"]["target"]["name"] == "web"

    async def slow(call: Call) -> None:
        await asyncio.sleep(5)

    w.api.before = slow
    with pytest.raises(TransientError, match=r"within 0\.3 s"):
        await w.take(alert(deployment="api"), desk=w.another())


async def test_a_refusal_for_good_is_told_apart() -> None:
    w = World()

    async def refuse(call: Call) -> None:
        if call.verb == "create":
            raise PermanentError("spec.target: invalid (422)")

    w.api.before = refuse
    with pytest.raises(PermanentError, match="422"):
        await w.take(web())


async def test_too_many_at_a_time_are_sent_back_and_room_comes_again() -> None:
    w = World(waiting=3)
    let_go = asyncio.Event()

    async def hold(call: Call) -> None:
        await let_go.wait()

    w.api.before = hold
    first = asyncio.create_task(w.take(web(), web(fingerprint="f2")))
    await asyncio.sleep(0.01)
    with pytest.raises(TransientError, match="too many"):
        await w.take(web(fingerprint="f3"), web(fingerprint="f4"))
    let_go.set()
    await first
    await w.take(web(fingerprint="f3"), web(fingerprint="f4"))
    assert set(w.states(w.one)) == {"f2", "f3", "f4"}


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 5)
    w = World()
    for n in range(20):
        await w.take(alert(fingerprint=f"f{n}", deployment=f"d{n}"))
    assert len(w.desk._places) == len(w.desk._seen) == 5
    assert len(w.desk._read_at) <= 10
    assert not list(w.desk._locks)
    assert len(w.incidents) == 20
    assert all(ALERT_LABEL in i["metadata"]["labels"] for i in w.incidents)
