"""The plans that `make test` runs: every outcome, every kind of write, every way to die."""

from __future__ import annotations

SLICE = (
    ("Recovered", "fleet Ledger: slot taken", "after-commit"),
    ("Recovered", "namespace Ledger: slot taken", "before"),
    ("Recovered", "finalizer set", "after-commit"),
    ("Recovered", "Incident Executing", "before"),
    ("Recovered", "target: change", "before"),
    ("Recovered", "target: change", "after-commit"),
    ("Recovered", "Incident Recovered", "after-response"),
    ("Recovered", "finalizer removed", "before"),
    ("Undone", "Incident Undoing", "after-commit"),
    ("Undone", "target: undo", "before"),
    ("Undone", "target: undo", "after-commit"),
    ("Undone", "fleet Ledger: outcome, slot free", "after-commit"),
    ("Rejected", "Incident Diagnosed, Rejected", "before"),
    ("Superseded", "target: change", "after-response"),
    ("Superseded", "Incident Escalated, Staged", "after-commit"),
)
