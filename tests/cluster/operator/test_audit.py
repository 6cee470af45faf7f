"""The record of a real operator: signed, published, printed; doctored with the operator's own rights but without its key, each is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from nightorders.__main__ import app
from tests.cluster.scene import Json, Scene, policy, until
from tools.cluster import Cluster
from tools.operator_process import ACCOUNT, NAMESPACE, OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("no_operator"), pytest.mark.timeout(400)]


class Keys:
    """What `nightorders audit keygen` prints, as files."""

    def __init__(self, folder: Path) -> None:
        self.private, self.public = folder / "key.pem", folder / "keys.yaml"
        self.take(nightorders("keygen")[1])

    def take(self, printed: str) -> None:
        secret, keys = yaml.safe_load_all(printed)
        self.public.write_text(yaml.safe_dump(keys))
        new = self.private.with_suffix(".new")  # as the kubelet does it: one moment the old file, the next moment the new one
        new.write_text(secret["stringData"]["key.pem"])
        new.replace(self.private)

    def rotate(self) -> None:
        self.take(nightorders("keygen", "--rotate", "--keys", str(self.public))[1])


def nightorders(*argv: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["audit", *argv])
    return done.exit_code, done.output


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


@pytest.fixture
def signing(arena: Cluster, keys: Keys) -> Iterator[OperatorProcess]:
    """An operator with a key."""
    process = OperatorProcess(arena, name="signing", environment={"NIGHTORDERS_AUDIT_KEY_FILE": str(keys.private)})
    process.start().wait_ready()
    yield process
    process.stop()


class Auditor:
    """Somebody who may read Incidents and Ledgers of the namespace, and nothing else."""

    def __init__(self, scene: Scene, keys: Keys, log: Path) -> None:
        scene.kubectl("create", "rolebinding", "auditor", "--clusterrole=nightorders-incident-reader", "--user=auditor")
        self._flags = ["-n", scene.namespace, "--kubeconfig", str(scene.cluster.user("auditor")), "--keys", str(keys.public)]
        self._log = ["--log", str(log)]

    def verify(self, *, log: bool = True) -> tuple[int, str]:
        return nightorders("verify", *self._flags, *(self._log if log else []))

    def show(self, name: str) -> tuple[int, str]:
        return nightorders("show", name, *self._flags)


def published(scene: Scene) -> bool:
    """Whether the book has every Incident's end."""
    book = scene.get("ledger/audit").get("spec", {}).get("audit", {})
    heads = {h["uid"]: h["head"] for h in book.get("heads", [])}
    ends = {i["metadata"]["uid"]: i["status"].get("head") for i in scene.incidents()}
    return bool(ends) and all(heads.get(uid) == end for uid, end in ends.items())


class Attacker:
    """Has the operator's account (a stolen token, say), and not its key."""

    def __init__(self, scene: Scene, name: str) -> None:
        self._scene, self._name = scene, name
        self._who = scene.cluster.service_account(NAMESPACE, ACCOUNT)
        self._status = scene.get(f"incident/{name}")["status"]

    def write(self, timeline: list[Json], head: Json) -> None:
        body = json.dumps({"status": {"timeline": timeline, "head": head}})
        self._scene.kubectl(
            "patch", "incident", self._name, "--subresource=status", "--type=merge", "--patch-file=/dev/stdin", stdin=body, who=self._who
        )

    def doctor(self, change: Callable[[list[Json]], Any], *, fit: bool = False) -> None:
        timeline = json.loads(json.dumps(self._status["timeline"]))
        change(timeline)
        head = dict.fromkeys(self._status["head"]) | {k: timeline[-1][k] for k in ("seq", "sha256")} if fit else self._status["head"]
        self.write(timeline, head)

    def put_back(self) -> None:
        self.write(self._status["timeline"], self._status["head"])


ATTACKS: dict[str, tuple[Callable[[list[Json]], Any], bool, str]] = {
    "edit": (lambda lines: lines[1].update(what="nobody did this"), False, "line 2 was changed"),
    "remove": (lambda lines: lines.pop(2), False, "line 4 follows line 2"),
    "reorder": (lambda lines: lines.insert(1, lines.pop(2)), False, "line 3 follows line 1"),
    "truncate": (lambda lines: lines.__delitem__(slice(3, None)), True, "it ends at line 3"),
    "strip": (lambda lines: None, True, "the signature of line"),
}


def test_a_signed_record_holds_and_every_doctored_one_is_noticed(scene: Scene, signing: OperatorProcess, keys: Keys) -> None:
    scene.apply(policy("L3"))
    scene.app()
    scene.release()
    waiting = scene.incident("AwaitingApproval")
    scene.approve(waiting, scene.approver(), "ann")
    name = scene.incident("Recovered")["metadata"]["name"]
    auditor = Auditor(scene, keys, signing.log)
    until(lambda: published(scene), "the book has the end of the record")
    assert "nightorders_audit_signing 1.0" in signing.scrape()

    code, said = auditor.verify()
    assert (code, f"{scene.namespace}/{name}: " in said, "signed by key" in said) == (0, True, True), said
    code, said = auditor.show(name)
    assert (code, "the chain holds" in said, "ann" in said, "looked: " in said) == (0, True, True, True), said
    printed = [json.loads(row) for row in signing.log.read_text().splitlines() if row.startswith('{"kind": "nightorders.audit"')]
    kinds = [row["entryKind"] for row in printed if row["incident"] == name]
    assert {"Observation", "Approval", "Execution"} <= set(kinds)
    assert [row["seq"] for row in printed if row["incident"] == name] == list(range(1, len(kinds) + 1))

    # A rotated key needs no restart; what the old one signed still holds.
    keys.rotate()
    scene.apply(
        {
            "apiVersion": "nightorders.dev/v1alpha1",
            "kind": "Incident",
            "metadata": {"name": "by-hand"},
            "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}},
        }
    )
    until(lambda: scene.get("incident/by-hand").get("status", {}).get("phase") == "Dismissed", "the second Incident is dismissed")
    until(lambda: published(scene), "the book has the end of the second record")
    ids = {scene.get(f"incident/{n}")["status"]["head"]["keyId"] for n in (name, "by-hand")}
    assert len(ids) == 2
    assert auditor.verify()[0] == 0

    # Nobody but the operator's account gets as far as an attack.
    refused = scene.kubectl(
        "patch", "incident", name, "--subresource=status", "--type=merge", "-p", '{"status":{"head":null}}', check=False
    )
    assert "written by the operator's account only" in refused

    signing.kill()
    attacker = Attacker(scene, name)
    for what, (change, fit, words) in ATTACKS.items():
        attacker.doctor(change, fit=fit)
        for log in (False, True):
            code, said = auditor.verify(log=log)
            assert code == 1, (what, said)
            assert words in said, (what, said)
        attacker.put_back()
        assert auditor.verify()[0] == 0, what

    # The operator itself notices, says so everywhere, and vouches for nothing that follows.
    attacker.doctor(*ATTACKS["truncate"][:1], fit=True)
    signing.start().wait_ready()
    until(lambda: 'nightorders_audit_alarms_total{what="incident"} 1.0' in signing.scrape(), "the alarm is counted")
    events = json.loads(scene.kubectl("get", "events", "-o", "json"))["items"]
    until(lambda: "RecordTampered" in scene.kubectl("get", "events", "-o", "json"), f"an Event says so: {len(events)}")
    incident = until(
        lambda: next((i for i in scene.incidents() if "not the one that the operator wrote" in i["status"]["timeline"][-1]["what"]), None),
        "the record says so",
    )
    assert not incident["status"]["head"].get("signature")
    code, said = auditor.verify()
    assert (code, "the operator itself gave the alarm" in said) == (1, True), said

    # Deleted: the book still knows it.
    scene.kubectl("delete", "incident", name)
    code, said = auditor.verify(log=False)
    assert (code, f"{scene.namespace}/{name}: gone: its record up to line {len(kinds)} was sha256:" in said) == (1, True), said
    assert signing.stop() == 0


def test_without_a_key_it_is_chained_and_says_that_it_is_unsigned(scene: Scene, arena: Cluster, keys: Keys) -> None:
    process = OperatorProcess(arena, name="unsigned").start().wait_ready()
    try:
        scene.app()
        scene.apply(
            {
                "apiVersion": "nightorders.dev/v1alpha1",
                "kind": "Incident",
                "metadata": {"name": "by-hand"},
                "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}},
            }
        )
        scene.incident("Dismissed")
        until(lambda: published(scene), "the book has the end of the record")
        assert "nightorders_audit_signing 0.0" in process.scrape()
        assert process.log.read_text().count("chained, but not signed") == 1
        code, said = nightorders("verify", "-n", scene.namespace, "--kubeconfig", str(arena.kubeconfig), "--log", str(process.log))
        assert (code, "unsigned: there was no key" in said) == (0, True), said
    finally:
        process.stop()
