"""The public contract: names, members, types, and a light import."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import bioforge
from bioforge import api
from bioforge.api import evaluation

NAMES = {
    "Answer", "AuthenticationError", "BadArgument", "BatchConfig", "BioforgeError", "BudgetError", "Client",
    "ClosedError", "Config", "ConfigError", "GenerationError", "HaltedError", "Item", "LimitsConfig", "RequestOptions",
    "OutageError", "ItemResult", "PendingError", "Plan", "Progress", "Project", "ProviderConfig", "QuotaError",
    "RefusedError", "RunResult", "RetryConfig", "SchemaValidationError", "SimulatorConfig", "StateError", "Stop",
    "TransportError", "TruncatedError", "UnusableError", "Usage", "generate", "generate_many", "generate_many_sync",
    "generate_sync",
}  # fmt: skip

MEMBERS = {
    api.Client: {
        "aclose", "close", "close_soon", "config", "generate", "generate_many", "generate_many_sync", "generate_sync",
        "state",
    },
    api.Project: {"config", "load", "notes", "plan", "recipes", "results", "run"},
    api.Answer: {
        "attempts", "cached", "cost_usd", "model", "parsed", "repaired", "request_hash", "request_id", "response_id",
        "seconds", "text", "usage", "value",
    },
    api.ItemResult: {"answer", "error", "index", "item", "ok", "unwrap"},
    api.Item: {
        "again", "data", "endpoint", "id", "instructions", "max_attempts", "max_output_tokens", "model", "parameters",
        "prompt", "repair", "schema", "temperature",
    },
    api.Progress: {
        "cached", "cost_usd", "done", "failed", "failures", "in_flight", "input_tokens", "output_tokens", "seconds",
        "succeeded", "total",
    },
    evaluation.Evaluation: {"evaluate", "evaluate_sync", "items", "name", "request", "score"},
    evaluation.Report: {
        "cost_usd", "failures", "mean", "model", "n", "name", "rows", "scores", "standard_error", "unpriced", "unscored",
    },
}  # fmt: skip

HEAVY = (
    "aiohttp",
    "genai_prices",
    "httpx2",
    "jinja2",
    "jsonschema",
    "jsonschema_rs",
    "openai",
    "pluggy",
    "rstr",
    "sqlite3",
    "sqlite_utils",
    "tenacity",
)


def test_the_public_names() -> None:
    assert set(api.__all__) == NAMES
    assert api.__all__ == sorted(api.__all__, key=lambda name: (name[0].islower(), name))
    assert all(getattr(api, name) is not None for name in NAMES)


@pytest.mark.parametrize("kind", MEMBERS, ids=lambda kind: kind.__name__)
def test_the_public_members(kind: type) -> None:
    found = {name for name in dir(kind) if not name.startswith("_")}
    if dataclasses.is_dataclass(kind):
        found |= {field.name for field in dataclasses.fields(kind)}
    elif kind is api.Client:
        found |= {name for name in vars(api.Client()) if not name.startswith("_")}
    assert found == MEMBERS[kind]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'generat'"):
        api.generat  # noqa: B018


def test_every_option_of_a_call_is_one_of_an_item() -> None:
    """`schema` is a separate argument, since the answer's type depends on it; `data` is only for many items."""
    fields = {field.name for field in dataclasses.fields(api.Item)}
    assert set(api.RequestOptions.__annotations__) == fields - {"prompt", "schema", "data"}


@pytest.mark.parametrize("name", ["generate", "generate_sync", "generate_many", "generate_many_sync"])
def test_functions_and_methods_take_the_same(name: str) -> None:
    function = set(inspect.signature(getattr(api, name)).parameters)
    method = set(inspect.signature(getattr(api.Client, name)).parameters)
    assert function - {"config", "state"} == method - {"self"}


def test_everything_is_typed_and_documented() -> None:
    assert (Path(bioforge.__file__).parent / "py.typed").exists()
    for module in (api, evaluation):
        for name in [name for name in dir(module) if not name.startswith("_")]:
            kind = getattr(module, name)
            if not getattr(kind, "__module__", "").startswith("bioforge.api"):
                continue
            members = vars(kind).items() if inspect.isclass(kind) else [(name, kind)]
            for member, function in members:
                if not inspect.isfunction(function) or (member.startswith("_") and member != "__init__"):
                    continue
                signature = inspect.signature(function)
                assert signature.return_annotation is not inspect.Signature.empty, f"{name}.{member}"
                for parameter in list(signature.parameters.values())[inspect.isclass(kind) :]:
                    assert parameter.annotation is not inspect.Parameter.empty, f"{name}.{member}({parameter.name})"
            if inspect.isclass(kind) and not issubclass(kind, Exception):
                assert kind.__doc__, name
                assert not kind.__doc__.startswith(f"{name}("), f"{name} has only the docstring that dataclasses make"


def test_importing_it_loads_neither_sdk_nor_transport_nor_state() -> None:
    script = (
        "import json, sys, bioforge.api, bioforge.api.evaluation;"
        "print(json.dumps([name for name in json.loads(sys.argv[1]) if name in sys.modules]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, json.dumps(HEAVY)], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(ran.stdout) == []


def test_the_package_is_marked_as_typed() -> None:
    assert "Typing :: Typed" in (importlib.metadata.metadata("bioforge-llm").get_all("Classifier") or [])
