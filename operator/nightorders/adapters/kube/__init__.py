"""The API server: reads, watches, our own kinds, the one port that changes other people's objects, Events."""

from .client import KubeClient
from .events import EventAnnouncer, LaterAnnouncer
from .reader import Reader
from .resources import Resources
from .stores import IncidentStore, LedgerStore, PolicyStore, RunbookStore
from .target import Target
from .watch import Watcher

__all__ = [
    "EventAnnouncer",
    "IncidentStore",
    "KubeClient",
    "LaterAnnouncer",
    "LedgerStore",
    "PolicyStore",
    "Reader",
    "Resources",
    "RunbookStore",
    "Target",
    "Watcher",
]
