"""The backend of a client: made from its configuration, as a project makes its own."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bioforge.api.config import ConfigSource
from bioforge.core.errors import ConfigError
from bioforge.core.interfaces import Backend, BackendContext, Work

if TYPE_CHECKING:
    from bioforge.store import Store


class ClientBackend:
    """One for making bodies and prices, and one for sending, which knows where the embedded server listens."""

    def __init__(self, setting: ConfigSource, state: Path | None) -> None:
        """Raises `ConfigError` and `PluginError`."""
        from bioforge.plugins.manager import build_manager

        self.setting = setting
        self._state = state
        self._plugins = build_manager(os.environ.get("BIOFORGE_LOAD_PLUGINS"))
        self._sending: Backend | None = None
        name = setting.config.backend
        if name == "auto":
            raise ConfigError(
                "backend 'auto' chooses by what a whole plan comes to, which a client cannot know",
                "name 'async' or 'batch', or use a Project",
            )
        self.asking = self._make(setting.base_url)
        if self.batches and state is None:
            raise ConfigError(
                f"backend {name!r} needs a state: its batches outlive the process", "pass state=… to the client"
            )
        if setting.simulated:
            self._simulator_options  # noqa: B018 - wrong options are said before the first call

    @property
    def batches(self) -> bool:
        """Whether what is sent may outlive the process."""
        return self.asking.batches

    @property
    def dialect(self) -> str:
        """Whose answers may be shared: simulated ones must never pass for real ones."""
        from bioforge.engine.backends import dialect_of

        return dialect_of(self.asking, self.setting.config.backend, simulated=self.setting.simulated)

    def sending(self, stack: ExitStack) -> Backend:
        """Ready to send. The embedded server runs until the stack is closed. Raises `UsageError` without a key."""
        if self._sending is None:
            base_url = self.setting.base_url
            if self.setting.simulated:
                from bioforge.simulator import Simulator, SimulatorOptions

                base_url = stack.enter_context(Simulator(SimulatorOptions(**self._simulator_options))).base_url
                stack.callback(self._forget)
            self._sending = self._make(base_url)
        self._sending.check()
        return self._sending

    def with_batches(self, work: Work, store: Store, awaited: Collection[str]) -> Work:
        """The work with what the state knows about batches; those in `awaited` are waited for."""
        from bioforge.store import batches

        assert self._state is not None
        provider = self.setting.base_url
        found = [
            replace(item.batch, awaited=item.batch.key in awaited)
            for item in batches.open_batches(store)
            if item.provider == provider and item.backend == self.setting.config.backend
        ]
        return replace(
            work,
            batches=found,
            members=batches.StoredMembers(store),
            enqueued_tokens=batches.enqueued_tokens(store, provider),
            folder=self._state.with_name(self._state.name + ".batches"),
            more=lambda: False,
        )

    def _forget(self) -> None:
        self._sending = None

    def _make(self, base_url: str) -> Backend:
        from bioforge.config.plugin_options import PluginOptions
        from bioforge.engine.backends import NO_KEY, SIMULATED_POLLING, checked_backend

        setting = self.setting
        name, provider = setting.config.backend, setting.config.provider
        tables = {other: setting.options(other) for other in {name, "batch", *setting.config.options}}
        if setting.simulated:
            tables["batch"] = {**SIMULATED_POLLING, **tables["batch"]}
        factory = self._plugins.backend(name)
        context = BackendContext(
            base_url=base_url,
            api_key=NO_KEY if setting.simulated else setting.api_key(),
            api_key_env=provider.api_key_env,
            timeout=provider.timeout,
            options=PluginOptions("Config", setting.variable).read(factory, tables[name], f"options.{name}"),
            root=Path.cwd(),
            siblings=tables,
        )
        return checked_backend(factory(context), name, self._plugins)

    @cached_property
    def _simulator_options(self) -> dict[str, Any]:
        from bioforge.simulator import SimulatorOptions

        given = dict(self.setting.simulator_options())
        if self.batches and self._state is not None:
            # files and batches outlive the server, as they would at a provider
            given = {"data": str(self._state.with_name(self._state.name + ".simulator")), **given}
        try:
            SimulatorOptions(**given)
        except ValueError as problem:
            raise ConfigError(f"simulator: {problem}") from None
        return given
