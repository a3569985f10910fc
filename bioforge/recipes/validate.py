"""Answers against the schema of their recipe: the verdict, and what is kept of it. Pure."""

from __future__ import annotations

import json
from dataclasses import replace

from bioforge.core.reasons import SCHEMA
from bioforge.core.types import Failure, Response
from bioforge.recipes.schema import Invalid, Schema, Valid


def checked(answer: Response, schema: Schema, verdict: Valid | Invalid | None = None) -> Response:
    """The answer with its data, or with what is wrong with it; one that cannot be used anyway stays as it is.

    `verdict`: of its text, where that is known already.
    """
    if answer.problem is not None:
        return answer
    if verdict is None:
        verdict = schema.validate(answer.text or "")
    if isinstance(verdict, Valid):
        return replace(answer, parsed=as_text(verdict), validation=schema.validation_hash)
    return replace(answer, problem=Failure(SCHEMA, complaint(verdict, schema)), validation=schema.validation_hash)


def as_text(verdict: Valid) -> str:
    """What is stored and exported: JSON, readable."""
    return json.dumps(verdict.parsed, ensure_ascii=False)


def complaint(verdict: Invalid, schema: Schema) -> str:
    """Schema, path and what is wrong, in one line; how many more there are."""
    return f"{schema.source}: {verdict.summary()}"
