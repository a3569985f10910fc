"""The definitions a strict schema needs: whatever a `$ref` leads to, each once, under a name of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bioforge.core.errors import ConfigError
from bioforge.recipes.schema.describe import Steps, quoted
from bioforge.recipes.schema.walk import target


class Definitions:
    """Collected while a schema is walked; those that nothing refers to are never asked for."""

    def __init__(self, root: Mapping[str, Any], error: Callable[[Steps, str], ConfigError]) -> None:
        self.root = root
        self.error = error
        self.written: dict[Steps, str] = {(): "#"}
        self.waiting: list[tuple[str, Steps, Any]] = []

    def entry(self) -> tuple[Steps, Any]:
        """The root, or the definition it refers to: strict mode wants the object itself there."""
        if "$ref" not in self.root:
            return (), self.root
        place, part = self._followed(self.root, ())
        self.written[place] = "#"
        return place, part

    def reference(self, schema: Mapping[str, Any], place: Steps) -> str:
        """What the strict schema says for a `$ref`: `#` or `#/$defs/NAME`."""
        where, part = self._followed(schema, place)
        if where not in self.written:
            name = self._new_name(where)
            self.written[where] = f"#/$defs/{name}"
            self.waiting.append((name, where, part))
        return self.written[where]

    def used(self) -> Iterator[tuple[str, Steps, Any]]:
        """Name, place and schema, in the order of first use; more may be added while this runs."""
        while self.waiting:
            yield self.waiting.pop(0)

    def _followed(self, schema: Mapping[str, Any], place: Steps) -> tuple[Steps, Any]:
        """Where a reference ends, through references to references."""
        part: Any = schema
        passed: list[Steps] = []
        while isinstance(part, Mapping) and "$ref" in part:
            try:
                where, part = target(self.root, part["$ref"])
            except LookupError as problem:
                raise self.error((*place, "$ref"), f"{quoted(part['$ref'])}: {problem}") from None
            if where in passed:
                raise self.error((*place, "$ref"), f"{quoted(schema['$ref'])} refers to nothing but itself")
            passed.append(where)
        return passed[-1], part

    def _new_name(self, where: Steps) -> str:
        word = next((step for step in reversed(where) if isinstance(step, str)), "")
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", word) or "definition"
        taken = set(self.written.values())
        number = 1
        name = plain
        while f"#/$defs/{name}" in taken:
            number += 1
            name = f"{plain}_{number}"
        return name
