"""Tokens are counted with the model's vocabulary if it is cached, and estimated otherwise."""

from __future__ import annotations

import base64
import hashlib
import inspect
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioforge.recipes.template import estimate_tokens
from bioforge.recipes.tokens import (
    CL100K,
    ESTIMATED,
    ESTIMATING,
    O200K,
    PIECE,
    VOCABULARIES,
    Counting,
    Precision,
    TokenCounter,
    Vocabulary,
    counter_for,
    file_name,
    vocabulary_folder,
)

MERGES = ("he", "ll", "hell", "hello", " w", "or", " wor", "ld", " world")
"""Tokens of the small vocabulary in addition to single bytes, in merge order."""

HELLO_WORLD = 2
"""Tokens of `hello world` in it; the estimate is twice as high."""


def needs_tiktoken() -> None:
    pytest.importorskip("tiktoken", reason="the extra `tokens` is not installed; CI installs it")


@pytest.fixture
def small(tmp_path: Path) -> tuple[Vocabulary, ...]:
    """Return a small vocabulary that looks downloaded, and one that is not."""
    return (keep(O200K, tmp_path), CL100K)


def keep(vocabulary: Vocabulary, folder: Path) -> Vocabulary:
    """Write a small vocabulary in the format and under the name of a real one."""
    tokens = [bytes([byte]) for byte in range(256)] + [merge.encode() for merge in MERGES]
    content = b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))
    (folder / file_name(vocabulary)).write_bytes(content)
    return replace(vocabulary, sha256=hashlib.sha256(content).hexdigest())


# --------------------------------------------------------------------------------------------- without a vocabulary


def test_without_a_vocabulary_tokens_are_estimated(tmp_path: Path) -> None:
    counter = counter_for("gpt-4o", tmp_path)
    assert (counter.name, counter.exact) == ("estimate", False)
    assert counter.count("hello world") == estimate_tokens("hello world") == 4


def test_a_missing_vocabulary_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tiktoken itself would download it."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert counter_for("gpt-4o") is ESTIMATING
    assert list(tmp_path.iterdir()) == []


def test_without_tiktoken_its_files_are_not_used(
    small: tuple[Vocabulary, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    assert counter_for("gpt-4o", tmp_path, small) is ESTIMATING


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"TIKTOKEN_CACHE_DIR": "/vocabularies"}, "/vocabularies"),
        ({"DATA_GYM_CACHE_DIR": "/gym"}, "/gym"),
        ({"TIKTOKEN_CACHE_DIR": "/vocabularies", "DATA_GYM_CACHE_DIR": "/gym"}, "/vocabularies"),
        ({}, "{temporary}/data-gym-cache"),
        ({"TIKTOKEN_CACHE_DIR": ""}, ""),
    ],
)
def test_vocabularies_are_read_from_tiktokens_cache(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert vocabulary_folder() == folder.format(temporary=tempfile.gettempdir())


def test_without_a_cache_tokens_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert counter_for("gpt-4o") is ESTIMATING


# ------------------------------------------------------------------------------------------------ with a vocabulary


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        ("gpt-4o", Precision.EXACT),
        ("gpt-4.1-mini", Precision.EXACT),
        ("o3-mini", Precision.EXACT),
        ("openai/gpt-4o", Precision.EXACT),
        ("gpt-6-luna", Precision.NEAR),
        ("openai/gpt-6.1-terra", Precision.NEAR),
        ("ft:gpt-6-luna:museum::1", Precision.NEAR),
        ("o9-mini", Precision.NEAR),
        ("gpt-4", Precision.ESTIMATE),  # its vocabulary is another one, which is not there
        ("claude-5", Precision.ESTIMATE),
        ("mistral-large", Precision.ESTIMATE),
        ("olmo-3", Precision.ESTIMATE),
        ("", Precision.ESTIMATE),
        (None, Precision.ESTIMATE),
    ],
)
def test_the_precision_depends_on_the_model(
    model: str | None, precision: Precision, small: tuple[Vocabulary, ...], tmp_path: Path
) -> None:
    needs_tiktoken()
    counter = counter_for(model, tmp_path, small)
    assert counter.counting.precision is precision
    if precision is Precision.ESTIMATE:
        assert counter is ESTIMATING
    else:
        assert (counter.name, counter.exact) == ("o200k_base", precision is Precision.EXACT)
        assert counter.count("hello world") == HELLO_WORLD


def test_each_model_has_its_own_vocabulary(tmp_path: Path) -> None:
    needs_tiktoken()
    both = (keep(O200K, tmp_path), keep(CL100K, tmp_path))
    assert counter_for("gpt-4", tmp_path, both).counting == Counting("cl100k_base", Precision.EXACT)
    assert counter_for("gpt-oss-120b", tmp_path, both).counting == Counting("o200k_base", Precision.EXACT)


@pytest.mark.parametrize("content", [b"", b"aGU= 0\n", b"not a vocabulary"])
def test_an_incomplete_file_is_left_alone(content: bytes, small: tuple[Vocabulary, ...], tmp_path: Path) -> None:
    """tiktoken itself would delete it and download another one."""
    needs_tiktoken()
    path = tmp_path / file_name(O200K)
    path.write_bytes(content)
    assert counter_for("gpt-4o", tmp_path, small) is ESTIMATING
    assert path.read_bytes() == content


def test_an_incompatible_tiktoken_gives_an_estimate(tmp_path: Path) -> None:
    """The right file, and a tiktoken with another API."""
    needs_tiktoken()
    content = b"aGU= 0\naGU= zero\n"
    (tmp_path / file_name(O200K)).write_bytes(content)
    broken = replace(O200K, sha256=hashlib.sha256(content).hexdigest())
    assert counter_for("gpt-4o", tmp_path, (broken,)) is ESTIMATING


def test_a_vocabulary_is_read_once(small: tuple[Vocabulary, ...], tmp_path: Path) -> None:
    needs_tiktoken()
    first = counter_for("gpt-4o", tmp_path, small)
    (tmp_path / file_name(O200K)).unlink()
    assert counter_for("gpt-4o", tmp_path, small) is first


# --------------------------------------------------------------------------------------------------------- any text


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> TokenCounter:
    needs_tiktoken()
    folder = tmp_path_factory.mktemp("vocabularies")
    return counter_for("gpt-4o", folder, (keep(O200K, folder),))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("hello", 1),
        ("hello world", HELLO_WORLD),
        ("Björk", 6),
        ("<|endoftext|>", 13),  # text like any other, not the end of anything
        ("a\ud800b", 5),  # a lone surrogate counts as the replacement character
    ],
)
def test_texts_are_counted(counter: TokenCounter, text: str, tokens: int) -> None:
    assert counter.count(text) == tokens


@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_counting_never_raises(counter: TokenCounter, text: str) -> None:
    for how in (counter, ESTIMATING):
        assert (how.count(text) > 0) == bool(text)


@pytest.mark.parametrize("character", [" ", "^", "a", "\n"])
def test_a_million_equal_characters_are_counted(counter: TokenCounter, character: str) -> None:
    """A million spaces in one piece crash tiktoken."""
    assert counter.count(character * 1_000_000) == 1_000_000


def test_counting_in_pieces_changes_the_count_by_little(counter: TokenCounter) -> None:
    number = 3 * PIECE // len("hello world ")
    assert 3 * number <= counter.count("hello world " * number) <= 3 * number + 5


# ---------------------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize("counting", [ESTIMATED, Counting("o200k_base", Precision.NEAR)])
def test_a_counting_survives_a_round_trip(counting: Counting) -> None:
    assert Counting.from_text(counting.as_text()) == counting


@pytest.mark.parametrize("text", [None, "", "exact", "perfect o200k_base", "o200k_base"])
def test_an_unknown_counting_is_an_estimate(text: str | None) -> None:
    assert Counting.from_text(text) == ESTIMATED


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda vocabulary: vocabulary.names[0])
def test_the_vocabularies_are_those_of_the_installed_tiktoken(vocabulary: Vocabulary) -> None:
    needs_tiktoken()
    from tiktoken_ext import openai_public

    source = inspect.getsource(getattr(openai_public, vocabulary.names[0]))
    assert f'"{vocabulary.url}"' in source
    assert f'"{vocabulary.sha256}"' in source
    assert all(hasattr(openai_public, name) for name in vocabulary.names)
    theirs = "|".join(re.findall(r'r"""(.*?)"""', source))
    cut = pytest.importorskip("regex").findall  # what tiktoken itself needs; Python's `re` does not know \p{L}
    for text in ("hello world, it's 12345.67\n\n\tHello", "Ærøskøbing’S 日本語  ???//\r\n", "HELLO McCartney'LL  \n "):
        assert cut(vocabulary.pattern, text) == cut(theirs, text) != []
