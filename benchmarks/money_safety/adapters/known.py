"""All tools by name, with the interpreters that have them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from adapters import Adapter
from adapters.bioforge import Bioforge
from adapters.scripts import Cookbook, Curator, Script

BACKENDS = ("threads", "async", "batch", "auto")


def known(pythons: str) -> dict[str, Callable[[], Adapter]]:
    """Makers by name. `pythons` is the path of a tool's interpreter with `{tool}` for its name."""

    def python(tool: str) -> str:
        return pythons.replace("{tool}", tool)

    found: dict[str, Callable[[], Adapter]] = {
        f"bioforge-{backend}": partial(Bioforge, backend) for backend in BACKENDS
    }
    never = "[retry]\nmaybe_paid = false\n"
    found["bioforge-cautious"] = lambda: Bioforge("async", name="bioforge-cautious", more=never)
    curator = ["bespokelabs-curator", "openai"]
    found |= {
        "cookbook": Cookbook,
        "litellm": lambda: Script("litellm", "litellm_batch.py", python("litellm"), ["litellm", "diskcache", "openai"]),
        "langchain": lambda: Script(
            "langchain",
            "langchain_batch.py",
            python("langchain"),
            ["langchain-openai", "langchain-community", "openai"],
        ),
        "curator": lambda: Curator("curator", "curator_run.py", python("curator"), curator),
        "curator-batch": lambda: Curator("curator-batch", "curator_run.py", python("curator"), curator, ["batch"]),
        "batchor": lambda: Script("batchor", "batchor_run.py", python("batchor"), ["batchor", "openai"], ["batch"]),
        "llm-batch-py": lambda: Script(
            "llm-batch-py", "llm_batch.py", python("llmbatch"), ["llm-batch-py", "openai"], ["batch"]
        ),
    }
    return found
