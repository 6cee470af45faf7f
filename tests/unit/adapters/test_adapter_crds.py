"""Whether the cluster's schemas are this version's."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from aiohttp import web

from nightorders.adapters.clock import SystemClock
from nightorders.adapters.crds import COMMAND, CrdReport, compare_crds
from nightorders.api.crdgen import SCHEMA_DIGEST_ANNOTATION, all_crds
from tests.unit.adapters.fake_api import connected, status

pytestmark = pytest.mark.asyncio


class Cluster:
    def __init__(self) -> None:
        self.crds: dict[str, Any] = {c["metadata"]["name"]: deepcopy(c) for c in all_crds().values()}
        for crd in self.crds.values():
            crd["status"] = {"conditions": [{"type": "Established", "status": "True"}]}

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        found = self.crds.get(request.path.rsplit("/", 1)[1])
        if isinstance(found, web.Response):
            return found
        return web.json_response(found) if found else status(404, "NotFound", "not found", {"name": "x"})


async def report(cluster: Cluster) -> CrdReport:
    async with connected() as (api, client):
        api.default = cluster
        return await compare_crds(client)


async def test_ours_are_current() -> None:
    found = await report(Cluster())
    assert found == CrdReport((), True)
    assert found.current


@pytest.mark.parametrize("digest", ["0" * 32, None])
async def test_another_version_is_named_with_the_repair(digest: str | None) -> None:
    cluster = Cluster()
    cluster.crds["incidents.nightorders.dev"]["metadata"]["annotations"] = {SCHEMA_DIGEST_ANNOTATION: digest} if digest else {}
    found = await report(cluster)
    assert not found.current
    assert found.certain
    (message,) = found.messages
    assert "incidents.nightorders.dev is of another version" in message
    assert message.endswith(f"Repair: {COMMAND}")


async def test_missing_and_not_served() -> None:
    cluster = Cluster()
    del cluster.crds["ledgers.nightorders.dev"]
    cluster.crds["incidents.nightorders.dev"]["status"] = {}
    found = await report(cluster)
    assert found.certain
    assert [m.split(".")[0] for m in found.messages] == [
        "The CustomResourceDefinition incidents",
        "The CustomResourceDefinition ledgers",
    ]


@pytest.mark.parametrize("code", [403, 500])
async def test_what_cannot_be_read_is_not_current_and_not_wrong(code: int) -> None:
    cluster = Cluster()
    cluster.crds["incidents.nightorders.dev"] = status(code, "", "no")
    found = await report(cluster)
    assert not found.current
    assert not found.certain
    assert found.messages[0].startswith("Cannot tell whether")


async def test_the_clock_knows_its_zone() -> None:
    assert SystemClock().now().utcoffset() is not None
