"""Reads, our own kinds, the target port and Events, against a server that answers as each test says."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

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
from nightorders.adapters.kube.client import parse, target_of
from nightorders.adapters.kube.resources import KNOWN
from nightorders.api.meta import FINALIZER
from nightorders.api.v1alpha1 import Incident, IncidentStatus, Ledger, LedgerSpec, RemediationPolicy
from nightorders.domain.mergepatch import apply_patch
from nightorders.domain.snapshot import Absent, KubeObject, LogKey, NotLooked
from nightorders.ports import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    ObjectKey,
    PermanentError,
    TransientError,
    Unreadable,
)
from tests.unit.adapters.fake_api import always, connected, just, obj, status

pytestmark = pytest.mark.asyncio

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WEB = ObjectKey("apps/v1", "Deployment", "shop", "web")
WEB_PATH = "/apis/apps/v1/namespaces/shop/deployments/web"
INCIDENTS = "/apis/nightorders.dev/v1alpha1/namespaces/shop/incidents"
REFUSED = (
    'pods is forbidden: User "system:serviceaccount:nightorders-system:nightorders" cannot list resource "pods" in API group "" '
    'in the namespace "shop"'
)


class FixedClock:
    def now(self) -> datetime:
        return NOW


def reader(client: KubeClient, redact: Any = lambda text: text, log_bytes: int = 65536) -> Reader:
    resources = Resources(client)
    return Reader(client, resources, FixedClock(), redact=redact, watcher=Watcher(client, resources), log_bytes=log_bytes)


def incident(**metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "nightorders.dev/v1alpha1",
        "kind": "Incident",
        "metadata": {"name": "i1", "namespace": "shop", "uid": "u1", "resourceVersion": "7", **metadata},
        "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    }


# Lists


async def test_a_list_is_one_request_from_the_cache_without_limit() -> None:
    async with connected() as (api, client):
        pods = {"kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": [obj("a", 1), obj("b", 2)]}
        api.on("GET", "/api/v1/namespaces/shop/pods", always(lambda: web.json_response(pods)))
        found = await reader(client).list("v1", "Pod", "shop")
        assert found.complete
        assert [o.title for o in found.objects] == ["Pod/a", "Pod/b"]
        assert found.query == "GET /api/v1/namespaces/shop/pods?resourceVersion=0"
        assert found.size == len(json.dumps(pods))
        assert [a.query for a in api.asked] == [{"resourceVersion": "0"}]
        assert api.asked[0].headers["User-Agent"].startswith("nightorders/")


async def test_managed_fields_stay_where_they_date_a_change() -> None:
    async with connected() as (api, client):
        item = obj("a", 1)
        item["metadata"]["managedFields"] = [{"manager": "kubectl", "time": "2026-01-01T00:00:00Z"}]
        item["metadata"]["labels"] = {"managedFields": "a label"}
        api.default = always(lambda: web.json_response({"items": [item]}))
        (pod,) = (await reader(client).list("v1", "Pod", "shop")).objects
        (config,) = (await reader(client).list("v1", "ConfigMap", "shop")).objects
        assert pod.at("metadata", "managedFields") is None
        assert pod.labels == {"managedFields": "a label"}
        assert config.at("metadata", "managedFields") is not None


async def test_forbidden_is_not_looked_with_the_command_that_grants_it() -> None:
    async with connected() as (api, client):
        api.default = always(lambda: status(403, "Forbidden", REFUSED))
        found = await reader(client).list("v1", "Pod", "shop")
        assert not found.complete
        assert found.because.startswith("forbidden: pods is forbidden")
        command, who = found.fix.split("  # ")
        assert command == (
            "kubectl create rolebinding nightorders-reader -n shop --clusterrole=nightorders-reader "
            "--serviceaccount=nightorders-system:nightorders"
        )
        assert "cluster admin" in who
        whole = await reader(client).list("v1", "Pod", None)
        assert whole.fix.startswith("kubectl create clusterrolebinding nightorders-reader --clusterrole=nightorders-reader ")


async def test_a_person_who_is_refused_gets_a_command_for_a_person() -> None:
    async with connected() as (api, client):
        api.default = always(lambda: status(403, "Forbidden", 'pods is forbidden: User "eve; rm -rf /" cannot list resource "pods"'))
        assert "'--user=eve; rm -rf /'" in (await reader(client).list("v1", "Pod", "shop")).fix


async def test_what_no_shipped_role_grants_has_no_fix() -> None:
    async with connected() as (api, client):
        api.on("GET", "/api/v1", always(lambda: web.json_response({"resources": [_served("secrets", "Secret")]})))
        api.on("GET", "/api/v1/namespaces/shop/secrets", always(lambda: status(403, "Forbidden", REFUSED)))
        found = await reader(client).list("v1", "Secret", "shop")
        assert found.because.startswith("forbidden:")
        assert found.fix == ""


async def test_an_unknown_kind_is_said_plainly_and_discovered_once() -> None:
    async with connected() as (api, client):
        api.on("GET", "/apis/example.org/v1", always(lambda: web.json_response({"resources": [_served("foos", "Foo")]})))
        api.on("GET", "/apis/example.org/v1/namespaces/shop/foos", always(lambda: web.json_response({"items": [obj("f", 1)]})))
        read = reader(client)
        assert (await read.list("example.org/v1", "Bar", "shop")).because == "no such kind on this cluster: Bar in example.org/v1"
        assert (await read.list("example.org/v1", "Foo", "shop")).objects[0].title == "Foo/f"
        assert (await read.list("gone.org/v1", "Foo", "shop")).because == "no such kind on this cluster: Foo in gone.org/v1"
        assert [a.path for a in api.asked].count("/apis/example.org/v1") == 1


async def test_a_known_kind_that_is_not_served_is_not_an_empty_list() -> None:
    async with connected() as (_, client):
        found = await reader(client).list("autoscaling/v2", "HorizontalPodAutoscaler", "shop")
        assert found.because.startswith("no such kind on this cluster")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda: web.Response(text="<html>login here</html>"), "not understood: Expecting value"),
        (lambda: web.json_response([]), "not a JSON object"),
        (lambda: status(503, "ServiceUnavailable", "away"), "away (503)"),
        (lambda: web.Response(body=b"{" + b" " * 3_000_000 + b"}"), "too large: more than 1 MiB"),
    ],
    ids=["html", "list", "503", "large"],
)
async def test_a_failed_list_proves_nothing(answer: Any, says: str) -> None:
    async with connected(max_bytes=2_000_000) as (api, client):
        api.default = always(answer)
        found = await reader(client).list("v1", "Pod", "shop")
        assert found.because.startswith("failed:")
        assert says in found.because
        assert not found.complete


async def test_a_silent_server_is_given_up() -> None:
    async with connected(seconds=0.2) as (api, client):

        async def sleepy(_: web.Request) -> web.StreamResponse:
            await asyncio.sleep(5)
            return web.Response()

        api.default = sleepy
        began = time.monotonic()
        found = await reader(client).list("v1", "Pod", "shop")
        assert "no answer in time" in found.because
        assert time.monotonic() - began < 2


async def test_5000_pods_do_not_hold_up_the_event_loop() -> None:
    container = {"name": "c", "image": "registry.example/app:1", "env": [{"name": f"V{i}", "value": "x" * 40} for i in range(20)]}
    items = [obj(f"pod-{i}", i, spec={"containers": [container] * 2}, status={"phase": "Running"}) for i in range(5000)]
    content = json.dumps({"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": items}).encode()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    parsed = await parse(content, drop_managed_fields=True)
    during = ticks
    ticking.cancel()
    assert len(parsed["items"]) == 5000
    # Parsed at once it would be 0; in a thread that never lets go of the interpreter, 1 or 2.
    assert during >= 4, f"{len(content) >> 20} MiB let the loop turn {during} times"


# Exact reads


async def test_get_tells_present_absent_and_not_looked_apart() -> None:
    async with connected() as (api, client):
        read = reader(client)
        api.on("GET", WEB_PATH, always(lambda: web.json_response(obj("web", 3))))
        found = await read.get(WEB)
        assert isinstance(found, KubeObject)
        assert api.asked[-1].query == {}  # exact: not from the cache
        api.on("GET", WEB_PATH, always(lambda: status(404, "NotFound", 'deployments.apps "web" not found', {"name": "web"})))
        assert await read.get(WEB) == Absent("Deployment/web", f"GET {WEB_PATH}", NOW)
        for answer in (status(404, "NotFound", "no such path"), status(403, "Forbidden", REFUSED), status(500, "", "boom")):
            api.on("GET", WEB_PATH, just(answer))
            assert isinstance(await read.get(WEB), NotLooked)


@pytest.mark.parametrize("name", ["..", "../secrets/token", "a/b", "a%2fb", "."])
async def test_a_name_cannot_lead_to_another_path(name: str) -> None:
    async with connected() as (api, client):
        found = await reader(client).get(ObjectKey("v1", "ConfigMap", "shop", name))
        assert isinstance(found, NotLooked)
        assert isinstance(await reader(client).get(ObjectKey("v1", "ConfigMap", name, "x")), NotLooked)
        assert (await reader(client).list("v1", "ConfigMap", name)).because
        assert api.asked == []


async def test_a_namespaced_kind_without_a_namespace_is_not_asked_for() -> None:
    async with connected() as (api, client):
        assert isinstance(await reader(client).get(ObjectKey("v1", "ConfigMap", "", "x")), NotLooked)
        assert api.asked == []


# Logs


async def test_logs_are_redacted_before_they_are_cut() -> None:
    async with connected() as (api, client):
        api.default = always(lambda: web.Response(text="x" * 1020 + "hunter2\nplain\x1b[0m\n"))
        read = reader(client, redact=lambda text: text.replace("hunter2", "[redacted]"))
        found = await read.logs("shop", LogKey("web-1", "app", previous=True), lines=20)
        assert found.because == ""
        assert len(found.lines) == 2
        assert not any("hunt" in line for line in found.lines)
        assert found.lines[1] == "plain [0m"
        assert api.asked[0].path == "/api/v1/namespaces/shop/pods/web-1/log"
        assert api.asked[0].query == {"container": "app", "tailLines": "20", "limitBytes": "65536", "previous": "true"}


async def test_a_log_of_long_lines_keeps_the_newest() -> None:
    """limitBytes cuts at the end, where the error stands."""
    lines = [f"{i:03} " + "x" * 96 for i in range(200)]
    async with connected() as (api, client):

        async def tail(request: web.Request) -> web.StreamResponse:
            chosen = "\n".join(lines[-int(request.query["tailLines"]) :]) + "\n"
            return web.Response(body=chosen.encode()[: int(request.query["limitBytes"])])

        api.default = tail
        found = await reader(client, log_bytes=2000).logs("shop", LogKey("p", "c"), lines=100)
        assert found.lines[-1].startswith("199 ")
        assert "tailLines=6&" in found.query


async def test_a_redaction_that_fails_gives_no_line() -> None:
    async with connected() as (api, client):
        api.default = always(lambda: web.Response(text="hunter2"))

        def broken(_: str) -> str:
            raise RuntimeError("hunter2")

        found = await reader(client, redact=broken).logs("shop", LogKey("p", "c"), lines=5)
        assert found.lines == ()
        assert found.because == "failed: the log could not be redacted (RuntimeError)"


async def test_refused_logs_say_why() -> None:
    async with connected() as (api, client):
        api.default = always(lambda: status(400, "BadRequest", 'previous terminated container "c" in pod "p" not found'))
        found = await reader(client).logs("shop", LogKey("p", "c", True), lines=5)
        assert found.because == 'failed: previous terminated container "c" in pod "p" not found (400)'
        api.default = always(lambda: status(403, "Forbidden", REFUSED))
        assert "--clusterrole=nightorders-reader-logs" in (await reader(client).logs("shop", LogKey("p", "c"), lines=5)).fix


# Incidents


async def test_save_status_replaces_the_whole_status_under_its_resource_version() -> None:
    async with connected() as (api, client):
        api.on("PUT", f"{INCIDENTS}/i1/status", always(lambda: web.json_response(incident(resourceVersion="8"))))
        saved = await IncidentStore(client).save_status(Incident.model_validate(incident()), IncidentStatus(summary="why"))
        assert saved.metadata.resource_version == "8"
        (asked,) = api.asked
        assert asked.body["metadata"] == {"name": "i1", "namespace": "shop", "resourceVersion": "7", "uid": "u1"}
        assert asked.body["status"]["summary"] == "why"
        assert "plan" not in asked.body["status"]
        assert asked.query == {"fieldValidation": "Strict", "fieldManager": "nightorders"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda: status(409, "Conflict", "modified"), ConflictError),
        (lambda: status(404, "NotFound", "gone", {"name": "i1"}), NotFoundError),
        (lambda: status(400, "BadRequest", 'strict decoding error: unknown field "status.new"'), PermanentError),
        (lambda: status(403, "Forbidden", "no"), ForbiddenError),
        (lambda: status(503, "", "away"), TransientError),
        (lambda: web.Response(text="nonsense"), TransientError),
    ],
)
async def test_save_status_raises_port_errors(answer: Any, expected: type[Exception]) -> None:
    async with connected() as (api, client):
        api.default = always(answer)
        with pytest.raises(expected):
            await IncidentStore(client).save_status(Incident.model_validate(incident()), IncidentStatus())


async def test_an_incident_that_was_never_read_cannot_be_written() -> None:
    async with connected() as (api, client):
        made = Incident.model_validate(incident(resourceVersion=""))
        with pytest.raises(PermanentError):
            await IncidentStore(client).save_status(made, IncidentStatus())
        with pytest.raises(PermanentError):
            await IncidentStore(client).set_finalizer(made, True)
        assert api.asked == []


async def test_the_finalizer_leaves_others_alone_and_is_not_written_twice() -> None:
    async with connected() as (api, client):
        store = IncidentStore(client)
        api.default = always(lambda: web.json_response(incident()))
        theirs = Incident.model_validate(incident(finalizers=["example.org/x"]))
        await store.set_finalizer(theirs, True)
        assert api.asked[-1].method == "PATCH"
        assert api.asked[-1].headers["Content-Type"] == "application/merge-patch+json"
        assert api.asked[-1].body == {"metadata": {"finalizers": ["example.org/x", FINALIZER], "resourceVersion": "7", "uid": "u1"}}
        both = Incident.model_validate(incident(finalizers=[FINALIZER, "example.org/x"]))
        await store.set_finalizer(both, False)
        assert api.asked[-1].body["metadata"]["finalizers"] == ["example.org/x"]
        count = len(api.asked)
        assert await store.set_finalizer(both, True) is both
        assert await store.set_finalizer(theirs, False) is theirs
        assert len(api.asked) == count


async def test_what_this_version_cannot_read_is_named_and_shown_to_nobody() -> None:
    newer = incident()
    newer["spec"]["guardrail"] = "hunter2"
    odd = incident(name="i2")
    odd["status"] = {"phase": "Dancing"}
    async with connected() as (api, client):
        api.on("GET", "/apis/nightorders.dev/v1alpha1/incidents", always(lambda: web.json_response({"items": [incident(), newer, odd]})))
        api.on("GET", f"{INCIDENTS}/i1", always(lambda: web.json_response(newer)))
        good, first, second = await IncidentStore(client).list()
        assert isinstance(good, Incident)
        assert isinstance(first, Unreadable)
        assert "spec.guardrail" in first.message
        assert "hunter2" not in first.message
        assert isinstance(second, Unreadable)
        assert (second.name, second.namespace) == ("i2", "shop")
        assert "status.phase" in second.message
        assert isinstance(await IncidentStore(client).get("shop", "i1"), Unreadable)
        assert "resourceVersion" not in api.asked[0].query  # exact: the list decides what is open


async def test_a_missing_incident_is_none_and_a_missing_kind_is_an_error() -> None:
    async with connected() as (api, client):
        api.default = always(lambda: status(404, "NotFound", "gone", {"name": "i1"}))
        assert await IncidentStore(client).get("shop", "i1") is None
        api.default = always(lambda: web.Response(status=404, text="404 page not found"))
        with pytest.raises(PermanentError, match="no such kind"):
            await IncidentStore(client).get("shop", "i1")
        with pytest.raises(PermanentError, match="no such kind"):
            await PolicyStore(client).of("shop")


async def test_creating_what_exists_says_so() -> None:
    async with connected() as (api, client):
        api.default = always(lambda: status(409, "AlreadyExists", "exists", {"name": "i1"}))
        with pytest.raises(AlreadyExistsError):
            await IncidentStore(client).create("shop", incident())
        assert api.asked[0].query["fieldValidation"] == "Strict"


# Policies and ledgers


async def test_policies_that_cannot_be_read_are_not_no_policies() -> None:
    async with connected() as (api, client):
        for answer, expected in ((status(503), TransientError), (status(403, "Forbidden", "no"), ForbiddenError)):
            api.default = just(answer)
            with pytest.raises(expected):
                await PolicyStore(client).of("shop")
        with pytest.raises(PermanentError):
            await PolicyStore(client).of("")


async def test_policy_status_is_a_conditional_patch_that_removes_what_is_gone() -> None:
    before = {
        "apiVersion": "nightorders.dev/v1alpha1",
        "kind": "RemediationPolicy",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "3"},
        "spec": {"rules": [{"name": "r", "types": ["RollbackWorkload"], "level": "L3"}]},
        "status": {"workloads": 2, "actions": "RollbackWorkload=L3"},
    }
    async with connected() as (api, client):
        api.default = always(lambda: web.json_response(before))
        policy = RemediationPolicy.model_validate(before)
        wanted = {"workloads": 1, "conditions": []}
        await PolicyStore(client).save_status(policy, wanted)
        (asked,) = api.asked
        assert (asked.method, asked.path) == ("PATCH", "/apis/nightorders.dev/v1alpha1/namespaces/shop/remediationpolicies/web/status")
        assert asked.body["metadata"] == {"resourceVersion": "3", "uid": "u"}
        assert apply_patch(policy.status.wire(), asked.body["status"]) == wanted
        await PolicyStore(client).save_status(policy, policy.status.wire())
        assert len(api.asked) == 1


async def test_ledgers_are_created_once_and_swapped_under_their_version() -> None:
    path = "/apis/nightorders.dev/v1alpha1/namespaces/shop/ledgers"
    stored = {
        "apiVersion": "nightorders.dev/v1alpha1",
        "kind": "Ledger",
        "metadata": {"name": "ledger", "namespace": "shop", "uid": "u", "resourceVersion": "3"},
        "spec": {},
    }
    async with connected() as (api, client):
        store = LedgerStore(client)
        api.on("GET", f"{path}/ledger", always(lambda: status(404, "NotFound", "gone", {"name": "ledger"})))
        assert await store.get("shop", "ledger") is None
        api.on("POST", path, always(lambda: status(409, "AlreadyExists", "exists")))
        with pytest.raises(AlreadyExistsError):
            await store.save("shop", "ledger", None, LedgerSpec())
        api.on("PATCH", f"{path}/ledger", always(lambda: status(409, "Conflict", "modified")))
        with pytest.raises(ConflictError):
            await store.save("shop", "ledger", Ledger.model_validate(stored), LedgerSpec())
        assert api.asked[-1].body["metadata"] == {"resourceVersion": "3", "uid": "u"}
        api.on("GET", f"{path}/ledger", always(lambda: web.json_response({**stored, "spec": {"later": 1}})))
        with pytest.raises(PermanentError, match=r"spec\.later"):
            await store.get("shop", "ledger")


# The port to other people's objects


@pytest.mark.parametrize(
    "patch",
    [
        {},
        {"metadata": None},
        {"metadata": {"uid": "u"}},
        {"metadata": {"resourceVersion": "1"}},
        {"metadata": {"uid": "", "resourceVersion": "1"}},
        {"metadata": {"uid": "u", "resourceVersion": None}},
        {"metadata": {"uid": "u", "resourceVersion": 1}},
    ],
)
async def test_an_unfenced_patch_never_leaves(patch: dict[str, Any]) -> None:
    async with connected() as (api, client):
        with pytest.raises(PermanentError, match="refused here"):
            await Target(client, Resources(client)).patch(WEB, patch, dry_run=True)
        assert api.asked == []


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_patch_is_strict_and_dry_only_when_asked(dry_run: bool) -> None:
    fenced = {"metadata": {"uid": "u", "resourceVersion": "1"}, "spec": {"template": {"x": None}}}
    async with connected() as (api, client):
        api.on("PATCH", WEB_PATH, always(lambda: web.json_response(obj("web", 2))))
        result = await Target(client, Resources(client)).patch(WEB, fenced, dry_run=dry_run)
        assert result.resource_version == "2"
        (asked,) = api.asked
        assert asked.body == fenced  # nulls and all
        assert asked.headers["Content-Type"] == "application/merge-patch+json"
        strict = {"fieldValidation": "Strict", "fieldManager": "nightorders"}
        assert asked.query == strict | ({"dryRun": "All"} if dry_run else {})


async def test_a_lost_answer_to_a_patch_says_that_the_outcome_is_unknown() -> None:
    fenced = {"metadata": {"uid": "u", "resourceVersion": "1"}}
    async with connected(seconds=0.2) as (api, client):

        async def sleepy(_: web.Request) -> web.StreamResponse:
            await asyncio.sleep(2)
            return web.Response()

        async def hang_up(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            request.transport.close()
            return web.Response()

        async def half(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"metadata"')
            assert request.transport is not None
            request.transport.close()
            return response

        for handler in (sleepy, hang_up, half):
            api.default = handler
            with pytest.raises(TransientError, match="outcome is unknown"):
                await Target(client, Resources(client)).patch(WEB, fenced, dry_run=False)
        assert len(api.asked) == 3  # and none of them was sent again


async def test_a_kind_that_cannot_be_found_is_not_patched() -> None:
    fenced = {"metadata": {"uid": "u", "resourceVersion": "1"}}
    async with connected() as (api, client):
        target = Target(client, Resources(client))
        with pytest.raises(PermanentError, match="no such kind"):
            await target.patch(ObjectKey("x.org/v1", "Foo", "shop", "f"), fenced, dry_run=True)
        with pytest.raises(PermanentError, match="needs a namespace"):
            await target.patch(ObjectKey("apps/v1", "Deployment", "", "f"), fenced, dry_run=True)
        api.default = always(lambda: status(503))
        with pytest.raises(TransientError):
            await target.patch(ObjectKey("y.org/v1", "Foo", "shop", "f"), fenced, dry_run=True)


# Events


async def test_an_event_says_the_same_thing_once() -> None:
    async with connected() as (api, client):
        api.default = always(lambda: web.json_response({}, status=201))
        lost: list[str] = []
        announcer = EventAnnouncer(client, FixedClock(), on_lost=lost.append)
        about = Incident.model_validate(incident())
        await announcer.announce(about, "Diagnosed", "evil\x1b[31m " + "x" * 5000, warning=True)
        (asked,) = api.asked
        assert (asked.method, asked.path) == ("POST", "/api/v1/namespaces/shop/events")
        assert asked.body["type"] == "Warning"
        assert asked.body["involvedObject"]["uid"] == "u1"
        assert asked.body["source"] == {"component": "nightorders"}
        assert len(asked.body["message"]) <= 1024
        assert "\x1b" not in asked.body["message"]
        api.on("POST", asked.path, always(lambda: status(409, "AlreadyExists", "exists")))
        await announcer.announce(about, "Diagnosed", "evil\x1b[31m " + "x" * 5000, warning=True)
        assert api.asked[-1].method == "PATCH"
        assert api.asked[-1].path.endswith(asked.body["metadata"]["name"])
        assert lost == []


async def test_a_lost_event_is_counted_and_never_raised() -> None:
    lost: list[str] = []
    async with connected(seconds=0.2) as (api, client):
        announcer = EventAnnouncer(client, FixedClock(), on_lost=lost.append)
        about = Incident.model_validate(incident())
        api.default = always(lambda: status(403, "Forbidden", "no"))
        await announcer.announce(about, "A", "b", warning=False)
    await announcer.announce(about, "A", "b", warning=False)  # the server is gone
    assert len(lost) == 2


# The client


async def test_no_configuration_is_said_plainly(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    (tmp_path / "odd").write_text("current-context: none\ncontexts: []\nclusters: []\nusers: []\n")
    for path in ("missing", "odd"):
        with pytest.raises(PermanentError, match="no usable Kubernetes configuration"):
            await KubeClient.connect(kubeconfig=str(tmp_path / path))


def _served(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "kind": kind, "namespaced": True, "verbs": ["get", "list"]}


async def test_plurals_of_the_table() -> None:
    assert KNOWN[("networking.k8s.io/v1", "Ingress")].plural == "ingresses"
    assert KNOWN[("networking.k8s.io/v1", "NetworkPolicy")].qualified == "networkpolicies.networking.k8s.io"
    assert KNOWN[("v1", "Node")].path(namespace="ignored", name="n1") == "/api/v1/nodes/n1"
    assert target_of("/x", (("a", "b c"),)) == "/x?a=b+c"
