"""The table `[backend.batch]`: size limits and polling intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from bioforge.core.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Sizes in requests, bytes and estimated input tokens; times in seconds."""

    max_requests: int = 50_000
    max_bytes: int = 200_000_000
    max_enqueued_tokens: int | None = None
    """For each model; None: learned from the provider's refusals."""
    poll_seconds: float = 15.0
    """Until the first look at a batch; later intervals grow up to `poll_max_seconds`."""
    poll_max_seconds: float = 300.0

    @classmethod
    def from_options(
        cls,
        options: Mapping[str, Any],
        table: str = "backend.batch",
        *,
        max_requests: int = 50_000,
        max_bytes: int = 209_715_200,
    ) -> Self:
        """Return the options of a table. Raises `ConfigError` for unknown keys and invalid values.

        `max_requests` and `max_bytes` are the vendor's upper limits.
        """
        known = {field.name for field in fields(cls)}
        for key, value in options.items():
            if key not in known:
                near = nearest(key, known) or f"keys are: {', '.join(sorted(known))}"
                raise ConfigError(f"{table}.{key}: unknown key", near)
            whole = key.startswith("max_")
            kinds = (int,) if whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
                raise ConfigError(
                    f"{table}.{key}: expected a {'whole ' if whole else ''}number above 0, found {value!r}"
                )
        made = cls(**options)
        for key, most in (("max_requests", max_requests), ("max_bytes", max_bytes)):
            if getattr(made, key) > most:
                raise ConfigError(f"{table}.{key}: at most {most:,} are allowed, found {getattr(made, key):,}")
        return made
