"""The backend of a client, made from its configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bioforge.api.config import ConfigSource
from bioforge.core.budget import Budget
from bioforge.core.errors import ConfigError, UsageError
from bioforge.core.interfaces import Backend, RunControl, Stop, Work

if TYPE_CHECKING:
    from bioforge.api.deduplicate import Deduplicator
    from bioforge.core.types import Request
    from bioforge.store import Store


class ClientBackend:
    """Two instances of the configured backend: one for request bodies and prices, and one that can send."""

    def __init__(self, setting: ConfigSource, state: Path | None) -> None:
        """Create the first instance. Raises `ConfigError` and `PluginError`."""
        from bioforge.plugins.manager import build_manager

        self.setting = setting
        self._state = state
        self._plugins = build_manager(os.environ.get("BIOFORGE_LOAD_PLUGINS"))
        self._connected: Backend | None = None
        name = setting.config.backend
        if name == "auto":
            raise ConfigError(
                "backend 'auto' chooses by the cost of a whole plan, which a client does not have",
                "use 'async' or 'batch', or a Project",
            )
        self.offline = self._make(setting.base_url)
        if self.batches and state is None:
            raise ConfigError(
                f"backend {name!r} needs a state: its batches outlive the process", "pass state=… to the client"
            )
        if setting.simulated:
            self._simulator_options  # noqa: B018 - wrong options are reported before the first call

    @property
    def batches(self) -> bool:
        """Return whether requests may outlive the process."""
        return self.offline.batches

    @property
    def dialect(self) -> str:
        """Return the dialect whose answers are shared. Raises `ConfigError` if the simulator does not speak it."""
        from bioforge.engine.backends import dialect_of

        try:
            return dialect_of(self.offline, self.setting.config.backend, simulated=self.setting.simulated)
        except ConfigError as error:
            hint = f'pass ProviderConfig(base_url="{self.offline.base_url}", api_key_env=…)'
            raise ConfigError(error.message, hint) from None

    def connect(self, stack: ExitStack) -> Backend:
        """Return the backend that can send. The simulator runs until the stack is closed. Raises `UsageError` without a key."""
        if self._connected is None:
            base_url = self.setting.base_url
            if self.setting.simulated:
                from bioforge.simulator import Simulator, SimulatorOptions

                base_url = stack.enter_context(Simulator(SimulatorOptions(**self._simulator_options))).base_url
                stack.callback(self._disconnect)
            self._connected = self._make(base_url)
        try:
            self._connected.check()
        except UsageError as error:
            if self._connected.context.api_key is not None:
                raise
            name = self.setting.config.provider.api_key_env
            raise ConfigError(error.message, f"set {name}, or pass ProviderConfig(api_key=…)") from None
        return self._connected

    def _disconnect(self) -> None:
        self._connected = None

    def work(
        self,
        calls: Deduplicator,
        stop: Stop,
        budget: Budget,
        store: Store | None,
        awaited: Collection[str],
        proven: Callable[[Request], bool],
    ) -> Work:
        """Return the work of one session. The open batches in `awaited` are waited for; `proven` as in `Work`."""
        setting = self.setting
        work = Work(
            requests=calls,
            limits=setting.limits(),
            retry=setting.retry,
            control=RunControl(stop, budget, more=lambda: calls.expects_more),
            retries=calls.retries,
            proven=proven,
            project="library",
        )
        if store is None or not self.batches:
            return work
        from bioforge.store import batches

        assert self._state is not None
        opened = [
            replace(item.batch, awaited=item.batch.key in awaited)
            for item in batches.open_batches(store)
            if item.provider == setting.base_url and item.backend == setting.config.backend
        ]
        return replace(
            work,
            batches=opened,
            members=batches.StoredMembers(store),
            enqueued_tokens=batches.enqueued_tokens(store, setting.base_url),
            folder=self._state.with_name(self._state.name + ".batches"),
            control=RunControl(stop, budget),
        )

    def _make(self, base_url: str) -> Backend:
        from bioforge.config.plugin_options import PluginOptions
        from bioforge.engine.backends import BackendSettings, create_backend

        setting, config = self.setting, self.setting.config
        settings = BackendSettings(
            base_url=base_url,
            api_key=setting.api_key(),
            provider=config.provider,
            simulated=setting.simulated,
            tables={name: setting.options(name) for name in {config.backend, "batch", *config.options}},
            options=PluginOptions("Config", setting.variable),
            key="options",
            root=Path.cwd(),
        )
        return create_backend(config.backend, settings, self._plugins)

    @cached_property
    def _simulator_options(self) -> dict[str, Any]:
        from bioforge.simulator import SimulatorOptions

        options = dict(self.setting.simulator_options())
        if self.batches and self._state is not None:
            # the simulator keeps files and batches between processes, as a provider does
            options = {"data": str(self._state.with_name(self._state.name + ".simulator")), **options}
        try:
            SimulatorOptions(**options)
        except ValueError as problem:
            raise ConfigError(f"simulator: {problem}") from None
        return options
