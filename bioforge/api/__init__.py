"""bioforge as a library: typed answers, one or many, and projects from code.

    generate, generate_many      for event loops; `_sync` for code without one
    Client                       the same with its own configuration, state and budget; safe to share
    Project                      a bioforge.toml: plan, run, results

Importing this loads neither the SDK nor a transport nor the state; the first call does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bioforge.api.client import Client
from bioforge.api.config import BatchConfig, Config, LimitsConfig, ProviderConfig, RetryConfig, SimulatorConfig
from bioforge.api.functions import generate, generate_many, generate_many_sync, generate_sync
from bioforge.api.project import Project
from bioforge.api.types import Answer, Item, ItemResult, Progress, RequestOptions
from bioforge.core.errors import (
    AuthenticationError,
    BadArgument,
    BioforgeError,
    BudgetError,
    ClosedError,
    ConfigError,
    GenerationError,
    HaltedError,
    OutageError,
    PendingError,
    QuotaError,
    RefusedError,
    SchemaValidationError,
    StateError,
    TransportError,
    TruncatedError,
    UnusableError,
)
from bioforge.core.interfaces import Stop
from bioforge.core.types import Usage

if TYPE_CHECKING:
    from bioforge.engine.types import Plan, RunResult

__all__ = [
    "Answer",
    "AuthenticationError",
    "BadArgument",
    "BatchConfig",
    "BioforgeError",
    "BudgetError",
    "Client",
    "ClosedError",
    "Config",
    "ConfigError",
    "GenerationError",
    "HaltedError",
    "Item",
    "ItemResult",
    "LimitsConfig",
    "OutageError",
    "PendingError",
    "Plan",
    "Progress",
    "Project",
    "ProviderConfig",
    "QuotaError",
    "RefusedError",
    "RequestOptions",
    "RetryConfig",
    "RunResult",
    "SchemaValidationError",
    "SimulatorConfig",
    "StateError",
    "Stop",
    "TransportError",
    "TruncatedError",
    "UnusableError",
    "Usage",
    "generate",
    "generate_many",
    "generate_many_sync",
    "generate_sync",
]


def __getattr__(name: str) -> object:
    """Load `Plan` and `RunResult` when they are first used: most programs use them only as annotations."""
    if name in ("Plan", "RunResult"):
        from bioforge.engine import types

        return getattr(types, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
