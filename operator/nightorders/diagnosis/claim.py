"""What a signal says is wrong. Untrusted text: it chooses where to look and what counts as the symptom, and never proves anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Claim:
    """A signal. `firing`: whether its source says so now, on being asked again (None: nobody could be asked); `because`: its answer.

    `resolved`: its source said by itself that it is over. `seen_itself`: the operator's own watch, which waits long enough by itself.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    starts_at: datetime | None = None
    firing: bool | None = None
    resolved: bool = False
    because: str = ""
    seen_itself: bool = False

    @property
    def text(self) -> str:
        """Name, labels and annotations as one lower-case text, for words such as `latency`."""
        parts = (self.name, *self.labels.values(), *self.annotations.values())
        return " ".join(p[:300] for p in parts)[:4000].lower()
