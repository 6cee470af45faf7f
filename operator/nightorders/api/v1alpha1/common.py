"""Vocabulary that several kinds share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from ..meta import ApiVersion, KindName, Model, Name


class ActionType(StrEnum):
    """The closed catalogue of what may be done. A member exists only once its file in `actions/` does."""

    ROLLBACK_WORKLOAD = "RollbackWorkload"


class Category(StrEnum):
    """The mechanism of a fault, readable from the present state (docs/concepts.md lists when each one holds)."""

    NO_FAULT = "NoFault"
    IMAGE_ACCESS = "ImageAccess"
    MISSING_OBJECT = "MissingObject"
    BAD_CONFIGURATION = "BadConfiguration"
    BAD_RELEASE = "BadRelease"
    RESOURCE_LIMIT = "ResourceLimit"
    UNKNOWN = "Unknown"


class ObjectRef(Model):
    """Names one object. The namespace is the referring object's own."""

    api_version: Annotated[ApiVersion, Field(description="API version of the object, such as apps/v1.")]
    kind: Annotated[KindName, Field(description="Kind of the object, such as Deployment.")]
    name: Annotated[Name, Field(description="Name of the object.")]

    @property
    def title(self) -> str:
        """`Kind/name`, as kubectl users write it."""
        return f"{self.kind}/{self.name}"
