"""The words of the page that are not numbers."""

from __future__ import annotations

BATCH_TOOLS = ("bioforge-batch", "bioforge-auto", "curator-batch", "batchor", "llm-batch-py")

CAUTIOUS = "bioforge-cautious"

HEAD = """# Money safety

What becomes of the money when something goes wrong: this page is generated from measurements of bioforge and of other tools
that people use for the same job, on the [embedded server](simulator.md), whose ledger knows each answer that was paid for.

```
python benchmarks/money_safety --tools bioforge-async,langchain --scenarios clean,kill --repeats 3 --out results.json
python benchmarks/money_safety/report.py results.json > docs/money-safety.md
```

Without `tools` and `scenarios` it runs all, which takes hours where a machine is busy. Each of the other tools is installed
in an environment of its own; `benchmarks/money_safety/tools` has the script for each, after its own documentation.

```
python -m venv venvs/langchain && venvs/langchain/bin/pip install langchain-openai langchain-community
python -m venv venvs/litellm && venvs/litellm/bin/pip install 'litellm[proxy,caching]' diskcache soundfile
python -m venv venvs/curator && venvs/curator/bin/pip install bespokelabs-curator
python -m venv venvs/batchor && venvs/batchor/bin/pip install batchor
python -m venv venvs/llmbatch && venvs/llmbatch/bin/pip install llm-batch-py
```
"""

SHORT = """The sums over all scenarios. *Avoidable* means that the first answer had been handed over, or lay ready to be
fetched; *in flight*, that it was lost on the way or with the process, so that nobody could know it. A play is one scenario
from its beginning to its end.
"""

CELLS = """Each cell is *paid twice (of these: in flight) / answers lost / answers wrong*, of 30 rows, summed over the plays
where there are several (*in 3*). Behind it stands how many rows had their answer in the end, where that is not all that could
have one. Bold is what did not have to be. `bioforge-cautious` is `bioforge-async` with `maybe_paid = false`: what may have
been paid is not asked again.
"""

COUNTED = """
## How each number is counted

From the server's ledger, and from a proxy between tool and server that notes every request and when its answer was handed
over. Nothing is taken from what a tool says. The server's text follows from the request, so whether a row has the answer to
its own, present request is compared, word by word.

- **Paid twice**: charges for a body that was charged before, byte for byte the same request.
- **In flight**: of these, where no earlier answer to the body could be known: its connection broke, it came after the
  timeout, it was cut off or no answer at all, its line was in no result file, or the process was killed before it was handed
  over or within the quarter of a second after that. Buying again is then a choice, and `maybe_paid = false` makes the other one.
- **Lost**: rows whose answer was handed over or can be fetched, and is in the end neither in the tool's output nor kept by
  it in a form that can be read.
- **Wrong**: texts in the output that are not the answer to the row's present request: another row's, or an older prompt's.
- **Unfit**: texts in the output that are a refusal or were cut off, shown like any other answer.
- **Needless requests**: requests of reruns for bodies whose answer had been there before the rerun began.
- **Finished**: all rows that can be answered are, after at most two more runs of the same command. When they
  are, it is given once more, which must cost nothing. A run that takes more than a minute is killed, and counts as one.
"""

OURS = """`audit` is what bioforge itself says at the end. Each charge whose answer did not arrive was looked for in its state by
the id that went out with the request: it has to be there as paid or maybe paid.
"""

OTHERS = """
## What was seen of the others

In these versions, with these options, on this day:

- **cookbook** has as much in flight as its bucket of requests holds, so a kill finds most rows there. It takes any 200 for
  an answer, also one that is cut. Where nothing can be written it goes on buying.
- **langchain** had not kept every answer that was handed over more than a quarter of a second before a kill, and goes on
  buying where its cache cannot be written. Two runs share what the other one has already finished.
- **litellm** keeps to its cache; two runs at once pay for what both have in flight. A cut answer is an answer.
- **curator** asks again for what was refused or cut, by default ten times for each row, and gives out no dataset while a
  row is missing (by default; what it has can be read in its cache). A changed row makes another dataset, all of which is
  bought. Nothing comes of a batch whose lines stand twice or belong to strangers.
- **curator-batch**, **batchor** and **llm-batch-py** create a batch again whose creation they did not hear of, and do not
  look for it at the provider. **batchor** and **llm-batch-py** leave the results of an expired or cancelled batch where
  they are, and buy the lines that were done again. **batchor** also lets two processes submit the same run, and a run that
  has ended does not see that its input has changed. **llm-batch-py** does not ask again for lines that failed for the quota
  or are missing. **curator-batch** had not ended after a minute where the quota was used up.
"""

STAGE = """Thirty rows, six calls at a time where a tool can be told so, answers after about a tenth of a second; batches take a
second; timeouts of three seconds where a tool knows timeouts.
"""

NOT_RUN = """
## What this page does not say

- Moments are random, and few. They are as fine as this machine lets a process die; on a busy one, answers take long to
  become durable, and what was handed over in the last quarter of a second is forgiven to everybody.
- Thirty rows say nothing about a million.
- The clock jumps for `time.time` only, by a `sitecustomize` in `PYTHONPATH`; a full disk is one in memory (tmpfs).
- bioforge asks by the Responses API, the others by chat completions, except batchor; there an answer has no items.
- The simulator is bioforge's own. It insists on a file name for uploads, which curator does not give: the proxy adds it.
- instructor was not run: it keeps nothing from one run to the next, so there is nothing to go on with. llm-batch-py knows
  structured outputs only, and got a schema with one text.
- Two vocabularies of tiktoken, which curator and llm-batch-py download, were put where they look for them.
"""
