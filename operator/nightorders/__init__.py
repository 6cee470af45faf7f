"""nightorders: a Kubernetes operator for incident response with graded autonomy."""

__version__ = "0.1.0"
