"""Structured outputs: schemas for requests, and validation of answers.

load_schema          schemas/bio.json or package.module:Model → Schema; a mistake raises one ConfigError
Schema               the strict JSON Schema of the request, two hashes, and validate(text) → Valid | Invalid
response_format      the value of the request parameter
repair_instructions  the message of a repair request
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
from bioforge.recipes.schema.types import Invalid, Schema, SchemaError, Valid

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
