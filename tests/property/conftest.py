"""Properties: what holds for any edits, runs, faults, kills and bytes.

The default run is small and the same each time: hypothesis derives its examples from the tests alone. For a long one, by
anybody with time to spare:

    BIOFORGE_EXAMPLES=100 pytest tests/property -n 0 --timeout=0 --hypothesis-seed=1

takes a hundred times as many examples, other ones with each seed, and longer stories. A failure prints the line that
repeats it; `BIOFORGE_SHRINK=1` makes stories of a project shorter when they fail, which takes minutes. `-m slow` runs the
stories in which processes are really killed.
"""

from __future__ import annotations
