"""Who may answer a plan. The numbers are the rows of the design's table of threats."""

from __future__ import annotations

import json

import pytest

from tests.cluster.attacks.world import (
    DIGEST,
    NEXT_DIGEST,
    WAITING,
    Actor,
    Json,
    World,
    approved,
    execution,
    incident,
    plan,
    waiting,
)

pytestmark = [pytest.mark.cluster, pytest.mark.promise(1)]
GUARD = "nightorders-approvals"
APPROVER = ("nightorders-approver", "edit")
"""`edit` because an approver needs the right that the plan uses (row 4)."""


@pytest.fixture
def alice(world: World) -> Actor:
    """May approve."""
    return world.user("alice", *APPROVER)


@pytest.fixture
def bob(world: World) -> Actor:
    """May approve, too."""
    return world.user("bob", *APPROVER)


@pytest.mark.parametrize("name", ["carol", "auth0|bob", "https://login.example#carol", "carol@example.org"])
def test_3_an_approver_approves_the_waiting_plan_with_the_documented_command(world: World, name: str) -> None:
    """The legitimate twin of everything below; usernames may contain a '|'."""
    world.incident(WAITING)
    carol = world.user(name, *APPROVER)
    me = carol.may("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
    assert me == name
    carol.may("annotate", "incident", "inc", f"approve.nightorders.dev/carol={DIGEST}|{me}")
    assert world.annotations() == {"approve.nightorders.dev/carol": f"{DIGEST}|{name}"}


def test_3_a_value_that_is_not_exactly_digest_and_own_name_is_refused(world: World, alice: Actor) -> None:
    world.incident(WAITING)
    for value in (
        f"{DIGEST}|bob",  # somebody else's name
        f"{DIGEST}|alice|bob",
        f"{DIGEST}|bob|alice",  # ends with the right name
        f"{DIGEST}||alice",
        f"{DIGEST}|alice ",
        f"{DIGEST}|Alice",
        f"{DIGEST}|",
        DIGEST,
        f"{NEXT_DIGEST}|alice",  # another plan
        f"{DIGEST[:-1]}|alice",
        f"{DIGEST.upper()}|alice",
        "|alice",
        "alice",
        "",
    ):
        alice.may_not(GUARD, *alice.annotation(approve_alice=value), says=f"exactly: {DIGEST}|alice")
    alice.may(*alice.annotation(approve_alice=f"{DIGEST}|alice"))


def test_3_usernames_with_a_bar_are_told_apart(world: World) -> None:
    """`bob` is neither `auth0|bob` nor the other way round, also when it comes to withdrawing."""
    world.incident(WAITING)
    auth0, bob = world.user("auth0|bob", *APPROVER), world.user("bob", *APPROVER)
    bob.may_not(GUARD, *bob.annotation(approve_b=f"{DIGEST}|auth0|bob"), says="exactly")
    auth0.may_not(GUARD, *auth0.annotation(approve_b=f"{DIGEST}|bob"), says="exactly")
    auth0.may(*auth0.annotation(approve_b=f"{DIGEST}|auth0|bob"))
    bob.may_not(GUARD, *bob.annotation(approve_b=None), says="Only your own")
    auth0.may(*auth0.annotation(approve_b=None))


@pytest.mark.parametrize("how", [("create",), ("apply", "--server-side"), ("apply",)], ids=" ".join)
def test_3_no_answer_at_creation(world: World, how: tuple[str, ...]) -> None:
    mallory = world.wildcard()
    document = incident("inc", world.namespace)
    for prefix in ("approve", "reject", "emergency", "why"):
        answered = incident("inc", world.namespace, annotations={f"{prefix}.nightorders.dev/m": f"{DIGEST}|mallory"})
        mallory.may_not(GUARD, *how, "-f", "-", document=answered, says="created without approvals")
    mallory.may(*how, "-f", "-", document=document)


def test_3_no_answer_at_creation_under_a_generated_name(world: World) -> None:
    mallory = world.wildcard()
    document = incident("", world.namespace, generateName="inc-", annotations={"approve.nightorders.dev/m": f"{DIGEST}|mallory"})
    del document["metadata"]["name"]
    mallory.may_not(GUARD, "create", "-f", "-", document=document, says="created without approvals")


def test_3_server_side_apply_is_as_good_a_way_to_approve_and_no_way_around(world: World, alice: Actor) -> None:
    world.incident(WAITING)
    document: Json = {"apiVersion": "nightorders.dev/v1alpha1", "kind": "Incident", "metadata": {"name": "inc"}}
    apply = ("apply", "--server-side", "--field-manager=alice", "-f", "-")
    document["metadata"]["annotations"] = {"approve.nightorders.dev/alice": f"{DIGEST}|bob"}
    alice.may_not(GUARD, *apply, document=document, says="exactly")
    document["metadata"]["annotations"] = {"approve.nightorders.dev/alice": f"{DIGEST}|alice"}
    alice.may(*apply, document=document)


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"conditions": [approved("False", "Waiting")]},  # waits, but no plan
        {"plan": plan()},  # a plan, but nobody waits (L2)
        {"plan": plan(), "conditions": [approved("True", "Approved")]},
        {"plan": plan(), "conditions": [approved("False", "Expired")]},
        {"plan": plan(), "conditions": [{**approved("False", "Waiting"), "type": "Planned"}]},
    ],
    ids=["nothing", "no-plan", "no-condition", "approved", "expired", "other-condition"],
)
def test_3_no_answer_while_nothing_waits(world: World, alice: Actor, status: Json) -> None:
    """No pre-approval: neither with the digest of a plan that is shown but not waiting, nor with an empty one."""
    world.incident(status)
    for value in (f"{DIGEST}|alice", "|alice"):
        alice.may_not(GUARD, *alice.annotation(approve_alice=value), says="waits for an answer")
    world.status(WAITING)
    alice.may(*alice.annotation(approve_alice=f"{DIGEST}|alice"))


def test_3_an_old_approval_cannot_be_replayed_for_the_next_plan(world: World, alice: Actor) -> None:
    world.incident(WAITING)
    alice.may(*alice.annotation(approve_alice=f"{DIGEST}|alice"))
    world.status({"plan": plan(NEXT_DIGEST)})
    alice.may_not(GUARD, *alice.annotation(approve_again=f"{DIGEST}|alice"), says=NEXT_DIGEST)
    alice.may(*alice.annotation(approve_alice=f"{NEXT_DIGEST}|alice"))  # replaces her own


def test_3_the_operator_cannot_approve_reject_or_withdraw(world: World, alice: Actor) -> None:
    """It may patch Incidents, so RBAC alone would let it forge. Its other patches pass."""
    world.incident(WAITING)
    alice.may(*alice.annotation(approve_alice=f"{DIGEST}|alice"))
    me = "system:serviceaccount:nightorders-system:nightorders"
    for forged in (
        {"approve_op": f"{DIGEST}|{me}"},
        {"approve_op": f"{DIGEST}|bob"},
        {"reject_op": f"{DIGEST}|{me}"},
        {"approve_alice": None},
    ):
        world.operator.may_not(GUARD, *world.operator.annotation(**forged), says="for people")
    world.operator.may(*world.operator.patch("inc", {"metadata": {"finalizers": ["nightorders.dev/execution"]}}))


def test_5_a_service_account_cannot_approve(world: World, alice: Actor) -> None:
    """Whoever may create tokens in a namespace owns its accounts."""
    world.incident(WAITING)
    robot = world.robot("robot", *APPROVER)
    me = f"system:serviceaccount:{world.namespace}:robot"
    robot.may_not(GUARD, *robot.annotation(approve_robot=f"{DIGEST}|{me}"), says="for people")
    robot.may_not(GUARD, *robot.annotation(reject_robot=f"{DIGEST}|{me}"), says="for people")
    world.status({"plan": plan(needs={"serviceAccounts": "Deny"})})
    robot.may_not(GUARD, *robot.annotation(approve_robot=f"{DIGEST}|{me}"), says="for people")
    alice.may(*alice.annotation(approve_alice=f"{DIGEST}|alice"))


def test_5_a_service_account_approves_where_the_orders_say_so_and_nothing_else_of_the_system_does(world: World) -> None:
    """`needs` is written by the operator alone (row 1); all the other rules hold for the account, too."""
    world.incident(waiting(serviceAccounts="Allow"))
    robot = world.robot("robot", "nightorders-approver")
    me = f"system:serviceaccount:{world.namespace}:robot"
    robot.may_not(GUARD, *robot.annotation(approve_robot=f"{DIGEST}|{me}"), says="may not patch deployments")
    world.grant({"kind": "ServiceAccount", "name": "robot", "namespace": world.namespace}, "edit")
    robot.may_not(GUARD, *robot.annotation(approve_robot=f"{DIGEST}|system:serviceaccount:{world.namespace}:default"), says="exactly")
    robot.may_not(GUARD, *robot.annotation(approve_robot=f"{DIGEST}|alice"), says="exactly")
    robot.may(*robot.annotation(approve_robot=f"{DIGEST}|{me}"))
    operator = {"kind": "ServiceAccount", "name": "nightorders", "namespace": "nightorders-system"}
    world.grant(operator, *APPROVER)
    its_name = "system:serviceaccount:nightorders-system:nightorders"
    world.operator.may_not(GUARD, *world.operator.annotation(approve_op=f"{DIGEST}|{its_name}"), says="never answers its own plans")
    for name in ("system:node:n1", "system:kube-scheduler", "system:anonymous-ish"):
        odd = world.user(name, *APPROVER)
        odd.may_not(GUARD, *odd.annotation(approve_odd=f"{DIGEST}|{name}"), says="for people")
    world.status({"plan": plan(needs={"serviceAccounts": "Deny"})})
    robot.may_not(GUARD, *robot.annotation(approve_again=f"{DIGEST}|{me}"), says="for people")
    robot.may(*robot.annotation(approve_robot=None))  # taking one's own answer back lowers


def test_3_patching_incidents_is_not_approving_them(world: World, alice: Actor) -> None:
    world.incident(WAITING)
    dave = world.user("dave", "nightorders-incident-author", "edit")
    dave.may_not(GUARD, *dave.annotation(approve_dave=f"{DIGEST}|dave"), says="lacks the verb approve")
    dave.may_not(GUARD, *dave.annotation(reject_dave=f"{DIGEST}|dave"), says="lacks the verb approve")
    dave.may(*dave.patch("inc", {"spec": {"title": "seen it"}}))
    alice.may(*alice.annotation(approve_alice=f"{DIGEST}|alice"))


def test_3_the_verb_in_another_namespace_or_on_another_incident_does_not_count(world: World) -> None:
    world.incident(WAITING)
    world.incident(WAITING, name="other")
    erin = world.user("erin", "nightorders-incident-author", "edit")
    world.role("erin", ("nightorders.dev", "incidents", "get"))
    world.admin.may("create", "role", "one", "--verb=approve", "--resource=incidents.nightorders.dev", "--resource-name=other")
    world.admin.may("create", "rolebinding", "one", "--role=one", "--user=erin")
    erin.may_not(GUARD, *erin.annotation(approve_erin=f"{DIGEST}|erin"), says="lacks the verb approve")
    erin.may("annotate", "incident", "other", f"approve.nightorders.dev/erin={DIGEST}|erin")


@pytest.mark.promise(7)
def test_4_an_approver_needs_the_right_that_the_plan_uses(world: World) -> None:
    """Nobody gets through the operator what they may not do themselves. Rejecting only lowers, and needs no such right."""
    world.incident(WAITING)
    frank = world.user("frank", "nightorders-approver", "view")
    frank.may_not(GUARD, *frank.annotation(approve_frank=f"{DIGEST}|frank"), says="may not patch deployments checkout")
    world.admin.may("create", "role", "one", "--verb=patch", "--resource=deployments.apps", "--resource-name=checkout")
    world.admin.may("create", "rolebinding", "one", "--role=one", "--user=frank")
    frank.may(*frank.annotation(approve_frank=f"{DIGEST}|frank"))
    world.status({"plan": plan(target="payments")})
    frank.may_not(GUARD, *frank.annotation(approve_frank2=f"{DIGEST}|frank"), says="may not patch deployments payments")
    frank.may(*frank.annotation(reject_frank=f"{DIGEST}|frank"))


def test_4_a_plan_on_a_kind_that_the_guard_does_not_know_cannot_be_approved(world: World, alice: Actor) -> None:
    world.incident({**WAITING, "plan": plan(kind="StatefulSet")})
    alice.may_not(GUARD, *alice.annotation(approve_alice=f"{DIGEST}|alice"), says="apps/StatefulSet cannot be approved")
    world.status({"plan": plan()})
    alice.may(*alice.annotation(approve_alice=f"{DIGEST}|alice"))


@pytest.mark.promise(7)
def test_1_a_forged_plan_cannot_be_put_into_status_and_approved(world: World) -> None:
    """A role of */*/* in the namespace has incidents/status and the verb approve; status is refused all the same."""
    world.incident({"conditions": [approved("True", "NotNeeded")]})
    mallory = world.wildcard()
    forged = json.dumps({"status": WAITING})
    mallory.may_not(
        "nightorders-records",
        *("patch", "incident", "inc", "--subresource=status", "--type=merge", "-p", forged),
        says="operator's account only",
    )
    # Nor by the way of creating: the API server drops a status there.
    mallory.may("create", "-f", "-", document={**incident("own", world.namespace), "status": WAITING})
    assert "status" not in world.get("incident", "own")
    mallory.may_not(GUARD, "annotate", "incident", "own", f"approve.nightorders.dev/m={DIGEST}|mallory", says="waits for an answer")
    world.status(WAITING)
    mallory.may(*mallory.annotation(approve_m=f"{DIGEST}|mallory"))  # what remains: she approves what the operator planned


def test_3_a_second_key_of_the_same_user_names_the_same_user(world: World, alice: Actor, bob: Actor) -> None:
    """Admission lets it pass; whoever counts approvals counts the names in the values, and there is one."""
    world.incident(WAITING)
    alice.may(*alice.annotation(approve_alice=f"{DIGEST}|alice", approve_twin=f"{DIGEST}|alice"))
    assert {value.split("|", 1)[1] for value in world.annotations().values()} == {"alice"}
    bob.may(*bob.annotation(approve_bob=f"{DIGEST}|bob"))
    assert {value.split("|", 1)[1] for value in world.annotations().values()} == {"alice", "bob"}


def test_3_nobody_overwrites_anothers_answer(world: World, alice: Actor, bob: Actor) -> None:
    world.incident(WAITING)
    alice.may(*alice.annotation(approve_x=f"{DIGEST}|alice", reject_y=f"{DIGEST}|alice"))
    for key in ("approve_x", "reject_y"):
        bob.may_not(GUARD, *bob.annotation(**{key: f"{DIGEST}|bob"}), says="somebody else's answer")
    bob.may_not(
        GUARD, "annotate", "--overwrite", "incident", "inc", f"approve.nightorders.dev/x={DIGEST}|bob", says="somebody else's answer"
    )
    bob.may(*bob.annotation(approve_x2=f"{DIGEST}|bob"))


def test_3_nobody_removes_anothers_answer(world: World, alice: Actor, bob: Actor) -> None:
    world.incident(WAITING)
    before = world.get("incident", "inc")
    alice.may(*alice.annotation(approve_x=f"{DIGEST}|alice"))
    bob.may_not(GUARD, *bob.annotation(approve_x=None), says="Only your own")
    mallory = world.wildcard()
    del before["metadata"]["resourceVersion"]
    mallory.may_not(GUARD, "replace", "-f", "-", document=before, says="Only your own")  # by leaving it out
    mallory.may_not(GUARD, *mallory.patch("inc", {"metadata": {"annotations": None}}), says="Only your own")
    alice.may(*alice.annotation(approve_x=None))
    assert world.annotations() == {}


def test_3_an_approval_can_be_withdrawn_until_its_execution_is_reserved(world: World, alice: Actor) -> None:
    """Afterwards it is the record of who allowed it. The approval of an earlier plan, never carried out, is bound to nothing."""
    world.incident(WAITING)
    alice.may(*alice.annotation(approve_old=f"{DIGEST}|alice"))
    world.status({"plan": plan(NEXT_DIGEST)})
    alice.may(*alice.annotation(approve_new=f"{NEXT_DIGEST}|alice"))
    world.status({"conditions": [approved("True", "Approved")]})
    alice.may(*alice.annotation(approve_new=None), "--dry-run=server")
    for state in ("Reserved", "Applied", "Undoing", "Ended"):
        world.status({"executions": [execution(state, NEXT_DIGEST)]})
        alice.may_not(GUARD, *alice.annotation(approve_new=None), says="carried out already")
    alice.may(*alice.annotation(approve_old=None))


def test_3_an_answer_changes_nothing_else(world: World, alice: Actor) -> None:
    world.incident(WAITING)
    key = {"approve.nightorders.dev/alice": f"{DIGEST}|alice"}
    changes: tuple[Json, ...] = (
        {"spec": {"title": "something else"}},
        {"spec": {"suspend": True}},
        {"metadata": {"labels": {"team": "mine"}}},
        {"metadata": {"annotations": {"example.org/note": "mine"}}},
    )
    for more in changes:
        metadata = {**more.get("metadata", {}), "annotations": {**more.get("metadata", {}).get("annotations", {}), **key}}
        alice.may_not(GUARD, *alice.patch("inc", {**more, "metadata": metadata}), says="An answer to a plan changes no")
        alice.may(*alice.patch("inc", more))
    alice.may(*alice.patch("inc", {"metadata": {"annotations": key}}))


def test_3_a_rejection_comes_and_goes_with_its_reason(world: World, alice: Actor, bob: Actor) -> None:
    world.incident(WAITING)
    alice.may_not(GUARD, *alice.annotation(why_x="too early"), says="write both in one request")
    alice.may(*alice.annotation(reject_x=f"{DIGEST}|alice", why_x="too early, the migration still runs"))
    bob.may_not(GUARD, *bob.annotation(why_x="because alice is a fool"), says="somebody else's answer")
    bob.may_not(GUARD, *bob.annotation(why_x="because alice is a fool", approve_x=f"{DIGEST}|bob"), says="somebody else's answer")
    bob.may_not(GUARD, *bob.annotation(why_x=None), says="your own answer")
    bob.may_not(GUARD, *bob.annotation(reject_b=f"{DIGEST}|alice"), says="exactly")
    alice.may_not(GUARD, *alice.annotation(reject_x=None), says="remove both")
    alice.may_not(GUARD, *alice.annotation(why_z="a reason of nothing", approve_y=f"{DIGEST}|alice"), says="write both")
    alice.may(*alice.annotation(why_y="looked at the diff", approve_y=f"{DIGEST}|alice"))
    alice.may(*alice.annotation(why_y=None, approve_y=None))
    bob.may(*bob.annotation(reject_b=f"{DIGEST}|bob"))
    alice.may(*alice.annotation(reject_x=None, why_x=None))
    assert world.annotations() == {"reject.nightorders.dev/b": f"{DIGEST}|bob"}


def test_3_the_status_subresource_carries_no_answer(world: World, alice: Actor) -> None:
    """It is another resource for admission. The API server keeps metadata as it is there, also for the operator's own account."""
    world.incident(WAITING)
    body = json.dumps({"metadata": {"annotations": {"approve.nightorders.dev/x": f"{DIGEST}|alice"}, "labels": {"x": "y"}}, "status": {}})
    patch = ("patch", "incident", "inc", "--subresource=status", "--type=merge", "-p", body)
    world.operator.may(*patch)
    assert world.annotations() == {}
    assert "labels" not in world.get("incident", "inc")["metadata"]
    mallory = world.wildcard()
    mallory.may_not("nightorders-records", *patch)


def test_3_a_shared_field_manager_takes_nobodys_answer_away(world: World, alice: Actor, bob: Actor) -> None:
    """The name of a manager is the client's to choose: an apply under alice's, without her annotation, would remove it."""
    world.incident(WAITING)
    document: Json = {"apiVersion": "nightorders.dev/v1alpha1", "kind": "Incident", "metadata": {"name": "inc"}}
    apply = ("apply", "--server-side", "--force-conflicts", "--field-manager=kubectl", "-f", "-")
    mine = {"approve.nightorders.dev/x": f"{DIGEST}|alice"}
    alice.may(*apply, document={**document, "metadata": {"name": "inc", "annotations": mine}})
    bob.may_not(GUARD, *apply, document=document, says="Only your own")
    theirs = {"approve.nightorders.dev/x": f"{DIGEST}|bob"}
    bob.may_not(GUARD, *apply, document={**document, "metadata": {"name": "inc", "annotations": theirs}}, says="somebody else's answer")
    assert world.annotations() == mine
    alice.may(*apply, document=document)
    assert world.annotations() == {}


def test_5_a_certificate_with_the_name_of_a_service_account_is_one(world: World) -> None:
    """Usernames are all that admission sees, whoever vouches for them."""
    name = f"system:serviceaccount:{world.namespace}:robot"
    world.incident(WAITING)
    person = world.user(name, *APPROVER)
    person.may_not(GUARD, *person.annotation(approve_x=f"{DIGEST}|{name}"), says="for people")
    operator = world.user("system:serviceaccount:nightorders-system:nightorders", *APPROVER)
    world.status(waiting(serviceAccounts="Allow"))
    operator.may_not(GUARD, *operator.annotation(approve_x=f"{DIGEST}|{operator.name}"), says="never answers its own plans")
