"""Prices: what is quick must be what genai-prices says."""

from __future__ import annotations

from random import Random

import genai_prices
import pytest

from bioforge.backends.openai.prices import price
from bioforge.core.types import Usage

MODELS = ("gpt-6-luna", "gpt-6.1-terra", "gpt-6-luna-2026-05-01", "gpt-5", "gpt-4o-mini", "gpt-3.5-turbo")


def told(model: str, usage: Usage, tier: str | None) -> float:
    context = {"processing": "batch"} if tier == "batch" else {"service_tier": tier} if tier else None
    tokens = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    found = genai_prices.calc_price(tokens, model, provider_id="openai", price_context=context)  # type: ignore[arg-type]
    return float(found.total_price)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("tier", [None, "default", "flex", "priority", "batch"])
def test_every_usage_costs_what_the_table_says(model: str, tier: str | None) -> None:
    random = Random(f"{model}{tier}")
    for most in (2_000, 100_000, 400_000):
        for _ in range(8):
            read = random.randint(0, most)
            cached = random.randint(0, read)
            written = random.randint(0, read - cached)
            usage = Usage(read, random.randint(0, most // 4), cached, written)
            assert price(model, usage, tier) == pytest.approx(told(model, usage, tier), abs=1e-12)


def test_flex_and_batch_are_cheaper_and_priority_is_not() -> None:
    usage = Usage(input_tokens=1000, output_tokens=500)
    standard = price("gpt-6-luna", usage)
    assert standard is not None
    assert price("gpt-6-luna", usage, "flex") == pytest.approx(standard / 2)
    assert price("gpt-6-luna", usage, "batch") == pytest.approx(standard / 2)
    assert (price("gpt-6-luna", usage, "priority") or 0) > standard


def test_an_unknown_model_has_no_price() -> None:
    assert price("llama-on-my-desk", Usage(10, 10)) is None
    assert price("", Usage(10, 10)) is None


def test_more_cached_than_read_is_taken_at_what_was_read() -> None:
    assert price("gpt-6-luna", Usage(100, 10, cached_tokens=500)) == price(
        "gpt-6-luna", Usage(100, 10, cached_tokens=100)
    )


def test_nothing_costs_nothing() -> None:
    assert price("gpt-6-luna", Usage()) == 0.0
