"""Findings about everything that is no workload: Services, routes, nodes, volumes, quotas, webhooks, … One small pure function each.

A finder looks at one `World` and yields `Candidate` origins. Each names in `hits` what it breaks directly (titles, `Kind/name`); whether
that explains the symptom is not its business: the supervisor follows the graph from the symptom to there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ..hypotheses import Candidate
from ..world import World
from .access import access
from .admission import admission
from .autoscaling import autoscaling
from .certificates import certificates
from .controlplane import control_plane
from .dependencies import dependencies
from .disruption import disruption
from .load import load
from .names import names
from .network import network_policies
from .nodes import nodes
from .routing import routing
from .scale import scale
from .storage import storage

Finder = Callable[[World], Iterator[Candidate]]

FINDERS: Mapping[str, Finder] = {
    "routing": routing,
    "network policies": network_policies,
    "names": names,
    "certificates": certificates,
    "dependencies": dependencies,
    "nodes": nodes,
    "admission": admission,
    "access": access,
    "autoscaling": autoscaling,
    "scale": scale,
    "disruption": disruption,
    "storage": storage,
    "control plane": control_plane,
    "load": load,
}
