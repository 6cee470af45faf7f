"""Every metric of the operator, declared once. Names follow Prometheus conventions; labels are closed sets or names of objects, never user text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

INCIDENTS_OPENED = Counter("nightorders_incidents_opened", "Incidents that the detector opened.", registry=REGISTRY)
ALERTS = Counter(
    "nightorders_alerts",
    "Alerts that came in over the webhook, by what became of them: Opened an Incident, Joined an open one, Repeated, Resolved, Over "
    "(resolved, and nothing is open), Protected (a namespace that the operator leaves alone), NowhereToLook, Failed.",
    ["result"],
    registry=REGISTRY,
)
ALERT_REQUESTS = Counter(
    "nightorders_alert_requests",
    "Notifications to the webhook by HTTP status; alert on 4xx: these are not sent again.",
    ["code"],
    registry=REGISTRY,
)
PASSES = Counter("nightorders_passes", "Reconcile passes by the step they took.", ["step"], registry=REGISTRY)
PASS_SECONDS = Histogram("nightorders_pass_seconds", "Duration of a reconcile pass.", registry=REGISTRY)
FAILURES = Counter("nightorders_failures", "Passes that a port error ended.", ["kind"], registry=REGISTRY)
EXECUTIONS = Counter("nightorders_executions", "Executions that ended, by result.", ["action", "result"], registry=REGISTRY)
MUTATIONS = Counter(
    "nightorders_mutations", "Requests that changed something outside our own kinds.", ["action", "kind"], registry=REGISTRY
)
ESCALATIONS = Counter("nightorders_escalations", "Incidents handed to a human after acting.", registry=REGISTRY)
GUARD_PROVEN = Gauge(
    "nightorders_approval_guard_proven", "1 while the admission policies that guard approvals are proven; alert on 0.", registry=REGISTRY
)
SCHEMAS_CURRENT = Gauge("nightorders_schemas_current", "1 while the cluster's CRDs are the ones this version ships.", registry=REGISTRY)
BREAKER = Gauge(
    "nightorders_breaker_state",
    "1 for the state that the breaker of an action type on a class of workload is in.",
    ["namespace", "policy", "action", "workload_class", "state"],
    registry=REGISTRY,
)
LEADER = Gauge("nightorders_leader", "1 in the process that acts.", registry=REGISTRY)
WATCH_HEALTHY = Gauge("nightorders_watch_healthy", "1 while the watch of a kind is alive.", ["kind"], registry=REGISTRY)
QUEUE_DEPTH = Gauge("nightorders_queue_depth", "Keys that wait for a worker.", ["queue"], registry=REGISTRY)
SUMMARY_SECONDS = Histogram(
    "nightorders_first_summary_seconds", "From an Incident's creation to its first saved summary.", registry=REGISTRY
)
PAUSES = Gauge("nightorders_pauses", "GitOps owners that the operator holds paused.", registry=REGISTRY)
PAUSES_OVERDUE = Gauge(
    "nightorders_pauses_overdue", "GitOps owners whose pause should be over and could not be lifted; alert on any.", registry=REGISTRY
)
EVENTS_LOST = Counter("nightorders_events_lost", "Kubernetes Events that could not be written.", registry=REGISTRY)
CALLS = Counter("nightorders_calls", "Messages to a human, by result: Delivered or Failed (tried again).", ["result"], registry=REGISTRY)
CHANNELS = Gauge(
    "nightorders_channels", "Notification channels by state: Usable or Refused; alert on Refused > 0.", ["state"], registry=REGISTRY
)
AUDIT_SIGNING = Gauge(
    "nightorders_audit_signing", "1 while a key is installed that signs the records; 0: they are chained only.", registry=REGISTRY
)
AUDIT_ALARMS = Counter(
    "nightorders_audit_alarms", "Records found not as the operator wrote them; alert on any.", ["what"], registry=REGISTRY
)
AUDIT_UNPUBLISHED = Gauge("nightorders_audit_unpublished", "Heads of records that wait to be written into a Ledger.", registry=REGISTRY)
AUDIT_UNPRINTED = Counter(
    "nightorders_audit_unprinted", "Times that standard output did not take the lines of a record.", registry=REGISTRY
)
