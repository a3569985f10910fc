"""Follow-up requests of a failed request: a repair with the schema errors, then the fallback models in order.

own request → repair → first fallback → its repair → second fallback …

The chain is derived from the stored requests each time. It therefore continues after a crash, and ends when any of its
requests has an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bioforge.core.reasons import KnownRequest, Reason, RequestState
from bioforge.core.types import Rendered, Turn
from bioforge.planner.context import PlanContext
from bioforge.planner.render import RenderedRequest, rendered_request
from bioforge.recipes.schema import Invalid, repair_instructions
from bioforge.recipes.template import RecipeVariant
from bioforge.store import queue, validations
from bioforge.store.retries import StoredRetry

LookUp = Callable[[RecipeVariant, Sequence[str]], Mapping[str, KnownRequest]]

ENDED = (*(state for state in RequestState if state.info.failed), RequestState.INVALID)
"""States after which the chain continues."""


@dataclass(frozen=True, slots=True)
class AttemptStep:
    """One request of a chain. `kind` is empty for the target's own request; `after` says what failed before it."""

    request: RenderedRequest
    known: KnownRequest | None
    kind: str = ""
    after: str = ""


class RetryChain:
    """Find the request of a target's chain to send next, or the one that has the answer."""

    def __init__(self, context: PlanContext, look_up: LookUp) -> None:
        self._context = context
        self._look_up = look_up

    def next_step(self, variant: RecipeVariant, own: RenderedRequest, known: KnownRequest | None) -> AttemptStep:
        """Return the step that applies now. `own` is the target's own request, `known` its stored state."""
        if known is None or known.state not in (*ENDED, RequestState.FORGOTTEN) or not variant.has_retries:
            return AttemptStep(own, known)
        retry: AttemptStep | None = None
        last = AttemptStep(own, known)
        for step in self._steps(variant, own, known):
            state = None if step.known is None else step.known.state
            if state in (RequestState.IN_BATCH, RequestState.STARTED):  # in flight: send nothing in parallel
                return step
            if state == RequestState.FORGOTTEN:  # resend it, unless another step has the answer
                retry = retry or step
                continue
            if state is None or state not in (*ENDED, RequestState.ANSWERED):  # not sent yet
                last = step
                break
            if state == RequestState.ANSWERED:
                return step
            if state == RequestState.MAYBE_PAID and not self._context.resend_maybe_paid:
                last = step
                break
            held = step.known is not None and step.known.held
            if not held and not (state == RequestState.INVALID and variant.definition.repair):
                if not self._tried(step):
                    retry = retry or step
                last = step
            elif last.known is None or last.known.held or last.known.state == RequestState.INVALID:
                last = step
        return retry or last

    def stored_retry(self, own: RenderedRequest, step: AttemptStep) -> StoredRetry | None:
        """Return the row that lets a run send the step; None for the target's own request."""
        if not step.kind:
            return None
        request = step.request
        model = request.rendered.model
        return StoredRetry(request.request_hash, own.request_hash, step.kind, model, request.body, request.input_tokens)

    def _tried(self, step: AttemptStep) -> bool:
        run = self._context.run
        return run is not None and queue.was_tried(self._context.store, run, step.request.request_hash)

    def _steps(self, variant: RecipeVariant, own: RenderedRequest, known: KnownRequest | None) -> Iterator[AttemptStep]:
        step = AttemptStep(own, known)
        for model in (variant.model, *variant.definition.fallback):
            if step.request.rendered.model != model:
                after = f"{step.request.rendered.model} ({_error_class(step.known)})"
                step = self._step(variant, replace(own.rendered, model=model), Reason.FALLBACK, after)
            yield step
            if (repair := self._repair(variant, step)) is not None:
                step = repair
                yield step

    def _repair(self, variant: RecipeVariant, step: AttemptStep) -> AttemptStep | None:
        """Return the same request followed by the answer and its schema errors; None if there is nothing to repair."""
        schema, known = variant.schema, step.known
        if not variant.definition.repair or schema is None or known is None:
            return None
        if not known.misfit or known.response is None:
            return None
        text = validations.text_of(self._context.store, known.response)
        verdict = schema.validate(text)
        if not isinstance(verdict, Invalid) or not verdict.repairable:
            return None
        turns = (Turn("assistant", text), Turn("user", repair_instructions(verdict.errors)))
        return self._step(variant, replace(step.request.rendered, turns=turns), Reason.REPAIR, known.detail or "")

    def _step(self, variant: RecipeVariant, rendered: Rendered, kind: Reason, after: str) -> AttemptStep:
        request = rendered_request(variant, self._context.backend, rendered)
        known = self._look_up(variant, [request.request_hash]).get(request.request_hash)
        return AttemptStep(request, known, kind, after)


def _error_class(known: KnownRequest | None) -> str:
    return (None if known is None else known.error_class) or "failed"
