"""`bespokelabs.curator.LLM` with its cache in the folder: `curator_run.py` calls, `curator_run.py batch` buys a batch."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["CURATOR_CACHE_DIR"] = str(Path("curator-cache").absolute())
os.environ["TELEMETRY_ENABLED"] = "0"
os.environ["CURATOR_VIEWER"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
# The vocabulary by which it counts tokens, which it would download, comes with litellm, on which it depends.
litellm = importlib.util.find_spec("litellm")
assert litellm is not None
os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(str(litellm.origin)).parent / "litellm_core_utils" / "tokenizers")

from bespokelabs import curator  # noqa: E402
from datasets import Dataset  # noqa: E402


class Biographer(curator.LLM):  # type: ignore[misc]
    def prompt(self, row: dict[str, Any]) -> list[dict[str, str]]:
        return [{"role": "system", "content": row["system"]}, {"role": "user", "content": row["user"]}]

    def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
        return {"id": row["id"], "text": response}


def main() -> int:
    job = json.loads(Path("job.json").read_text("utf-8"))
    batch = sys.argv[1:] == ["batch"]
    given: dict[str, Any] = {"base_url": job["base_url"], "api_key": os.environ["OPENAI_API_KEY"]}
    if batch:
        given |= {"batch_check_interval": 1}
    else:
        given |= {"max_concurrent_requests": job["concurrency"], "request_timeout": int(job["timeout"]),
                  "max_requests_per_minute": 5000, "max_tokens_per_minute": 2_000_000}  # fmt: skip
    rows = [
        {"id": row["id"], "system": row["messages"][0]["content"], "user": row["messages"][1]["content"]}
        for row in job["rows"]
    ]
    model = Biographer(model_name=job["model"], backend="openai", batch=batch, backend_params=given)
    answers = model(Dataset.from_list(rows)).dataset
    with Path("out.jsonl.new").open("w", encoding="utf-8") as out:
        out.writelines(json.dumps({"id": row["id"], "text": row["text"]}) + "\n" for row in answers)
    Path("out.jsonl.new").replace("out.jsonl")
    return int(len(answers) < len(rows))


if __name__ == "__main__":
    sys.exit(main())
