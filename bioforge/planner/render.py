"""Render artists into exact requests: look up upstream answers, render the texts, serialize and hash the bodies."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bioforge.core.errors import ConfigError
from bioforge.core.hashing import canonical, definition_hash, request_hash, request_hasher
from bioforge.core.interfaces import Backend
from bioforge.core.reasons import Reason, Upstream
from bioforge.core.types import Artist, Rendered
from bioforge.planner.context import PlanContext
from bioforge.recipes.template import (
    RecipeVariant,
    RenderError,
    UpstreamAnswer,
    VariantKey,
    artist_context,
    estimate_tokens,
    upstream_answer,
)
from bioforge.recipes.tokens import counter_for
from bioforge.store import Store, dependencies, stale_counts, targets
from bioforge.store.dependencies import Answered
from bioforge.store.targets import ALL_ARTISTS, PlannedArtist

UPSTREAM_TOKENS = 300
"""Assumed tokens of an upstream answer that does not exist yet."""

FRAME_TOKENS = 8
"""Tokens of a request in addition to its texts."""


class RenderedRequest(NamedTuple):
    """An exact request. `input_tokens` is an estimate."""

    request_hash: str
    body: bytes
    input_tokens: int
    rendered: Rendered


@dataclass(frozen=True, slots=True)
class MissingUpstream:
    """A target whose upstream answers are missing. `input_tokens` is a guess at its request."""

    upstream: Sequence[Upstream]
    input_tokens: int


RenderOutcome = RenderedRequest | MissingUpstream | RenderError


@dataclass(frozen=True, slots=True)
class RenderedPage:
    """One outcome per artist, in order, and the upstream answers it was rendered from (JSON, or None)."""

    outcomes: Sequence[RenderOutcome]
    upstream: Sequence[str | None]


def rendered_request(variant: RecipeVariant, backend: Backend, rendered: Rendered) -> RenderedRequest:
    """Return the exact request for rendered texts. Raises `ConfigError` if the backend cannot serialize it."""
    body = _body(variant, backend, rendered)
    definition = variant.definition
    digest = request_hash(rendered.endpoint, body, definition.dialect, definition.sample)
    return RenderedRequest(digest, body, _tokens(rendered, counter_for(rendered.model).count), rendered)


def _body(variant: RecipeVariant, backend: Backend, rendered: Rendered) -> bytes:
    try:
        return canonical(backend.body(rendered))
    except ConfigError as error:
        raise ConfigError(f"recipe.{variant.recipe}: {error.message}", error.hint) from None


def serialization_hash(variant: RecipeVariant, backend: Backend) -> str:
    """Return a hash of how the backend serializes a variant's requests: the body with the templates instead of texts.

    Backends, and versions of a plugin, that serialize alike share it; options count if they change the body. Returns an
    empty string if the backend cannot serialize the templates. A serialization that depends on the texts is found when a
    request is sent.
    """
    definition = variant.definition
    templates = Rendered(
        definition.endpoint,
        definition.model,
        definition.instructions,
        definition.input,
        definition.prompt,
        definition.sent_parameters(),
    )
    try:
        return definition_hash(backend.body(templates))
    except Exception:  # rendering a real request raises the error with its context
        return ""


class SimpleRenderer:
    """Render a recipe without upstream recipes, fast enough for a million artists."""

    def __init__(self, variant: RecipeVariant, backend: Backend) -> None:
        definition = variant.definition
        self._variant = variant
        self._backend = backend
        self._count = counter_for(definition.model).count
        self._hash = request_hasher(definition.endpoint, definition.dialect, definition.sample)
        self._instructions: str | None = None
        self._instruction_tokens = 0

    def render(self, artist: Artist) -> RenderOutcome:
        try:
            rendered = self._variant.render(artist)
        except RenderError as error:
            return error
        body = _body(self._variant, self._backend, rendered)
        return RenderedRequest(self._hash(body), body, self._tokens(rendered), rendered)

    def _tokens(self, rendered: Rendered) -> int:
        if rendered.prompt is not None:
            return _tokens(rendered, self._count)
        if rendered.instructions is not self._instructions:  # often the same object for every artist
            self._instructions = rendered.instructions
            self._instruction_tokens = self._count(rendered.instructions) if rendered.instructions else 0
        return FRAME_TOKENS + self._instruction_tokens + (self._count(rendered.input) if rendered.input else 0)


def _tokens(rendered: Rendered, count: Callable[[str], int]) -> int:
    texts = [rendered.instructions or "", rendered.input or ""]
    if rendered.turns:
        texts += [turn.text for turn in rendered.turns]
    if rendered.prompt is not None:
        variables = rendered.prompt.get("variables")
        texts += [str(value) for value in variables.values()] if isinstance(variables, Mapping) else []
    return FRAME_TOKENS + sum(count(text) for text in texts if text)


class Renderer:
    """Render pages of artists with their current upstream answers."""

    def __init__(self, context: PlanContext) -> None:
        self._context = context
        self._shared = context.shared_recipes
        self._simple: dict[VariantKey, SimpleRenderer] = {}
        self._row_tokens: tuple[int, int] | None = None
        """Number of artists, and tokens of all their rows."""

    def page(self, variant: RecipeVariant, artists: Sequence[PlannedArtist]) -> RenderedPage:
        """Render one variant for these artists."""
        if not variant.upstream and not variant.for_all:
            if (simple := self._simple.get(variant.key)) is None:
                simple = self._simple[variant.key] = SimpleRenderer(variant, self._context.backend)
            return RenderedPage([simple.render(artist.artist) for artist in artists], [None] * len(artists))
        own = self._own_upstream(variant)
        shared = {recipe: name for recipe, name in variant.upstream.items() if recipe in self._shared}
        shared_answers = self._answers(shared, [ALL_ARTISTS]).get(ALL_ARTISTS, {}) if shared else {}
        if variant.for_all:
            context = self._context
            states = [
                dependencies.combined(context.store, recipe, name, context.run, context.resend_maybe_paid)
                for recipe, name in own.items()
            ]
            outcomes = [self._render(variant, artist.artist, shared_answers, states) for artist in artists]
            return RenderedPage(outcomes, [_response_ids(shared_answers)] * len(artists))
        own_answers = self._answers(own, [artist.id for artist in artists])
        answers = [{**shared_answers, **own_answers.get(artist.id, {})} for artist in artists]
        outcomes = [self._render(variant, artist.artist, each) for artist, each in zip(artists, answers, strict=True)]
        return RenderedPage(outcomes, [_response_ids(each) for each in answers])

    def _own_upstream(self, variant: RecipeVariant) -> dict[str, str]:
        """Return the upstream variants, by recipe, that have one answer per artist."""
        return {recipe: name for recipe, name in variant.upstream.items() if recipe not in self._shared}

    def _answers(self, upstream: Mapping[str, str], artists: Sequence[int]) -> dict[int, dict[str, Answered]]:
        context = self._context
        return dependencies.answers(
            context.store, upstream, artists, run=context.run, resend_maybe_paid=context.resend_maybe_paid
        )

    def _render(
        self, variant: RecipeVariant, artist: Artist, answers: Mapping[str, Answered], states: Sequence[Upstream] = ()
    ) -> RenderOutcome:
        """Render one target. `states`: upstream recipes of a recipe over all artists, each over all its targets."""
        each = [
            answers[recipe].state if recipe in answers else Upstream(recipe, Reason.NEW, None, None)
            for recipe in variant.upstream
            if recipe in answers or not variant.for_all or recipe in self._shared
        ]
        missing = [state for state in (*each, *states) if state.reason is not None or state.response is None]
        if missing:
            tokens = _guess(variant, artist) + (self._all_rows(variant) if variant.for_all else 0)
            return MissingUpstream(missing, tokens)
        try:
            texts = {recipe: upstream_answer(answer.text, answer.parsed) for recipe, answer in answers.items()}
            artists = AllArtists(self._context.store, self._own_upstream(variant)) if variant.for_all else None
            return rendered_request(variant, self._context.backend, variant.render(artist, texts, artists))
        except RenderError as error:
            return error

    def _all_rows(self, variant: RecipeVariant) -> int:
        """Return an upper estimate of the tokens of all artists in one request: whole rows and upstream answers."""
        if self._row_tokens is None:
            artists, characters = stale_counts.row_lengths(self._context.store)
            self._row_tokens = artists, math.ceil(characters / 3)
        artists, tokens = self._row_tokens
        return tokens + artists * UPSTREAM_TOKENS * len(self._own_upstream(variant))


class AllArtists:
    """All artists with their upstream answers, for the template of a recipe over all of them; read in pages."""

    def __init__(self, store: Store, upstream: Mapping[str, str]) -> None:
        self._store = store
        self._upstream = upstream

    def __len__(self) -> int:
        return stale_counts.total_artists(self._store)

    def __iter__(self) -> Iterator[dict[str, object]]:
        for page in targets.artists(self._store, -1):
            ids = [artist.id for artist in page]
            stored = dependencies.answers(self._store, self._upstream, ids, run=None, resend_maybe_paid=True)
            for artist in page:
                answers: dict[str, UpstreamAnswer] = {
                    recipe: upstream_answer(answer.text, answer.parsed)
                    for recipe, answer in stored.get(artist.id, {}).items()
                }
                yield {**artist_context(artist.artist), **answers}


def _response_ids(answers: Mapping[str, Answered]) -> str:
    return json.dumps({recipe: answer.state.response for recipe, answer in sorted(answers.items())})


def _guess(variant: RecipeVariant, artist: Artist) -> int:
    """Return a guess at the tokens of a request that cannot be rendered yet."""
    definition = variant.definition
    texts = (definition.instructions or "", definition.input or "", artist.artist_name, artist.artist_data)
    return FRAME_TOKENS + sum(estimate_tokens(text) for text in texts) + UPSTREAM_TOKENS * len(variant.upstream)
