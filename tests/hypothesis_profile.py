"""Load the hypothesis profile of the suite: no deadline, since the time of an example says more about the machine than the code.

`BIOFORGE_EXAMPLES=10` takes ten times as many examples; tests/property reads it too.
"""

from __future__ import annotations

import os

from hypothesis import settings

EXAMPLES = 30 * int(os.environ.get("BIOFORGE_EXAMPLES") or 1)

settings.register_profile("patient", deadline=None, max_examples=EXAMPLES)
settings.load_profile("patient")
