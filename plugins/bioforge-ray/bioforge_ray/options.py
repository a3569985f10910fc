"""Options of the table `[backend.ray]`."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from bioforge.plugin import Options

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]

FLEXIBLE_PLACEMENTS = ("DEFAULT", "SPREAD")
"""Placements for any number of workers, also a changing one. The others are placement groups of fixed size."""

BUILTIN_RESOURCES = ("CPU", "GPU", "memory", "object_store_memory")
"""Built-in resources, which Ray does not accept as custom ones."""


def _address(value: str) -> str:
    if value.startswith("ray://"):
        raise ValueError(
            "Ray Client (ray://) is not supported; run bioforge on a node of the cluster, with 'auto' or 'host:6379'"
        )
    return value


def _server(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in value:
        raise ValueError(f"expected http(s) URLs without name, password, '?' or '#', found {value[:60]!r}")
    return value.rstrip("/")


def _resources(value: dict[str, float]) -> dict[str, float]:
    for name, amount in value.items():
        if name in BUILTIN_RESOURCES:
            raise ValueError(f"{name} is not a custom resource; set the CPUs of a worker in cpus_per_worker")
        if amount <= 0:
            raise ValueError(f"expected amounts above 0, found {name} = {amount:g}")
    return value


class Range(Options):
    """A range for the number of workers, which follows the load. Times in seconds."""

    min: Count = Field(description="a whole number from 1")
    max: Count = Field(description="a whole number from 1")
    grow_seconds: Seconds = Field(5.0, description="seconds, above 0")
    shrink_seconds: Seconds = Field(60.0, description="seconds, above 0")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}: expected min to be at most max")
        return self


class RayOptions(Options):
    """Options for the cluster, the number of workers and their resources."""

    address: Annotated[str, Field(min_length=1), AfterValidator(_address)] = Field(
        "local", description="'local', 'auto' or the address of a cluster, like '10.0.0.1:6379'"
    )
    workers: Count | Range = Field(2, description="a whole number from 1, or a table like { min = 1, max = 16 }")
    calls_per_worker: Count | None = Field(None, description="a whole number from 1")
    chunk: Count = Field(64, description="a whole number from 1")
    cpus_per_worker: Annotated[float, Field(gt=0)] = Field(1.0, description="a number of CPUs above 0, like 0.5")
    resources: Annotated[dict[str, float], AfterValidator(_resources)] = Field(
        {}, description="a table of custom resources and amounts, like { egress = 1.0 }"
    )
    placement: Literal["DEFAULT", "SPREAD", "PACK", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "SPREAD", description="'DEFAULT', 'SPREAD', 'PACK', 'STRICT_PACK' or 'STRICT_SPREAD'"
    )
    base_urls: list[Annotated[str, AfterValidator(_server)]] = Field([], description="a list of http(s) URLs")
    key_from: Literal["driver", "worker"] = Field("driver", description="'driver' or 'worker'")
    start_seconds: Seconds = Field(300.0, description="seconds, above 0")

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.placement not in FLEXIBLE_PLACEMENTS and isinstance(self.workers, Range):
            raise ValueError(
                f'placement = "{self.placement}" needs a fixed number of workers; '
                'use "SPREAD" or "DEFAULT" with { min, max }'
            )
        if self.cpus_per_worker > 1 and self.cpus_per_worker != int(self.cpus_per_worker):
            raise ValueError("cpus_per_worker: use a fraction below 1 or a whole number")
        return self

    @property
    def least(self) -> int:
        return self.workers.min if isinstance(self.workers, Range) else self.workers

    @property
    def most(self) -> int:
        return self.workers.max if isinstance(self.workers, Range) else self.workers

    def room(self, concurrency: int) -> int:
        """Return the calls one worker may have in flight; by default an equal share of `concurrency`."""
        return self.calls_per_worker or math.ceil(concurrency / self.most)
