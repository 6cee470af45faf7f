"""How simulated pods behave, as objects to apply to a simulated cluster.

    cluster.apply(*image_missing("shop", "registry.example/web:1.0.O"))

Every behaviour holds for the pods of one namespace that have a container of one image, so that another
image is all that helps; other containers of the pod run. Statuses and events are worded as the kubelet
1.36 and containerd word them. Apply a behaviour before the pods it is for.

Two behaviours for different images in one pod do not mix, and one for an image in an init container is
ignored.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tools.cluster.paths import temporary_directory
from tools.cluster.stages import (
    KEEP_HISTORY,
    MAY_START,
    STARTED_ONCE,
    Object,
    event_step,
    expression,
    go,
    stage,
    status,
    status_step,
)

# More than kwok's own stages have, which then do not apply.
_WEIGHT = 100


class _Behaviour:
    """The pods of one namespace and image, and stages for them."""

    def __init__(self, kind: str, namespace: str, image: str) -> None:
        distinct = hashlib.sha256(f"{namespace}/{image}".encode()).hexdigest()[:10]
        self._prefix = f"{kind}-{namespace[:40]}-{distinct}"
        self.image = image
        self._pods = [
            expression(".metadata.deletionTimestamp", "DoesNotExist"),
            expression(".metadata.namespace", "In", namespace),
            expression(".spec.containers[].image", "In", image),
            expression(".spec.nodeName", "Exists"),
            expression(".status.phase", "NotIn", "Succeeded", "Failed"),
            expression(MAY_START, "In", "true"),
        ]

    def of_container(self, query: str) -> str:
        """jq for something in the present status of the containers of this image."""
        return f".status.containerStatuses[]? | select(.image == {go(self.image)}) | {query}"

    def stage(self, name: str, when: list[Object], delay: Object, *steps: Object) -> Object:
        """One stage; `when` says in which state of these pods."""
        return stage(f"{self._prefix}-{name}", [*self._pods, *when], list(steps), weight=_WEIGHT, delay=delay)

    def waiting_for(self, *reasons: str) -> Object:
        """The condition that a container of this image waits for one of these reasons."""
        return expression(self.of_container(".state.waiting.reason // empty"), "In", *reasons)

    def not_waiting_for(self, *reasons: str) -> Object:
        """The opposite."""
        return expression(self.of_container(".state.waiting.reason // empty"), "NotIn", *reasons)

    def status(self, phase: str, container: str, *, ready: bool = False) -> Object:
        """The step to that status; `container` is the template for the containers of this image."""
        return status_step(status(phase, ready=ready, image=self.image, container=container))

    def event(self, severity: str, reason: str, message: str, count: str = "1") -> Object:
        """The step that writes an Event; see `event_step`."""
        return event_step(image=self.image, severity=severity, reason=reason, message=message, count=count)


def _after(seconds: float) -> Object:
    return {"durationMilliseconds": round(seconds * 1000)}


# ---------------------------------------------------------------- images

# jq: a kubelet waits 10, 20, 40, 80, 160, then always 300 s after a failed pull. That is 10 s more than all
# waits before it, so the pod's age tells.
_NEXT_PULL = '[ now - (.status.startTime | fromdateiso8601) + 10, 300 ] | min | floor | "\\(.)s"'
# Go template text: how many pulls have failed, by the pod's age. Without a start time it is the first.
_ATTEMPTS = """\
{{ $age := 0 }}
{{- with .status.startTime }}
{{- $age = sub (now | unixEpoch | int64) (toDate "2006-01-02T15:04:05Z07:00" . | unixEpoch | int64) }}
{{- end }}
{{- if ge $age 310 }} {{ add 6 (div (sub $age 310) 300) }}
{{- else if ge $age 150 }} 5
{{- else if ge $age 70 }} 4
{{- else if ge $age 30 }} 3
{{- else if ge $age 10 }} 2
{{- else }} 1
{{- end }}"""


def image_missing(namespace: str, image: str) -> list[Object]:
    """An image that its registry does not have: ErrImagePull, then ImagePullBackOff, and again and again."""
    pods = _Behaviour("image-missing", namespace, image)
    full = canonical_image(image)
    error = (
        f'rpc error: code = NotFound desc = failed to pull and unpack image "{full}": '
        f'failed to resolve reference "{full}": {full}: not found'
    )
    back_off = f'Back-off pulling image "{image}"'
    pull = (
        pods.event("Normal", "Pulling", go(f'Pulling image "{image}"'), _ATTEMPTS),
        pods.event("Warning", "Failed", go(f'Failed to pull image "{image}": {error}'), _ATTEMPTS),
        pods.event("Warning", "Failed", go("Error: ErrImagePull"), _ATTEMPTS),
        pods.status("Pending", _waiting("ErrImagePull", go(error))),
    )
    wait = (
        pods.event("Normal", "BackOff", go(back_off), _ATTEMPTS),
        pods.event("Warning", "Failed", go("Error: ImagePullBackOff"), _ATTEMPTS),
        pods.status("Pending", _waiting("ImagePullBackOff", go(f"{back_off}: ErrImagePull: {error}"))),
    )
    again = {"durationMilliseconds": 10_000, "durationFrom": {"jq": {"expression": _NEXT_PULL}}}
    return [
        pods.stage("pull", [pods.not_waiting_for("ErrImagePull", "ImagePullBackOff")], _after(0.5), *pull),
        pods.stage("back-off", [pods.waiting_for("ErrImagePull")], _after(1), *wait),
        pods.stage("again", [pods.waiting_for("ImagePullBackOff")], again, *pull),
    ]


def canonical_image(image: str) -> str:
    """The image as containerd names it: with registry and tag."""
    name, _, digest = image.partition("@")
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not re.search(r"[.:]", first) and first != "localhost":
        name = f"docker.io/{name}"
    if digest:
        return f"{name}@{digest}"
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _waiting(reason: str, message: str) -> str:
    """The template of a container that has never run; `message` is a Go template expression."""
    return f"""
  imageID: ""
  ready: false
  started: false
  restartCount: {{{{ $restarts }}}}
  lastState: {{}}
  state:
    waiting:
      reason: {reason}
      message: {{{{ {message} | Quote }}}}
"""


# ---------------------------------------------------------------- containers that end

_TERMINATED = """
  ready: false
  started: false
  state:
    terminated:
      exitCode: CODE
      reason: REASON
      startedAt: {{ $since | Quote }}
      finishedAt: {{ $now | Quote }}
      containerID: {{ printf "containerd://%s" (sha256sum (printf "%s/%s/%d" $pod.metadata.uid $c.name $restarts)) | Quote }}
"""
_CRASH_LOOP = """
  ready: false
  started: false
  restartCount: {{ $restarts }}
  lastState: {{ (or $old.state dict) | toJson }}
  state:
    waiting:
      reason: CrashLoopBackOff
      message: {{ MESSAGE | Quote }}
"""
# The state of the run before: what ended just now, or what ended before the wait that is over.
_RESTARTED = """
  {{ $last := or $old.lastState dict }}{{ with $old.state }}{{ if .terminated }}{{ $last = . }}{{ end }}{{ end }}
  {{ $restarts = add1 $restarts }}
  restartCount: {{ $restarts }}
  lastState: {{ $last | toJson }}
  state: {running: {startedAt: {{ $now | Quote }}}}
"""
_POD = '(printf "%s_%s(%s)" $pod.metadata.name $pod.metadata.namespace $pod.metadata.uid)'
# What a kubelet waits by the number of restarts, and says so. Here it says the same and waits less.
_PAUSES = 'index (list "10s" "20s" "40s" "1m20s" "2m40s" "5m0s") (int (min 5 (sub $restarts 1)))'


def exits(
    namespace: str,
    image: str,
    code: int = 1,
    reason: str = "Error",
    *,
    run_seconds: float = 1.0,
    back_off_seconds: float = 3.0,
    ready: bool = False,
) -> list[Object]:
    """A program that ends soon after its start: CrashLoopBackOff, with ever more restarts.

    Exit code 137 with reason "OOMKilled" is a container that takes too much memory. The first restart comes
    at once, later ones after `back_off_seconds` whatever the message says. Without a readiness probe a real
    container is ready while it runs; that makes such a rollout pass for a moment, so it is off unless
    `ready`. In a pod that is not restarted (restartPolicy) the pod fails, or succeeds with code 0.
    """
    pods = _Behaviour("exits", namespace, image)
    reason = "Completed" if code == 0 and reason == "Error" else reason
    ended = _TERMINATED.replace("CODE", str(code)).replace("REASON", reason)
    runs = f"  ready: {str(ready).lower()}\n  started: true\n"
    first_run = f"{STARTED_ONCE}{KEEP_HISTORY}{runs}  state: {{running: {{startedAt: {{{{ $since | Quote }}}}}}}}\n"
    message = f'printf "back-off %s restarting failed container=%s pod=%s" ({_PAUSES}) $c.name {_POD}'
    restart = pods.status("Running", f"{_RESTARTED}{STARTED_ONCE}{runs}", ready=ready)
    back_off = f'printf "Back-off restarting failed container %s in pod %s" $container {_POD}'

    restarts = (
        f"{{{{ range .status.containerStatuses }}}}{{{{ if eq .image {go(image)} }}}}{{{{ .restartCount }}}}{{{{ end }}}}{{{{ end }}}}"
    )

    running = expression(pods.of_container(".state.running // empty"), "Exists")
    terminated = expression(pods.of_container(".state.terminated // empty"), "Exists")
    again = expression(pods.of_container(".restartCount > 0 | tostring"), "In", "true")
    once = expression(pods.of_container(".restartCount > 0 | tostring"), "NotIn", "true")
    fresh = expression(pods.of_container('.state | has("running") or has("terminated") | tostring'), "NotIn", "true")
    final = ["Never", "OnFailure"] if code == 0 else ["Never"]
    for_ever = expression(".spec.restartPolicy", "NotIn", *final)
    only_once = expression(".spec.restartPolicy", "In", *final)
    history = f"{STARTED_ONCE}{KEEP_HISTORY}{ended}"
    return [
        pods.stage(
            "start",
            [fresh, pods.not_waiting_for("CrashLoopBackOff")],
            _after(0.2),
            pods.status("Running", first_run, ready=ready),
        ),
        pods.stage("exit", [running, for_ever], _after(run_seconds), pods.status("Running", history)),
        pods.stage(
            "end",
            [running, only_once],
            _after(run_seconds),
            pods.status("Succeeded" if code == 0 else "Failed", history),
        ),
        pods.stage("restart", [terminated, once, for_ever], _after(0.2), restart),
        pods.stage(
            "back-off",
            [terminated, again, for_ever],
            _after(0.2),
            pods.event("Warning", "BackOff", back_off, restarts),
            pods.status("Running", STARTED_ONCE + _CRASH_LOOP.replace("MESSAGE", message)),
        ),
        pods.stage("restart-later", [pods.waiting_for("CrashLoopBackOff")], _after(back_off_seconds), restart),
    ]


# ---------------------------------------------------------------- containers that are not ready

_PROBE_FAILED = "Readiness probe failed: HTTP probe failed with statuscode: 503"
_RUNS_UNREADY = f"""{STARTED_ONCE}{KEEP_HISTORY}
  ready: false
  started: true
  state: {{running: {{startedAt: {{{{ $since | Quote }}}}}}}}
"""


def never_ready(namespace: str, image: str, message: str = _PROBE_FAILED) -> list[Object]:
    """A program that runs and whose readiness probe fails, with that message in an Unhealthy event."""
    pods = _Behaviour("never-ready", namespace, image)
    return [
        pods.stage(
            "start",
            [_not_running(pods)],
            _after(0.3),
            pods.status("Running", _RUNS_UNREADY),
            pods.event("Warning", "Unhealthy", go(message)),
        )
    ]


def slow_start(namespace: str, image: str, seconds: float) -> list[Object]:
    """A program that runs at once and is ready only after so many seconds."""
    pods = _Behaviour("slow-start", namespace, image)
    running = expression(pods.of_container(".state.running // empty"), "Exists")
    unready = expression(pods.of_container(".ready | tostring"), "NotIn", "true")
    return [
        pods.stage("start", [_not_running(pods)], _after(0.1), pods.status("Running", _RUNS_UNREADY)),
        pods.stage("ready", [running, unready], _after(seconds), status_step(status("Running", ready=True))),
    ]


def _not_running(pods: _Behaviour) -> Object:
    return expression(pods.of_container(".state.running // empty"), "DoesNotExist")


# ---------------------------------------------------------------- logs


def logs(
    namespace: str,
    pod: str | None,
    container: str,
    lines: Sequence[str],
    previous_lines: Sequence[str] = (),
    *,
    directory: Path | None = None,
) -> list[Object]:
    """What `kubectl logs` shows of a container, and with `--previous` of its run before.

    `pod` is a pod's name, or None for all pods of the namespace (their names are rarely known before).
    The lines are written to files in `directory` (default: a directory that ends with this process) which
    the simulator reads on each request; a file may be appended to with `log_line`.
    """
    where = directory or _log_directory()
    stem = f"{namespace}-{pod or 'all'}-{container}"
    entry: Object = {"containers": [container]}
    for field, suffix, text in (("logsFile", "log", lines), ("previousLogsFile", "previous.log", previous_lines)):
        path = where / f"{stem}.{suffix}"
        path.write_text("".join(_stamped(text)))
        entry[field] = str(path)
    api = {"apiVersion": "kwok.x-k8s.io/v1alpha1"}
    if pod is not None:
        return [{**api, "kind": "Logs", "metadata": {"name": pod, "namespace": namespace}, "spec": {"logs": [entry]}}]
    spec = {"selector": {"matchNamespaces": [namespace]}, "logs": [entry]}
    return [{**api, "kind": "ClusterLogs", "metadata": {"name": f"{namespace}-{container}"}, "spec": spec}]


def log_line(text: str, at: datetime.datetime | None = None) -> str:
    """One line of a log file in the format of container runtimes (CRI); `at` defaults to now."""
    moment = (at or datetime.datetime.now(datetime.UTC)).astimezone(datetime.UTC)
    return f"{moment.strftime('%Y-%m-%dT%H:%M:%S.%f')}000Z stdout F {text}\n"


def _stamped(lines: Sequence[str]) -> list[str]:
    """The lines with times that end now, a tenth of a second apart."""
    now = datetime.datetime.now(datetime.UTC)
    gap = datetime.timedelta(milliseconds=100)
    return [log_line(line, now - gap * (len(lines) - 1 - number)) for number, line in enumerate(lines)]


@cache
def _log_directory() -> Path:
    return temporary_directory("logs")
