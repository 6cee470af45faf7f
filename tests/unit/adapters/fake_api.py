"""A small HTTP server below the port: it answers as a test says, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from kubernetes.aio import client as aio_client

from nightorders.adapters.kube import KubeClient

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Asked:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class FakeApi:
    """`answers`: (method, path) → what to do, else `default`."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answers: dict[tuple[str, str], Handler] = field(default_factory=dict)
    default: Handler | None = None
    connections: set[asyncio.Transport] = field(default_factory=set)

    def on(self, method: str, path: str, handler: Handler) -> None:
        self.answers[(method, path)] = handler

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if isinstance(request.transport, asyncio.Transport):
            self.connections.add(request.transport)
        text = await request.text()
        try:
            body = json.loads(text) if text else None
        except ValueError:
            body = text
        self.asked.append(Asked(request.method, request.path, dict(request.query), dict(request.headers), body))
        handler = self.answers.get((request.method, request.path)) or self.default
        return await handler(request) if handler else status(404, "NotFound", "404 page not found", {})


def status(code: int, reason: str = "", message: str = "", details: dict[str, Any] | None = None, **headers: str) -> web.Response:
    """A metav1.Status."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code}
    return web.json_response({**body, "details": details or {}}, status=code, headers={k.replace("_", "-"): v for k, v in headers.items()})


def always(answer: Callable[[], web.StreamResponse]) -> Handler:
    """The same answer every time (built anew, as aiohttp wants)."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return answer()

    return handler


def just(answer: web.StreamResponse) -> Handler:
    """That answer, once."""
    return always(lambda: answer)


def obj(name: str, version: int, uid: str = "", namespace: str = "shop", **rest: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "uid": uid or f"u-{name}", "resourceVersion": str(version)}, **rest}


async def eventually(true: Callable[[], bool], tries: int = 1000) -> None:
    """Returns once `true()` is; fails after about ten seconds."""
    for _ in range(tries):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


@asynccontextmanager
async def serve() -> AsyncIterator[FakeApi]:
    api = FakeApi()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{tail:.*}", api.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        await runner.cleanup()
        for connection in api.connections:  # one with unsent bytes would outlive the event loop
            connection.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def connected(seconds: float = 5.0, max_bytes: int = 128 * 1024 * 1024) -> AsyncIterator[tuple[FakeApi, KubeClient]]:
    async with serve() as api, KubeClient(configuration(api.url), seconds=seconds, max_bytes=max_bytes) as client:
        yield api, client


def configuration(url: str) -> Any:
    made: Any = aio_client.Configuration(host=url)  # type: ignore[no-untyped-call,unused-ignore]
    return made
