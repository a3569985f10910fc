"""No example has to be quick: how long one takes says more about the machine than about the code.

`BIOFORGE_EXAMPLES=10` takes ten times as many examples, as for the properties (see tests/property).
"""

from __future__ import annotations

import os

from hypothesis import settings

EXAMPLES = 30 * int(os.environ.get("BIOFORGE_EXAMPLES") or 1)

settings.register_profile("patient", deadline=None, max_examples=EXAMPLES)
settings.load_profile("patient")
