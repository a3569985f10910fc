"""Run the backend contract with one worker, since each test starts new processes. See test_fleet.py and test_losses.py
for several workers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from bioforge_ray import RayBackend

from bioforge.plugin import BackendFactory
from bioforge.testing import BackendContract


@pytest.mark.usefixtures("joined")
class TestRay(BackendContract):
    options: Mapping[str, object] = {"workers": 1, "cpus_per_worker": 0.25}
    needs_key = True

    def factory(self) -> BackendFactory:
        return RayBackend
