"""The simulator: an OpenAI-compatible server on loopback, with batches, latency, limits, faults and its own ledger.

```python
with Simulator(SimulatorOptions(latency=0.1, faults={"rate_limit": 0.05})) as server:
    ...  # any client, with base_url=server.base_url and any key
    assert server.ledger.totals().charges == 10
```
"""

from bioforge.simulator.batch_faults import BATCH_FAULTS
from bioforge.simulator.faults import FAULTS
from bioforge.simulator.ledger import BatchCounts, Charge, Ledger, RequestCounts, Totals
from bioforge.simulator.options import Outage, SimulatorOptions
from bioforge.simulator.server import Simulator, serve

__all__ = [
    "BATCH_FAULTS",
    "FAULTS",
    "BatchCounts",
    "Charge",
    "Ledger",
    "Outage",
    "RequestCounts",
    "Simulator",
    "SimulatorOptions",
    "Totals",
    "serve",
]
