"""A project file that is right gives values; one that is wrong gives all its mistakes at once, each in a sentence."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from bioforge.config.loader import TemplateText, load, with_overrides
from bioforge.core.errors import ConfigError, UsageError
from bioforge.core.interfaces import Limits, RetryPolicy
from bioforge.simulator import SimulatorOptions

SMALLEST = """
[input]
path = "artists.csv"
[recipe.bio]
model = "gpt-6-luna"
input = "{{ artist_name }}"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, named artists."""
    path = tmp_path / "artists"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


def read(text, environ=None):
    Path("bioforge.toml").write_text(text, encoding="utf-8")
    return load(None, environ or {})


def mistakes(text, environ=None):
    """The message's lines, without the file's name or the headline."""
    with pytest.raises(ConfigError) as caught:
        read(text, environ)
    first, *rest = caught.value.message.split("\n  ")
    if not rest:
        return [first.removeprefix("bioforge.toml: ")]
    assert first == f"bioforge.toml: {len(rest)} mistakes"
    return rest


class TestDefaults:
    def test_the_smallest_file(self, folder):
        config = read(SMALLEST)
        assert config.path == folder / "bioforge.toml"
        assert config.root == folder
        assert config.project.name == "artists"
        assert config.state_path == folder / "bioforge.db"
        assert config.simulated
        assert config.provider.timeout == 600
        assert (config.input.reader, config.input.strict, config.input.options) == (None, False, {})
        assert config.backend.name == "async"
        assert config.limits == Limits()
        assert config.retry == RetryPolicy()
        assert (config.outputs, config.simulator, config.overrides, config.notes) == ((), {}, (), ())
        bio = config.recipes["bio"]
        assert bio.endpoint is None
        assert bio.input == TemplateText("{{ artist_name }}")
        assert (bio.instructions, bio.prompt, bio.parameters) == (None, None, {})

    def test_values_are_frozen(self, folder):
        with pytest.raises(ValueError, match="frozen"):
            read(SMALLEST).project.name = "other"


class TestEveryTable:
    def test_what_is_said_is_what_is_given(self, folder):
        (folder / "bio.md").write_text("Write.")
        config = read("""
            [project]
            name = "bios"
            state = "state/bios.db"
            [provider]
            base_url = "https://api.openai.com/v1/"
            api_key_env = "MY_KEY"
            timeout = 30
            [input]
            path = "*.csv"
            reader = "csv"
            columns = { artist_id = "id", born = "year" }
            strict = true
            delimiter = ";"
            [recipe.bio]
            endpoint = "/v1/chat/completions"
            model = "m"
            instructions = "bio.md"
            input = "Say something."
            temperature = 0.5
            reasoning = { effort = "low" }
            [recipe.old-one]
            prompt = { id = "pmpt_1", version = 3, variables = { name = "{{ artist_name }}" } }
            [backend]
            name = "batch"
            concurrency = 8
            [backend.batch]
            max_requests = 100
            [limits]
            requests_per_minute = 500
            tokens_per_minute = 2e6
            max_cost_usd = 2.5
            [retry]
            max_attempts = 2
            first_delay = 0
            max_delay = 1
            maybe_paid = false
            outage_seconds = 10
            [[output]]
            path = "out/a.jsonl"
            recipe = "bio"
            indent = 2
            [[output]]
            path = "out/a.csv"
            writer = "csv"
            [simulator]
            latency = 1
            faults = { refusal = 0.5 }
            several_parts = true
            ledger = "ledger.jsonl"
            """)
        assert config.project.name == "bios"
        assert config.state_path == folder / "state/bios.db"
        assert not config.simulated
        assert config.provider.base_url == "https://api.openai.com/v1"
        assert config.input.options == {
            "columns": {"artist_id": "id", "born": "year"},
            "strict": True,
            "delimiter": ";",
        }
        bio = config.recipes["bio"]
        assert bio.instructions == TemplateText("Write.", folder / "bio.md")
        assert bio.input == TemplateText("Say something.")
        assert bio.parameters == {"temperature": 0.5, "reasoning": {"effort": "low"}}
        old = config.recipes["old-one"].prompt
        assert old is not None
        assert (old.id, old.version, old.variables) == ("pmpt_1", "3", {"name": "{{ artist_name }}"})
        assert list(config.recipes) == ["bio", "old-one"]
        assert config.backend.name == "batch"
        assert config.backend.options == {"batch": {"max_requests": 100}}
        assert config.limits == Limits(8, 500, 2_000_000, 2.5)
        assert config.retry == RetryPolicy(2, 0, 1, False, 10)
        assert [(one.path, one.writer, one.recipe, one.options) for one in config.outputs] == [
            ("out/a.jsonl", None, "bio", {"indent": 2}),
            ("out/a.csv", "csv", None, {}),
        ]
        options = SimulatorOptions(**config.simulator)
        assert (options.latency, options.several_parts, options.faults) == (1, 1, {"refusal": 0.5})
        assert options.ledger == str(folder / "ledger.jsonl")


class TestFinding:
    def test_no_file(self, folder):
        with pytest.raises(ConfigError, match=r"no bioforge\.toml in .*artists$") as caught:
            load(None, {})
        assert "bioforge init" in caught.value.hint

    def test_a_file_above_is_pointed_out(self, folder):
        read(SMALLEST)
        (folder / "sub").mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder / "sub")
            with pytest.raises(ConfigError) as caught:
                load(None, {})
        assert str(folder / "bioforge.toml") in caught.value.hint

    def test_a_named_file_and_a_named_folder(self, folder, monkeypatch):
        read(SMALLEST)
        (folder / "other.toml").write_text(SMALLEST)
        monkeypatch.chdir(folder.parent)
        assert load(Path("artists/other.toml"), {}).path == folder / "other.toml"
        assert load(Path("artists"), {}).root == folder

    def test_a_named_file_that_is_not_there(self, folder):
        with pytest.raises(ConfigError, match=r"^no such project file: other\.toml$"):
            load(Path("other.toml"), {})


class TestSyntax:
    def test_line_and_column(self, folder):
        with pytest.raises(ConfigError) as caught:
            read("[retry]\nmax_attempts 6\n")
        assert caught.value.message == (
            "bioforge.toml, line 2, column 14: expected '=' after a key in a key/value pair; found 'max_attempts 6'"
        )

    def test_a_key_twice(self, folder):
        with pytest.raises(ConfigError, match="line 3, column 11: cannot overwrite a value; found 'name = \"b\"'"):
            read('[project]\nname = "a"\nname = "b"\n')

    def test_the_end_is_missing(self, folder):
        with pytest.raises(ConfigError, match=r"^bioforge\.toml, "):
            read('name = """')

    def test_not_utf8(self, folder):
        (folder / "bioforge.toml").write_bytes('[project]\nname = "Café"\n'.encode("latin-1"))
        with pytest.raises(ConfigError, match=r"^bioforge\.toml: not UTF-8: byte 0xe9 in line 2$"):
            load(None, {})

    def test_a_byte_order_mark_and_windows_line_ends(self, folder):
        (folder / "bioforge.toml").write_bytes(b"\xef\xbb\xbf" + SMALLEST.replace("\n", "\r\n").encode())
        assert load(None, {}).recipes["bio"].model == "gpt-6-luna"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("[projct]", "projct: unknown table; did you mean 'project'?"),
        ("[recipes.x]", "recipes: unknown table; did you mean 'recipe'?"),
        ("[project]\nname = ''", "project.name: expected the project's name, found ''"),
        ("[project]\nstate = 3", "project.state: expected the path of the state file, found 3"),
        (
            "[provider]\nbase_url = 'ftp://x'",
            "provider.base_url: expected 'simulator' or an http(s) URL, found 'ftp://x'",
        ),
        (
            "[provider]\nbase_url = 'http://127.0.0.1:99999/v1'",
            "provider.base_url: expected 'simulator' or an http(s) URL, found 'http://127.0.0.1:99999/v1'",
        ),
        (
            "[provider]\nbase_url = 'http://127.0.0.1: 80/v1'",
            "provider.base_url: expected 'simulator' or an http(s) URL, found 'http://127.0.0.1: 80/v1'",
        ),
        (
            "[provider]\nbase_url = 'https://'",
            "provider.base_url: expected 'simulator' or an http(s) URL, found 'https://'",
        ),
        (
            "[provider]\nbase_url = 'https://a/v1?x=1'",
            "provider.base_url: the URL must end with its path, without '?' or '#'",
        ),
        (
            "[provider]\nbase_url = 'https://me:secret@host/v1'",
            "provider.base_url: the URL must not contain a name or password; put the key under api_key_env",
        ),
        ("[provider]\ntimeout = 0", "provider.timeout: expected seconds, above 0, found 0"),
        ("[provider]\ntimeout = inf", "provider.timeout: expected seconds, above 0, found inf"),
        ("[backend]\nconcurrency = 0", "backend.concurrency: expected a whole number from 1 to 16384, found 0"),
        ("[backend]\nconcurrency = 16385", "backend.concurrency: expected a whole number from 1 to 16384, found 16385"),
        ("[backend]\nconcurrency = '64'", "backend.concurrency: expected a whole number from 1 to 16384, found '64'"),
        ("[backend]\nconcurency = 64", "backend.concurency: unknown key; did you mean 'concurrency'?"),
        ("[limits]\nmax_cost_usd = -1", "limits.max_cost_usd: expected US dollars, above 0, found -1"),
        ("[limits]\ntokens_per_minute = true", "limits.tokens_per_minute: expected a number above 0, found true"),
        ("[retry]\nmax_attempt = 6", "retry.max_attempt: unknown key; did you mean 'max_attempts'?"),
        (
            "[retry]\nxyz = 6",
            "retry.xyz: unknown key (known: max_attempts, first_delay, max_delay, maybe_paid, outage_seconds)",
        ),
        ("[retry]\nmax_attempts = 1.5", "retry.max_attempts: expected a whole number from 1, found 1.5"),
        ("[retry]\nfirst_delay = 90", "retry.max_delay: expected at least first_delay (90), found 60"),
        ("[output]\npath = 'x'", "output: expected [[output]] with two brackets, found a table"),
        ("[[output]]\nwriter = 'csv'", "output.path: missing, expected a file or folder to write"),
        ("[[output]]\npth = 'x.csv'", "output.path: missing (is 'pth' meant?), expected a file or folder to write"),
        (
            "[[output]]\npath = 'x.csv'\nrecipe = 'boi'",
            "output.recipe: 'boi' is an unknown recipe; did you mean 'bio'?",
        ),
        ("[[output]]\npath = './artists.csv'", "output.path: './artists.csv' is also the input"),
        ("[[output]]\npath = 'bioforge.db'", "output.path: 'bioforge.db' is also the state file"),
        ("[[output]]\npath = 'bioforge.toml'", "output.path: 'bioforge.toml' is also the project file"),
        (
            "[[output]]\npath = 'out/a.csv'\n[[output]]\npath = 'out/../out/a.csv'",
            "output 2.path: 'out/../out/a.csv' is also the path of output 1",
        ),
        ("[simulator]\nlatency = -1", "simulator.latency: must be at least 0, not -1.0"),
        ("[simulator]\nseed = 'x'", "simulator.seed: expected a whole number, found 'x'"),
        ("[simulator]\nlatncy = 1", "simulator.latncy: unknown key; did you mean 'latency'?"),
        (
            "[simulator]\nfaults = { hang = 2 }",
            "simulator.faults: fault 'hang': probability must be from 0 to 1, not 2",
        ),
    ],
)
def test_a_mistake_is_one_sentence(folder, more, message):
    assert mistakes(SMALLEST + more) == [message]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("max_output_tokens = 2026-01-01", "max_output_tokens: 2026-01-01 cannot be sent as JSON"),
        ("text = { a = [1, inf] }", "text.a[1]: inf cannot be sent as JSON"),
        ("instruction = 'x'", "instruction: unknown key; did you mean 'instructions'?"),
        ("stream = true", "stream: cannot work: answers are kept whole, never streamed; leave it out"),
        (
            "api_key = 'sk-secretsecret'",
            "api_key: cannot work: a key does not belong in this file; put it into the environment or .env",
        ),
        ("instructions = ''", "instructions: the template is empty"),
        ("instructions = 3", "instructions: expected a template file or text, found 3"),
        (
            "prompt = { version = '1' }",
            "prompt.id: missing, expected the id of a prompt, here or as PROMPT_ID in the environment",
        ),
        ("prompt = { id = 'p', vers = '1' }", "prompt.vers: unknown key; did you mean 'version'?"),
        (
            "prompt = { id = 'p', variables = { day = 2026-01-01 } }",
            "prompt.variables.day: 2026-01-01 cannot be sent as JSON",
        ),
        (
            "prompt = { id = 'p' }\nendpoint = '/v1/chat/completions'",
            "prompt: prompts work only with the endpoint '/v1/responses'",
        ),
        ("prompt = 'p'", 'prompt: expected a table, like { id = "pmpt_…", version = "3" }, found \'p\''),
    ],
)
def test_a_mistake_in_a_recipe(folder, line, message):
    assert mistakes(SMALLEST + line) == [f"recipe.bio.{message}"]


MORE = '[recipe.{name}]\nmodel = "m"\ninput = "x"\n'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('needs = ["bio"]', "bio.needs[0]: a recipe cannot need itself"),
        (
            'needs = ["fact"]\n' + MORE.format(name="facts"),
            "bio.needs[0]: 'fact' is an unknown recipe; did you mean 'facts'?",
        ),
        (
            'needs = ["a"]\n' + MORE.format(name="a") + 'needs = ["b"]\n' + MORE.format(name="b") + 'needs = ["bio"]',
            "bio.needs: recipes that need each other: bio → a → b → bio",
        ),
        ("needs = 'facts'", "bio.needs: expected a list of recipe names, found 'facts'"),
        ("for = 'some'", "bio.for: expected 'artist' or 'all', found 'some'"),
        ("repair = true", "bio.repair: there is nothing to repair without a schema"),
        ("samples = 0", "bio.samples: expected a whole number from 1, found 0"),
        ("matrix = { temperature = [] }", "bio.matrix.temperature: the list is empty, expected values to vary"),
        (
            "matrix = { temperature = 0.2 }",
            "bio.matrix.temperature: expected a table of lists, like { temperature = [0.2, 0.9] }, found 0.2",
        ),
        (
            "matrix = { temperature = [1, 1] }",
            "bio.matrix.temperature: the same value twice; for several answers to one request use samples",
        ),
        (
            "matrix = { endpoint = ['/v1/responses'] }",
            "bio.matrix.endpoint: cannot vary; what can: model, instructions, input and request parameters",
        ),
        ("matrix = { model = [1] }", "bio.matrix.model: expected a list of model names"),
        ("matrix = { input = [1] }", "bio.matrix.input[0]: expected a template file or text, found 1"),
        (
            "matrix = { input = ['nothing.md'] }",
            "bio.matrix.input[0]: no such file 'nothing.md' (text with a space or a line break is taken as it is)",
        ),
        ("samples = 1001", "bio.matrix: makes 1,001 variants of each artist, expected at most 1,000 with samples"),
        (
            "schema = 's.json'\ntext = { format = { type = 'text' } }",
            "bio.text.format: given beside schema, which is sent in its place; leave one of them out",
        ),
        (
            "schema = 's.json'\nendpoint = '/v1/chat/completions'\nresponse_format = { type = 'text' }",
            "bio.response_format: given beside schema, which is sent in its place; leave one of them out",
        ),
        (
            "score = 'jugde'",
            "bio.score: 'jugde' is an unknown recipe (known: bio); a function is written module:function",
        ),
        (
            "score = 'judge'\n" + MORE.format(name="judge"),
            """bio.score: recipe 'judge' does not judge this one: it needs needs = ["bio"]""",
        ),
        ("need = ['bio']", "bio.need: unknown key; did you mean 'needs'?"),
    ],
)
def test_a_mistake_between_recipes(folder, lines, message):
    assert mistakes(SMALLEST + lines) == [f"recipe.{message}"]


def test_recipes_that_build_on_each_other_are_put_in_order(folder):
    from bioforge.config.relations import in_order

    config = read(
        SMALLEST
        + 'needs = ["facts"]\n'
        + MORE.format(name="translation")
        + 'needs = ["bio"]\n'
        + MORE.format(name="facts")
    )
    assert in_order(config.recipes) == ["facts", "bio", "translation"]


def test_a_matrix_may_vary_what_is_not_given_otherwise(folder):
    config = read(
        '[input]\npath = "a.csv"\n[recipe.bio]\nmatrix = { model = ["a", "b"], input = ["x {{ artist_name }}", "y"] }'
    )
    assert (config.recipes["bio"].model, config.recipes["bio"].input) == (None, None)


def test_what_every_project_needs(folder):
    assert mistakes("") == [
        "input: missing, expected a table [input] with the path of the artists",
        "recipe: missing, expected a table like [recipe.bio] that says how to ask",
    ]
    assert mistakes('[input]\nreader = "csv"\n[recipe."a b"]\n[recipe.c]\nmodl = "m"\n') == [
        "input.path: missing, expected a file, a glob, '-' for stdin or an http(s) URL",
        "recipe.'a b': a recipe's name has only letters, digits, '_' and '-'",
        "recipe.c.model: missing (is 'modl' meant?), expected the name of a model, here or as OPENAI_MODEL"
        " in the environment",
        'recipe.c.input: missing, expected a template, like "{{ artist_name }}", or a prompt',
    ]


def test_renaming_a_field_that_does_not_exist(folder):
    text = SMALLEST.replace("[recipe.bio]", 'columns = { artist_nam = "n", birth = "b" }\n[recipe.bio]')
    assert mistakes(text) == ["input.columns.artist_nam: unknown name; did you mean 'artist_name'?"]


def test_tables_that_are_none(folder):
    assert mistakes("project = 1\ninput = 'a.csv'\nrecipe = []\nbackend = 'async'\nsimulator = true\n") == [
        "project: expected a table [project], found 1",
        "input: expected a table [input], found 'a.csv'",
        "recipe: expected a table [recipe], found a list",
        "backend: expected a table [backend], found 'async'",
        "simulator: expected a table [simulator], found true",
    ]


class TestTemplates:
    def ask(self, value):
        return SMALLEST + f"instructions = {value}\n"

    def instructions(self, value):
        return read(self.ask(value)).recipes["bio"].instructions

    @pytest.mark.parametrize(
        "text", ["Be brief.", "prompts/bio.md or {{ artist_name }}", "{%if 1%}/a.md{%endif%}", "Brief"]
    )
    def test_inline(self, folder, text):
        assert self.instructions(f"'{text}'") == TemplateText(text)

    def test_a_line_break_makes_it_inline(self, folder):
        (folder / "a.md").write_text("file")
        assert self.instructions('"a.md\\n"') == TemplateText("a.md\n")

    def test_a_very_long_line_is_no_file_name(self, folder):
        assert len(self.instructions(f"'{'word ' * 2000}'").text) == 10_000

    def test_a_file_with_mark_and_windows_line_ends(self, folder):
        (folder / "a b.md").write_bytes(b"\xef\xbb\xbfOne\r\nTwo\r\n")
        assert self.instructions("'a b.md'") == TemplateText("One\nTwo\n", folder / "a b.md")

    def test_a_mistyped_path_is_not_sent_as_a_prompt(self, folder):
        (folder / "prompts").mkdir()
        (folder / "prompts/bio.md").write_text("x")
        inline = " (text with a space or a line break is taken as it is)"
        for typed, near in (
            ("prompts/boi.md", "; did you mean 'prompts/bio.md'?"),
            ("texts/bio.md", "; did you mean 'prompts/bio.md'?"),
            ("bio.md", "; did you mean 'prompts/bio.md'?"),
            ("../x/nothing.jinja", ""),
        ):
            assert mistakes(self.ask(f"'{typed}'")) == [
                f"recipe.bio.instructions: no such file {typed!r}{near}{inline}"
            ]

    def test_files_that_cannot_be_used(self, folder):
        (folder / "empty.md").write_text(" \n")
        (folder / "latin.md").write_bytes("eins\nCafé".encode("latin-1"))
        assert mistakes(self.ask("'empty.md'")) == ["recipe.bio.instructions: 'empty.md' is empty"]
        assert mistakes(self.ask("'latin.md'")) == [
            "recipe.bio.instructions: 'latin.md' is not UTF-8: byte 0xe9 in line 2"
        ]


class TestKeys:
    def test_a_key_in_the_file_is_refused_and_not_repeated(self, folder):
        found = mistakes(SMALLEST + "[provider]\napi_key = 'sk-verysecret123'\napi_key_env = 'sk-verysecret123'")
        assert len(found) == 2
        assert "sk-very" not in "".join(found)
        assert "does not belong in this file" in found[1]

    def test_values_that_look_like_keys_are_masked(self, folder):
        assert mistakes(SMALLEST + "[retry]\nmax_attempts = 'sk-verysecret123'") == [
            "retry.max_attempts: expected a whole number from 1, found 'sk-…'"
        ]

    def test_looked_up_by_name_and_never_shown(self, folder):
        config = read(SMALLEST + "[provider]\napi_key_env = 'MY_KEY'", {"MY_KEY": " key-123456\n"})
        assert config.api_key() == "key-123456"
        assert "key-123456" not in repr(config)
        assert "key-123456" not in repr(config.environment)

    def test_not_set(self, folder):
        assert read(SMALLEST, {"OPENAI_API_KEY": ""}).api_key() is None


class TestFlags:
    def test_a_flag_wins(self, folder):
        before = read(SMALLEST + "[backend.batch]\nx = 1\n[[output]]\npath = 'a.csv'")
        after = with_overrides(before, backend="threads", concurrency=2, max_cost=3, strict=True)
        assert after.backend.name == "threads"
        assert after.backend.options == {"batch": {"x": 1}}
        assert after.limits == Limits(concurrency=2, max_cost_usd=3)
        assert after.input.strict
        assert after.recipes == before.recipes
        assert before.limits == Limits()

    def test_no_flag_changes_nothing(self, folder):
        config = read(SMALLEST)
        assert with_overrides(config) == config

    def test_false_is_a_setting(self, folder):
        strict = read(SMALLEST.replace("[recipe.bio]", "strict = true\n[recipe.bio]"))
        assert not with_overrides(strict, strict=False).input.strict

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ({"concurrency": 0}, "--concurrency: expected a whole number from 1 to 16384, found 0"),
            ({"max_cost": -1}, "--max-cost: expected US dollars, above 0, found -1.0"),
            ({"backend": ""}, "--backend: expected the name of a backend, like 'async', found ''"),
        ],
    )
    def test_a_wrong_flag_is_named(self, folder, flags, message):
        with pytest.raises(UsageError) as caught:
            with_overrides(read(SMALLEST), **flags)
        assert caught.value.message == message


def test_dates_may_stand_in_options_of_plugins(folder):
    config = read(SMALLEST + "[backend.mine]\nsince = 2026-01-01")
    assert config.backend.options["mine"] == {"since": datetime.date(2026, 1, 1)}


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "DATABASE_URL", "PGPASSWORD"])
def test_a_variable_that_holds_another_secret_is_refused(folder, name):
    (message,) = mistakes(f'{SMALLEST}\n[provider]\napi_key_env = "{name}"\n')
    assert f"{name} is not the key of an LLM provider" in message


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "AWS_BEARER_TOKEN_BEDROCK", "HF_TOKEN", "LLM_TOKEN"])
def test_a_variable_that_may_hold_a_key_is_taken(folder, name):
    assert read(f'{SMALLEST}\n[provider]\napi_key_env = "{name}"\n').provider.api_key_env == name
