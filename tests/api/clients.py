"""Clients of a simulator, schemas of answers, and queries of a state."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, field_validator

from bioforge.api import Config, ItemResult, ProviderConfig, RetryConfig
from bioforge.simulator import Simulator

QUICK = RetryConfig(first_delay=0.01, max_delay=0.05)


class Bio(BaseModel):
    """A typed answer, in most tests."""

    born: int
    summary: str


class Mended(BaseModel):
    """Accepts only repaired answers: the simulator quotes the last message in its texts."""

    summary: str

    @field_validator("summary")
    @classmethod
    def second_try(cls, summary: str) -> str:
        if "previous answer" not in summary:
            raise ValueError("too thin")
        return summary


class Never(BaseModel):
    """Accepts no answer."""

    summary: str

    @field_validator("summary")
    @classmethod
    def hopeless(cls, summary: str) -> str:
        raise ValueError("never good enough")


def configured(server: Simulator | str, **more: Any) -> Config:
    base_url = server if isinstance(server, str) else server.base_url
    provider = ProviderConfig(base_url=base_url, api_key=SecretStr("test-key"), timeout=20.0)
    return Config(**{"provider": provider, "model": "gpt-6-luna", "retry": QUICK, **more})


class Bodies:
    """A script for the simulator without faults that keeps every request body."""

    def __init__(self) -> None:
        self.seen: list[Mapping[str, Any]] = []

    def __call__(self, body: Mapping[str, Any], number: int) -> None:
        self.seen.append(body)


async def gathered(outcomes: AsyncIterator[ItemResult[Any]]) -> list[ItemResult[Any]]:
    return [outcome async for outcome in outcomes]


def rows(state: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(state)) as connection:
        return connection.execute(sql).fetchall()
