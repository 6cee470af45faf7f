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
    """The mechanism of a fault, readable from the present state; of several that fit, the first counts (docs/concepts.md)."""

    NO_FAULT = "NoFault"
    QUOTA = "Quota"
    ADMISSION = "Admission"
    STORAGE = "Storage"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_ACCESS = "ImageAccess"
    MISSING_OBJECT = "MissingObject"
    RESOURCE_LIMIT = "ResourceLimit"
    PROBE = "Probe"
    BAD_CONFIGURATION = "BadConfiguration"
    ACCESS_DENIED = "AccessDenied"
    NETWORK_POLICY = "NetworkPolicy"
    DNS = "DNS"
    SERVICE_ROUTING = "ServiceRouting"
    CERTIFICATE = "Certificate"
    BAD_RELEASE = "BadRelease"
    SCALE = "Scale"
    AUTOSCALING = "Autoscaling"
    OVERLOAD = "Overload"
    DISRUPTION = "Disruption"
    JOB = "Job"
    NODE = "Node"
    CONTROL_PLANE = "ControlPlane"
    DEPENDENCY = "Dependency"
    EXTERNAL = "External"
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
