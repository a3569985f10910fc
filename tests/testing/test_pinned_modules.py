"""What backends of vendors may import beside `bioforge.plugin` stays there, and the page says what it is."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"

PINNED = {
    "bioforge.backends.driver": {"drive", "Executor", "broken"},
    "bioforge.backends.threads": {"ThreadExecutor"},
    "bioforge.backends.asyncio": {"AsyncExecutor"},
    "bioforge.backends.transport": {
        "Endings",
        "is_loopback",
        "trust",
        "proxy",
        "sdk_headers",
        "timeouts",
        "lowered",
        "without_key",
        "masked",
        "read_object",
        "id_in",
        "KEEP_ALIVE_SECONDS",
        "PLACEHOLDER_KEY",
    },
    "bioforge.backends.batch.options": {"BatchOptions"},
    "bioforge.backends.scheduler.scheduler": {"Scheduler"},
    "bioforge.backends.openai.plugin": {"OpenAIBackend", "ThreadsBackend", "AsyncBackend", "BatchBackend"},
    "bioforge.backends.openai.client": {"OpenAISender", "OpenAIAsyncSender", "check_key"},
    "bioforge.backends.openai.prices": {"price"},
}


def test_the_names_are_there() -> None:
    for module, names in PINNED.items():
        found = importlib.import_module(module)
        assert not {name for name in names if not hasattr(found, name)}, module


def test_the_page_lists_them() -> None:
    rows = re.findall(r"^\| `(bioforge\.[\w.]+)` \| (.+) \| .+ \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert {module: set(re.findall(r"`\.(\w+)`", names)) for module, names in rows} == PINNED
