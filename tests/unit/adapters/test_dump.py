"""Files in place of a cluster: what is there, what is absent, what nobody looked at, and files that are of no use."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from nightorders.adapters.dump import DumpReader
from nightorders.domain.redaction import redact
from nightorders.domain.snapshot import Absent, KubeObject, LogKey, NotLooked
from nightorders.ports import ObjectKey, PermanentError

AT = "2026-03-01T12:00:00Z"


def thing(kind: str, name: str, namespace: str = "shop", version: str = "v1", at: str = AT) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace, "creationTimestamp": at}}


def listed(*items: dict[str, Any], kind: str = "List", version: str = "v1") -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {}, "items": list(items)}


def reader(root: Path, files: dict[str, object]) -> DumpReader:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return DumpReader(root, redact=redact)


async def names(r: DumpReader, kind: str, namespace: str | None = "shop", version: str = "v1") -> tuple[list[str], bool]:
    listing = await r.list(version, kind, namespace)
    return [o.name for o in listing.objects], listing.complete


async def test_a_list_proves_absence_and_a_single_object_does_not(tmp_path: Path) -> None:
    r = reader(
        tmp_path,
        {"pods.json": listed(thing("Pod", "a"), thing("Pod", "b")), "one/cm.yaml": yaml.safe_dump(thing("ConfigMap", "settings"))},
    )
    assert await names(r, "Pod") == (["a", "b"], True)
    assert await names(r, "ConfigMap") == (["settings"], False)
    assert await names(r, "Service") == ([], False)
    assert isinstance(await r.get(ObjectKey("v1", "Pod", "shop", "c")), Absent)
    assert isinstance(await r.get(ObjectKey("v1", "ConfigMap", "shop", "other")), NotLooked)
    assert isinstance(await r.get(ObjectKey("v1", "ConfigMap", "shop", "settings")), KubeObject)


async def test_an_empty_list_is_of_the_kind_that_its_file_or_its_type_names(tmp_path: Path) -> None:
    r = reader(
        tmp_path,
        {
            "configmaps.json": listed(),
            "shop/services.json": listed(kind="ServiceList"),
            "radio/deployments.json": listed(kind="DeploymentList", version="apps/v1"),
            "radio/pods.json": listed(thing("Pod", "x", "radio"), kind="PodList"),
            "pod.json": thing("Pod", "y", "shop"),
        },
    )
    assert await names(r, "ConfigMap") == ([], True)
    assert await names(r, "Service") == ([], True)
    assert await names(r, "Deployment", version="apps/v1") == ([], False), "the empty List lies in the folder of another namespace"
    assert await names(r, "Pod") == (["y"], False), "the List holds pods of another namespace only"
    assert await names(r, "Pod", "radio") == (["x"], True)


async def test_a_list_over_all_namespaces_covers_each(tmp_path: Path) -> None:
    r = reader(tmp_path, {"all.json": listed(thing("Pod", "a", "radio"), thing("Pod", "b", "museum"))})
    assert await names(r, "Pod") == ([], True)


async def test_items_of_a_typed_list_have_its_kind(tmp_path: Path) -> None:
    bare = {"metadata": {"name": "n1", "creationTimestamp": AT}}
    r = reader(tmp_path, {"nodes.json": listed(bare, kind="NodeList")})
    assert await names(r, "Node", "shop") == (["n1"], True), "a cluster-scoped kind lives in every namespace's view"


async def test_the_moment_is_the_newest_time_that_the_api_wrote(tmp_path: Path) -> None:
    node = {**thing("Node", "n1"), "status": {"conditions": [{"type": "Ready", "lastHeartbeatTime": "2026-03-01T12:34:56Z"}]}}
    tls = {**thing("ConfigMap", "c"), "data": {"notAfter": "2031-01-01T00:00:00Z"}, "status": {"notAfter": "2031-01-01T00:00:00Z"}}
    r = reader(tmp_path, {"x.json": listed(node, tls)})
    assert r.moment == datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)
    r.at = datetime(2026, 3, 2, tzinfo=UTC)
    assert (await r.list("v1", "Node", None)).at == datetime(2026, 3, 2, tzinfo=UTC)


async def test_files_without_any_time_need_one(tmp_path: Path) -> None:
    r = reader(tmp_path, {"x.json": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "shop"}}})
    with pytest.raises(PermanentError, match="--at"):
        await r.list("v1", "Pod", "shop")


async def test_logs_in_both_layouts_and_redacted(tmp_path: Path) -> None:
    dumped = (
        "==== START logs for container web of pod shop/web-1 ====\nstarting\npassword=hunter2\n"
        "==== END logs for container web of pod shop/web-1 ====\n"
        "==== START logs for container side of pod shop/web-1 ====\nfrom the side\n==== END logs for container side of pod shop/web-1 ====\n"
    )
    r = reader(
        tmp_path,
        {
            "pods.json": listed(thing("Pod", "web-1")),
            "logs/shop/web-2/web.log": "".join(f"line {i}\n" for i in range(100)),
            "logs/shop/web-2/web.previous.log": "panic: no such table\n",
            "shop/web-1/logs.txt": dumped,
        },
    )
    assert (await r.logs("shop", LogKey("web-2", "web"), lines=2)).lines == ("line 98", "line 99")
    assert (await r.logs("shop", LogKey("web-2", "web", previous=True), lines=5)).lines == ("panic: no such table",)
    first = await r.logs("shop", LogKey("web-1", "web"), lines=5)
    assert first.lines[0] == "starting"
    assert "hunter2" not in str(first)
    assert (await r.logs("shop", LogKey("web-1", "side"), lines=5)).lines == ("from the side",)
    assert (await r.logs("shop", LogKey("web-9", "web"), lines=5)).because == "not in the files"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("cut.json", json.dumps(listed(thing("Pod", "a")))[:-20], "no JSON, or cut off"),
        ("cut.yaml", "kind: [", "no YAML, or cut off"),
        ("package.json", '{"name": "left-pad"}', "holds no Kubernetes object"),
        ("deep.json", "[" * 100_000, "nested too deeply"),
        ("bomb.yaml", "a: &a [x]\nb: [*a, *a]\n", "aliases are not read"),
        ("binary.json", "\x00\xff\x00", "no JSON"),
    ],
)
async def test_a_file_of_no_use_is_one_problem_and_costs_no_other(tmp_path: Path, name: str, content: str, says: str) -> None:
    r = reader(tmp_path, {"pods.json": listed(thing("Pod", "a")), name: content})
    (problem,) = r.problems
    assert problem.file == name
    assert says in problem.because
    assert await names(r, "Pod") == (["a"], True)


async def test_secrets_are_not_looked_at(tmp_path: Path) -> None:
    secret = {**thing("Secret", "db"), "data": {"password": "aHVudGVyMg=="}}
    r = reader(tmp_path, {"all.json": listed(secret, thing("Pod", "a"))})
    assert await names(r, "Secret") == ([], False)
    assert not r.problems


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="is no directory"):
        DumpReader(tmp_path / "none", redact=redact)
