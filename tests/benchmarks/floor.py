"""The floor: the least that any program must do between an event and a write. `python -m tests.benchmarks.floor <kubeconfig>`.

Plans come in on standard input, one JSON object per line, before the event that they are for:

    {"name": "f-1", "on": "created" | "approved", "rounds": [[request, …], …]}

with a request being [method, path, body or null, content type]. When the watch on the copies of Incidents delivers the object of that
name (with an approval in it, for "approved"), the rounds are made one after the other, the requests of each side by side. Nothing is
parsed (but the version of the copy, for a conditional write), judged, logged or checked in between.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import aiohttp
import yaml

GROUP = "bench.nightorders.dev"
WATCH = f"/apis/{GROUP}/v1alpha1/incidents?watch=true&allowWatchBookmarks=true"
# The API server closes what was idle for 90 s; a turn of the floor comes more often.
KEPT = 75
APPROVAL = "bench.nightorders.dev/approved"


def connector(kubeconfig: Path) -> tuple[str, str, aiohttp.TCPConnector]:
    """(server, token, connections) of a kubeconfig with a token; connections are kept open."""
    read = yaml.safe_load(kubeconfig.read_text())
    cluster, user = read["clusters"][0]["cluster"], read["users"][0]["user"]
    trust = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    return cluster["server"], user["token"], aiohttp.TCPConnector(ssl=trust, limit=100, keepalive_timeout=KEPT)


async def ask(session: aiohttp.ClientSession, method: str, path: str, body: Any, content_type: str) -> bytes:
    """The bytes of one answer. A refusal of a write that is no attack ends the program: what is refused is no floor."""
    data = None if body is None else json.dumps(body).encode()
    async with session.request(method, path, data=data, headers={"Content-Type": content_type} if data else {}) as answer:
        content = await answer.read()
        if answer.status >= 400 and method != "GET" and "dryRun" not in path:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:2000].decode()}")
        return content


async def carry_out(session: aiohttp.ClientSession, plan: dict[str, Any], version: str) -> None:
    """One round after the other. `version`: of the copy of the Incident; its PUT is conditional."""
    for requests in plan["rounds"]:
        for method, _, body, _ in requests:
            if method == "PUT":
                body["metadata"]["resourceVersion"] = version
        contents = await asyncio.gather(*(ask(session, *request) for request in requests))
        for (method, path, _, _), content in zip(requests, contents, strict=True):
            if method == "PATCH" and path.endswith(f"/incidents/{plan['name']}"):
                version = json.loads(content)["metadata"]["resourceVersion"]
    print(plan["name"], flush=True)


async def listen(session: aiohttp.ClientSession, plans: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Takes plans from standard input, until its end; opens as many connections as the plan will need at once."""
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while row := await reader.readline():
        plan = json.loads(row)
        plans[(plan["name"], plan["on"])] = plan
        await asyncio.gather(*(ask(session, "GET", "/version", None, "") for _ in range(max(map(len, plan["rounds"])))))
        print("planned", flush=True)


async def follow(session: aiohttp.ClientSession, plans: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The watch, begun again whenever the server ends it."""
    while True:
        async with session.get(WATCH, timeout=aiohttp.ClientTimeout(total=None)) as events:
            async for row in events.content:
                event = json.loads(row)
                metadata = event["object"].get("metadata", {})
                on = "approved" if APPROVAL in metadata.get("annotations", {}) else "created"
                if event["type"] in ("ADDED", "MODIFIED") and (plan := plans.pop((metadata.get("name", ""), on), None)):
                    await carry_out(session, plan, metadata["resourceVersion"])


async def main(kubeconfig: Path) -> None:
    """Until standard input ends."""
    server, token, connections = connector(kubeconfig)
    plans: dict[tuple[str, str], dict[str, Any]] = {}
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    async with aiohttp.ClientSession(server, connector=connections, headers=headers, read_bufsize=2**21) as session:
        watching = asyncio.create_task(follow(session, plans))
        done, pending = await asyncio.wait({asyncio.create_task(listen(session, plans)), watching}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        for task in done:
            task.result()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
