"""Backends for Anthropic's API: `anthropic` sends single messages, `anthropic-batch` Message Batches."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import Field

from bioforge.plugin import (
    AsyncCallsBackend,
    AsyncSender,
    BackendContext,
    BackendFactory,
    BatchesBackend,
    Options,
    Rendered,
    Usage,
    VendorBackend,
    hookimpl,
)

if TYPE_CHECKING:
    from bioforge_anthropic.batch_service import AnthropicBatches

BIOFORGE_API = 1

MESSAGES = "/v1/messages"

MAX_REQUESTS = 100_000
"""Requests that the API takes in one batch."""

MAX_BYTES = 256_000_000
"""Bytes that the API takes in one batch: 256 MB."""


class AnthropicOptions(Options):
    """Options of the table `[backend.anthropic]`, which has no keys."""


class AnthropicBatchOptions(Options):
    """Options of the table `[backend.anthropic-batch]`: batch sizes and polling."""

    max_requests: int = Field(
        MAX_REQUESTS, gt=0, le=MAX_REQUESTS, description=f"a whole number from 1 to {MAX_REQUESTS:,}"
    )
    max_bytes: int = Field(
        200_000_000, ge=1_000, le=MAX_BYTES, description=f"a whole number of bytes from 1,000 to {MAX_BYTES:,}"
    )
    poll_seconds: float = Field(60.0, gt=0, description="seconds, above 0")
    poll_max_seconds: float = Field(300.0, gt=0, description="seconds, above 0")


class AnthropicVendor(VendorBackend):
    """The base of both backends: bodies and prices."""

    dialect = "anthropic"
    endpoints = (MESSAGES,)
    base_url = "https://api.anthropic.com"

    def check(self) -> None:
        from bioforge_anthropic.client import check_context

        check_context(self.context)

    def body(self, rendered: Rendered) -> dict[str, object]:
        from bioforge_anthropic.wire import body

        return body(rendered)

    def price(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        from bioforge_anthropic.prices import price

        return price(model, usage, service_tier)


class AnthropicBackend(AnthropicVendor, AsyncCallsBackend):
    """The backend `anthropic`: all messages on one event loop."""

    Options = AnthropicOptions

    def open_sender(self) -> AsyncSender:
        from bioforge_anthropic.client import MessagesSender

        return MessagesSender(self.context)


class AnthropicBatchBackend(AnthropicVendor, BatchesBackend):
    """The backend `anthropic-batch`: half the price, answers within a day."""

    Options = AnthropicBatchOptions

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        from bioforge.plugin import BatchOptions

        given = context.options
        options = given if isinstance(given, AnthropicBatchOptions) else AnthropicBatchOptions.model_validate(given)
        self.options = BatchOptions(
            options.max_requests, options.max_bytes, None, options.poll_seconds, options.poll_max_seconds
        )

    @cached_property
    def service(self) -> AnthropicBatches:
        from bioforge_anthropic.batch_service import AnthropicBatches

        return AnthropicBatches(self.context)

    def close(self) -> None:
        self.service.close()

    def price(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        return super().price(model, usage, service_tier or self.tier)


@hookimpl
def bioforge_backends() -> Mapping[str, BackendFactory]:
    return {"anthropic": AnthropicBackend, "anthropic-batch": AnthropicBatchBackend}
