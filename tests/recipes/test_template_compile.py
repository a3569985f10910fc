"""Templates rendered without Jinja give the text that Jinja gives."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest

from bioforge.core.types import Artist
from bioforge.recipes.template import (
    Definition,
    Fields,
    RecipeVariant,
    RenderError,
    UpstreamAnswer,
    artist_context,
    environment,
)
from bioforge.recipes.template_compile import renderer

VALUES: dict[str, Any] = {
    "text": "Björk & <co>",
    "percent": "100 %s %(x)s %%",
    "nothing": None,
    "number": 1.50,
    "flag": True,
    "list": [1, "a"],
    "tuple": (1, 2),
    "object": {"a": {"b": "c"}},
    "needed": UpstreamAnswer("an answer", Fields({"items": "data"})),
    "dict": "hides a name of Jinja's own",
}
TEMPLATES = [
    "",
    "constant",
    "100 % of %s and {{ '{{' }}",
    "{{ text }}",
    "{{ text }}\n{{ percent }}\n",
    "50 % {{ percent }} %% {{ text }}%",
    "{{ tuple }}",
    "{{ object }}",
    "{{ list }}{{ nothing }}{{ number }}{{ flag }}",
    "{{ text }}{{ text }}",
    "  {{- text -}}  \n {{ percent }}{# a comment #}",
    "{% raw %}{{ text }}{% endraw %}{{ text }}",
    "{{ dict }}",
    "{{ needed }} {{ needed.parsed.items }}",
    "{{ text | upper }}",
    "{% if flag %}{{ text }}{% else %}no{% endif %}",
    "{% for x in list %}{{ loop.index }}{{ x }}{% endfor %}{{ x | default('gone') }}",
    "{% set text = 'other' %}{{ text }}",
    "{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(text) }}",
    "{{ dict | length }} {% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}",
    "{% for i in range(3) %}{{ cycler('a', 'b').next() }}{% endfor %}",
    "{% block b %}{{ text }}{% endblock %}{{ self.b() }}",
    "{{ text ~ number }} {{ 1 + 1 }} {{ object.a.b }}",
]
FAILING = ["{{ unknown }}", "{{ text }} {{ unknown }}", "{{ text.__class__.__mro__ }}", "{{ list.append(1) }}"]


def rendered(text: str) -> str:
    compiler = environment()
    render = renderer(compiler.parse(text), compiler.from_string(text))
    first = render(dict(VALUES))
    assert render(dict(VALUES)) == first, "nothing of one rendering is left in the next"
    return first


@pytest.mark.parametrize("text", TEMPLATES)
def test_the_text_is_jinjas(text: str) -> None:
    assert rendered(text) == environment().from_string(text).render(VALUES)


def test_jinjas_globals_are_available() -> None:
    assert rendered("{{ range }} {{ text }}") == environment().from_string("{{ range }} {{ text }}").render(VALUES)


@pytest.mark.parametrize("text", FAILING)
def test_the_error_is_jinjas(text: str) -> None:
    with pytest.raises(jinja2.TemplateError) as expected:
        environment().from_string(text).render(VALUES)
    with pytest.raises(type(expected.value)) as error:
        rendered(text)
    assert str(error.value) == str(expected.value)


@pytest.mark.parametrize(
    "text", ["{{ columns }}", "{{ columns.born }} {{ artist_id }}", "{{ born }}", "{{ artist_name }}"]
)
def test_an_artist_is_rendered_with_all_its_names(text: str) -> None:
    artist = Artist("7", "Antonín Dvořák", "composer", {"born": "1841", "columns": "hidden", "artist_name": "hidden"})
    variant = RecipeVariant(Definition("bio", "/v1/responses", "m", None, text, None, {}))
    assert variant.render(artist).input == environment().from_string(text).render(artist_context(artist))


def test_an_unknown_name_fails_its_artist() -> None:
    variant = RecipeVariant(Definition("bio", "/v1/responses", "m", None, "{{ artist_name }} {{ born }}", None, {}))
    with pytest.raises(RenderError, match="input: 'born' is undefined"):
        variant.render(Artist("1", "X"))
