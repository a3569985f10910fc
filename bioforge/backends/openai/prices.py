"""Prices in US dollars from genai-prices: offline, and as old as the installed package.

A look-up takes about 90 µs. Token prices are linear nearly everywhere, so the rates of a model are looked up once,
checked, and used; where they are not linear, each usage is looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from bioforge.core.types import Usage

LINEAR_UP_TO = 100_000
"""Tokens of input and of output up to which rates are checked and used; long contexts may have other prices."""


@dataclass(frozen=True, slots=True)
class Rates:
    """US dollars per token."""

    input: float
    cached: float
    cache_write: float
    output: float

    def price(self, usage: Usage) -> float:
        """Return US dollars for `usage`; None for a model without a known price.

        `service_tier` as the answer names it (`default`, `flex`, `priority`), or `batch` for the Batch API.
        """
        plain = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
        return (
            plain * self.input
            + usage.cached_tokens * self.cached
            + usage.cache_write_tokens * self.cache_write
            + usage.output_tokens * self.output
        )


def price(model: str, usage: Usage, service_tier: str | None = None) -> float | None:
    """US dollars for `usage`; None for a model without a known price.

    `service_tier` as the answer names it (`default`, `flex`, `priority`), or `batch` for the Batch API.
    """
    usage = _consistent(usage)
    rates = _rates(model, service_tier)
    if rates is not None and not usage.web_searches and max(usage.input_tokens, usage.output_tokens) <= LINEAR_UP_TO:
        return rates.price(usage)
    return _exact(model, usage, service_tier)


@lru_cache(maxsize=1024)
def _rates(model: str, service_tier: str | None) -> Rates | None:
    """Return the rates of a model, or None if its price is unknown or not linear."""
    n = 1000
    kinds = (
        Usage(input_tokens=n),
        Usage(input_tokens=n, cached_tokens=n),
        Usage(input_tokens=n, cache_write_tokens=n),
        Usage(output_tokens=n),
    )
    prices = [_exact(model, usage, service_tier) for usage in kinds]
    known = [price / n for price in prices if price is not None]
    if len(known) < len(kinds):
        return None
    rates = Rates(*known)
    third = LINEAR_UP_TO // 3
    far = Usage(LINEAR_UP_TO, LINEAR_UP_TO, cached_tokens=third, cache_write_tokens=third)
    exact = _exact(model, far, service_tier)
    return rates if exact is not None and abs(rates.price(far) - exact) < 1e-9 else None


@lru_cache(maxsize=65_536)
def _exact(model: str, usage: Usage, service_tier: str | None) -> float | None:
    # Imported here: 0.2 s that `--help` has no use for.
    import genai_prices
    from genai_prices.types import PriceContext

    tokens = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        **({"web_searches": usage.web_searches} if usage.web_searches else {}),
    )
    context: PriceContext | None = None
    if service_tier == "batch":
        context = {"processing": "batch"}
    elif service_tier:
        context = {"service_tier": service_tier}
    try:
        found = genai_prices.calc_price(tokens, model, provider_id="openai", price_context=context)
    except (LookupError, ValueError):
        return None
    return float(found.total_price)


def _consistent(usage: Usage) -> Usage:
    """Limit cached tokens to the input, of which they are part; some servers count otherwise."""
    if usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens:
        return usage
    cached = min(usage.cached_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    return Usage(usage.input_tokens, usage.output_tokens, cached, written, usage.reasoning_tokens, usage.web_searches)
