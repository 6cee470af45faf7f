"""What the engine answers, situation by situation: finding, origin, change, grade."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from nightorders.api.v1alpha1.common import ObjectRef
from nightorders.api.v1alpha1.ledger import HealthyRevision
from nightorders.diagnosis.engine import diagnose
from nightorders.domain.diagnosis import Diagnosis, Finding
from nightorders.domain.snapshot import LogKey, Snapshot

from .build import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    TARGET,
    Raw,
    World,
    configmap,
    container,
    crashing,
    deployment,
    ended,
    env,
    event,
    pod,
    recorded,
    replicaset,
    running,
    service,
    snapshot,
    steady,
    template,
    waiting,
)

SECOND = timedelta(seconds=1)
GOOD = "registry.example/checkout:2.3.9"
BAD = "registry.example/checkout:2.4.O"
NOT_FOUND = f'Failed to pull image "{BAD}": rpc error: code = NotFound desc = failed to resolve reference "{BAD}": {BAD}: not found'


@dataclass(frozen=True)
class Expected:
    """`top` is `Category Kind/name`, with ` rev N`, ` Edit` or ` Deletion` for its change; empty: nothing stands."""

    finding: Finding
    top: str = ""
    grade: str = ""
    reason: str = ""
    says: str = ""


@dataclass(frozen=True)
class Situation:
    name: str
    make: Callable[[], Snapshot | tuple[Snapshot, tuple[HealthyRevision, ...]]]
    expected: Expected
    target: ObjectRef = TARGET


def of(top: str, grade: str, says: str = "") -> Expected:
    return Expected(Finding.FAULT, top, grade, "OriginShown", says)


def unknown(reason: str = "OriginNotShown", says: str = "") -> Expected:
    return Expected(Finding.UNKNOWN, "", "", reason, says)


def spelled(d: Diagnosis) -> str:
    """The first hypothesis, when the answer is a fault."""
    if d.top is None or d.finding is not Finding.FAULT:
        return ""
    change = d.top.change
    how = "" if change is None or change.kind == "None" else f" rev {change.revision}" if change.kind == "Release" else f" {change.kind}"
    return f"{d.top.category} {d.top.object}{how}"


# -- images -------------------------------------------------------------------------------------------------


def bad_image(error: str = NOT_FOUND, image: str = BAD, *, reason: str = "ImagePullBackOff", failing: int = 1, **more: object) -> World:
    world = World(template(), template(container(image=image)), states=[waiting(reason, "Back-off pulling image")], failing=failing, **more)  # type: ignore[arg-type]
    return world.tell("Failed", error) if error else world


def pull(image: str, why: str) -> str:
    return f'Failed to pull image "{image}": {why}'


def no_previous() -> Snapshot:
    t = template(container(image=BAD))
    d = deployment(t, updated=3, available=0, progressing=("True", "ReplicaSetUpdated"), age=5 * MINUTE)
    rs = replicaset(d, 1, t, age=5 * MINUTE, replicas=3)
    pods = [pod(rs, i, age=5 * MINUTE, ready=False, states=[waiting("ErrImagePull")], node=f"n{i}") for i in range(3)]
    return snapshot(d, rs, *pods, *(event(p, "Failed", NOT_FOUND, first=4 * MINUTE) for p in pods))


def restarted_after_bad_release() -> Snapshot:
    """Release 7 was bad, release 8 only restarts it: the image came in with 7."""
    bad = template(container(image=BAD))
    again = template(container(image=BAD), annotations={"kubectl.kubernetes.io/restartedAt": "now"})
    d = deployment(again, updated=1, available=3, total=4, progressing=("True", "ReplicaSetUpdated"))
    old, mid, new = (replicaset(d, n, t, age=a) for n, t, a in ((6, template(), 6 * DAY), (7, bad, HOUR), (8, again, 5 * MINUTE)))
    p = pod(new, 0, age=5 * MINUTE, ready=False, states=[waiting("ImagePullBackOff")])
    return snapshot(
        d, old, mid, new, *(pod(old, i, age=6 * DAY, node=f"n{i}") for i in range(3)), p, event(p, "Failed", NOT_FOUND, first=4 * MINUTE)
    )


def image_vanished(error: str) -> Snapshot:
    """No release: a pod that was rescheduled cannot pull what its siblings run."""
    t = template()
    d, rs, pods = steady(t, available=2)
    p = pod(rs, 9, age=5 * MINUTE, node="n7", ready=False, states=[waiting("ImagePullBackOff")])
    return snapshot(d, rs, *pods[:2], p, event(p, "Failed", pull(GOOD, error), first=4 * MINUTE))


def recreate(ledger: bool) -> tuple[Snapshot, tuple[HealthyRevision, ...]]:
    """Strategy Recreate: no old pod is left to compare with; only the Ledger can prove the old revision."""
    w = bad_image(failing=3, old_pods=0)
    return w.snapshot(), (recorded(w.deployment, w.old),) if ledger else ()


def tampered() -> tuple[Snapshot, tuple[HealthyRevision, ...]]:
    w = bad_image(failing=3, old_pods=0)
    record = recorded(w.deployment, w.old).model_copy(update={"template_sha256": "sha256:" + "0" * 64})
    return w.snapshot(), (record,)


def elsewhere(error: str = NOT_FOUND) -> Snapshot:
    d, rs, pods = steady(template(container(image=BAD), labels={"app": "other"}), name="other", pods=1)
    return bad_image(error).add(d, rs, *pods).snapshot()


def registry_down() -> Snapshot:
    other = template(container(image="registry.example/other:1"), labels={"app": "other"})
    d, rs, _ = steady(other, name="other", pods=1)
    p = pod(rs, 5, age=5 * MINUTE, ready=False, states=[waiting("ImagePullBackOff")])
    return bad_image(pull(BAD, "dial tcp 10.0.0.1:443: i/o timeout")).add(d, rs, p).snapshot()


def doubled_revision() -> Snapshot:
    w = bad_image()
    twin = replicaset(w.deployment, 7, template(container(image="registry.example/checkout:evil")), age=HOUR)
    twin["metadata"]["name"], twin["metadata"]["uid"] = "checkout-evil", "uid-evil"
    return w.add(twin).snapshot()


def bad_node() -> Snapshot:
    """Every pod on n2 fails to reach the registry, pods of the same revision serve elsewhere."""
    t = template(container(image=BAD))
    d, rs, pods = steady(t, available=2, number=7)
    p = pod(rs, 9, age=5 * MINUTE, node="n9", ready=False, states=[waiting("ImagePullBackOff")])
    return snapshot(d, rs, *pods[:2], p, event(p, "Failed", pull(BAD, "dial tcp 10.0.0.1:443: i/o timeout"), first=4 * MINUTE))


IMAGES = (
    Situation(
        "wrong tag", lambda: bad_image().snapshot(), of("ImageAccess Deployment/checkout rev 7", "A", "an image that does not exist")
    ),
    Situation(
        "wrong tag, ErrImagePull", lambda: bad_image(reason="ErrImagePull").snapshot(), of("ImageAccess Deployment/checkout rev 7", "A")
    ),
    Situation(
        "wrong tag, no event says why",
        lambda: bad_image("").snapshot(),
        of("ImageAccess Deployment/checkout rev 7", "B", "cannot be pulled"),
    ),
    Situation(
        "wrong tag, events forbidden",
        lambda: bad_image().snapshot(unread={"Event": "forbidden"}),
        of("ImageAccess Deployment/checkout rev 7", "B"),
    ),
    Situation(
        "wrong tag, ConfigMaps forbidden",
        lambda: bad_image().snapshot(unread={"ConfigMap": "forbidden"}),
        of("ImageAccess Deployment/checkout rev 7", "B"),
    ),
    Situation(
        "wrong tag, ReplicaSets forbidden",
        lambda: bad_image().snapshot(unread={"ReplicaSet": "forbidden"}),
        of("ImageAccess Deployment/checkout", "B"),
    ),
    Situation(
        "wrong tag, ReplicaSets not asked for",
        lambda: bad_image().snapshot(not_asked=("ReplicaSet",)),
        of("ImageAccess Deployment/checkout", "B"),
    ),
    Situation("wrong tag, old snapshot", lambda: bad_image().snapshot(taken=NOW - HOUR), of("ImageAccess Deployment/checkout rev 7", "B")),
    Situation(
        "invalid name",
        lambda: bad_image("", "registry.example/Checkout:2", reason="InvalidImageName").snapshot(),
        of("ImageAccess Deployment/checkout rev 7", "A", "not valid"),
    ),
    Situation(
        "unauthorized",
        lambda: bad_image(pull(BAD, "failed to authorize: 401 Unauthorized")).snapshot(),
        of("ImageAccess Deployment/checkout rev 7", "A", "refuses to give"),
    ),
    Situation(
        "Docker Hub's answer to both",
        lambda: bad_image(
            pull("acme/x:1", "pull access denied, repository does not exist or may require authorization"), "acme/x:1"
        ).snapshot(),
        of("ImageAccess Deployment/checkout rev 7", "A", "refuses or does not have"),
    ),
    Situation(
        "unknown registry host",
        lambda: bad_image(
            pull("regsitry.example/checkout:1", "dial tcp: lookup regsitry.example: no such host"), "regsitry.example/checkout:1"
        ).snapshot(),
        of("ImageAccess Deployment/checkout rev 7", "A", "nobody knows"),
    ),
    Situation("registry times out", registry_down, of("ImageAccess Deployment/checkout rev 7", "C")),
    Situation("first release", no_previous, of("ImageAccess Deployment/checkout", "B", "no release of it explains")),
    Situation("restart after a bad release", restarted_after_bad_release, of("ImageAccess Deployment/checkout rev 7", "A")),
    Situation("tag vanished, no release", lambda: image_vanished("not found"), of("ImageAccess Deployment/checkout", "C", "no release")),
    Situation("credentials expired, no release", lambda: image_vanished("401 Unauthorized"), of("ImageAccess Deployment/checkout", "C")),
    Situation(
        "Recreate, nothing proves the old revision",
        lambda: recreate(ledger=False),
        of("ImageAccess Deployment/checkout rev 7", "B", "nothing proves"),
    ),
    Situation(
        "Recreate, the Ledger proves it",
        lambda: recreate(ledger=True),
        of("ImageAccess Deployment/checkout rev 7", "A", "recorded healthy"),
    ),
    Situation("Recreate, recorded template was edited since", tampered, of("ImageAccess Deployment/checkout rev 7", "B")),
    Situation("the image runs elsewhere", elsewhere, of("ImageAccess Deployment/checkout rev 7", "C")),
    Situation("one node cannot reach the registry", bad_node, unknown()),
    Situation("two ReplicaSets claim a revision", doubled_revision, of("ImageAccess Deployment/checkout", "C")),
    Situation("init container", lambda: init_image(), of("ImageAccess Deployment/checkout rev 7", "A")),
)


def init_image() -> Snapshot:
    def made(image: str) -> Raw:
        return template(container(), initContainers=[container("setup", image)])

    w = World(made(GOOD), made(BAD), states=[waiting("PodInitializing")])
    for p in w.new_pods:
        p["status"]["initContainerStatuses"] = [waiting("ImagePullBackOff", name="setup")]
    return w.tell("Failed", NOT_FOUND).snapshot()


# -- exits --------------------------------------------------------------------------------------------------


def crash(new: Raw, old: Raw | None = None, *, state: Raw | None = None, **more: object) -> World:
    return World(old or template(), new, states=[state or crashing()], phase="Running", **more)  # type: ignore[arg-type]


NEW_ENV = template(container(env=[env("DB_URL", "postgres://db")]))
NEW_IMAGE = template(container(image="registry.example/checkout:2.4.0"))
NEW_COMMAND = template(container(command=["serve-fast"]))


def limited(memory: str) -> Raw:
    return template(container(resources={"limits": {"memory": memory}}))


OOM = crashing(137, "OOMKilled")
START = waiting(
    "RunContainerError",
    "failed to start",
    restarts=3,
    last=ended(128, "StartError", message='exec: "serve-fast": executable file not found in $PATH'),
)


def reading_config(
    *, edited: timedelta | None, crash_age: timedelta = 5 * MINUTE, logs: bool = True, healthy: int = 2, data: str = "PORT"
) -> Snapshot:
    """No release: one pod was restarted and exits; its siblings serve. The ConfigMap that all read was (perhaps) edited."""
    t = template(container(envFrom=[{"configMapRef": {"name": "checkout"}}]))
    d, rs, pods = steady(t, available=healthy)
    p = pod(rs, 9, age=crash_age, node="n2", ready=False, states=[crashing()])
    log = {LogKey(p["metadata"]["name"], "app"): ("KeyError: 'PORT'",)} if logs else {}
    return snapshot(d, rs, *pods[:healthy], p, configmap("checkout", {data: "1"}, edited=edited), logs=log)


def restarted_after_edit() -> Snapshot:
    """`kubectl rollout restart` after an edit: the release changes nothing but an annotation, the ConfigMap is the origin."""
    ref = container(envFrom=[{"configMapRef": {"name": "checkout"}}])
    w = crash(template(ref, annotations={"kubectl.kubernetes.io/restartedAt": "x"}), template(ref))
    return w.add(configmap("checkout", {"PORT": "x"}, edited=8 * MINUTE)).snapshot(logs=w.log("KeyError: 'PORT'"))


def older_release() -> Snapshot:
    """The release ran well for days; then pods began to exit and nothing that can be seen changed."""
    w = crash(NEW_IMAGE, released=3 * DAY, old_pods=0, failing=3, progressing=("True", "NewReplicaSetAvailable"))
    for p in w.new_pods:
        p["status"]["conditions"][1]["lastTransitionTime"] = "2026-03-01T11:50:00Z"
        p["status"]["containerStatuses"][0]["lastState"]["terminated"]["startedAt"] = "2026-03-01T11:40:00Z"
    return w.snapshot(logs=w.log("segmentation fault"))


def two_releases() -> Snapshot:
    """6 is proven; 7 changed the image, 8 the environment; both fail."""
    seven, eight = NEW_IMAGE, template(container(image="registry.example/checkout:2.4.0", env=[env("MODE", "x")]))
    d = deployment(eight, updated=1, available=3, total=4, progressing=("True", "ReplicaSetUpdated"))
    sets = [replicaset(d, n, t, age=a) for n, t, a in ((6, template(), 6 * DAY), (7, seven, HOUR), (8, eight, 5 * MINUTE))]
    p = pod(sets[2], 0, age=5 * MINUTE, ready=False, states=[crashing()])
    logs = {LogKey(p["metadata"]["name"], "app"): ("boom",)}
    return snapshot(d, *sets, *(pod(sets[0], i, age=6 * DAY, node=f"n{i}") for i in range(3)), p, logs=logs)


def probe_kill() -> Snapshot:
    probe = {"livenessProbe": {"httpGet": {"path": "/", "port": 1}}}
    w = crash(template(container(**probe)), state=crashing(137))
    return w.tell("Unhealthy", "Liveness probe failed: connection refused").snapshot()


def dead_database(new: Raw = NEW_IMAGE) -> Snapshot:
    w = crash(new).add(service("db", {"app": "db"}))
    return w.snapshot(logs=w.log("dial tcp: lookup db: no such host", "Error: connect ECONNREFUSED db:5432"))


def first_start_error() -> Snapshot:
    d = deployment(NEW_COMMAND, updated=1, replicas=1, available=0, progressing=("True", "ReplicaSetUpdated"), age=5 * MINUTE)
    rs = replicaset(d, 1, NEW_COMMAND, age=5 * MINUTE, replicas=1)
    return snapshot(d, rs, pod(rs, 0, age=5 * MINUTE, ready=False, states=[START]))


def half_crashes() -> Snapshot:
    """Some pods of the new release serve, one crashes, all nodes are mixed."""
    w = crash(NEW_IMAGE, failing=2)
    w.new_pods.append(pod(w.new, 8, age=5 * MINUTE, node="n1"))
    return w.snapshot(logs=w.log("panic: boom"))


def flapping() -> Snapshot:
    """Without a readiness probe a crash loop is Ready for a second at a time, and every replica looks available."""
    w = crash(NEW_ENV, old_pods=0, failing=3, state=running(restarts=5, age=2 * SECOND, last=ended(1)))
    w.deployment["status"] |= {"availableReplicas": 3, "updatedReplicas": 3, "replicas": 3}
    for p in w.new_pods:
        p["status"]["conditions"][1]["status"] = "True"
    return w.snapshot()


EXITS = (
    Situation(
        "environment changed, log names it",
        lambda: (w := crash(NEW_ENV)).snapshot(logs=w.log("invalid value for DB_URL")),
        of("BadConfiguration Deployment/checkout rev 7", "A", "DB_URL"),
    ),
    Situation(
        "environment changed, log says nothing of it",
        lambda: (w := crash(NEW_ENV)).snapshot(logs=w.log("boom")),
        of("BadConfiguration Deployment/checkout rev 7", "B"),
    ),
    Situation("environment changed, no log", lambda: crash(NEW_ENV).snapshot(), of("BadConfiguration Deployment/checkout rev 7", "C")),
    Situation(
        "environment changed, log refused",
        lambda: (w := crash(NEW_ENV)).snapshot(logs={LogKey(w.new_pods[0]["metadata"]["name"], "app"): "forbidden: pods/log"}),
        of("BadConfiguration Deployment/checkout rev 7", "C"),
    ),
    Situation(
        "environment variable removed",
        lambda: (w := crash(template(), NEW_ENV)).snapshot(logs=w.log("DB_URL is not set")),
        of("BadConfiguration Deployment/checkout rev 7", "A"),
    ),
    Situation(
        "command changed, runtime names it",
        lambda: crash(NEW_COMMAND, state=START).snapshot(),
        of("BadConfiguration Deployment/checkout rev 7", "A"),
    ),
    Situation("first release, command cannot start", first_start_error, of("BadConfiguration Deployment/checkout", "B")),
    Situation(
        "argument not understood",
        lambda: (w := crash(template(container(args=["--prot=1"])))).snapshot(logs=w.log("unknown flag: --prot")),
        of("BadConfiguration Deployment/checkout rev 7", "A"),
    ),
    Situation(
        "only the image changed",
        lambda: (w := crash(NEW_IMAGE)).snapshot(logs=w.log("panic: nil")),
        of("BadRelease Deployment/checkout rev 7", "A", "2.3.9 → 2.4.0"),
    ),
    Situation("only the image changed, no log", lambda: crash(NEW_IMAGE).snapshot(), of("BadRelease Deployment/checkout rev 7", "C")),
    Situation(
        "image and environment changed, log names neither",
        lambda: (w := crash(template(container(image="r.example/x:2", env=[env("A")])))).snapshot(logs=w.log("x")),
        of("BadConfiguration Deployment/checkout rev 7", "C"),
    ),
    Situation("nothing but labels changed", lambda: (w := crash(template(annotations={"x": "y"}))).snapshot(logs=w.log("x")), unknown()),
    Situation(
        "sidecar changed, main crashes",
        lambda: crash(
            template(container(), container("side", "s:2")), template(container(), container("side", "s:1")), state=crashing()
        ).snapshot(),
        unknown(),
    ),
    Situation(
        "memory limit lowered",
        lambda: crash(limited("16Mi"), limited("256Mi"), state=OOM).snapshot(),
        of("ResourceLimit Deployment/checkout rev 7", "A", "256Mi to 16Mi"),
    ),
    Situation(
        "memory limit kept, new image needs more",
        lambda: crash(
            template(container(image="r.example/x:2", resources={"limits": {"memory": "64Mi"}})), limited("64Mi"), state=OOM
        ).snapshot(),
        of("ResourceLimit Deployment/checkout rev 7", "B"),
    ),
    Situation(
        "OOM without any change",
        lambda: crash(limited("16Mi"), limited("16Mi"), state=OOM).snapshot(),
        of("ResourceLimit Deployment/checkout", "B"),
    ),
    Situation("OOM without a limit is the node's", lambda: crash(template(), state=OOM).snapshot(), unknown()),
    Situation("killed by a liveness probe", probe_kill, of("Probe Deployment/checkout rev 7", "A")),
    Situation(
        "ConfigMap edited before a restart, log names the key",
        lambda: reading_config(edited=10 * MINUTE),
        of("BadConfiguration ConfigMap/checkout Edit", "B", "changed at"),
    ),
    Situation(
        "ConfigMap edited before a restart, no log",
        lambda: reading_config(edited=10 * MINUTE, logs=False),
        of("BadConfiguration ConfigMap/checkout Edit", "C"),
    ),
    Situation("ConfigMap unchanged", lambda: reading_config(edited=None), unknown()),
    Situation("ConfigMap edited after the symptom", lambda: reading_config(edited=2 * MINUTE), unknown()),
    Situation("ConfigMap edited before healthy pods started", lambda: reading_config(edited=10 * DAY), unknown()),
    Situation("edit, then rollout restart", restarted_after_edit, of("BadConfiguration ConfigMap/checkout Edit", "B")),
    Situation("release older than the symptom", older_release, unknown()),
    Situation("two releases since the last healthy one", two_releases, of("BadConfiguration Deployment/checkout rev 7", "C")),
    Situation("a database without endpoints", dead_database, unknown()),
    Situation(
        "the release points to a dead host",
        lambda: dead_database(template(container(env=[env("DB", "postgres://db:5432")]))),
        of("BadConfiguration Deployment/checkout rev 7", "A"),
    ),
    Situation("half of the new pods serve", half_crashes, of("BadRelease Deployment/checkout rev 7", "C")),
    Situation("a crash loop that looks available", flapping, of("BadConfiguration Deployment/checkout rev 7", "C")),
    Situation("init container exits", lambda: init_crash(), of("BadConfiguration Deployment/checkout rev 7", "C")),
)


def init_crash() -> Snapshot:
    def made(*command: str) -> Raw:
        return template(container(), initContainers=[container("setup", command=list(command))])

    w = World(made("migrate"), made("migrate", "--all"), states=[waiting("PodInitializing")])
    for p in w.new_pods:
        p["status"]["initContainerStatuses"] = [crashing(name="setup")]
    return w.snapshot()


def all_replaced(*, edited: timedelta | None, completed: timedelta = 3 * MINUTE, previous: bool = False) -> Snapshot:
    """A young app: complete three minutes ago, then an edit, then every pod deleted; the new pods exit and nothing serves."""
    t = template(container(envFrom=[{"configMapRef": {"name": "checkout"}}]))
    d = deployment(t, available=0, age=5 * MINUTE, progressing_age=completed)
    rs = replicaset(d, 2, t, age=5 * MINUTE, replicas=3)
    older = [replicaset(d, 1, NEW_IMAGE, age=6 * MINUTE)] if previous else []
    pods = [pod(rs, i, age=MINUTE, node=f"n{i}", ready=False, states=[crashing()]) for i in range(3)]
    cm = configmap("checkout", {"HOST": "x"}, age=5 * MINUTE, edited=edited)
    return snapshot(d, rs, *older, *pods, cm, logs={LogKey(pods[0]["metadata"]["name"], "app"): ("KeyError: 'PORT'",)})


def new_sidecar() -> Snapshot:
    side = container("side", "registry.example/side:1", env=[env("A", "x")])
    w = crash(template(container(), side), state=crashing(name="side"))
    return w.snapshot(logs={LogKey(w.new_pods[0]["metadata"]["name"], "side"): ("boom",)})


YOUNG = (
    Situation(
        "all pods replaced after an edit", lambda: all_replaced(edited=2 * MINUTE), of("BadConfiguration ConfigMap/checkout Edit", "B")
    ),
    Situation(
        "all pods replaced after an edit, with an older release",
        lambda: all_replaced(edited=2 * MINUTE, previous=True),
        of("BadConfiguration ConfigMap/checkout Edit", "B"),
    ),
    Situation("all pods replaced, nothing was edited", lambda: all_replaced(edited=None, previous=True), unknown()),
    Situation("a new sidecar exits", new_sidecar, of("BadRelease Deployment/checkout rev 7", "C")),
    Situation(
        "ConfigMap deleted, then rollout restart",
        lambda: missing(template(*READS["spec"]["containers"], annotations={"restartedAt": "x"}), NO_CONFIG, READS).snapshot(),
        of("MissingObject ConfigMap/checkout-v2 Deletion", "A"),
    ),
)


# -- references that lead nowhere ---------------------------------------------------------------------------

READS = template(container(envFrom=[{"configMapRef": {"name": "checkout-v2"}}]))
READS_KEY = template(container(env=[env("PORT", config="checkout")]))
MOUNTS = template(container(), volumes=[{"name": "v", "configMap": {"name": "checkout-v2"}}])
READS_SECRET = template(container(env=[env("TOKEN", secret="checkout-db")]))
MOUNTS_SECRET = template(container(), volumes=[{"name": "v", "secret": {"secretName": "checkout-db"}}])
NO_CONFIG = waiting("CreateContainerConfigError", 'configmap "checkout-v2" not found')
NO_KEY = waiting("CreateContainerConfigError", "couldn't find key PORT in ConfigMap shop/checkout")
NO_SECRET = waiting("CreateContainerConfigError", 'secret "checkout-db" not found')
CREATING = waiting("ContainerCreating")


def missing(new: Raw, state: Raw, old: Raw | None = None, **more: object) -> World:
    return World(old or template(), new, states=[state], **more)  # type: ignore[arg-type]


def gone(t: Raw, state: Raw, *more: Raw, message: str = "") -> Snapshot:
    """No release: a pod that was rescheduled does not find what its siblings found."""
    d, rs, pods = steady(t, available=2)
    p = pod(rs, 9, age=5 * MINUTE, node="n2", ready=False, states=[state], phase="Pending")
    told = [event(p, "FailedMount", message, first=4 * MINUTE)] if message else []
    return snapshot(d, rs, *pods[:2], p, *told, *more)


def first_missing() -> Snapshot:
    d = deployment(READS, updated=1, replicas=1, available=0, progressing=("True", "ReplicaSetUpdated"), age=5 * MINUTE)
    rs = replicaset(d, 1, READS, age=5 * MINUTE, replicas=1)
    return snapshot(d, rs, pod(rs, 0, age=5 * MINUTE, ready=False, states=[NO_CONFIG], phase="Pending"))


MISSING = (
    Situation(
        "new reference to an absent ConfigMap",
        lambda: missing(READS, NO_CONFIG).snapshot(),
        of("MissingObject Deployment/checkout rev 7", "A", "ConfigMap/checkout-v2"),
    ),
    Situation(
        "old reference, ConfigMap deleted",
        lambda: gone(READS, NO_CONFIG),
        of("MissingObject ConfigMap/checkout-v2 Deletion", "A", "any more"),
    ),
    Situation("first release, ConfigMap never made", first_missing, of("MissingObject ConfigMap/checkout-v2", "B")),
    Situation(
        "new volume of an absent ConfigMap",
        lambda: missing(MOUNTS, CREATING).snapshot(),
        of("MissingObject Deployment/checkout rev 7", "A"),
    ),
    Situation(
        "old volume, FailedMount",
        lambda: gone(MOUNTS, CREATING, message='MountVolume.SetUp failed for volume "v" : configmap "checkout-v2" not found'),
        of("MissingObject ConfigMap/checkout-v2 Deletion", "A"),
    ),
    Situation(
        "new reference to an absent key",
        lambda: missing(READS_KEY, NO_KEY).add(configmap("checkout", {"HOST": "x"})).snapshot(),
        of("MissingObject Deployment/checkout rev 7", "A", "key PORT"),
    ),
    Situation(
        "key dropped by an edit",
        lambda: gone(READS_KEY, NO_KEY, configmap("checkout", {"HOST": "x"}, edited=6 * MINUTE)),
        of("MissingObject ConfigMap/checkout Edit", "A", "key PORT"),
    ),
    Situation(
        "absent, ConfigMaps forbidden",
        lambda: missing(READS, NO_CONFIG).snapshot(unread={"ConfigMap": "forbidden"}),
        of("MissingObject Deployment/checkout rev 7", "B"),
    ),
    Situation(
        "kubelet saw it missing, it is there now",
        lambda: missing(READS, NO_CONFIG).add(configmap("checkout-v2")).snapshot(),
        Expected(Finding.PROGRESSING, reason="RolloutUnderWay"),
    ),
    Situation(
        "new reference to an absent Secret",
        lambda: missing(READS_SECRET, NO_SECRET).snapshot(),
        of("MissingObject Deployment/checkout rev 7", "B", "Secret/checkout-db"),
    ),
    Situation("old reference, Secret gone", lambda: gone(READS_SECRET, NO_SECRET), of("MissingObject Secret/checkout-db Deletion", "B")),
    Situation(
        "Secret of a volume gone",
        lambda: gone(MOUNTS_SECRET, CREATING, message='MountVolume.SetUp failed for volume "v" : secret "checkout-db" not found'),
        of("MissingObject Secret/checkout-db Deletion", "B"),
    ),
    Situation(
        "optional reference does not hold back",
        lambda: missing(
            template(container(envFrom=[{"configMapRef": {"name": "no", "optional": True}}])), CREATING, released=2 * MINUTE
        ).snapshot(),
        Expected(Finding.PROGRESSING),
    ),
    Situation(
        "kubelet names what the pod does not read",
        lambda: (
            missing(READS, waiting("CreateContainerConfigError", 'configmap "kube-root-ca.crt" not found'))
            .add(configmap("checkout-v2"))
            .snapshot()
        ),
        unknown(),
    ),
    Situation(
        "runs as root against its own settings",
        lambda: missing(NEW_ENV, waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")).snapshot(),
        of("BadConfiguration Deployment/checkout", ""),
    ),
)


# -- several at once, and what is no fault ------------------------------------------------------------------


def image_and_old_config() -> Snapshot:
    """The release names a bad image; and a ConfigMap that both releases read is gone: after a rollback pods still cannot start."""
    ref = {"envFrom": [{"configMapRef": {"name": "checkout"}}]}
    w = World(template(container(**ref)), template(container(image=BAD, **ref)), states=[waiting("ImagePullBackOff")])
    return w.tell("Failed", NOT_FOUND).snapshot()


def old_pods_crash_too() -> Snapshot:
    w = bad_image()
    w.old_pods[0] = pod(w.old, 0, age=6 * DAY, ready=False, states=[crashing()], ready_age=HOUR)
    return w.snapshot()


def rolled_back() -> Snapshot:
    """Somebody rolled back already: revision 8 is the old template again, complete."""
    w = bad_image(old_pods=3)
    w.deployment["spec"]["template"] = template()
    w.deployment["status"] |= {"updatedReplicas": 3, "availableReplicas": 3, "replicas": 3}
    w.old["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "8", "deployment.kubernetes.io/revision-history": "6"}
    w.new_pods = []
    return w.snapshot()


def rolling_back() -> Snapshot:
    w = bad_image(old_pods=2, failing=1, observed=7)
    w.deployment["spec"]["template"] = template()
    w.old["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "8", "deployment.kubernetes.io/revision-history": "6"}
    w.new_pods[0]["metadata"]["deletionTimestamp"] = "2026-03-01T11:59:55Z"
    return w.snapshot()


def healthy() -> Snapshot:
    d, rs, pods = steady(template())
    return snapshot(d, rs, *pods)


def rolling(state: Raw, *, released: timedelta = 20 * SECOND, phase: str = "Pending", **more: object) -> Snapshot:
    return World(template(), NEW_IMAGE, states=[state], released=released, phase=phase, **more).snapshot()  # type: ignore[arg-type]


def unscheduled() -> Snapshot:
    w = World(template(), NEW_IMAGE)
    w.new_pods = [pod(w.new, 0, age=5 * MINUTE, ready=False, scheduled="0/3 nodes are available: 3 Insufficient cpu.", phase="Pending")]
    return w.snapshot()


def quota() -> Snapshot:
    w = World(template(), NEW_IMAGE)
    w.new_pods = []
    w.new = replicaset(w.deployment, 7, NEW_IMAGE, age=5 * MINUTE, replicas=1, failure='pods "x" is forbidden: exceeded quota: compute')
    return w.snapshot()


def scaled(replicas: int = 0) -> Snapshot:
    d, rs, _ = steady(template(), pods=replicas)
    return snapshot(d, rs)


def paused() -> Snapshot:
    w = World(template(), NEW_IMAGE, states=[running()], paused=True, phase="Running")
    for p in w.new_pods:
        p["status"]["conditions"][1]["status"] = "True"
    return w.snapshot()


def unready(progressing: tuple[str, str]) -> Snapshot:
    return World(template(), NEW_IMAGE, states=[running(ready=False)], progressing=progressing, phase="Running").snapshot()


def vanished() -> Snapshot:
    d, rs, pods = steady(template(), name="checkout-web")
    return snapshot(d, rs, *pods)


STATES = (
    Situation("two independent faults", image_and_old_config, of("ImageAccess Deployment/checkout rev 7", "A")),
    Situation("old pods crash as well", old_pods_crash_too, of("ImageAccess Deployment/checkout rev 7", "A")),
    Situation("nothing wrong", healthy, Expected(Finding.NO_FAULT, reason="NothingWrong")),
    Situation("rolled back already", rolled_back, Expected(Finding.NO_FAULT, says="release 8")),
    Situation("being rolled back", rolling_back, Expected(Finding.PROGRESSING)),
    Situation("pods merely start", lambda: rolling(CREATING), Expected(Finding.PROGRESSING)),
    Situation(
        "one exit so far",
        lambda: rolling(running(restarts=1, age=2 * SECOND, ready=False, last=ended(1)), phase="Running"),
        Expected(Finding.PROGRESSING),
    ),
    Situation(
        "not observed yet",
        lambda: World(template(), NEW_IMAGE, generation=8, observed=7, failing=0).snapshot(),
        Expected(Finding.PROGRESSING),
    ),
    Situation("not ready, inside the deadline", lambda: unready(("True", "ReplicaSetUpdated")), Expected(Finding.PROGRESSING)),
    Situation(
        "not ready, past the deadline",
        lambda: unready(("False", "ProgressDeadlineExceeded")),
        of("BadRelease Deployment/checkout rev 7", "C"),
    ),
    Situation(
        "past the deadline, no pods",
        lambda: World(template(), NEW_IMAGE, failing=0, progressing=("False", "ProgressDeadlineExceeded")).snapshot(),
        unknown("RolloutStalled"),
    ),
    Situation("unschedulable", unscheduled, unknown("Unschedulable", "Insufficient cpu")),
    Situation("quota", quota, unknown("PodsNotCreated", "exceeded quota")),
    Situation("scaled to zero", scaled, of("Scale Deployment/checkout", "")),
    Situation("paused", paused, Expected(Finding.PROGRESSING, reason="Paused")),
    Situation("pods forbidden", lambda: bad_image().snapshot(unread={"Pod": "forbidden"}), unknown("PodsNotRead")),
    Situation("target gone", vanished, Expected(Finding.TARGET_MISSING, reason="TargetAbsent", says="checkout-web")),
    Situation(
        "target not looked at",
        lambda: snapshot(unread={"Deployment": "forbidden"}),
        Expected(Finding.TARGET_UNKNOWN, reason="TargetNotRead"),
    ),
    Situation(
        "StatefulSet that is not there",
        healthy,
        Expected(Finding.TARGET_MISSING, reason="TargetAbsent"),
        ObjectRef(api_version="apps/v1", kind="StatefulSet", name="db"),
    ),
    Situation(
        "a kind nobody knows",
        healthy,
        Expected(Finding.TARGET_UNKNOWN, reason="KindNotSupported"),
        ObjectRef(api_version="example.com/v1", kind="Deployment", name="checkout"),
    ),
)

ALL = (*IMAGES, *EXITS, *YOUNG, *MISSING, *STATES)


@pytest.mark.parametrize("situation", ALL, ids=lambda s: s.name)
def test_answer(situation: Situation) -> None:
    made = situation.make()
    snap, healthy_revisions = made if isinstance(made, tuple) else (made, ())
    d = diagnose(snap, situation.target, healthy_revisions, NOW)
    expected = situation.expected
    assert not [g for g in d.gaps if "specialist" in g.what]
    assert (d.finding, spelled(d)) == (expected.finding, expected.top), d
    assert not expected.grade or (d.top and d.top.grade) == expected.grade, d.message
    assert not expected.reason or d.reason == expected.reason
    assert expected.says.lower() in d.message.lower(), d.message
