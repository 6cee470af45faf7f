"""The closed catalogue of actions: one file each, and `CATALOGUE`, which is all that the rest of the operator knows of them."""

from collections.abc import Mapping

from ..api.v1alpha1.common import ActionType
from .base import Action, PolicyRule
from .rollback import RollbackWorkload

CATALOGUE: Mapping[ActionType, Action] = {a.type: a for a in (RollbackWorkload(),)}

__all__ = ["CATALOGUE", "Action", "PolicyRule"]
