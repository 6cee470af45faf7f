"""Exact intervals and scores of forecasts, without a statistics library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def binomial_at_most(k: int, n: int, p: float) -> float:
    """P(X <= k) for X ~ Binomial(n, p)."""
    if p <= 0:
        return 1.0
    if p >= 1:
        return 1.0 if k >= n else 0.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p) for i in range(k + 1)
    ]
    return min(1.0, math.fsum(math.exp(x) for x in logs))


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval for a proportion: (low, high). With n = 0 nothing is known: (0, 1)."""
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no proportion")
    half = (1 - level) / 2
    low = 0.0 if k == 0 else _bisect(lambda p: 1 - binomial_at_most(k - 1, n, p) - half)
    high = 1.0 if k == n else _bisect(lambda p: half - binomial_at_most(k, n, p))
    return low, high


def _bisect(rising: Callable[[float], float]) -> float:
    """Where a rising function of [0, 1] crosses zero, to 1e-9."""
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def brier_skill(forecasts: Sequence[tuple[float, bool]]) -> float | None:
    """1 - Brier / Brier of the constant forecast (the observed rate); None where that is zero or nothing was forecast."""
    if not forecasts:
        return None
    rate = sum(right for _, right in forecasts) / len(forecasts)
    constant = rate * (1 - rate)
    if constant == 0:
        return None
    brier = sum((p - right) ** 2 for p, right in forecasts) / len(forecasts)
    return 1 - brier / constant


def auroc(forecasts: Sequence[tuple[float, bool]]) -> float | None:
    """P(a right one was forecast higher than a wrong one), ties count half; None with only one class."""
    right = [p for p, good in forecasts if good]
    wrong = [p for p, good in forecasts if not good]
    if not right or not wrong:
        return None
    wins = sum((r > w) + 0.5 * (r == w) for r in right for w in wrong)
    return wins / (len(right) * len(wrong))


def median(values: Sequence[float]) -> float | None:
    """The middle value; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
