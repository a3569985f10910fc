"""`relaxed_gc` raises Python's default thresholds and restores them."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest

from bioforge.core import gc_tuning
from bioforge.core.gc_tuning import relaxed_gc


def test_thresholds_are_raised_in_the_block_and_restored_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = gc.get_threshold()
    monkeypatch.setattr(gc_tuning, "_DEFAULT", before)
    with suppress(KeyError), relaxed_gc():
        assert gc.get_threshold()[0] > before[0]
        raise KeyError
    assert gc.get_threshold() == before


def test_changed_thresholds_are_left_alone() -> None:
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with relaxed_gc():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)
