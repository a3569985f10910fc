"""Declare the three hooks. Each returns a mapping of names to values, so a plugin is tested by calling one function."""

from __future__ import annotations

from collections.abc import Mapping

import pluggy

from bioforge.core.interfaces import AnyReader, AnyWriter, BackendFactory

hookspec = pluggy.HookspecMarker("bioforge")
hookimpl = pluggy.HookimplMarker("bioforge")


@hookspec
def bioforge_readers() -> Mapping[str, AnyReader]:  # type: ignore[empty-body]
    """Return input formats by name. A name is also the file suffix it is chosen for (`csv` for `artists.csv`)."""


@hookspec
def bioforge_backends() -> Mapping[str, BackendFactory]:  # type: ignore[empty-body]
    """Return backends by the name that `[backend] name` and `--backend` take."""


@hookspec
def bioforge_writers() -> Mapping[str, AnyWriter]:  # type: ignore[empty-body]
    """Return output formats by name. A name is also the file suffix it is chosen for."""
