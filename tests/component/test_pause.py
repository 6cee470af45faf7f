"""GitOps owners: confirmed by their own inventory, paused around the action, and always let go again."""

from __future__ import annotations

from typing import Any

import pytest

from nightorders.api.meta import LEDGER_NAME, PAUSED_BY_ANNOTATION, find_condition
from nightorders.domain.gitops import SKIP_RECONCILE
from nightorders.domain.ownership import ARGO_TRACKING, FLUX_HELM, FLUX_KUSTOMIZATION
from nightorders.ports import TransientError
from tests.component.fakes import Call, Died, Json, nothing
from tests.component.world import BAD, GOOD, RELIST, SECOND, SHOP, World, stuck

pytestmark = pytest.mark.threat(15)
HOLD = 60
ARGO, KUSTOMIZATION, HELM = ("Application", "argocd", "web"), ("Kustomization", "flux-system", "apps"), ("HelmRelease", SHOP, "checkout")
ID = f"{SHOP}_checkout_apps_Deployment"
SIGNS: dict[str, Json] = {
    "Application": {"annotations": {ARGO_TRACKING: f"web:apps/Deployment:{SHOP}/checkout"}},
    "Kustomization": {"labels": {FLUX_KUSTOMIZATION: "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}},
    "HelmRelease": {"labels": {FLUX_HELM: "checkout", "helm.toolkit.fluxcd.io/namespace": SHOP}},
}


def owner(kind: str) -> Json:
    """As its controller would have written it."""
    if kind == "Application":
        entries = [
            {"group": "apps", "version": "v1", "kind": "Deployment", "namespace": SHOP, "name": "checkout", "status": "OutOfSync"},
            {"version": "v1", "kind": "Service", "namespace": SHOP, "name": "checkout", "status": "Synced"},
        ]
        destination = {"server": "https://kubernetes.default.svc", "namespace": SHOP}
        return {
            "metadata": {},
            "spec": {"destination": destination, "syncPolicy": {"automated": {"selfHeal": True}}},
            "status": {"resources": entries},
        }
    entries = [{"id": ID, "v": "v1"}, {"id": f"{SHOP}_checkout__Service", "v": "v1"}]
    return {"metadata": {}, "spec": {"interval": "10m"}, "status": {"inventory": {"entries": entries}}}


async def governed(where: tuple[str, str, str] = ARGO, *, mode: str = "Pause", allowed: bool = True, sick: bool = False) -> World:
    """`checkout` is stuck, and that object governs it. A human approves what waits."""
    w = await stuck("L3")
    kind, namespace, name = where
    w.api.put(kind, namespace, name, owner(kind), "team")
    w.api.edit(
        "Deployment", SHOP, "checkout", lambda d: [d["metadata"].setdefault(k, {}).update(v) for k, v in SIGNS[kind].items()], "team"
    )
    w.api.edit("RemediationPolicy", SHOP, "orders", lambda p: p["spec"]["rules"][0].update(gitOps=mode, pauseFor=f"{HOLD}s"), "team")
    if allowed:
        w.cluster_policy(gitOpsPause="TeamDecides")

    def people() -> None:
        if sick and w.image() == GOOD:
            w.controllers.sick.add(GOOD)
        for i in w.incidents():
            p = i.status.plan
            waits = any(c.type == "Approved" and c.reason == "Waiting" for c in i.status.conditions)
            if p is not None and waits and not any(p.digest in v for v in i.metadata.annotations.values()):
                w.approve("alice", key=f"plan-{p.sequence}")

    w.at_each_second = people
    return w


def raw(w: World, where: tuple[str, str, str] = ARGO) -> Json:
    return w.api.objects[where]


def paused(w: World, where: tuple[str, str, str] = ARGO) -> bool:
    o = raw(w, where)
    return o["metadata"].get("annotations", {}).get(SKIP_RECONCILE) == "true" or o["spec"].get("suspend") is True


def mark(w: World, where: tuple[str, str, str] = ARGO) -> str:
    return str(raw(w, where)["metadata"].get("annotations", {}).get(PAUSED_BY_ANNOTATION, ""))


def records(w: World) -> list[Json]:
    return [p for ledger in w.api.all("Ledger") for p in ledger["spec"].get("pauses", ())]


def says(w: World, kind: str = "OwnerPaused") -> tuple[str, str, str]:
    c = find_condition(w.incident.status.conditions, kind)
    return (c.status, c.reason, c.message) if c else ("", "", "")


def gate(w: World) -> str:
    return next((g.message for g in w.incident.status.gates if g.gate == "owner" and not g.allowed), "")


def refused(w: World) -> None:
    assert (w.image(), w.mutations(), w.pausings(), records(w)) == (BAD, [], [], [])


# ---------------------------------------------------------------- the way it goes


@pytest.mark.parametrize("where", [ARGO, KUSTOMIZATION, HELM], ids=lambda w: w[0])
async def test_the_owner_is_paused_before_the_action_and_let_go_after_its_time(where: tuple[str, str, str]) -> None:
    w = await governed(where)
    await w.until_phase("Verifying")
    (e,) = w.incident.status.executions
    assert (paused(w, where), mark(w, where)) == (True, e.id)
    pause, action = w.pausings()[0], w.mutations()[0]
    assert w.api.journal.index(pause) < w.api.journal.index(action)
    assert says(w)[:2] == ("True", "Paused")
    await w.until_phase("Recovered")
    (ended,) = w.incident.status.executions
    assert ended.ended_at is not None
    until = ended.ended_at + HOLD * SECOND
    assert f"stays paused until {until:%Y-%m-%d %H:%M:%S}Z: bring the change into Git" in says(w)[2]
    await w.seconds(HOLD - 5)
    assert paused(w, where)
    assert says(w)[2] in [entry.what for entry in w.incident.status.timeline]
    await w.seconds(10)
    assert (paused(w, where), mark(w, where), records(w)) == (False, "", [])
    assert says(w)[:2] == ("False", "Resumed")
    assert len(w.pausings()) == 2


async def test_an_action_that_is_undone_lets_the_owner_go_at_once() -> None:
    w = await governed(sick=True)
    await w.until_phase("Undone")
    await w.seconds(3)
    assert (paused(w), mark(w), records(w), w.image()) == (False, "", [], BAD)
    assert says(w)[:2] == ("False", "Resumed")


async def test_a_change_by_somebody_else_lets_it_go_at_once() -> None:
    w = await governed()
    await w.until_phase("Verifying")
    w.release("registry.example/checkout:8")
    await w.until(lambda: w.results() == ["operator:Superseded"])
    await w.seconds(3)
    assert (paused(w), records(w)) == (False, [])


# ---------------------------------------------------------------- who may, and what must hold


async def test_refuse_is_the_default_and_nothing_is_touched() -> None:
    w = await governed(mode="Refuse")
    await w.seconds(40)
    refused(w)
    assert "change it there" in gate(w)


async def test_the_platform_must_allow_it() -> None:
    w = await governed(allowed=False)
    await w.seconds(40)
    refused(w)
    assert "needs a ClusterRemediationPolicy with gitOpsPause: TeamDecides" in gate(w)


async def test_one_platform_policy_that_denies_wins() -> None:
    w = await governed()
    w.cluster_policy("strict", gitOpsPause="Deny")
    await w.seconds(40)
    refused(w)


FORGERIES: dict[str, Any] = {
    "not listed": lambda o: o["status"].update(resources=o["status"]["resources"][1:]),
    "another namespace": lambda o: o["status"]["resources"][0].update(namespace="web"),
    "only there because it claims so": lambda o: o["status"]["resources"][0].update(requiresPruning=True),
    "a hook": lambda o: o["status"]["resources"][0].update(hook=True),
    "another cluster": lambda o: o["spec"]["destination"].update(server="https://10.0.0.7"),
    "a set would take the pause away": lambda o: o["metadata"].update(
        ownerReferences=[{"kind": "ApplicationSet", "name": "all", "uid": "u", "controller": True}]
    ),
    "a sync is running": lambda o: o["status"].update(operationState={"phase": "Running"}),
    "no status": lambda o: o.pop("status"),
    "nonsense": lambda o: o.update(status={"resources": "checkout"}),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_what_the_owner_does_not_confirm_is_refused(forgery: str) -> None:
    w = await governed()
    w.api.edit(*ARGO, FORGERIES[forgery], "team")
    await w.seconds(40)
    refused(w)
    assert "cannot be paused" in gate(w)


@pytest.mark.parametrize(
    "tracking",
    ["other:apps/Deployment:shop/checkout", "team-b_web:apps/Deployment:shop/checkout", "", ":::", "a b;reboot_x:y", "web;id:apps"],
)
async def test_a_forged_tracking_id_pauses_nothing(tracking: str) -> None:
    w = await governed()
    w.api.edit("Deployment", SHOP, "checkout", lambda d: d["metadata"]["annotations"].update({ARGO_TRACKING: tracking}), "team")
    await w.seconds(40)
    refused(w)
    assert ";" not in gate(w).partition("cannot be paused")[2] or "allow it with" in gate(w)


async def test_an_owner_that_may_not_be_read_is_refused_with_the_command() -> None:
    w = await governed()
    w.api.forbidden.add(("get", "Application"))
    await w.seconds(40)
    refused(w)
    assert "kubectl create rolebinding nightorders-pause-argocd -n argocd --clusterrole=nightorders-pause-argocd" in gate(w)
    assert "--serviceaccount=nightorders-system:nightorders" in gate(w)


async def test_an_owner_that_may_not_be_patched_is_known_before_anybody_approves() -> None:
    w = await governed()
    w.api.forbidden.add(("patch", "Application"))
    await w.seconds(40)
    refused(w)
    status, reason, message = says(w, "Planned")
    assert (status, reason) == ("False", "PermissionMissing")
    assert "may not pause Application/web" in message
    assert "nightorders-pause-argocd" in message


async def test_a_right_that_is_taken_away_before_the_effect_leaves_no_trace() -> None:
    w = await governed()

    async def revoke(call: Call) -> None:
        if call.verb == "ledger":
            w.api.forbidden.add(("patch", "Application"))

    w.api.before = revoke
    await w.until(lambda: "operator:NotApplied" in w.results())
    w.api.before = nothing
    await w.seconds(5)
    assert (w.image(), w.mutations(), paused(w), records(w)) == (BAD, [], False, [])


# ---------------------------------------------------------------- the ambiguous label


def labelled_only(d: Json) -> None:
    d["metadata"]["annotations"].pop(ARGO_TRACKING)
    d["metadata"]["labels"]["app.kubernetes.io/instance"] = "web"


@pytest.mark.parametrize(("listed", "acts"), [(True, False), (False, True)])
async def test_the_instance_label_counts_only_with_an_application_that_lists_the_object(listed: bool, acts: bool) -> None:
    """Every Helm chart sets it, too."""
    w = await governed(mode="Refuse")
    w.api.edit("Deployment", SHOP, "checkout", labelled_only, "team")
    if not listed:
        w.api.edit(*ARGO, lambda o: o["status"].update(resources=[]))
    await w.seconds(40)
    assert bool(w.mutations()) is acts
    assert bool(gate(w)) is not acts


# ---------------------------------------------------------------- somebody else's pause


def pause_by_hand(w: World, where: tuple[str, str, str] = ARGO) -> None:
    if where[0] == "Application":
        w.api.edit(*where, lambda o: o["metadata"].setdefault("annotations", {}).update({SKIP_RECONCILE: "true"}), "alice")
    else:
        w.api.edit(*where, lambda o: o["spec"].update(suspend=True), "alice")


@pytest.mark.parametrize("where", [ARGO, KUSTOMIZATION], ids=lambda w: w[0])
async def test_a_humans_own_pause_is_left_alone_for_ever(where: tuple[str, str, str]) -> None:
    w = await governed(where)
    pause_by_hand(w, where)
    before = raw(w, where)
    await w.until_phase("Recovered")
    assert "was paused by somebody else already" in " ".join(e.what for e in w.incident.status.timeline)
    await w.seconds(HOLD + 10)
    assert raw(w, where) == before
    assert (w.image(), records(w)) == (GOOD, [])


async def test_a_human_who_lifts_our_pause_early_is_not_fought() -> None:
    w = await governed()
    await w.until_phase("Recovered")
    w.api.edit(*ARGO, lambda o: [o["metadata"]["annotations"].pop(k) for k in (SKIP_RECONCILE, PAUSED_BY_ANNOTATION)], "alice")
    await w.seconds(HOLD + 10)
    assert (len(w.pausings()), records(w)) == (1, [])
    assert "not paused by the operator any more" in says(w)[2]


# ---------------------------------------------------------------- two actions, one owner


async def test_an_owner_of_two_goes_on_when_both_are_over() -> None:
    w = await governed()
    await w.until_phase("Recovered")
    (first,) = records(w)
    other = {**first, "execution": "no-" + "1" * 20, "incidentUid": "gone", "until": None}
    w.api.edit("Ledger", SHOP, LEDGER_NAME, lambda o: o["spec"]["pauses"].append({k: v for k, v in other.items() if v}), "operator")
    late = (w.clock.now() + 3 * HOLD * SECOND).isoformat().replace("+00:00", "Z")
    w.api.edit("Ledger", SHOP, LEDGER_NAME, lambda o: o["spec"]["pauses"][1].update(until=late), "operator")
    await w.seconds(HOLD + 10)
    assert (paused(w), len(records(w))) == (True, 2)
    w.clock.advance(2 * HOLD * SECOND)
    await w.seconds(5)
    assert (paused(w), records(w)) == (False, [])


# ---------------------------------------------------------------- a pause is never left behind


async def test_an_incident_that_is_deleted_in_between_leaves_no_pause() -> None:
    w = await governed()
    await w.until_phase("Verifying")
    name = w.incident.metadata.name
    w.api.edit("Incident", SHOP, name, lambda o: o["metadata"].update(finalizers=[]), "admin")  # the emergency way
    w.api.delete("Incident", SHOP, name, "admin")
    await w.seconds(5)
    assert (paused(w), records(w)) == (False, [])


async def test_an_incident_that_is_deleted_after_it_helped_keeps_the_promise_and_leaves_no_pause() -> None:
    w = await governed()
    await w.until_phase("Recovered")
    await w.seconds(5)
    w.api.delete("Incident", SHOP, w.incident.metadata.name, "alice")
    await w.seconds(HOLD - 20)
    assert paused(w)
    await w.seconds(25)
    assert (paused(w), records(w)) == (False, [])


async def test_down_past_its_time_it_is_lifted_at_the_start() -> None:
    w = await governed()
    await w.until_phase("Recovered")
    w.clock.advance(10 * HOLD * SECOND)
    assert paused(w)
    w.start()
    await w.second()
    assert (paused(w), records(w)) == (False, [])


@pytest.mark.parametrize("gone", ["owner", "fleet"])
async def test_what_is_gone_holds_nothing_up(gone: str) -> None:
    w = await governed()
    await w.until_phase("Recovered")
    if gone == "owner":
        w.api.delete(*ARGO, "team")
    else:
        w.api.delete("Ledger", "nightorders-system", "fleet", "admin")
        w.start()
    await w.seconds(HOLD + 10)
    assert records(w) == []
    assert gone == "owner" or not paused(w)


async def test_failing_to_lift_is_loud_and_goes_on() -> None:
    w = await governed()
    await w.until_phase("Recovered")
    w.api.forbidden.add(("patch", "Application"))
    await w.seconds(HOLD + 10)
    status, reason, message = says(w)
    assert (status, reason) == ("True", "PauseOverdue")
    assert "kubectl annotate applications.argoproj.io web -n argocd argocd.argoproj.io/skip-reconcile-" in message
    assert "nightorders-pause-argocd" in message
    assert [e[1] for e in w.api.events].count("PauseOverdue") == 1
    assert sum("could not be lifted" in e.what or "is still paused" in e.what for e in w.incident.status.timeline) == 1
    w.api.forbidden.clear()
    await w.seconds(5)
    assert (paused(w), records(w)) == (False, [])
    assert says(w)[:2] == ("False", "Resumed")


async def test_a_failure_that_passes_is_not_told_at_once() -> None:
    w = await governed(sick=True)
    failing = True

    async def unlucky(call: Call) -> None:
        if failing and call.verb == "patch" and call.kind == "Application" and paused(w):
            raise TransientError("503")

    w.api.before = unlucky
    await w.until_phase("Undone")
    await w.second()
    assert paused(w)
    assert says(w)[1] == "Paused"
    failing = False
    await w.seconds(5)
    assert (paused(w), records(w)) == (False, [])


# ---------------------------------------------------------------- crashes


def over(w: World) -> bool:
    return w.ended() and w.phase in ("Recovered", "Undone") and not records(w) and not paused(w)


async def to_the_end(w: World) -> None:
    for _ in range(60):
        if w.ended() and w.phase in ("Recovered", "Undone"):
            break
        await w.second()
    await w.seconds(5)
    w.clock.advance(HOLD * SECOND)
    await w.seconds(5)
    w.clock.advance(2 * RELIST)
    await w.seconds(5)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("sick", [False, True], ids=["recovers", "is undone"])
async def test_a_crash_at_any_write_leaves_no_pause(sick: bool, when: str) -> None:
    usual = await governed(sick=sick)
    await to_the_end(usual)
    assert over(usual)
    expected = (usual.phase, usual.results(), usual.image(), len(usual.mutations()), len(usual.pausings()))
    assert expected[4] == 2
    for number in range(1, usual.api.writes + 1):
        w = await governed(sick=sick)

        async def dies(call: Call, number: int = number) -> None:
            if call.number == number:
                raise Died

        setattr(w.api, when, dies)
        with pytest.raises(Died):
            await to_the_end(w)
        setattr(w.api, when, nothing)
        w.start()
        await to_the_end(w)
        got = (w.phase, w.results(), w.image(), len(w.mutations()), len(w.pausings()))
        assert got == expected, f"died {when} write {number} of {usual.api.writes}: {w.story()}"
        assert over(w), f"died {when} write {number}: {records(w)} {raw(w)['metadata']}"


@pytest.mark.parametrize("then", ["stop", "policy", "deleted", "denied", "unowned"])
async def test_the_world_changes_while_nobody_runs_and_no_pause_is_left(then: str) -> None:
    usual = await governed()
    await to_the_end(usual)
    first = next(c.number for c in usual.api.calls if c.kind == "Ledger" and c.writes)
    for number in range(first, usual.api.writes + 1):
        w = await governed()

        async def dies(call: Call, number: int = number) -> None:
            if call.number == number:
                raise Died

        w.api.after = dies
        with pytest.raises(Died):
            await to_the_end(w)
        w.api.after = nothing
        match then:
            case "stop":
                w.stop()
            case "policy":
                w.policy("L1")
            case "deleted":
                w.api.delete("Incident", SHOP, w.incident.metadata.name, "alice")
            case "denied":
                w.cluster_policy("strict", gitOpsPause="Deny")
            case _:
                w.api.edit("Deployment", SHOP, "checkout", lambda d: d["metadata"]["annotations"].pop(ARGO_TRACKING), "team")
        w.start(detect=False)
        await w.seconds(60)
        w.clock.advance((HOLD + 300) * SECOND)
        await w.seconds(10)
        assert (paused(w), mark(w), records(w)) == (False, "", []), f"died after write {number}, then {then}: {w.story()}"
