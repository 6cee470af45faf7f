"""A proxy on loopback between the operator and the API server that breaks exactly what a plan says, and nothing else.

    proxy = FaultProxy(server, authority, kill=operator.kill_now).start()
    armed = proxy.arm(Plan(Trigger(resource="deployments"), Fault("after-commit")))
    …the operator runs with a kubeconfig whose server is proxy.url…
    armed.fired.is_set()

The operator talks plain HTTP to it, with its own token, which is passed on over TLS. Bodies pass untouched, watches stream. Every request
is recorded; the *writes* are numbered. Writes are POST, PUT, PATCH and DELETE without dry runs and without what says nothing about the
operator's work: Leases, Events, questions about its own rights.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import aiohttp
from aiohttp import web
from yarl import URL

Kind = Literal["write", "dry-run", "read", "watch", "aside"]
What = Literal[
    # The operator is killed before the request is forwarded | once it is committed, before the answer | once it has the answer.
    "before",
    "after-commit",
    "after-response",
    "answer",  # with `status`, in place of the API server
    "timeout-after-commit",  # the request is forwarded, and no answer ever comes
    "reset",  # the connection breaks before the request is forwarded
    "delay",  # by `seconds`, then forwarded
    # Of a watch, after `events` events: the connection breaks | the server says that the version is too old | nothing comes any more.
    "watch-cut",
    "watch-410",
    "stall",
]
KILLS: tuple[What, ...] = ("before", "after-commit", "after-response")
REASONS = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}
_ASIDE = {
    "leases",
    "events",
    "selfsubjectaccessreviews",
    "selfsubjectrulesreviews",
    "selfsubjectreviews",
}
# Hop by hop, or set by the library that sends. Accept-Encoding is passed on, and the answer is not unpacked.
_NOT_PASSED_ON = {"host", "connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection", "content-length"}
# How long the operator may live with an answer: enough to take it in. Its next write ends it at once.
_TAKEN_IN_SECONDS = 0.05
_MAX_BODY = 64 * 1024 * 1024


@dataclass
class Request:
    """One request as it arrived. `number` counts the writes from 1 (0: no write); `status` is the API server's answer (0: none)."""

    kind: Kind
    method: str
    group: str
    resource: str  # with the subresource: "incidents/status"
    namespace: str
    name: str
    body: bytes
    number: int = 0
    status: int = 0
    fault: str = ""

    @property
    def json(self) -> dict[str, Any]:
        """The body; empty if it is no JSON object."""
        try:
            content = json.loads(self.body)
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Trigger:
    """Which requests a fault is for: the `nth` one that matches, and `times` - 1 more. An empty field matches everything."""

    kind: Kind = "write"
    method: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    nth: int = 1
    times: int = 1
    where: Callable[[Request], bool] = field(default=lambda _: True, compare=False)

    def matches(self, request: Request) -> bool:
        """Whether that request counts."""
        wanted = (
            (self.kind, request.kind),
            *((getattr(self, n), getattr(request, n)) for n in ("method", "resource", "namespace", "name")),
        )
        return all(want in ("", is_) for want, is_ in wanted) and self.where(request)


@dataclass(frozen=True)
class Fault:
    """What goes wrong."""

    what: What
    status: int = 0
    seconds: float = 0
    events: int = 0
    message: str = "injected"

    def __post_init__(self) -> None:
        if self.what not in get_args(What):
            raise ValueError(f"no such fault: {self.what}; there are {', '.join(get_args(What))}")
        if (self.what == "answer") != (self.status in REASONS):
            raise ValueError(f"a fault `answer`, and only that, has a status, one of {sorted(REASONS)}")


@dataclass
class Plan:
    """A fault and when it happens. `fired` is set when it happened for the first time, `hits` are the requests it happened to."""

    trigger: Trigger
    fault: Fault
    fired: threading.Event = field(default_factory=threading.Event)
    hits: list[Request] = field(default_factory=list)
    _met: int = 0

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Plan:
        """From a plan file: {"trigger": {"resource": "ledgers", "nth": 2}, "fault": {"what": "answer", "status": 409}}. Raises TypeError,
        ValueError for what it does not know."""
        return cls(Trigger(**content.get("trigger", {})), Fault(**content["fault"]))

    def due(self, request: Request) -> bool:
        """Whether it happens to this request. Counts, so it must be asked once for each."""
        if not self.trigger.matches(request):
            return False
        self._met += 1
        if not self.trigger.nth <= self._met < self.trigger.nth + self.trigger.times:
            return False
        request.fault = self.fault.what
        self.hits.append(request)
        return True


def describe(method: str, target: str, body: bytes) -> Request:
    """A request to a Kubernetes API server, from its method and its path with the query."""
    where = urllib.parse.urlsplit(target)
    query = urllib.parse.parse_qs(where.query)
    steps = [urllib.parse.unquote(s) for s in where.path.strip("/").split("/")]
    group = ""
    if steps[0] == "apis" and len(steps) > 2:
        group, steps = steps[1], steps[3:]
    elif steps[0] == "api" and len(steps) > 1:
        steps = steps[2:]
    else:
        steps = []  # /version, /healthz, lists of groups
    namespace = ""
    if len(steps) > 2 and steps[0] == "namespaces" and steps[2] not in ("status", "finalize"):
        namespace, steps = steps[1], steps[2:]
    resource, name, sub = ([*steps, "", "", ""])[:3]
    if method in ("GET", "HEAD", "OPTIONS"):
        kind: Kind = "watch" if query.get("watch", [""])[0] in ("1", "true") else "read"
    elif resource in _ASIDE:
        kind = "aside"
    else:
        kind = "dry-run" if "dryRun" in query else "write"
    return Request(kind, method, group, f"{resource}/{sub}" if sub else resource, namespace, name, body)


class FaultProxy:
    """Serves `upstream` (https://host:port, certificate by `authority`) on a port of its own, in a thread of its own.

    `kill` ends the operator at once: SIGKILL, from whatever thread. Plans are armed and recorded requests are read from other threads.
    """

    def __init__(self, upstream: str, authority: Path, kill: Callable[[], None] = lambda: None) -> None:
        self.url = ""
        self._upstream = upstream.rstrip("/")
        self._authority = authority
        self._kill = kill
        self._lock = threading.Lock()
        self._plans: list[Plan] = []
        self._requests: list[Request] = []
        self._writes = 0
        self._doomed: Plan | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)
        self._forwarding: set[asyncio.Task[_Answer]] = set()

    def start(self) -> FaultProxy:
        """Returns when `url` is served."""
        self._thread.start()
        self._started.wait()
        if self._failed is not None:
            raise RuntimeError("the fault proxy did not start") from self._failed
        return self

    def stop(self) -> None:
        """Ends it; open connections break."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def arm(self, *plans: Plan) -> Plan:
        """These plans in place of all others; the first of them. Writes are counted from here, and what was recorded is forgotten."""
        with self._lock:
            self._plans, self._requests, self._writes, self._doomed = list(plans), [], 0, None
        return plans[0]

    def disarm(self) -> None:
        """No more faults; goes on recording from here."""
        with self._lock:
            self._plans, self._requests, self._writes, self._doomed = [], [], 0, None

    def requests(self, kind: Kind | None = None) -> list[Request]:
        """What has arrived since the last `arm` or `disarm`."""
        with self._lock:
            return [r for r in self._requests if kind in (None, r.kind)]

    # ------------------------------------------------------------ the server

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  handed to `start`, which is waiting
            self._failed = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        trust = ssl.create_default_context(cafile=str(self._authority)) if self._upstream.startswith("https") else False
        connector = aiohttp.TCPConnector(limit=0, ssl=trust)
        no_limits = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=no_limits, auto_decompress=False) as self._session:
            app = web.Application(client_max_size=_MAX_BODY)
            app.router.add_route("*", "/{path:.*}", self._handle)
            # Cancelled with its client: the watches of an operator that was killed must not stay open.
            runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._started.set()
            try:
                await self._stop.wait()
            finally:
                await runner.cleanup()

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        request = describe(incoming.method, incoming.raw_path, await incoming.read())
        plan = self._record(request)
        if request.kind == "write" and self._doomed is not None:
            self._die(self._doomed)
            return _broken(incoming)
        fault = plan.fault if plan is not None else None
        if plan is not None and fault is not None and fault.what not in KILLS:
            plan.fired.set()
        try:
            if plan is not None and fault is not None:
                return await self._break(incoming, request, plan, fault)
            return await self._pass(incoming, request)
        except (aiohttp.ClientError, ConnectionError):
            return _broken(incoming)  # one side is gone; the other one is told in the same way

    def _record(self, request: Request) -> Plan | None:
        """Numbers it, and says which plan it meets."""
        with self._lock:
            if request.kind == "write":
                self._writes += 1
                request.number = self._writes
            self._requests.append(request)
            return next((p for p in self._plans if p.due(request)), None)

    def _die(self, plan: Plan) -> None:
        """Once for each plan: a write that comes before the time is up is earlier."""
        self._doomed = None
        if not plan.fired.is_set():
            self._kill()
            plan.fired.set()

    async def _break(self, incoming: web.Request, request: Request, plan: Plan, fault: Fault) -> web.StreamResponse:
        match fault.what:
            case "before":
                self._die(plan)
                return _broken(incoming)
            case "after-commit":
                await self._whole(incoming, request)
                self._die(plan)
                return _broken(incoming)
            case "after-response":
                self._doomed = plan
                response = await self._pass(incoming, request)
                asyncio.get_running_loop().call_later(_TAKEN_IN_SECONDS, self._die, plan)
                return response
            case "answer":
                return _refusal(fault)
            case "reset":
                return _broken(incoming)
            case "timeout-after-commit":
                await self._whole(incoming, request)
                await asyncio.Event().wait()  # until the client has had enough: then this is cancelled
                raise AssertionError("waited for ever")
            case "delay":
                await asyncio.sleep(fault.seconds)
                return await self._pass(incoming, request)
            case _:
                return await self._stream(incoming, request, fault)

    # ------------------------------------------------------------ passing on

    async def _pass(self, incoming: web.Request, request: Request) -> web.StreamResponse:
        if request.kind in ("read", "watch"):
            return await self._stream(incoming, request, None)
        answer = await self._whole(incoming, request)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length = len(answer.body)
        await response.prepare(incoming)
        await response.write(answer.body)
        await response.write_eof()
        return response

    async def _whole(self, incoming: web.Request, request: Request) -> _Answer:
        """The API server's answer. What was sent is on its way, whether the client lives to see the answer or not."""
        task = asyncio.create_task(self._ask(incoming, request))
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)
        return await asyncio.shield(task)

    async def _ask(self, incoming: web.Request, request: Request) -> _Answer:
        async with self._open(incoming, request) as upstream:
            body = await upstream.read()
            request.status = upstream.status
            return _Answer(upstream.status, _passed_on(upstream.headers), body)

    async def _stream(self, incoming: web.Request, request: Request, fault: Fault | None) -> web.StreamResponse:
        async with self._open(incoming, request) as upstream:
            request.status = upstream.status
            response = web.StreamResponse(status=upstream.status, headers=_passed_on(upstream.headers))
            if fault is None and "Content-Length" in upstream.headers:
                response.content_length = int(upstream.headers["Content-Length"])
            await response.prepare(incoming)
            if fault is None:
                async for chunk in upstream.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
            for _ in range(fault.events):
                await response.write(await upstream.content.readuntil(b"\n"))
            match fault.what:
                case "stall":
                    await asyncio.Event().wait()
                case "watch-410":
                    await response.write(json.dumps({"type": "ERROR", "object": _status(410, "too old resource version")}).encode() + b"\n")
                    await response.write_eof()
            return _broken(incoming)

    def _open(self, incoming: web.Request, request: Request) -> Any:
        headers = _passed_on(incoming.headers)
        return self._session.request(
            incoming.method, URL(self._upstream + incoming.raw_path, encoded=True), headers=headers, data=request.body or None
        )


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in headers.items() if k.lower() not in _NOT_PASSED_ON}


def _status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": REASONS[code], "message": message}


def _refusal(fault: Fault) -> web.Response:
    headers = {"Retry-After": str(max(1, round(fault.seconds)))} if fault.status in (429, 503) else {}
    return web.json_response(_status(fault.status, fault.message), status=fault.status, headers=headers)


def _broken(incoming: web.Request) -> web.Response:
    """The connection breaks; the response is for the library only, nobody receives it."""
    if incoming.transport is not None:
        incoming.transport.abort()
    return web.Response()
