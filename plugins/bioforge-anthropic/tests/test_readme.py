"""Check that the README's project runs and that its table lists every option with its default."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bioforge_anthropic import AnthropicBatchOptions
from world import REQUESTS, World

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def test_its_project_works(make_world: Callable[..., World]) -> None:
    world = make_world()
    (text,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    world.write("bioforge.toml", text.replace("https://api.anthropic.com", world.server.base_url))
    world.edit("bioforge.toml", "poll_seconds = 60.0", "poll_seconds = 0.01")
    world.run("run").ok()
    assert world.tiers() == {"batch": REQUESTS}
    assert len(world.read("out/bios.jsonl").splitlines()) == 4


def test_its_table_has_every_option() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", README, re.MULTILINE))
    assert rows == {name: str(value) for name, value in AnthropicBatchOptions().model_dump().items()}
