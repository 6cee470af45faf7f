"""The engine's parts by themselves: template differences, image references, messages, references, graph, ranking."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nightorders.api.v1alpha1.common import Category
from nightorders.diagnosis.changes import Aspect, differences, last_edit
from nightorders.diagnosis.evidence import Channel
from nightorders.diagnosis.graph import Link, build
from nightorders.diagnosis.hypotheses import CLIP, FACTORS, MOST_SHOWN, Candidate, Cap, Mark, rank
from nightorders.diagnosis.images import PullError, parse, pull_error, what_differs
from nightorders.diagnosis.origins.memory import quantity
from nightorders.diagnosis.read import span, when
from nightorders.diagnosis.references import references
from nightorders.diagnosis.scene import Scene
from nightorders.diagnosis.specialists.logs import Sign, read_logs
from nightorders.diagnosis.specialists.workload import examine
from nightorders.domain.snapshot import KubeObject, LogKey

from .build import HOUR, NOW, Raw, configmap, container, env, kube, service, snapshot, steady, template
from .test_situations import NEW_ENV, crash

# -- template differences -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "path", "aspect", "shown"),
    [
        (container(image="r.example/x:2"), "spec.containers[app].image", Aspect.IMAGE, "registry.example/checkout:2.3.9 → r.example/x:2"),
        (container(command=["a"]), "spec.containers[app].command", Aspect.COMMAND, "added"),
        (container(args=["--token=x"]), "spec.containers[app].args", Aspect.COMMAND, "added"),
        (container(env=[env("A", "x")]), "spec.containers[app].env[A]", Aspect.ENVIRONMENT, "added"),
        (container(envFrom=[{"configMapRef": {"name": "c"}}]), "spec.containers[app].envFrom", Aspect.ENVIRONMENT, "added"),
        (container(resources={"limits": {"memory": "1Gi"}}), "spec.containers[app].resources.limits.memory", Aspect.MEMORY, "none → 1Gi"),
        (container(resources={"requests": {"cpu": "1"}}), "spec.containers[app].resources.requests.cpu", Aspect.RESOURCES, "none → 1"),
        (container(livenessProbe={}), "spec.containers[app].livenessProbe", Aspect.PROBE, "added"),
        (container(volumeMounts=[{"mountPath": "/x"}]), "spec.containers[app].volumeMounts[/x]", Aspect.VOLUME, "added"),
        (container(securityContext={"runAsUser": 0}), "spec.containers[app].securityContext", Aspect.SETTING, "added"),
    ],
)
def test_a_difference_has_a_path_an_aspect_and_no_values(after: Raw, path: str, aspect: Aspect, shown: str) -> None:
    (d,) = differences(template(), template(after))
    assert (d.path, d.aspect, d.container) == (path, aspect, "app")
    assert d.shown.startswith(path)
    assert shown in d.shown
    assert "token" not in d.shown


def test_what_cannot_matter_is_no_difference() -> None:
    pull = template(container(imagePullPolicy="Always", ports=[{"containerPort": 1}]), terminationGracePeriodSeconds=1)
    assert differences(template(), pull) == ()
    hashed = template(labels={"app": "checkout", "pod-template-hash": "1"})
    assert differences(template(), hashed) == ()
    assert differences(template(), {"metadata": "x", "spec": [1]}) != ()


def test_the_order_of_env_is_no_difference() -> None:
    a, b = env("A", "1"), env("B", "2")
    assert differences(template(container(env=[a, b])), template(container(env=[b, a]))) == ()


def test_last_edit_is_the_latest_writer_of_the_data() -> None:
    obj = kube("ConfigMap", configmap("c", {"a": "b"}, edited=HOUR, by="bob"))
    edit = last_edit(obj)
    assert edit is not None
    assert (edit.at, edit.by, edit.created) == (NOW - HOUR, "bob", False)
    untouched = last_edit(kube("ConfigMap", configmap("c", {"a": "b"}, age=HOUR)))
    assert untouched is not None
    assert untouched.created
    assert last_edit(KubeObject({"metadata": {"managedFields": "x"}}, "ConfigMap", "v1")) is None


# -- images ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("nginx", ("docker.io", "nginx", "latest", "")),
        ("acme/app:1", ("docker.io", "acme/app", "1", "")),
        ("localhost/app", ("localhost", "app", "latest", "")),
        ("r.example:5000/a/b:1.2", ("r.example:5000", "a/b", "1.2", "")),
        ("r.example/a@sha256:0", ("r.example", "a", "", "sha256:0")),
        ("", ("docker.io", "", "latest", "")),
    ],
)
def test_image_references(reference: str, expected: tuple[str, ...]) -> None:
    image = parse(reference)
    assert (image.registry, image.repository, image.tag, image.digest) == expected


def test_what_differs_between_images() -> None:
    assert what_differs("r.io/a:1", "r.io/a:2") == "the tag: 1 → 2"
    assert what_differs("r.io/a:1", "r.oi/a:1") == "the registry: r.io → r.oi"
    assert what_differs("a:1", "a:1") == ""


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("manifest for x:9 not found: manifest unknown", PullError.NOT_FOUND),
        ("x:9: not found", PullError.NOT_FOUND),
        ("pull access denied for x, repository does not exist or may require 'docker login'", PullError.DENIED_OR_ABSENT),
        ("unauthorized: authentication required", PullError.UNAUTHORIZED),
        ("failed to fetch anonymous token: unexpected status: 401 Unauthorized", PullError.UNAUTHORIZED),
        ("dial tcp: lookup nowhere.example: no such host", PullError.NO_SUCH_HOST),
        ("dial tcp 10.0.0.1:443: connect: connection refused", PullError.UNREACHABLE),
        ("tls: x509: certificate signed by unknown authority x509:", PullError.UNREACHABLE),
        ("toomanyrequests: You have reached your pull rate limit", PullError.LIMITED),
        ("no match for platform in manifest: not found", PullError.PLATFORM),
        ("write /var/lib: no space left on device", PullError.NODE),
        ("Back-off pulling image", PullError.UNKNOWN),
    ],
)
def test_pull_errors(message: str, error: PullError) -> None:
    assert pull_error("ImagePullBackOff", "x:9", (message,)) is error


def test_an_image_named_like_an_error_is_not_one() -> None:
    assert pull_error("", "acme/denied:404", ('Back-off pulling image "acme/denied:404"',)) is PullError.UNKNOWN


# -- references and graph -----------------------------------------------------------------------------------------------------------------


def test_references_of_every_kind() -> None:
    spec = template(
        container(env=[env("A", config="c1", key="k"), env("B", secret="s1")], envFrom=[{"secretRef": {"name": "s2", "optional": True}}]),
        volumes=[
            {"name": "a", "configMap": {"name": "c2", "items": [{"key": "x"}]}},
            {"name": "b", "secret": {"secretName": "s3"}},
            {"name": "c", "projected": {"sources": [{"configMap": {"name": "c3"}}, {"secret": {"name": "s4"}}]}},
            {"name": "d", "persistentVolumeClaim": {"claimName": "p1"}},
        ],
    )["spec"]
    found = {(r.title, r.key, r.optional) for r in references(spec)}
    assert found == {
        ("ConfigMap/c1", "k", False), ("Secret/s1", "B", False), ("Secret/s2", "", True), ("ConfigMap/c2", "", False),
        ("ConfigMap/c2", "x", False), ("Secret/s3", "", False), ("ConfigMap/c3", "", False), ("Secret/s4", "", False),
        ("PersistentVolumeClaim/p1", "", False),
    }  # fmt: skip
    assert references({"containers": "x", "volumes": [None, {"configMap": 5}]}) == ()


def test_graph_edges() -> None:
    t = template(
        container(env=[env("DB", "postgres://u:p@db.shop.svc:5432/x")], envFrom=[{"configMapRef": {"name": "c"}}]),
        volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
    )
    d, rs, pods = steady(t)
    hpa: Raw = {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h", "namespace": "shop"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "checkout"}},
    }
    graph = build(Scene(snapshot(d, rs, *pods, hpa, service(), service("db"), configmap("c", {"URL": "http://checkout"})), NOW))
    assert graph.targets("Deployment/checkout", Link.READS) == ("ConfigMap/c",)
    assert graph.targets("Deployment/checkout", Link.CLAIMS) == ("PersistentVolumeClaim/data",)
    assert set(graph.targets("Deployment/checkout", Link.CALLS)) == {"Service/checkout", "Service/db"}
    assert graph.sources("Deployment/checkout", Link.SCALES) == ("HorizontalPodAutoscaler/h",)
    assert len(graph.targets("Service/checkout", Link.SELECTS)) == 3
    assert graph.targets("Pod/checkout-0006-0", Link.RUNS_ON) == ("Node/n0",)
    assert graph.root("Pod/checkout-0006-0") == "Deployment/checkout"


# -- logs ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "sign", "subject"),
    [
        ("KeyError: 'DB_URL'", Sign.SETTING, "DB_URL"),
        ("missing required environment variable DB_URL", Sign.SETTING, "DB_URL"),
        ("environment variable DB_URL is not set", Sign.SETTING, "DB_URL"),
        ("FATAL: DB_URL must be set", Sign.SETTING, "DB_URL"),
        ("required key DB_URL missing value", Sign.SETTING, "DB_URL"),
        ('invalid port "abc" for SERVER_PORT', Sign.SETTING, "SERVER_PORT"),
        ("error: unknown flag: --prot", Sign.ARGUMENT, "prot"),
        ("app: unrecognized arguments: --prot", Sign.ARGUMENT, "prot"),
        ("flag provided but not defined: -prot", Sign.ARGUMENT, "prot"),
        ("dial tcp: lookup db on 10.96.0.10:53: no such host", Sign.NAME, "db"),
        ("Error: connect ECONNREFUSED db:5432", Sign.HOST, "db"),
        ("getaddrinfo ENOTFOUND redis", Sign.NAME, "redis"),
        ("could not connect to server at db:5432: Connection refused", Sign.HOST, "db"),
        ("open /etc/app/config.yaml: no such file or directory", Sign.FILE, "/etc/app/config.yaml"),
        ("panic: runtime error", Sign.EXCEPTION, ""),
        ("Traceback (most recent call last):", Sign.EXCEPTION, ""),
    ],
)
def test_clues(line: str, sign: Sign, subject: str) -> None:
    world = crash(NEW_ENV)
    snap = world.snapshot(logs=world.log(line))
    scene = Scene(snap, NOW)
    found = examine(scene, scene.workload(kube("Deployment", world.deployment))).findings[0]
    (clue,) = read_logs(snap.logs, found).clues
    assert (clue.sign, clue.subject) == (sign, subject)


def test_logs_of_other_pods_and_containers_are_not_read() -> None:
    world = crash(NEW_ENV)
    pod = world.new_pods[0]["metadata"]["name"]
    snap = world.snapshot(logs={LogKey("other", "app"): ["KeyError: 'A'"], LogKey(pod, "side"): ["KeyError: 'B'"]})
    scene = Scene(snap, NOW)
    report = read_logs(snap.logs, examine(scene, scene.workload(kube("Deployment", world.deployment))).findings[0])
    assert (report.clues, report.read) == ((), False)


# -- ranking ------------------------------------------------------------------------------------------------------------------------------


def test_the_table_is_clipped_and_reasoned() -> None:
    assert all(1 / CLIP <= f.ratio <= CLIP and f.ratio != 1 and len(f.because) > 20 for f in FACTORS.values())
    flood = Candidate(Category.IMAGE_ACCESS, "Deployment/a", "", marks=(Mark("mechanism named"),) * 9)
    assert flood.score() == CLIP


@pytest.mark.parametrize(
    ("inferred", "counterfactual", "timing", "caps", "grade"),
    [
        (0, True, False, (), "A"),
        (0, False, True, (), "B"),
        (1, True, True, (), "B"),
        (2, True, True, (), "C"),
        (2, True, False, (), "D"),
        (0, True, True, (Cap("C", ""), Cap("B", "")), "C"),
    ],
)
def test_grades(inferred: int, counterfactual: bool, timing: bool, caps: tuple[Cap, ...], grade: str) -> None:
    c = Candidate(Category.UNKNOWN, "x", "", inferred=inferred, counterfactual=counterfactual, timing=timing, caps=caps)
    assert c.grade == grade


def test_logs_order_only_the_hypotheses_about_one_object() -> None:
    status, change, log = Mark("only an exit"), Mark("introduced by this release"), Mark("log names it")
    release = Candidate(Category.BAD_RELEASE, "Deployment/a", "", marks=(status, change))
    setting = Candidate(Category.BAD_CONFIGURATION, "Deployment/a", "", marks=(status, change, log))
    other = Candidate(Category.BAD_CONFIGURATION, "ConfigMap/b", "", marks=(status, Mark("edited before it began"), log, log))
    assert [c.object for c in rank((other, release, setting))] == ["Deployment/a", "Deployment/a", "ConfigMap/b"]
    assert rank((other, release, setting))[0] is setting


def test_neutral_ones_stay_on_a_full_list() -> None:
    neutral = (Candidate(Category.UNKNOWN, "u", ""), Candidate(Category.NO_FAULT, "n", "", refuted="no"))
    many = tuple(Candidate(Category.BAD_CONFIGURATION, f"ConfigMap/{i}", "", marks=(Mark("mechanism named"),)) for i in range(12))
    given_up = tuple(Candidate(Category.BAD_CONFIGURATION, f"ConfigMap/x{i}", "", refuted="no") for i in range(12))
    found = rank((*many, *given_up, *neutral))
    assert len(found) == MOST_SHOWN
    assert {Category.UNKNOWN, Category.NO_FAULT} <= {c.category for c in found}


def test_channels_are_few_and_named() -> None:
    assert {f.channel for f in FACTORS.values()} == set(Channel)


# -- reading ------------------------------------------------------------------------------------------------------------------------------


def test_small_readers() -> None:
    assert [span(timedelta(seconds=s)) for s in (-5, 90, 600, 7200, 6 * 86_400 - 300)] == ["0 s", "90 s", "10 m", "2 h", "6 d"]
    assert when("0001-01-01T00:00:00+23:59") is None
    assert when("2026-03-01T13:00:00+01:00") == NOW
    assert (quantity("64Mi"), quantity("1G"), quantity("x"), quantity("128974848")) == (64 * 2**20, 1e9, None, 128974848.0)
