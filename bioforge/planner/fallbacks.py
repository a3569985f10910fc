"""What is asked after a request has failed for good: once more with the errors, then the next model, in order.

own request → repair → first fallback → its repair → second fallback …

A chain is worked out anew from what is known each time, so that it goes on after any crash and ends when any link of it
has an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bioforge.core.interfaces import Backend
from bioforge.core.reasons import KnownRequest, Reason, RequestState
from bioforge.core.types import Rendered, Turn
from bioforge.planner.render import RenderedRequest, rendered_request
from bioforge.recipes.schema import Invalid, repair_instructions
from bioforge.recipes.template import RecipeVariant
from bioforge.store import Store, queue, validations
from bioforge.store.retries import StoredRetry

Known = Callable[[RecipeVariant, Sequence[str]], Mapping[str, KnownRequest]]

ENDED = (*(state for state in RequestState if state.info.failed), RequestState.INVALID)


@dataclass(frozen=True, slots=True)
class AttemptStep:
    """One request of a chain. `kind` is empty for the target's own; `after` says what failed before it."""

    request: RenderedRequest
    known: KnownRequest | None
    kind: str = ""
    after: str = ""


class RetryChain:
    """Finds the link of a target's chain that is to be asked next, or that has the answer."""

    def __init__(
        self, store: Store, backend: Backend, known: Known, *, resend_maybe_paid: bool, run: int | None
    ) -> None:
        """`known` looks up requests, with their answers checked by the schema as it is now."""
        self._store = store
        self._backend = backend
        self._known = known
        self._resend_maybe_paid = resend_maybe_paid
        self._run = run

    def link(self, prompts: RecipeVariant, own: RenderedRequest, known: KnownRequest | None) -> AttemptStep:
        """`own` is the target's own request, and what is known of it."""
        if known is None or known.state not in (*ENDED, RequestState.FORGOTTEN) or not prompts.definition.follows_up:
            return AttemptStep(own, known)
        retry: AttemptStep | None = None
        last = AttemptStep(own, known)
        for link in self._links(prompts, own, known):
            state = None if link.known is None else link.known.state
            if state in (RequestState.IN_BATCH, RequestState.STARTED):  # under way: nothing else is asked beside it
                return link
            if state == RequestState.FORGOTTEN:  # asked again, unless another link has the answer
                retry = retry or link
                continue
            if state is None or state not in (*ENDED, RequestState.ANSWERED):  # not asked yet
                last = link
                break
            if state == RequestState.ANSWERED:
                return link
            if state == RequestState.MAYBE_PAID and not self._resend_maybe_paid:
                last = link
                break
            if state != RequestState.UNUSABLE and not (state == RequestState.INVALID and prompts.definition.repair):
                if not self._tried(link):
                    retry = retry or link
                last = link
            elif last.known is None or last.known.state in (RequestState.UNUSABLE, RequestState.INVALID):
                last = link
        return retry or last

    def remembered(self, prompts: RecipeVariant, own: RenderedRequest, link: AttemptStep) -> StoredRetry | None:
        """What has to be kept so that the link can be asked; None for the target's own request."""
        if not link.kind:
            return None
        asked = link.request
        model = asked.rendered.model
        return StoredRetry(asked.request_hash, own.request_hash, link.kind, model, asked.body, asked.input_tokens)

    def _tried(self, link: AttemptStep) -> bool:
        return self._run is not None and queue.tried_in(self._store, self._run, link.request.request_hash)

    def _links(self, prompts: RecipeVariant, own: RenderedRequest, known: KnownRequest | None) -> Iterator[AttemptStep]:
        definition = prompts.definition
        link = AttemptStep(own, known)
        for model in (definition.model, *definition.fallback):
            if link.request.rendered.model != model:
                after = f"{link.request.rendered.model} ({_error_class(link.known)})"
                link = self._link(prompts, replace(own.rendered, model=model), Reason.FALLBACK, after)
            yield link
            if (repaired := self._repair(prompts, link)) is not None:
                link = repaired
                yield link

    def _repair(self, prompts: RecipeVariant, link: AttemptStep) -> AttemptStep | None:
        """The same request with the answer that did not fit and what is wrong with it."""
        schema, known = prompts.definition.schema, link.known
        if (
            not prompts.definition.repair
            or schema is None
            or known is None
            or not known.misfit
            or known.response is None
        ):
            return None
        text = validations.text_of(self._store, known.response)
        verdict = schema.validate(text)
        if not isinstance(verdict, Invalid) or not verdict.repairable:
            return None
        turns = (Turn("assistant", text), Turn("user", repair_instructions(verdict.errors)))
        return self._link(prompts, replace(link.request.rendered, turns=turns), Reason.REPAIR, known.detail or "")

    def _link(self, prompts: RecipeVariant, rendered: Rendered, kind: str, after: str) -> AttemptStep:
        asked = rendered_request(prompts, self._backend, rendered)
        known = self._known(prompts, [asked.request_hash]).get(asked.request_hash)
        return AttemptStep(asked, known, kind, after)


def _error_class(known: KnownRequest | None) -> str:
    return (None if known is None else known.error_class) or "failed"
