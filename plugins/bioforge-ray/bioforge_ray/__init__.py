"""The backend `ray`: calls as in `async`, sent from the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping

from bioforge.plugin import BackendFactory, hookimpl
from bioforge_ray.backend import RayBackend

BIOFORGE_API = 1

__all__ = ["BIOFORGE_API", "RayBackend", "bioforge_backends"]


@hookimpl
def bioforge_backends() -> Mapping[str, BackendFactory]:
    return {"ray": RayBackend}
