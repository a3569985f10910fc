"""Create the readers, backends and simulator that a project's tables name.

Backends are created from the configuration, and reachable while something is sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import TypeVar

from bioforge.config.loader import ProjectConfig
from bioforge.config.plugin_options import PluginOptions, plugin_options
from bioforge.config.tables import ProviderTable
from bioforge.core.errors import BioforgeError, ConfigError, PluginError
from bioforge.core.interfaces import Backend, BackendContext
from bioforge.core.types import PLAIN_DIALECT, SIMULATOR_DIALECT
from bioforge.plugins.manager import Plugins
from bioforge.plugins.validate import guarded
from bioforge.readers.reader_plugin import BoundReader

Result = TypeVar("Result")

SIMULATED_POLLING = {"poll_seconds": 0.5, "poll_max_seconds": 2.0}

NO_KEY = "none"
"""The key for the simulator, too short to be masked as a secret where it occurs in a text."""


def bind_reader(plugins: Plugins, options: PluginOptions, table: Mapping[str, object], name: str) -> BoundReader:
    """Return the reader of this name with the options in `table`. Raises `PluginError` and `ConfigError`."""
    reader = plugins.reader(name)
    plugin = plugins.third_party("bioforge_readers", name)
    return BoundReader(reader, options.read(reader, table, "input"), plugin, plugins.version(plugin))


class BackendBuilder:
    """Creates backends by name. Raises `ConfigError` for options that a backend does not know."""

    def __init__(self, config: ProjectConfig, plugins: Plugins) -> None:
        self._config = config
        self._plugins = plugins
        self._options = plugin_options(config)

    def check_tables(self, used: str) -> list[str]:
        """Check the options of all installed backends, not only of the one in use. Return notes on the others."""
        notes = []
        known = self._plugins.backends()
        for name in self._config.backend.options:
            if name in known and name != used:
                self.make(name)
            elif name not in known and (near := get_close_matches(name, known, n=1, cutoff=0.7)):
                notes.append(f"backend.{name}: no backend of that name is installed; did you mean {near[0]!r}?")
        return notes

    def make(self, name: str, base_url: str | None = None) -> Backend:
        """Return the backend of this name; `base_url` replaces the one in the project file."""
        config = self._config
        settings = BackendSettings(
            base_url=base_url or config.provider.base_url,
            api_key=None if config.simulated else config.api_key(),
            provider=config.provider,
            simulated=config.simulated,
            tables=config.backend.options,
            options=self._options,
            key="backend",
            root=config.root,
        )
        return create_backend(name, settings, self._plugins)

    @contextmanager
    def reachable(self, *, batches_too: bool) -> Iterator[Callable[[str], Backend]]:
        """Yield a function that returns a backend by name, ready to send; the simulator runs inside this context.

        With `batches_too`, the simulator keeps files and batches for a later run.
        """
        config = self._config
        if not config.simulated:
            yield self.make
            return
        from bioforge.simulator import Simulator, SimulatorOptions

        options = config.simulator_options if batches_too else config.simulator
        with Simulator(SimulatorOptions(**options)) as server:
            yield lambda name: self.make(name, server.base_url)


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """The settings a backend is created from: those of a project file, or of a client's `Config`.

    `tables` has the options of all backends by name; `key` is where messages say those are written.
    """

    base_url: str
    api_key: str | None = field(repr=False)
    provider: ProviderTable
    simulated: bool
    tables: Mapping[str, Mapping[str, object]]
    options: PluginOptions
    key: str
    root: Path


def create_backend(name: str, settings: BackendSettings, plugins: Plugins) -> Backend:
    """Create a backend. Raises `ConfigError` for its options and `PluginError` for a broken plugin."""
    tables = dict(settings.tables)
    if settings.simulated:  # batches of the embedded server are ready in seconds
        tables["batch"] = {**SIMULATED_POLLING, **tables.get("batch", {})}
    factory = plugins.backend(name)
    context = BackendContext(
        base_url=settings.base_url,
        api_key=NO_KEY if settings.simulated else settings.api_key,
        api_key_env=settings.provider.api_key_env,
        timeout=settings.provider.timeout,
        options=settings.options.read(factory, tables.get(name, {}), f"{settings.key}.{name}"),
        root=settings.root,
        siblings=tables,
        allow_http=settings.provider.allow_http,
    )
    try:
        backend = factory(context)
    except ConfigError as error:  # an option that only the backend knows
        raise ConfigError(f"{settings.options.file}: {error.message}", error.hint) from None
    except BioforgeError:
        raise
    except (Exception, SystemExit) as error:
        if not (plugin := plugins.third_party("bioforge_backends", name)):
            raise
        raise PluginError(
            f"backend {name!r} of plugin {plugin!r} cannot be made: {type(error).__name__}: {error}",
            "its factory is called with a BackendContext; BIOFORGE_DEBUG=1 shows where it went wrong",
        ) from error
    return checked_backend(backend, name, plugins)


def checked_backend(made: object, name: str, plugins: Plugins) -> Backend:
    """Return the backend that a factory created, with a plugin's backend guarded.

    Raises `PluginError` if it is not one.
    """
    plugin = plugins.third_party("bioforge_backends", name)
    if not plugin:
        assert isinstance(made, Backend)
        return made
    who = f"backend {name!r} of plugin {plugin!r}"
    if not isinstance(made, Backend):
        raise PluginError(f"plugin {plugin!r}: backend {name!r} made {type(made).__name__}, expected a Backend")
    if not isinstance(made.dialect, str) or not made.dialect:
        raise PluginError(f"{who} has dialect {made.dialect!r:.40}, expected text", _CHANGES_EVERYTHING)
    endpoints: object = made.endpoints
    if not isinstance(endpoints, list | tuple) or not endpoints or not all(map(_is_endpoint, endpoints)):
        raise PluginError(
            f'{who} has endpoints {endpoints!r:.60}, expected a tuple of paths, like ("/v1/messages",)',
            _CHANGES_EVERYTHING,
        )
    own = vars(made)
    execute = made.execute
    # the rest of it stays what it is: whoever asks for a plugin's own methods finds them
    own["execute"] = lambda work: guarded(execute, work, name, plugin)
    for method in ("body", "check", "choose"):
        own[method] = _named_errors(getattr(made, method), f"{who}: {method}()")
    own["price"] = _priced(_named_errors(made.price, f"{who}: price()"), who)
    return made


_CHANGES_EVERYTHING = "answers are kept by dialect and endpoint: another one would buy everything again"


def _is_endpoint(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _named_errors(method: Callable[..., Result], who: str) -> Callable[..., Result]:
    """Wrap a plugin's method so that its exceptions become errors that name the plugin."""

    def called(*values: object, **named: object) -> Result:
        try:
            return method(*values, **named)
        except BioforgeError:
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{who} failed: {type(error).__name__}: {error}", "BIOFORGE_DEBUG=1 shows where the plugin went wrong"
            ) from error

    return called


def _priced(price: Callable[..., object], who: str) -> Callable[..., float | None]:
    """Wrap `price` so that it returns a number from 0, which the budget needs, or None."""

    def called(*values: object, **named: object) -> float | None:
        found = price(*values, **named)
        if found is None:
            return None
        if isinstance(found, Real | Decimal) and not isinstance(found, bool) and 0 <= float(found) < math.inf:
            return float(found)
        raise PluginError(f"{who}: price() gave {found!r:.40}, expected US dollars as a number from 0, or None")

    return called


def dialect_of(backend: Backend, name: str, *, simulated: bool) -> str:
    """Return the dialect whose answers may be shared. Raises `ConfigError` if the simulator does not speak it."""
    if not simulated:
        return backend.dialect
    if backend.dialect != PLAIN_DIALECT:
        raise ConfigError(
            f"backend {name!r} cannot use the embedded server, which speaks like OpenAI's API",
            f'write base_url = "{backend.base_url}" under [provider], and the name of its key as api_key_env',
        )
    return SIMULATOR_DIALECT
