"""What can go wrong, apart from what a run measures. Every text can be shown to the person who started the runner."""

from __future__ import annotations


class ScenarioError(Exception):
    """A scenario's files cannot be used. Each line of `problems` names the file, the field and the fix."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class StepError(Exception):
    """A step could not be carried out, or a state that was waited for did not come."""


class RunnerError(Exception):
    """The runner cannot go on: no cluster, no operator, no webhook."""
