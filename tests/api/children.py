"""Functions that killed processes run: `processes.Child` starts them with everything imported."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from bioforge.api import Client, Config, LimitsConfig, SimulatorConfig

from .clients import configured

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "evaluation" / "keeps_facts.py"


def ask_many(base_url: str, state: Path, backend: str, number: int) -> None:
    config = configured(base_url, limits=LimitsConfig(concurrency=8), backend=backend)
    with Client(config, state=state) as client:
        for outcome in client.generate_many_sync(f"Artist {place}" for place in range(number)):
            outcome.unwrap()


def evaluate(state: Path) -> None:
    """Run the script of the examples."""
    sys.argv = [str(EXAMPLE), str(state)]
    runpy.run_path(str(EXAMPLE), run_name="__main__")


def evaluate_slowly(state: Path) -> None:
    """Run the evaluation of the examples with slow answers."""
    sys.path.insert(0, str(EXAMPLE.parent))
    from keeps_facts import KeepsFacts

    simulator = SimulatorConfig(latency=0.1)
    config = Config(model="gpt-6-luna", limits=LimitsConfig(concurrency=2), simulator=simulator)
    KeepsFacts().evaluate_sync(config, state=state)
