"""From artists to exact requests: the answers that recipes need are looked up, texts are rendered, bodies are hashed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bioforge.core.errors import ConfigError
from bioforge.core.hashing import canonical, definition_hash, request_hash, request_hasher
from bioforge.core.interfaces import Backend
from bioforge.core.reasons import Upstream
from bioforge.core.types import Artist, Rendered
from bioforge.recipes.template import (
    RecipeVariant,
    RenderError,
    UpstreamAnswer,
    artist_context,
    estimate_tokens,
    upstream_answer,
)
from bioforge.recipes.tokens import counter_for
from bioforge.store import Store, dependencies, stale, targets
from bioforge.store.dependencies import Answered
from bioforge.store.targets import EVERYBODY, PlannedArtist

NEEDED_TOKENS = 300
"""Tokens that the answer of a needed recipe is taken for as long as there is none."""

FRAME_TOKENS = 8
"""Tokens of a request beside its texts."""


class RenderedRequest(NamedTuple):
    """An exact request. `input_tokens` is an estimate."""

    request_hash: str
    body: bytes
    input_tokens: int
    rendered: Rendered


@dataclass(frozen=True, slots=True)
class MissingUpstream:
    """Something that is needed is not there. `input_tokens` is a guess at what will be asked."""

    upstream: Sequence[Upstream]
    input_tokens: int


Outcome = RenderedRequest | MissingUpstream | RenderError


@dataclass(frozen=True, slots=True)
class Page:
    """What came of each artist of a page, in order, and the answers that each was rendered from, as JSON."""

    outcomes: Sequence[Outcome]
    upstream: Sequence[str | None]


def rendered_request(prompts: RecipeVariant, backend: Backend, rendered: Rendered) -> RenderedRequest:
    """The exact request for rendered texts."""
    return _wanted(prompts, backend, rendered, counter_for(rendered.model).count)


def _wanted(
    prompts: RecipeVariant, backend: Backend, rendered: Rendered, count: Callable[[str], int]
) -> RenderedRequest:
    body = _body(prompts, backend, rendered)
    definition = prompts.definition
    digest = request_hash(rendered.endpoint, body, definition.dialect, definition.sample)
    return RenderedRequest(digest, body, _tokens(rendered, count), rendered)


def _body(prompts: RecipeVariant, backend: Backend, rendered: Rendered) -> bytes:
    try:
        return canonical(backend.body(rendered))
    except ConfigError as error:  # what this backend cannot express
        raise ConfigError(f"recipe.{prompts.definition.recipe}: {error.message}", error.hint) from None


def serialization_hash(prompts: RecipeVariant, backend: Backend) -> str:
    """How a backend writes a recipe's requests, as a hash: that of a body with the templates in the place of texts.

    Two backends that write alike have the same one, and so have two versions of a plugin; options count where they
    change a body. Empty where there is no such body. What depends on the texts themselves shows when they are sent.
    """
    definition = prompts.definition
    written = Rendered(
        definition.endpoint,
        definition.model,
        definition.instructions,
        definition.input,
        definition.prompt,
        definition.sent_parameters(),
    )
    try:
        return definition_hash(backend.body(written))
    except Exception:  # said in so many words when a real one is rendered
        return ""


def render(prompts: RecipeVariant, backend: Backend, artist: Artist) -> RenderedRequest:
    """For a recipe that needs no other one. Raises `RenderError`."""
    return rendered_request(prompts, backend, prompts.render(artist))


class SimpleRenderer:
    """Renders a recipe that needs nothing but the artist, for a million of them."""

    def __init__(self, prompts: RecipeVariant, backend: Backend) -> None:
        definition = prompts.definition
        self._prompts = prompts
        self._backend = backend
        self._count = counter_for(definition.model).count
        self._hash = request_hasher(definition.endpoint, definition.dialect, definition.sample)
        self._instructions: str | None = None
        self._tokens = 0
        """Of the instructions, which are often the same text for every artist."""

    def outcome(self, artist: Artist) -> Outcome:
        try:
            rendered = self._prompts.render(artist)
        except RenderError as error:
            return error
        body = _body(self._prompts, self._backend, rendered)
        return RenderedRequest(self._hash(body), body, self._counted(rendered), rendered)

    def _counted(self, rendered: Rendered) -> int:
        if rendered.prompt is not None:
            return _tokens(rendered, self._count)
        if rendered.instructions is not self._instructions:
            self._instructions = rendered.instructions
            self._tokens = self._count(rendered.instructions) if rendered.instructions else 0
        return FRAME_TOKENS + self._tokens + (self._count(rendered.input) if rendered.input else 0)


def _tokens(rendered: Rendered, count: Callable[[str], int]) -> int:
    texts = [rendered.instructions or "", rendered.input or ""]
    if rendered.turns:
        texts += [turn.text for turn in rendered.turns]
    if rendered.prompt is not None:
        variables = rendered.prompt.get("variables")
        texts += [str(value) for value in variables.values()] if isinstance(variables, Mapping) else []
    return FRAME_TOKENS + sum(count(text) for text in texts if text)


class Renderer:
    """Renders pages of artists, with the answers they need as the state has them now.

    `run`: what has failed in this run is not waited for any more.
    """

    def __init__(
        self,
        store: Store,
        recipes: Sequence[RecipeVariant],
        backend: Backend,
        *,
        resend_maybe_paid: bool,
        run: int | None,
    ) -> None:
        self._store = store
        self._backend = backend
        self._resend_maybe_paid = resend_maybe_paid
        self._run = run
        self._for_all = {prompts.definition.recipe for prompts in recipes if prompts.definition.for_all}
        self._plain: dict[tuple[str, str], SimpleRenderer] = {}
        self._row_tokens: tuple[int, int] | None = None
        """How many artists there are, and the tokens of their rows."""

    def page(self, prompts: RecipeVariant, artists: Sequence[PlannedArtist]) -> Page:
        definition = prompts.definition
        if not definition.upstream and not definition.for_all:
            pair = definition.recipe, definition.variant
            if (plain := self._plain.get(pair)) is None:
                plain = self._plain[pair] = SimpleRenderer(prompts, self._backend)
            return Page([plain.outcome(item.artist) for item in artists], [None] * len(artists))
        shared = {need: name for need, name in definition.upstream.items() if need in self._for_all}
        own = {need: name for need, name in definition.upstream.items() if need not in self._for_all}
        of_all = self._answers(shared, [EVERYBODY]).get(EVERYBODY, {}) if shared else {}
        if definition.for_all:
            gathered = [
                dependencies.gathered(self._store, need, name, self._run, self._resend_maybe_paid)
                for need, name in own.items()
            ]
            outcomes = [self._outcome(prompts, item.artist, of_all, gathered) for item in artists]
            return Page(outcomes, [_ids(of_all)] * len(artists))
        found = self._answers(own, [item.id for item in artists])
        answers = [{**of_all, **found.get(item.id, {})} for item in artists]
        outcomes = [self._outcome(prompts, item.artist, each) for item, each in zip(artists, answers, strict=True)]
        return Page(outcomes, [_ids(each) for each in answers])

    def _answers(self, needs: Mapping[str, str], artists: Sequence[int]) -> dict[int, dict[str, Answered]]:
        return dependencies.answers(
            self._store, needs, artists, run=self._run, resend_maybe_paid=self._resend_maybe_paid
        )

    def _outcome(
        self, prompts: RecipeVariant, artist: Artist, answers: Mapping[str, Answered], gathered: Sequence[Upstream] = ()
    ) -> Outcome:
        definition = prompts.definition
        states = [
            answers[need].state if need in answers else Upstream(need, "new", None, None)
            for need in definition.upstream
            if need in answers or not (definition.for_all and need not in self._for_all)
        ]
        missing = [state for state in (*states, *gathered) if state.reason is not None or state.response is None]
        if missing:
            return MissingUpstream(
                missing, _guess(prompts, artist) + (self._all_rows(prompts) if definition.for_all else 0)
            )
        try:
            texts = {need: upstream_answer(answer.text, answer.parsed) for need, answer in answers.items()}
            everybody = self._everybody(definition.upstream) if definition.for_all else None
            return rendered_request(prompts, self._backend, prompts.render(artist, texts, everybody))
        except RenderError as error:
            return error

    def _all_rows(self, prompts: RecipeVariant) -> int:
        """Tokens of all artists in one request, guessed from above: whole rows, and whole answers of what is needed."""
        if self._row_tokens is None:
            artists, characters = stale.row_lengths(self._store)
            self._row_tokens = artists, math.ceil(characters / 3)
        artists, tokens = self._row_tokens
        own = [need for need in prompts.definition.upstream if need not in self._for_all]
        return tokens + artists * NEEDED_TOKENS * len(own)

    def _everybody(self, needs: Mapping[str, str]) -> Everybody:
        return Everybody(self._store, {need: name for need, name in needs.items() if need not in self._for_all})


class Everybody:
    """All artists as a template walks through them, with the answers of needed recipes: read in pages, each time anew."""

    def __init__(self, store: Store, needs: Mapping[str, str]) -> None:
        self._store = store
        self._needs = needs

    def __len__(self) -> int:
        return stale.total_artists(self._store)

    def __iter__(self) -> Iterator[dict[str, object]]:
        for page in targets.artists(self._store, -1):
            numbers = [item.id for item in page]
            found = dependencies.answers(self._store, self._needs, numbers, run=None, resend_maybe_paid=True)
            for item in page:
                answers: dict[str, UpstreamAnswer] = {
                    need: upstream_answer(answer.text, answer.parsed) for need, answer in found.get(item.id, {}).items()
                }
                yield {**artist_context(item.artist), **answers}


def _ids(answers: Mapping[str, Answered]) -> str:
    return json.dumps({need: answer.state.response for need, answer in sorted(answers.items())})


def _guess(prompts: RecipeVariant, artist: Artist) -> int:
    """Tokens of a request that cannot be rendered yet."""
    definition = prompts.definition
    texts = (definition.instructions or "", definition.input or "", artist.artist_name, artist.artist_data)
    return FRAME_TOKENS + sum(estimate_tokens(text) for text in texts) + NEEDED_TOKENS * len(definition.upstream)
