"""Pods that are not created: whose number, limit, webhook or policy it is, and the twins that look alike."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest

from nightorders.diagnosis.anomalies.admission import admission
from nightorders.diagnosis.findings import Trouble
from nightorders.diagnosis.origins import origins
from nightorders.diagnosis.origins.sizes import pod_size, quota_size, shown
from nightorders.diagnosis.world import World

from .between import made, told, world, written
from .build import DAY, HOUR, MINUTE, Raw, container, deployment, event, pod, replicaset, template
from .test_kinds import member, stateful

FORBIDDEN = 'pods "checkout-0007-x" is forbidden: '
OVER = "exceeded quota: team, requested: requests.cpu=2, used: requests.cpu=3, limited: requests.cpu=4"


def asking(cpu: str = "", *, limit: str = "", **spec: object) -> Raw:
    resources: Raw = {}
    if cpu:
        resources["requests"] = {"cpu": cpu}
    if limit:
        resources["limits"] = {"cpu": limit}
    return template(container(resources=resources), **spec)


def refused(old: Raw, new: Raw, message: str, *, serving: int = 3, age: timedelta = 5 * MINUTE) -> list[Raw]:
    """A rollout from release 6 to 7 of which no pod can be created."""
    owner = deployment(new, updated=0, available=serving, total=serving, progressing=("True", "ReplicaSetUpdated"), progressing_age=age)
    before = replicaset(owner, 6, old, age=6 * DAY, replicas=serving, ready=serving)
    after = replicaset(owner, 7, new, age=age, replicas=1, failure=message)
    return [owner, before, after, *(pod(before, i, age=6 * DAY, node=f"n{i % 3}") for i in range(serving))]


def scaled(t: Raw, message: str, *, have: int = 3, want: int = 5) -> list[Raw]:
    """A Deployment that was scaled up, of which the last pods cannot be created."""
    owner = deployment(t, replicas=want, updated=have, available=have, total=have)
    rs = replicaset(owner, 6, t, age=6 * DAY, replicas=want, ready=have, failure=message)
    return [owner, rs, *(pod(rs, i, age=6 * DAY, node=f"n{i % 3}") for i in range(have))]


def quota(used: str, hard: str, resource: str = "requests.cpu", *, edited: timedelta | None = None, name: str = "team") -> Raw:
    managed = [written(edited, "spec", "hard", resource)] if edited is not None else []
    return made(
        "ResourceQuota", name, spec={"hard": {resource: hard}}, status={"hard": {resource: hard}, "used": {resource: used}}, managed=managed
    )


def limits(*, most: str = "", least: str = "", edited: timedelta | None = None) -> Raw:
    rule: Raw = {"type": "Container"} | ({"max": {"cpu": most}} if most else {}) | ({"min": {"cpu": least}} if least else {})
    managed = [written(edited, "spec", "limits")] if edited is not None else []
    return made("LimitRange", "sizes", spec={"limits": [rule]}, managed=managed)


def asked(w: World, title: str = "Deployment/checkout") -> list[str]:
    """What the origins of a workload's findings are, as told."""
    workload = w.workload(title)
    assert workload is not None
    case = w.case(workload)
    return told(c for f in case.report.findings if f.trouble is not Trouble.STARTING for c in origins(case, f))


# -- quotas -------------------------------------------------------------------------------------------------------------------------


def test_a_quota_without_room_is_the_object() -> None:
    assert asked(world(scaled(asking("1"), FORBIDDEN + OVER), quota("3", "3500m"))) == ["Quota ResourceQuota/team A"]


def test_a_quota_that_was_lowered_lately_is_an_edit() -> None:
    w = world(scaled(asking("1"), FORBIDDEN + OVER), quota("3", "3500m", edited=10 * MINUTE))
    assert asked(w) == ["Quota ResourceQuota/team Edit A"]


def test_a_release_that_asks_for_more_than_the_quota_has_is_the_release() -> None:
    w = world(refused(asking("1"), asking("4"), FORBIDDEN + OVER), quota("3", "4", edited=20 * DAY))
    assert asked(w) == ["Quota Deployment/checkout Release A", "Quota ResourceQuota/team C"]


def test_a_quota_that_has_room_for_the_release_but_not_for_its_surge_is_the_quota() -> None:
    w = world(refused(asking("1"), asking("1", limit="2"), FORBIDDEN + OVER), quota("3", "3"))
    assert asked(w) == ["Quota ResourceQuota/team A"]


def test_a_quota_that_was_lowered_after_the_release_is_the_quota() -> None:
    w = world(refused(asking("1"), asking("2"), FORBIDDEN + OVER, age=HOUR), quota("3", "4", edited=10 * MINUTE))
    assert asked(w)[0] == "Quota ResourceQuota/team Edit A"


def test_a_quota_with_room_by_now_is_at_most_a_guess() -> None:
    assert asked(world(scaled(asking("1"), FORBIDDEN + OVER), quota("0", "40"))) == ["Quota ResourceQuota/team D"]


def test_a_quota_that_is_gone_is_nothing() -> None:
    assert asked(world(scaled(asking("1"), FORBIDDEN + OVER), quota("9", "9", name="other"))) == []


def test_a_quota_that_nobody_looked_at_is_no_better_than_b() -> None:
    assert asked(world(scaled(asking("1"), FORBIDDEN + OVER), unread=["ResourceQuota"])) == ["Quota ResourceQuota/team B"]


MUST = FORBIDDEN + "failed quota: team: must specify requests.cpu for: app"


def test_a_release_that_no_longer_names_what_the_quota_counts() -> None:
    assert asked(world(refused(asking("1"), asking(), MUST), quota("3", "9"))) == ["Quota Deployment/checkout Release A"]


def test_a_quota_that_began_to_count_what_nobody_names() -> None:
    w = world(scaled(asking(), MUST), quota("0", "9", edited=10 * MINUTE))
    assert asked(w)[0] == "Quota ResourceQuota/team Edit A"


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_kinds_without_a_condition_have_an_event_and_the_numbers(kind: str) -> None:
    t = asking("1")
    owner, revisions = stateful(kind=kind, new=t, old=t, replicas=3, available=2)
    said = event(owner, "FailedCreate", f"create Pod checkout-2 failed error: {FORBIDDEN}{OVER}", first=5 * MINUTE)
    w = world(owner, revisions, [member(owner, i, 2) for i in range(2)], said, quota("3", "3500m"))
    assert asked(w, f"{kind}/checkout") == ["Quota ResourceQuota/team A"]


def test_an_event_that_somebody_invented_shows_nothing_that_the_numbers_do_not() -> None:
    owner, revisions = stateful(new=asking("1"), old=asking("1"), replicas=3, available=2)
    said = event(
        owner, "FailedCreate", f"{FORBIDDEN}exceeded quota: payroll, requested: pods=1, used: pods=1, limited: pods=1", first=MINUTE
    )
    w = world(owner, revisions, [member(owner, i, 2) for i in range(2)], said, quota("1", "40"))
    assert asked(w, "StatefulSet/checkout") == []


def test_without_any_word_the_numbers_still_tell() -> None:
    owner, revisions = stateful(new=asking("1"), old=asking("1"), replicas=3, available=2)
    short = world(owner, revisions, [member(owner, i, 2) for i in range(2)], quota("3", "3500m"))
    assert told(admission(short)) == ["Quota ResourceQuota/team B"]
    assert told(admission(world(owner, revisions, [member(owner, i, 2) for i in range(2)], quota("3", "40")))) == []


# -- limits -------------------------------------------------------------------------------------------------------------------------

MAXIMUM = FORBIDDEN + "maximum cpu usage per Container is 1, but limit is 2"


def test_a_limit_range_that_a_release_breaks() -> None:
    w = world(refused(asking(limit="500m"), asking(limit="2"), MAXIMUM), limits(most="1"))
    assert asked(w) == ["Quota Deployment/checkout Release A"]


def test_a_limit_range_that_was_tightened() -> None:
    w = world(scaled(asking(limit="2"), MAXIMUM), limits(most="1", edited=10 * MINUTE))
    assert asked(w) == ["Quota LimitRange/sizes Edit A"]


def test_a_limit_range_of_old_and_a_template_of_old_cap_each_other() -> None:
    w = world(scaled(asking(limit="2"), MAXIMUM), limits(most="1"))
    assert asked(w) == ["Quota LimitRange/sizes B", "Quota Deployment/checkout B"]


# -- what admission looks up --------------------------------------------------------------------------------------------------------

NO_ACCOUNT = 'pods "x" is forbidden: error looking up service account shop/robot: serviceaccount "robot" not found'


def test_an_account_that_a_release_asks_for_and_that_never_was() -> None:
    w = world(refused(template(), template(serviceAccountName="robot"), NO_ACCOUNT))
    assert asked(w)[0] == "MissingObject Deployment/checkout Release A"


def test_an_account_that_is_gone() -> None:
    assert asked(world(scaled(template(serviceAccountName="robot"), NO_ACCOUNT)))[0] == "MissingObject ServiceAccount/robot Deletion A"


def test_an_account_that_is_back_is_nothing() -> None:
    assert asked(world(scaled(template(serviceAccountName="robot"), NO_ACCOUNT), made("ServiceAccount", "robot"))) == []


@pytest.mark.parametrize(
    ("spec", "message", "title"),
    [
        ({"priorityClassName": "high"}, "no PriorityClass with name high was found", "PriorityClass/high"),
        ({"runtimeClassName": "gvisor"}, 'pod rejected: RuntimeClass "gvisor" not found', "RuntimeClass/gvisor"),
    ],
)
def test_classes_follow_the_same_rule(spec: Raw, message: str, title: str) -> None:
    assert asked(world(scaled(template(**spec), FORBIDDEN + message)))[0] == f"MissingObject {title} Deletion A"
    assert asked(world(refused(template(), template(**spec), FORBIDDEN + message)))[0] == "MissingObject Deployment/checkout Release A"


def test_words_about_an_account_that_the_template_does_not_ask_for_name_nothing() -> None:
    assert asked(world(scaled(template(serviceAccountName="other"), NO_ACCOUNT))) == []


# -- webhooks -----------------------------------------------------------------------------------------------------------------------

CALL = (
    'Internal error occurred: failed calling webhook "stamp.example.org": failed to call webhook: Post "https://stamp.platform.svc:443/": '
)
REFUSED = CALL + "dial tcp 10.96.0.9:443: connect: connection refused"


def hook(*, port: int = 443, policy: str = "Fail", namespace: str = "platform", service: str = "stamp") -> Raw:
    client = {"service": {"namespace": namespace, "name": service, "port": port}}
    rules = [{"apiGroups": [""], "resources": ["pods"], "operations": ["CREATE"]}]
    return made(
        "ValidatingWebhookConfiguration",
        "stamp",
        webhooks=[{"name": "stamp.example.org", "clientConfig": client, "failurePolicy": policy, "rules": rules}],
    )


def backend(*, ready: bool = True, replicas: int = 1, workload: bool = True, service: bool = True) -> list[Raw]:
    """The webhook's Service and Deployment in namespace platform."""
    t = template(labels={"app": "stamp"})
    owner = deployment(t, name="stamp", replicas=replicas, available=int(ready))
    rs = replicaset(owner, 1, t, age=6 * DAY, replicas=replicas)
    found = [owner, rs, *(pod(rs, i, age=6 * DAY, ready=ready) for i in range(replicas))] if workload else []
    for o in found:
        o["metadata"]["namespace"] = "platform"
    ports = [{"port": 443, "targetPort": 8443}]
    return [
        *found,
        *([made("Service", "stamp", namespace="platform", spec={"selector": {"app": "stamp"}, "ports": ports})] if service else []),
    ]


def behind(parts: Iterable[Raw], config: Raw | None = None, message: str = REFUSED) -> list[str]:
    return asked(world(scaled(template(), message), config or hook(), beside={"platform": list(parts)}))


def test_a_webhook_whose_backend_is_not_ready() -> None:
    assert behind(backend(ready=False)) == ["Admission Deployment/platform/stamp A"]
    assert behind(backend(replicas=0)) == ["Admission Deployment/platform/stamp A"]


def test_a_webhook_without_a_backend_or_a_service_is_its_configuration() -> None:
    assert behind(backend(workload=False))[0].startswith("Admission ValidatingWebhookConfiguration/stamp")
    assert behind(backend(service=False))[0].startswith("Admission ValidatingWebhookConfiguration/stamp")


def test_a_webhook_that_calls_a_port_nobody_serves() -> None:
    assert behind(backend(), hook(port=8443)) == ["Admission ValidatingWebhookConfiguration/stamp A"]


def test_a_ready_backend_leaves_no_better_than_a_guess() -> None:
    assert behind(backend(), message=CALL + "x509: certificate signed by unknown authority") == [
        "Admission ValidatingWebhookConfiguration/stamp C"
    ]


def test_a_webhook_that_lets_pass_or_is_gone_explains_nothing() -> None:
    assert behind(backend(ready=False), hook(policy="Ignore")) == []
    assert asked(world(scaled(template(), REFUSED), beside={"platform": backend(ready=False)})) == []


def test_a_backend_in_a_namespace_that_was_not_looked_at() -> None:
    assert asked(world(scaled(template(), REFUSED), hook())) == ["Admission ValidatingWebhookConfiguration/stamp B"]


def test_a_backend_beside_the_victim_is_spelled_without_namespace() -> None:
    own = backend(ready=False)
    for o in own:
        o["metadata"]["namespace"] = "shop"
    assert asked(world(scaled(template(), REFUSED), hook(namespace="shop"), own)) == ["Admission Deployment/stamp A"]


# -- policies -----------------------------------------------------------------------------------------------------------------------

DENIED = 'admission webhook "stamp.example.org" denied the request: no signature'
POLICY = "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'signed-only' with binding 'all' denied request: no signature"


def test_a_denial_is_the_release_that_brought_in_what_is_minded() -> None:
    changed = template(container(image="registry.example/unsigned:1"))
    assert asked(world(refused(template(), changed, DENIED), hook()))[0] == "Admission Deployment/checkout Release B"
    assert asked(world(refused(template(), changed, POLICY)))[0] == "Admission Deployment/checkout Release B"


def test_a_denial_of_pods_like_those_that_run_is_the_policy() -> None:
    restarted = template(annotations={"kubectl.kubernetes.io/restartedAt": "now"})
    assert asked(world(refused(template(), restarted, DENIED), hook())) == ["Admission ValidatingWebhookConfiguration/stamp B"]
    assert asked(world(scaled(template(), POLICY))) == ["Admission ValidatingAdmissionPolicy/signed-only B"]


def test_a_policy_younger_than_the_pods_that_got_in_is_the_policy() -> None:
    config = hook()
    config["metadata"]["managedFields"] = [written(HOUR, "webhooks")]
    changed = template(container(image="registry.example/unsigned:1"))
    assert asked(world(refused(template(), changed, DENIED), config)) == ["Admission ValidatingWebhookConfiguration/stamp Edit B"]


SECURITY = FORBIDDEN + 'violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)'


def test_pod_security_by_a_release_and_by_the_namespace() -> None:
    plain = made("Namespace", "shop", labels={"pod-security.kubernetes.io/enforce": "baseline"})
    w = world(refused(template(), template(hostNetwork=True), SECURITY), plain)
    assert asked(w)[0] == "Admission Deployment/checkout Release A"
    raised = made(
        "Namespace",
        "shop",
        age=30 * DAY,
        labels={"pod-security.kubernetes.io/enforce": "baseline"},
        managed=[written(HOUR, "metadata", "labels", "pod-security.kubernetes.io/enforce")],
    )
    assert asked(world(scaled(template(hostNetwork=True), SECURITY), raised)) == ["Admission Namespace/shop Edit B"]


# -- sizes --------------------------------------------------------------------------------------------------------------------------


def test_the_size_of_a_pod() -> None:
    side = {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}}
    first = {"name": "i", "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}
    spec = asking("500m", limit="1")["spec"] | {"initContainers": [side, first], "overhead": {"cpu": "50m"}}
    requests, most = pod_size(spec)
    assert {k: round(v, 3) for k, v in requests.items()} == {"cpu": 2.15, "memory": 2.0**30}
    assert round(most["cpu"], 3) == 1.05
    assert quota_size(asking(limit="3")["spec"])["requests.cpu"] == 3.0  # a request that is not named is its limit


@pytest.mark.parametrize(
    ("resource", "value", "text"), [("cpu", 0.25, "250m"), ("cpu", 2.0, "2"), ("memory", 1.5 * 2**30, "1.5Gi"), ("pods", 3.0, "3")]
)
def test_amounts_are_shown_as_people_write_them(resource: str, value: float, text: str) -> None:
    assert shown(resource, value) == text


@pytest.mark.parametrize("message", ["", "x" * 5000, "exceeded quota: ", 'failed calling webhook "', "must specify", "\x00"])
def test_refusals_that_say_nothing_name_nothing(message: str) -> None:
    assert asked(world(scaled(template(), message or "?"))) == []
