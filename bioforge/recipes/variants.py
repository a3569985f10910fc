"""Variants of a recipe: every combination of its matrix and its samples, and of the variants of what it needs. Pure.

A variant is known by its settings: `temperature=0.2,model=gpt-6-luna,sample=2`. The first sample is not named, so that
asking for more samples makes nothing stale. What comes from a needed recipe has its name before it:
`bio.temperature=0.2`. The only variant of a recipe without matrix, samples and needs that have any has the empty name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import PurePosixPath

SAMPLE = "sample"
LONGEST = 40


@dataclass(frozen=True, slots=True)
class Variant:
    """`settings` as they are shown, in order, the first sample included; `values` are the recipe's own, as written.

    `upstream` names the variant of each needed recipe that this one builds on.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, object] = field(default_factory=dict)
    sample: int = 1
    upstream: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return ",".join(f"{key}={value}" for key, value in self.settings.items() if not _first_sample(key, value))


def expand(
    matrix: Mapping[str, Sequence[object]], samples: int = 1, needs: Mapping[str, Sequence[Variant]] | None = None
) -> list[Variant]:
    """Every variant in the order of the file: needed recipes first, then the matrix, samples last."""
    shown = {key: _shown_values(values) for key, values in matrix.items()}
    own = [
        dict(zip(matrix, chosen, strict=True))
        for chosen in product(*(range(len(values)) for values in matrix.values()))
    ]
    return [
        Variant(
            settings={
                **inherited,
                **{key: shown[key][index] for key, index in indices.items()},
                **({SAMPLE: str(sample)} if samples > 1 else {}),
            },
            values={key: matrix[key][index] for key, index in indices.items()},
            sample=sample,
            upstream=upstream,
        )
        for inherited, upstream in _joined(needs or {})
        for indices in own
        for sample in range(1, samples + 1)
    ]


def _joined(needs: Mapping[str, Sequence[Variant]]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """(settings, variant by recipe) of every combination in which what two recipes share is the same."""
    for chosen in product(*needs.values()):
        settings: dict[str, str] = {}
        for need, variant in zip(needs, chosen, strict=True):
            theirs = {_inherited(need, key): value for key, value in variant.settings.items()}
            if any(settings.get(key, value) != value for key, value in theirs.items()):
                break
            settings |= theirs
        else:
            yield settings, {need: variant.name for need, variant in zip(needs, chosen, strict=True)}


def parse(name: str) -> dict[str, str]:
    """The settings in a variant's name."""
    return dict(part.split("=", 1) for part in name.split(",") if "=" in part)


def without_samples(name: str) -> str:
    """The name that all samples of a variant share, those of needed recipes included."""
    return ",".join(f"{key}={value}" for key, value in parse(name).items() if not _is_sample(key))


def as_needed(recipe: str, name: str) -> str:
    """What a variant of `recipe` is called in the variants of a recipe that needs it."""
    return ",".join(f"{_inherited(recipe, key)}={value}" for key, value in parse(name).items())


def _inherited(recipe: str, key: str) -> str:
    return key if "." in key else f"{recipe}.{key}"


def _is_sample(key: str) -> bool:
    return key.rpartition(".")[2] == SAMPLE


def _first_sample(key: str, value: str) -> bool:
    return _is_sample(key) and value == "1"


def _shown_values(values: Sequence[object]) -> list[str]:
    """Short, without commas, and different from each other."""
    found: list[str] = []
    for value in values:
        text = _shown(value)
        found.append(text if text not in found else f"{text}~{len(found) + 1}")
    return found


def _shown(value: object) -> str:
    if isinstance(value, str):
        path = PurePosixPath(value)
        text = path.stem if "\n" not in value and path.suffix in (".md", ".txt", ".j2", ".jinja", ".jinja2") else value
    else:
        text = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^\w.:/+-]+", "-", text).strip("-")[:LONGEST] or "empty"


def matches(name: str, text: str) -> bool:
    """Whether a variant is meant by `text`: a glob over its whole name, or settings that it has among others.

    A setting without a recipe's name before it also means one that comes from a needed recipe.
    """
    if any(character in text for character in "*?["):
        return fnmatchcase(name, text)
    settings = parse(name)
    wanted = parse(text)
    return bool(wanted) and all(
        any(found == value and (key == own or own.endswith(f".{key}")) for own, found in settings.items())
        or (_is_sample(key) and value == "1" and not any(_is_sample(own) for own in settings))
        for key, value in wanted.items()
    )
