"""Series that follow the cluster's own state, for the real Prometheus to scrape."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from tools.cluster.prometheus import ScriptedMetrics
from tools.cluster.rest import ApiError
from tools.scenarios import checks
from tools.scenarios.errors import StepError
from tools.scenarios.model import Series, parse_series
from tools.scenarios.steps import Stage

_TICK_SECONDS = 1.0


class Script:
    """Keeps the series of one run up to date until the block ends; then they vanish."""

    def __init__(self, stage: Stage, exporter: ScriptedMetrics) -> None:
        self._stage = stage
        self._exporter = exporter
        self._series = [(one, *labelled(one, stage)) for one in stage.scenario.document.metrics]
        self._totals = [0.0] * len(self._series)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.problem = ""

    def __enter__(self) -> Self:
        if self._series:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        if self._series:
            self._thread.join(10)
        for _, name, labels in self._series:
            self._exporter.remove(name, labels)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._over.wait(_TICK_SECONDS):
            now = time.monotonic()
            try:
                self.tick(now - last)
            except (ApiError, OSError, StepError) as problem:
                self.problem = str(problem)  # the cluster is busy or the run is being taken away; the next tick covers the time
                continue
            last = now

    def tick(self, seconds: float) -> None:
        """One sample: gauges are set, counters grow by what `seconds` at the present speed give."""
        for number, (one, name, labels) in enumerate(self._series):
            value = self._present(one)
            if one.type == "counter":
                self._totals[number] += (value or 0.0) * seconds
                self._exporter.set(name, labels, self._totals[number])
            elif value is None:
                self._exporter.remove(name, labels)
            else:
                self._exporter.set(name, labels, value)

    def _present(self, one: Series) -> float | None:
        """The value of the first case that holds; None: no case does."""
        for case in one.cases:
            if case.when is None or checks.ask(self._stage.kube, case.when, self._stage.namespace).holds:
                return case.value
        return None


def labelled(one: Series, stage: Stage) -> tuple[str, dict[str, str]]:
    """Name and labels of a series; its namespace label is the run's unless the scenario says otherwise."""
    name, labels = parse_series(stage.expanded(one.series))
    return name, {"namespace": stage.namespace, **labels}
