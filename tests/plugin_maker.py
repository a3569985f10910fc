"""Plugins as pip installs them: distributions in a folder of a test's own, made, broken and taken away again."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

HEAD = """
from bioforge.plugin import *
BIOFORGE_API = 1
"""


class Install:
    """`install("bioforge-demo", code)`: a distribution with an entry point, found as pip's are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, code: str, version: str = "1.2") -> None:
        module = self._forgotten(name)
        (self._folder / f"{module}.py").write_text(dedent(code))
        info = self._folder / f"{module}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[bioforge]\n{name.removeprefix('bioforge-')} = {module}\n")
        importlib.invalidate_caches()

    def remove(self, name: str) -> None:
        module = self._forgotten(name)
        (self._folder / f"{module}.py").unlink()
        shutil.rmtree(self._folder / f"{module}.dist-info")
        importlib.invalidate_caches()

    def _forgotten(self, name: str) -> str:
        module = name.replace("-", "_")
        sys.modules.pop(module, None)
        shutil.rmtree(self._folder / "__pycache__", ignore_errors=True)  # of another code in the same second
        return module


@pytest.fixture
def install(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """For tests that say `install = plugin_maker.install`. The modules of its plugins are forgotten afterwards."""
    folder = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(str(folder))
    modules = set(sys.modules)
    yield Install(folder)
    for module in set(sys.modules) - modules:
        if module.startswith("bioforge_"):
            del sys.modules[module]
