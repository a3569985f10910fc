"""Rendering one compiled template a million times: what it comes to without Jinja is rendered without it."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import jinja2
from jinja2 import nodes

Render = Callable[[dict[str, Any]], str]
"""The text of a template for the names it has."""


def renderer(tree: nodes.Template, template: jinja2.Template) -> Render:
    """Renders `template`, of which `tree` is the syntax: the same text, and the same error, as `template.render` gives."""
    parts = _parts(tree)
    if parts is None:
        return _rendered(template)
    texts, names = parts
    if not names:
        # instructions are often the same for every artist: rendered once, not a million times
        constant = template.render()
        return lambda context: constant
    return _put_together("%s".join(text.replace("%", "%%") for text in texts), names, _rendered(template))


def _parts(tree: nodes.Template) -> tuple[list[str], list[str]] | None:
    """The texts of a template and the names between them; None where there is anything else in it."""
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


def _put_together(pattern: str, names: list[str], otherwise: Render) -> Render:
    # two names at least, so that there is a tuple whatever the values are
    values = itemgetter(*names, *names[:1])
    pattern += "%.0s"

    def render(context: dict[str, Any]) -> str:
        try:
            text: str = pattern % values(context)
            return text
        except KeyError:  # a name of Jinja's own, or none at all: that is said in its words
            return otherwise(context)

    return render


def _rendered(template: jinja2.Template) -> Render:
    """As `template.render`, which puts the globals together anew each time and takes twice as long for a short text."""
    environment, shared = template.environment, dict(template.globals)
    new, root, join = environment.context_class, template.root_render_func, environment.concat
    name, blocks = template.name, template.blocks
    return lambda context: join(root(new(environment, {**shared, **context}, name, blocks)))
