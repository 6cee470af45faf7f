"""When and by whom a part of an object was last written, as its managedFields claim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import KubeObject
from ..changes import managers
from ..evidence import safe
from ..read import clock, mapping
from ..views import obj_created

_AT_ONCE = timedelta(seconds=2)


@dataclass(frozen=True)
class Touch:
    """The last writing of a part of an object; `created` when that was the object's creation."""

    at: datetime
    by: str
    created: bool

    @property
    def change(self) -> ChangeRef:
        return ChangeRef(kind="Edit", at=self.at, by=safe(self.by, 200))

    @property
    def told(self) -> str:
        return f"{'created' if self.created else 'changed'} {clock(self.at)}, claimed by {safe(self.by, 120) or 'nobody'} (managedFields)"


def last_touch(obj: KubeObject, *paths: tuple[str, ...]) -> Touch | None:
    """The newest writing of any of these field paths, such as `("f:spec", "f:hard")`; without paths, of anything.

    An object without telling managedFields was last written when it was created. None: not even that is known.
    """
    made = obj_created(obj)
    found = [(at, by) for at, by, fields in managers(obj) if not paths or any(_has(fields, p) for p in paths)]
    if not found:
        return Touch(made, "", created=True) if made else None
    at, by = max(found)
    return Touch(at, by, created=made is not None and abs(at - made) <= _AT_ONCE)


def _has(fields: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    here: Mapping[str, Any] = fields
    for step in path:
        if step not in here:
            return False
        here = mapping(here[step])
    return True
