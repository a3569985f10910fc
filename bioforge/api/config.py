"""A client's configuration: provider, limits, retries, batches, simulator. Frozen pydantic models.

They derive from the tables of a project file, so that a key has the same name, bounds and default in both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, SecretStr, ValidationError, model_validator

from bioforge.config.environment import Environment
from bioforge.config.tables import SIMULATOR, LimitsTable, ProviderTable, RetryTable, SimulatorTable, Table, Text
from bioforge.core.errors import ConfigError
from bioforge.core.interfaces import Limits, RetryPolicy


class ProviderConfig(ProviderTable):
    """The provider.

    `base_url` and `api_key` win over the environment (`OPENAI_BASE_URL`, and the variable that `api_key_env` names);
    `timeout` is the limit of one attempt, in seconds.
    """

    if TYPE_CHECKING:  # show the defaults to type checkers
        base_url: str = SIMULATOR
        api_key_env: str = "OPENAI_API_KEY"
        timeout: float = 600.0
        allow_http: bool = False
    api_key: SecretStr | None = Field(default=None, description="a key; default: read from the environment")


class LimitsConfig(LimitsTable):
    """Limits of a client. `concurrency`: requests in flight at once, over all callers."""

    if TYPE_CHECKING:
        requests_per_minute: float | None = None
        tokens_per_minute: float | None = None
        max_cost_usd: float | None = None
    concurrency: Annotated[int, Field(ge=1, le=16_384)] = Field(
        default=64, description="a whole number from 1 to 16384"
    )


class RetryConfig(RetryTable):
    """Retries; times in seconds. `maybe_paid`: resend requests that may have been charged."""

    if TYPE_CHECKING:
        max_attempts: int = 6
        first_delay: float = 0.5
        max_delay: float = 60.0
        maybe_paid: bool = True
        outage_seconds: float = 300.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max_delay < self.first_delay:
            raise ValueError(
                f"max_delay: expected at least first_delay ({self.first_delay:g}), found {self.max_delay:g}"
            )
        return self


class BatchConfig(Table):
    """Size limits of batches and polling intervals, for `backend="batch"`."""

    max_requests: Annotated[int, Field(ge=1, le=50_000)] = Field(default=50_000, description="from 1 to 50,000")
    max_bytes: Annotated[int, Field(ge=1, le=209_715_200)] = Field(default=200_000_000, description="up to 200 MiB")
    max_enqueued_tokens: Annotated[int, Field(ge=1)] | None = Field(default=None, description="a whole number from 1")
    poll_seconds: Annotated[float, Field(gt=0)] = Field(default=15.0, description="seconds, above 0")
    poll_max_seconds: Annotated[float, Field(gt=0)] = Field(default=300.0, description="seconds, above 0")


class SimulatorConfig(SimulatorTable):
    """Options of the embedded server, named as in a project file; see docs/simulator.md."""

    if TYPE_CHECKING:
        latency: float = 0.0
        latency_sigma: float = 0.0
        requests_per_minute: int = 0
        tokens_per_minute: int = 0
        seed: int = 0
        quota_after: int = 0
        faults: dict[str, Any] = {}
        retry_after: float = 0.0
        hang_seconds: float = 0.0
        several_parts: float = 0.0
        ledger: str | None = None
        batch_seconds: float = 0.0
        batch_window_seconds: float = 0.0
        batch_cancel_seconds: float = 0.0
        batch_creations_per_hour: int = 0
        batch_enqueued_tokens: int = 0
        batch_token_refusal: str = "failed"
        batch_script: list[str] = []
        batch_faults: str = ""
        data: str | None = None


class Config(Table):
    """A client's configuration; the default uses the embedded server, without a key and without cost.

    `backend` is `async`, `threads`, `batch` or a plugin's; `model` and `endpoint` are for calls that name none;
    `simulator` has the options of the embedded server, `options` those of plugins' backends, by backend.
    """

    provider: ProviderConfig = Field(default_factory=ProviderConfig, description="a ProviderConfig")
    limits: LimitsConfig = Field(default_factory=LimitsConfig, description="a LimitsConfig")
    retry: RetryConfig = Field(default_factory=RetryConfig, description="a RetryConfig")
    batch: BatchConfig = Field(default_factory=BatchConfig, description="a BatchConfig")
    backend: Text = Field(default="async", description="the name of a backend, like 'async'")
    model: Text | None = Field(default=None, description="the name of a model")
    endpoint: Text | None = Field(default=None, description="an endpoint of the backend, like '/v1/responses'")
    simulator: SimulatorConfig = Field(default_factory=SimulatorConfig, description="a SimulatorConfig")
    options: dict[str, dict[str, Any]] = Field(default={}, description="tables of options by backend")


class ConfigSource:
    """A configuration with the environment applied; the configuration wins over variables."""

    def __init__(self, config: Config, variables: Mapping[str, str] | None = None) -> None:
        self.config = config
        self._environment = Environment(os.environ if variables is None else variables)
        given = "base_url" in config.provider.model_fields_set
        self.base_url = config.provider.base_url
        if not given and (variable := self._environment.get("OPENAI_BASE_URL")):
            try:
                self.base_url = ProviderConfig(base_url=variable).base_url
            except ValidationError as problem:
                detail = problem.errors(include_url=False)[0]
                raise ConfigError(f"OPENAI_BASE_URL: {detail.get('ctx', {}).get('error', detail['msg'])}") from None
        self.model = config.model or self._environment.get("OPENAI_MODEL")

    @property
    def simulated(self) -> bool:
        """Return whether the embedded server answers: no key, no cost."""
        return self.base_url == SIMULATOR

    def variable(self, name: str) -> str | None:
        """Return an environment variable, or None."""
        return self._environment.get(name)

    def api_key(self) -> str | None:
        """Return the API key, or None."""
        given = self.config.provider.api_key
        return self._environment.get(self.config.provider.api_key_env) if given is None else given.get_secret_value()

    def limits(self) -> Limits:
        """Return the limits of the client."""
        limits = self.config.limits
        return Limits(
            concurrency=limits.concurrency,
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            max_cost_usd=limits.max_cost_usd,
        )

    @property
    def retry(self) -> RetryPolicy:
        return RetryPolicy(**self.config.retry.model_dump())

    def options(self, backend: str) -> dict[str, Any]:
        """Return the options of a backend."""
        own = dict(self.config.options.get(backend, {}))
        if backend == "batch":
            own = {**self.config.batch.model_dump(exclude_unset=True), **own}
        return own

    def simulator_options(self) -> dict[str, Any]:
        return dict(self.config.simulator.given(Path.cwd()))
