"""Any project file: what is wrong with it is said in a sentence, and whatever is accepted can be planned."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import currently_in_test_context, event, example, given
from hypothesis import strategies as st
from projects import invoke

from bioforge.config.loader import load
from bioforge.core.errors import BioforgeError
from bioforge.engine.backends import BackendBuilder
from bioforge.engine.outputs import check_outputs
from bioforge.engine.project import OpenProject
from bioforge.plugins.manager import build_manager

from .effort import examples
from .oddities import NOT_FINITE, mutated, trees

VALID: dict[str, Any] = {
    "project": {"name": "test", "state": "bioforge.db"},
    "provider": {"base_url": "simulator", "api_key_env": "OPENAI_API_KEY", "timeout": 60.0},
    "input": {
        "path": "artists.csv", "reader": "csv", "columns": {"artist_data": "bio"}, "strict": False, "delimiter": ",",
        "encoding": "utf-8", "quote": '"', "comment": "#", "header": True,
    },
    "recipe": {
        "facts": {
            "endpoint": "/v1/responses", "model": "gpt-6-luna", "instructions": "Facts.", "input": "{{ artist_name }}",
            "max_output_tokens": 100, "temperature": 0.5, "schema": "facts.json", "repair": True, "fallback": ["gpt-6-sol"],
        },
        "bio": {
            "endpoint": "/v1/chat/completions", "needs": ["facts"], "matrix": {"model": ["gpt-6-luna", "gpt-6-sol"]},
            "samples": 2, "input": "{{ facts.text }}", "metadata": {"a": "b"},
        },
        "all": {"for": "all", "model": "gpt-6-luna", "input": "{% for a in artists %}{{ a.artist_name }}{% endfor %}"},
        "prompted": {"prompt": {"id": "pmpt_1", "version": "3", "variables": {"x": "{{ artist_name }}"}}},
    },
    "backend": {
        "name": "async", "concurrency": 4, "batch": {"max_requests": 10, "poll_seconds": 1.0, "poll_max_seconds": 9.0},
    },
    "limits": {"requests_per_minute": 100.0, "tokens_per_minute": 1000.0, "max_cost_usd": 1.0},
    "retry": {"max_attempts": 2, "first_delay": 0.1, "max_delay": 1.0, "maybe_paid": False, "outage_seconds": 9.0},
    "simulator": {"latency": 0.0, "faults": {"rate_limit": 0.1}, "batch_script": ["ok"], "several_parts": True},
    "output": [{"path": "out.jsonl", "writer": "jsonl", "recipe": "bio", "all": True}, {"path": "out.csv", "delimiter": ";"}],
}  # fmt: skip
"""Every table there is, and most of their keys."""

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}

_toml_values = trees(*NOT_FINITE)


def toml(value: Any) -> str:
    """A value in TOML, tables as inline ones."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(name)} = {toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and value != value:
        return "nan"
    return json.dumps(value) if isinstance(value, bool) else repr(value)


def written(tree: Any) -> str:
    tables = tree.items() if isinstance(tree, dict) else [("x", tree)]
    return "".join(f"{_text(name)} = {toml(value)}\n" for name, value in tables)


def _text(value: object) -> str:
    words = json.dumps(str(value).encode("utf-8", "replace").decode(), ensure_ascii=False)
    return words.replace("\x7f", "\\u007f")


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        root = Path(name) / "a" / "b"
        root.mkdir(parents=True)
        (root / "artists.csv").write_text("artist_id,artist_name,bio\n1,Björk,singer\n2,Absalon,\n", "utf-8")
        (root / "facts.json").write_text(json.dumps(SCHEMA))
        yield root


_PLUGINS = build_manager("")
_ENVIRONMENT = {"OPENAI_API_KEY": "key"}


def opened(path: Path) -> OpenProject | None:
    """The project of a file, its outputs and backends checked; None where it was refused, as a person is told it."""
    try:
        config = load(path, _ENVIRONMENT)
        project = OpenProject(config, _PLUGINS)
        check_outputs(config, _PLUGINS)
        for name in ("batch", "auto", "threads"):
            BackendBuilder(config, _PLUGINS).make(name)
    except BioforgeError as error:
        assert_words(error)
        return None
    _noted("accepted")
    return project


def assert_words(error: BioforgeError) -> None:
    assert error.message
    assert "Traceback" not in error.message
    assert len(error.message) < 20_000, "nobody reads that"
    f"{error.message}{error.hint}".encode()
    _noted(f"refused: {type(error).__name__}")


def _noted(what: str) -> None:
    if currently_in_test_context():
        event(what)


@examples(60)
@given(mutated(VALID, _toml_values, most=2))
def test_any_tree_is_taken_or_refused_in_words(tree: Any) -> None:
    with folder() as root:
        (root / "bioforge.toml").write_text(written(tree), "utf-8")
        opened(root / "bioforge.toml")


@examples(8)
@given(
    mutated(VALID["recipe"], trees(), most=1)
    | mutated(VALID["recipe"]["facts"], trees(), most=2).map(lambda one: {"bio": one})
)
def test_what_is_taken_can_be_planned(recipes: Any) -> None:
    """Templates and parameters show what they are only when something is rendered."""
    tables = {**{name: table for name, table in VALID.items() if name != "retry"}, "recipe": recipes}
    with folder() as root:
        (root / "bioforge.toml").write_text(written(tables), "utf-8")
        ran = invoke("plan", "-f", str(root / "bioforge.toml"))
    event(f"plan ended with {ran.code}")
    assert ran.code in (0, 2), ran.err
    assert ran.code == 0 or "error: " in ran.err, ran.err


@examples(60)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=60).map(str.encode),
        st.builds(
            lambda text, at, junk, cut: text[:at] + junk + text[at + cut :],
            st.just("".join(f"[{key}]\n" for key in VALID).encode()),
            st.integers(0, 120),
            st.sampled_from(
                [b"", b'"', b"[", b"]", b"=", b"'''", b"\xff", b"\0", b"\r", b"{", b"\xef\xbb\xbf", b"a.b.c=1\n"]
            ),
            st.integers(0, 9),
        ),
    )
)
@example(b"\xff\xfe[\0")
def test_any_bytes_are_taken_or_refused_in_words(content: bytes) -> None:
    with folder() as root:
        (root / "bioforge.toml").write_bytes(content)
        opened(root / "bioforge.toml")


@pytest.mark.parametrize("content", [b"x = " + b"[" * 3000, b"x = " + b"{a=" * 3000, b"x = " + b"9" * 6000])
def test_what_tomllib_cannot_hold_is_refused_in_words(content: bytes) -> None:
    with folder() as root:
        (root / "bioforge.toml").write_bytes(content)
        assert opened(root / "bioforge.toml") is None


def test_what_is_mutated_is_as_it_should_be() -> None:
    with folder() as root:
        (root / "bioforge.toml").write_text(written(VALID), "utf-8")
        assert load(root / "bioforge.toml", _ENVIRONMENT).recipes.keys() == VALID["recipe"].keys()
        assert opened(root / "bioforge.toml") is not None
