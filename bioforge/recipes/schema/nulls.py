"""Nulls that say "left out": strict mode makes every property required, so an optional one is answered with null."""

from __future__ import annotations

from typing import Any

from bioforge.recipes.schema.compiled import Compiler
from bioforge.recipes.schema.strict import Node, Properties, Strict
from bioforge.recipes.schema.walk import target


class Nulls:
    """Removes them again, walking an answer along the strict schema it was written for."""

    def __init__(self, strict: Strict, compiler: Compiler) -> None:
        """`compiler` is the strict schema's."""
        self.strict = strict
        self.compiler = compiler
        self.referred: dict[str, Node] = {}

    def possible(self, text: str) -> bool:
        """Whether an answer can hold any: so that most need not be walked at all."""
        return self.strict.has_optional and "null" in text

    def removed(self, value: Any) -> Any:
        return self._removed(self.strict.schema, value)

    def _removed(self, schema: Node, value: Any) -> Any:
        if not isinstance(value, dict | list):
            return value
        if "$ref" in schema:
            return self._removed(self._referred(schema["$ref"]), value)
        if "anyOf" in schema:
            return self._in_union(schema["anyOf"], value)
        properties = schema.get("properties")
        if isinstance(value, dict) and isinstance(properties, Properties):
            return {
                name: self._removed(properties[name], item) if name in properties else item
                for name, item in value.items()
                if item is not None or name not in properties.optional
            }
        if isinstance(value, list) and "items" in schema:
            return [self._removed(schema["items"], item) for item in value]
        return value

    def _referred(self, reference: str) -> Node:
        if reference not in self.referred:
            self.referred[reference] = target(self.strict.schema, reference)[1]
        return self.referred[reference]

    def _in_union(self, branches: list[Node], value: Any) -> Any:
        """By the branch the value was written for; where several fit, by one that allows its nulls."""
        fitting = [branch for branch in branches if self.compiler.test(branch)(value)]
        candidates = [self._removed(branch, value) for branch in fitting or branches]
        changed = [candidate for candidate in candidates if candidate != value]
        if fitting:
            return changed[0] if len(changed) == len(candidates) else value
        # Written for none of them. Where only one knows of nulls to remove, it is the one that was meant.
        return changed[0] if len(changed) == 1 else value
