"""Compute prices in US dollars from the installed tables of genai-prices, offline."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from bioforge.plugin import Usage

BATCH = "batch"
"""The price tier of everything that is bought in a batch."""

BATCH_SHARE = 0.5
"""All usage in a batch costs half of what it costs otherwise."""

LONG_LIVED = 0.75
"""What a token costs that is written to the cache for an hour and not for five minutes, beyond the price of that: 2 times
the price of input instead of 1.25 times."""


def price(model: str, usage: Usage, service_tier: str | None = None, long_lived: int = 0) -> float | None:
    """Return US dollars for `usage`; None for a model without a known price.

    `service_tier` is `batch` or the tier in the answer (`standard` and `priority` have the same price). `long_lived` is
    the part of `usage.cache_write_tokens` that is cached for an hour.
    """
    usual = _usual(model, _consistent(replace(usage, web_searches=0)))
    if usual is None:
        return None
    if long_lived and (one := _usual(model, Usage(1_000))) is not None:
        usual += one / 1_000 * LONG_LIVED * min(long_lived, usage.cache_write_tokens)
    if service_tier == BATCH:
        usual *= BATCH_SHARE
    # searches cost the same in a batch
    return usual + ((_usual(model, Usage(web_searches=usage.web_searches)) or 0.0) if usage.web_searches else 0.0)


@lru_cache(maxsize=65_536)
def _usual(model: str, usage: Usage) -> float | None:
    # imported here: takes 0.2 s
    import genai_prices

    tokens = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        **({"web_searches": usage.web_searches} if usage.web_searches else {}),
    )
    try:
        found = genai_prices.calc_price(tokens, model, provider_id="anthropic")
    except (LookupError, ValueError):
        return None
    return float(found.total_price)


def _consistent(usage: Usage) -> Usage:
    """Return usage whose cached tokens do not exceed the input."""
    if usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens:
        return usage
    cached = min(usage.cached_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    return Usage(usage.input_tokens, usage.output_tokens, cached, written, usage.reasoning_tokens)
