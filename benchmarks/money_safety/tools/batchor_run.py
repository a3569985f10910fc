"""A durable run of batchor: a fixed run id, SQLite storage and a checkpointed source, by which its documentation resumes.

The run id is made from the prompt. Where batchor refuses to go on because the input has changed, a person begins a new run.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from batchor import BatchJob, BatchRunner, OpenAIProviderConfig, PromptParts, SQLiteStorage
from batchor.sources.files import JsonlItemSource


def main() -> int:
    text = Path("job.json").read_text("utf-8")
    job = json.loads(text)
    os.environ["OPENAI_BASE_URL"] = job["base_url"]
    source_text = "".join(json.dumps({"id": row["id"], "messages": row["messages"]}) + "\n" for row in job["rows"])
    source = Path("source.jsonl")
    if not source.exists() or source.read_text("utf-8") != source_text:
        source.write_text(source_text, "utf-8")
    system = job["rows"][0]["messages"][0]["content"]
    runner = BatchRunner(storage=SQLiteStorage(path="batchor.sqlite3"))

    def started(name: str) -> Any:
        items = JsonlItemSource(source, item_id_from_row=lambda row: row["id"], payload_from_row=lambda row: row)
        return runner.start(
            BatchJob(
                items=items,
                build_prompt=lambda item: PromptParts(
                    prompt=item.payload["messages"][1]["content"], system_prompt=system
                ),
                provider_config=OpenAIProviderConfig(
                    model=job["model"], api_key=os.environ["OPENAI_API_KEY"], poll_interval_sec=0.5
                ),
            ),
            run_id=name,
        )

    try:
        run = started("bios-" + hashlib.sha256(system.encode()).hexdigest()[:12])
    except Exception as error:
        print(f"a new run: {error!r}", file=sys.stderr)
        run = started("bios-" + hashlib.sha256((system + source_text).encode()).hexdigest()[:12])
    if run.control_state.value == "paused":
        run.resume()  # it pauses by itself when the quota is used up
    failed = 0
    try:
        run.wait(timeout=45)
    except Exception as error:
        print(f"not finished: {error!r}", file=sys.stderr)
        failed = 1
    with Path("out.jsonl.new").open("w", encoding="utf-8") as out:
        for result in run.snapshot().items:
            if result.output_text:
                out.write(json.dumps({"id": result.item_id, "text": result.output_text}) + "\n")
            else:
                failed += 1
                print(f"{result.item_id}: {result.error}"[:200], file=sys.stderr)
    Path("out.jsonl.new").replace("out.jsonl")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
