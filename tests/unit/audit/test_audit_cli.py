"""`nightorders audit` as typed: what it prints, its exit codes, and keys as people keep them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from typer.testing import CliRunner

from nightorders.__main__ import app
from nightorders.adapters import signer
from nightorders.adapters.signer import FileSigner
from nightorders.cli import audit_keys
from tests.unit.adapters.fake_api import FakeApi, always, serve, status
from tests.unit.audit.desk import Desk
from tests.unit.cli.test_session import kubeconfig

API = "/apis/nightorders.dev/v1alpha1"
KEYS = "/api/v1/namespaces/nightorders-system/configmaps/nightorders-audit-keys"


def invoke(*argv: str, stdin: str = "") -> Any:
    return CliRunner().invoke(app, ["audit", *argv], input=stdin)


def json_of(body: Any) -> Any:
    return always(lambda: web.json_response(body))


@asynccontextmanager
async def cluster(desk: Desk, tmp_path: Path) -> AsyncIterator[tuple[FakeApi, list[str]]]:
    """The desk's world behind HTTP, and the flags that lead there."""
    async with serve() as api:
        for path, kind in (("incidents", "Incident"), ("ledgers", "Ledger")):
            items = {"items": list(desk.api.all(kind))}
            api.on("GET", f"{API}/namespaces/shop/{path}", json_of(items))
            api.on("GET", f"{API}/{path}", json_of(items))
        for raw in desk.api.all("Incident"):
            api.on("GET", f"{API}/namespaces/shop/incidents/{raw['metadata']['name']}", json_of(raw))
        data = {f"{p.stem}.pem": p.read_text() for p in desk.folder.glob("*.pub")}
        api.on("GET", KEYS, json_of({"data": data}))
        yield api, ["--kubeconfig", str(kubeconfig(tmp_path, api.url))]


async def typed(*argv: str, stdin: str = "") -> Any:
    return await asyncio.to_thread(invoke, *argv, stdin=stdin)


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    (tmp_path / "keys").mkdir()
    made = Desk(tmp_path / "keys")
    await made.story("one")
    return made


async def test_verify_says_that_it_holds(desk: Desk, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(['{"event": "ready"}\n', *desk.log]))
    async with cluster(desk, tmp_path) as (_, flags):
        for argv in ([], ["-n", "shop"], ["--all"], ["--log", str(log)], ["--keys", "nightorders-audit-keys"]):
            result = await typed("verify", *argv, *flags)
            assert result.exit_code == 0, result.output
            assert "hold\n" in result.stdout
            assert "shop/one: 6 lines, signed by key" in result.stdout
            assert "the public keys come from the cluster itself" in result.stdout
        result = await typed("verify", "--log", "-", *flags, stdin=log.read_text())
        assert result.exit_code == 0


async def test_verify_with_keys_of_ones_own_and_as_json(desk: Desk, tmp_path: Path) -> None:
    (pem,) = (tmp_path / "keys").glob("*.pub")
    async with cluster(desk, tmp_path) as (api, flags):
        result = await typed("verify", "--keys", str(pem), "-o", "json", *flags)
        assert not any(a.path == KEYS for a in api.asked)
    found = json.loads(result.stdout)
    assert (result.exit_code, found["result"], found["incidents"][0]["holds"]) == (0, "Holds", True)


async def test_verify_says_what_is_broken(desk: Desk, tmp_path: Path) -> None:
    desk.doctor(lambda lines: lines.pop(), head="fit")
    async with cluster(desk, tmp_path) as (_, flags):
        result = await typed("verify", *flags)
        assert result.exit_code == 1
        assert "The records of namespace shop do NOT hold" in result.stdout
        assert "shop/one: against the book of heads: it ends at line 5" in result.stdout
        found = json.loads((await typed("verify", "-o", "json", *flags)).stdout)
        assert (found["result"], found["findings"][-1]["severity"]) == ("Broken", "Broken")


async def test_verify_that_cannot_tell_says_so_and_is_not_taken_for_broken(desk: Desk, tmp_path: Path) -> None:
    async with cluster(desk, tmp_path) as (api, flags):
        api.on("GET", KEYS, always(lambda: status(404, "NotFound", "no", {"name": "nightorders-audit-keys", "kind": "configmaps"})))
        result = await typed("verify", *flags)
        assert (result.exit_code, "cannot be told to hold" in result.stdout) == (2, True)
        assert "whose public key is not known here" in result.stdout
        api.on("GET", KEYS, always(lambda: status(403, "Forbidden", "no")))
        result = await typed("verify", *flags)
        assert (result.exit_code, "give them with --keys FILE" in result.stdout) == (2, True)
        assert (await typed("verify", "--keys", "other/keys", *flags)).exit_code == 2
        assert (await typed("verify", "--all", "-n", "shop", *flags)).exit_code == 2
        assert (await typed("verify", "--log", str(tmp_path / "none"), *flags)).exit_code == 2
        empty = tmp_path / "empty"
        empty.write_text("")
        assert "has no line of a record" in (await typed("verify", "--log", str(empty), *flags)).stdout
        api.on("GET", f"{API}/namespaces/shop/incidents", always(lambda: status(403, "Forbidden", "no")))
        result = await typed("verify", *flags)
        assert (result.exit_code, "forbidden" in result.stderr) == (2, True)
        result = await typed("verify", "-n", "nowhere", *flags)
        assert result.exit_code == 2  # the fake answers 404 for a namespace that it does not know
    assert (await typed("verify", "--kubeconfig", str(tmp_path / "none"))).exit_code == 2


async def test_an_empty_namespace_does_not_hold(desk: Desk, tmp_path: Path) -> None:
    async with cluster(desk, tmp_path) as (api, flags):
        for kind in ("incidents", "ledgers"):
            api.on("GET", f"{API}/namespaces/typo/{kind}", json_of({"items": []}))
        result = await typed("verify", "-n", "typo", *flags)
        assert (result.exit_code, "there is no Incident and no book of heads" in result.stdout) == (2, True)


async def test_what_this_version_cannot_read_is_not_vouched_for(desk: Desk, tmp_path: Path) -> None:
    desk.api.edit("Incident", "shop", "one", lambda raw: raw["spec"].update(guardrail="new"))
    async with cluster(desk, tmp_path) as (_, flags):
        result = await typed("verify", *flags)
    assert "cannot be read by this version" in result.stdout
    assert (result.exit_code, "gone" in result.stdout) == (2, False)


async def test_show(desk: Desk, tmp_path: Path) -> None:
    async with cluster(desk, tmp_path) as (_, flags):
        result = await typed("show", "one", *flags)
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert lines[0] == "Record of Incident one in namespace shop"
        assert "  1    2026-07-01 12:00:01Z  Observation  operator  line 1 of one" in lines
        assert any(line.strip().startswith("- line 6, sha256:") for line in lines)
        assert "signed by key" in result.stdout
        assert "the chain holds" in result.stdout
        found = json.loads((await typed("show", "one", "-o", "json", *flags)).stdout)
        assert (len(found["lines"]), found["broken"], found["head"]["seq"]) == (6, [], 6)
    desk.doctor(lambda lines: lines[0].update(what="\x1b[31mred"))
    async with cluster(desk, tmp_path) as (_, flags):
        result = await typed("show", "one", *flags)
        assert "cannot read Incident one" in result.stderr  # the schema refuses such text, and so do we
    desk.doctor(lambda lines: lines[0].update(what="other"))
    async with cluster(desk, tmp_path) as (_, flags):
        result = await typed("show", "one", *flags)
        assert "line 1 was changed" in result.stdout
        assert "the chain is broken" in result.stdout


# ------------------------------------------------------------ keys


def documents(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    secret, keys = yaml.safe_load_all(text)
    return secret, keys


def test_keygen_makes_a_secret_that_signs_and_public_keys_that_vouch(tmp_path: Path) -> None:
    secret, keys = documents(invoke("keygen").stdout)
    assert (secret["kind"], secret["metadata"]["name"], secret["metadata"]["namespace"]) == (
        "Secret",
        "nightorders-audit-key",
        "nightorders-system",
    )
    assert (keys["kind"], keys["metadata"]["name"]) == ("ConfigMap", "nightorders-audit-keys")
    assert "PRIVATE" not in json.dumps(keys)
    (tmp_path / "key.pem").write_text(secret["stringData"]["key.pem"])
    signed = FileSigner(tmp_path / "key.pem").sign(b"words")
    assert signed is not None
    ring = audit_keys.keyring(keys["data"], "the keys")
    assert list(ring.keys) == [signed.key_id]
    assert ring.keys[signed.key_id].since is not None
    assert ring.check(signed.key_id, b"words", signed.signature)


def test_rotation_keeps_old_keys_with_their_last_valid_time(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(invoke("keygen").stdout)  # both documents: the Secret is not looked at
    (first,) = audit_keys.keyring(audit_keys.from_file(path), "x").keys
    text = invoke("keygen", "--rotate", "--keys", str(path), "--overlap", "1h").stdout
    path.write_text(text)
    ring = audit_keys.keyring(audit_keys.from_file(path), "x")
    (second,) = set(ring.keys) - {first}
    retired = ring.keys[first].last_valid
    assert retired is not None
    assert ring.keys[second].last_valid is None
    since = ring.keys[second].since
    assert since is not None
    assert 3590 < (retired - since).total_seconds() < 3610
    path.write_text(json.dumps({"kind": "List", "items": [documents(text)[1]]}))
    third = audit_keys.keyring(audit_keys.from_file(path), "x")
    assert third.keys == ring.keys
    path.write_text(invoke("keygen", "--rotate", "--keys", str(path)).stdout)
    again = audit_keys.keyring(audit_keys.from_file(path), "x")
    assert (len(again.keys), again.keys[first].last_valid) == (3, retired)  # a retired key gets no new life


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--rotate"], "--rotate needs --keys"),
        (["--keys", "x"], "--rotate needs --keys"),
        (["--rotate", "--keys", "none.yaml"], "cannot read"),
        (["--rotate", "--keys", "x", "--overlap", "soon"], "--overlap"),
    ],
)
def test_keygen_says_what_is_wrong(argv: list[str], words: str) -> None:
    result = invoke("keygen", *argv)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


@pytest.mark.parametrize(
    "content",
    ["", "a: [", "a: b", "kind: ConfigMap", "kind: ConfigMap\ndata: {a: b}", "kind: ConfigMap\ndata: {x.pem: hello}", "\x80"],
)
def test_a_file_without_keys_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys").write_bytes(content.encode("latin-1"))
    result = invoke("keygen", "--rotate", "--keys", str(tmp_path / "keys"))
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_key_under_another_keys_name_is_refused() -> None:
    made, _, public = signer.generate()
    with pytest.raises(Exception, match=f"it must be called {made}.pem"):
        audit_keys.keyring({"0123456789abcdef.pem": public}, "x")
    with pytest.raises(Exception, match="is no time"):
        audit_keys.keyring({f"{made}.pem": public, f"{made}.last-valid": "soon"}, "x")
