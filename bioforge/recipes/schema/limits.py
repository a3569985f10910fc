"""Size limits of strict schemas. Pure.

https://platform.openai.com/docs/guides/structured-outputs#objects-have-limitations-on-nesting-depth-and-size
"""

from __future__ import annotations

from bioforge.core.errors import ConfigError
from bioforge.recipes.schema.errors import format_path
from bioforge.recipes.schema.keywords import every
from bioforge.recipes.schema.strict import Node
from bioforge.recipes.schema.types import Steps

PROPERTIES = 5_000
LEVELS = 10
ENUM_VALUES = 1_000
CHARACTERS = 120_000
LONG_ENUM = 250
LONG_ENUM_CHARACTERS = 15_000


def check(schema: Node, source: str) -> None:
    """Raise `ConfigError` for a schema that the API refuses for its size."""
    properties = values = characters = 0
    for place, part in every(schema):
        if _level(place) > LEVELS:
            raise ConfigError(
                f"{source}: {format_path(place)}: nested more than {LEVELS} levels deep",
                "move inner objects to $defs and refer to them",
            )
        names = [*part.get("properties", ()), *part.get("$defs", ())]
        enum = [value for value in part.get("enum", ()) if isinstance(value, str)]
        length = sum(map(len, enum))
        if len(enum) > LONG_ENUM and length > LONG_ENUM_CHARACTERS:
            raise _too_many(
                f"{source}: {format_path(place)}.enum", length, "characters in all values", LONG_ENUM_CHARACTERS
            )
        properties += len(part.get("properties", ()))
        values += len(part.get("enum", ()))
        const = part.get("const")
        characters += sum(map(len, names)) + length + (len(const) if isinstance(const, str) else 0)
    for count, what, most in (
        (properties, "properties in total", PROPERTIES),
        (values, "enum values in total", ENUM_VALUES),
        (characters, "characters in all names, enum values and constants", CHARACTERS),
    ):
        if count > most:
            raise _too_many(source, count, what, most)


def _too_many(where: str, count: int, what: str, most: int) -> ConfigError:
    return ConfigError(f"{where}: {count:,} {what}; strict structured outputs allow {most:,}")


def _level(place: Steps) -> int:
    """Count levels as the API does: a property and a branch of a union are two steps and one level."""
    return (len(place) + 1) // 2
