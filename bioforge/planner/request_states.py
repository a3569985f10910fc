"""What is known of requests that were sent before, with their answers checked by the schema as it is now."""

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
    """`planned` targets were looked at, `reused` of them are served by an answer that is in the state already.

    `checked` stored answers were checked by a schema anew, `misfits` of them no longer fit. `kept` ones belong to a
    request that the backend writes differently now.
    """

    planned: int = 0
    reused: int = 0
    checked: int = 0
    misfits: int = 0
    kept: int = 0


class RequestStates:
    """Looks up requests; stored answers that were not checked by a recipe's schema are checked then."""

    def __init__(self, store: Store, counts: PlanStats) -> None:
        self._store = store
        self._counts = counts

    def requests(self, prompts: RecipeVariant, hashes: Sequence[str]) -> dict[str, KnownRequest]:
        """What became of these requests, their answers checked by the schema as it is now."""
        known = targets.known_requests(self._store, hashes)
        schema = prompts.definition.schema
        if schema is None or not self._check(
            schema, [digest for digest in hashes if _is_unchecked(known.get(digest), schema)]
        ):
            return known
        return targets.known_requests(self._store, hashes)

    def _check(self, schema: Schema, hashes: Sequence[str]) -> bool:
        """Check stored answers anew, which costs nothing. Whether there were any."""
        found = validations.unchecked(self._store, hashes, schema.validation_hash) if hashes else []
        if not found:
            return False
        checked = []
        for answer in found:
            verdict = schema.validate(answer.text or "")
            if isinstance(verdict, Valid):
                checked.append(validations.Validation(answer, as_text(verdict), None))
            elif not verdict.repairable and answer.state == RequestState.ANSWERED:
                # a good answer is not bought again for a mistake in the code that checks it
                raise ConfigError(
                    complaint(verdict, schema), "mend that code; nothing was sent, and all answers are kept"
                )
            else:
                checked.append(validations.Validation(answer, None, complaint(verdict, schema)))
        validations.save(self._store, checked, schema.validation_hash)
        self._counts.checked += len(checked)
        self._counts.misfits += sum(verdict.message is not None for verdict in checked)
        return True


def _is_unchecked(known: KnownRequest | None, schema: Schema) -> bool:
    return known is not None and known.response is not None and known.validation != schema.validation_hash
