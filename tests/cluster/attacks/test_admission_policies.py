"""Who may write which night orders, and who may hold the roles to act. Numbers are rows of the design's table of threats."""

from __future__ import annotations

import json

import pytest

from tests.cluster.attacks.world import Actor, Json, World, binding, deployment, policy, until

pytestmark = pytest.mark.cluster
GUARD = "nightorders-policies"
ROLES = "nightorders-action-roles"
ACTION = "nightorders-action-rollbackworkload"
CREATE = ("create", "-f", "-")
APPLY = ("apply", "--server-side", "--force-conflicts", "-f", "-")
OPERATOR = {"kind": "ServiceAccount", "name": "nightorders", "namespace": "nightorders-system"}


@pytest.mark.promise(7)
def test_9_above_l2_needs_the_right_to_do_it_oneself(world: World) -> None:
    """Otherwise a writer of policies would patch Deployments by way of the operator."""
    poor = world.user("poor", "nightorders-policy-author")
    for levels in (("L3",), ("L4",), ("L1", "L2", "L3")):
        for how in (CREATE, APPLY):
            poor.may_not(GUARD, *how, document=policy("orders", world.namespace, *levels), says="poor may not patch deployments.apps")
    for level in ("L1", "L2"):
        poor.may(*APPLY, document=policy("orders", world.namespace, level))
    for how in (APPLY, ("replace", "-f", "-")):
        poor.may_not(GUARD, *how, document=policy("orders", world.namespace, "L3"), says="poor may not patch")
    rich = world.user("rich", "nightorders-policy-author", "edit")
    rich.may(*APPLY, document=policy("orders", world.namespace, "L3"))
    # What is there already can be lowered, removed and labelled by an author without that right, but not changed otherwise.
    poor.may("label", "remediationpolicy", "orders", "team=shop")
    widened = policy("orders", world.namespace, "L3")
    widened["spec"]["rules"][0]["limits"] = {"maxPods": 1000}
    poor.may_not(GUARD, *APPLY, document=widened, says="poor may not patch")
    poor.may(*APPLY, document=policy("orders", world.namespace, "L2"))
    poor.may("delete", "remediationpolicy", "orders")


@pytest.mark.promise(7)
def test_9_the_right_must_hold_in_that_namespace_and_for_every_deployment(world: World) -> None:
    author = world.user("author", "nightorders-policy-author")
    world.admin.may("create", "role", "one", "--verb=patch", "--resource=deployments.apps", "--resource-name=mine")
    world.admin.may("create", "rolebinding", "one", "--role=one", "--user=author")
    elsewhere = binding("elsewhere", "default", "edit", {"kind": "User", "name": "author"})
    world.cluster.apply(elsewhere)
    try:
        author.may_not(GUARD, *CREATE, document=policy("orders", world.namespace, "L3"), says=f"in namespace {world.namespace}")
    finally:
        world.admin.may("delete", "rolebinding", "elsewhere", "--namespace=default")
    world.grant({"kind": "User", "name": "author"}, "edit")
    author.may(*CREATE, document=policy("orders", world.namespace, "L3"))


@pytest.mark.promise(7)
def test_9_l4_needs_grant_l4_besides(world: World) -> None:
    author = world.user("author", "nightorders-policy-author", "edit")
    author.may_not(GUARD, *CREATE, document=policy("orders", world.namespace, "L4"), says="lacks the verb grant-l4")
    author.may(*CREATE, document=policy("orders", world.namespace, "L3"))
    author.may_not(GUARD, *APPLY, document=policy("orders", world.namespace, "L3", "L4"), says="Rule r1: L4 acts without")
    granter = world.user("granter", "nightorders-policy-author", "nightorders-l4-granter")
    granter.may_not(GUARD, *APPLY, document=policy("orders", world.namespace, "L4"), says="granter may not patch")
    world.grant({"kind": "User", "name": "granter"}, "edit")
    granter.may(*APPLY, document=policy("orders", world.namespace, "L4"))


def _with(document: Json, *, rule: Json | None = None, **spec: object) -> Json:
    """A policy with more in its first rule and its spec."""
    first, *rest = document["spec"]["rules"]
    return {**document, "spec": {**document["spec"], "rules": [{**first, **(rule or {})}, *rest], **spec}}


@pytest.mark.promise(7)
def test_9_what_a_rule_may_earn_counts_and_not_where_it_begins(world: World) -> None:
    """Recorded outcomes carry it up to `level`, and nobody is asked again then."""
    poor = world.user("poor", "nightorders-policy-author")
    earning = {"earn": {"from": "L1", "successes": 1}}
    poor.may_not(GUARD, *CREATE, document=_with(policy("orders", world.namespace, "L3"), rule=earning), says="poor may not patch")
    poor.may(*CREATE, document=_with(policy("orders", world.namespace, "L2"), rule=earning))
    rich = world.user("rich", "nightorders-policy-author", "edit")
    rich.may_not(GUARD, *APPLY, document=_with(policy("orders", world.namespace, "L4"), rule=earning), says="lacks the verb grant-l4")
    rich.may(*APPLY, document=_with(policy("orders", world.namespace, "L3"), rule=earning))


@pytest.mark.promise(7)
def test_9_shadow_touches_nothing_but_one_word_makes_it_act(world: World) -> None:
    """So its rules need the same rights, and the flip of that word by somebody without them is refused."""
    poor = world.user("poor", "nightorders-policy-author")
    shadow = _with(policy("orders", world.namespace, "L3"), enforcement="Shadow")
    poor.may_not(GUARD, *CREATE, document=shadow, says="poor may not patch")
    rich = world.user("rich", "nightorders-policy-author", "edit")
    rich.may(*APPLY, document=shadow)
    flip = ("patch", "remediationpolicy", "orders", "--type=merge", "-p", '{"spec":{"enforcement":"Enforce"}}')
    poor.may_not(GUARD, *flip, says="poor may not patch")
    rich.may(*flip)
    back = ("patch", "remediationpolicy", "orders", "--type=merge", "-p", '{"spec":{"enforcement":"Shadow"}}')
    poor.may_not(GUARD, *back, says="poor may not patch")  # any change of such a policy; lowering the level is the way that always works
    poor.may("patch", "remediationpolicy", "orders", "--type=json", "-p", '[{"op":"replace","path":"/spec/rules/0/level","value":"L1"}]')


@pytest.mark.promise(7)
def test_9_15_16_what_else_makes_a_rule_do_more_is_a_change_like_any_other(world: World) -> None:
    """Its freezes, its breaker, its pause of GitOps owners, its emergency door: no way around the right that the rule uses."""
    rich = world.user("rich", "nightorders-policy-author", "edit")
    freeze = {"name": "weekend", "from": "2026-01-01T00:00:00Z", "until": "2099-01-01T00:00:00Z"}
    rich.may(*APPLY, document=_with(policy("orders", world.namespace, "L3"), freezes=[freeze]))
    poor = world.user("poor", "nightorders-policy-author")
    for change in (
        '[{"op":"remove","path":"/spec/freezes"}]',
        '[{"op":"add","path":"/spec/freezes/0/allow","value":["RollbackWorkload"]}]',
        '[{"op":"add","path":"/spec/breaker","value":{"failures":20}}]',
        '[{"op":"replace","path":"/spec/rules/0/gitOps","value":"Pause"}]',
        '[{"op":"replace","path":"/spec/rules/0/approval/emergency","value":"Allow"}]',
        '[{"op":"replace","path":"/spec/rules/0/approval/serviceAccounts","value":"Allow"}]',
    ):
        poor.may_not(GUARD, "patch", "remediationpolicy", "orders", "--type=json", "-p", change, says="poor may not patch")


@pytest.mark.promise(7)
def test_9_a_gitops_account_is_an_author_like_any_other(world: World) -> None:
    flux = world.robot("flux", "nightorders-policy-author")
    flux.may_not(GUARD, *APPLY, document=policy("orders", world.namespace, "L3"), says=":flux may not patch deployments.apps")
    world.grant({"kind": "ServiceAccount", "name": "flux", "namespace": world.namespace}, "edit", "nightorders-l4-granter")
    flux.may(*APPLY, document=policy("orders", world.namespace, "L4"))


def test_9_the_operator_writes_no_policy_even_if_rbac_lets_it(world: World) -> None:
    world.admin.may(*CREATE, document=policy("orders", world.namespace, "L2"))
    answer = world.operator.run(*APPLY, document=policy("orders", world.namespace, "L1"))
    assert "cannot patch resource" in answer.stderr  # RBAC
    world.grant(OPERATOR, "nightorders-policy-author", "edit")
    for name in ("orders", "new"):
        world.operator.may_not(GUARD, *APPLY, document=policy(name, world.namespace, "L1"), says="never writes policies")
    world.admin.may(*APPLY, document=policy("orders", world.namespace, "L1"))


@pytest.fixture
def boss(world: World) -> Actor:
    """Admin of the namespace who was given the verb bind on the roles to act."""
    boss = world.user("boss", "admin")
    world.admin.may(
        "create", "role", "binder", "--verb=bind", "--resource=clusterroles.rbac.authorization.k8s.io", f"--resource-name={ACTION}"
    )
    world.admin.may("create", "rolebinding", "binder", "--role=binder", "--user=boss")
    return boss


@pytest.mark.promise(7)
def test_10_an_action_role_is_bound_to_the_operators_account_only(world: World, boss: Actor) -> None:
    """An admin bound one to herself, and raised a quota."""
    others: tuple[Json, ...] = (
        {"kind": "User", "name": "boss"},
        {"kind": "Group", "name": "system:authenticated"},
        {"kind": "ServiceAccount", "name": "default", "namespace": world.namespace},
        {"kind": "ServiceAccount", "name": "nightorders", "namespace": world.namespace},
        {"kind": "ServiceAccount", "name": "default", "namespace": "nightorders-system"},
        {"kind": "User", "name": "system:serviceaccount:nightorders-system:nightorders"},
        {"kind": "Group", "name": "system:serviceaccounts:nightorders-system"},
    )
    for subject in others:
        boss.may_not(ROLES, *CREATE, document=binding("act", world.namespace, ACTION, subject), says="remove the other subjects")
    boss.may_not(ROLES, *CREATE, document=binding("act", world.namespace, ACTION, OPERATOR, others[0]), says="remove the other")
    boss.may(*CREATE, document=binding("act", world.namespace, ACTION, OPERATOR))
    more = json.dumps({"subjects": [OPERATOR, others[0] | {"apiGroup": "rbac.authorization.k8s.io"}]})
    boss.may_not(ROLES, "patch", "rolebinding", "act", "--type=merge", "-p", more, says="remove the other")
    boss.may("delete", "rolebinding", "act")


@pytest.mark.promise(7)
def test_10_cluster_wide_and_by_cluster_admin_too(world: World) -> None:
    document = binding(world.namespace, None, ACTION, {"kind": "User", "name": "boss"})
    world.admin.may_not(ROLES, *CREATE, document=document, says="remove the other")
    world.admin.may(*CREATE, "--dry-run=server", document=binding(world.namespace, None, ACTION, OPERATOR))


@pytest.mark.promise(7)
def test_10_the_roles_to_pause_gitops_owners_are_for_the_operators_account_too(world: World) -> None:
    """Whoever can pause an Application can change what it governs, and nobody sees it in Git."""
    for role in ("nightorders-pause-argocd", "nightorders-pause-flux"):
        for namespace in (world.namespace, None):
            document = binding(world.namespace, namespace, role, {"kind": "User", "name": "boss"})
            world.admin.may_not(ROLES, *CREATE, document=document, says="remove the other")
            world.admin.may(*CREATE, "--dry-run=server", document=binding(world.namespace, namespace, role, OPERATOR))


def test_10_other_bindings_are_left_alone(world: World, boss: Actor) -> None:
    boss.may(*CREATE, document=binding("readers", world.namespace, "view", {"kind": "Group", "name": "shop"}))
    boss.may("create", "role", ACTION, "--verb=get", "--resource=pods")  # a Role of that name is somebody's own
    boss.may("create", "rolebinding", "own", f"--role={ACTION}", "--user=boss")
    world.admin.may(*CREATE, "--dry-run=server", document=binding(world.namespace, None, "view", {"kind": "Group", "name": "shop"}))


STAMP = "nightorders.dev/execution"


def _stamp(value: str | None) -> tuple[str, ...]:
    body = {"metadata": {"labels": {STAMP: value}}, "spec": {"template": {"metadata": {"annotations": {"effect": value}}}}}
    return ("patch", "deployment", "checkout", "--type=merge", "-p", json.dumps(body), "--dry-run=server")


@pytest.mark.promise(1)
@pytest.mark.parametrize("everywhere", [False, True], ids=["namespace", "everywhere"])
def test_16_a_stop_holds_back_the_operator_in_the_api_server(world: World, everywhere: bool) -> None:
    """A leader that was frozen between reading the stop and writing. People, and the undo of what runs, are not held back."""
    where = "nightorders-system" if everywhere else world.namespace
    world.grant(OPERATOR, ACTION)
    dev = world.user("dev", "edit")
    world.cluster.apply(deployment("checkout", world.namespace))
    operator = world.operator
    until(lambda: operator.run(*_stamp("x-1")).returncode == 0, "the operator may act", 10)
    world.cluster.apply(deployment("checkout", world.namespace, labels={STAMP: "x-1"}))
    world.admin.may("create", "configmap", "nightorders-stop", f"--namespace={where}")
    try:
        until(lambda: operator.run(*_stamp("x-2")).returncode != 0, "the stop is in force", 10)
        operator.may_not("nightorders-stop", *_stamp("x-2"), says=f"nightorders-stop exists in namespace {where}")
        for undo in ("x-1", None):
            operator.may(*_stamp(undo))
        dev.may(*_stamp("x-2"))
        world.cluster.apply(deployment("checkout", world.namespace))  # no stamp: nothing to undo
        operator.may_not("nightorders-stop", *_stamp(None))
        operator.may_not("nightorders-stop", *_stamp("x-1"))
        world.cluster.apply(deployment("checkout", world.namespace, labels={STAMP: "x-1"}))
        deny = ("patch", "configmap", "nightorders-stop", f"--namespace={where}", "--type=merge", "-p", '{"data":{"undo":"Deny"}}')
        world.admin.may(*deny)
        until(lambda: operator.run(*_stamp("x-1")).returncode != 0, "the stop holds the undo back, too", 10)
    finally:
        world.admin.may("delete", "configmap", "nightorders-stop", f"--namespace={where}")
    until(lambda: operator.run(*_stamp("x-2")).returncode == 0, "the stop is lifted", 10)


def test_11_a_stamped_deployment_stays_everybodys(world: World) -> None:
    """No guard of ours stands between people and their own rollouts: undo, replace and apply pass in the middle of an execution."""
    dev = world.user("dev", "edit")
    world.cluster.apply(deployment("checkout", world.namespace, labels={STAMP: "x-1"}))
    dev.may("set", "image", "deployment/checkout", "main=checkout:2")
    until(lambda: len(json.loads(dev.may("get", "replicasets", "-o", "json"))["items"]) == 2, "two revisions", 20)
    dev.may("rollout", "undo", "deployment/checkout")
    dev.may("replace", "-f", "-", document=deployment("checkout", world.namespace))
