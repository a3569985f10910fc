"""The tables of bioforge.toml as frozen models. A field's description states what is expected, also in messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainValidator

from bioforge.config.options import Options
from bioforge.config.templates import TemplateText, read_template
from bioforge.core.interfaces import RetryPolicy

SIMULATOR = "simulator"
ARTIST_FIELDS = ("artist_id", "artist_name", "artist_data")

_RETRY = RetryPolicy()


Table = Options


class OpenTable(Table):
    """A table whose further keys belong to a reader, a writer or the provider."""

    model_config = ConfigDict(extra="allow")


Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class ProjectTable(Table):
    name: Text = Field(description="the project's name")
    state: Text = Field("bioforge.db", description="the path of the state file")
    compress_bodies: bool = Field(False, description="true or false")


def _base_url(value: str) -> str:
    if value == SIMULATOR:
        return value
    try:
        parts = urlsplit(value)
        # a port that is none is a ValueError where it is asked for
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        valid = valid and not any(character.isspace() for character in value)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"expected {SIMULATOR!r} or an http(s) URL, found {value[:60]!r}")
    if "@" in parts.netloc:
        raise ValueError("the URL must not contain a name or password; put the key under api_key_env")
    if parts.query or parts.fragment:
        raise ValueError("the URL must end with its path, without '?' or '#'")
    return value.rstrip("/")


def _variable_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        # The likeliest wrong value is the key itself: not shown.
        raise ValueError("expected the name of an environment variable, like OPENAI_API_KEY, never the key itself")
    if _OTHER_SECRET.fullmatch(value):
        raise ValueError(f"{value} is not the key of an LLM provider; put that key into a variable of its own")
    return value


_OTHER_SECRET = re.compile(
    r"AWS_(?!BEARER_TOKEN_BEDROCK$).*|(GITHUB|GH|GITLAB|NPM|SLACK|VAULT|DOCKER)_.*TOKEN|(GITHUB|GH|NPM|VAULT)_TOKEN"
    r"|.*PASSWORD|.*_PRIVATE_KEY|DATABASE_URL|SSH_.*|PATH|HOME",
    re.IGNORECASE,
)
"""Names of variables that a project of somebody else must not send to its provider."""


class ProviderTable(Table):
    base_url: Annotated[Text, AfterValidator(_base_url)] = Field(SIMULATOR, description="'simulator' or an http(s) URL")
    api_key_env: Annotated[str, AfterValidator(_variable_name)] = Field(
        "OPENAI_API_KEY", description="the name of an environment variable"
    )
    timeout: Positive = Field(600.0, description="seconds, above 0")
    allow_http: bool = Field(False, description="true or false")


class InputTable(OpenTable):
    path: Text = Field(description="a file, a glob, '-' for stdin or an http(s) URL")
    reader: Text | None = Field(None, description="the name of a reader, like 'csv'")
    columns: dict[str, Text] = Field({}, description='a table of names and column names, like { artist_id = "id" }')
    strict: bool = Field(False, description="true or false")

    @property
    def options(self) -> dict[str, Any]:
        """Return the options for the reader: this table without `path` and `reader`."""
        return self.model_dump(exclude_unset=True, exclude={"path", "reader"})


class PromptTable(Table):
    """A reusable prompt. `variables`: templates by name; None means `artist_name` and `artist_data`."""

    id: Text = Field(description="the id of a prompt, here or as PROMPT_ID in the environment")
    version: Annotated[
        Text | None,
        BeforeValidator(lambda value: str(value) if type(value) is int else value),
    ] = Field(None, description='a version as text, like "3"')
    variables: dict[str, Any] | None = Field(None, description="a table of variables")


Template = Annotated[TemplateText, PlainValidator(read_template)]


class RecipeTable(OpenTable):
    endpoint: Text | None = Field(None, description="an endpoint of the backend, like '/v1/responses'")
    model: Text | None = Field(None, description="the name of a model")
    instructions: Template | None = Field(None, description="a template file or text")
    input: Template | None = Field(None, description="a template file or text")
    prompt: PromptTable | None = Field(None, description='a table, like { id = "pmpt_…", version = "3" }')
    scope: Literal["artist", "all"] = Field("artist", alias="for", description="'artist' or 'all'")
    needs: list[Text] = Field([], description="a list of recipe names")
    schema_: Text | None = Field(
        None, alias="schema", description='a JSON Schema file, or a pydantic model like "package.module:Model"'
    )
    repair: bool = Field(False, description="true or false")
    fallback: list[Text] = Field([], description="a list of model names")
    matrix: dict[str, list[Any]] = Field({}, description="a table of lists, like { temperature = [0.2, 0.9] }")
    samples: Annotated[int, Field(ge=1)] = Field(1, description="a whole number from 1")
    score: Text | None = Field(None, description='a function, like "module:function", or the name of a recipe')

    @classmethod
    def own_keys(cls) -> tuple[str, ...]:
        """Return the keys of this table, as they are written in the file."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the further keys, passed to the provider by their API names; JSON values only."""
        return dict(self.model_extra or {})


class BackendTable(Table):
    """The table `[backend]`; `options` holds its sub-tables `[backend.X]` by backend."""

    name: Text = Field("async", description="the name of a backend, like 'async'")
    concurrency: Annotated[int, Field(ge=1, le=16_384)] = Field(64, description="a whole number from 1 to 16384")
    options: dict[str, dict[str, Any]] = Field({}, description="tables of options")


class LimitsTable(Table):
    requests_per_minute: Positive | None = Field(None, description="a number above 0")
    tokens_per_minute: Positive | None = Field(None, description="a number above 0")
    max_cost_usd: Positive | None = Field(None, description="US dollars, above 0")


class RetryTable(Table):
    max_attempts: Annotated[int, Field(ge=1)] = Field(_RETRY.max_attempts, description="a whole number from 1")
    first_delay: NotNegative = Field(_RETRY.first_delay, description="seconds, from 0")
    max_delay: NotNegative = Field(_RETRY.max_delay, description="seconds, from 0")
    maybe_paid: bool = Field(_RETRY.maybe_paid, description="true or false")
    outage_seconds: NotNegative = Field(_RETRY.outage_seconds, description="seconds, from 0")


class OutputTable(OpenTable):
    path: Text = Field(description="a file or folder to write")
    writer: Text | None = Field(None, description="the name of a writer, like 'jsonl'")
    recipe: Text | None = Field(None, description="the name of a recipe")
    all: bool = Field(False, description="true or false: whether all variants are written")

    @property
    def options(self) -> dict[str, Any]:
        """Return the options for the writer: the further keys."""
        return dict(self.model_extra or {})


class SimulatorTable(Table):
    """Types of the simulator's options; the simulator has their bounds and defaults."""

    latency: float = Field(0, description="seconds, from 0")
    latency_sigma: float = Field(0, description="a number from 0")
    requests_per_minute: int = Field(0, description="a whole number from 1")
    tokens_per_minute: int = Field(0, description="a whole number from 1")
    seed: int = Field(0, description="a whole number")
    quota_after: int = Field(0, description="a whole number from 0")
    faults: dict[str, Any] = Field({}, description="a table of faults and probabilities, like { rate_limit = 0.05 }")
    retry_after: float = Field(0, description="seconds, from 0")
    hang_seconds: float = Field(0, description="seconds, from 0")
    several_parts: Annotated[
        float, BeforeValidator(lambda value: float(value) if isinstance(value, bool) else value)
    ] = Field(0, description="true, false or a share from 0 to 1")
    ledger: Text | None = Field(None, description="the path of a file")
    batch_seconds: float = Field(0, description="seconds, from 0")
    batch_window_seconds: float = Field(0, description="seconds, from 0")
    batch_cancel_seconds: float = Field(0, description="seconds, from 0")
    batch_creations_per_hour: int = Field(0, description="a whole number from 0")
    batch_enqueued_tokens: int = Field(0, description="a whole number from 1")
    batch_token_refusal: Text = Field("failed", description="'failed' or 'create'")
    batch_script: list[Text] = Field([], description='a list of faults, like ["lines_missing=0.1+wrong_counts", "ok"]')
    batch_faults: str = Field("", description="faults, like 'lines_missing=0.1+wrong_counts'")
    data: Text | None = Field(None, description="the path of a folder")

    def given(self, root: Path) -> Mapping[str, Any]:
        """Return the options in the file for `SimulatorOptions(**given)`, with paths below `root`."""
        given = self.model_dump(exclude_unset=True)
        for name, path in (("ledger", self.ledger), ("data", self.data)):
            if path is not None:
                given[name] = str(root / path)
        return given
