"""The words of the page that are not numbers."""

from __future__ import annotations

HEAD = """# Performance

How fast bioforge is, what safety costs against a script that keeps nothing, and whether it stays so at a million rows: this
page is generated from measurements. Everything ran on one machine, on loopback. A ratio compares two things of the same run.

```
python benchmarks/performance --out results.json
python benchmarks/performance/report.py results.json > docs/performance.md
```

Results are added to the file cell by cell, so that it can be done in parts, and each row of the table again with more rows:

```
python benchmarks/performance first-plan nothing-changed one-changed memory batch-lines export --rows 1000000
python benchmarks/performance table --rows 50000
python benchmarks/performance scale --sizes 10000,100000
python benchmarks/performance comparison --tools bioforge-async,cookbook
python benchmarks/performance --quick --out quick.json
```

The other tools of the comparison are installed in environments of their own, `venvs/litellm`, `venvs/langchain` and
`venvs/curator`, as [money safety](money-safety.md) shows.
"""

GOALS = """Each is a ratio, or a figure, with its goal where there is one. What is bare or by hand is a script in
`benchmarks/performance/bare.py`, run as a process of its own like bioforge, and interleaved with it where there are several runs;
then the median counts.
"""

MISSED = """
### Not reached
"""

ALL_REACHED = """
All goals are reached.
"""

FIGURES = """
### What the ratios are made of
"""

SCALE = """
## From small to large

Each job with so many rows, as a whole process: seconds, seconds of a processor, memory at its peak. The last column says by
how much seconds and memory grow from the smallest size to the largest. What takes little is the quickest of three.
"""

STATE = """
The state with its log after every row was asked, in bytes for an answer. The answers of nginx have about {bytes:,} bytes; the
state keeps them as they came, with text, usage and price, the row, the request and the attempt. By batches they are the
embedded server's.
"""

SOAK = """
## A long run

{rows:,} answers from the embedded server with five faults in a hundred: limits, errors, broken connections, answers that are
cut. Memory and open files of the run were looked at every second.
"""

COMPARISON = """
## Beside other tools

The same {rows:,} rows on the same server, 64 calls at once where a tool can be told so, each as its own documentation shows it,
with a cache or results file where it has one, and without a rate limit. Rows a second are of the whole process, from its start to
its end. Then the same command again with nothing changed, and with one row changed: what a person waits for, and what is sent.
"""

COMPARED = """
- bioforge makes every intent durable before it is sent and every answer before it is shown; what the others keep when
  something goes wrong is on the page about [money safety](money-safety.md). It asks by the Responses API, the others by chat
  completions, whose answers are shorter.
- cookbook is the script of the OpenAI cookbook, rewritten, with a memory added. It has no bound for calls at once.
- {batch_only} are not here: they have batches only, no calls. instructor keeps nothing from one run to the next.
"""

NOT_SAID = """
## What this page does not say

- A server on the same machine takes its part of the processors: with more of them, both sides of a ratio are faster.
- The texts of nginx are made of random sentences of few words; how much smaller packed bodies are depends on what is in real
  ones.
- Real answers take seconds, and accounts have limits: there the row with slow answers is the one to look at.
- Memory is resident memory as Linux counts it, which includes pages of files that are shared.
"""
