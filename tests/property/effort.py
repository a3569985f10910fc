"""How many examples each property is tried with (see conftest.py)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

TIMES = int(os.environ.get("BIOFORGE_EXAMPLES") or 1)
"""By how much the numbers of examples are multiplied."""


SHRINKS = bool(os.environ.get("BIOFORGE_SHRINK"))
"""Whether long stories are made shorter when they fail, which takes minutes."""


def examples(number: int, steps: int = 10, *, shrinks: bool = True) -> settings:
    """So many examples in the default run; `steps` of each in a story told by a state machine.

    There is no database: what was found once is worth a test of its own. And nothing is explained, which takes longer than
    the search. Not `shrinks`: neither is it made smaller, unless that is asked for.
    """
    return settings(
        max_examples=number * TIMES,
        stateful_step_count=steps if TIMES == 1 else steps * 2,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        print_blob=TIMES > 1,
        phases=(Phase.explicit, Phase.generate, *([Phase.shrink] if shrinks or SHRINKS else [])),
        suppress_health_check=list(HealthCheck),
    )
