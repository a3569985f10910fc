"""What has to be done before the rest of the kit is imported: an assertion of a contract that fails is to say what it
found. Says how to get pytest, where it is missing."""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "bioforge.testing needs pytest, which is not installed: pip install 'bioforge[test]'", name=missing.name
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
