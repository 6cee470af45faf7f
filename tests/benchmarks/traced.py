"""The operator as it is, with every request and every pass written down: `python -m tests.benchmarks.traced run`.

One JSON line each into the file that NIGHTORDERS_BENCH_TRACE names. Times are seconds of the monotonic clock, which all processes of a
machine share. A line costs some 20 µs. What kopf asks for (its watches) does not pass through here; no pass waits for it.
"""

from __future__ import annotations

import json
import os
import time
from contextvars import ContextVar
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

from nightorders.__main__ import main
from nightorders.adapters.kube import KubeClient
from nightorders.controller.reconciler import Key, Reconciler

VARIABLE = "NIGHTORDERS_BENCH_TRACE"
_pass: ContextVar[int] = ContextVar("pass", default=0)
_numbers = count(1)


def trace(path: str) -> None:
    """Puts the two wrappers in place."""
    log = Path(path).open("a", buffering=1)  # noqa: SIM115  open as long as the process lives
    request, reconcile = KubeClient.request, Reconciler.reconcile

    async def traced_request(self: KubeClient, method: str, path: str, **more: Any) -> bytes:
        begin, size = time.monotonic(), 0
        try:
            content = await request(self, method, path, **more)
            size = len(content)
            return content
        finally:
            query = dict(more.get("query") or ())
            row = {"pass": _pass.get(), "method": method, "path": path, "begin": begin, "end": time.monotonic(), "bytes": size}
            log.write(json.dumps({**row, "dry": "dryRun" in query, "cached": query.get("resourceVersion") == "0"}) + "\n")

    async def traced_reconcile(self: Reconciler, key: Key) -> timedelta | None:
        number = next(_numbers)
        _pass.set(number)
        begin, cpu = time.monotonic(), time.process_time()
        try:
            return await reconcile(self, key)
        finally:
            row = {"passed": number, "incident": "/".join(key), "begin": begin, "end": time.monotonic(), "cpu": time.process_time() - cpu}
            log.write(json.dumps(row) + "\n")
            _pass.set(0)

    KubeClient.request = traced_request  # type: ignore[method-assign]
    Reconciler.reconcile = traced_reconcile  # type: ignore[method-assign]


if __name__ == "__main__":
    trace(os.environ[VARIABLE])
    main()
