"""Count the tokens of a text: with the model's vocabulary if it is installed, else by an estimate.

The vocabulary is tiktoken's, which downloads it on first use. This module downloads nothing: it uses a vocabulary only
if tiktoken is installed (`pip install 'bioforge-llm[tokens]'`) and its cache holds the complete file.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from bioforge.recipes.template import estimate_tokens

Count = Callable[[str], int]


class Precision(StrEnum):
    """Precision of a count, compared with the provider's."""

    EXACT = "exact"
    """Counted with the vocabulary that the model is known to use."""
    NEAR = "near"
    """Counted with the vendor's newest vocabulary, for a model that tiktoken does not list."""
    ESTIMATE = "estimate"
    """Estimated from characters and bytes: half too many for English, too few for rows of numbers."""


@dataclass(frozen=True, slots=True)
class Counting:
    """Method of counting, as stored: `name` is the vocabulary's, or `estimate`."""

    name: str
    precision: Precision

    @property
    def exact(self) -> bool:
        return self.precision is Precision.EXACT

    def as_text(self) -> str:
        return f"{self.precision} {self.name}"

    @classmethod
    def from_text(cls, text: str | None) -> Counting:
        """Parse the text of `as_text`; an estimate if it is missing or cannot be parsed."""
        precision, _, name = (text or "").partition(" ")
        return cls(name, Precision(precision)) if name and precision in tuple(Precision) else ESTIMATED


ESTIMATED = Counting("estimate", Precision.ESTIMATE)


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts the tokens of one text. `count` never raises."""

    count: Count
    counting: Counting

    @property
    def name(self) -> str:
        return self.counting.name

    @property
    def exact(self) -> bool:
        return self.counting.exact


ESTIMATING = TokenCounter(estimate_tokens, ESTIMATED)


@dataclass(frozen=True, slots=True, eq=False)  # compare by identity: comparing patterns would cost more than counting
class Vocabulary:
    """A vocabulary of tiktoken: `url` and `sha256` of its file, and the pattern that splits a text before encoding.

    `names` are tiktoken's; the first one is shown.
    """

    names: tuple[str, ...]
    url: str
    sha256: str
    pattern: str


_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_AFTER = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"

O200K = Vocabulary(
    names=("o200k_base", "o200k_harmony"),  # they differ only in special tokens, which are not used
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
"""The first one is used for models that tiktoken does not list."""

PIECE = 50_000
"""Characters counted at once. A million spaces in one piece crash tiktoken with a panic that is not an `Exception`."""

_OWN_MODELS = re.compile(r"(?:ft:)?(?:chat)?(?:gpt-\d|o\d)")
"""Names of OpenAI's text models; tiktoken lists those that are older than itself."""


def counter_for(
    model: str | None, folder: Path | str | None = None, vocabularies: tuple[Vocabulary, ...] = VOCABULARIES
) -> TokenCounter:
    """Return the most exact counter for a model that needs no network.

    `folder` holds vocabularies; by default tiktoken's cache. It is read once per process, which takes a third of a
    second per vocabulary: call this only if there is something to count.
    """
    path = vocabulary_folder() if folder is None else str(folder)
    return _counter(model or "", path, vocabularies) if path else ESTIMATING


def vocabulary_folder() -> str:
    """Return tiktoken's cache folder; empty if its cache is disabled."""
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        folder = os.environ.get(name)
        if folder is not None:
            return folder
    return _default_folder()


@cache
def _default_folder() -> str:
    import tempfile

    return str(Path(tempfile.gettempdir(), "data-gym-cache"))


def file_name(vocabulary: Vocabulary) -> str:
    """Return the name of a vocabulary's file in tiktoken's cache."""
    return hashlib.sha1(vocabulary.url.encode(), usedforsecurity=False).hexdigest()


@lru_cache(maxsize=64)
def _counter(model: str, folder: str, vocabularies: tuple[Vocabulary, ...]) -> TokenCounter:
    # look for files first, to avoid an unnecessary import of tiktoken
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
    """Return tiktoken's name of a model's vocabulary; None for a model of another vendor."""
    model = model.removeprefix("openai/")  # prefix of gateways to many vendors
    try:
        return tiktoken.encoding_name_for_model(model), Precision.EXACT
    except KeyError:
        return (nearest if _OWN_MODELS.match(model) else None), Precision.NEAR


@lru_cache(maxsize=8)
def _count_with(vocabulary: Vocabulary, folder: str) -> Count | None:
    """Return a count function for a vocabulary; None if its file is missing, incomplete or wrong.

    The file is not read by tiktoken, which would replace a wrong one by downloading it.
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
            special_tokens={},  # a special token in a text is plain text
        )
    except Exception:  # an incompatible tiktoken: an estimate is better than no plan
        return None
    return _counting(encoding.encode_ordinary)


def _counting(encode: Callable[[str], list[int]]) -> Count:
    # instructions are often the same text for every artist: count them once
    @lru_cache(maxsize=16)
    def count(text: str) -> int:
        return sum(len(encode(text[start : start + PIECE])) for start in range(0, len(text), PIECE))

    return count


def web_searches(parameters: Mapping[str, object]) -> tuple[int, bool]:
    """Return the most web searches of one answer, and True if a limit bounds them; without a limit, 1 is assumed."""
    tools = parameters.get("tools")
    found = [tool for tool in (tools if isinstance(tools, list) else ()) if isinstance(tool, Mapping)]
    found = [tool for tool in found if str(tool.get("type")).startswith("web_search")]
    if not found:
        return (1, True) if "web_search_options" in parameters else (0, True)
    limits = (parameters.get("max_tool_calls"), *(tool.get("max_uses") for tool in found))
    limit = next((limit for limit in limits if type(limit) is int and limit >= 0), None)
    return (1, False) if limit is None else (limit, True)
