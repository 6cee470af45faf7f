"""Leader election by a coordination.k8s.io Lease, as client-go does it.

`kubernetes.aio.leaderelection` 37 is not used: it judges by wall clocks (a step backwards keeps two leaders), its create fails, its
requests have no time limit, so a hanging API server keeps a dead leader in office, and it does not release. A Lease does not fence:
that an effect happens once is assured by preconditions on the target, never by this. `term` lets admission refuse a stale leader besides.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ..ports import NotFoundError, PortError
from .errors import translated
from .kube.client import STRICT, KubeClient, parse
from .kube.resources import KNOWN


def steady() -> float:
    """Seconds that no clock step moves; they run on while the machine sleeps, where the system knows such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class LeaderLease:
    """One candidate. Another's lease ends `lease` seconds after its last change *that we saw*; ours `renew_deadline` after our renewal.

    `on_lost(why)` is called once when the leadership ends by itself. To end it, cancel `keep`, then `release`. `identity` is ours alone.

    `term`: of our last leadership, as the policy nightorders-leader computes it from the Lease: `<leaseTransitions>.<identity after its
    last _>`. It stays when the leadership is lost, so that a write which was on its way then can be told.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        name: str = "nightorders",
        identity: str = "",
        lease: float = 15.0,
        renew_deadline: float = 10.0,
        retry: float = 2.0,
        on_lost: Callable[[str], None] = lambda _: None,
        now: Callable[[], float] = steady,
    ) -> None:
        if not lease > renew_deadline > retry > 0:
            raise ValueError("lease must be longer than renew_deadline, and that longer than retry")
        self.identity = identity or f"{socket.gethostname()}_{uuid.uuid4()}"
        self.message = ""
        self.term = ""
        self._client = client
        self._collection = KNOWN[("coordination.k8s.io/v1", "Lease")].path(namespace)
        self._path = KNOWN[("coordination.k8s.io/v1", "Lease")].path(namespace, name)
        self._name = name
        self._lease, self._deadline, self._retry = lease, renew_deadline, retry
        self._on_lost = on_lost
        self._now = now
        self._renewed = float("-inf")
        self._seen: tuple[object, ...] = ()
        self._seen_at = float("-inf")
        self._asked = False

    @property
    def leading(self) -> bool:
        """Whether we may act now. Ends by itself at the deadline, also when the renewing task hangs."""
        return self._now() - self._renewed < self._deadline

    async def acquire(self) -> None:
        """Returns when we lead. Failures are tried again; `message` says what stands in the way."""
        while True:
            if await self._attempt(self._deadline):
                return
            await asyncio.sleep(self._retry * random.uniform(1.0, 1.2))  # noqa: S311  spreads load, hides nothing

    async def keep(self) -> None:
        """Renews until the leadership is lost; then calls `on_lost` and returns."""
        while (left := self._renewed + self._deadline - self._now()) > 0:
            await asyncio.sleep(min(self._retry, left))
            left = self._renewed + self._deadline - self._now()
            if left > 0 and not await self._attempt(left) and self._renewed == float("-inf"):
                break
        self._renewed = float("-inf")
        self._on_lost(self.message or "the lease was not renewed in time")

    async def release(self) -> None:
        """Gives the lease back, so that another need not wait. Never raises; does nothing if we never asked for it or another holds it."""
        self._renewed = float("-inf")
        if not self._asked:  # asked, and not held: an acquire that was cancelled may have got it
            return
        try:
            async with asyncio.timeout(self._retry):
                lease = await self._call("GET", self._path)
                if (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                    lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_now()}
                    await self._call("PUT", self._path, lease)
        except (PortError, TimeoutError) as error:
            self.message = f"not released: {error}"

    async def _attempt(self, seconds: float) -> bool:
        """One try to take or renew. Whoever else holds it ends our leadership at once."""
        sent = self._now()  # before the request: others count from a moment after it
        try:
            async with asyncio.timeout(seconds):
                held = await self._take()
        except TimeoutError:
            self.message = "the API server did not answer in time"
            return False
        except PortError as error:
            self.message = str(error)
            return False
        self._renewed = sent if held else float("-inf")
        return held

    async def _take(self) -> bool:
        try:
            lease = await self._call("GET", self._path)
        except NotFoundError:
            self._asked = True
            body: dict[str, Any] = {
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._name}, "spec": self._spec({}),
            }  # fmt: skip
            await self._call("POST", self._collection, body)
            self.term = self._term(body["spec"])
            return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        seen = (holder, spec.get("renewTime"), spec.get("leaseTransitions"), spec.get("acquireTime"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._now()
        lasts = max(self._lease, float(spec.get("leaseDurationSeconds") or 0))
        if holder not in ("", self.identity) and self._now() - self._seen_at < lasts:
            self.message = f"{holder} leads"
            return False
        lease["spec"] = self._spec(spec)
        self._asked = True
        await self._call("PUT", self._path, lease)  # under the resourceVersion that was read
        self.term = self._term(lease["spec"])
        return True

    def _term(self, spec: dict[str, Any]) -> str:
        """A label value: the transitions alone would begin again if the Lease were deleted, and the identity is too long."""
        return f"{spec['leaseTransitions']}.{self.identity.rpartition('_')[2]}"

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        now = _micro_now()
        ours = old.get("holderIdentity") == self.identity
        return {
            **old,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._lease)),
            "acquireTime": old.get("acquireTime", now) if ours else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if ours or not old else 1),
        }

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        with translated(f"{method} {path}", write="create" if method == "POST" else "update" if body else ""):
            content = await self._client.request(method, path, query=STRICT if body else (), body=body, seconds=self._deadline)
            return await parse(content)


def _micro_now() -> str:
    """For people only: nobody compares it with another machine's clock."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
