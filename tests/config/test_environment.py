"""The environment wins over the file, says so, and `.env` is read without touching the process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bioforge.config.environment import Environment
from bioforge.config.loader import load
from bioforge.core.errors import ConfigError

PLAIN = """
[input]
path = "artists.csv"
[recipe.bio]
model = "gpt-6-luna"
input = "{{ artist_name }}"
"""
PROMPTED = """
[recipe.old]
prompt = { id = "pmpt_a", version = "3" }
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text, environ=None, dotenv=None):
    Path("bioforge.toml").write_text(text)
    if dotenv is not None:
        Path(".env").write_text(dotenv)
    return load(None, environ or {})


def test_the_base_url_of_the_shell_wins_over_the_simulator_and_says_so():
    config = read(PLAIN + '[provider]\nbase_url = "simulator"', {"OPENAI_BASE_URL": "https://api.openai.com/v1/"})
    assert config.provider.base_url == "https://api.openai.com/v1"
    assert config.overrides == (
        "provider.base_url from OPENAI_BASE_URL: 'https://api.openai.com/v1/' (the project file says 'simulator')",
    )


def test_the_same_value_is_no_override():
    url = "https://api.openai.com/v1"
    assert read(PLAIN + f'[provider]\nbase_url = "{url}"', {"OPENAI_BASE_URL": url}).overrides == ()


def test_a_wrong_value_names_the_variable():
    with pytest.raises(ConfigError) as caught:
        read(PLAIN, {"OPENAI_BASE_URL": "api.openai.com"})
    assert caught.value.message == (
        "bioforge.toml: provider.base_url (from OPENAI_BASE_URL):"
        " expected 'simulator' or an http(s) URL, found 'api.openai.com'"
    )


def test_the_model_of_every_recipe():
    config = read(PLAIN + '[recipe.two]\ninput = "{{ artist_id }}"', {"OPENAI_MODEL": "other"})
    assert [recipe.model for recipe in config.recipes.values()] == ["other", "other"]
    assert config.overrides == (
        "recipe.bio.model from OPENAI_MODEL: 'other' (the project file says 'gpt-6-luna')",
        "recipe.two.model from OPENAI_MODEL: 'other'",
    )


class TestPrompts:
    def test_id_and_version(self):
        config = read(PLAIN + PROMPTED, {"PROMPT_ID": "pmpt_b", "PROMPT_VERSION": "4"})
        prompt = config.recipes["old"].prompt
        assert (prompt.id, prompt.version) == ("pmpt_b", "4")
        assert config.overrides == (
            "recipe.old.prompt.id from PROMPT_ID: 'pmpt_b' (the project file says 'pmpt_a')",
            "recipe.old.prompt.version from PROMPT_VERSION: '4' (the project file says '3')",
        )
        assert config.notes == ("recipe.bio uses no prompt: PROMPT_ID with PROMPT_VERSION has no effect on it",)

    def test_the_longer_name_wins(self):
        config = read(PLAIN + PROMPTED, {"PROMPT_ID": "pmpt_b", "OPENAI_PROMPT_ID": "pmpt_c"})
        assert config.recipes["old"].prompt.id == "pmpt_c"

    def test_a_version_does_not_go_over_to_another_prompt(self):
        config = read(PLAIN + PROMPTED, {"PROMPT_ID": "pmpt_b"})
        assert config.recipes["old"].prompt.version is None
        assert config.overrides[1] == "recipe.old.prompt.version is not set: '3' belongs to the prompt 'pmpt_a'"

    def test_the_same_prompt_keeps_its_version(self):
        assert read(PLAIN + PROMPTED, {"PROMPT_ID": "pmpt_a"}).recipes["old"].prompt.version == "3"

    def test_the_environment_may_be_the_only_place(self):
        config = read(PLAIN + "[recipe.old]\nprompt = {}", {"OPENAI_PROMPT_ID": "pmpt_b"})
        assert config.recipes["old"].prompt.id == "pmpt_b"


class TestDotenv:
    def test_it_is_read_and_the_process_wins(self):
        dotenv = "# keys\nOPENAI_API_KEY='key$from{file}'\nexport OPENAI_MODEL=from-file # why not\n"
        config = read(PLAIN, dotenv=dotenv)
        assert config.api_key() == "key$from{file}"
        assert config.recipes["bio"].model == "from-file"
        assert config.overrides[0].startswith("recipe.bio.model from OPENAI_MODEL in .env: ")
        assert read(PLAIN, {"OPENAI_API_KEY": "shell"}).api_key() == "shell"

    def test_the_process_stays_as_it_was(self):
        before = dict(os.environ)
        read(PLAIN, dotenv="BIOFORGE_TEST_VARIABLE=1")
        assert dict(os.environ) == before

    def test_one_that_cannot_be_read(self, folder):
        (folder / ".env").write_bytes(b"A=\xe9")
        with pytest.raises(ConfigError, match=r"\.env: not UTF-8: byte 0xe9 in line 1$"):
            read(PLAIN)

    def test_a_variable_without_value_counts_as_not_set(self):
        environment = Environment({"A": ""}, {"A": "file"})
        assert (environment.get("A"), environment.origin("A"), environment.get("B")) == ("file", "A in .env", None)


def test_tables_of_the_wrong_type_are_the_validations_business():
    with pytest.raises(ConfigError, match="3 mistakes"):
        read('provider = 1\nrecipe = 2\n[input]\npath = "x"\n[[limits]]', {"OPENAI_BASE_URL": "x", "OPENAI_MODEL": "x"})
