"""HTTP for probes and scrapes: /healthz/live, /healthz/ready, /metrics."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest


class HealthServer:
    """Answers 200 or 503 with the reasons. `live` and `ready` return what is wrong; empty means well."""

    def __init__(self, live: Callable[[], list[str]], ready: Callable[[], list[str]], registry: CollectorRegistry) -> None:
        self._live = live
        self._ready = ready
        self._registry = registry
        self._runners: list[web.AppRunner] = []

    async def start(self, host: str, health_port: int, metrics_port: int) -> None:
        """Listens on both ports. Raises OSError when one is taken."""
        health = web.Application()
        health.router.add_get("/healthz/live", lambda _: self._answer(self._live))
        health.router.add_get("/healthz/ready", lambda _: self._answer(self._ready))
        scrape = web.Application()
        scrape.router.add_get("/metrics", self._metrics)
        for app, port in ((health, health_port), (scrape, metrics_port)):
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, host, port).start()
            self._runners.append(runner)

    async def stop(self) -> None:
        """Closes both."""
        for runner in self._runners:
            await runner.cleanup()

    async def _answer(self, ask: Callable[[], list[str]]) -> web.Response:
        wrong = ask()
        return web.Response(status=503 if wrong else 200, text="\n".join(wrong or ["ok"]) + "\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
