"""Backends of a project: made from its configuration, and reachable for as long as something is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bioforge.config import ProjectConfig
from bioforge.errors import ConfigError
from bioforge.interfaces import Backend, BackendContext
from bioforge.plugins import Plugins

SIMULATED_POLLING = {"poll_seconds": 0.5, "poll_max_seconds": 2.0}

NO_KEY = "none"
"""What the embedded server is given: too short to be masked as a secret where it stands in a text."""

SIMULATOR = "simulator"
"""The dialect of simulated answers, which must never pass for real ones."""


class Backends:
    """Makes backends by name. Raises `ConfigError` for an option that a backend does not know."""

    def __init__(self, config: ProjectConfig, plugins: Plugins) -> None:
        self._config = config
        self._plugins = plugins

    def make(self, name: str, base_url: str | None = None) -> Backend:
        """`base_url`: instead of the one in the project file."""
        config = self._config
        tables = dict(config.backend.options)
        if config.simulated:  # nobody wants to wait for a batch of the embedded server as for a real one
            tables["batch"] = {**SIMULATED_POLLING, **tables.get("batch", {})}
        context = BackendContext(
            base_url=base_url or config.provider.base_url,
            api_key=NO_KEY if config.simulated else config.api_key(),
            api_key_env=config.provider.api_key_env,
            timeout=config.provider.timeout,
            options=tables.get(name, {}),
            root=config.root,
            siblings=tables,
        )
        try:
            return self._plugins.backend(name)(context)
        except ConfigError as error:  # an option of the backend: only it knows them
            raise ConfigError(f"{config.path.name}: {error.message}", error.hint) from None

    @contextmanager
    def reachable(self, *, batches_too: bool) -> Iterator[Callable[[str], Backend]]:
        """Backends to send with, by name; the embedded server runs just for as long as it is needed. `batches_too`: it
        keeps files and batches for a later run."""
        config = self._config
        if not config.simulated:
            yield self.make
            return
        from bioforge.simulator import Simulator, SimulatorOptions

        options = config.simulator_options if batches_too else config.simulator
        with Simulator(SimulatorOptions(**options)) as server:
            yield lambda name: self.make(name, server.base_url)
