"""Files that travel with the package: CRDs are generated from the models, manifests are read from beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_PACKAGED = Path(__file__).parent / "_manifests"
_CHECKOUT = Path(__file__).parents[2] / "manifests"


def manifests() -> Path:
    """The folder `manifests`, in an installed package or in a checkout. Raises FileNotFoundError when it is in neither."""
    for place in (_PACKAGED, _CHECKOUT):
        if (place / "admission").is_dir():
            return place
    raise FileNotFoundError("the manifests that belong to nightorders are missing from this installation")


def admission() -> list[dict[str, Any]]:
    """Every ValidatingAdmissionPolicy and binding as shipped."""
    files = sorted((manifests() / "admission").glob("*.yaml"))
    documents = [d for f in files for d in yaml.safe_load_all(f.read_text())]
    return [d for d in documents if d and str(d.get("kind", "")).startswith("ValidatingAdmissionPolicy")]
