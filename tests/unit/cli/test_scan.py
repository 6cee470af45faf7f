"""`nightorders scan` over clusters that are not there: what it finds, what it prints, what it asks for, and how it ends."""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nightorders.__main__ import app
from nightorders.cli import session as sessions
from nightorders.cli.scan import MOST_LOGS
from nightorders.cli.session import Session, Where
from nightorders.diagnosis import engine
from nightorders.domain.snapshot import Absent, KubeObject, Listing, LogExcerpt, LogKey, NotLooked
from nightorders.ports import ObjectKey
from tests.unit.cli import scene
from tests.unit.diagnosis.build import DAY, HOUR, MINUTE, NOW, NS, World, container, service, steady, template, waiting
from tests.unit.diagnosis.test_situations import NEW_ENV, bad_image, crash

run = CliRunner().invoke
Raw = dict[str, Any]
VERSIONS = {k: v for v, k in (*engine.KINDS, *engine.BESIDE_KINDS, *engine.CLUSTER_KINDS)}
CLUSTER_KINDS = {k for _, k in engine.CLUSTER_KINDS}
FORBIDDEN = 'forbidden: pods is forbidden: User "ann" cannot list resource "pods" in API group "" at the cluster scope'


@dataclass
class Reader:
    """A cluster of raw objects that counts what it is asked. `may` None: everything may be listed; else these namespaces only."""

    objects: list[KubeObject] = field(default_factory=list)
    may: set[str] | None = None
    namespaces_known: bool = True
    refused: dict[str, str] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    lines: tuple[str, ...] = ()

    def add(self, namespace: str, *raws: Raw) -> Reader:
        """The same objects in that namespace, with the namespace itself."""
        every = [{"kind": "Namespace", "metadata": {"name": namespace, "uid": f"ns-{namespace}"}}]
        every += [moved(raw, namespace) for raw in raws]
        self.objects += [KubeObject(raw, raw["kind"], VERSIONS[raw["kind"]]) for raw in every]
        return self

    async def get(self, key: ObjectKey) -> KubeObject | Absent | NotLooked:
        self.asked["get"] += 1
        found = next((o for o in self.objects if (o.kind, o.namespace, o.name) == (key.kind, key.namespace, key.name)), None)
        return found or Absent(f"{key.kind}/{key.name}", "GET", NOW)

    async def list(self, api_version: str, kind: str, namespace: str | None) -> Listing:
        self.asked["list"] += 1
        query = f"GET {kind} in {namespace or 'all namespaces'}"
        if kind in self.refused:
            return Listing(kind, query, NOW, because=self.refused[kind])
        free = kind == "Namespace" and self.namespaces_known
        if self.may is not None and not free and namespace not in self.may:
            fix = "kubectl create clusterrolebinding x --clusterrole=nightorders-reader --user=ann  # can be run by a cluster admin"
            return Listing(kind, query, NOW, because=FORBIDDEN, fix=fix)
        mine = tuple(o for o in self.objects if o.kind == kind and (namespace is None or o.namespace == namespace))
        return Listing(kind, query, NOW, mine, size=100 * len(mine))

    async def logs(self, namespace: str, key: LogKey, *, lines: int) -> LogExcerpt:
        self.asked["logs"] += 1
        return LogExcerpt(key, f"GET logs {namespace}/{key.pod}", NOW, self.lines)


def moved(raw: Raw, namespace: str) -> Raw:
    """A copy that lives there, with uids of its own."""
    text = json.dumps(raw).replace('"uid": "', f'"uid": "{namespace}-').replace(f'"namespace": "{NS}"', f'"namespace": "{namespace}"')
    made: Raw = json.loads(text)
    if raw["kind"] not in CLUSTER_KINDS:
        made["metadata"]["namespace"] = namespace
    return made


def healthy() -> list[Raw]:
    owner, rs, pods = steady(template(container()))
    return [owner, rs, *pods, service()]


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Every command of the test reads this one."""
    fake = Reader()

    class Clock:
        def now(self) -> Any:
            return NOW

    @asynccontextmanager
    async def connect(where: Where) -> AsyncIterator[Session]:
        made = scene.session(scene.FakeCluster(there=False), where)
        yield replace(made, reader=fake, clock=Clock(), namespace=where.namespace or "default")  # type: ignore[arg-type]

    monkeypatch.setattr(sessions, "connect", connect)
    return fake


def found(*args: str, code: int) -> Raw:
    """What `scan -o json` prints."""
    result = run(app, ["scan", *args, "-o", "json"])
    assert result.exit_code == code, result.output
    answer: Raw = json.loads(result.stdout)
    return answer


def test_a_fault_among_healthy_namespaces_is_one_line(reader: Reader) -> None:
    reader.add("web", *healthy()).add("api", *healthy()).add("shop", *bad_image().objects)
    wire = found(code=1)
    assert wire["namespaces"] == {"examined": 3, "healthy": 2, "progressing": [], "unclear": []}
    (one,) = wire["findings"]
    assert {k: one[k] for k in ("namespace", "object", "category", "grade", "chronic")} == {
        "namespace": "shop",
        "object": "Deployment/checkout",
        "category": "ImageAccess",
        "grade": "A",
        "chronic": False,
    }
    assert one["since"] == "2026-03-01T11:55:01Z"
    text = run(app, ["scan"]).stdout
    assert "3 namespaces examined, 2 healthy" in text
    assert "nightorders diagnose deployment/checkout -n shop" in text
    heads = next(line for line in text.splitlines() if "NAMESPACE" in line)
    row = next(line for line in text.splitlines() if line.strip().startswith("shop "))
    assert row.index("ImageAccess") == heads.index("CATEGORY")
    assert row.index("5 m ago") == heads.index("SINCE")


def test_all_is_well(reader: Reader) -> None:
    reader.add("web", *healthy()).add("empty")
    assert found(code=0)["namespaces"]["healthy"] == 2
    assert "Nothing is wrong." in run(app, ["scan", "-A"]).stdout


def test_requests_do_not_grow_with_namespaces_or_pods(reader: Reader) -> None:
    asked = []
    for count in (2, 20):
        reader.objects.clear()
        reader.asked.clear()
        for i in range(count):
            reader.add(f"ns-{i}", *healthy())
        reader.add("shop", *bad_image().objects)
        wire = found(code=1)
        asked.append(dict(reader.asked))
        assert wire["cost"]["reads"] == reader.asked["list"] + reader.asked["logs"]
    assert asked[0] == asked[1]
    assert asked[0]["list"] == len({(v, k) for k, v in VERSIONS.items()}), "each kind once"


def test_the_same_origin_as_diagnose_names(reader: Reader) -> None:
    """Dividing the lists must not lose anything that a namespace's own look would have seen."""
    reader.lines = ("missing required environment variable DB_URL",)
    reader.add("web", *healthy()).add("shop", *crash(NEW_ENV).objects)
    both = found(code=1)["findings"]
    alone = found("-n", "shop", code=1)["findings"]
    assert both == alone
    assert (both[0]["category"], both[0]["grade"]) == ("BadConfiguration", "A")


def test_logs_are_read_where_something_is_wrong_and_only_so_many(reader: Reader) -> None:
    reader.lines = ("started",)
    for i in range(40):
        reader.add(f"bad-{i:02}", *crash(NEW_ENV).objects)
    reader.add("web", *healthy())
    wire = found(code=1)
    assert len(wire["findings"]) == 40
    assert 0 < reader.asked["logs"] <= MOST_LOGS
    assert any("more namespaces in trouble" in g["what"] for g in wire["gaps"])


def test_healthy_namespaces_cost_no_logs(reader: Reader) -> None:
    reader.add("web", *healthy())
    found(code=0)
    assert reader.asked["logs"] == 0


def test_what_is_wrong_for_days_comes_after_what_is_new(reader: Reader) -> None:
    old = bad_image(released=3 * DAY)
    reader.add("aaa", *old.objects).add("zzz", *bad_image().objects)
    wire = found(code=1)
    assert [(f["namespace"], f["chronic"]) for f in wire["findings"]] == [("zzz", False), ("aaa", True)]
    text = run(app, ["scan"]).stdout
    assert text.index("zzz ") < text.index("Chronic") < text.index("aaa ")
    assert "1 finding, and 1 chronic or doubtful." in text


def test_an_object_of_the_cluster_is_told_once(reader: Reader) -> None:
    """A node that is down breaks every namespace; it is one finding."""
    down = {
        "kind": "Node",
        "metadata": {"name": "n0", "uid": "n0", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-03-01T11:50:00Z"}]},
        "status": {
            "conditions": [
                {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "lastTransitionTime": "2026-03-01T11:50:00Z"}
            ]
        },
    }
    reader.objects.append(KubeObject(down, "Node", "v1"))
    for name in ("web", "api"):
        owner, rs, pods = steady(template(container()), pods=3)
        lost = copy.deepcopy(pods[0])
        lost["status"]["conditions"][1] |= {"status": "False", "lastTransitionTime": "2026-03-01T11:50:10Z"}
        owner["status"] |= {"availableReplicas": 2, "readyReplicas": 2, "unavailableReplicas": 1}
        reader.add(name, owner, rs, lost, *pods[1:], service())
    wire = found(code=1)
    nodes = [f for f in wire["findings"] if f["object"] == "Node/n0"]
    assert [(f["namespace"], f["category"]) for f in nodes] == [("", "Node")]


def test_a_rollout_on_its_way_is_no_finding(reader: Reader) -> None:
    world = World(template(container()), template(container(image="registry.example/checkout:3")), states=[waiting("ContainerCreating")])
    reader.add("shop", *world.objects).add("web", *healthy())
    wire = found(code=3)
    assert (wire["findings"], wire["namespaces"]["progressing"]) == ([], ["shop"])


def test_trouble_without_a_shown_origin_is_told(reader: Reader) -> None:
    world = World(
        template(container()), template(container()), states=[waiting("CreateContainerConfigError", "failed to reserve container name")]
    )
    reader.add("shop", *world.objects)
    (one,) = found(code=3)["findings"]
    assert (one["category"], one["object"], one["grade"]) == ("Unknown", "Namespace/shop", "")


def test_a_kind_that_may_not_be_listed_is_one_gap_for_all(reader: Reader) -> None:
    reader.refused["ConfigMap"] = "forbidden: configmaps is forbidden"
    for name in ("a", "b", "c"):
        reader.add(name, *healthy())
    gaps = found(code=0)["gaps"]
    (told,) = [g for g in gaps if "ConfigMap" in g["what"]]
    assert told["what"] == "ConfigMap objects (3 namespaces)"


def test_without_cluster_wide_rights_the_readable_namespaces_are_scanned(reader: Reader) -> None:
    reader.add("shop", *bad_image().objects).add("web", *healthy()).add("secret", *bad_image().objects)
    reader.may = {"shop", "web"}
    wire = found(code=1)
    assert wire["place"] == "2 namespaces that you may read"
    assert [f["namespace"] for f in wire["findings"]] == ["shop"]
    assert wire["gaps"][0]["because"].startswith("1 of 3 namespaces may not be read: forbidden")
    assert not wire["gaps"][0].get("fix"), "a role that is not installed is not recommended"


def test_without_the_right_to_list_namespaces_it_is_ones_own(reader: Reader) -> None:
    reader.add("default", *bad_image().objects).add("web", *healthy())
    reader.may, reader.namespaces_known = {"default"}, False
    wire = found(code=1)
    assert wire["place"] == "1 namespace that you may read"
    assert "which namespaces there are may not be listed" in wire["gaps"][0]["because"]


def test_without_any_right_it_says_what_to_do(reader: Reader) -> None:
    reader.add("web", *healthy())
    reader.may = set()
    result = run(app, ["scan"])
    assert result.exit_code == 3
    assert "cannot list pods of any namespace: forbidden" in result.stderr
    assert "nightorders scan -n NAMESPACE" in result.stderr


def test_a_dead_api_server_is_one_line(reader: Reader) -> None:
    reader.refused["Pod"] = "failed: connection refused"
    result = run(app, ["scan"])
    assert (result.exit_code, result.stdout) == (3, "")
    assert "the API server does not answer: connection refused" in result.stderr


def test_one_namespace_that_is_not_there(reader: Reader) -> None:
    result = run(app, ["scan", "-n", "nowhere"])
    assert result.exit_code == 2
    assert "there is no namespace nowhere" in result.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["-n", "x", "-A"], "write one of: -n NAMESPACE, -A"),
        (["--at", "2026-03-01T12:00:00Z"], "--at belongs to --from"),
        (["--from", "/", "--context", "x"], "--kubeconfig and --context have no meaning"),
        (["-n", "Not_A_Name"], "cannot be the name of a namespace"),
    ],
)
def test_wrong_usage(reader: Reader, args: list[str], says: str) -> None:
    result = run(app, ["scan", *args])
    assert result.exit_code == 2
    assert says in result.stderr


def test_files_are_scanned_like_a_cluster(tmp_path: Path) -> None:
    reader = Reader().add("web", *healthy()).add("shop", *bad_image().objects)
    for kind in {o.kind for o in reader.objects}:
        items = [{**o.raw, "apiVersion": o.api_version} for o in reader.objects if o.kind == kind]
        (tmp_path / f"{kind}.json").write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": items}))
    wire = found("--from", str(tmp_path), "--at", "2026-03-01T12:00:00Z", code=1)
    assert [(f["namespace"], f["category"]) for f in wire["findings"]] == [("shop", "ImageAccess")]
    assert wire["namespaces"]["healthy"] == 1
    assert found("--from", str(tmp_path), "-n", "web", code=0)["namespaces"]["examined"] == 1
    assert "nothing of namespace nope" in run(app, ["scan", "--from", str(tmp_path), "-n", "nope"]).stderr


def test_files_without_anything_say_so(tmp_path: Path) -> None:
    assert run(app, ["scan", "--from", str(tmp_path)]).exit_code == 2


def test_names_from_files_reach_no_terminal(tmp_path: Path) -> None:
    """A dump may hold names that no API server would take."""
    objects = bad_image().objects
    items = [{"apiVersion": VERSIONS[o["kind"]], **moved(o, "shop")} for o in objects]
    text = json.dumps({"kind": "List", "apiVersion": "v1", "items": items})
    evil = text.replace('"shop"', '"sh\\u001b[31mop;`id`|x"')
    (tmp_path / "all.json").write_text(evil)
    for output in ("text", "markdown"):
        result = run(app, ["scan", "--from", str(tmp_path), "-o", output])
        assert "\x1b" not in result.stdout
        assert "-n sh" not in result.stdout, "no command with such a name"
        if output == "markdown":
            assert "|x" not in result.stdout.replace("\\|x", ""), "a bar would open a column"
            assert "\\`id\\`" in result.stdout


def test_markdown_has_a_line_for_each_finding(reader: Reader) -> None:
    reader.add("shop", *bad_image().objects)
    text = run(app, ["scan", "-o", "markdown"]).stdout
    assert "- ImageAccess Deployment/checkout (namespace shop, grade A, since 5 m ago): " in text


def test_a_hundred_namespaces_take_seconds(reader: Reader) -> None:
    for i in range(100):
        reader.add(f"ns-{i:03}", *(bad_image().objects if i % 10 == 0 else healthy()))
    begin = time.process_time()
    assert len(found(code=1)["findings"]) == 10
    assert time.process_time() - begin < 30


def test_since_of_hours_is_not_chronic(reader: Reader) -> None:
    reader.add("shop", *bad_image(released=5 * HOUR + MINUTE).objects)
    (one,) = found(code=1)["findings"]
    assert not one["chronic"]
