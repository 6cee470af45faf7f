"""The connection of a command: kubeconfigs, default namespaces, and the user's own writes."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from typer.testing import CliRunner

from nightorders.__main__ import app
from nightorders.cli.session import KubeDiscovery, KubePerson, Where, connect
from nightorders.ports import AlreadyExistsError, ForbiddenError, NotFoundError, PermanentError
from tests.unit.adapters.fake_api import always, connected, serve, status
from tests.unit.cli.scene import incident

run = CliRunner().invoke
INCIDENT = "/apis/nightorders.dev/v1alpha1/namespaces/shop/incidents/checkout-rolloutstuck-5c1f09ab22-1"
REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def kubeconfig(folder: Path, server: str = "http://127.0.0.1:1") -> Path:
    contexts = {"plain": None, "shop": "shop", "cart": "cart"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "shop",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [
            {"name": n, "context": {"cluster": "c", "user": "u", **({"namespace": ns} if ns else {})}} for n, ns in contexts.items()
        ],
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("where", "namespace"),
    [({}, "shop"), ({"context": "cart"}, "cart"), ({"context": "plain"}, "default"), ({"namespace": "else"}, "else")],
)
async def test_the_namespace_is_the_contexts_unless_one_is_named(tmp_path: Path, where: dict[str, str], namespace: str) -> None:
    async with connect(Where(kubeconfig=str(kubeconfig(tmp_path)), **where)) as session:
        assert session.namespace == namespace


async def test_kubeconfig_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path)))
    async with connect(Where()) as session:
        assert (session.namespace, session.flags) == ("shop", ())


@pytest.mark.parametrize("content", [None, "", "a: [", "a: b", "[]"])
def test_no_usable_kubeconfig_is_one_line_that_says_what_to_do(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    result = run(app, ["diagnose", "deploy/x", "--kubeconfig", str(path)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--kubeconfig FILE or KUBECONFIG" in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_unknown_context(tmp_path: Path) -> None:
    result = run(app, ["diagnose", "deploy/x", "--kubeconfig", str(kubeconfig(tmp_path)), "--context", "nope"])
    assert result.exit_code == 2
    assert "kubectl config get-contexts" in result.stderr


def test_an_api_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        path = kubeconfig(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}")
        for command in (["diagnose", "deploy/x"], ["show", "x"], ["approve", "x", "--yes"]):
            result = run(app, [*command, "--kubeconfig", str(path)])
            assert (result.exit_code, result.stdout) == (3, ""), result.stderr
            assert "the API server does not answer" in result.stderr
            assert "kubectl cluster-info" in result.stderr


async def test_the_answer_goes_to_that_very_incident_and_changes_nothing_else() -> None:
    async with connected() as (api, client):
        api.on("PATCH", INCIDENT, always(lambda: web.json_response({"metadata": {}})))
        await KubePerson(client).annotate(incident(), {"approve.nightorders.dev/ann": "d|ann", "x": None})
        asked = api.asked[0]
        assert asked.body == {"metadata": {"uid": "u-inc", "annotations": {"approve.nightorders.dev/ann": "d|ann", "x": None}}}
        assert asked.headers["Content-Type"] == "application/merge-patch+json"
        assert asked.query == {"fieldValidation": "Strict", "fieldManager": "kubectl-nightorders"}


STOPS = "/api/v1/namespaces/shop/configmaps"


async def test_stop_suspend_and_resume_are_single_requests() -> None:
    async with connected() as (api, client):
        api.default = always(lambda: web.json_response({"metadata": {}}))
        person = KubePerson(client)
        await person.stop("shop", {"undo": "Deny"})
        await person.change_stop("shop", {"undo": "Deny"})
        await person.resume("shop")
        await person.suspend(incident(), True)
        sent = [(a.method, a.path, a.body) for a in api.asked]
    assert sent == [
        ("POST", STOPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nightorders-stop"}, "data": {"undo": "Deny"}}),
        ("PATCH", f"{STOPS}/nightorders-stop", {"data": {"undo": "Deny"}}),
        ("DELETE", f"{STOPS}/nightorders-stop", None),
        ("PATCH", INCIDENT, {"spec": {"suspend": True}, "metadata": {"uid": "u-inc"}}),
    ]


async def test_a_stop_that_is_there_and_one_that_is_not() -> None:
    async with connected() as (api, client):
        api.on("POST", STOPS, always(lambda: status(409, "AlreadyExists", "exists", {"name": "nightorders-stop"})))
        api.on("DELETE", f"{STOPS}/nightorders-stop", always(lambda: status(404, "NotFound", "gone", {"name": "nightorders-stop"})))
        with pytest.raises(AlreadyExistsError):
            await KubePerson(client).stop("shop", {})
        with pytest.raises(NotFoundError):
            await KubePerson(client).resume("shop")


async def test_incidents_are_listed_in_one_namespace_only(tmp_path: Path) -> None:
    """Most people may list no more."""
    async with serve() as api:
        api.default = always(lambda: web.json_response({"items": []}))
        async with connect(Where("shop", str(kubeconfig(tmp_path, api.url)))) as made:
            assert await made.incidents.of("shop") == []
        assert api.asked[-1].path == "/apis/nightorders.dev/v1alpha1/namespaces/shop/incidents"


async def test_a_refusal_of_admission_keeps_the_policys_name() -> None:
    message = "incidents \"x\" is forbidden: ValidatingAdmissionPolicy 'nightorders-approvals' with binding 'b' denied request: no"
    async with connected() as (api, client):
        api.on("PATCH", INCIDENT, always(lambda: status(403, "Forbidden", message)))
        with pytest.raises(ForbiddenError) as refused:
            await KubePerson(client).annotate(incident(), {"a": "b"})
        assert refused.value.policy == "nightorders-approvals"


@pytest.mark.parametrize("answer", [{}, {"status": None}, {"status": {"userInfo": {"username": ""}}}])
async def test_who_one_is_comes_from_the_api_server_or_not_at_all(answer: dict[str, Any]) -> None:
    async with connected() as (api, client):
        api.on("POST", REVIEW, always(lambda: web.Response(text=json.dumps(answer), content_type="application/json")))
        with pytest.raises(PermanentError, match="does not say who you are"):
            await KubePerson(client).username()


async def test_the_username_is_taken_as_it_is() -> None:
    async with connected() as (api, client):
        api.on("POST", REVIEW, always(lambda: web.json_response({"status": {"userInfo": {"username": "auth0|bob"}}})))
        assert await KubePerson(client).username() == "auth0|bob"
        await asyncio.sleep(0)


@pytest.mark.parametrize(("code", "installed"), [(200, True), (404, False), (403, True), (500, True)])
async def test_only_the_api_servers_no_means_not_installed(code: int, installed: bool) -> None:
    async with connected() as (api, client):
        api.on("GET", "/apis/nightorders.dev/v1alpha1", always(lambda: web.json_response({}) if code == 200 else status(code)))
        assert await KubeDiscovery(client).installed() is installed
