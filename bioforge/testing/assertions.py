"""Register the kit for pytest's assertion rewriting before the rest is imported.

Say how to get pytest if it is missing.
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "bioforge.testing needs pytest, which is not installed: pip install 'bioforge-llm[test]'", name=missing.name
    ) from None

ASSERTING = (
    "processes",
    "folders",
    "recorder",
    "state",
    "reader_format",
    "readers",
    "writers",
    "bench",
    "stops",
    "backends",
)

Config = pytest.Config

pytest.register_assert_rewrite(*(f"bioforge.testing.{module}" for module in ASSERTING))
