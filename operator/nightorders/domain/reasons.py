"""Every reason that appears in a condition, a gate or an Event. One word each, in CamelCase; each is explained in docs/reference/reasons.md."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Documented vocabulary; the value is the wire form, the comment says when."""

    # Triaged, Diagnosed
    UNDER_WAY = "UnderWay"  # the first look has not been made yet
    LOOKED = "Looked"  # the target exists and was looked at
    TARGET_NOT_FOUND = "TargetNotFound"  # a complete look says that there is no such object
    TARGET_NOT_READABLE = "TargetNotReadable"  # forbidden, or a kind that this version does not understand
    ORIGIN_SHOWN = "OriginShown"  # a fault, with an origin
    ORIGIN_UNKNOWN = "OriginUnknown"  # something is wrong, its origin cannot be shown
    PROGRESSING = "Progressing"  # on its way without us
    # Planned
    NO_PLAN_NEEDED = "NoPlanNeeded"  # nothing to repair
    NO_ACTION_FITS = "NoActionFits"  # no action of the catalogue removes this origin
    STAGED = "Staged"
    READ_ONLY = "ReadOnly"  # the effective level is L1
    REJECTED = "Rejected"
    DRY_RUN_REFUSED = "DryRunRefused"
    PERMISSION_MISSING = "PermissionMissing"
    STOPPED_ACTING = "StoppedActing"  # an action was undone or did not help: a human decides from here
    # gates
    NO_POLICY = "NoPolicy"
    AMBIGUOUS = "Ambiguous"
    POLICY_UNREADABLE = "PolicyUnreadable"
    QUERY_REFUSED = "QueryRefused"  # a policy's PromQL cannot be read, or asks for other namespaces
    STOPPED = "Stopped"
    SUSPENDED = "Suspended"
    PROTECTED = "Protected"
    LEVEL_TOO_LOW = "LevelTooLow"
    NOT_SURE_ENOUGH = "NotSureEnough"
    CATEGORY_UNKNOWN = "CategoryUnknown"
    TARGET_CHANGED = "TargetChanged"
    OWNED_ELSEWHERE = "OwnedElsewhere"
    ROLLOUT_UNDER_WAY = "RolloutUnderWay"
    BLAST_RADIUS = "BlastRadius"
    COOLDOWN = "Cooldown"
    RATE = "Rate"
    BUDGET = "Budget"
    BREAKER_OPEN = "BreakerOpen"  # actions of this type did not help; nothing is done until the breaker's time is over
    FROZEN = "Frozen"  # a freeze is in force
    SHADOW = "Shadow"  # the policy decides and touches nothing
    DISRUPTION_BUDGET = "DisruptionBudget"  # a PodDisruptionBudget leaves no room
    PREFLIGHT = "Preflight"
    PASSED = "Passed"
    # Approved
    WAITING = "Waiting"  # admission lets approvals in only under this reason
    ADVISED = "Advised"  # L2: a human runs the command
    NOT_REQUIRED = "NotRequired"  # L4
    APPROVED = "Approved"
    GUARD_NOT_PROVEN = "GuardNotProven"
    EMERGENCY = "Emergency"  # emergency approvals let it through a freeze
    # Executed
    RESERVED = "Reserved"
    PAUSED = "Paused"  # the GitOps owner is paused around the action
    RESUMED = "Resumed"  # and goes on
    PAUSE_OVERDUE = "PauseOverdue"  # it should go on and could not be let: a human must
    APPLIED = "Applied"
    BY_HUMAN = "ByHuman"
    NOT_APPLIED = "NotApplied"
    UNDOING = "Undoing"
    UNDONE = "Undone"
    UNDO_VERIFIED = "UndoVerified"  # after the undo it serves as before
    UNDO_NOT_VERIFIED = "UndoNotVerified"  # the spec was put back, but it does not serve as before
    # Verified
    VERIFYING = "Verifying"
    RECOVERED = "Recovered"
    WORSE = "Worse"
    UNCHANGED = "Unchanged"
    NO_DATA = "NoData"
    SUPERSEDED = "Superseded"
    # Stalled, Closed
    MOVING = "Moving"  # not stalled
    OPEN = "Open"
    ESCALATED = "Escalated"
    TAKEN = "Taken"  # a human is on it: advice only
    CALLED = "Called"  # a message went out to a human
    CALL_FAILED = "CallFailed"  # it could not be delivered; tried again
    CHANNEL_UNKNOWN = "ChannelUnknown"  # a policy names a channel that is not defined or cannot be used
    RECOVERED_BY_ITSELF = "RecoveredByItself"
    NO_FAULT = "NoFault"
    JUDGED = "Judged"  # a human said what the cause was
    RUNBOOK_PROBLEMS = "RunbookProblems"  # a runbook leaves something open, or says something that cannot be obeyed
    RECORD_TAMPERED = "RecordTampered"  # the Incident's record is not the one that the operator wrote (docs/audit.md)
    TRY_AGAIN = "TryAgain"  # a port failed; the message says which and when the next try is
