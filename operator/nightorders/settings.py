"""Environment and flags → one frozen Settings, read once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

OPERATOR_NAMESPACE = "nightorders-system"
OPERATOR_USERNAME = f"system:serviceaccount:{OPERATOR_NAMESPACE}:nightorders"


@dataclass(frozen=True)
class Settings:
    """How this process runs. The operator's name and namespace are fixed, because the admission policies name them."""

    kubeconfig: str | None = None
    context: str | None = None
    prometheus_url: str | None = None
    prometheus_token_file: str | None = None
    prometheus_ca_file: str | None = None
    audit_key_file: str | None = None
    channels_dir: str | None = None
    detect: bool = True
    detect_after: timedelta = timedelta(seconds=15)
    recheck: timedelta = timedelta(seconds=60)
    guard_every: timedelta = timedelta(seconds=60)
    workers: int = 8
    health_port: int = 8081
    metrics_port: int = 8080
    webhook_port: int = 0  # 0: no alerts are taken in
    listen: str = "0.0.0.0"  # noqa: S104 - probes and scrapes come from outside the pod
    lease_seconds: float = 15
    leader_election: bool = True
    log_format: str = "json"
    log_level: str = "info"
    namespace: str = OPERATOR_NAMESPACE
    username: str = OPERATOR_USERNAME
    identity: str = ""


def from_environment(**flags: object) -> Settings:
    """Settings from NIGHTORDERS_* variables; a flag that is not None wins.

    Raises ValueError naming the variable whose value cannot be used.
    """
    env = os.environ
    read: dict[str, object] = {
        "kubeconfig": env.get("KUBECONFIG"),
        "context": env.get("NIGHTORDERS_CONTEXT"),
        "prometheus_url": env.get("NIGHTORDERS_PROMETHEUS_URL"),
        "prometheus_token_file": env.get("NIGHTORDERS_PROMETHEUS_TOKEN_FILE"),
        "prometheus_ca_file": env.get("NIGHTORDERS_PROMETHEUS_CA_FILE"),
        "audit_key_file": env.get("NIGHTORDERS_AUDIT_KEY_FILE"),
        "channels_dir": env.get("NIGHTORDERS_CHANNELS_DIR"),
        "detect": _bool("NIGHTORDERS_DETECT"),
        "detect_after": _seconds("NIGHTORDERS_DETECT_AFTER_SECONDS"),
        "recheck": _seconds("NIGHTORDERS_RECHECK_SECONDS"),
        "guard_every": _seconds("NIGHTORDERS_GUARD_EVERY_SECONDS"),
        "workers": _int("NIGHTORDERS_WORKERS"),
        "health_port": _int("NIGHTORDERS_HEALTH_PORT"),
        "metrics_port": _int("NIGHTORDERS_METRICS_PORT"),
        "webhook_port": _int("NIGHTORDERS_WEBHOOK_PORT"),
        "listen": env.get("NIGHTORDERS_LISTEN"),
        "lease_seconds": _float("NIGHTORDERS_LEASE_SECONDS"),
        "leader_election": _bool("NIGHTORDERS_LEADER_ELECTION"),
        "log_format": env.get("NIGHTORDERS_LOG_FORMAT"),
        "log_level": env.get("NIGHTORDERS_LOG_LEVEL"),
        "identity": env.get("POD_NAME") or env.get("HOSTNAME"),
    }
    chosen = {**{k: v for k, v in read.items() if v is not None}, **{k: v for k, v in flags.items() if v is not None}}
    return Settings(**chosen)  # type: ignore[arg-type]  # each entry is read by the field's own reader above


def _bool(name: str) -> bool | None:
    value = os.environ.get(name)
    if value is None:
        return None
    if value.lower() not in ("true", "false"):
        raise ValueError(f"{name}={value!r}: use true or false")
    return value.lower() == "true"


def _float(name: str) -> float | None:
    value = os.environ.get(name)
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number < 86400:
        raise ValueError(f"{name}={value!r}: use a number of seconds above 0, such as 15")
    return number


def _seconds(name: str) -> timedelta | None:
    value = _float(name)
    return None if value is None else timedelta(seconds=value)


def _int(name: str) -> int | None:
    value = os.environ.get(name)
    if value is None:
        return None
    if not value.isdigit() or not 0 <= int(value) <= 65535:
        raise ValueError(f"{name}={value!r}: use a whole number from 0 to 65535")
    return int(value)
