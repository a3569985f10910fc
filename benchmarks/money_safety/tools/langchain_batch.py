"""`ChatOpenAI.batch` with LangChain's SQLite cache, as its documentation shows them; `return_exceptions` keeps the others."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from langchain_community.cache import SQLiteCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import BaseMessage
from langchain_openai import ChatOpenAI


def main() -> int:
    job = json.loads(Path("job.json").read_text("utf-8"))
    set_llm_cache(SQLiteCache(database_path=".langchain.db"))
    model = ChatOpenAI(
        model=job["model"], base_url=job["base_url"], api_key=os.environ["OPENAI_API_KEY"], timeout=job["timeout"]
    )
    asked = [[(message["role"], message["content"]) for message in row["messages"]] for row in job["rows"]]
    answers = model.batch(asked, config={"max_concurrency": job["concurrency"]}, return_exceptions=True)
    failed = 0
    with Path("out.jsonl.new").open("w", encoding="utf-8") as out:
        for row, answer in zip(job["rows"], answers, strict=True):
            if isinstance(answer, BaseMessage):
                out.write(json.dumps({"id": row["id"], "text": answer.content}) + "\n")
            else:
                failed += 1
                print(f"{row['id']}: {answer!r}"[:200], file=sys.stderr)
    Path("out.jsonl.new").replace("out.jsonl")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
