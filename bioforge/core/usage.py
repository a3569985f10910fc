"""Limit the tokens that a provider reports, so that one wrong number ruins no price, estimate or average."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from bioforge.core.events import Notice
from bioforge.core.types import Request, Response, Usage

MOST_INPUT = 10_000_000
"""Highest believed number of input tokens, for requests of up to as many bytes.

The request does not bound it: reusable prompts, images, files and searches count too.
"""

MOST_OUTPUT = 1_000_000
"""Highest believed number of output tokens of a request without a limit. The body does not show hidden reasoning."""

SLACK = 10_000
"""Output tokens that are believed beyond any limit: some servers ignore it, or do not count hidden reasoning in it."""

_LIMIT = re.compile(rb'(?<!\\)"max_(?:output_|completion_)?tokens"\s*:\s*(\d{1,18})')
_Answer = TypeVar("_Answer", Response, Response | None)


def limit_in(body: bytes) -> int | None:
    """Return the highest limit of output tokens in a request's body, under any endpoint's name; None without one."""
    return max(map(int, _LIMIT.findall(body)), default=None)


def is_plausible(usage: Usage, requests: int = 1) -> bool:
    """Return True if so many requests of unknown size can have used these tokens."""
    return usage.input_tokens <= MOST_INPUT * requests and usage.output_tokens <= MOST_OUTPUT * requests


class UsageLimits:
    """Removes usage, with the price computed from it, that its request and body cannot have caused. Keeps the body."""

    def __init__(self) -> None:
        self._removed: list[Usage] = []
        self._told = False

    def __call__(self, answer: _Answer, request: Request | None = None) -> _Answer:
        """Return the answer with believable tokens: parts are at most their whole, and implausible usage is None."""
        usage = None if answer is None else answer.usage
        if answer is None or usage is None:
            return answer
        size, limit = (0, None) if request is None else (len(request.body), request.max_output_tokens)
        most_output = max(MOST_OUTPUT if limit is None else limit, len(answer.body), SLACK)
        if usage.input_tokens > max(MOST_INPUT, size) or usage.output_tokens > most_output:
            self._removed.append(usage)
            return replace(answer, usage=None, cost_usd=None)
        cached = min(usage.cached_tokens, usage.input_tokens)
        written = min(usage.cache_write_tokens, usage.input_tokens - cached)
        reasoning = min(usage.reasoning_tokens, usage.output_tokens)
        consistent = Usage(usage.input_tokens, usage.output_tokens, cached, written, reasoning)
        return answer if consistent == usage else replace(answer, usage=consistent)

    def notices(self) -> Iterator[Notice]:
        """Yield a notice of the first implausible usage, once."""
        if self._removed and not self._told:
            self._told, usage = True, self._removed[0]
            yield Notice(
                "usage",
                f"an answer reports {usage.input_tokens:,} input and {usage.output_tokens:,} output tokens, which its"
                " request and size cannot have; its usage and price count as unknown; compare with the provider's bill",
            )
