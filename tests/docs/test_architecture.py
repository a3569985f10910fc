"""The architecture page names files that exist and every package there is, in the order in which imports run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def test_every_named_file_exists() -> None:
    named = re.findall(r"`((?:bioforge|tests|plugins|benchmarks|docs)/[\w/.]*)`", PAGE)
    assert len(named) > 25
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_package_is_named() -> None:
    inside = (path for path in (ROOT / "bioforge").iterdir() if path.stem[:2] not in ("__", "py"))
    packages = {path.name for path in inside if path.is_dir() or path.suffix == ".py"}
    assert packages == set(re.findall(r"`bioforge/(\w+(?:\.py)?)/?`", PAGE.partition("## Data flow")[0]))
    assert len(packages) <= 17


def test_levels_are_those_that_are_checked() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contract = next(item for item in config["tool"]["importlinter"]["contracts"] if item["type"] == "layers")
    checked = [{name.strip().removeprefix("bioforge.") for name in layer.split("|")} for layer in contract["layers"]]
    rows = re.findall(r"^\| (\d) \| (.+?) \|", PAGE, re.MULTILINE)
    levels: dict[int, set[str]] = {}
    for level, names in rows:
        levels.setdefault(int(level), set()).update(re.findall(r"`bioforge/(\w+)", names))
    assert checked == [levels[level] for level in sorted(levels, reverse=True)]
