"""Who sees what when: a watch in a thread, with the time at which each event arrived."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tools.cluster.local import LocalCluster
from tools.cluster.rest import ApiError

Json = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """One event and the monotonic time of its arrival, in seconds."""

    at: float
    kind: str
    object: Json

    @property
    def name(self) -> str:
        return str(self.object.get("metadata", {}).get("name", ""))

    @property
    def namespace(self) -> str:
        return str(self.object.get("metadata", {}).get("namespace", ""))


class Observer:
    """Watches one collection of the whole cluster, as administrator, until the program ends."""

    def __init__(self, cluster: LocalCluster, path: str) -> None:
        self._api = cluster.api()
        self._path = path
        self._seen: list[Seen] = []
        self._news = threading.Condition()
        self._stopped = False
        threading.Thread(target=self._follow, daemon=True).start()

    def stop(self) -> None:
        """The end of the cluster is no error any more."""
        self._stopped = True

    def _follow(self) -> None:
        while not self._stopped:
            try:
                for event in self._api.watch(f"{self._path}?watch=true", 3600):
                    with self._news:
                        self._seen.append(Seen(time.monotonic(), event["type"], event["object"]))
                        self._news.notify_all()
            except (ApiError, OSError, http.client.HTTPException):  # a new kind is not served for a moment; `wait` has a time limit
                time.sleep(0.2)

    def wait(self, what: str, matches: Callable[[Seen], bool], *, after: float = 0.0, seconds: float = 120) -> Seen:
        """The first event at or after `after` that matches. Raises TimeoutError naming `what`."""
        looked, end = 0, time.monotonic() + seconds
        with self._news:
            while True:
                for seen in self._seen[looked:]:
                    if seen.at >= after and matches(seen):
                        return seen
                looked = len(self._seen)
                if not self._news.wait(end - time.monotonic()):
                    raise TimeoutError(f"not seen within {seconds:.0f} s: {what}")

    def all(self, namespace: str, name: str) -> list[Seen]:
        """Every event of that object so far."""
        with self._news:
            return [s for s in self._seen if (s.namespace, s.name) == (namespace, name)]
