"""What the engine asks Prometheus about a namespace: a few queries, side by side, whose answers are told apart by name.

Every query is pinned to the namespace by the port. Series that are not there leave their answer empty; that is an answer. The numbers are
of the last two minutes: shorter would miss exporters that are scraped once a minute, longer would hide what has just begun.

| name | labels | value |
|---|---|---|
| error_ratio_by_pod | pod | answers with 5xx / all, 0..1 |
| error_ratio_by_service | service | the same; gRPC and mesh traffic too |
| requests_by_service | service | requests per second |
| latency_by_service | service | seconds that 99 % of the requests stay below |
| calls | client, server | calls per second between services (service graph or mesh) |
| call_error_ratio | client, server | failed calls / all, 0..1 |
| memory_by_pod | pod (else container) | working set, bytes |
| memory_growth_by_pod | pod (else container) | bytes per second, of the last 15 minutes |
| cpu_by_pod | pod | cores in use |
| cpu_throttled_by_pod | pod (else container) | throttled periods / all, 0..1 |
| restarts_by_pod | pod | container restarts within the last hour |
| pvc_free_ratio | persistentvolumeclaim | free / size, 0..1; the lesser of bytes and inodes |
| queue_depth | the series' own, and `series` (its name) | what waits |
| pool_usage | those of the pool | connections in use / the most there may be, 0..1 |
| pool_waiting | the series' own, and `series` | who waits for a connection |
| series | the series' own, and `series` | whatever else is there, at most 500, without what names above cover |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..domain.snapshot import Point, Vector

_WINDOW = "2m"
_MARK = "question"
NAME = "series"  # label that holds the name of a raw series
MOST_SERIES = 500


@dataclass(frozen=True)
class Question:
    """One round trip. `names`: which answers it gives; with several each series says in the label `question` to which it belongs."""

    names: tuple[str, ...]
    promql: str


def _ratio(by: str, metric: str, *errors: str, where: str = "") -> str:
    """Requests of `metric` that one of the matchers `errors` calls failed / all, by label; 0 where none failed."""

    def rate(*matchers: str) -> str:
        return f"rate({metric}{{{','.join(m for m in (where, *matchers) if m)}}}[{_WINDOW}])"

    failed = " or ".join(rate(e) for e in errors)
    return f"sum by ({by}) ({failed} or {rate()} * 0) / sum by ({by}) ({rate()})"


def _errors(by: str) -> str:
    where = f'{by}!=""'
    return " or ".join(
        (
            _ratio(by, "http_requests_total", 'code=~"5.."', 'status=~"5.."', 'status_code=~"5.."', where=where),
            _ratio(by, "http_server_requests_seconds_count", 'status=~"5.."', where=where),
            _ratio(by, "http_request_duration_seconds_count", 'code=~"5.."', 'status=~"5.."', 'status_code=~"5.."', where=where),
            _ratio(by, "http_server_request_duration_seconds_count", 'http_response_status_code=~"5.."', where=where),
        )
    )


def _first(*expressions: str) -> str:
    """The first expression that has a series with these labels."""
    return " or ".join(expressions)


def _sum_rate(by: str, metric: str, where: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{where}}}[{_WINDOW}]))"


def _quantile(metric: str) -> str:
    return f'histogram_quantile(0.99, sum by (service, le) (rate({metric}{{service!=""}}[{_WINDOW}])))'


def _marked(**expressions: str) -> Question:
    """Several answers in one round trip."""
    parts = (f'label_replace({promql}, "{_MARK}", "{name}", "", "")' for name, promql in expressions.items())
    return Question(tuple(expressions), " or ".join(parts))


def _renamed(promql: str, label: str, to: str) -> str:
    return f'label_replace({promql}, "{to}", "$1", "{label}", "(.+)")'


def _as_service(promql: str) -> str:
    return f"sum by (service) ({_renamed(promql, 'destination_service_name', 'service')})"


def _raw(names: str, limit: int, without: str = "") -> str:
    """Series by a pattern of their names, with the name in a label."""
    more = f',__name__!~"{without}"' if without else ""
    return _renamed(f'topk({limit}, {{__name__=~"{names}"{more}}})', "__name__", NAME)


def _per_pod(expression: str) -> str:
    """By pod; exporters that leave the pod out are taken by container. `CONTAINER` stands for the matchers."""
    pods = expression.replace("CONTAINER", 'pod!="",container!="",container!="POD"')
    containers = expression.replace("CONTAINER", 'pod="",container!="",container!="POD"')
    return f"sum by (pod) ({pods}) or sum by (container) ({containers})"


_MESH = 'reporter="destination"'
_GRPC = 'grpc_code=~"Unknown|Internal|Unavailable|DataLoss|DeadlineExceeded|ResourceExhausted"'
_QUEUES = r"(.+_)?queue_(depth|length|size|backlog)|rabbitmq_queue_messages(_ready)?|kafka_consumergroup_lag|.+_(backlog|consumer_lag)"
_POOLS = r".*(pool|connections|pg_stat_activity_count).*"
# Covered above, or about the exporter and not the app.
_KNOWN = (
    r"(container|kube|kubelet|go|process|python|promhttp|scrape|net_conntrack|rest_client|workqueue|node|machine|prober)_.+|.+:.+|ALERTS.*|"
    rf".+_(bucket|created|sum|info)|target_info|{_QUEUES}|{_POOLS}"
)

QUESTIONS: tuple[Question, ...] = (
    Question(("error_ratio_by_pod",), _errors("pod")),
    Question(("error_ratio_by_service",), _errors("service")),
    _marked(
        error_ratio_by_service=_first(
            _as_service(_ratio("destination_service_name", "istio_requests_total", 'response_code=~"5.."', where=_MESH)),
            _ratio("service", "grpc_server_handled_total", _GRPC, where='service!=""'),
        ),
        requests_by_service=_first(
            _sum_rate("service", "http_requests_total", 'service!=""'),
            _sum_rate("service", "http_server_requests_seconds_count", 'service!=""'),
            _sum_rate("service", "http_request_duration_seconds_count", 'service!=""'),
            _sum_rate("service", "http_server_request_duration_seconds_count", 'service!=""'),
            _sum_rate("service", "grpc_server_handled_total", 'service!=""'),
            _as_service(_sum_rate("destination_service_name", "istio_requests_total", _MESH)),
        ),
    ),
    Question(
        ("latency_by_service",),
        _first(
            _quantile("http_request_duration_seconds_bucket"),
            _quantile("http_server_requests_seconds_bucket"),
            _quantile("http_server_request_duration_seconds_bucket"),
            _quantile("request_duration_seconds_bucket"),
            _quantile("grpc_server_handling_seconds_bucket"),
            'max by (service) (http_request_duration_seconds{service!="",quantile=~"0.9.*"})',
        ),
    ),
    _marked(
        calls=_first(
            _sum_rate("client, server", "traces_service_graph_request_total", 'server!=""'),
            "sum by (client, server) ("
            + _renamed(
                _renamed(
                    _sum_rate("source_workload, destination_service_name", "istio_requests_total", _MESH),
                    "destination_service_name",
                    "server",
                ),
                "source_workload",
                "client",
            )
            + ")",
        ),
        call_error_ratio=(
            f"(sum by (client, server) (rate(traces_service_graph_request_failed_total[{_WINDOW}])) "
            f"or sum by (client, server) (rate(traces_service_graph_request_total[{_WINDOW}])) * 0) "
            f"/ sum by (client, server) (rate(traces_service_graph_request_total[{_WINDOW}]))"
        ),
    ),
    _marked(
        memory_by_pod=_per_pod("container_memory_working_set_bytes{CONTAINER}"),
        memory_growth_by_pod=_per_pod("deriv(container_memory_working_set_bytes{CONTAINER}[15m])"),
    ),
    _marked(
        cpu_by_pod=_per_pod(f"rate(container_cpu_usage_seconds_total{{CONTAINER}}[{_WINDOW}])"),
        cpu_throttled_by_pod=(
            f'sum by (pod) (rate(container_cpu_cfs_throttled_periods_total{{pod!=""}}[{_WINDOW}])) '
            f'/ sum by (pod) (rate(container_cpu_cfs_periods_total{{pod!=""}}[{_WINDOW}])) '
            f'or sum by (container) (rate(container_cpu_cfs_throttled_periods_total{{pod=""}}[{_WINDOW}])) '
            f'/ sum by (container) (rate(container_cpu_cfs_periods_total{{pod=""}}[{_WINDOW}]))'
        ),
    ),
    _marked(
        restarts_by_pod="sum by (pod) (increase(kube_pod_container_status_restarts_total[1h]))",
        pvc_free_ratio=(
            "min by (persistentvolumeclaim) (kubelet_volume_stats_available_bytes / kubelet_volume_stats_capacity_bytes "
            "< kubelet_volume_stats_inodes_free / (kubelet_volume_stats_inodes > 0) "
            "or kubelet_volume_stats_inodes_free / (kubelet_volume_stats_inodes > 0) "
            "or kubelet_volume_stats_available_bytes / kubelet_volume_stats_capacity_bytes)"
        ),
    ),
    _marked(queue_depth=_raw(_QUEUES, 100), pool=_raw(_POOLS, 200)),
    Question(("series",), _raw(".+", MOST_SERIES, without=_KNOWN)),
)
_SPLIT = {"pool": ("pool_usage", "pool_waiting")}  # made of the answer here
NAMES: tuple[str, ...] = tuple(dict.fromkeys(n for q in QUESTIONS for name in q.names for n in _SPLIT.get(name, (name,))))


def answers(asked: Sequence[tuple[Question, Vector]], at: datetime) -> dict[str, Vector]:
    """Every answer by its name; each name is there. What two round trips tell of the same labels is taken from the first.

    `because` of an answer is that of a round trip that failed, and then no points are given: a part would look like the whole.
    """
    found: dict[str, Vector] = {}
    for question, vector in asked:
        for name in question.names:
            points = tuple(_of(vector.points, name)) if len(question.names) > 1 else vector.points
            before = found.get(name, Vector(question.promql, at))
            seen = {tuple(sorted(p.labels.items())) for p in before.points}
            more = tuple(p for p in points if tuple(sorted(p.labels.items())) not in seen)
            because = before.because or vector.because
            found[name] = Vector(vector.promql, at, () if because else (*before.points, *more), because)
    pool = found.pop("pool", None)
    if pool is not None:
        found["pool_usage"] = Vector(pool.promql, at, tuple(pool_usage(pool.points)), pool.because)
        found["pool_waiting"] = Vector(pool.promql, at, tuple(p for p in pool.points if _waits(p)), pool.because)
    return found


def _of(points: Sequence[Point], name: str) -> Iterator[Point]:
    for p in points:
        if p.labels.get(_MARK) == name:
            yield Point({k: v for k, v in p.labels.items() if k != _MARK}, p.value)


_USED = "active|used|in_use|inuse|busy|acquired|checked_out"
_LIMIT = "max|limit|size|capacity|max_size|max_open|max_open_connections|max_connections"
_BY_NAME = re.compile(rf"(?P<stem>.+?)_(?:(?P<used>{_USED})|(?P<limit>{_LIMIT}))(?:_connections?)?")
_PAIRS = {"pg_stat_activity_count": "used", "pg_settings_max_connections": "limit"}
_STATE_LABELS = ("state", "status", "type")
_LOOSE = ("datname", "usename", "application_name", "state", "wait_event", "wait_event_type", "backend_type")


def pool_usage(points: Sequence[Point]) -> Iterator[Point]:
    """In use / the most there may be, of every pool whose series tell both: by the end of their names, or by a label such as state."""
    used: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    limits: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for p in points:
        stem, part, labels = _part(p.labels)
        key = (stem, tuple(sorted(labels.items())))
        if part == "used":
            used[key] = used.get(key, 0.0) + p.value
        elif part == "limit":
            limits[key] = max(limits.get(key, 0.0), p.value)
    for key, limit in limits.items():
        if limit > 0 and key in used:
            yield Point({NAME: key[0], **dict(key[1])}, used[key] / limit)


def _part(labels: Mapping[str, str]) -> tuple[str, str, dict[str, str]]:
    """(which pool, used | limit | nothing, the labels that tell pools apart)."""
    name = labels.get(NAME, "")
    rest = {k: v for k, v in labels.items() if k not in (NAME, "__name__")}
    if name in _PAIRS:
        return "pg_connections", _PAIRS[name], {k: v for k, v in rest.items() if k not in _LOOSE}
    for label in _STATE_LABELS:
        if (state := rest.get(label, "").lower()) and (part := _word(state)):
            return name, part, {k: v for k, v in rest.items() if k != label}
    if found := _BY_NAME.fullmatch(name):
        return found["stem"], "used" if found["used"] else "limit", rest
    return name, "", rest


def _word(state: str) -> str:
    if re.fullmatch(_USED, state):
        return "used"
    return "limit" if re.fullmatch(_LIMIT, state) else ""


def _waits(point: Point) -> bool:
    return bool(re.search(r"_(?:waiting|pending|waiters|wait_count)(?:_|$)", point.labels.get(NAME, "")))
