"""Compile a recipe's Jinja2 templates and render them for an artist; sandboxed, undefined names are errors."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jinja2
import jinja2.meta
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range

from bioforge.core.errors import TemplateError, nearest
from bioforge.core.types import PLAIN_DIALECT, Artist, Rendered
from bioforge.recipes.template_compile import MAX_TEXT, Render, check_numbers, renderer

if TYPE_CHECKING:
    from bioforge.recipes.schema import Schema

OWN_NAMES = ("artist_id", "artist_name", "artist_data")
NEEDS = "needs"
"""Template name of a mapping with all upstream answers, for recipe names that are not identifiers."""
ARTISTS = "artists"
"""Template name of all artists, in a recipe over all of them."""


VariantKey = tuple[str, str]
"""Recipe and variant."""


@dataclass(frozen=True, slots=True)
class Definition:
    """Content of a recipe variant, with its template texts; a target is stale if it changes.

    `upstream` is the variant of each upstream recipe; `needs_parsed` are the recipes among them whose answers are JSON.
    `for_all`: one request about all artists. `sources` are the files of the texts, for messages only; they are not part
    of the identity.
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
        """Return the parts that decide about freshness; unused parts are absent, so that new ones make nothing stale."""
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
        """Return the request parameters, with the schema at the endpoint's place for it."""
        if self.schema is None:
            return self.parameters
        from bioforge.recipes.schema import parameter, response_format

        name = parameter(self.endpoint)
        given = self.parameters.get(name)
        more = given if isinstance(given, Mapping) else {}
        return {**self.parameters, name: {**more, **response_format(self.schema, self.endpoint)}}


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """An upstream recipe's answer, as templates read it. `parsed` is None without a schema."""

    text: str
    parsed: object = None

    def __str__(self) -> str:
        return self.text


class Fields(dict[str, Any]):
    """A JSON object whose fields are attributes too, even those named like a method of dict."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and dict.__contains__(self, name):
            return dict.__getitem__(self, name)
        return dict.__getattribute__(self, name)


def upstream_answer(text: str | None, parsed: str | None) -> UpstreamAnswer:
    """Return a stored answer for templates; both arguments are texts, `parsed` is JSON."""
    return UpstreamAnswer(text or "", None if parsed is None else json.loads(parsed, object_hook=Fields))


class RenderError(Exception):
    """An artist that cannot be rendered; the message names the text and the error."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Sandbox in which every field of an answer is readable, even one named like a method of dict.

    All numbers of `range` in one text together, and numbers that set the length of a text, are limited.
    """

    intercepted_binops = frozenset({"*", "**"})
    counted = 0
    """Numbers that `range` has given to the current text."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        check_numbers(left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        check_numbers(*args, *kwargs.values())
        given = super().call(context, function, *args, **kwargs)
        if function is safe_range:
            self.counted += len(given)
            if self.counted > MAX_TEXT:
                raise OverflowError(f"range() gives more than {MAX_TEXT:,} numbers in one text; shorten the loops")
        return given

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, Fields) and not attr.startswith("_") and attr in obj:
            return True
        return super().is_safe_attribute(obj, attr, value)


def environment() -> jinja2.Environment:
    """Return the Jinja2 environment of all templates: sandboxed, no HTML escaping, undefined names are errors."""
    jinja = _Sandbox(undefined=jinja2.StrictUndefined, autoescape=False)
    # a text that differs each time would give a request that was never planned
    del jinja.filters["random"]
    del jinja.globals["lipsum"]
    for name in ("center", "indent"):
        jinja.filters[name] = _limited(jinja.filters[name])
    return jinja


def _limited(function: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(function)
    def limited(*args: Any, **kwargs: Any) -> str:
        check_numbers(*args, *kwargs.values())
        return function(*args, **kwargs)

    return limited


class RecipeVariant:
    """A variant of a recipe, with its templates compiled once and rendered for each artist."""

    def __init__(self, definition: Definition) -> None:
        """Compile the templates. Raises `TemplateError` if a text does not compile."""
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
                    f"{source}: a template cannot include or extend another one",
                    "put the text into one file, so that a plan sees every change of it",
                )
            self._note_names(tree)
            return renderer(tree, compiler.from_string(text))
        except jinja2.TemplateAssertionError as error:
            raise TemplateError(
                f"{source}, line {error.lineno}: {error.message}", "a template must give the same text every time"
            ) from None
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"{source}, line {error.lineno}: {error.message}",
                "see the Jinja2 template syntax, for example {{ artist_name }}",
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
        """Raise `TemplateError` for unknown parts of upstream answers. `names` are the template's free names."""
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
                    f"{place}: the template uses {NEEDS}[{read!r}], but the recipe does not need it",
                    nearest(read, upstream) or f"{NEEDS} = {json.dumps(list(upstream))} in the project file",
                )
            need = _needed_name(_inner(node), names)
            if need not in upstream:
                continue
            if read not in ("text", "parsed"):
                raise TemplateError(
                    f"{place}: the template uses {need}.{read}, but an answer has only {need}.text and {need}.parsed",
                    f"did you mean {{{{ {need}.parsed.{read} }}}}?",
                )
            if read == "parsed" and need not in self.definition.needs_parsed:
                raise TemplateError(
                    f"{place}: the template uses {need}.parsed, but recipe {need!r} has no schema",
                    f"give recipe.{need} a schema, or use {need}.text",
                )

    @property
    def _own_names(self) -> frozenset[str]:
        """Names that are not columns: upstream recipes, `needs`, and `columns` or `artists`."""
        own = {ARTISTS} if self.for_all else {"columns"}
        return frozenset(own | {NEEDS, *self.upstream} if self.upstream else own)

    @property
    def used_columns(self) -> frozenset[str] | None:
        """Return the columns that the templates read; None if they compute column names, so that any may count."""
        if self._any_column or self.for_all:
            return None
        return frozenset((self._names - self._own_names) | self._columns)

    def check_names(self, known: Iterable[str]) -> None:
        """Raise `TemplateError` for a name that is not a column. `known` are the input's column names."""
        place = f"recipe.{self.recipe}"
        columns = set() if self.for_all else {*known, *OWN_NAMES}
        for name in sorted((self._names - self._own_names) | self._columns):
            if name in columns:
                continue
            if self.for_all:
                raise TemplateError(
                    f"{place}: the template uses {name!r}, but it is one text about all artists",
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
        """Render the texts for an artist; all other values of the recipe are passed through. Raises `RenderError`.

        `upstream`: answers by upstream recipe. `artists`: all artists, for a recipe over all of them.
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
    """Return the template names of one artist; with `columns`, a mapping of all of them, if wanted."""
    columns: dict[str, Any] = {
        **artist.columns,
        "artist_id": artist.artist_id,
        "artist_name": artist.artist_name,
        "artist_data": artist.artist_data,
    }
    return {**columns, "columns": columns} if with_columns else columns


def _inner(node: jinja2.nodes.Node) -> jinja2.nodes.Node | None:
    """Return the expression that `node` reads an attribute or item of; None for other nodes."""
    return node.node if isinstance(node, jinja2.nodes.Getattr | jinja2.nodes.Getitem) else None


def _read_name(node: jinja2.nodes.Node) -> str | None:
    """Return the name read by `x.name` or `x["name"]`; None if it is computed."""
    if isinstance(node, jinja2.nodes.Getattr):
        return node.attr
    if isinstance(node, jinja2.nodes.Getitem) and isinstance(node.arg, jinja2.nodes.Const):
        return str(node.arg.value)
    return None


def _is_name(node: jinja2.nodes.Node | None, name: str, names: Container[str]) -> bool:
    return isinstance(node, jinja2.nodes.Name) and node.name == name and name in names


def _needed_name(node: jinja2.nodes.Node | None, names: Container[str]) -> str | None:
    """Return the name of the recipe that an expression may refer to: `facts`, `needs["facts"]`."""
    if isinstance(node, jinja2.nodes.Name):
        return node.name if node.name in names else None
    return _read_name(node) if node is not None and _is_name(_inner(node), NEEDS, names) else None


def _call(part: str, render: Render, context: dict[str, Any]) -> str:
    try:
        return render(context)
    except Exception as error:  # a template fails only its artist, never the run
        raise RenderError(f"{part}: {error}") from None


def estimate_tokens(text: str) -> int:
    """Estimate tokens without a vocabulary: English has 4.5 characters a token, JSON 2.7, Japanese 1.2."""
    if text.isascii():
        return (len(text) + 2) // 3
    return math.ceil(max(len(text) / 3, len(text.encode("utf-8", "replace")) / 4))
