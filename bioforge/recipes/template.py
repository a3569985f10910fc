"""From a recipe and an artist to rendered texts: Jinja2, sandboxed, undefined names are errors."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jinja2
import jinja2.meta
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bioforge.core.errors import TemplateError, nearest
from bioforge.core.types import PLAIN_DIALECT, Artist, Rendered
from bioforge.recipes.template_compile import Render, renderer

if TYPE_CHECKING:
    from bioforge.recipes.schema import Schema

OWN_NAMES = ("artist_id", "artist_name", "artist_data")
NEEDS = "needs"
"""All needed recipes by name, for names that are no words of a template."""
ARTISTS = "artists"
"""All artists, in the template of a recipe over all of them."""


VariantKey = tuple[str, str]
"""Recipe and variant."""


@dataclass(frozen=True, slots=True)
class Definition:
    """How a recipe asks, with its template texts read from their files: what is stale when this changes.

    `upstream` is the variant of each needed recipe; `needs_parsed` those of them whose answers are JSON; `for_all`: one
    request about all artists. `settings` tell this variant from others. `sources` names the files the texts came from,
    for messages; it is no part of the definition's identity.
    """

    recipe: str
    endpoint: str
    model: str | None
    instructions: str | None
    input: str | None
    prompt: Mapping[str, object] | None
    parameters: Mapping[str, object]
    variant: str = ""
    dialect: str = PLAIN_DIALECT
    sources: Mapping[str, str] | None = None
    sample: int = 1
    for_all: bool = False
    upstream: Mapping[str, str] = field(default_factory=dict)
    needs_parsed: frozenset[str] = frozenset()
    schema: Schema | None = None
    repair: bool = False
    fallback: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """What decides over freshness. Parts that are not used are absent, so that new ones make nothing stale."""
        schema = self.schema
        further: dict[str, object] = {
            "needs": dict(self.upstream),
            "for": "all" if self.for_all else "",
            "schema": None if schema is None else {"name": schema.name, **schema.generation},
            "validation": None if schema is None else schema.validation_hash,
            "repair": self.repair,
            "fallback": list(self.fallback),
            "sample": self.sample if self.sample > 1 else None,
        }
        return {
            "endpoint": self.endpoint,
            "model": self.model,
            "instructions": self.instructions,
            "input": self.input,
            "prompt": None if self.prompt is None else dict(self.prompt),
            "parameters": dict(self.parameters),
            "dialect": self.dialect,
            **{name: value for name, value in further.items() if value},
        }

    @property
    def key(self) -> VariantKey:
        return self.recipe, self.variant

    @property
    def has_retries(self) -> bool:
        """True if a failed request is repaired or sent to another model."""
        return self.repair or bool(self.fallback)

    def sent_parameters(self) -> Mapping[str, object]:
        """The request parameters, with the schema where the endpoint wants it."""
        if self.schema is None:
            return self.parameters
        from bioforge.recipes.schema import parameter, response_format

        name = parameter(self.endpoint)
        given = self.parameters.get(name)
        more = given if isinstance(given, Mapping) else {}
        return {**self.parameters, name: {**more, **response_format(self.schema, self.endpoint)}}


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """The answer of a needed recipe, as templates read it. `parsed` is None without a schema."""

    text: str
    parsed: object = None

    def __str__(self) -> str:
        return self.text


class Fields(dict[str, Any]):
    """A JSON object whose fields are found by their names even where a dict has a method of that name."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and dict.__contains__(self, name):
            return dict.__getitem__(self, name)
        return dict.__getattribute__(self, name)


def upstream_answer(text: str | None, parsed: str | None) -> UpstreamAnswer:
    """From the texts in the state."""
    return UpstreamAnswer(text or "", None if parsed is None else json.loads(parsed, object_hook=Fields))


class RenderError(Exception):
    """This artist cannot be rendered; the message says which text and why."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """A field of an answer is data, also where a dict has a method of that name which nobody may call."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, Fields) and not attr.startswith("_") and attr in obj:
            return True
        return super().is_safe_attribute(obj, attr, value)


def environment() -> jinja2.Environment:
    """For every template of a project: sandboxed, no HTML escaping, undefined names are errors."""
    made = _Sandbox(undefined=jinja2.StrictUndefined, autoescape=False)
    # what gives another text each time would make a request that was never planned
    del made.filters["random"]
    del made.globals["lipsum"]
    return made


class RecipeVariant:
    """A definition's templates, compiled once and rendered for each artist."""

    def __init__(self, definition: Definition) -> None:
        """Raises `TemplateError` when a text does not compile."""
        self.definition = definition
        self.key = definition.key
        self.recipe, self.variant = definition.key
        self.endpoint = definition.endpoint
        self.model = definition.model
        self.prompt = definition.prompt
        self.upstream = definition.upstream
        self.for_all = definition.for_all
        self.schema = definition.schema
        self.has_retries = definition.has_retries
        self._parameters = definition.sent_parameters()
        compiler = environment()
        self._names: set[str] = set()
        self._columns: set[str] = set()
        self._any_column = False
        self._instructions = self._compile(compiler, "instructions", definition.instructions)
        self._input = self._compile(compiler, "input", definition.input)
        self._variables: dict[str, Render] | None = None
        prompt = definition.prompt
        if prompt is not None and prompt.get("variables") is not None:
            given = prompt["variables"]
            assert isinstance(given, Mapping)
            self._variables = {
                str(name): self._compile_text(compiler, f"prompt.variables.{name}", str(text))
                for name, text in given.items()
            }
        elif prompt is not None:
            self._names |= {"artist_name", "artist_data"}

    def _compile(self, compiler: jinja2.Environment, part: str, text: str | None) -> Render | None:
        return None if text is None else self._compile_text(compiler, part, text)

    def _compile_text(self, compiler: jinja2.Environment, part: str, text: str) -> Render:
        source = (self.definition.sources or {}).get(part, f"recipe.{self.recipe}.{part}")
        try:
            tree = compiler.parse(text)
            if any(jinja2.meta.find_referenced_templates(tree)):
                raise TemplateError(
                    f"{source}: templates cannot include or extend others",
                    "put the text into one file; every text a recipe depends on must be known to the plan",
                )
            self._note_names(tree)
            return renderer(tree, compiler.from_string(text))
        except jinja2.TemplateAssertionError as error:
            raise TemplateError(
                f"{source}, line {error.lineno}: {error.message}", "a template must give the same text each time"
            ) from None
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"{source}, line {error.lineno}: {error.message}", "see the Jinja2 template syntax; {{ artist_name }}"
            ) from None

    def _note_names(self, tree: jinja2.nodes.Template) -> None:
        names = jinja2.meta.find_undeclared_variables(tree)
        self._names |= names
        named = 0
        for node in tree.find_all((jinja2.nodes.Getattr, jinja2.nodes.Getitem)):
            inner = node.node if isinstance(node, jinja2.nodes.Getattr | jinja2.nodes.Getitem) else None
            if not (isinstance(inner, jinja2.nodes.Name) and inner.name == "columns"):
                continue
            if isinstance(node, jinja2.nodes.Getattr):
                self._columns.add(node.attr)
                named += 1
            elif isinstance(node, jinja2.nodes.Getitem) and isinstance(node.arg, jinja2.nodes.Const):
                self._columns.add(str(node.arg.value))
                named += 1
        mentions = sum(1 for name in tree.find_all(jinja2.nodes.Name) if name.name == "columns")
        self._any_column = self._any_column or mentions > named
        self._check_needed(tree, names)

    def _check_needed(self, tree: jinja2.nodes.Template, names: Container[str]) -> None:
        """Raise `TemplateError` for what the answers of needed recipes do not have. `names` come from outside."""
        upstream, place = self.upstream, f"recipe.{self.recipe}"
        if not upstream:
            return
        for node in tree.find_all((jinja2.nodes.Getattr, jinja2.nodes.Getitem)):
            read = _read_name(node)
            if read is None:
                continue
            if _is_name(_inner(node), NEEDS, names) and read not in upstream:
                if isinstance(node, jinja2.nodes.Getattr) and hasattr(dict, read):  # needs.items()
                    continue
                raise TemplateError(
                    f"{place}: the template uses {NEEDS}[{read!r}], which it does not need",
                    nearest(read, upstream) or f"{NEEDS} = {json.dumps(list(upstream))} in the project file",
                )
            need = _needed_name(_inner(node), names)
            if need not in upstream:
                continue
            if read not in ("text", "parsed"):
                raise TemplateError(
                    f"{place}: the template uses {need}.{read}, and an answer has only {need}.text and {need}.parsed",
                    f"did you mean {{{{ {need}.parsed.{read} }}}}?",
                )
            if read == "parsed" and need not in self.definition.needs_parsed:
                raise TemplateError(
                    f"{place}: the template uses {need}.parsed, and recipe {need!r} has no schema",
                    f"give recipe.{need} a schema, or use {need}.text",
                )

    @property
    def _own_names(self) -> frozenset[str]:
        """Names that are no columns: needed recipes, and in a recipe over all artists the artists."""
        own = {ARTISTS} if self.for_all else {"columns"}
        return frozenset(own | {NEEDS, *self.upstream} if self.upstream else own)

    @property
    def used_columns(self) -> frozenset[str] | None:
        """The names the templates read; None when they read columns by computed names, so any column may count."""
        if self._any_column or self.for_all:
            return None
        return frozenset((self._names - self._own_names) | self._columns)

    def check_names(self, known: Iterable[str]) -> None:
        """Raise `TemplateError` for a name that no input column has. `known` are the input's column names."""
        place = f"recipe.{self.recipe}"
        columns = set() if self.for_all else {*known, *OWN_NAMES}
        for name in sorted((self._names - self._own_names) | self._columns):
            if name in columns:
                continue
            if self.for_all:
                raise TemplateError(
                    f"{place}: the template uses {name!r}, and is one text about all artists",
                    f"{{% for artist in {ARTISTS} %}} … {{{{ artist.{name} }}}} … {{% endfor %}}",
                )
            raise TemplateError(
                f"{place}: the template uses {name!r}, which is not a column of the input",
                nearest(name, columns) or f"columns are: {', '.join(sorted(columns))}",
            )

    def render(
        self,
        artist: Artist,
        upstream: Mapping[str, UpstreamAnswer] | None = None,
        artists: Iterable[Mapping[str, object]] | None = None,
    ) -> Rendered:
        """Raises `RenderError`; every other value of the recipe passes through unchanged.

        `upstream`: the answers of needed recipes, by name. `artists`: for a recipe over all of them, instead of the
        artist's own columns.
        """
        definition = self.definition
        context = {} if definition.for_all else artist_context(artist, "columns" in self._names)
        if definition.upstream:
            context |= {**(upstream or {}), NEEDS: upstream or {}}
        if definition.for_all:
            context[ARTISTS] = artists if artists is not None else ()
        return Rendered(
            definition.endpoint,
            definition.model,
            None if self._instructions is None else _call("instructions", self._instructions, context),
            None if self._input is None else _call("input", self._input, context),
            None if definition.prompt is None else self._render_prompt(definition.prompt, artist, context),
            self._parameters,
        )

    def _render_prompt(
        self, definition: Mapping[str, object], artist: Artist, context: dict[str, Any]
    ) -> Mapping[str, object]:
        prompt = {key: value for key, value in definition.items() if value is not None}
        if self._variables is None:
            variables = {"artist_name": artist.artist_name}
            if artist.artist_data:
                variables["artist_data"] = artist.artist_data
        else:
            variables = {name: _call(name, render, context) for name, render in self._variables.items()}
        prompt["variables"] = variables
        return prompt


def artist_context(artist: Artist, with_columns: bool = True) -> dict[str, Any]:
    """The names a template has of one artist; `columns`, all of them together, where it asks for that."""
    columns: dict[str, Any] = {
        **artist.columns,
        "artist_id": artist.artist_id,
        "artist_name": artist.artist_name,
        "artist_data": artist.artist_data,
    }
    return {**columns, "columns": columns} if with_columns else columns


def _inner(node: jinja2.nodes.Node) -> jinja2.nodes.Node | None:
    """What `node` reads something off; None for a node that reads nothing."""
    return node.node if isinstance(node, jinja2.nodes.Getattr | jinja2.nodes.Getitem) else None


def _read_name(node: jinja2.nodes.Node) -> str | None:
    """The name that is read: `x.name` or `x["name"]`; None where it is computed."""
    if isinstance(node, jinja2.nodes.Getattr):
        return node.attr
    if isinstance(node, jinja2.nodes.Getitem) and isinstance(node.arg, jinja2.nodes.Const):
        return str(node.arg.value)
    return None


def _is_name(node: jinja2.nodes.Node | None, name: str, names: Container[str]) -> bool:
    return isinstance(node, jinja2.nodes.Name) and node.name == name and name in names


def _needed_name(node: jinja2.nodes.Node | None, names: Container[str]) -> str | None:
    """The recipe that an expression may stand for: `facts`, `needs["facts"]`."""
    if isinstance(node, jinja2.nodes.Name):
        return node.name if node.name in names else None
    return _read_name(node) if node is not None and _is_name(_inner(node), NEEDS, names) else None


def _call(part: str, render: Render, context: dict[str, Any]) -> str:
    try:
        return render(context)
    except Exception as error:  # a template can do anything a sandbox allows: it fails its artist, never the run
        raise RenderError(f"{part}: {error}") from None


def estimate_tokens(text: str) -> int:
    """A fair first guess without a vocabulary: English has 4.5 characters a token, JSON 2.7, Japanese 1.2."""
    if text.isascii():
        return (len(text) + 2) // 3
    return math.ceil(max(len(text) / 3, len(text.encode("utf-8", "replace")) / 4))
