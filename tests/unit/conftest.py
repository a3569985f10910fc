"""No example has to be quick: how long one takes says more about the machine than about the code."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
