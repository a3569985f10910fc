"""Structured outputs: from a JSON Schema or a pydantic model to what is asked for and what an answer is checked by.

load_schema       schemas/bio.json or package.module:Model → Schema; a mistake is one ConfigError
Schema            the strict JSON Schema of the request, two hashes, and validate(text) → Valid | Invalid
response_format   the request parameter that has the schema
repair_instructions   the words that ask once more
"""

from __future__ import annotations

from bioforge.recipes.schema.load import from_document, from_model, load_schema
from bioforge.recipes.schema.request import (
    PARAMETERS,
    in_written_order,
    parameter,
    repair_instructions,
    response_format,
)
from bioforge.recipes.schema.result import Invalid, SchemaError, Valid
from bioforge.recipes.schema.types import Schema

__all__ = [
    "PARAMETERS",
    "Invalid",
    "Schema",
    "SchemaError",
    "Valid",
    "from_document",
    "from_model",
    "in_written_order",
    "load_schema",
    "parameter",
    "repair_instructions",
    "response_format",
]
