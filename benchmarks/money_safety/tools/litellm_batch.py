"""`litellm.batch_completion` with litellm's disk cache, as its documentation shows them; what failed is an exception.

In litellm 1.106 a hit of the cache needs what `litellm[proxy]` and soundfile install; without them it is an ImportError.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # no list of prices from the network

import litellm
from litellm.caching.caching import Cache

litellm.suppress_debug_info = True
litellm.cache = Cache(type="disk", disk_cache_dir=".litellm_cache")


def main() -> int:
    job = json.loads(Path("job.json").read_text("utf-8"))
    answers = litellm.batch_completion(
        model=f"openai/{job['model']}",
        messages=[row["messages"] for row in job["rows"]],
        api_base=job["base_url"],
        api_key=os.environ["OPENAI_API_KEY"],
        caching=True,
        max_workers=job["concurrency"],
        timeout=job["timeout"],
    )
    failed = 0
    with Path("out.jsonl.new").open("w", encoding="utf-8") as out:
        for row, answer in zip(job["rows"], answers, strict=True):
            if isinstance(answer, Exception):
                failed += 1
                print(f"{row['id']}: {answer!r}"[:200], file=sys.stderr)
            else:
                out.write(json.dumps({"id": row["id"], "text": answer.choices[0].message.content}) + "\n")
    Path("out.jsonl.new").replace("out.jsonl")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
