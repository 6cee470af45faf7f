"""Carries a step out: at most one effect outside our own kinds, then one status write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import structlog

from .. import metrics
from ..api.meta import EXECUTION_LABEL, FLEET_LEDGER_NAME, LEDGER_NAME, TERM_LABEL, Level, line
from ..api.v1alpha1.incident import DryRun, Execution, Incident, IncidentStatus, Pause
from ..api.v1alpha1.ledger import Ledger, LedgerSpec, Outcome, Reservation
from ..domain import breaker, gitops, steps
from ..domain import ledger as books
from ..domain.autonomy import own_labels
from ..domain.diff import diff
from ..domain.digest import spec_sha256
from ..domain.orders import Governing, governing_rule
from ..domain.plan import execution_id
from ..domain.reasons import Reason
from ..domain.situation import Operator, Situation
from ..domain.snapshot import KubeObject
from ..ports import (
    ActionTarget,
    AlreadyExistsError,
    Announcer,
    Clock,
    ConflictError,
    ForbiddenError,
    Incidents,
    Ledgers,
    NotFoundError,
    ObjectKey,
    PermanentError,
)

log = structlog.get_logger(__name__)
NOW = timedelta(0)
LEADER_POLICY = "nightorders-leader"  # admission that refuses writes of a leader who has been replaced


class Executor:
    """One method per step. Every write is conditional, so a pass that lost a race changes nothing and is made again."""

    def __init__(
        self,
        clock: Clock,
        incidents: Incidents,
        ledgers: Ledgers,
        target: ActionTarget,
        announcer: Announcer,
        operator: Operator,
        redact: Callable[[str], str],
        settled: Callable[[str], None] = lambda _: None,
        term: Callable[[], str] = str,
        paused: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`settled`: called with the namespace whose Ledger has a new outcome; `paused`: with one whose Ledger has a pause to lift one day.

        `term`: of our leadership; empty without leader election.
        """
        self._clock = clock
        self._incidents = incidents
        self._ledgers = ledgers
        self._target = target
        self._announcer = announcer
        self._operator = operator
        self._redact = redact
        self._settled = settled
        self._paused = paused
        self._term = term

    async def carry_out(self, s: Situation, step: steps.Step) -> timedelta | None:
        """Does it, and returns when to look again (None: at the next event). A lost race is made again at once."""
        metrics.PASSES.labels(step=type(step).__name__).inc()
        try:
            return await self._dispatch(s, step)
        except ConflictError as lost:
            log.info("lost a race, looking again", incident=s.incident.metadata.name, error=str(lost))
            return steps.SOON / 10

    async def _dispatch(self, s: Situation, step: steps.Step) -> timedelta | None:
        match step:
            case steps.Idle(_, again):
                return again
            case steps.Save(status, again, announce, warning, note):
                if note is not None:
                    await self.book(s.incident.metadata.namespace, LEDGER_NAME, partial(books.note, entry=note))
                return await self._save(s.incident, status, again, announce, warning)
            case steps.Stage():
                return await self._stage(s, step)
            case steps.Reserve():
                return await self._reserve(s, step)
            case steps.PauseOwner(execution, owner, patch):
                return await self._pause(s, execution, owner, patch)
            case steps.Apply(execution, target, patch):
                return await self._apply(s, execution, target, patch)
            case steps.Undo(execution, target, patch):
                return await self._undo(s, execution, target, patch)
            case steps.Settle():
                return await self._settle(s, step)
            case steps.ReleaseFinalizer():
                await self._close(s.incident)
                return NOW

    async def _save(
        self, incident: Incident, status: IncidentStatus, again: timedelta | None, announce: tuple[Reason, str] | None, warning: bool
    ) -> timedelta | None:
        saved = await self._incidents.save_status(incident, status)
        if incident.status.first_summary_at is None and status.first_summary_at is not None and incident.metadata.creation_timestamp:
            metrics.SUMMARY_SECONDS.observe((status.first_summary_at - incident.metadata.creation_timestamp).total_seconds())
        if announce is not None:
            await self._announcer.announce(saved, announce[0].value, announce[1], warning=warning)
        return again

    # ------------------------------------------------------------ the plan

    async def _stage(self, s: Situation, step: steps.Stage) -> timedelta | None:
        now = self._clock.now()
        draft = steps.draft(s.incident.model_copy(update={"status": step.status}), step, None, now)
        answer = await self._dry_run(s, step, execution_id(draft.digest))
        if isinstance(answer, DryRun) and step.level > Level.L2 and (refused := await self._pause_refused(s, execution_id(draft.digest))):
            answer = refused
        if isinstance(answer, DryRun):
            status = steps.staged(s.incident, step, answer, "", self._clock.now())
        elif step.level == Level.L2 and answer[0] is Reason.PERMISSION_MISSING:
            status = steps.staged(s.incident, step, None, answer[1], now)  # advice needs no right of ours
        else:
            status = steps.not_staged(s.incident, step, *answer, now)
        if status == s.incident.status:
            return steps.LOOK_AGAIN
        planned = next((c for c in status.conditions if c.type == "Planned"), None)
        news = (Reason(planned.reason), planned.message) if planned else None
        again = NOW if step.level == Level.L4 and status.plan is not None else steps.LOOK_AGAIN
        return await self._save(s.incident, status, again, news, warning=status.plan is None)

    async def _dry_run(self, s: Situation, step: steps.Stage, execution: str) -> DryRun | tuple[Reason, str]:
        """The very patch that will be sent, as a server-side dry run."""
        target = step.proposal.target
        try:
            after = await self._send(target, step.proposal.patch, execution, dry_run=True)
        except ForbiddenError as refused:
            if refused.policy:
                return Reason.DRY_RUN_REFUSED, f"admission policy {refused.policy} refuses it: {refused}"
            fix = grant(s.incident.metadata.namespace, self._operator)
            return Reason.PERMISSION_MISSING, f"the operator may not patch {target.title}: {refused}. Allow it with: {fix}"
        except (ConflictError, NotFoundError):
            raise ConflictError(f"{target.title} changed during the dry run") from None
        except PermanentError as refused:
            return Reason.DRY_RUN_REFUSED, f"the API server refuses it: {refused}"
        got = spec_sha256(after.at("spec", default={}), scaled=bool(step.proposal.scaled_by))
        if got != step.proposal.after_sha256:
            return (
                Reason.DRY_RUN_REFUSED,
                f"the cluster would make something else of it ({got[:15]}…): an admission webhook changes {target.title}",
            )
        return DryRun(at=self._clock.now(), diff=diff(target, after, self._redact))

    async def _pause_refused(self, s: Situation, execution: str) -> tuple[Reason, str] | None:
        """Why the owner could not be paused, by a server-side dry run of that, too; None: it could, or need not be."""
        owner = s.owner_object
        if not isinstance(owner, KubeObject) or s.owner is None or not s.owner.confirmed or gitops.paused(owner):
            return None
        try:
            await self._target.patch(key_of(owner), fenced(owner, gitops.pause_patch(owner, execution)), dry_run=True)
        except ForbiddenError as refused:
            fix = self._pause_fix(owner, refused)
            return Reason.PERMISSION_MISSING, f"the operator may not pause {owner.title}: {refused}{fix}"
        except (ConflictError, NotFoundError):
            raise ConflictError(f"{owner.title} changed during the dry run") from None
        except PermanentError as refused:
            return Reason.DRY_RUN_REFUSED, f"the API server refuses the pause of {owner.title}: {refused}"
        return None

    def _pause_fix(self, owner: KubeObject, refused: PermanentError) -> str:
        if not isinstance(refused, ForbiddenError) or refused.policy:
            return ""
        account = self._operator.username.removeprefix("system:serviceaccount:")
        return f". Allow it with: {gitops.grant(owner.kind, owner.namespace, account)}"

    async def _send(self, target: KubeObject, patch: Mapping[str, Any], execution: str, *, dry_run: bool) -> KubeObject:
        """The stamped patch. Refused because another leads now, it is a lost race: whoever leads goes on from what was saved.

        (Also for a moment after we took over, until the API server has heard of it.)
        """
        try:
            return await self._target.patch(key_of(target), conditional(target, patch, execution, self._term()), dry_run=dry_run)
        except ForbiddenError as refused:
            if refused.policy == LEADER_POLICY:
                raise ConflictError(f"another leads: {refused}") from None
            raise

    # ------------------------------------------------------------ the transaction

    async def _reserve(self, s: Situation, step: steps.Reserve) -> timedelta:
        """Fleet Ledger, namespace Ledger, finalizer, Incident: always in this order. Each Ledger is saved at the version that the gates saw."""
        namespace = s.incident.metadata.namespace
        slot = Reservation(
            execution=step.execution.id,
            action=step.action,
            namespace=namespace,
            incident=s.incident.metadata.name,
            incident_uid=s.incident.metadata.uid,
            workload=line(step.workload, 256),
            at=step.execution.reserved_at,
        )
        await self._take(self._operator.namespace, FLEET_LEDGER_NAME, s.fleet, slot)
        await self._take(namespace, LEDGER_NAME, s.ledger, slot, step.pause)
        if step.pause is not None:
            self._paused(namespace)
        held = await self._incidents.set_finalizer(s.incident, True)
        saved = await self._incidents.save_status(held, step.status)
        await self._announcer.announce(saved, Reason.RESERVED.value, step.execution.message, warning=False)
        return NOW

    async def _take(self, namespace: str, name: str, seen: Ledger | None, slot: Reservation, pause: Pause | None = None) -> None:
        """The slot, and in the same write the pause that is to be lifted one day."""
        after = books.reserve(seen.spec if seen else LedgerSpec(), slot)
        if name == FLEET_LEDGER_NAME:
            after = books.remember_namespace(after, slot.namespace)
        if pause is not None:
            after = books.remember_pause(after, slot, pause)
        try:
            await self._ledgers.save(namespace, name, seen, after)
        except AlreadyExistsError:
            raise ConflictError(f"Ledger {namespace}/{name} was created by somebody else") from None

    async def _apply(self, s: Situation, execution: Execution, target: KubeObject, patch: Mapping[str, Any]) -> timedelta:
        plan = s.incident.status.plan
        assert plan is not None, "an execution is saved together with its plan"
        try:
            await self._send(target, patch, execution.id, dry_run=False)
        except PermanentError as refused:
            return await self._refused(s, execution, Reason.NOT_APPLIED, f"the API server refused the change: {refused}")
        metrics.MUTATIONS.labels(action=execution.action.value, kind=target.kind).inc()
        status = steps.applied(s.incident, execution, plan, self._clock.now(), s.owner_object)
        saved = await self._incidents.save_status(s.incident, status)
        await self._announcer.announce(saved, Reason.APPLIED.value, plan.impact, warning=False)
        return timedelta(seconds=min(1, plan.verify.every_seconds))

    async def _pause(self, s: Situation, execution: Execution, owner: KubeObject, patch: Mapping[str, Any]) -> timedelta:
        try:
            await self._target.patch(key_of(owner), fenced(owner, patch), dry_run=False)
        except PermanentError as refused:
            message = f"{owner.title} could not be paused, so nothing was done: {refused}{self._pause_fix(owner, refused)}"
            return await self._refused(s, execution, Reason.NOT_APPLIED, message)
        return NOW

    async def _undo(self, s: Situation, execution: Execution, target: KubeObject, patch: Mapping[str, Any]) -> timedelta:
        try:
            await self._send(target, patch, execution.id, dry_run=False)
        except PermanentError as refused:
            return await self._refused(s, execution, Reason.ESCALATED, f"the API server refused the undo: {refused}")
        metrics.MUTATIONS.labels(action=execution.action.value, kind=target.kind).inc()
        return NOW

    async def _refused(self, s: Situation, execution: Execution, result: Reason, message: str) -> timedelta:
        """The API server's no is final: the execution ends with that result."""
        return await self._settle(s, steps.settle(s, execution, result.value, message, result, self._clock.now()))

    async def _settle(self, s: Situation, step: steps.Settle) -> timedelta:
        """The Incident's status decides: once it says how the execution ended, that is final, and the rest follows from it.

        (With the books first, a process that died in between left an outcome there that the next one decided otherwise.)
        """
        saved = await self._incidents.save_status(s.incident, step.status)
        metrics.EXECUTIONS.labels(action=step.execution.action.value, result=step.execution.result or "").inc()
        if step.warning:
            metrics.ESCALATIONS.inc()
        await self._announcer.announce(saved, step.announce[0].value, step.announce[1], warning=step.warning)
        await self._close(saved)
        await self._tell_breaker(s, saved, step.execution)
        self._settled(saved.metadata.namespace)
        return steps.LOOK_AGAIN

    async def _tell_breaker(self, s: Situation, incident: Incident, e: Execution) -> None:
        """An Event on the Incident whose failure opened the breaker. (Its state is in the policy's status, and a metric.)"""
        if not isinstance(s.target, KubeObject) or e.result not in breaker.FAILED:
            return
        found = governing_rule(s.orders, own_labels(s.target.labels), e.action)
        if not isinstance(found, Governing):
            return
        ledger = await self._ledgers.get(incident.metadata.namespace, LEDGER_NAME)
        b = breaker.state(found.policy.spec.breaker, ledger, e.action, s.target.kind, self._clock.now())
        if b.state == "Open" and b.since == e.ended_at:
            await self._announcer.announce(incident, Reason.BREAKER_OPEN.value, b.because, warning=True)

    async def _close(self, incident: Incident) -> None:
        """Outcomes into the Ledgers, slots free, and only then the finalizer goes: until then the next pass comes back here."""
        for e in incident.status.executions:
            if e.state != "Ended" or e.result is None:
                continue
            outcome = Outcome(
                execution=e.id,
                action=e.action,
                namespace=incident.metadata.namespace,
                workload=line(incident.spec.target.title, 256),
                at=e.reserved_at,
                ended_at=e.ended_at or self._clock.now(),
                result=e.result,
                by=e.by,
                level=e.level,
                confirmed=books.confirmed(incident, e),
                emergency=e.emergency,
            )
            await self._book_here(incident, partial(books.settle, outcome=outcome))
            await self.book(self._operator.namespace, FLEET_LEDGER_NAME, partial(books.settle, outcome=outcome))
        await self._incidents.set_finalizer(incident, False)

    async def _book_here(self, incident: Incident, change: Callable[[LedgerSpec], LedgerSpec]) -> None:
        """Into the Ledger of the Incident's namespace; while that goes away, its Ledger may be gone already and cannot be made anew.

        (Insisting on it kept the finalizer, and so the namespace, for ever.)
        """
        try:
            await self.book(incident.metadata.namespace, LEDGER_NAME, change)
        except (ForbiddenError, NotFoundError) as refused:
            if incident.metadata.deletion_timestamp is None:
                raise
            log.warning("its namespace goes away, with its Ledger", incident=incident.metadata.name, error=str(refused))

    async def book(self, namespace: str, name: str, change: Callable[[LedgerSpec], LedgerSpec]) -> None:
        """Changes a Ledger; asked again on a fresh copy until the write wins. For changes that hold whatever the Ledger says now."""
        while True:
            seen = await self._ledgers.get(namespace, name)
            before = seen.spec if seen else LedgerSpec()
            after = change(before)
            if seen is not None and after == before:
                return
            try:
                await self._ledgers.save(namespace, name, seen, after)
            except (ConflictError, AlreadyExistsError):
                continue
            if seen is None and name == LEDGER_NAME:  # a known Ledger that is gone one day lowers the level (threats.md 28)
                await self.book(self._operator.namespace, FLEET_LEDGER_NAME, partial(books.remember_namespace, namespace=namespace))
            return


def key_of(target: KubeObject) -> ObjectKey:
    """Where it lives."""
    return ObjectKey(target.api_version, target.kind, target.namespace, target.name)


def conditional(target: KubeObject, patch: Mapping[str, Any], execution: str, term: str = "") -> dict[str, Any]:
    """The patch with its preconditions (uid, resourceVersion), the execution's stamp and the leader's term (empty: none is left there)."""
    labels: dict[str, str | None] = {EXECUTION_LABEL: execution}
    if term or TERM_LABEL in target.labels:
        labels[TERM_LABEL] = term or None
    return fenced(target, {**patch, "metadata": {"labels": labels}})


def fenced(target: KubeObject, patch: Mapping[str, Any]) -> dict[str, Any]:
    """The patch with its preconditions: uid and resourceVersion of the object that was judged."""
    fence = {"uid": target.uid, "resourceVersion": target.resource_version}
    return {**patch, "metadata": {**patch.get("metadata", {}), **fence}}


def grant(namespace: str, operator: Operator) -> str:
    """The command that gives the operator the right to roll back in one namespace."""
    _, _, account_namespace, account = (
        operator.username.split(":") if operator.username.count(":") == 3 else ("", "", operator.namespace, "nightorders")
    )
    return (
        f"kubectl create rolebinding nightorders-action-rollbackworkload -n {namespace} "
        f"--clusterrole=nightorders-action-rollbackworkload --serviceaccount={account_namespace}:{account}"
    )
