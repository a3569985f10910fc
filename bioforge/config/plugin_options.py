"""Read a table of the project file as an instance of the model that a plugin brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from bioforge.config.loader import ProjectConfig
from bioforge.config.validation import error, from_pydantic
from bioforge.core.errors import BioforgeError, PluginError


@dataclass(frozen=True, slots=True)
class PluginOptions:
    """Reads tables of one project. `file` is its name in messages; `variable` looks up a variable of its environment."""

    file: str
    variable: Callable[[str], str | None]

    def read(self, owner: object, table: Mapping[str, object], key: str) -> Any:
        """Return `table` as an instance of the owner's `Options`, or the table itself if it has none.

        Raises `ConfigError` with every mistake, by `key` (`backend.ray`), and `PluginError` for a model that
        fails.
        """
        model = getattr(owner, "Options", None)
        if model is None:
            return table
        try:
            return model.model_validate(dict(table), context={"environment": self.variable})
        except ValidationError as problem:
            raise error(self.file, list(from_pydantic(problem, model, key)), {}) from None
        except BioforgeError:
            raise
        except Exception as problem:  # a validator may do anything
            raise PluginError(
                f"{self.file}: {key}: the plugin's own check failed: {type(problem).__name__}: {problem}",
                "this is a mistake of the plugin; BIOFORGE_DEBUG=1 shows where",
            ) from problem


def plugin_options(config: ProjectConfig) -> PluginOptions:
    return PluginOptions(config.path.name, config.environment.get)
