"""Compile templates for a million renderings: plain text with names is formatted without Jinja."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import jinja2
from jinja2 import nodes

Render = Callable[[dict[str, Any]], str]
"""Render a template with the names of its context."""


MAX_TEXT = 1_000_000
"""Highest number that a template may compute a text with, and most numbers of `range` in one text."""


def check_numbers(*values: object) -> None:
    """Raise `OverflowError` for a number with which a template could make a text without end."""
    if any(isinstance(value, int) and value > MAX_TEXT for value in values):
        raise OverflowError(f"a number above {MAX_TEXT:,} would make the text too long; use a smaller one")


def renderer(tree: nodes.Template, template: jinja2.Template) -> Render:
    """Return a function with the same texts and errors as `template.render`. `tree` is the template's syntax tree."""
    parts = _parts(tree)
    if parts is None:
        return _jinja_renderer(template)
    texts, names = parts
    if not names:
        # instructions are often the same for every artist: render them once
        constant = template.render()
        return lambda context: constant
    return _formatter("%s".join(text.replace("%", "%%") for text in texts), names, _jinja_renderer(template))


def _parts(tree: nodes.Template) -> tuple[list[str], list[str]] | None:
    """Return the texts of a template and the names between them; None if it contains anything else."""
    texts, names = [""], list[str]()
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                texts[-1] += node.data
            elif isinstance(node, nodes.Name):
                names.append(node.name)
                texts.append("")
            else:
                return None
    return texts, names


def _formatter(pattern: str, names: list[str], fallback: Render) -> Render:
    # at least two names, so that itemgetter returns a tuple
    values = itemgetter(*names, *names[:1])
    pattern += "%.0s"

    def render(context: dict[str, Any]) -> str:
        try:
            text: str = pattern % values(context)
            return text
        except KeyError:  # a global of Jinja, or an undefined name: Jinja raises its error
            return fallback(context)

    return render


def _jinja_renderer(template: jinja2.Template) -> Render:
    """Do the same as `template.render`, which rebuilds the globals each time and takes twice as long."""
    environment, shared = template.environment, dict(template.globals)
    new, root, join = environment.context_class, template.root_render_func, environment.concat
    name, blocks = template.name, template.blocks

    def render(context: dict[str, Any]) -> str:
        environment.counted = 0  # type: ignore[attr-defined]
        return join(root(new(environment, {**shared, **context}, name, blocks)))

    return render
