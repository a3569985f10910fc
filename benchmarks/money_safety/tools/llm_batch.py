"""A job of llm-batch-py with its result cache in the folder; run again every half second, as its cron would be, until
nothing is pending. It has structured outputs only: the text is the JSON that the server made for the schema.

It counts tokens by tiktoken's vocabulary, which it would download; without a network it is looked for in `vocabularies`
in its environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(Path(sys.prefix) / "vocabularies"))

import polars as pl
from llm_batch_py import (
    LockConfig,
    OpenAIConfig,
    ResultCacheStoreConfig,
    Runner,
    StructuredOutputJob,
    structured_template,
)
from pydantic import BaseModel, ConfigDict


class Bio(BaseModel):
    model_config = ConfigDict(extra="forbid")  # strict schemas need it
    text: str


DONE = ("completed", "cached")
OVER = (*DONE, "failed", "expired", "cancelled")


def main() -> int:
    job = json.loads(Path("job.json").read_text("utf-8"))
    rows = [
        {"id": row["id"], "asked": row["messages"][1]["content"], "system": row["messages"][0]["content"]}
        for row in job["rows"]
    ]
    system = rows[0]["system"]
    prompt = structured_template(system=system, messages="{{ row.asked }}", name="bio", version="v1")
    work = StructuredOutputJob(
        name="bios",
        key_cols=["id"],
        input_df=pl.DataFrame(rows),
        prompt_builder=prompt,
        output_model=Bio,
        provider=OpenAIConfig(model=job["model"], api_key=os.environ["OPENAI_API_KEY"], base_url=job["base_url"]),
        result_cache=ResultCacheStoreConfig(root_uri="./.llm_batch_py"),
        lock=LockConfig(ttl_seconds=int(job["timeout"])),
    )
    runner = Runner()
    end = time.monotonic() + 45
    while True:
        frame = runner.run(work)
        found = frame.to_dicts()
        with Path("out.jsonl.new").open("w", encoding="utf-8") as out:
            for row in found:
                if raw := row.get("llm_batch_py_output_raw_text"):
                    out.write(json.dumps({"id": row["id"], "text": raw}) + "\n")
        Path("out.jsonl.new").replace("out.jsonl")
        states = [row["llm_batch_py_status"] for row in found]
        if all(state in OVER for state in states) or time.monotonic() > end:
            print({state: states.count(state) for state in set(states)}, file=sys.stderr)
            return int(any(state not in DONE for state in states))
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
