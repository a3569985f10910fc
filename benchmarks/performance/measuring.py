"""Commands as whole processes: how long, how much of a processor, how much memory at most."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

METER = Path(__file__).parent / "meter.py"
BARE = Path(__file__).parent / "bare.py"
KEY = "sk-simulated"


class NotMeasured(Exception):
    """Why a number cannot be had here; the others can."""


@dataclass(frozen=True, slots=True)
class Took:
    wall: float
    """Seconds from its start to its end."""
    cpu: float
    """Seconds of a processor, user and system, with what it started."""
    peak: float
    """Resident memory at most, in MB."""
    code: int = 0
    out: str = ""

    def figures(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in asdict(self).items() if name in ("wall", "cpu", "peak")}


def took(
    argv: Sequence[str], folder: Path, expected: Sequence[int] = (0,), env: Mapping[str, str] | None = None
) -> Took:
    """A command in a folder that ends with one of the expected codes; NotMeasured with its last words otherwise."""
    with tempfile.NamedTemporaryFile("r") as note, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile() as err:
        subprocess.run(
            [sys.executable, "-I", "-S", str(METER), note.name, *argv],
            cwd=folder,
            env={**os.environ, "OPENAI_API_KEY": KEY, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        figures = note.read().split()
        if not figures or int(figures[3]) not in expected:
            err.seek(0)
            words = " ".join(err.read().decode("utf-8", "replace").split())[-300:]
            raise NotMeasured(f"`{' '.join(map(_short, argv))}` ended with {figures[3:] or 'nothing'}: {words}")
        out.seek(0)
        return Took(float(figures[0]), float(figures[1]), int(figures[2]) / 1024, int(figures[3]), out.read(200_000))


def _short(word: str) -> str:
    return Path(word).name if word.startswith("/") else word


def bioforge(root: Path, *arguments: str, expected: Sequence[int] = (0,)) -> Took:
    return took([sys.executable, "-m", "bioforge", *arguments], root, expected)


def bare(root: Path, name: str, *arguments: object) -> tuple[Took, dict[str, Any]]:
    """One of the scripts in `bare.py`, and what it says about itself."""
    ran = took([sys.executable, str(BARE), name, *map(str, arguments)], root)
    return ran, json.loads(ran.out or "{}")


def best(times: int, measure: Callable[[], Took]) -> Took:
    """The quickest of several, for what takes so little that the machine's other work shows."""
    return min((measure() for _ in range(times)), key=lambda one: one.wall)


def middle(values: Sequence[float]) -> float:
    return float(median(values))
