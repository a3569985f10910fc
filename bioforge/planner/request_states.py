"""Look up requests that were sent before, with their answers validated by the recipe's current schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bioforge.core.errors import ConfigError
from bioforge.core.reasons import KnownRequest, RequestState
from bioforge.recipes.schema import Schema, Valid
from bioforge.recipes.template import RecipeVariant
from bioforge.recipes.validate import as_text, complaint
from bioforge.store import Store, targets, validations


@dataclass(slots=True)
class PlanStats:
    """Counts of one plan.

    `planned`: rendered targets; `reused`: those of them that are fresh by a stored answer; `checked`: stored answers
    that were validated; `misfits`: those of them that do not fit the schema; `kept`: fresh targets whose request the
    backend now serializes differently.
    """

    planned: int = 0
    reused: int = 0
    checked: int = 0
    misfits: int = 0
    kept: int = 0


class RequestStates:
    """Look up requests; validate their answers if this schema has not validated them yet."""

    def __init__(self, store: Store, stats: PlanStats) -> None:
        self._store = store
        self._stats = stats

    def look_up(self, variant: RecipeVariant, hashes: Sequence[str]) -> dict[str, KnownRequest]:
        """Return the known requests among these hashes. Raises `ConfigError` if a validator itself fails."""
        known = targets.known_requests(self._store, hashes)
        schema = variant.schema
        if schema is None or not self._validate(
            schema, [digest for digest in hashes if _is_unchecked(known.get(digest), schema)]
        ):
            return known
        return targets.known_requests(self._store, hashes)

    def _validate(self, schema: Schema, hashes: Sequence[str]) -> bool:
        """Validate stored answers and save the result. Return False if there were none."""
        answers = validations.unchecked(self._store, hashes, schema.validation_hash) if hashes else []
        if not answers:
            return False
        checked = []
        for answer in answers:
            verdict = schema.validate(answer.text or "")
            if isinstance(verdict, Valid):
                checked.append(validations.Validation(answer, as_text(verdict), None))
            elif not verdict.repairable and answer.state == RequestState.ANSWERED:
                # a valid answer must not be bought again because of a bug in the validator
                raise ConfigError(
                    complaint(verdict, schema), "fix the validator; nothing was sent, all answers are kept"
                )
            else:
                checked.append(validations.Validation(answer, None, complaint(verdict, schema)))
        validations.save(self._store, checked, schema.validation_hash)
        self._stats.checked += len(checked)
        self._stats.misfits += sum(result.message is not None for result in checked)
        return True


def _is_unchecked(known: KnownRequest | None, schema: Schema) -> bool:
    return known is not None and known.response is not None and known.validation != schema.validation_hash
