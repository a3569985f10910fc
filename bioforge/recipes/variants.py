"""Expand a recipe into its variants: every combination of matrix, samples and upstream variants. Pure.

A variant is named by its settings: `temperature=0.2,model=gpt-6-luna,sample=2`. The first sample is not named, so that
more samples make nothing stale. Settings of an upstream recipe are prefixed with its name: `bio.temperature=0.2`. The
only variant of a recipe without settings has an empty name.
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
MAX_LENGTH = 40


@dataclass(frozen=True, slots=True)
class Variant:
    """`settings` for display, in order, including the first sample; `values` are the recipe's own, as written.

    `upstream` names the variant of each upstream recipe.
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
    """Return all variants in the order of the file: upstream recipes first, then the matrix, samples last."""
    texts = {key: _setting_texts(values) for key, values in matrix.items()}
    own = [
        dict(zip(matrix, chosen, strict=True))
        for chosen in product(*(range(len(values)) for values in matrix.values()))
    ]
    return [
        Variant(
            settings={
                **inherited,
                **{key: texts[key][index] for key, index in indices.items()},
                **({SAMPLE: str(sample)} if samples > 1 else {}),
            },
            values={key: matrix[key][index] for key, index in indices.items()},
            sample=sample,
            upstream=upstream,
        )
        for inherited, upstream in _upstream_combinations(needs or {})
        for indices in own
        for sample in range(1, samples + 1)
    ]


def _upstream_combinations(needs: Mapping[str, Sequence[Variant]]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Yield (settings, variant by recipe) for every combination in which shared settings agree."""
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
    """Return the settings in a variant's name."""
    return dict(part.split("=", 1) for part in name.split(",") if "=" in part)


def without_samples(name: str) -> str:
    """Return the name that all samples of a variant share, including samples of upstream recipes."""
    return ",".join(f"{key}={value}" for key, value in parse(name).items() if not _is_sample(key))


def as_needed(recipe: str, name: str) -> str:
    """Return the name of a variant of `recipe` inside the variants of a recipe that needs it."""
    return ",".join(f"{_inherited(recipe, key)}={value}" for key, value in parse(name).items())


def _inherited(recipe: str, key: str) -> str:
    return key if "." in key else f"{recipe}.{key}"


def _is_sample(key: str) -> bool:
    return key.rpartition(".")[2] == SAMPLE


def _first_sample(key: str, value: str) -> bool:
    return _is_sample(key) and value == "1"


def _setting_texts(values: Sequence[object]) -> list[str]:
    """Return short texts without commas, all different."""
    texts: list[str] = []
    for value in values:
        text = _setting_text(value)
        texts.append(text if text not in texts else f"{text}~{len(texts) + 1}")
    return texts


def _setting_text(value: object) -> str:
    if isinstance(value, str):
        path = PurePosixPath(value)
        text = path.stem if "\n" not in value and path.suffix in (".md", ".txt", ".j2", ".jinja", ".jinja2") else value
    else:
        text = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^\w.:/+-]+", "-", text).strip("-")[:MAX_LENGTH] or "empty"


def matches(name: str, text: str) -> bool:
    """Return True if `text` selects the variant: a glob over its name, or a subset of its settings.

    A setting without a recipe's name also matches one of an upstream recipe.
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
