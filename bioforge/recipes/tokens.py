"""Counting the tokens of a text before it is sent: with a model's own vocabulary where it is at hand, else a fair guess.

The vocabulary is tiktoken's, which downloads it when it is first used. Nothing is downloaded here: a vocabulary counts
only when it already lies where tiktoken keeps it, whole, and tiktoken is installed (`pip install 'bioforge[tokens]'`).
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from bioforge.recipes.template import estimate_tokens

Count = Callable[[str], int]


class Precision(StrEnum):
    """How near a count comes to what the provider will count of the same text."""

    EXACT = "exact"
    """The vocabulary that the model is known to use."""
    NEAR = "near"
    """The vocabulary of the vendor's models so far, for one that is newer than the list of them."""
    ESTIMATE = "estimate"
    """Characters and bytes: of English half too many, of rows of numbers too few."""


@dataclass(frozen=True, slots=True)
class Counting:
    """The way in which tokens were counted, as the state remembers it: `name` is the vocabulary's, or `estimate`."""

    name: str
    precision: Precision

    @property
    def exact(self) -> bool:
        return self.precision is Precision.EXACT

    def as_text(self) -> str:
        return f"{self.precision} {self.name}"

    @classmethod
    def from_text(cls, text: str | None) -> Counting:
        """What `as_text` gave; an estimate where nothing, or nothing that can be understood, was remembered."""
        precision, _, name = (text or "").partition(" ")
        return cls(name, Precision(precision)) if name and precision in tuple(Precision) else ESTIMATED


ESTIMATED = Counting("estimate", Precision.ESTIMATE)


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts the tokens of one text. Any text: `count` never raises."""

    count: Count
    counting: Counting

    @property
    def name(self) -> str:
        return self.counting.name

    @property
    def exact(self) -> bool:
        return self.counting.exact


ESTIMATING = TokenCounter(estimate_tokens, ESTIMATED)


@dataclass(frozen=True, slots=True, eq=False)  # each is itself: comparing patterns would cost more than counting
class Vocabulary:
    """A vocabulary as tiktoken has it: `url` and `sha256` of its file, and the pattern that cuts a text into pieces
    before they become tokens. `names` are those by which tiktoken knows it; the first one is shown."""

    names: tuple[str, ...]
    url: str
    sha256: str
    pattern: str


_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_AFTER = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"

O200K = Vocabulary(
    names=("o200k_base", "o200k_harmony"),  # they differ only in special tokens, which stand in no text of ours
    url="https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken",
    sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    pattern="|".join(
        (
            f"{_BEFORE}{_UPPER}*{_LOWER}+{_AFTER}",
            f"{_BEFORE}{_UPPER}+{_LOWER}*{_AFTER}",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        )
    ),
)

CL100K = Vocabulary(
    names=("cl100k_base",),
    url="https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken",
    sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    pattern="|".join(
        (
            r"'(?i:[sdmt]|ll|ve|re)",
            r"[^\r\n\p{L}\p{N}]?+\p{L}++",
            r"\p{N}{1,3}+",
            r" ?[^\s\p{L}\p{N}]++[\r\n]*+",
            r"\s++$",
            r"\s*[\r\n]",
            r"\s+(?!\S)",
            r"\s",
        )
    ),
)

VOCABULARIES = (O200K, CL100K)
"""The first one is the nearest for models that tiktoken does not know yet."""

PIECE = 50_000
"""Characters that are counted at once. A million spaces in one piece end tiktoken with a panic that is no `Exception`."""

_OWN_MODELS = re.compile(r"(?:ft:)?(?:chat)?(?:gpt-\d|o\d)")
"""The names of OpenAI's models for text, of which tiktoken knows those that are older than itself."""


def counter_for(
    model: str | None, folder: Path | str | None = None, vocabularies: tuple[Vocabulary, ...] = VOCABULARIES
) -> TokenCounter:
    """What counts tokens for a model: as exactly as is possible without asking anybody for anything.

    `folder` is where vocabularies lie; by default where tiktoken keeps them. It is looked into once in a process, and
    a vocabulary takes a third of a second to read: ask only where something is to be counted.
    """
    where = vocabulary_folder() if folder is None else str(folder)
    return _counter(model or "", where, vocabularies) if where else ESTIMATING


def vocabulary_folder() -> str:
    """Where tiktoken keeps what it has downloaded; empty where it is told to keep nothing."""
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        found = os.environ.get(name)
        if found is not None:
            return found
    return _default_folder()


@cache
def _default_folder() -> str:
    import tempfile

    return str(Path(tempfile.gettempdir(), "data-gym-cache"))


def file_name(vocabulary: Vocabulary) -> str:
    """The name under which tiktoken keeps a vocabulary."""
    return hashlib.sha1(vocabulary.url.encode(), usedforsecurity=False).hexdigest()


@lru_cache(maxsize=64)
def _counter(model: str, folder: str, vocabularies: tuple[Vocabulary, ...]) -> TokenCounter:
    # files before tiktoken: without one, its import would be for nothing
    if not any(Path(folder, file_name(vocabulary)).is_file() for vocabulary in vocabularies):
        return ESTIMATING
    try:
        tiktoken = importlib.import_module("tiktoken")
    except ImportError:
        return ESTIMATING
    name, precision = _encoding_name(tiktoken, model, vocabularies[0].names[0])
    vocabulary = next((known for known in vocabularies if name in known.names), None)
    count = None if vocabulary is None else _count_with(vocabulary, folder)
    if vocabulary is None or count is None:
        return ESTIMATING
    return TokenCounter(count, Counting(vocabulary.names[0], precision))


def _encoding_name(tiktoken: Any, model: str, nearest: str) -> tuple[str | None, Precision]:
    """The vocabulary that a model uses, by tiktoken's name; None for a model of another vendor."""
    model = model.removeprefix("openai/")  # as gateways to many vendors call them
    try:
        return tiktoken.encoding_name_for_model(model), Precision.EXACT
    except KeyError:
        return (nearest if _OWN_MODELS.match(model) else None), Precision.NEAR


@lru_cache(maxsize=8)
def _count_with(vocabulary: Vocabulary, folder: str) -> Count | None:
    """Counts with a vocabulary; None where its file is not there, not whole, or not what it should be.

    The file is read here and not by tiktoken, which would replace one that it does not like by downloading it.
    """
    try:
        content = Path(folder, file_name(vocabulary)).read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest() != vocabulary.sha256:
        return None
    try:
        pairs = (line.split() for line in content.splitlines() if line)
        encoding = importlib.import_module("tiktoken").Encoding(
            vocabulary.names[0],
            pat_str=vocabulary.pattern,
            mergeable_ranks={base64.b64decode(token): int(rank) for token, rank in pairs},
            special_tokens={},  # what looks like one in a text is text
        )
    except Exception:  # a tiktoken that is made otherwise: an estimate is better than no plan
        return None
    return _counting(encoding.encode_ordinary)


def _counting(encode: Callable[[str], list[int]]) -> Count:
    # instructions are often the same text for every artist: counted once, not a million times
    @lru_cache(maxsize=16)
    def count(text: str) -> int:
        return sum(len(encode(text[start : start + PIECE])) for start in range(0, len(text), PIECE))

    return count
