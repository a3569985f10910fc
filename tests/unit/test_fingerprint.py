"""Hashes are a promise: the ones written here must never change, or answers that were paid for would become stale."""

from __future__ import annotations

import pytest

from bioforge.fingerprint import canonical, request_hash, row_hash
from bioforge.model import Artist


def test_canonical_json_does_not_depend_on_order() -> None:
    assert canonical({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'.encode()


def test_a_released_request_hash_never_changes() -> None:
    body = canonical({"model": "gpt-6-luna", "input": "Björk"})
    assert request_hash("/v1/responses", body) == (
        "v1:cdfbcec289e9603e3f86821f361e8a11fd0aadf77fec59b3159a91f095909fa0"
    )


def test_the_endpoint_is_part_of_the_identity() -> None:
    assert request_hash("/v1/responses", b"{}") != request_hash("/v1/chat/completions", b"{}")


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical({"temperature": float("nan")})


def test_a_row_is_the_same_wherever_it_stands() -> None:
    here = Artist("1", "X", "d", {"a": "b"}, "one.csv", 2)
    there = Artist("1", "X", "d", {"a": "b"}, "two.csv", 9)
    assert row_hash(here) == row_hash(there)
    assert row_hash(here) != row_hash(Artist("1", "X", "d", {"a": "c"}))
