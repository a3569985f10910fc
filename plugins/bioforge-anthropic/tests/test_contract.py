"""Run the backend contract for both backends against a server like Anthropic's."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any, ClassVar

from bioforge_anthropic import AnthropicBackend, AnthropicBatchBackend
from server import AnthropicServer

from bioforge.plugin import BackendFactory, Rendered
from bioforge.testing import BackendContract


def limited(rendered: Rendered) -> Rendered:
    """Add `max_tokens`, which Anthropic requires, if it is missing."""
    return replace(rendered, parameters={"max_output_tokens": 400, **rendered.parameters})


class Limited(AnthropicBackend):
    def body(self, rendered: Rendered) -> dict[str, object]:
        return super().body(limited(rendered))


class LimitedBatches(AnthropicBatchBackend):
    def body(self, rendered: Rendered) -> dict[str, object]:
        return super().body(limited(rendered))


class _Anthropic(BackendContract):
    model = "claude-haiku-4-5"
    needs_key = True
    refusals: ClassVar = {"rate_limit": "rate_limit", "overloaded": "overloaded", "server_error": "server_error"}
    unusable: ClassVar = {"max_tokens": "truncated", "refusal": "refusal", "paused": "incomplete"}
    random_faults: ClassVar = dict.fromkeys(
        (
            "rate_limit",
            "overloaded",
            "server_error",
            "bad_request",
            "drop_before",
            "drop_after",
            "truncated",
            "malformed",
        ),
        0.03,
    )
    invalid_key = "sk-ant-invalid"

    def start_server(self, stack: ExitStack, **options: Any) -> AnthropicServer:
        return stack.enter_context(AnthropicServer(**options))


class TestMessages(_Anthropic):
    def factory(self) -> BackendFactory:
        return Limited


class TestBatches(_Anthropic):
    batch = True
    options: ClassVar = {"poll_seconds": 0.01, "poll_max_seconds": 0.05}
    random_faults: ClassVar = dict.fromkeys(("rate_limit", "overloaded", "server_error", "bad_request"), 0.05)

    def factory(self) -> BackendFactory:
        return LimitedBatches


del _Anthropic
