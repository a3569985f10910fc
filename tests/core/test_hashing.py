"""Released hashes must never change, or paid answers would become stale."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest

from bioforge.core.hashing import canonical, request_hash, request_hasher, row_hash, row_text
from bioforge.core.types import Artist


def test_canonical_json_does_not_depend_on_order() -> None:
    assert canonical({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'.encode()


def test_a_released_request_hash_never_changes() -> None:
    body = canonical({"model": "gpt-6-luna", "input": "Björk"})
    assert request_hash("/v1/responses", body) == (
        "v1:cdfbcec289e9603e3f86821f361e8a11fd0aadf77fec59b3159a91f095909fa0"
    )


@pytest.mark.parametrize(
    ("dialect", "sample", "digest"),
    [
        ("anthropic", 1, "13cd5f79395dd42b95d0ab78273ec17809da07aa981049dfa5ec0b78dc056e4d"),
        ("openai-compatible", 2, "208fbdf0ec62d4c8c0e6e7069afaa63587303766ab0427c7e8fa3316e3fbcf71"),
        ("anthropic", 3, "7db7aaadc1e806831fa7bdbf914f79d82ec48b2bf5de3ee794b1b2434d347abd"),
    ],
)
def test_a_released_hash_of_another_dialect_or_sample_never_changes(dialect: str, sample: int, digest: str) -> None:
    body = canonical({"model": "gpt-6-luna", "input": "Björk"})
    assert request_hash("/v1/responses", body, dialect, sample) == f"v1:{digest}"
    assert request_hasher("/v1/responses", dialect, sample)(body) == f"v1:{digest}"


ODD = {"n": None, "l": [1, {"z": 1.5, "a": "é"}], 'q"': True}


@pytest.mark.parametrize(
    ("row", "digest"),
    [
        (Artist("1", "X"), "f697e9bb4c7d506d48db3a32f3ee6191"),
        (Artist("1", "X", "d", {"a": "b"}), "9075afbe93ebaea2957b57f221725b7b"),
        (Artist('é"\n', "Bj\\örk", "\u2028\x1f\ud800", ODD), "4d4d073446c72dd0978caf99ddc169a3"),
        (Artist('é"\n', "Bj\\örk", "\u2028\x1f\ud800", MappingProxyType(ODD)), "4d4d073446c72dd0978caf99ddc169a3"),
    ],
)
def test_a_released_row_hash_never_changes(row: Artist, digest: str) -> None:
    assert row_hash(row) == digest
    columns = json.dumps(dict(row.columns), ensure_ascii=False, separators=(",", ":")) if row.columns else None
    assert row_text(row) == (digest, columns)


def test_the_endpoint_is_part_of_the_identity() -> None:
    assert request_hash("/v1/responses", b"{}") != request_hash("/v1/chat/completions", b"{}")


def test_values_that_json_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical({"temperature": float("nan")})


def test_a_row_hash_does_not_depend_on_file_and_line() -> None:
    here = Artist("1", "X", "d", {"a": "b"}, "one.csv", 2)
    there = Artist("1", "X", "d", {"a": "b"}, "two.csv", 9)
    assert row_hash(here) == row_hash(there)
    assert row_hash(here) != row_hash(Artist("1", "X", "d", {"a": "c"}))
